"""The model behind BentoML with adaptive batching.

    SERVING_MODEL=model.joblib bentoml serve serving_peers.bento_service:Model

A list of records goes in: with a DataFrame as its input, the dispatcher of 1.4.39 fails on the first batch and every
request waits for ever.
"""

import os
from typing import Any

import bentoml
import joblib
import pandas as pd


@bentoml.service(workers=1, traffic={"timeout": 60, "max_concurrency": 1024})
class Model:
    """One worker, which loads the model once."""

    def __init__(self) -> None:
        self.model = joblib.load(os.environ["SERVING_MODEL"])
        self.classes = self.model.classes_.tolist()
        self.names = [str(label) for label in self.classes]

    @bentoml.api(batchable=True, max_batch_size=256, max_latency_ms=1000)
    def predict(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Score rows together, those of several requests at once."""
        shares = self.model.predict_proba(pd.DataFrame(rows))
        best = shares.argmax(axis=1)
        return [
            {"prediction": self.classes[at], "probability": dict(zip(self.names, row, strict=True))}
            for at, row in zip(best.tolist(), shares.tolist(), strict=True)
        ]
