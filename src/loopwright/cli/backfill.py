"""``loopwright pipeline backfill``: one run for each interval of a span that has none yet."""

from __future__ import annotations

import sys
from datetime import datetime, time, timedelta
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo

from cyclopts import Parameter

from loopwright.cli.output import COMMON, Common, console, emit, emit_table, when
from loopwright.errors import InvalidInput, listing

if TYPE_CHECKING:
    from loopwright.config import Project
    from loopwright.pipelines.backfill import Fill
    from loopwright.pipelines.plan import Schedule
    from loopwright.pipelines.timing import Timing

__all__ = ["backfill"]


def backfill(
    what: str,
    /,
    *,
    from_: Annotated[
        str, Parameter(name="--from", help="A date or a moment: the first interval starts then.")
    ],
    to: Annotated[
        str, Parameter(help="Intervals that start until then, a date included; to now without.")
    ] = "",
    every: Annotated[str, Parameter(help="The intervals, such as 1d; those of the schedule without.")] = "",
    cron: Annotated[str, Parameter(help="The intervals by a cron expression.")] = "",
    parameter: Annotated[
        tuple[str, ...],
        Parameter(name=["--parameter", "-p"], help="name=value; may be repeated.", negative=""),
    ] = (),
    concurrency: int = 1,
    again: Annotated[bool, Parameter(negative="")] = False,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    common: Common = COMMON,
) -> None:
    """Run a pipeline once for each interval of a span; intervals that are done are left out.

    A parameter takes the run's time by {start}, {end} or {date}, also as {start:%Y-%m-%d}. Without any, a pipeline's
    parameters called day, date, since, start, until or end are given it.

    For example:

        loopwright pipeline backfill nightly --from 2026-01-01 --to 2026-01-31 --dry-run
        loopwright pipeline backfill pipelines:train --every 1d --from 2026-01-01 -p since={start:%Y-%m-%d}

    Parameters
    ----------
    what
        A schedule, a pipeline ``<module>:<function>``, or a model whose pipeline is meant.
    concurrency
        Runs at a time.
    again
        Also intervals that are done.
    dry_run
        Say what would run.
    """
    from loopwright import parts
    from loopwright.cli.pipeline import _values
    from loopwright.ledger import Ledger
    from loopwright.pipelines import backfill as filling
    from loopwright.pipelines import load

    if concurrency < 1:
        raise InvalidInput(f"--concurrency {concurrency} runs nothing.", valid="At least 1.")
    project = common.open()
    schedule, entrypoint = _target(project, what)
    timing = _timing(project, schedule, entrypoint, every, cron)
    first, last = _span(from_, to, timing)
    found = filling.intervals(timing, first, last)
    parts.connect(project)
    pipeline = load(project, entrypoint)
    parameters = (schedule.parameters if schedule else {}) | _values(parameter)
    ledger = Ledger.open(project)
    name = schedule.name if schedule else ""
    fills = filling.plan(ledger, pipeline, found, parameters, schedule=name, again=again)
    if not dry_run:
        fills = _run(project, entrypoint, fills, concurrency, common)
    _report(fills, dry_run, common)


def _target(project: Project, what: str) -> tuple[Schedule | None, str]:
    from loopwright.pipelines.plan import schedules

    known = schedules(project)
    if what in known:
        if known[what].batch:
            raise InvalidInput(
                f"The schedule {what!r} runs a batch deployment, which scores what is new by itself.",
                hint=f"loopwright deployment run {known[what].target}",
            )
        return known[what], known[what].target
    if ":" in what:
        return None, what
    if what in project.config.model and project.config.model[what].pipeline:
        return None, str(project.config.model[what].pipeline)
    names = [*known, *project.config.model]
    raise InvalidInput(
        f"{what!r} is no schedule and no pipeline.",
        valid=f"Write '<module>:<function>', or one of: {listing(names)}.",
        hint="loopwright schedule list",
    )


