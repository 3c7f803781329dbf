"""The classic: the service that FastAPI's tutorials write for a scikit-learn model, on stock uvicorn.

Pydantic model in, `predict` and `predict_proba` for the request's one row, pydantic model out. MODEL_PATH is the joblib
file. PREDICT chooses how the endpoint is declared: `def` (a thread per request) or `async def` (on the event loop).
Tutorials do both; the benchmark runs the one that is faster here, so that the comparison is with the better classic.
"""

import os

import joblib
import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel


class PredictionRequest(BaseModel):
    features: list[float]


class PredictionResponse(BaseModel):
    prediction: int
    probability: list[float]


app = FastAPI(title="Breast cancer classifier")
model = joblib.load(os.environ["MODEL_PATH"])


@app.get("/health/ready")
def ready() -> dict[str, str]:
    return {"status": "ok"}


def predict(request: PredictionRequest) -> PredictionResponse:
    row = np.array(request.features).reshape(1, -1)
    prediction = model.predict(row)
    probability = model.predict_proba(row)
    return PredictionResponse(prediction=int(prediction[0]), probability=probability[0].tolist())


async def predict_on_the_loop(request: PredictionRequest) -> PredictionResponse:
    return predict(request)


endpoint = predict if os.environ.get("PREDICT") == "def" else predict_on_the_loop
app.post("/predict", response_model=PredictionResponse)(endpoint)
