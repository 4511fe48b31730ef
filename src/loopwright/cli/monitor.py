"""``loopwright monitor``: what the monitors see, now and in past windows."""

import contextlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from cyclopts import Parameter
from rich.markup import escape

from loopwright.cli.output import COMMON, Common, console, emit, emit_table, when, working

__all__ = ["app"]

app = cyclopts.App(name="monitor", help="See how deployments stand, window by window and input by input.")

_BAR = 24
_HOUR = "1h"


@app.command
def status(deployment: str | None = None, /, *, common: Common = COMMON) -> None:
    """Show how deployments stand: traffic, the newest windows, what fired, open alerts.

    For example:

        loopwright monitor status
        loopwright monitor status digits-api --json
    """
    from loopwright.ledger import Ledger
    from loopwright.monitor.live import standing
    from loopwright.records import now

    project = common.open()
    found = standing(project, Ledger.open(project), now(), deployment)
    if common.json:
        emit(found)
        return
    emit_table(
        "",
        [
            {
                "deployment": one.deployment,
                "version": f"{one.model}/{one.version}",
                "per second": one.per_s,
                "predictions": f"{one.predictions:,}",
                "inputs": _window(one.inputs),
                "labels": _window(one.labels),
                "fired": ", ".join(one.fired) or None,
                "alerts": ", ".join(f"{number} {severity}" for severity, number in sorted(one.alerts.items()))
                or None,
            }
            for one in found
        ],
        empty="No deployment is running. Try: loopwright deployment start NAME",
    )
    for one in found:
        if not one.watched:
            console.print(
                f"{one.deployment}: nothing is watched. Add [monitor.{one.model}] to loopwright.toml.",
                markup=False,
            )
        if one.counted < 1:
            console.print(f"{one.deployment}: {one.counted:.0%} of its log is counted; the newest first.")


def _window(judged: Any) -> str | None:
    """Return the newest window of a phase in a few words."""
    if judged is None:
        return None
    what = f"{judged.rows:,} rows"
    if judged.phase == "labels" and judged.maturity is not None:
        what += f", {min(1.0, judged.maturity):.0%} of labels"
    state = "" if judged.state == "judged" else f", {judged.state}"
    return f"{when(judged.window.end)}: {what}{state}"


@app.command
def windows(
    deployment: str,
    /,
    *,
    since: Annotated[str, Parameter(help="From when on: '2026-11-01', or '7d' for so long ago.")] = "1d",
    until: Annotated[str | None, Parameter(help="Until when; now by default.")] = None,
    check: Annotated[str | None, Parameter(help="Only what this check said, such as drift.")] = None,
    subject: Annotated[str | None, Parameter(help="Only of this input, metric or KPI.")] = None,
    fired: Annotated[bool, Parameter(help="Only windows in which something fired.", negative="")] = False,
    limit: Annotated[
        int, Parameter(help="At most so many, the newest.", validator=cyclopts.validators.Number(gte=1))
    ] = 50,
    common: Common = COMMON,
) -> None:
    """List the windows that were judged, or with --check or --subject what was found in them.

    For example:

        loopwright monitor windows digits-api --since 7d --fired
        loopwright monitor windows digits-api --check performance
    """
    from loopwright.ledger import Ledger
    from loopwright.monitor.results import Results
    from loopwright.predictions.frames import moment

    project = common.open()
    project.deployment(deployment)
    results = Results(Ledger.open(project))
    start, end = moment(since, "since"), moment(until, "until")
    if check or subject:
        signals = results.signals(
            deployment,
            check=check,
            subject=subject,
            fired=True if fired else None,
            limit=limit,
            since=start,
            until=end,
        )
        if common.json:
            emit(signals)
            return
        rows = [
            {
                "window": one.window.start,
                "check": one.check,
                "of": one.subject or None,
                "where": one.segment or None,
                "value": one.value,
                "limit": one.limit,
                "rows": one.rows,
                "": "fired" if one.fired else "",
            }
            for one in signals
        ]
    else:
        judged = results.windows(deployment, since=start, until=end, limit=limit if not fired else 10 * limit)
        judged = [one for one in judged if one.fired or not fired][-limit:]
        if common.json:
            emit(judged)
            return
        rows = [
            {
                "window": one.window.start,
                "phase": one.phase,
                "state": one.state,
                "version": one.version,
                "rows": one.rows,
                "labelled": one.labelled,
                "maturity": one.maturity,
                "fired": one.fired,
                "failed": ", ".join(one.failed) or None,
            }
            for one in judged
        ]
    emit_table("", rows, empty=f"No such window. Try: loopwright monitor windows {deployment} --since 30d")


