"""Whether the schedules do what they declare: late, missed, failed, slow, empty, or nobody there to run them.

Read from the ledger, the clock and the runner's beat alone, so that it holds when Prefect or the runner is gone: that
is when it is needed.
"""

from __future__ import annotations

import contextlib
import operator
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from loopwright import parts
from loopwright.config import FILE, Project
from loopwright.ledger import Ledger
from loopwright.pipelines import standing
from loopwright.pipelines.plan import Schedule, schedules
from loopwright.pipelines.sources import missing
from loopwright.pipelines.standing import ScheduledRun, Standing
from loopwright.pipelines.timing import Timing

__all__ = ["RUNNER", "Problem", "beat_age", "check", "limits"]

#: The runner beats every two seconds, and may take longer for one turn.
RUNNER_DEAD, _TURN_S = timedelta(seconds=30), 5.0
#: The subject of the alert that is not about one schedule.
RUNNER = "runner"
#: How many runs, at least, say what is usual; and how far from the median is not, in robust standard deviations.
USUAL_RUNS, DEVIATIONS = 5, 5.0
#: A deviation below both, a share of the median and seconds, is never worth an alert.
SHARE, SECONDS = 0.5, 1.0
#: The median absolute deviation of a normal distribution is its standard deviation divided by this.
_NORMAL = 1.4826
_COMPARE = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with one schedule. `value` and `limit` are numbers of the kind: seconds, rows, runs."""

    schedule: str
    kind: str
    since: datetime
    message: str
    value: float = 0.0
    limit: float = 0.0

    @property
    def key(self) -> str:
        """What makes it the same problem when it is found again."""
        return f"schedule/{self.schedule}/{self.kind}"


def check(project: Project, ledger: Ledger, moment: datetime) -> list[Problem]:
    """Return what is wrong with the project's schedules at a moment; nothing for those that are paused."""
    planned = schedules(project)
    standings = standing.read_all(ledger)
    found: list[Problem] = []
    for schedule in planned.values():
        state = standings.get(schedule.name)
        if state.active if state else not schedule.paused:
            found += _of_schedule(project, ledger, schedule, state, moment)
    if planned:
        found += _runner(project, len(planned), moment)
    return found


def _of_schedule(
    project: Project, ledger: Ledger, schedule: Schedule, state: Standing | None, moment: datetime
) -> Iterator[Problem]:
    name = schedule.name
    gone = "" if schedule.batch else missing(project, schedule.target)
    if problem := gone or (state.problem if state else ""):
        text = problem.replace("\nTry: ", " Try: ")
        yield Problem(name, "broken", moment, f"schedule {name} cannot run {schedule.target}: {text}")
        return
    yield from _on_time(project, schedule, state, moment)
    if state is None:
        return
    past = standing.history(ledger, name)
    if state.last:
        yield from _outcome(schedule, state.last)
    yield from _pace(name, past, state.running, moment)


def _on_time(
    project: Project, schedule: Schedule, state: Standing | None, moment: datetime
) -> Iterator[Problem]:
    """Find a time that has passed without a run."""
    timing = Timing.of(state.timing) if state and state.timing else schedule.timing
    if timing is None:
        return
    # Without a runner that has seen it, it counts since it could have been declared.
    settled = state.settled if state else _declared(project)
    due = timing.after(settled)
    if state and state.missed:
        first, newest = state.missed[0], state.missed[-1]
        times = f"{len(state.missed)} times, the last" if len(state.missed) > 1 else "the one"
        text = f"schedule {schedule.name} missed {times} of {_clock(newest)}: nothing ran, and no run has completed since"
        yield Problem(schedule.name, "missed", first, text, float(len(state.missed)))
    if due is None or moment - due <= schedule.max_late:
        return
    late_s = (moment - due).total_seconds()
    limit_s = schedule.max_late.total_seconds()
    ago = f"was due at {_clock(due)}, {_span(late_s)} ago, and has not started"
    if state is None or (state.last is None and not state.running):
        text = f"schedule {schedule.name} never ran: it {ago}"
        yield Problem(schedule.name, "never ran", due, text, late_s, limit_s)
    elif _was_there(project, due, late_s):
        why = "; the run before it goes on" if state.running else ""
        text = f"schedule {schedule.name} is late: it {ago}{why}"
        yield Problem(schedule.name, "late", due, text, late_s, limit_s)
    elif not state.missed:
        text = f"schedule {schedule.name} missed its time: it {ago}, for no runner was there"
        yield Problem(schedule.name, "missed", due, text, late_s, limit_s)


