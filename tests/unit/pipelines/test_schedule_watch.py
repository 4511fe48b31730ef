"""What counts as wrong with a schedule, and the alerts that follow."""

import dataclasses
import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from loopwright import monitor
from loopwright.config import Project
from loopwright.ledger import Ledger
from loopwright.pipelines import standing, watch
from loopwright.pipelines.standing import ScheduledRun
from loopwright.records import Alert

CONFIG = """
[schedule.nightly]
pipeline = "jobs:train"
cron = "0 2 * * *"
timezone = "UTC"
max_late = "10m"
expect = { rows = ">=100", accuracy = ">0.9" }
"""
#: The day is young, and the run of 02:00 is the newest.
DUE = datetime(2026, 5, 1, 2, tzinfo=UTC)
NOW = DUE + timedelta(hours=1)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return a project with a schedule and a runner that has just beaten."""
    (tmp_path / "loopwright.toml").write_text(CONFIG)
    (tmp_path / "jobs.py").write_text("def train(): ...\n")
    project = Project(tmp_path)
    project.run.mkdir(parents=True)
    (project.run / "runner.beat").touch()
    return project


@pytest.fixture
def ledger() -> Ledger:
    """Return an empty ledger in memory."""
    return Ledger("sqlite://")


def ran(ledger: Ledger, seconds: Sequence[float], **last: Any) -> None:
    """Write down completed runs of the last nights; the newest one with more facts."""
    for number, one in enumerate(reversed(seconds)):
        moment = DUE - timedelta(days=len(seconds) - 1 - number)
        run = ScheduledRun(
            f"f{number}", moment, moment, "completed", one, "r", {"rows": 200.0, "accuracy": 0.95}
        )
        if number == len(seconds) - 1:
            run = dataclasses.replace(run, **last)
        standing.write(ledger, "nightly", event=standing.ENDED, payload=run, last=run, settled=moment)


def kinds(project: Project, ledger: Ledger, moment: datetime = NOW) -> list[str]:
    """Return what is wrong."""
    return [problem.kind for problem in watch.check(project, ledger, moment)]


def test_a_schedule_that_does_what_it_declares_is_well(project: Project, ledger: Ledger) -> None:
    """On time, completed, with enough rows and as fast as ever."""
    ran(ledger, [10, 11, 10, 9, 10, 10.5])
    assert kinds(project, ledger) == []


def test_a_time_that_passed_is_late_or_missed(project: Project, ledger: Ledger) -> None:
    """Late while a runner is there, missed when it was not; not before `max_late`, and not while it is paused."""
    ran(ledger, [10])
    tomorrow = DUE + timedelta(days=1)
    assert kinds(project, ledger, tomorrow + timedelta(minutes=9)) == []
    assert kinds(project, ledger, tomorrow + timedelta(minutes=11)) == ["late"]
    long_ago = time.time() - 3600
    os.utime(project.run / "runner.beat", (long_ago, long_ago))
    assert kinds(project, ledger, tomorrow + timedelta(minutes=11)) == ["missed", "dead"]
    standing.write(ledger, "nightly", active=False)
    assert kinds(project, ledger, tomorrow + timedelta(minutes=11)) == ["dead"]


def test_a_schedule_that_never_ran_is_said(project: Project, ledger: Ledger) -> None:
    """Also one that no runner has seen, since the file was written."""
    written = (project.root / "loopwright.toml").stat().st_mtime
    assert kinds(project, ledger, datetime.fromtimestamp(written + 25 * 3600, UTC)) == ["never ran"]
    assert kinds(project, ledger, datetime.fromtimestamp(written, UTC)) == []


def test_missed_times_are_wrong_until_a_run_completes(project: Project, ledger: Ledger) -> None:
    """Also when the runner is back before anybody looked."""
    ran(ledger, [10])
    standing.write(ledger, "nightly", missed=(DUE - timedelta(days=1), DUE))
    (problem,) = watch.check(project, ledger, NOW)
    assert (problem.kind, problem.value) == ("missed", 2)


@pytest.mark.parametrize(
    ("last", "wanted"),
    [
        ({"status": "failed", "message": "ValueError: no"}, ["failed"]),
        ({"status": "crashed"}, ["failed"]),
        ({"status": "cancelled"}, []),
        ({"values": {"rows": 0.0, "accuracy": 0.95}}, ["no rows"]),
        ({"values": {"rows": 99.0, "accuracy": 0.95}}, ["no rows"]),
        ({"values": {"rows": 100.0, "accuracy": 0.9}}, ["unexpected"]),
        ({"values": {"rows": 100.0}}, ["unexpected"]),
    ],
)
def test_what_a_run_gave_is_held_against_what_is_expected(
    project: Project, ledger: Ledger, last: dict[str, Any], wanted: list[str]
) -> None:
    """Its end, its rows and its metrics; one that a person cancelled is not wrong."""
    ran(ledger, [10, 10], **last)
    assert kinds(project, ledger) == wanted


@pytest.mark.parametrize(
    ("seconds", "wanted"),
    [
        ([40, 10, 11, 10, 9, 10], ["slow"]),
        ([2, 10, 11, 10, 9, 10], ["fast"]),
        ([14, 10, 11, 10, 9, 10], []),
        ([40, 10, 11, 10, 9], []),  # too few to know
        ([40, 10, 300, 10, 9, 11, 10], ["slow"]),  # one that took long does not make this one usual
        ([0.3, 0.1, 0.1, 0.1, 0.1, 0.1], []),  # a difference nobody feels
    ],
)
def test_a_pace_is_unusual_by_the_last_runs(
    project: Project, ledger: Ledger, seconds: list[float], wanted: list[str]
) -> None:
    """The newest run first."""
    ran(ledger, seconds)
    assert kinds(project, ledger) == wanted


def test_a_run_that_goes_on_too_long_is_slow_before_it_ends(project: Project, ledger: Ledger) -> None:
    """Else one that hangs would never be noticed."""
    ran(ledger, [10, 11, 10, 9, 10])
    standing.write(ledger, "nightly", running=(ScheduledRun("f", DUE, NOW - timedelta(minutes=5)),))
    assert kinds(project, ledger) == ["slow"]


def test_a_pipeline_that_is_gone_is_named_with_the_nearest(project: Project, ledger: Ledger) -> None:
    """Told from the file, without importing it; where it cannot be told, the runner's word counts."""
    (project.root / "jobs.py").write_text("def trains(): ...\n")
    (problem,) = watch.check(project, ledger, DUE)
    assert problem.kind == "broken"
    assert "jobs.py defines no 'train'. Did you mean 'jobs:trains'?" in problem.message
    (project.root / "jobs.py").rename(project.root / "job.py")
    (problem,) = watch.check(project, ledger, DUE)
    assert "there is no jobs.py. Did you mean 'job:train'?" in problem.message
    (project.root / "jobs.py").write_text("if True:\n    train = 1\n")
    assert "broken" not in kinds(project, ledger, DUE)
    standing.write(ledger, "nightly", problem="ImportError: no pandas")
    assert kinds(project, ledger, DUE) == ["broken"]


def test_an_alert_opens_once_and_resolves_by_itself(project: Project, ledger: Ledger) -> None:
    """Each with one event; when it comes again it is a new one."""
    ran(ledger, [10, 10], status="failed", message="ValueError: no")
    (opened,) = monitor.tick_schedules(project, ledger, NOW)
    assert (opened.id, opened.check, opened.subject) == (
        "schedule/nightly/failed",
        "schedule failed",
        "nightly",
    )
    assert monitor.tick_schedules(project, ledger, NOW) == []
    ran(ledger, [10, 10])
    assert monitor.tick_schedules(project, ledger, NOW) == []
    state = ledger.get("alert", opened.id)
    assert state is not None
    assert state.read(Alert).state == "resolved"
    kinds = [event.kind for event in ledger.events("alert.*", opened.id)]
    assert kinds == ["alert.opened", "alert.resolved"]
