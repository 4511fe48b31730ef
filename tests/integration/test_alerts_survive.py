"""Messages of a process that is killed: none is lost, and at most the one that was on its way is doubled."""

import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from told_people import Webhook, open_alert, webhook, within

from loopwright.config import Project
from loopwright.ledger import Ledger
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
            assert within(30, lambda seen=before: len(got.bodies) > seen)
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
    assert set(times) == {f"c{number}" for number in range(KILLS)}
    # Each kill doubles what was on its way, and nothing else: a message more for each kill at most.
    assert len(got.bodies) <= 2 * KILLS + 1
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