@app.command
def features(
    deployment: str,
    /,
    *,
    name: Annotated[str | None, Parameter(help="One input: its distributions now and in training.")] = None,
    version: Annotated[int | None, Parameter(help="A version; the champion by default.")] = None,
    since: Annotated[str, Parameter(help="From when on: '2026-11-01', or '15m' for so long ago.")] = _HOUR,
    until: Annotated[str | None, Parameter(help="Until when; now by default.")] = None,
    common: Common = COMMON,
) -> None:
    """Show how far each input is from the training data, the farthest first; or one input in bars.

    PSI is the population stability index; "chance" is what it exceeds once in
    a thousand times at this many rows when nothing has changed.

    For example:

        loopwright monitor features digits-api --since 1d
        loopwright monitor features digits-api --name pixel_12
    """
    from loopwright.ledger import Ledger
    from loopwright.monitor.live import LiveNumbers, standing
    from loopwright.predictions.frames import moment
    from loopwright.records import now

    project = common.open()
    ledger = Ledger.open(project)
    at = now()
    if version is None:
        version = standing(project, ledger, at, deployment)[0].version
    numbers = LiveNumbers(ledger, project)
    start, end = moment(since, "since") or at, moment(until, "until") or at
    if name is not None:
        detail = numbers.feature(deployment, version, name, start, end)
        if common.json:
            emit(detail)
            return
        emit_table("", [_moved(detail.feature)], empty="")
        most = max((max(bar.before, bar.now) for bar in detail.bars), default=0.0)
        rows = [
            {
                "value": escape(bar.label),
                "training": _bar(bar.before, most),
                "now": _bar(bar.now, most),
                "share": f"{bar.before:.1%} -> {bar.now:.1%}",
            }
            for bar in detail.bars
        ]
        console.print()
        emit_table("", rows, empty="")
        return
    found = numbers.features(deployment, version, start, end)
    if common.json:
        emit(found)
        return
    most = max((one.psi or 0.0 for one in found), default=0.0)
    emit_table(
        "",
        [_moved(one) | {"": _bar(one.psi or 0.0, most)} for one in found],
        empty=f"Version {version} has no reference profile on this machine, so there is nothing to compare with.",
    )


def _moved(one: Any) -> dict[str, Any]:
    mean = (
        f"{one.mean_before:.4g} -> {one.mean:.4g}"
        if one.mean is not None and one.mean_before is not None
        else None
    )
    return {
        "input": escape(one.name),
        "rows": one.rows,
        "psi": one.psi,
        "chance": one.chance,
        "mean": mean,
        "missing": f"{one.missing:.1%}",
        "unseen": f"{one.unseen:.1%}",
        "out of range": f"{one.outside:.1%}",
    }


