"""A project whose deployment is watched: a registered version with its profile, predictions and labels at given times."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from loopwright.config import Project
from loopwright.ledger import Ledger
from loopwright.predictions import Ids, LabelLog, PredictionLog, Predictions
from loopwright.records import Column, Deployment, Label, Mode, ModelVersion, Signature, Task, Variant
from loopwright.registry.profile import profile_of

API, MODEL = "shop-api", "shop"
SHOP = Signature(
    (
        Column("age", "double"),
        Column("spent", "double"),
        Column("visits", "long", required=False),
        Column("city", "string"),
        Column("member", "boolean"),
    ),
    Task.classification,
    "buys",
    (0, 1),
)
CITIES = ("berlin", "rome", "oslo", "paris")
#: The first window starts here.
START = datetime(2026, 3, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)
TOML = """
[model.shop]
target = "buys"

[deployment.shop-api]
model = "shop"
mode = "{mode}"
{deployment}

[monitor.shop]
window = "1h"
{monitor}
"""


def shop_inputs(n: int, random: np.random.Generator) -> dict[str, NDArray[Any]]:
    """Return inputs of n rows as they are in training."""
    cities = np.array(CITIES, object)[random.choice(4, n, p=(0.4, 0.3, 0.2, 0.1))]
    return {
        "age": random.normal(40, 10, n),
        "spent": random.lognormal(3, 1, n),
        "visits": random.poisson(4, n).astype(np.int64),
        "city": cities,
        "member": random.random(n) < 0.3,
    }


class Shop:
    """The project, its ledger, and what writes into its log. `close` it."""

    def __init__(
        self,
        folder: Path,
        *,
        monitor: str = "",
        deployment: str = "",
        mode: str = "online",
        versions: int = 1,
        ledger: str = "",
        trained_accuracy: float = 0.9,
    ) -> None:
        (folder / "loopwright.toml").write_text(
            TOML.format(mode=mode, deployment=deployment, monitor=monitor), encoding="utf-8"
        )
        self.project = Project(folder)
        self.ledger = Ledger(ledger, actor="test") if ledger else Ledger.open(self.project, actor="test")
        random = np.random.default_rng(0)
        training = shop_inputs(5000, random)
        chance = random.random(5000)
        profile = profile_of(
            training, SHOP, (chance > 0.5).astype(np.int64), performance={"accuracy": trained_accuracy}
        )
        for version in range(1, versions + 1):
            path = self.project.scorer(MODEL, version)
            path.mkdir(parents=True)
            (path / "profile.json").write_bytes(msgspec.json.encode(profile))
            known = ModelVersion(MODEL, version, f"run{version}", "file:///none", signature=SHOP)
            self.ledger.put("model_version", known.ref, known)
        self.profile = profile
        self.serve(1, mode)
        self.log = PredictionLog(self.project, API, MODEL, SHOP)
        self.labels = LabelLog(self.project)
        self._random = np.random.default_rng(1)

    def serve(self, version: int, mode: str = "online") -> None:
        """Make a version champion, as if the deployment had been started at `START`."""
        served = Deployment(API, MODEL, Mode(mode), (Variant("champion", version),), changed=START)
        self.ledger.put("deployment", API, served)

    def answer(
        self,
        at: datetime,
        n: int = 400,
        *,
        within: timedelta = timedelta(minutes=50),
        version: int = 1,
        accuracy: float = 0.9,
        labelled: float = 1.0,
        **changed: Any,
    ) -> list[str]:
        """Log n predictions from `at` on, of which a share is right and a share has labels; return their ids.

        `changed` replaces inputs: by an array, or by a function of the array.
        """
        random = self._random
        inputs = shop_inputs(n, random)
        for name, how in changed.items():
            inputs[name] = how(inputs[name]) if callable(how) else how
        start = round(at.timestamp() * 1e6)
        at_us = start + (np.arange(n) * (within.total_seconds() * 1e6 / max(1, n))).astype(np.int64)
        prediction = (random.random(n) > 0.5).astype(np.int64)
        sure = random.uniform(0.8, 1.0, n)
        right = random.random(n) < accuracy
        ids = Ids.open(self.project).new(n, start)
        rows = Predictions(
            prediction_id=ids,
            at_us=at_us,
            version=np.full(n, version, np.int32),
            variant=["champion"] * n,
            propensity=np.ones(n),
            entity=[""] * n,
            latency_ms=random.lognormal(0, 0.5, n).astype(np.float32),
            inputs=inputs,
            prediction=prediction,
            probability=np.where(prediction[:, None] == np.arange(2), sure[:, None], 1 - sure[:, None]),
        )
        self.log.append(rows)
        truth = np.where(right, prediction, 1 - prediction)
        some = int(labelled * n)
        if some:
            self.labels.append([Label(ids[row], int(truth[row])) for row in range(some)])
        return list(ids)

    def close(self) -> None:
        """Close what was opened."""
        self.log.close()
        self.labels.close()
        self.ledger.close()
