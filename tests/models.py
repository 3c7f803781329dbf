"""Small models of every kind that the runtime serves, each written once per session into a directory of its own.

`Models` is what the fixture `models` gives: `models("iris")` is the directory, `models.estimator("iris")` and
`models.session("iris_onnx")` are the same model called directly, which is what answers are compared with.
"""

import pickle
import shutil
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import joblib
import numpy as np
import sklearn.base
import sklearn.datasets
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier, IsolationForest, RandomForestClassifier, VotingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, StandardScaler
from sklearn.svm import SVC

Array = np.ndarray[Any, np.dtype[Any]]
Builder = Callable[[], Any]

FLOWER = [5.1, 3.5, 1.4, 0.2]
"""A setosa: the row of the classic exchange."""
IRIS_COLUMNS = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
SPECIES = ["setosa", "versicolor", "virginica"]

ESTIMATORS: dict[str, Builder] = {}
GRAPHS: dict[str, Builder] = {}


class Models:
    """Writes models below `root` when they are first asked for."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __call__(self, name: str) -> Path:
        """The directory that holds the model `name`, and nothing else."""
        directory = self._root / name
        if not directory.exists():
            model = None if name in GRAPHS else estimator(name.removesuffix("_pkl"))
            directory.mkdir()
            if model is None:
                (directory / "model.onnx").write_bytes(graph_bytes(name))
            elif name.endswith("_pkl"):
                (directory / "model.pkl").write_bytes(pickle.dumps(model))
            else:
                joblib.dump(model, directory / "model.joblib")
        return directory

    def file(self, name: str) -> Path:
        """The model file itself."""
        (file,) = self(name).iterdir()
        return file

    def estimator(self, name: str) -> Any:
        return estimator(name)

    def session(self, name: str) -> Any:
        return session(name)

    def write(self, model: Any, name: str = "own") -> Path:
        """Write any object as model.joblib into a new directory."""
        directory = self._root / f"{name}-{len(list(self._root.iterdir()))}"
        directory.mkdir()
        joblib.dump(model, directory / "model.joblib")
        return directory


@cache
def estimator(name: str) -> Any:
    """The fitted scikit-learn model of that name."""
    return ESTIMATORS[name]()


@cache
def graph_bytes(name: str) -> bytes:
    """The serialised ONNX model of that name."""
    made = GRAPHS[name]()
    return made if isinstance(made, bytes) else made.SerializeToString()


@cache
def session(name: str) -> Any:
    """An ONNX Runtime session of that model, on one thread, to compare answers with."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph_bytes(name), options, providers=["CPUExecutionProvider"])


def _estimator(build: Builder) -> Builder:
    ESTIMATORS[build.__name__] = build
    return build


def _graph(build: Builder) -> Builder:
    GRAPHS[build.__name__] = build
    return build


# --- scikit-learn -----------------------------------------------------------------------------------------------------


@cache
def dataset(name: str) -> tuple[Array, Array]:
    """Rows and targets of one of scikit-learn's own data sets."""
    rows, targets = getattr(sklearn.datasets, f"load_{name}")(return_X_y=True)
    return rows, targets


@_estimator
def iris() -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(*dataset("iris"))


@_estimator
def digits() -> Any:
    return SVC(gamma=0.001).fit(*dataset("digits"))


@_estimator
def wine() -> Any:
    return RandomForestClassifier(60, random_state=0, n_jobs=-1).fit(*dataset("wine"))


@_estimator
def diabetes() -> Any:
    return make_pipeline(StandardScaler(), Ridge()).fit(*dataset("diabetes"))


@_estimator
def clusters() -> Any:
    return KMeans(3, n_init=1, random_state=0).fit(dataset("iris")[0])


@_estimator
def outliers() -> Any:
    return IsolationForest(n_estimators=20, random_state=0).fit(dataset("iris")[0])


@_estimator
def transformer() -> Any:
    return make_pipeline(StandardScaler(), PCA(2)).fit(dataset("iris")[0])


@_estimator
def sparse_transformer() -> Any:
    bins = KBinsDiscretizer(4, encode="onehot", strategy="uniform")
    return bins.fit(dataset("iris")[0])


