"""Online, batch, stream and edge: one log, one follower, the same checks with the same findings."""

import json
import socket
import tarfile
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from four_modes import new_project, serve, wine, wine_version
from serving_worker import Worker

from loopwright.config import Project
from loopwright.deploy import batch, edge
from loopwright.deploy.base import Predictor
from loopwright.deploy.edge.outbox import Outbox
from loopwright.deploy.edge.predict import Predictor as DevicePredictor
from loopwright.deploy.stream import source
from loopwright.deploy.stream.base import open_channel
from loopwright.deploy.stream.consumer import Consumer
from loopwright.ledger import Ledger
from loopwright.monitor.live import Follower, LiveNumbers
from loopwright.monitor.results import Results
from loopwright.monitor.run import judge_span
from loopwright.predictions import Ids, PredictionStore
from loopwright.records import now

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
MODES = ("wine-online", "wine-batch", "wine-stream", "wine-edge")
MORE = """
[deployment.wine-online]
model = "wine"
mode = "online"

[monitor.wine]
window = "10m"
[monitor.wine.performance]
label_delay = "1m"
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return a project that serves wine/1 in all four modes."""
    monkeypatch.delenv("LOOPWRIGHT_LEDGER", raising=False)
    path = new_project(tmp_path).root / "loopwright.toml"
    path.write_text(path.read_text() + MORE)
    project = Project(tmp_path)
    wine_version(project)
    for name in MODES:
        serve(project, name, 1)
    return project


@pytest.fixture
def table() -> pd.DataFrame:
    """Return rows whose alcohol is not what it was, and of whose hue a quarter is above all training."""
    rows = wine().drop(columns="grower")
    return rows.assign(
        alcohol=rows["alcohol"] + 2.0, hue=np.where(np.arange(len(rows)) % 4, rows["hue"], 9.0)
    )


@pytest.fixture
def worker(project: Project) -> Iterator[Worker]:
    """Run a serving worker."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = Worker(project, listener)
        running.wait()
        yield running
        running.stop()


def _answer_everywhere(project: Project, ledger: Ledger, worker: Worker, table: pd.DataFrame) -> None:
    """Let each mode answer the same rows, the way its users do."""
    rows: list[dict[str, Any]] = table.to_dict("records")  # type: ignore[assignment]
    for row in rows:
        assert worker.ask("POST", "/predict/wine-online", row)[0] == 200
    table.to_parquet(project.root / "rows.parquet")
    batch.run(project, "wine-batch")
    channel = open_channel(project, "wine-stream")
    predictor = Predictor(project, "wine-stream", ledger=ledger, ids=Ids.open(project), worker="test")
    predictor.refresh()
    sender = source(project, "wine-stream")
    sender.publish([(str(number), json.dumps(row).encode()) for number, row in enumerate(rows)])
    consumer = Consumer(predictor, channel, ids=Ids.open(project), ledger=ledger)
    while channel.lag():
        consumer.step()
    sender.close()
    channel.close()
    predictor.close()
    with tarfile.open(edge.bundle(project, "wine-edge", 1)) as packed:
        packed.extractall(project.root / "device", filter="data")
    outbox = Outbox(project.root / "answers.db", device="cellar")
    device = DevicePredictor(project.root / "device", outbox)
    for row in rows:
        device.predict([row])
    outbox.export(project.root / "answers.jsonl")
    outbox.close()
    assert edge.import_answers(project, project.root / "answers.jsonl", ledger=ledger).imported == len(rows)


def test_all_modes_are_logged_counted_and_judged_alike(
    project: Project, worker: Worker, table: pd.DataFrame
) -> None:
    """The same rows give the same live numbers, the same checks and the same findings in every mode."""
    ledger = Ledger.open(project)
    began = now()
    _answer_everywhere(project, ledger, worker, table)
    follower = Follower(project, ledger)
    assert follower.turn(now(), seconds=30) == 4 * len(table)
    numbers = LiveNumbers(ledger, project)
    assert numbers.totals() == {(name, 1): len(table) for name in MODES}
    later = now() + timedelta(minutes=30)
    blocks = [numbers.block(name, 1, began - timedelta(minutes=10), later) for name in MODES]
    for block in blocks[1:]:
        for column in (*table.columns, "prediction", "score"):
            one, other = block.column(str(column)), blocks[0].column(str(column))
            assert one is not None
            assert other is not None
            assert np.array_equal(one.bins, other.bins), (column, one.bins, other.bins)
    assert all(block.latency(0.5) for block in blocks)
    found = {name: _judged(project, ledger, name, began, later) for name in MODES}
    assert {"drift", "out_of_range"} <= {check for check, _ in found["wine-online"]}
    assert ("drift", "alcohol") in found["wine-online"]
    assert ("out_of_range", "hue") in found["wine-online"]
    for name in MODES[1:]:
        assert found[name] == found["wine-online"]


def _judged(
    project: Project, ledger: Ledger, name: str, since: datetime, later: datetime
) -> set[tuple[str, str]]:
    """Judge the windows of a deployment, and return what fired: check and subject."""
    judge_span(project, ledger, PredictionStore(project), name, since - timedelta(minutes=10), later, later)
    results = Results(ledger)
    windows = [one for one in results.windows(name, "inputs") if one.state == "judged"]
    assert sum(one.rows for one in windows) == 178
    assert not [failed for one in windows for failed in one.failed]
    return {(one.check, one.subject) for one in results.signals(name, fired=True) if one.check != "volume"}
