"""The classic Flask service of a model: load at import, predict in the view, jsonify. MODEL_PATH is the joblib file.

`flask run` serves it with a thread for each connection; gunicorn as its documentation sets up one core (see contender.py).
"""

import os

import joblib
import numpy as np
import pandas as pd
from flask import Flask, jsonify, request  # the peer's package is not installed where types are checked

app = Flask(__name__)
model = joblib.load(os.environ["MODEL_PATH"])


@app.get("/health/ready")  # type: ignore[untyped-decorator,unused-ignore]
def ready():  # type: ignore[no-untyped-def]
    return jsonify(status="ok")


@app.post("/predict")  # type: ignore[untyped-decorator,unused-ignore]
def predict():  # type: ignore[no-untyped-def]
    document = request.get_json()
    if "instances" in document:
        rows = np.array(document["instances"])
        return jsonify(predictions=model.predict(rows).tolist(), probabilities=model.predict_proba(rows).tolist())
    features = document["features"]
    row = pd.DataFrame([features]) if isinstance(features, dict) else np.array(features).reshape(1, -1)
    return jsonify(prediction=int(model.predict(row)[0]), probability=model.predict_proba(row)[0].tolist())
