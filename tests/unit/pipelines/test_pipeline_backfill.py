"""Backfills: which intervals, with which parameters, and which are done."""

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from loopwright.cli import app
from loopwright.errors import InvalidInput
from loopwright.ledger import Ledger
from loopwright.pipelines import backfill, pipeline, standing
from loopwright.pipelines.filling import Interval
from loopwright.pipelines.standing import ScheduledRun
from loopwright.pipelines.timing import Timing
from loopwright.records import PipelineRun

DAILY = Timing(cron="0 2 * * *")
FIRST, LAST = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 4, tzinfo=UTC)


@pipeline
def load(day: str, depth: int = 3) -> None:
    """Load a day."""


@pipeline
def same(depth: int = 3) -> None:
    """Do the same each time."""


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    """Return an empty ledger in memory."""
    ledger = Ledger("sqlite://")
    yield ledger
    ledger.close()


@pytest.fixture
def days() -> list[Interval]:
    """Return three days."""
    return backfill.intervals(DAILY, FIRST, LAST)


def test_intervals_lie_between_the_times_of_the_schedule(days: list[Interval]) -> None:
    """Those that start in the span and are over; none is an error, and so are too many."""
    assert [one.start.isoformat()[:13] for one in days] == ["2026-01-01T02", "2026-01-02T02", "2026-01-03T02"]
    assert [one.end for one in days[:-1]] == [one.start for one in days[1:]]
    with pytest.raises(InvalidInput, match="has no intervals"):
        backfill.intervals(DAILY, datetime(2999, 1, 1, tzinfo=UTC), datetime(2999, 1, 5, tzinfo=UTC))
    with pytest.raises(InvalidInput, match="more than 10000"):
        backfill.intervals(Timing(every_s=60), FIRST, datetime(2026, 2, 1, tzinfo=UTC))


def test_a_parameter_gets_the_runs_time(ledger: Ledger, days: list[Interval]) -> None:
    """By its name, or as it is said; a pipeline that would do the same each time is refused."""
    assert [one.parameters for one in backfill.plan(ledger, load, days, {})] == [
        {"day": "2026-01-01"},
        {"day": "2026-01-02"},
        {"day": "2026-01-03"},
    ]
    said = backfill.plan(ledger, load, days[:1], {"day": "{end:%d.%m.}", "depth": 5})
    assert said[0].parameters == {"day": "02.01.", "depth": 5}
    with pytest.raises(InvalidInput, match="would be the same"):
        backfill.plan(ledger, same, days, {})
    with pytest.raises(InvalidInput, match="Did you mean 'day'"):
        backfill.plan(ledger, load, days, {"days": "{date}"})


def test_what_is_done_is_left_out(ledger: Ledger, days: list[Interval]) -> None:
    """By an earlier backfill with the same parameters, or by the schedule itself; not by a run that failed."""
    first, second, third = backfill.plan(ledger, load, days, {})
    run = PipelineRun(
        load.entrypoint, "r1", "", "completed", FIRST, parameters={"day": "2026-01-01", "depth": 3}
    )
    failed = dataclasses.replace(run, status="failed", parameters={"day": "2026-01-02", "depth": 3})
    for one, like in ((first, run), (second, failed)):
        record = dataclasses.replace(like, run_id=one.trigger, trigger=one.trigger)
        ledger.put("pipeline_run", record.run_id, record)
    scheduled = ScheduledRun("f", third.end, third.end, "completed")
    standing.write(ledger, "nightly", event=standing.ENDED, payload=scheduled)

    def done(**options: bool | str | int) -> list[str]:
        parameters = {"depth": options.pop("depth")} if "depth" in options else {}
        return [one.done for one in backfill.plan(ledger, load, days, parameters, **options)]  # type: ignore[arg-type]

    assert done(schedule="nightly") == ["backfilled", "", "run by its schedule"]
    assert done() == ["backfilled", "", ""]
    assert done(depth=9) == ["", "", ""]
    assert done(schedule="nightly", again=True) == ["", "", ""]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["nigthly", "--from", "2026-01-01"], "is no schedule and no pipeline"),
        (["jobs:load", "--from", "2026-01-01"], "no interval"),
        (["nightly", "--from", "yesterday"], "is no date"),
        (["nightly", "--from", "2026-01-05", "--to", "2026-01-01"], "is before"),
        (["jobs:load", "--from", "2026-01-01", "--cron", "0 25 * * *"], "its hour cannot be"),
        (["jobs:load", "--from", "2026-01-01", "--cron", "0 2 * * *", "--every", "1d"], "exactly one of"),
        (["nightly", "--from", "2026-01-01", "--concurrency", "0"], "runs nothing"),
    ],
)
def test_wrong_input_is_said_before_anything_starts(tmp_path: Path, words: list[str], text: str) -> None:
    """With the value that is wrong."""
    (tmp_path / "loopwright.toml").write_text('[schedule.nightly]\npipeline = "jobs:load"\nevery = "1d"\n')
    if "jobs:load" in words and "--cron" not in words:
        (tmp_path / "loopwright.toml").write_text("")
    with pytest.raises(InvalidInput, match=text):
        app(["pipeline", "backfill", *words, "--project", str(tmp_path)], result_action="return_value")