def _outcome(schedule: Schedule, last: ScheduledRun) -> Iterator[Problem]:
    """Judge the run that ended last."""
    if last.status in {"failed", "crashed"}:
        text = last.message.removeprefix("Crashed: ").partition("\n")[0]
        message = f"the run of schedule {schedule.name} at {_clock(last.time)} {last.status}: {text}"
        yield Problem(schedule.name, "failed", last.started, message)
    if last.status != "completed":
        return
    expected = {"rows": ">0", **schedule.expect}
    for name, condition in expected.items():
        value = last.values.get(name)
        kind = "no rows" if name in {"rows", "new_rows"} else "unexpected"
        if value is None and name in schedule.expect:
            message = f"the run of schedule {schedule.name} gave no {name!r}, expected {condition}"
            yield Problem(schedule.name, kind, last.started, message)
        elif value is not None and not _holds(value, condition):
            message = f"the run of schedule {schedule.name} gave {name} = {value:g}, expected {condition}"
            yield Problem(schedule.name, kind, last.started, message, value, _number(condition))


def _pace(
    name: str, past: list[ScheduledRun], running: tuple[ScheduledRun, ...], moment: datetime
) -> Iterator[Problem]:
    """Compare the last run, and those that go on, with those before."""
    completed = [run for run in past if run.status == "completed"]
    for run in running:
        usual = limits([one.seconds for one in completed])
        elapsed = (moment - run.started).total_seconds()
        if usual and elapsed > usual[1]:
            text = f"the run of schedule {name} goes on for {_span(elapsed)}, usual is {_span(usual[2])}"
            yield Problem(name, "slow", run.started, text, elapsed, usual[1])
            return
    if not completed:
        return
    *before, last = completed
    usual = limits([one.seconds for one in before])
    if usual is None or usual[0] <= last.seconds <= usual[1]:
        return
    slow = last.seconds > usual[1]
    kind, limit = ("slow", usual[1]) if slow else ("fast", usual[0])
    text = f"the run of schedule {name} took {_span(last.seconds)}, usual is {_span(usual[2])}"
    yield Problem(name, kind, last.started, text, last.seconds, limit)


def limits(seconds: list[float]) -> tuple[float, float, float] | None:
    """Return the shortest and the longest usual duration and their median; None for fewer than five runs.

    Median and median absolute deviation, so that one run that took long does not make the next one look usual.
    """
    if len(seconds) < USUAL_RUNS:
        return None
    median = statistics.median(seconds)
    spread = _NORMAL * statistics.median(abs(one - median) for one in seconds)
    width = max(DEVIATIONS * spread, SHARE * median, SECONDS)
    return median - width, median + width, median


def _runner(project: Project, count: int, moment: datetime) -> Iterator[Problem]:
    age = beat_age(project)
    if age is not None and age < RUNNER_DEAD.total_seconds():
        return
    since = "has not been there yet" if age is None else f"was last there {_span(age)} ago"
    seconds = age or 0.0
    text = f"the runner {since}: {count} schedule{'s' if count != 1 else ''} cannot run. Try: loopwright up"
    yield Problem(
        RUNNER, "dead", moment - timedelta(seconds=seconds), text, seconds, RUNNER_DEAD.total_seconds()
    )


def _was_there(project: Project, due: datetime, late_s: float) -> bool:
    """Whether the runner is there and, as far as that can be told, was there when something was due."""
    part = parts.read(project).get("runner")
    if part and parts.alive(part) and part.created > due.timestamp():
        return False
    age = beat_age(project)
    return age is not None and age < min(max(late_s, _TURN_S), RUNNER_DEAD.total_seconds())


def beat_age(project: Project) -> float | None:
    """Return how many seconds ago the runner last worked, or was started; None when it never was."""
    moments = []
    with contextlib.suppress(FileNotFoundError):
        moments.append((project.run / "runner.beat").stat().st_mtime)
    part = parts.read(project).get("runner")
    if part and parts.alive(part):
        moments.append(part.created)
    return max(0.0, time.time() - max(moments)) if moments else None


def _declared(project: Project) -> datetime:
    return datetime.fromtimestamp((project.root / FILE).stat().st_mtime, UTC)


def _holds(value: float, condition: str) -> bool:
    sign = condition.strip().rstrip("-.0123456789 ")
    return bool(_COMPARE[sign](value, _number(condition)))


def _number(condition: str) -> float:
    return float(condition.strip().lstrip("<>="))


def _clock(moment: datetime) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _span(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
