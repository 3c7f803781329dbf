"""The classic: the service that FastAPI's tutorials write for a scikit-learn model, on stock uvicorn.

Pydantic model in, `predict` and `predict_proba` for the request's one row, pydantic model out. MODEL_PATH is the joblib
file. PREDICT chooses how the endpoint is declared: `def` (a thread per request) or `async def` (on the event loop).
Tutorials do both; the benchmark runs the one that is faster here, so that the comparison is with the better classic.
"""

import os
from collections.abc import Callable
from functools import wraps
from typing import Any

import joblib
import numpy as np
import pandas as pd
from fastapi import FastAPI
from pydantic import BaseModel


class PredictionRequest(BaseModel):
    features: list[float]


class PredictionResponse(BaseModel):
    prediction: int
    probability: list[float]


class RowsRequest(BaseModel):
    instances: list[list[float]]


class RowsResponse(BaseModel):
    predictions: list[int]
    probabilities: list[list[float]]


class RecordRequest(BaseModel):
    features: dict[str, float | str]


app = FastAPI(title="Breast cancer classifier")
model = joblib.load(os.environ["MODEL_PATH"])


@app.get("/health/ready")
def ready() -> dict[str, str]:
    return {"status": "ok"}


def predict(request: PredictionRequest) -> PredictionResponse:
    return answer(np.array(request.features).reshape(1, -1))


def predict_record(request: RecordRequest) -> PredictionResponse:
    return answer(pd.DataFrame([request.features]))


def predict_rows(request: RowsRequest) -> RowsResponse:
    rows = np.array(request.instances)
    return RowsResponse(predictions=model.predict(rows).tolist(), probabilities=model.predict_proba(rows).tolist())


def answer(row: Any) -> PredictionResponse:
    prediction = model.predict(row)
    probability = model.predict_proba(row)
    return PredictionResponse(prediction=int(prediction[0]), probability=probability[0].tolist())


def on_the_loop(endpoint: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @wraps(endpoint)
    async def called(request: Any) -> Any:
        return endpoint(request)

    return called


place = (lambda endpoint: endpoint) if os.environ.get("PREDICT") == "def" else on_the_loop
app.post("/predict", response_model=PredictionResponse)(place(predict))
app.post("/predict-record", response_model=PredictionResponse)(place(predict_record))
app.post("/predict-rows", response_model=RowsResponse)(place(predict_rows))
