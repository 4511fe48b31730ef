"""Monitors that are killed at any moment, over SQLite and PostgreSQL: each window once, each alert once."""

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from monitored import API, HOUR, START, Shop
from postgres import postgresql

from loopwright.ledger import Ledger
from loopwright.monitor.results import Results
from loopwright.records import Alert

pytestmark = pytest.mark.integration
WINDOWS = 24
#: Takes turn after turn, from the first window on, as a controller does whose clock runs fast.
CODE = """
import sys
from datetime import UTC, datetime, timedelta
from loopwright.config import Project
from loopwright.ledger import Ledger
from loopwright.monitor import tick
from loopwright.predictions import PredictionStore

project = Project(sys.argv[1])
ledger = Ledger(sys.argv[2])
store = PredictionStore(project)
start = datetime(2026, 3, 2, tzinfo=UTC)
for number in range(int(sys.argv[3])):
    tick(project, ledger, store, start + timedelta(hours=number + 1, seconds=1))
print("done", flush=True)
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    """Return a project with a day of windows; in the middle eight hours in which half of a column is missing."""
    if request.param == "sqlite":
        yield filled(tmp_path, f"sqlite:///{tmp_path / 'ledger.db'}")
        return
    folder = tmp_path / "server"
    folder.mkdir()
    with postgresql(folder) as address:
        yield filled(tmp_path, f"postgresql+psycopg://owner@{address}/postgres")


def filled(folder: Path, ledger: str) -> Shop:
    """Write the day."""
    made = Shop(folder, ledger=ledger)
    for number in range(WINDOWS):
        bad = 8 <= number < 16
        made.answer(
            START + number * HOUR, 200, spent=lambda values, bad=bad: values * float("nan") if bad else values
        )
    made.close()
    return made


def begin(shop: Shop) -> subprocess.Popen[str]:
    """Start a process that takes all turns from the first one on."""
    arguments = [sys.executable, "-c", CODE, str(shop.project.root), shop.ledger.url, str(WINDOWS)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def test_killed_at_random_and_begun_again(shop: Shop) -> None:
    """Six kills -9: in the end there is what one process that was never killed would have left."""
    random.seed(20)
    kills = 0
    for _ in range(6):
        with begin(shop) as process:
            time.sleep(1.2 + random.random() * 1.5)
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                kills += 1
    with begin(shop) as last:
        assert last.communicate(timeout=120)[0] == "done\n"
    assert kills >= 2

    ledger = Ledger(shop.ledger.url, actor="test")
    results = Results(ledger)
    for phase in ("inputs", "labels"):
        windows = results.windows(API, phase, limit=1000)
        assert [one.window.start for one in windows] == [START + number * HOUR for number in range(WINDOWS)]
        assert {(one.state, one.rows, one.failed) for one in windows} == {("judged", 200, ())}
    missing = results.signals(API, check="missing", subject="spent", segment="", limit=1000)
    assert Counter(signal.window.start for signal in missing).most_common(1)[0][1] == 1
    assert [signal.window.start for signal in missing if signal.fired] == [
        START + number * HOUR for number in range(8, 16)
    ]
    assert [
        event.payload["id"] for event in ledger.events("alert.opened") if event.payload["check"] == "missing"
    ] == [f"{API}/1/missing/spent"]
    state = ledger.get("alert", f"{API}/1/missing/spent")
    assert state is not None
    alert = state.read(Alert)
    assert (alert.state, alert.since) == ("resolved", START + 8 * HOUR)
    assert (
        len([event for event in ledger.events("alert.resolved") if event.payload["check"] == "missing"]) == 1
    )
    assert ledger.event(alert.event) is not None
    ledger.close()
