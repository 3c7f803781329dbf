"""Estimators as people fit them beside their defaults: other types of labels and columns, texts, several outputs, missing
values. Served and compared in the same sweep as every estimator by its defaults; each was a defect once or is next to one.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier, VotingClassifier
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.gaussian_process.kernels import RBF
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LinearRegression, LogisticRegression, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier, RadiusNeighborsClassifier, RadiusNeighborsRegressor
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    LabelBinarizer,
    LabelEncoder,
    OneHotEncoder,
    OrdinalEncoder,
    PowerTransformer,
    StandardScaler,
    TargetEncoder,
)
from sklearn.svm import SVC

from tests.estimators import CATEGORIES, CLASS, COLUMNS, NUMBERS, OBJECTS, TEXTS, WORDS

_COLOURS: Final = WORDS[CLASS]
_STRINGS: Final = WORDS[CATEGORIES]
_FAR: Final = np.array([[5, 70], [7, 90], [9, 110]])[CLASS]  # categories that are neither 0 nor 1
_HOLES: Final = np.where(NUMBERS > 3, np.nan, NUMBERS)
_FRAME: Final = pd.DataFrame(NUMBERS, columns=list(COLUMNS))
_TWO: Final = np.stack([CLASS > 0, CLASS > 1], axis=1).astype(int)

# The estimator, what it is fitted on, and its targets.
VARIANTS: Final[Mapping[str, Callable[[], tuple[Any, Any, Any]]]] = {
    # one value a row
    "LabelEncoder-integers": lambda: (LabelEncoder(), CLASS * 3 + 5, None),
    "LabelEncoder-booleans": lambda: (LabelEncoder(), CLASS > 0, None),
    "LabelBinarizer-integers": lambda: (LabelBinarizer(), CLASS * 3 + 5, None),
    "LabelBinarizer-booleans": lambda: (LabelBinarizer(), CLASS > 0, None),
    "LabelBinarizer-sparse": lambda: (LabelBinarizer(sparse_output=True), _COLOURS, None),
    "IsotonicRegression-pipeline": lambda: (make_pipeline(IsotonicRegression()), NUMBERS[:, 0], CLASS),
    # columns of categories
    "OneHotEncoder-integers": lambda: (OneHotEncoder(), _FAR, None),
    "OneHotEncoder-numbers": lambda: (OneHotEncoder(), _FAR + 0.5, None),
    "OneHotEncoder-booleans": lambda: (OneHotEncoder(), CATEGORIES > 0, None),
    "OneHotEncoder-fixed-length-strings": lambda: (OneHotEncoder(), _STRINGS.astype(str), None),
    "OneHotEncoder-unknown-ignored": lambda: (OneHotEncoder(handle_unknown="ignore"), _STRINGS, None),
    "OneHotEncoder-frame": lambda: (
        OneHotEncoder(sparse_output=False).set_output(transform="pandas"),
        pd.DataFrame(_STRINGS, columns=["roof", "wall", "door"]),
        None,
    ),
    "OrdinalEncoder-integers": lambda: (OrdinalEncoder(), _FAR, None),
    "OrdinalEncoder-unknown-value": lambda: (
        OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
        _STRINGS,
        None,
    ),
    "TargetEncoder-integers": lambda: (TargetEncoder(random_state=0), _FAR, CLASS > 1),
    "Pipeline-categories": lambda: (make_pipeline(OneHotEncoder(), LogisticRegression()), _STRINGS, CLASS),
    "Pipeline-integer-categories": lambda: (make_pipeline(OneHotEncoder(), LogisticRegression()), _FAR, CLASS),
    "SimpleImputer-strings": lambda: (SimpleImputer(strategy="most_frequent"), _STRINGS, None),
    "Pipeline-imputed-strings": lambda: (
        make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"), LogisticRegression()),
        _STRINGS,
        CLASS,
    ),
    # where zeros and ones are no rows
    "RadiusNeighborsClassifier-far": lambda: (RadiusNeighborsClassifier(), NUMBERS + 100, CLASS),
    "RadiusNeighborsRegressor-far": lambda: (RadiusNeighborsRegressor(), NUMBERS + 100, NUMBERS[:, 0]),
    "PowerTransformer-positive": lambda: (PowerTransformer("box-cox"), np.abs(NUMBERS) + 0.1, None),
    "Pipeline-logarithm": lambda: (
        make_pipeline(FunctionTransformer(np.log), LogisticRegression()),
        np.abs(NUMBERS) + 0.1,
        CLASS,
    ),
    "SVC-kernel-function": lambda: (SVC(kernel=RBF()), NUMBERS, CLASS),
    "SVC-sparse": lambda: (SVC(), sparse.csr_matrix(NUMBERS), CLASS),
    "KNeighborsClassifier-precomputed": lambda: (
        KNeighborsClassifier(metric="precomputed"),
        np.abs(NUMBERS[:, :1] - NUMBERS[:, 0]),
        CLASS,
    ),
    # texts
    "Pipeline-texts": lambda: (make_pipeline(TfidfVectorizer(), LogisticRegression()), TEXTS, _COLOURS),
    "Pipeline-hashed-texts": lambda: (
        make_pipeline(HashingVectorizer(n_features=32), SGDClassifier(random_state=0)),
        TEXTS,
        _COLOURS,
    ),
    "GridSearchCV-texts": lambda: (
        GridSearchCV(make_pipeline(TfidfVectorizer(), MultinomialNB()), {"multinomialnb__alpha": [0.1, 1.0]}, cv=2),
        TEXTS,
        _COLOURS,
    ),
    "FeatureUnion-texts": lambda: (
        FeatureUnion([("words", CountVectorizer()), ("letters", TfidfVectorizer(analyzer="char_wb"))]),
        TEXTS,
        None,
    ),
    "Pipeline-text-column": lambda: (
        make_pipeline(
            ColumnTransformer([("texts", TfidfVectorizer(), "text"), ("numbers", StandardScaler(), ["size"])]),
            LogisticRegression(),
        ),
        pd.DataFrame({"text": TEXTS, "size": NUMBERS[:, 0]}),
        CLASS,
    ),
    # objects
    "Pipeline-objects": lambda: (make_pipeline(DictVectorizer(), LogisticRegression()), OBJECTS, _COLOURS),
    # labels
    "LogisticRegression-number-labels": lambda: (LogisticRegression(), NUMBERS, CLASS.astype(float)),
    "LogisticRegression-small-integers": lambda: (LogisticRegression(), NUMBERS, CLASS.astype(np.uint8)),
    "LogisticRegression-not-ascii": lambda: (LogisticRegression(), NUMBERS, np.array(["ä", "日本", "\0x"])[CLASS]),
    "RandomForestClassifier-pandas-strings": lambda: (
        RandomForestClassifier(5, random_state=0),
        NUMBERS,
        pd.Series(_COLOURS, dtype="string"),
    ),
    "LogisticRegression-pandas-integers": lambda: (LogisticRegression(), NUMBERS, pd.Series(CLASS, dtype="Int64")),
    "LogisticRegression-pandas-booleans": lambda: (LogisticRegression(), NUMBERS, pd.Series(CLASS > 0, dtype="boolean")),
    # several outputs
    "RandomForestClassifier-several": lambda: (
        RandomForestClassifier(5, random_state=0),
        NUMBERS,
        np.stack([CLASS, CLASS > 0], axis=1),  # of 3 and of 2 classes
    ),
    "MultiOutputClassifier-strings": lambda: (
        MultiOutputClassifier(LogisticRegression()),
        NUMBERS,
        WORDS[np.stack([CLASS, CLASS[::-1]], axis=1)],
    ),
    "OneVsRestClassifier-label-sets": lambda: (OneVsRestClassifier(LogisticRegression()), NUMBERS, _TWO),
    "OneVsRestClassifier-sparse-label-sets": lambda: (
        OneVsRestClassifier(LogisticRegression()),
        NUMBERS,
        sparse.csr_matrix(_TWO),
    ),
    "LinearRegression-one-column": lambda: (LinearRegression(), NUMBERS, NUMBERS[:, :1]),
    "VotingClassifier-hard": lambda: (
        VotingClassifier([("nb", GaussianNB()), ("logistic", LogisticRegression())]),
        NUMBERS,
        _COLOURS,
    ),
    # missing values
    "HistGradientBoostingClassifier-missing": lambda: (HistGradientBoostingClassifier(max_iter=3), _HOLES, CLASS),
    "SimpleImputer-missing": lambda: (SimpleImputer(add_indicator=True), _HOLES, None),
    "MissingIndicator-missing": lambda: (MissingIndicator(), _HOLES, None),
    # pipelines
    "Pipeline-ends-with-a-transformer": lambda: (Pipeline([("scale", StandardScaler()), ("rest", None)]), NUMBERS, None),
    "Pipeline-frames-within": lambda: (
        make_pipeline(StandardScaler().set_output(transform="pandas"), LogisticRegression()),
        _FRAME,
        CLASS,
    ),
}
