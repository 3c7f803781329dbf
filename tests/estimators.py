"""Every estimator of scikit-learn, fitted on a handful of rows: what the sweep over all of them serves and compares.

Which data an estimator takes is read from its tags, so that a new one is most often fitted without a line here; what it
needs besides (another estimator within, a kernel that was computed before) stands in two short tables. scikit-learn 1.5 has
other tags than the versions after it: `_wants` knows both.
"""

import inspect
import warnings
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import pandas as pd
import sklearn
from sklearn.base import is_classifier, is_regressor
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.experimental import enable_halving_search_cv, enable_iterative_imputer  # noqa: F401 - all_estimators then knows them
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from sklearn.utils import all_estimators

OUTPUTS: Final = ("predict", "predict_proba", "decision_function", "transform")

ROWS: Final = 40
COLUMNS: Final = ("height", "width", "depth", "weight")
COLOURS: Final = ("red", "green", "blue")

_RANDOM = np.random.default_rng(7)
CLASS: Final = np.arange(ROWS) % 3
NUMBERS: Final = np.round(_RANDOM.normal(size=(ROWS, 4)) + 2.0 * CLASS[:, None], 3)
CATEGORIES: Final = np.stack([CLASS, np.arange(ROWS) // 3 % 3, _RANDOM.integers(0, 3, ROWS)], axis=1)
WORDS: Final = np.array(COLOURS, dtype=object)
TEXTS: Final = [f"a {COLOURS[i % 3]} house of {COLOURS[i % 2]} stones and {i % 5} doors" for i in range(ROWS)]
OBJECTS: Final = [{"height": i / 4, COLOURS[i % 3]: 1.0} for i in range(ROWS)]
_LABEL_SETS: Final = [[COLOURS[i % 3]] if i % 2 else [COLOURS[i % 3], COLOURS[(i + 1) % 3]] for i in range(ROWS)]

# Labels of each type, spread among the classifiers.
_LABELS: Final = (CLASS, WORDS[CLASS], CLASS > 0, np.array(["no", "yes"])[(CLASS > 0).astype(int)])
# In these, -1 means that a row has no label, so theirs are numbers.
_INTEGER_LABELS: Final = frozenset({"SelfTrainingClassifier", "LabelPropagation", "LabelSpreading"})
_TWO_LABELS: Final = frozenset({"ClassifierChain", "MultiOutputClassifier"})
_TWO_TARGETS: Final = frozenset({"CCA", "MultiOutputRegressor", "PLSCanonical", "PLSSVD", "RegressorChain"})
# Of those that take both, some are fitted with several outputs, and others on a data frame.
_ALSO_SEVERAL: Final = frozenset(
    {"DecisionTreeClassifier", "KNeighborsClassifier", "LinearRegression", "RandomForestRegressor", "PLSRegression", "RidgeCV"}
)
_NAMED: Final = frozenset(
    {"ExtraTreesClassifier", "GaussianNB", "GradientBoostingRegressor", "Lasso", "LogisticRegression", "MinMaxScaler", "PCA"}
    | {"KMeans", "IsolationForest", "SimpleImputer", "VotingClassifier"}
)
# Not said by its tag: it takes numbers over a bound only.
_POSITIVE: Final = frozenset({"SkewedChi2Sampler"})
_GIVES_FRAMES: Final = frozenset({"MinMaxScaler", "RobustScaler"})


def _mixed() -> list[tuple[str, Any, list[str]]]:
    return [("numbers", StandardScaler(), ["height", "weight"]), ("words", OneHotEncoder(), ["colour"])]


# What is within another one, and what keeps a fit short.
_ARGUMENTS: Final[Mapping[str, Callable[[], dict[str, Any]]]] = {
    "ClassifierChain": lambda: {"estimator": LogisticRegression()},
    "ColumnTransformer": lambda: {"transformers": _mixed()},
    "FeatureHasher": lambda: {"n_features": 16},
    "FeatureUnion": lambda: {"transformer_list": [("pca", PCA(2)), ("best", SelectKBest(k=1))]},
    "FixedThresholdClassifier": lambda: {"estimator": LogisticRegression(), "threshold": 0.4},
    "FrozenEstimator": lambda: {"estimator": LogisticRegression().fit(NUMBERS, CLASS)},
    "FunctionTransformer": lambda: {"func": np.square},
    "GridSearchCV": lambda: {"estimator": LogisticRegression(), "param_grid": {"C": [0.1, 1.0]}, "cv": 2},
    "HalvingGridSearchCV": lambda: {"estimator": LogisticRegression(), "param_grid": {"C": [0.1, 1.0]}, "cv": 2},
    "HalvingRandomSearchCV": lambda: {"estimator": Ridge(), "param_distributions": {"alpha": [0.1, 1.0]}, "cv": 2},
    "HashingVectorizer": lambda: {"n_features": 32},
    "GaussianRandomProjection": lambda: {"n_components": 2},
    "LocalOutlierFactor": lambda: {"novelty": True},
    "MultiOutputClassifier": lambda: {"estimator": GaussianNB()},
    "MultiOutputRegressor": lambda: {"estimator": Ridge()},
    "OneVsOneClassifier": lambda: {"estimator": LogisticRegression()},
    "OneVsRestClassifier": lambda: {"estimator": LogisticRegression()},
    "OutputCodeClassifier": lambda: {"estimator": LogisticRegression(), "random_state": 0},
    "PatchExtractor": lambda: {"patch_size": (2, 2)},
    "Pipeline": lambda: {"steps": [("scale", StandardScaler()), ("svc", SVC(random_state=0))]},
    "RFE": lambda: {"estimator": LogisticRegression()},
    "RFECV": lambda: {"estimator": LogisticRegression(), "cv": 2},
    "RadiusNeighborsClassifier": lambda: {"radius": 50.0},
    "RadiusNeighborsRegressor": lambda: {"radius": 50.0},
    "RandomizedSearchCV": lambda: {
        "estimator": KMeans(2, n_init=1),
        "param_distributions": {"n_clusters": [2, 3]},
        "n_iter": 2,
    },
    "RegressorChain": lambda: {"estimator": Ridge()},
    "SVR": lambda: {"kernel": "precomputed"},
    "SelectFromModel": lambda: {"estimator": DecisionTreeClassifier(random_state=0)},
    "SelfTrainingClassifier": lambda: {"estimator": GaussianNB()},
    "SequentialFeatureSelector": lambda: {"estimator": LinearRegression(), "cv": 2},
    "SparseRandomProjection": lambda: {"n_components": 2},
    "SparseCoder": lambda: {"dictionary": np.eye(4)},
    "StackingClassifier": lambda: {"estimators": [("nb", GaussianNB()), ("tree", DecisionTreeClassifier())], "cv": 2},
    "StackingRegressor": lambda: {"estimators": [("ridge", Ridge()), ("tree", DecisionTreeRegressor())], "cv": 2},
    "TransformedTargetRegressor": lambda: {"func": np.log1p, "inverse_func": np.expm1},
    "TunedThresholdClassifierCV": lambda: {"estimator": LogisticRegression(), "cv": 2},
    "VotingClassifier": lambda: {
        "estimators": [("logistic", LogisticRegression()), ("nb", make_pipeline(StandardScaler(), GaussianNB()))],
        "voting": "soft",
    },
    "VotingRegressor": lambda: {"estimators": [("ridge", Ridge()), ("tree", DecisionTreeRegressor())]},
}
# Given where the constructor takes them: a fit is to be the same each time, and short.
_IF_TAKEN: Final[Mapping[str, Any]] = {"random_state": 0, "n_estimators": 5}
_SHORTER: Final[Mapping[str, Mapping[str, Any]]] = {
    "HistGradientBoostingClassifier": {"max_iter": 5},
    "HistGradientBoostingRegressor": {"max_iter": 5},
    "TSNE": {"max_iter": 250, "method": "exact"},
}


def named() -> dict[str, type]:
    """Every estimator that scikit-learn has, by its name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dict(all_estimators())


def has_answers(kind: type) -> bool:
    """Whether estimators of this class have predict or transform; one that hands everything on has what is within it."""
    return any(hasattr(kind, name) for name in ("predict", "transform", "__getattr__"))


def fitted(name: str, kind: type) -> tuple[Any, Any]:
    """The estimator fitted, and a few rows of the kind that it takes: an array, a data frame or a list."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated in favour of another one
        estimator = _made(name, kind)
    wants = _wants(estimator)
    rows = _rows(name, wants)
    if name in _GIVES_FRAMES:
        estimator.set_output(transform="pandas")
    return fit(estimator, rows, None if wants & {"labels", "label sets"} else _targets(name, estimator, wants))


def fit(estimator: Any, rows: Any, targets: Any) -> tuple[Any, Any]:
    """The estimator, now fitted, and every seventh of its rows."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # too few rows to converge
        estimator.fit(*((rows,) if targets is None else (rows, targets)))
    shown = rows[::7]
    return estimator, shown.toarray() if hasattr(shown, "toarray") else shown


def outputs_of(estimator: Any) -> tuple[str, ...]:
    """The outputs that this fitted one has."""
    return tuple(name for name in OUTPUTS if hasattr(estimator, name))


def _made(name: str, kind: type) -> Any:
    arguments = _ARGUMENTS.get(name, dict)() | dict(_SHORTER.get(name, {}))
    if "estimator" in arguments and "estimator" not in inspect.signature(kind).parameters:
        arguments["base_estimator"] = arguments.pop("estimator")  # the name that some had in scikit-learn 1.5
    estimator: Any = kind(**arguments)
    takes = estimator.get_params(deep=False)
    more = {key: value for key, value in _IF_TAKEN.items() if key in takes and key not in arguments}
    # A FrozenEstimator that is given no parameters loses the one that it has.
    return estimator.set_params(**more) if more else estimator


def _wants(estimator: Any) -> frozenset[str]:
    """What data the estimator takes, in this module's words."""
    return frozenset(_tags_of_1_5(estimator) if not hasattr(sklearn.utils, "get_tags") else _tags(estimator))


def _tags(estimator: Any) -> list[str]:
    tags = sklearn.utils.get_tags(estimator)
    given, target, classifier = tags.input_tags, tags.target_tags, tags.classifier_tags
    words = {
        "positive": given.positive_only,
        "categories": given.categorical,
        "texts": given.string and not given.two_d_array,
        "objects": given.dict,
        "one column": given.one_d_array,
        "images": given.three_d_array,
        "square": given.pairwise,
        "labels": target.one_d_labels,
        "label sets": target.two_d_labels,
        "positive targets": target.positive_only,
        "several targets": not target.single_output,
        "two classes": classifier is not None and not classifier.multi_class,
    }
    return [word for word, true in words.items() if true]


def _tags_of_1_5(estimator: Any) -> list[str]:
    tags = estimator._get_tags()
    kinds = {
        "categorical": "categories",
        "string": "texts",
        "dict": "objects",
        "1darray": "one column",
        "3darray": "images",
        "1dlabels": "labels",
        "2dlabels": "label sets",
    }
    flags = {
        "requires_positive_X": "positive",
        "requires_positive_y": "positive targets",
        "pairwise": "square",
        "multioutput_only": "several targets",
        "binary_only": "two classes",
    }
    given = [kind for kind in tags["X_types"] if kind in kinds and not (kind == "string" and "2darray" in tags["X_types"])]
    return [kinds[kind] for kind in given] + [word for flag, word in flags.items() if tags[flag]]


def _rows(name: str, wants: frozenset[str]) -> Any:
    """Rows of the kind that the estimator takes."""
    if name == "ColumnTransformer":
        return pd.DataFrame(NUMBERS, columns=list(COLUMNS)).assign(colour=WORDS[CLASS])
    kinds: Mapping[str, Callable[[], Any]] = {
        "texts": lambda: TEXTS,
        "objects": lambda: OBJECTS,
        "labels": lambda: WORDS[CLASS],
        "label sets": lambda: _LABEL_SETS,
        "images": lambda: NUMBERS.repeat(4, axis=1).reshape(ROWS, 4, 4),
        "one column": lambda: NUMBERS[:, 0],
        "square": lambda: NUMBERS @ NUMBERS.T,
        "categories": lambda: WORDS[CATEGORIES] if "positive" not in wants else CATEGORIES,
        "positive": lambda: np.abs(NUMBERS) + 0.1,
    }
    if name in _POSITIVE:
        wants |= {"positive"}
    rows = next((make() for word, make in kinds.items() if word in wants), NUMBERS)
    return pd.DataFrame(rows, columns=list(COLUMNS)) if name in _NAMED else rows


def _targets(name: str, estimator: Any, wants: frozenset[str]) -> Any:
    if name in _TWO_LABELS:
        return np.stack([CLASS > 0, CLASS > 1], axis=1).astype(int)
    if is_classifier(estimator):
        labels = _LABELS[_spread(name, len(_LABELS)) if name not in _INTEGER_LABELS else 0]
        if "two classes" in wants:
            labels = _LABELS[2 + _spread(name, 2)]
        return np.stack([labels, labels[::-1]], axis=1) if name in _ALSO_SEVERAL else labels
    if not is_regressor(estimator) and "several targets" not in wants and name not in _TWO_TARGETS:
        return CLASS
    numbers = np.abs(NUMBERS @ [1.0, -2.0, 0.5, 3.0]) + 1.0
    if "several targets" in wants or name in _ALSO_SEVERAL or name in _TWO_TARGETS:
        return np.stack([numbers, NUMBERS[:, 1]], axis=1)
    return numbers


def _spread(name: str, among: int) -> int:
    return zlib.crc32(name.encode()) % among
