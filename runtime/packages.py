"""What is known of packages, as data: which package an import comes from, and which Pythons scikit-learn has wheels for.

`remedies.py` takes from here the lines that a user is told to add. A name that is missing here is never guessed at: a
package of the same name as a user's own module may be anybody's.
"""

from collections.abc import Mapping
from typing import Final

# Where the import's name is not the package's.
_RENAMED: Final[Mapping[str, str]] = {
    "Bio": "biopython",
    "Crypto": "pycryptodome",
    "PIL": "pillow",
    "attr": "attrs",
    "boruta": "Boruta",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python-headless",
    "daal4py": "daal4py",
    "dask_ml": "dask-ml",
    "dateutil": "python-dateutil",
    "deslib": "DESlib",
    "dotenv": "python-dotenv",
    "feature_engine": "feature-engine",
    "flaml": "FLAML",
    "imblearn": "imbalanced-learn",
    "mapie": "MAPIE",
    "minisom": "MiniSom",
    "sentence_transformers": "sentence-transformers",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "sklearn_crfsuite": "sklearn-crfsuite",
    "sklearn_pandas": "sklearn-pandas",
    "sklearnex": "scikit-learn-intelex",
    "sklego": "scikit-lego",
    "skmultilearn": "scikit-multilearn",
    "skopt": "scikit-optimize",
    "sksurv": "scikit-survival",
    "tpot": "TPOT",
    "umap": "umap-learn",
    "unidecode": "Unidecode",
    "yaml": "PyYAML",
}

_SAME: Final = (
    "catboost category_encoders cloudpickle dill econml emoji fasttext featuretools formulaic ftfy gensim geopandas glum "
    "gplearn h5py hdbscan holidays imodels interpret jieba joblib keras kmodes lifelines lightgbm lightning linearmodels lz4 "
    "mlxtend mord networkx ngboost nltk numba numpy onnxruntime optbinning optuna pandas patsy pmdarima polars prophet "
    "pyarrow pygam pyod rapidfuzz rdkit regex scipy shap shapely six skops skorch sktime spacy statsmodels sympy tables "
    "tensorflow textblob tokenizers toad torch transformers tsfresh tslearn woodwork xgboost"
)

PACKAGES: Final[Mapping[str, str]] = {**{name: name for name in _SAME.split()}, **_RENAMED}
"""From a top-level module to the package on PyPI that holds it."""

SCIKIT_LEARN_WHEELS: Final[Mapping[str, tuple[int, int]]] = {
    "1.5.0": (9, 12),
    "1.5.1": (9, 12),
    "1.5.2": (9, 13),
    "1.6.0": (9, 13),
    "1.6.1": (9, 13),
    "1.7.0": (10, 13),
    "1.7.1": (10, 13),
    "1.7.2": (10, 14),
    "1.8.0": (11, 14),
    "1.9.0": (11, 14),
    "1.9.1": (11, 14),
}
"""Release -> the first and the last minor version of Python 3 with a wheel for Linux on PyPI: what
`pip install --dry-run --no-deps --only-binary=:all: --python-version 3.Y --target x scikit-learn==X` finds, on 2026-11-22."""

FIRST_PYTHON: Final = 11
"""The first minor version of Python 3 that this runtime works with."""
