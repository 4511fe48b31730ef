"""One run for each interval of a span that has none yet: ``python -m loopwright.pipelines.backfill`` runs one of them.

Each run is a process of its own, as under the runner; which intervals are done is read from the ledger, so that the
same call after a kill goes on where it was.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from loopwright import parts
from loopwright.config import PROJECT_VARIABLE, Project
from loopwright.errors import InvalidInput, LoopwrightError, listing
from loopwright.ledger import Ledger
from loopwright.pipelines import standing
from loopwright.pipelines.definition import Pipeline
from loopwright.pipelines.filling import Interval, asks, fill
from loopwright.pipelines.standing import ScheduledRun
from loopwright.pipelines.timing import Timing
from loopwright.records import PipelineRun, now

__all__ = ["Fill", "carry_out", "intervals", "main", "plan"]

MOST = 10_000
#: Parameters that are taken to mean the run's time when none is said to.
_TIMES = {
    "day": "{date}",
    "date": "{date}",
    "since": "{start}",
    "start": "{start}",
    "until": "{end}",
    "end": "{end}",
}


@dataclass(frozen=True, slots=True)
class Fill:
    """One interval and the run for it. `done` says why none is needed; `error` how its run failed."""

    start: datetime
    end: datetime
    parameters: dict[str, Any]
    done: str = ""
    error: str = ""
    log: str = ""

    @property
    def trigger(self) -> str:
        """What the run is found by again."""
        return f"backfill {self.start.isoformat()}/{self.end.isoformat()}"


def intervals(timing: Timing, first: datetime, last: datetime) -> list[Interval]:
    """Return the intervals between two times of a schedule that start in a span and have ended by now.

    Raises
    ------
    InvalidInput
        There are none, or too many.
    """
    times = timing.between(first - timedelta(seconds=1), last, most=MOST + 2)
    after = timing.after(times[-1]) if times else None
    times += [after] if after else []
    zone, moment = ZoneInfo(timing.zone), now()
    found = [
        Interval(start.astimezone(zone), end.astimezone(zone))
        for start, end in itertools.pairwise(times)
        if end <= moment
    ]
    if not found or len(found) > MOST:
        count = f"more than {MOST}" if found else "no"
        raise InvalidInput(
            f"Between {first.isoformat()} and {last.isoformat()} {timing} has {count} intervals that are over.",
            valid="Choose a longer or earlier span." if not found else "Choose a shorter span.",
        )
    return found


def plan(
    ledger: Ledger,
    pipeline: Pipeline[Any, Any],
    found: Sequence[Interval],
    parameters: dict[str, Any],
    *,
    schedule: str = "",
    again: bool = False,
) -> list[Fill]:
    """Return a run for each interval, those marked that are done already.

    Done is one whose backfill with the same parameters has completed, or whose run of the schedule has.

    Raises
    ------
    InvalidInput
        All runs would be the same, or the pipeline does not take the parameters.
    """
    wanted = dict(parameters)
    if not asks(wanted):
        names = pipeline.signature.parameters
        wanted |= {name: text for name, text in _TIMES.items() if name in names and name not in wanted}
    if not asks(wanted):
        raise InvalidInput(
            f"All runs of {pipeline.entrypoint} would be the same: no parameter is given the run's time.",
            valid=f"Its parameters: {listing(pipeline.signature.parameters)}.",
            hint="--parameter since={start}   (also {end}, {date}, {start:%Y-%m-%d})",
        )
    pipeline.bind(fill(wanted, found[0]))
    records = [state.read(PipelineRun) for state in ledger.states("pipeline_run")]
    completed = {
        run.trigger: run.parameters
        for run in records
        if run.status == "completed" and run.pipeline == pipeline.entrypoint
    }
    events = ledger.events(standing.ENDED, schedule, limit=100_000) if schedule else []
    runs = [event.read(ScheduledRun) for event in events]
    scheduled = {run.time for run in runs if run.status == "completed"}
    fills = []
    for interval in found:
        one = Fill(interval.start, interval.end, fill(wanted, interval))
        given = completed.get(one.trigger)
        done = ""
        if given is not None and one.parameters.items() <= given.items():
            done = "backfilled"
        elif interval.end in scheduled:
            done = "run by its schedule"
        fills.append(dataclasses.replace(one, done="" if again else done))
    return fills


def carry_out(
    project: Project,
    entrypoint: str,
    fills: Sequence[Fill],
    *,
    concurrency: int = 1,
    progress: Callable[[Fill], None] | None = None,
) -> list[Fill]:
    """Run what is not done, some at a time, and return all with their errors; one that fails stops no other."""
    waiting = [one for one in fills if not one.done]
    running: list[tuple[Fill, subprocess.Popen[bytes]]] = []
    ended: dict[str, Fill] = {}
    try:
        while waiting or running:
            while waiting and len(running) < concurrency:
                one = waiting.pop(0)
                running.append((one, _start(project, entrypoint, one)))
            time.sleep(0.05)
            for one, process in [pair for pair in running if pair[1].poll() is not None]:
                running.remove((one, process))
                ended[one.trigger] = result = _result(project, one, process.returncode)
                if progress:
                    progress(result)
    finally:  # interrupted: each run ends itself in MLflow and Prefect
        for _, process in running:
            process.terminate()
        for _, process in running:
            process.wait()
    return [ended.get(one.trigger, one) for one in fills]


def _log(project: Project, one: Fill) -> Path:
    return project.run / "logs" / "backfill" / f"{one.start:%Y%m%dT%H%M%S}.log"


def _start(project: Project, entrypoint: str, one: Fill) -> subprocess.Popen[bytes]:
    log = _log(project, one)
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "loopwright.pipelines.backfill", entrypoint, one.trigger]
    with log.open("wb") as out:
        return subprocess.Popen(
            [*command, json.dumps(one.parameters)],
            cwd=project.root,
            env=os.environ | {PROJECT_VARIABLE: str(project.root)},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            process_group=0,  # Ctrl-C is for the one who started it; it passes it on
        )


def _result(project: Project, one: Fill, code: int) -> Fill:
    if code == 0:
        return dataclasses.replace(one, done="now")
    log = _log(project, one)
    lines = log.read_text(errors="replace").strip().splitlines()
    what = lines[0] if lines else f"ended with {code}"
    return dataclasses.replace(one, error=what, log=str(log.relative_to(project.root)))


def main(entrypoint: str, trigger: str, parameters: str) -> int:
    """Run one interval and return the exit code."""
    from loopwright.pipelines.execution import run

    project = Project.find()
    parts.connect(project)
    try:
        run(project, entrypoint, json.loads(parameters), trigger=trigger)
    except LoopwrightError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
