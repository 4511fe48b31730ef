"""Messages of a process that is killed: none is lost, and at most the one that was on its way is doubled."""

import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from postgres import postgresql
from told_people import START, Webhook, open_alert, told_project, webhook, within

from loopwright.config import Project
from loopwright.ledger import Ledger
from loopwright.monitor import alerting
from loopwright.monitor.alerting import outbox
from loopwright.records import now

pytestmark = pytest.mark.integration
KILLS = 6


@pytest.fixture
def got() -> Iterator[Webhook]:
    """Run a webhook."""
    with webhook() as running:
        yield running


def _run(project: Project) -> subprocess.Popen[str]:
    script = Path(__file__).parent / "alert_sender.py"
    process = subprocess.Popen(
        [sys.executable, str(script), str(project.root)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def _more(got: Webhook, before: int) -> bool:
    return len(got.bodies) > before


def _kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def test_a_killed_sender_loses_nothing_and_doubles_at_most_one(
    tmp_path: Path, got: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while the webhook already has the message and has not answered: the worst moment there is."""
    (tmp_path / "loopwright.toml").write_text(f'[alerts]\nto = ["json://127.0.0.1:{got.port}/x"]\n')
    project = Project(tmp_path)
    ledger = Ledger.open(project, actor="monitor")
    got.wait_s = 0.5
    for number in range(KILLS):
        open_alert(ledger, f"c{number}", at=now())
        before = len(got.bodies)
        process = _run(project)
        try:
            # The rows are due after five seconds, of which a process that was killed has used up some.
            assert within(30, partial(_more, got, before))
        finally:
            _kill(process)
        _expire(ledger)
    got.wait_s = 0.0
    process = _run(project)
    try:
        assert within(30, lambda: not outbox.deliveries(ledger, state="pending"))
    finally:
        _kill(process)
    times = Counter(alert["subject"] for body in got.bodies for alert in body["alerts"])
    print(f"{KILLS} kills, {len(got.bodies)} messages, alerts told: {dict(times)}")
    assert set(times) == {f"c{number}" for number in range(KILLS)}
    # Each kill doubles what was on its way, and nothing else.
    assert all(times[f"c{number}"] <= 1 + KILLS - number for number in range(KILLS))
    assert [row.state for row in outbox.deliveries(ledger)] == ["sent"] * KILLS


def _expire(ledger: Ledger) -> None:
    """Let the minute pass after which what a killed process had taken is free again."""
    import sqlalchemy as sa

    from loopwright.ledger.schema import deliveries

    with ledger.writing() as connection:
        taken = (deliveries.c.state == "pending") & (deliveries.c.attempts > 0)
        connection.execute(sa.update(deliveries).where(taken).values(due=now()))


def test_the_controller_tells_of_an_alert_and_follows_the_file(tmp_path: Path, got: Webhook) -> None:
    """The part as the supervisor runs it; an address that is written into the file later counts from then on."""
    file = tmp_path / "loopwright.toml"
    file.write_text("[alerts]\nto = []\n")
    project = Project(tmp_path)
    ledger = Ledger.open(project, actor="monitor")
    log = (tmp_path / "controller.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "loopwright.release.controller"], cwd=tmp_path, stdout=log, stderr=log
    )
    try:
        assert within(30, lambda: (project.run / "controller.beat").exists())
        file.write_text(f'[alerts]\nto = ["json://127.0.0.1:{got.port}/x"]\n')
        time.sleep(6)
        open_alert(ledger, at=now())
        assert within(20, lambda: got.titles)
        assert within(5, lambda: [row.state for row in outbox.deliveries(ledger)] == ["sent"])
    finally:
        process.terminate()
        assert process.wait(20) == 0, (tmp_path / "controller.log").read_text()
        log.close()
    assert got.titles == ["[critical] digits-api: accuracy 0.71, limit 0.85"]


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return the address of a ledger: a file, or a server."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'ledger.db'}"
        return
    with postgresql(tmp_path) as server:
        yield f"postgresql+psycopg://owner@{server}/postgres"


def test_two_that_send_never_take_the_same_row(address: str, tmp_path: Path) -> None:
    """As when a controller is started while the one before it still ends; and a silence holds back in both stores."""
    ledger = Ledger(address, actor="monitor")
    project = told_project(tmp_path, to=("json://127.0.0.1:9/x", "json://127.0.0.1:9/y"))
    for number in range(20):
        open_alert(ledger, f"c{number}")
    alerting.silence(ledger, timedelta(hours=1), subject="c7", at=START)
    assert alerting.tick(project, ledger, START) == 40
    others = [Ledger(address, actor=f"controller-{number}") for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        taken = list(pool.map(lambda one: outbox.claim(one, START + timedelta(seconds=5)), others))
    rows = [row.id for groups in taken for group in groups for row in group]
    assert len(rows) == len(set(rows)) == 38
    for groups in taken:
        for group in groups:
            outbox.record(ledger, group, START + timedelta(seconds=6))
    assert Counter(row.state for row in outbox.deliveries(ledger)) == {"sent": 38, "silenced": 2}
    assert alerting.tick(project, ledger, START + timedelta(hours=1)) == 2
    for one in (ledger, *others):
        one.close()
