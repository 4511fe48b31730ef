"""kill -9 while labels are taken: each is taken once, whenever the process dies."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prediction_rows import FLOWERS, rows

from loopwright import plugins
from loopwright.config import PROJECT_VARIABLE, Project
from loopwright.deploy.labels import sync
from loopwright.deploy.stream.base import parse
from loopwright.ledger import Ledger
from loopwright.predictions import PredictionLog, PredictionStore, seal_orphans

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
ROWS, KILLS = 60_000, 10
TOPIC = "sqlite:///events.db?topic=outcomes"


@pytest.mark.parametrize("source", ["truth.parquet", TOPIC], ids=["table", "topic"])
def test_no_label_is_lost_or_taken_twice(tmp_path: Path, source: str) -> None:
    """Killed ten times at other moments, then left alone: as many labels as rows."""
    (tmp_path / "loopwright.toml").write_text(
        '[model.iris]\ntarget = "species"\n[deployment.api]\nmodel = "iris"\nmode = "online"\n'
        f'[labels.truth]\nsource = "{source}"\nid = "id"\nvalue = "v"\n'
    )
    project = Project(tmp_path)
    log = PredictionLog(project, "api", "iris", FLOWERS)
    batch = rows(project, ROWS)
    log.append(batch)
    log.close()
    if source == TOPIC:
        channel = plugins.load("channel", "sqlite")(parse(project, TOPIC), None)
        channel.publish([("", f'{{"id": "{one}", "v": 1}}'.encode()) for one in batch.prediction_id])
        channel.close()
    else:
        pq.write_table(pa.table({"id": batch.prediction_id, "v": [1] * ROWS}), tmp_path / source)
    store = PredictionStore(project)
    asked = "select count(*) as n, count(distinct prediction_id) as ids from labels"
    environment = os.environ | {PROJECT_VARIABLE: str(tmp_path)}
    command = [sys.executable, "-m", "loopwright.deploy.labels", "truth"]
    began = time.monotonic()
    subprocess.run(
        [*command[:2], "loopwright.deploy.labels", "--none"],
        env=environment,
        capture_output=True,
        check=False,
    )
    start_s = time.monotonic() - began
    seen = []
    for turn in range(KILLS):
        process = subprocess.Popen(command, env=environment)
        time.sleep(start_s * 0.8 + 0.08 * turn)
        process.send_signal(signal.SIGKILL)
        process.wait()
        seen.append(store.query(asked).to_pylist()[0])
        seal_orphans(project)
    ledger = Ledger.open(project)
    last = sync(project, ledger, "truth")
    ledger.close()
    found = store.query(asked).to_pylist()[0]
    print(f"labels after each kill: {[one['n'] for one in seen]}, taken at last: {last.taken}")
    assert found == {"n": ROWS, "ids": ROWS}
    assert all(one["n"] == one["ids"] for one in seen)
    assert store.count(labelled=True) == ROWS