@_estimator
def string_labels() -> Any:
    rows, targets = dataset("iris")
    return LogisticRegression(max_iter=1000).fit(rows, np.array(SPECIES)[targets])


@_estimator
def bool_labels() -> Any:
    rows, targets = dataset("iris")
    return LogisticRegression(max_iter=1000).fit(rows, targets == 0)


@_estimator
def multi_regressor() -> Any:
    rows, _ = dataset("iris")
    return LinearRegression().fit(rows[:, :2], rows[:, 2:])


@_estimator
def multi_classifier() -> Any:
    rows, targets = dataset("iris")
    return RandomForestClassifier(10, max_depth=3, random_state=0).fit(rows, np.column_stack([targets, targets > 0]))


@_estimator
def columns() -> Any:
    import pandas as pd

    rows, targets = dataset("iris")
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(pd.DataFrame(rows, columns=IRIS_COLUMNS), targets)


@_estimator
def two_columns() -> Any:
    """The sum of its columns a and b."""
    import pandas as pd

    table = pd.DataFrame({"a": [1.0, 2.0, 3.0, 5.0], "b": [2.0, 1.0, 5.0, 3.0]})
    return LinearRegression().fit(table, table["a"] + table["b"])


@_estimator
def missing_values() -> Any:
    rows, targets = dataset("iris")
    return HistGradientBoostingClassifier(max_iter=10).fit(rows, targets)


@_estimator
def neighbours() -> Any:
    vote = VotingClassifier(
        [("near", KNeighborsClassifier(n_jobs=-1)), ("forest", RandomForestClassifier(5, random_state=0, n_jobs=2))],
        voting="soft",
        n_jobs=-1,
    )
    # Trained with one job, so that no process pool starts; the pickle asks for all CPUs all the same.
    with joblib.parallel_config("threading"):
        return make_pipeline(StandardScaler(), vote).fit(*dataset("iris"))


# --- ONNX, converted from scikit-learn --------------------------------------------------------------------------------


def _converted(name: str, rows: Array, *, zipmap: bool) -> Any:
    from skl2onnx import to_onnx

    model = estimator(name)
    classifier = model[-1] if hasattr(model, "steps") else model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converter's own warnings are none of ours
        return to_onnx(model, rows[:1].astype(np.float32), options={id(classifier): {"zipmap": zipmap}}, target_opset=17)


@_graph
def iris_onnx() -> Any:
    return _converted("iris", dataset("iris")[0], zipmap=True)


@_graph
def iris_onnx_tensor() -> Any:
    return _converted("iris", dataset("iris")[0], zipmap=False)


@_graph
def wine_onnx() -> Any:
    return _converted("wine", dataset("wine")[0], zipmap=False)


@_graph
def wine_onnx_zipmap() -> Any:
    return _converted("wine", dataset("wine")[0], zipmap=True)


@_graph
def string_labels_onnx() -> Any:
    return _converted("string_labels", dataset("iris")[0], zipmap=True)