def _timing(project: Project, schedule: Schedule | None, entrypoint: str, every: str, cron: str) -> Timing:
    from loopwright.config import ScheduleConfig
    from loopwright.pipelines.plan import schedules
    from loopwright.pipelines.timing import Timing

    if every or cron:
        try:
            given = ScheduleConfig.model_validate(
                {"pipeline": entrypoint, "every": every or None, "cron": cron or None}
            )
        except ValueError as error:
            text = str(error).split("Value error, ")[-1].partition(" [type=")[0]
            raise InvalidInput(
                f"--every {every!r} --cron {cron!r}: {text}.", valid="One of --every 1d, --cron '0 2 * * *'."
            ) from None
        if given.every:
            return Timing(every_s=given.every.total_seconds())
        zone = schedule.timing.zone if schedule and schedule.timing else "UTC"
        return Timing(cron=cron, zone=zone)
    mine = [one for one in schedules(project).values() if one.timing and one.target == entrypoint]
    chosen = schedule or (mine[0] if len(mine) == 1 else None)
    if chosen is None or chosen.timing is None:
        raise InvalidInput(
            f"There is no interval to run {entrypoint} by.",
            valid=f"Its schedules: {listing(one.name for one in mine)}.",
            hint="--every 1d   or   --cron '0 2 * * *'",
        )
    return chosen.timing


def _span(from_: str, to: str, timing: Timing) -> tuple[datetime, datetime]:
    zone = ZoneInfo(timing.zone)
    first, _ = _moment("--from", from_, zone)
    if not to:
        return first, datetime.now(zone)
    last, whole_day = _moment("--to", to, zone)
    last = last + timedelta(days=1, seconds=-1) if whole_day else last
    if last < first:
        raise InvalidInput(f"--to {to} is before --from {from_}.", valid="The end comes after the start.")
    return first, last


def _moment(option: str, text: str, zone: ZoneInfo) -> tuple[datetime, bool]:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(
            f"{option} {text!r} is no date.", valid="Write 2026-01-31 or 2026-01-31T06:00."
        ) from None
    whole_day = len(text) <= 10 and found.time() == time()
    return found if found.tzinfo else found.replace(tzinfo=zone), whole_day


def _run(
    project: Project, entrypoint: str, fills: list[Fill], concurrency: int, common: Common
) -> list[Fill]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from loopwright.pipelines import backfill as filling

    wanted = sum(not one.done for one in fills)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    quiet = common.json or not sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as progress:
        bar = progress.add_task(entrypoint, total=wanted)

        def ended(one: Fill) -> None:
            progress.update(bar, advance=1, description=f"{entrypoint} {one.start:%Y-%m-%d %H:%M}")

        try:
            return filling.carry_out(project, entrypoint, fills, concurrency=concurrency, progress=ended)
        except KeyboardInterrupt:
            Console(stderr=True).print("Stopped. The same command goes on with what is left.")
            raise


def _report(fills: list[Fill], dry_run: bool, common: Common) -> None:
    failed = [one for one in fills if one.error]
    if common.json:
        emit(fills)
    else:
        ran = [one for one in fills if one.done == "now"]
        known = [one for one in fills if one.done not in {"", "now"}]
        shown = fills if dry_run else failed
        rows: list[dict[str, Any]] = [
            {
                "start": when(one.start),
                "end": when(one.end),
                "parameters": ", ".join(f"{name}={value}" for name, value in one.parameters.items()),
                "what": (one.error and f"{one.error} ({one.log})") or one.done or "to run",
            }
            for one in shown
        ]
        if rows:
            emit_table("", rows, empty="")
        counts = f"{len(fills) - len(known)} to run" if dry_run else f"{len(ran)} run, {len(failed)} failed"
        console.print(f"{len(fills)} intervals: {counts}, {len(known)} done before.", highlight=False)
    if failed:
        sys.exit(1)
