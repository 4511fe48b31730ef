"""What the runner decides: which due runs start, what counts when file and Prefect differ, and what is news."""

import os
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest

from loopwright.config import Project
from loopwright.ledger import Ledger
from loopwright.pipelines import news
from loopwright.pipelines.admission import Due, admit
from loopwright.pipelines.placing import place
from loopwright.pipelines.plan import Schedule
from loopwright.pipelines.standing import Standing
from loopwright.pipelines.timing import Timing
from loopwright.records import DatasetRef

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def schedule(
    catch_up: Literal["last", "all", "none"] = "last",
    overlap: Literal["wait", "skip"] = "wait",
    concurrency: int = 1,
    cron: str = "0 2 * * *",
    paused: bool = False,
) -> Schedule:
    """Return a schedule of a pipeline."""
    return Schedule(
        "nightly",
        "jobs:train",
        timing=Timing(cron=cron),
        catch_up=catch_up,
        overlap=overlap,
        concurrency=concurrency,
        paused=paused,
    )


def due(name: str, minutes_ago: float, of: Schedule | None) -> Due:
    """Return a run that was due so many minutes ago."""
    group = "d nightly" if of else ""
    return Due(name, "d", NOW - timedelta(minutes=minutes_ago), of, group, {})


def decided(runs: list[Due], going: int = 0, slots: int = 9) -> dict[str, str]:
    """Return what becomes of each run."""
    return {one.due.id: one.action for one in admit(runs, NOW, Counter(d=going), slots)}


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        ("last", {"old": "miss", "older": "miss", "new": "start"}),
        ("all", {"older": "start", "old": "wait", "new": "wait"}),
        ("none", {"older": "miss", "old": "miss", "new": "start"}),
    ],
)
def test_missed_runs_are_made_up_for_by_policy(policy: Any, wanted: dict[str, str]) -> None:
    """The newest, all of them one after the other, or none that is later than it may be."""
    one = schedule(policy)
    assert decided([due("new", 0.5, one), due("older", 120, one), due("old", 60, one)]) == wanted


def test_none_gives_up_the_newest_too_when_it_is_late() -> None:
    """`catch_up = "none"` after a downtime runs nothing."""
    one = schedule("none")
    assert decided([due("older", 120, one), due("old", 60, one)]) == {"older": "miss", "old": "miss"}


def test_runs_do_not_overlap() -> None:
    """The next one waits or is skipped, as declared, and its state says why."""
    (waits,) = admit([due("next", 0, schedule())], NOW, Counter(d=1), 9)
    assert (waits.action, waits.message) == ("wait", "Waits: an earlier run goes on, and concurrency = 1.")
    (skipped,) = admit([due("next", 0, schedule(overlap="skip"))], NOW, Counter(d=1), 9)
    assert (skipped.action, skipped.message[:8]) == ("skip", "Skipped:")
    assert decided([due("next", 0, schedule(concurrency=2))], going=1) == {"next": "start"}


def test_what_a_person_asked_for_is_never_dropped() -> None:
    """Without a schedule only the slots count."""
    assert decided([due("a", 300, None), due("b", 200, None)], going=3) == {"a": "start", "b": "start"}
    assert decided([due("a", 300, None), due("b", 200, None)], slots=1) == {"a": "start", "b": "wait"}


def known(cron: str, *, active: bool = True, slug: str | None = "nightly") -> dict[str, Any]:
    """Return a Prefect deployment with one schedule."""
    timing = {"cron": cron, "timezone": "UTC", "day_or": True}
    return {
        "paused": False,
        "schedules": [{"slug": slug, "schedule": timing, "active": active, "parameters": {}}],
    }


def written(cron: str = "0 2 * * *", *, active: bool = True) -> dict[str, Standing]:
    """Return the standing of a schedule that was last written so."""
    declared = {"timing": {"cron": cron, "timezone": "UTC"}, "active": active, "parameters": {}}
    return {"nightly": Standing("nightly", NOW, NOW, declared=declared)}


@pytest.mark.parametrize(
    ("ours", "theirs", "active", "wanted"),
    [
        ("0 2 * * *", "0 2 * * *", True, ("0 2 * * *", True)),
        ("0 2 * * *", "0 5 * * *", True, ("0 5 * * *", True)),  # changed there
        ("0 4 * * *", "0 2 * * *", True, ("0 4 * * *", True)),  # changed in the file
        ("0 4 * * *", "0 5 * * *", True, ("0 4 * * *", True)),  # in both: the file's
        ("0 2 * * *", "0 2 * * *", False, ("0 2 * * *", False)),  # paused there
        ("0 4 * * *", "0 2 * * *", False, ("0 4 * * *", False)),
    ],
)
def test_who_changed_last_counts(ours: str, theirs: str, active: bool, wanted: tuple[str, bool]) -> None:
    """A change on Prefect's pages stays until the same thing is changed in the file."""
    placed, _ = place([schedule(cron=ours)], known(theirs, active=active), written())
    found = placed["nightly"]
    assert (found.timing["cron"], found.active) == wanted
    assert bool(found.note) == (wanted[0] != ours)


