"""What monitors and the gate make of a log from which a field was left out."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from four_modes import wine, wine_version

from loopwright.config import Project
from loopwright.deploy.base import publish
from loopwright.ledger import Ledger
from loopwright.monitor.results import Results
from loopwright.monitor.run import tick
from loopwright.predictions import Ids, LabelLog, PredictionLog, Predictions, PredictionStore
from loopwright.predictions.privacy import Privacy, secret_of
from loopwright.records import Deployment, Label, Mode, ModelVersion, Release, ReleaseState, Variant, now
from loopwright.release.evaluate import evaluate

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
API = "wine-api"
TOML = """
[model.wine]
target = "grower"

[deployment.wine-api]
model = "wine"
mode = "online"
log = { drop = ["hue"] }

[monitor.wine]
window = "1h"
"""
TABLE = wine()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a project with two versions, the first of them served, whose log has no hue."""
    root = tmp_path_factory.mktemp("hidden")
    (root / "loopwright.toml").write_text(TOML)
    made = Project(root)
    wine_version(made)
    wine_version(made, seed_rows=120)
    ledger = Ledger.open(made)
    publish(ledger, Deployment(API, "wine", Mode.online, (Variant("champion", 1),)))
    ledger.close()
    return made


def answer(project: Project, at: datetime, version: ModelVersion) -> None:
    """Log the training rows as answered at a moment, each with its label."""
    signature = version.signature
    assert signature is not None
    n = len(TABLE)
    at_us = int(at.timestamp() * 1e6)
    rows = Predictions(
        prediction_id=Ids.open(project).new(n, at_us),
        at_us=np.full(n, at_us),
        version=np.ones(n, np.int32),
        variant=["champion"] * n,
        propensity=np.ones(n),
        entity=[""] * n,
        latency_ms=np.ones(n, np.float32),
        inputs={name: TABLE[name].to_numpy() for name in signature.names},
        prediction=TABLE["grower"].to_numpy(object),
    )
    privacy = Privacy(project.deployment(API).log, signature, secret_of(project))
    kept = privacy.apply(rows)
    assert kept is not None
    log, labels = PredictionLog(project, API, "wine", signature), LabelLog(project)
    log.append(kept)
    labels.append(
        [Label(one, str(label)) for one, label in zip(rows.prediction_id, TABLE["grower"], strict=True)]
    )
    log.close()
    labels.close()


def test_a_field_that_is_not_logged_is_no_drift_and_no_ground_for_a_gate(project: Project) -> None:
    """Only missing values are no alarm where the log leaves the field out; the gate says that it cannot judge."""
    ledger = Ledger.open(project)
    state = ledger.get("model_version", "wine/1")
    assert state is not None
    start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    answer(project, start + timedelta(minutes=10), state.read(ModelVersion))
    store = PredictionStore(project)
    assert store.table()["input_hue"].null_count == len(TABLE)
    tick(project, ledger, store, start + timedelta(hours=1, minutes=1))
    found = Results(ledger).signals(API, check="drift")
    assert len(found) == 12
    assert "hue" not in {signal.subject for signal in Results(ledger).signals(API)}
    assert not any(signal.fired for signal in found)

    began = now()
    release = Release(
        "r1", "wine", API, ReleaseState.evaluating, "test", began, began, champion=1, candidate=2
    )
    ledger.put("release", API, release)
    result = evaluate(project, API, "r1")
    assert not result.passed
    assert result.reasons == ("the log does not keep hue, so its rows cannot be scored again",)
    ledger.close()