@_graph
def mixed_columns_onnx() -> Any:
    """Inputs age FP32 [n, 1] and city string [n, 1], as skl2onnx writes them for a table of mixed columns."""
    import pandas as pd
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType
    from sklearn.compose import ColumnTransformer
    from sklearn.preprocessing import OneHotEncoder

    table = pd.DataFrame(
        {
            "age": np.array([20, 30, 40, 50, 60, 70], dtype=np.float32),
            "city": np.array(["Oslo", "Rome", "Oslo", "Rome", "Bern", "Bern"], dtype=object),
        }
    )
    cities = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    prepare = ColumnTransformer([("numbers", StandardScaler(), ["age"]), ("words", cities, ["city"])])
    model = make_pipeline(prepare, LogisticRegression()).fit(table, [0, 1, 0, 1, 1, 1])
    types = [("age", FloatTensorType([None, 1])), ("city", StringTensorType([None, 1]))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return convert_sklearn(model, initial_types=types, options={"zipmap": False}, target_opset=17)


# --- ONNX, by hand ----------------------------------------------------------------------------------------------------

ELEMENTS = {
    "BOOL": "BOOL",
    "UINT8": "UINT8",
    "UINT16": "UINT16",
    "UINT32": "UINT32",
    "UINT64": "UINT64",
    "INT8": "INT8",
    "INT16": "INT16",
    "INT32": "INT32",
    "INT64": "INT64",
    "FP16": "FLOAT16",
    "FP32": "FLOAT",
    "FP64": "DOUBLE",
    "BYTES": "STRING",
}
"""The datatypes of the V2 protocol, and ONNX's names for them."""

Value = tuple[str, str, Sequence[int | str]]


def _model(nodes: Sequence[Any], inputs: Sequence[Value], outputs: Sequence[Value], constants: Sequence[Any] = ()) -> Any:
    from onnx import TensorProto, helper

    def infos(values: Sequence[Value]) -> list[Any]:
        return [helper.make_tensor_value_info(n, getattr(TensorProto, ELEMENTS[t]), list(s)) for n, t, s in values]

    graph = helper.make_graph(list(nodes), "test", infos(inputs), infos(outputs), list(constants))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _node(operator: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> Any:
    from onnx import helper

    return helper.make_node(operator, list(inputs), list(outputs), **attributes)


def _constant(name: str, values: Array) -> Any:
    from onnx import numpy_helper

    return numpy_helper.from_array(values, name)


def _identity(datatype: str) -> Builder:
    return lambda: _model([_node("Identity", ["x"], ["y"])], [("x", datatype, ["n", 3])], [("y", datatype, ["n", 3])])


for _datatype in ELEMENTS:
    GRAPHS[f"identity_{_datatype}"] = _identity(_datatype)


@_graph
def all_datatypes() -> Any:
    """One input in_X and one output out_X for every datatype X, each [n, 2]."""
    nodes = [_node("Identity", [f"in_{name}"], [f"out_{name}"]) for name in ELEMENTS]
    inputs = [(f"in_{name}", name, ["n", 2]) for name in ELEMENTS]
    return _model(nodes, inputs, [(f"out_{name}", name, ["n", 2]) for name in ELEMENTS])


@_graph
def add_sub() -> Any:
    nodes = [_node("Add", ["a", "b"], ["sum"]), _node("Sub", ["a", "b"], ["difference"])]
    shape = ["n", 4]
    inputs = [("a", "FP32", shape), ("b", "FP32", shape)]
    return _model(nodes, inputs, [("sum", "FP32", shape), ("difference", "FP32", shape)])


@_graph
def fixed_batch_1() -> Any:
    return _model([_node("Add", ["x", "x"], ["double"])], [("x", "FP32", [1, 3])], [("double", "FP32", [1, 3])])


@_graph
def fixed_batch_4() -> Any:
    return _model([_node("Add", ["x", "x"], ["double"])], [("x", "FP32", [4, 3])], [("double", "FP32", [4, 3])])


@_graph
def no_batch_axis() -> Any:
    """A 3 x 2 matrix in, the sums of its columns out: axis 0 is no row axis."""
    total = _node("ReduceSum", ["x", "axes"], ["sums"], keepdims=0)
    return _model([total], [("x", "FP32", [3, 2])], [("sums", "FP32", [2])], [_constant("axes", np.array([0]))])


@_graph
def dynamic_trailing() -> Any:
    """Rows of any length in, each row's sum and each row doubled out."""
    nodes = [_node("ReduceSum", ["x", "axes"], ["total"], keepdims=0), _node("Add", ["x", "x"], ["double"])]
    outputs = [("total", "FP32", ["n"]), ("double", "FP32", ["n", "length"])]
    return _model(nodes, [("x", "FP32", ["n", "length"])], outputs, [_constant("axes", np.array([1]))])


@_graph
def two_in_one_out() -> Any:
    """The model of the Open Inference Protocol's examples: its output is the same whatever comes."""
    answer = _constant("answer", np.array([[1.0, 1.1], [2.0, 2.1], [3.0, 3.1]], np.float32))
    nodes = [
        _node("Cast", ["input0"], ["a"], to=1),
        _node("ReduceSum", ["a"], ["total"], keepdims=0),
        _node("Cast", ["input1"], ["b"], to=1),
        _node("ReduceSum", ["b"], ["count"], keepdims=0),
        _node("Add", ["total", "count"], ["both"]),
        _node("Mul", ["both", "zero"], ["nothing"]),
        _node("Add", ["answer", "nothing"], ["output0"]),
    ]
    inputs = [("input0", "UINT32", [2, 2]), ("input1", "BOOL", [3])]
    return _model(nodes, inputs, [("output0", "FP32", [3, 2])], [answer, _constant("zero", np.array(0, np.float32))])


@_graph
def half_plus_three() -> Any:
    """TensorFlow Serving's toy: half of each number, plus three."""
    nodes = [_node("Mul", ["x", "half"], ["halves"]), _node("Add", ["halves", "three"], ["y"])]
    constants = [_constant("half", np.array(0.5, np.float32)), _constant("three", np.array(3, np.float32))]
    return _model(nodes, [("x", "FP32", ["n"])], [("y", "FP32", ["n"])], constants)


@_graph
def three_kinds() -> Any:
    """A text, a vector and a matrix a row in, as TensorFlow Serving's documentation has them; the text and both sums out."""
    nodes = [
        _node("Identity", ["tag"], ["name"]),
        _node("ReduceSum", ["signal", "one"], ["signals"], keepdims=0),
        _node("ReduceSum", ["sensor", "two"], ["sensors"], keepdims=0),
    ]
    inputs = [("tag", "BYTES", ["n"]), ("signal", "FP32", ["n", 5]), ("sensor", "FP32", ["n", 2, 2])]
    outputs = [("name", "BYTES", ["n"]), ("signals", "FP32", ["n"]), ("sensors", "FP32", ["n"])]
    return _model(nodes, inputs, outputs, [_constant("one", np.array([1])), _constant("two", np.array([1, 2]))])


@_graph
def text_and_vector() -> Any:
    """Columns a and b, a text and three numbers a row, as MLflow's documentation has them; each row's sum out."""
    nodes = [_node("Identity", ["a"], ["names"]), _node("ReduceSum", ["b", "one"], ["sums"], keepdims=0)]
    outputs = [("names", "BYTES", ["n"]), ("sums", "INT64", ["n"])]
    return _model(nodes, [("a", "BYTES", ["n"]), ("b", "INT64", ["n", 3])], outputs, [_constant("one", np.array([1]))])


@_graph
def rows_of_pairs() -> Any:
    return _model([_node("Add", ["x", "x"], ["double"])], [("x", "FP32", ["n", 1, 2])], [("double", "FP32", ["n", 1, 2])])


@_graph
def texts() -> Any:
    return _model([_node("Identity", ["x"], ["y"])], [("x", "BYTES", ["n"])], [("y", "BYTES", ["n"])])


@_graph
def totals() -> Any:
    """Rows of any length in, each row's sum out."""
    node = _node("ReduceSum", ["x", "axes"], ["total"], keepdims=0)
    return _model([node], [("x", "FP32", ["n", "length"])], [("total", "FP32", ["n"])], [_constant("axes", np.array([1]))])


@_graph
def scalar() -> Any:
    return _model([_node("Add", ["x", "x"], ["double"])], [("x", "FP32", [])], [("double", "FP32", [])])


@_graph
def image() -> Any:
    """SqueezeNet with constant weights, from the onnx package: [1, 3, 224, 224] in, [1, 1000, 1, 1] out."""
    import onnx.backend.test

    return (Path(onnx.backend.test.__file__).parent / "data" / "light" / "light_squeezenet.onnx").read_bytes()


@_graph
def small_image() -> Any:
    """A convolution with random weights over 3 x 16 x 16 images, the mean of each of four channels."""
    kernels = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    nodes = [
        _node("Conv", ["image", "kernels"], ["features"]),
        _node("Relu", ["features"], ["positive"]),
        _node("GlobalAveragePool", ["positive"], ["pooled"]),
        _node("Flatten", ["pooled"], ["scores"]),
    ]
    inputs = [("image", "FP32", ["n", 3, 16, 16])]
    return _model(nodes, inputs, [("scores", "FP32", ["n", 4])], [_constant("kernels", kernels)])


def copy_model(source: Path, target: Path) -> Path:
    """Copy a model file under another name; the directory is made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)
    return target


def dump_as_of(version: str, model: Any, path: Path, **options: Any) -> Path:
    """Write a model as if another scikit-learn had made it: by what its estimators say of themselves."""
    with mock.patch.object(sklearn.base, "__version__", version):
        joblib.dump(model, path, **options)
    return path