def test_paused_in_the_file_pauses_and_its_removal_resumes() -> None:
    """What is written there counts when it changes."""
    placed, _ = place([schedule(paused=True)], known("0 2 * * *"), written())
    assert placed["nightly"].active is False
    placed, _ = place([schedule()], known("0 2 * * *", active=False), written(active=False))
    assert placed["nightly"].active is True


def test_schedules_made_on_prefects_pages_stay() -> None:
    """One from before schedules had names becomes the declared one, paused or not; one that is gone is made again."""
    placed, kept = place([schedule()], known("0 2 * * *", slug=None, active=False), {})
    assert (placed["nightly"].active, kept) == (False, [])
    placed, kept = place([schedule()], known("15 1 * * *", slug=None), written())
    assert [one["schedule"]["cron"] for one in kept] == ["15 1 * * *"]
    assert "is made again" in placed["nightly"].note
    _, kept = place([], known("0 2 * * *"), written())
    assert kept == [], "one that the file no longer declares goes"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return an empty project."""
    (tmp_path / "loopwright.toml").touch()
    return Project(tmp_path)


@pytest.fixture
def ledger() -> Ledger:
    """Return an empty ledger in memory."""
    return Ledger("sqlite://")


def test_events_are_news_once_and_own_ones_never(project: Project, ledger: Ledger) -> None:
    """What was there before, another subject, and what the schedule's own run has done are none."""
    ledger.append("model.registered", "bike", {"version": 1, "run_id": "r1"})
    found, seen = news.find(project, ledger, "model: bike", {})
    assert found == []
    ledger.append("model.registered", "bike", {"version": 2, "run_id": "r2"})
    ledger.append("model.registered", "taxi", {"version": 9, "run_id": "r9"})
    again = seen
    found, seen = news.find(project, ledger, "model: bike", seen)
    assert [one.what for one in found] == ["bike/2"]
    assert news.find(project, ledger, "model: bike", again)[0] == found, (
        "found again after a kill: the same key"
    )
    assert news.find(project, ledger, "model: bike", seen)[0] == []
    ledger.append("model.registered", "bike", {"version": 3, "run_id": "mine"})
    assert news.find(project, ledger, "model: bike", news.own(seen, "mine", []))[0] == []


def test_datasets_are_news_by_content(project: Project, ledger: Ledger) -> None:
    """The same rows read again are none, and those that the schedule's own run has read neither."""
    ledger.put("dataset", "a" * 64, DatasetRef("orders", "a" * 64, 1, ("x",), ""))
    _, seen = news.find(project, ledger, "dataset: orders", {})
    ledger.put("dataset", "a" * 64, DatasetRef("orders", "a" * 64, 1, ("x",), ""))
    ledger.put("dataset", "b" * 64, DatasetRef("other", "b" * 64, 1, ("x",), ""))
    found, seen = news.find(project, ledger, "dataset: orders", seen)
    assert found == []
    ledger.put("dataset", "c" * 64, DatasetRef("orders", "c" * 64, 2, ("x",), ""))
    (one,) = news.find(project, ledger, "dataset: orders", seen)[0]
    assert one.what == "c" * 64
    assert news.find(project, ledger, "dataset: orders", news.own(seen, "r", ["c" * 64]))[0] == []


def test_files_are_news_when_they_are_complete(project: Project, ledger: Ledger) -> None:
    """One that is still being written waits; a touched one counts again; a deleted one does not."""
    on = "file: *.csv"
    path = project.root / "a.csv"
    path.write_text("1")
    _, seen = news.find(project, ledger, on, {})
    path.write_text("12")
    found, seen = news.find(project, ledger, on, seen)
    assert found == [], "written a moment ago"
    os.utime(path, (time.time() - 60, time.time() - 60))
    (one,) = news.find(project, ledger, on, seen)[0]
    assert one.what == "a.csv"
    found, seen = news.find(project, ledger, on, seen)
    assert len(found) == 1
    path.unlink()
    assert news.find(project, ledger, on, seen)[0] == []
