"""The table of schedules on the first page."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from loopwright.config import Project
from loopwright.console.formats import Reader
from loopwright.console.schedules import lines, schedules
from loopwright.console.views import Glance
from loopwright.ledger import Ledger
from loopwright.pipelines import standing
from loopwright.pipelines.standing import ScheduledRun

CONFIG = """
[schedule.nightly]
pipeline = "jobs:train"
cron = "0 2 * * *"
timezone = "UTC"

[schedule.held]
pipeline = "jobs:train"
on = "file: <in>/*.csv"
paused = true
"""
NOW = datetime(2026, 5, 1, 3, tzinfo=UTC)


def test_each_schedule_is_one_row(tmp_path: Path) -> None:
    """Its next time, its last result and what is wrong; one that is paused says so; nothing without schedules."""
    (tmp_path / "loopwright.toml").write_text(CONFIG)
    (tmp_path / "jobs.py").write_text("def train(): ...\n")
    project, ledger = Project(tmp_path), Ledger("sqlite://")
    project.run.mkdir(parents=True)
    (project.run / "runner.beat").touch()
    due = NOW - timedelta(hours=1)
    last = ScheduledRun("f", due, due, "failed", 3.0, message="ValueError: no <rows>")
    standing.write(ledger, "nightly", settled=due, last=last)

    nightly, held = found = lines(project, ledger, NOW)
    assert (nightly.following, nightly.result) == (NOW.replace(day=2, hour=2), "failed")
    assert (held.active, held.following, held.wrong) == (False, None, ())

    html = str(schedules(Glance("p", NOW, (), found), Reader(zone="UTC")))
    assert "2026-05-02 02:00:00 UTC" in html
    assert "failed: ValueError: no &lt;rows&gt;" in html
    assert "on file: &lt;in&gt;/*.csv" in html
    assert "paused" in html
    assert str(schedules(Glance("p", NOW, ()), Reader())) == ""