@contextlib.contextmanager
def _counting(what: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Show on standard error how much of a known number of things is done."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=quiet) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _bar(value: float, most: float) -> str:
    return "█" * round(_BAR * value / most) if most > 0 else ""


@app.command
def run(
    deployment: str,
    /,
    *,
    since: Annotated[str, Parameter(help="From when on: '2026-11-01', or '7d' for so long ago.")] = "1d",
    until: Annotated[str | None, Parameter(help="Until when; now by default.")] = None,
    common: Common = COMMON,
) -> None:
    """Judge all windows of a past span now, as after predictions were brought in.

    What is found replaces what was kept of the same windows. Alerts follow from
    the newest windows only.

    For example:

        loopwright monitor run digits-edge --since 2026-11-01 --until 2026-11-08
    """
    from loopwright.ledger import Ledger
    from loopwright.monitor.run import judge_span
    from loopwright.predictions import PredictionStore
    from loopwright.predictions.frames import moment
    from loopwright.records import now

    project = common.open()
    at = now()
    start, end = moment(since, "since") or at - timedelta(days=1), moment(until, "until") or at
    with working(f"judging windows of {deployment}"):
        found = judge_span(
            project, Ledger.open(project), PredictionStore(project), deployment, start, end, at
        )
    if common.json:
        emit(found)
        return
    fired = sum(one.fired > 0 for one in found)
    console.print(
        f"Judged {len(found)} windows from {when(start)} to {when(end)}; in {fired} something fired. "
        f"Next: loopwright monitor windows {deployment} --since {since} --fired"
    )


@app.command
def replay(
    model: str,
    source: str,
    /,
    *,
    time: Annotated[str, Parameter(help="The column of the moments the rows came at; UTC without a zone.")],
    into: Annotated[Path, Parameter(help="A new folder for what is found; it becomes a project of its own.")],
    version: Annotated[int | None, Parameter(help="The model's version; the newest by default.")] = None,
    target: Annotated[
        str | None, Parameter(help="The column of the truth; the model's target by default.")
    ] = None,
    entity: Annotated[str | None, Parameter(help="The column that says who a row is about.")] = None,
    label_delay: Annotated[str, Parameter(help="How long after its row a label came, such as '2h'.")] = "0s",
    window: Annotated[
        str | None, Parameter(help="The length of a window; the declared one by default.")
    ] = None,
    common: Common = COMMON,
) -> None:
    """Try the monitors of a model out on rows of the past, in their own time.

    The rows of a table are predicted, labelled and judged as if they came now, with
    the monitor that loopwright.toml declares: which windows would have alarmed, and
    why. Nothing of the project changes.

    For example:

        loopwright monitor replay demand history.parquet --time hour --label-delay 2h --into /tmp/replay
        loopwright up --project /tmp/replay        # look at it on the pages
    """
    import pyarrow as pa

    from loopwright import registry
    from loopwright.config import parse_duration
    from loopwright.errors import InvalidInput, NotFound
    from loopwright.lineage.sources import read_source
    from loopwright.monitor.replay import replay as run_replay

    project = common.open()
    try:
        delay = parse_duration(label_delay) if label_delay != "0s" else timedelta(0)
        length = parse_duration(window) if window else None
    except ValueError as error:
        raise InvalidInput(f"{error}.") from error
    known = [one.version for one in registry.versions(project, model)]
    if not known or (version is not None and version not in known):
        raise NotFound.among("version", f"{model}/{version or 1}", [f"{model}/{one}" for one in known])
    table = read_source(project, source).table
    if not isinstance(table, pa.Table):
        table = pa.Table.from_pandas(table, preserve_index=False)
    with _counting("judging windows", quiet=common.json) as progress:
        found = run_replay(
            project,
            model,
            version or max(known),
            table,
            time=time,
            into=into,
            target=target,
            entity=entity,
            label_delay=delay,
            window=length,
            progress=progress,
        )
    if common.json:
        emit(found)
        return
    emit_table(
        "",
        [
            {"since": one.since, "check": one.check, "of": escape(one.subject), "what": escape(one.message)}
            for one in found.alerts
        ],
        empty="No alert.",
    )
    fired = len({signal.window.start for signal in found.fired})
    console.print(
        f"{len(found.alerts)} alerts; something fired in {fired} of {len({one.window.start for one in found.windows})} "
        f"windows. Look at them: loopwright up --project {into}",
        markup=False,
    )


@app.command
def rebuild(
    deployment: str,
    /,
    *,
    wait: Annotated[bool, Parameter(help="Wait until all is counted.")] = True,
    common: Common = COMMON,
) -> None:
    """Count the live numbers of a deployment anew from the prediction log.

    Needed after files of the log were brought back or taken away by hand. The
    controller counts, where it runs, and this command where it does not.

    For example:

        loopwright monitor rebuild digits-api
    """
    import time

    from loopwright import parts
    from loopwright.ledger import Ledger
    from loopwright.monitor.live import Follower, LiveNumbers, progress
    from loopwright.monitor.live import rebuild as begin
    from loopwright.records import now

    project = common.open()
    ledger = Ledger.open(project)
    rows = begin(project, ledger, deployment)
    if wait:
        with working(f"counting {rows:,} rows"):
            if parts.ready(project, "controller"):
                while not progress(project, ledger, deployment).done:
                    time.sleep(0.5)
            else:
                follower = Follower(project, ledger)
                while follower.behind:
                    if not follower.turn(now(), rows=1_000_000, seconds=5.0):
                        time.sleep(0.1)
    of = {
        version: n
        for (name, version), n in LiveNumbers(ledger, project).totals().items()
        if name == deployment
    }
    if common.json:
        emit({"deployment": deployment, "sealed_rows": rows, "counted": of})
        return
    console.print(f"Counted {sum(of.values()):,} predictions of {deployment}.")
