"""``loopwright schedule``: what runs by itself, and whether it does."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

import cyclopts

from loopwright.cli.output import COMMON, Common, console, emit, emit_table, when

if TYPE_CHECKING:
    from loopwright.config import Project
    from loopwright.pipelines.plan import Schedule
    from loopwright.pipelines.standing import ScheduledRun, Standing

__all__ = ["app"]

app = cyclopts.App(name="schedule", help="List, pause and check what runs by itself.")

_BARS = "▁▂▃▄▅▆▇█"


@app.command(name="list")
def list_(*, common: Common = COMMON) -> None:
    """List the schedules: when they run next, how the last run ended, and how long the last ones took.

    For example:

        loopwright schedule list
    """
    from loopwright.ledger import Ledger
    from loopwright.pipelines import plan, standing, watch
    from loopwright.records import now

    project = common.open()
    ledger = Ledger.open(project)
    standings = standing.read_all(ledger)
    wrong: dict[str, list[str]] = {}
    problems = _problems(project, ledger)
    for problem in problems:
        wrong.setdefault(problem.schedule, []).append(problem.kind)
    rows = [
        _row(one, standings.get(name), standing.history(ledger, name), now()) | {"wrong": wrong.get(name, [])}
        for name, one in plan.schedules(project).items()
    ]
    if common.json:
        emit(rows)
        return
    emit_table(
        "",
        [{key: _shown(value) for key, value in row.items() if key not in {"runs", "missed"}} for row in rows],
        empty='No schedule. Add one to loopwright.toml: [schedule.nightly] pipeline = "pipelines:train" cron = "0 2 * * *"',
    )
    for problem in problems:
        if problem.schedule == watch.RUNNER:
            console.print(problem.message, style="red", highlight=False)


def _row(one: Schedule, state: Standing | None, past: list[ScheduledRun], moment: datetime) -> dict[str, Any]:
    from loopwright.pipelines.timing import Timing

    timing = Timing.of(state.timing) if state and state.timing else one.timing
    active = state.active if state else not one.paused
    last = state.last if state else None
    going = "running" if state and state.running else ""
    following = timing.after(moment) if timing and active else None
    return {
        "schedule": one.name,
        "runs": one.target,
        "when": str(timing) if timing else one.when,
        "next": following if active else "paused",
        "last": last.time if last else None,
        "result": going or (last.status if last else "-"),
        "seconds": trend([run.seconds for run in past if run.status == "completed"][-12:]),
        "missed": len(state.missed) if state else 0,
    }


def _shown(value: Any) -> Any:
    """Return a cell of the list in few letters, so that a row stays a row."""
    if isinstance(value, datetime):
        return value.astimezone().strftime("%a %d %b %H:%M")
    return ", ".join(value) or "-" if isinstance(value, list) else value


def trend(seconds: list[float]) -> str:
    """Return the durations as a line of bars, with the last one in seconds.

    Examples
    --------
    >>> trend([1, 2, 4])
    '▂▄█ 4'
    """
    if not seconds:
        return "-"
    highest = max(seconds) or 1.0
    bars = "".join(_BARS[min(7, max(0, round(8 * one / highest) - 1))] for one in seconds)
    return f"{bars} {seconds[-1]:.3g}"


@app.command
def show(name: str, /, *, common: Common = COMMON) -> None:
    """Show one schedule: its next times, its last runs, and what is wrong with it.

    For example:

        loopwright schedule show nightly
    """
    import itertools

    from loopwright.ledger import Ledger
    from loopwright.pipelines import plan, standing
    from loopwright.pipelines.timing import Timing
    from loopwright.records import now

    project = common.open()
    one = plan.schedule(project, name)
    ledger = Ledger.open(project)
    state = standing.read_all(ledger).get(name)
    past = standing.history(ledger, name)
    problems = [problem for problem in _problems(project, ledger) if problem.schedule == name]
    timing = Timing.of(state.timing) if state and state.timing else one.timing
    following = list(itertools.islice(timing.times(now()), 3)) if timing else []
    skipped = ledger.events(standing.SKIPPED, name, limit=5, newest=True)
    if common.json:
        facts = {"schedule": one, "standing": state, "next": following, "runs": past, "problems": problems}
        emit(facts)
        return
    paused = state is not None and not state.active
    console.print(
        f"[bold]{name}[/bold] runs {one.target}, {timing or one.when}{', paused' if paused else ''}"
    )
    if following and not paused:
        console.print(f"  next     {', '.join(when(moment) for moment in following)}")
    console.print(
        f"  catch up {one.catch_up} · at most {one.concurrency} at a time, others {one.overlap} · "
        f"late after {one.max_late.total_seconds():g} s"
    )
    durations = [run.seconds for run in past if run.status == "completed"]
    if durations:
        console.print(f"  seconds  {trend(durations)}")
    for problem in problems:
        console.print(f"  [red]{problem.kind}[/red]: {problem.message}")
    for event in skipped:
        times = ", ".join(when(datetime.fromisoformat(text)) for text in event.payload["times"][-3:])
        console.print(f"  not run  {times or when(event.at)}: {event.payload['reason']}")
    rows = [
        {
            "due": run.time,
            "result": run.status,
            "s": round(run.seconds, 1),
            "rows": run.values.get("rows"),
            "MLflow run": run.run_id or None,
            "what": run.message.splitlines()[0] if run.message else "-",
        }
        for run in reversed(past[-10:])
    ]
    emit_table("", rows, empty="  It has not run yet.")


@app.command
def pause(name: str, /, *, common: Common = COMMON) -> None:
    """Pause a schedule, here and on Prefect's pages: what comes due meanwhile is not made up for.

    For example:

        loopwright schedule pause nightly
    """
    _switch(name, common, active=False)


@app.command
def resume(name: str, /, *, common: Common = COMMON) -> None:
    """Let a paused schedule go on.

    For example:

        loopwright schedule resume nightly
    """
    _switch(name, common, active=True)


def _switch(name: str, common: Common, *, active: bool) -> None:
    from loopwright import parts
    from loopwright.pipelines import plan, switch

    project = common.open()
    plan.schedule(project, name)  # an unknown name needs no server
    parts.connect(project)
    state = switch.switch(project, name, active=active)
    if common.json:
        emit(state)
        return
    console.print(f"[bold]{name}[/bold] {'goes on' if active else 'is paused'}.")
    if active:
        show(name, common=common)


@app.command
def check(*, common: Common = COMMON) -> None:
    """Say what is wrong with the schedules; the exit code is 1 when something is. For cron and CI.

    Needs no running part, so that it also notices when none runs.

    For example:

        loopwright schedule check || mail -s "schedules" team@example.org
    """
    from loopwright.ledger import Ledger

    project = common.open()
    problems = _problems(project, Ledger.open(project))
    if common.json:
        emit(problems)
    elif problems:
        emit_table(
            "",
            [{"schedule": one.schedule, "wrong": one.kind, "what": one.message} for one in problems],
            empty="",
        )
    else:
        console.print("All schedules are well.")
    if problems:
        sys.exit(1)


def _problems(project: Project, ledger: Any) -> list[Any]:
    from loopwright.pipelines import watch
    from loopwright.records import now

    return watch.check(project, ledger, now())
