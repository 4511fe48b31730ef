"""The usual way to put a model behind HTTP: FastAPI, pydantic, pandas and joblib, on uvicorn.

    SERVING_MODEL=model.joblib SERVING_SCHEMA=schema.json uvicorn serving_peers.fastapi_app:app

Written with care: typed records, a synchronous endpoint so that FastAPI takes it to its threads, one frame and one call
of the model for all rows of a request.
"""

import json
import os
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
from fastapi import FastAPI
from pydantic import BaseModel, create_model

TYPES: dict[str, type] = {"number": float, "text": str}

model = joblib.load(os.environ["SERVING_MODEL"])
classes = model.classes_.tolist()
names = [str(label) for label in classes]
fields: dict[str, Any] = {
    name: (TYPES[kind], ...)
    for name, kind in json.loads(Path(os.environ["SERVING_SCHEMA"]).read_text()).items()
}
Record = create_model("Record", **fields)


class Answer(BaseModel):
    """One prediction."""

    prediction: int
    probability: dict[str, float]


app = FastAPI()


def answers(rows: list[Any]) -> list[Answer]:
    """Score rows together."""
    shares = model.predict_proba(pd.DataFrame([row.model_dump() for row in rows]))
    best = shares.argmax(axis=1)
    return [
        Answer(prediction=classes[at], probability=dict(zip(names, row, strict=True)))
        for at, row in zip(best.tolist(), shares.tolist(), strict=True)
    ]


@app.post("/predict")
def predict(row: Record) -> Answer:  # type: ignore[valid-type]
    """Score one row."""
    return answers([row])[0]


@app.post("/predict_many")
def predict_many(rows: list[Record]) -> list[Answer]:  # type: ignore[valid-type]
    """Score several rows."""
    return answers(rows)
