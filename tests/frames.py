"""A data frame as users have them: texts, numbers, booleans, dates as strings, missing values; and a model made from it."""

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

ROWS = 60


def days_since_2017(frame: pd.DataFrame) -> Any:
    """What a user's own function does with a column of dates as strings."""
    return (pd.to_datetime(frame.iloc[:, 0]) - pd.Timestamp("2017-01-01")).dt.days.to_numpy(dtype=float).reshape(-1, 1)


@cache
def customers() -> pd.DataFrame:
    """`id` is dropped by the model; `city` and `income` have gaps; `zip` is a number that stands for a category."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "id": np.arange(ROWS),
            "city": random.choice(["Oslo", "Bergen", "Tromsø"], ROWS),
            "age": random.integers(18, 80, ROWS),
            "income": random.normal(50, 9, ROWS),
            "member": random.choice([True, False], ROWS),
            "since": pd.Timestamp("2018-01-01") + pd.to_timedelta(random.integers(0, 2000, ROWS), unit="D"),
            "note": random.choice(["good stuff", "bad thing, really", "so so"], ROWS),
            "zip": random.choice([10, 20, 35], ROWS),
        }
    )
    frame["since"] = frame["since"].dt.strftime("%Y-%m-%d")
    frame.loc[::7, "income"] = np.nan
    frame.loc[::11, "city"] = None
    return frame


@cache
def churn() -> Any:
    """A pipeline over all of it, with labels that are strings."""
    frame = customers()
    columns = ColumnTransformer(
        [
            ("city", make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")), ["city"]),
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["age", "income"]),
            ("member", "passthrough", ["member"]),
            ("since", make_pipeline(FunctionTransformer(days_since_2017), StandardScaler()), ["since"]),
            ("note", TfidfVectorizer(), "note"),
            ("zip", OneHotEncoder(), ["zip"]),
        ]
    )
    labels = np.where((frame["age"] > 40) ^ (frame["city"] == "Oslo"), "leaves", "stays")
    return make_pipeline(columns, LogisticRegression(max_iter=1000)).fit(frame, labels)
