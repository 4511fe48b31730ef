"""The models of the bench, fitted on made-up tables with a fixed seed, and the requests that ask them.

m1
    10 mixed columns: a scaler on six numbers and one-hot codes of four texts before a logistic regression.
m2
    XGBoost, 200 trees of depth 6, 30 numbers.
m3
    A random forest of 200 trees with at least 5 rows a leaf, 30 numbers.
m4
    HistGradientBoosting, 200 iterations of depth 6, 30 numbers.
m5
    10 mixed columns through a step written in Python before a logistic regression: it cannot be compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["MODELS", "Fitted", "fit"]

ROWS = 20_000
#: Rows that are asked for: 200 distinct ones alone, and as many batches of 256 as fit into a file of some MB.
SINGLE, BATCHES, BATCH = 200, 40, 256
NUMBERS = [f"x{number}" for number in range(6)]
TEXTS = {"region": 12, "channel": 5, "priority": 4, "product": 30}
WIDE = [f"x{number}" for number in range(30)]
TARGET = "target"


@dataclass(frozen=True)
class Fitted:
    """A fitted model, its training table, and the rows it is asked for with its own answers.

    `rows` are records as they are sent; `shares` are the model's probabilities for them, shape (200, 2). `batches` are
    lists of 256 records, and `batch_shares` the probabilities for the first of them, shape (256, 2).
    """

    name: str
    estimator: Any
    table: pd.DataFrame
    rows: list[dict[str, Any]]
    shares: NDArray[np.float64]
    batches: list[list[dict[str, Any]]]
    batch_shares: NDArray[np.float64]

    @property
    def schema(self) -> dict[str, str]:
        """The inputs: `number` or `text` by name."""
        return {name: "text" if isinstance(value, str) else "number" for name, value in self.rows[0].items()}


def mixed(seed: int, rows: int) -> pd.DataFrame:
    """Return six numbers, four texts and a target of two classes, `rows` times."""
    random = np.random.default_rng(seed)
    table = pd.DataFrame(
        {name: (random.normal(3.0 * at, 1.0 + at, rows)).round(4) for at, name in enumerate(NUMBERS)}
    )
    table["priority"] = random.choice(["low", "normal", "high", "urgent"], rows)
    for name, count in TEXTS.items():
        if name != "priority":
            table[name] = [f"{name}_{number}" for number in random.integers(0, count, rows)]
    score = table["x0"] + 0.3 * (table["x1"] - 3.0) - 0.2 * (table["x5"] - 15.0)
    score += 0.9 * table["priority"].isin(["high", "urgent"]) - 0.4 * (table["channel"] == "channel_2")
    table[TARGET] = (score + random.logistic(size=rows) > 0).astype(int)
    return table


def wide(seed: int, rows: int) -> pd.DataFrame:
    """Return 30 numbers and a target of two classes that depends on some of them, and on pairs."""
    random = np.random.default_rng(seed)
    values = random.normal(0.0, 1.0, (rows, len(WIDE))).round(4)
    table = pd.DataFrame(values, columns=WIDE)
    score = values[:, :8] @ np.linspace(1.0, 0.2, 8) + values[:, 8] * values[:, 9] - np.abs(values[:, 10])
    table[TARGET] = (score + random.logistic(size=rows) > 0).astype(int)
    return table


def _linear(_seed: int) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    columns = ColumnTransformer(
        [
            ("numbers", StandardScaler(), NUMBERS),
            ("texts", OneHotEncoder(handle_unknown="ignore"), list(TEXTS)),
        ]
    )
    return Pipeline([("columns", columns), ("classifier", LogisticRegression(max_iter=1000))])


def _xgboost(seed: int) -> Any:
    from xgboost import XGBClassifier

    return XGBClassifier(n_estimators=200, max_depth=6, learning_rate=0.1, random_state=seed, subsample=0.9)


def _forest(seed: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(200, min_samples_leaf=5, random_state=seed)


def _histogram(seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(max_iter=200, max_depth=6, early_stopping=False, random_state=seed)


def _python(_seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    from serving_peers.features import engineered

    return make_pipeline(FunctionTransformer(engineered), StandardScaler(), LogisticRegression(max_iter=1000))


_Table = Callable[[int, int], pd.DataFrame]
MODELS: dict[str, tuple[_Table, Callable[[int], Any]]] = {
    "m1": (mixed, _linear),
    "m2": (wide, _xgboost),
    "m3": (wide, _forest),
    "m4": (wide, _histogram),
    "m5": (mixed, _python),
}


def fit(name: str, seed: int = 1) -> Fitted:
    """Fit one of the models; `seed` gives another version on other rows."""
    make_table, make_model = MODELS[name]
    table = make_table(seed, ROWS)
    estimator = make_model(seed).fit(table.drop(columns=TARGET), table[TARGET])
    asked = make_table(99, SINGLE + BATCHES * BATCH).drop(columns=TARGET)
    records: list[dict[str, Any]] = [
        {str(key): value for key, value in row.items()} for row in asked.to_dict("records")
    ]
    batches = [records[at : at + BATCH] for at in range(SINGLE, len(records), BATCH)]
    shares = estimator.predict_proba(asked.iloc[: SINGLE + BATCH])
    return Fitted(name, estimator, table, records[:SINGLE], shares[:SINGLE], batches, shares[SINGLE:])
