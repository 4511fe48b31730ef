"""``loopwright label``: late ground truth."""

import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from cyclopts import Parameter

from loopwright.cli.output import COMMON, Common, console, emit, emit_table, when
from loopwright.errors import InvalidInput

__all__ = ["app"]

_EXAMPLES = """For example:

    loopwright label 0192f3... 7
    loopwright label --deployment api --entity e7 --at 2026-01-31T20:00Z 431
    loopwright label import truth.csv --id prediction_id --value actual
    loopwright label status demand-api
"""

app = cyclopts.App(name="label", help_epilogue=_EXAMPLES)


@app.default
def label(
    *words: Annotated[
        str, Parameter(help="The prediction's id and what was true; with --entity only the latter.")
    ],
    deployment: Annotated[str, Parameter(help="Whose prediction it is, with --entity.")] = "",
    entity: Annotated[str, Parameter(help="Whom the prediction was about, where its id is not known.")] = "",
    at: Annotated[
        str, Parameter(help="When it was true, such as 2026-01-31T20:00:00Z; by default now.")
    ] = "",
    within: Annotated[str, Parameter(help="How much older the prediction may be, such as 2h.")] = "1d",
    common: Common = COMMON,
) -> None:
    """Hand in what turned out to be true for one prediction; a later label corrects an earlier one.

    With --entity it is of the entity's last prediction at or before that moment.

    For example:

        loopwright label 0192f3... 7
        loopwright label --deployment api --entity e7 --at 2026-01-31T20:00Z 431
    """
    from loopwright.deploy.labels.rows import as_scalar
    from loopwright.deploy.online.client import label as send

    if not words and not (deployment or entity):
        app.help_print([])
        return
    wanted = 1 if entity else 2
    if len(words) != wanted:
        raise InvalidInput(
            f"{' '.join(words) or 'Nothing'} is not {'a value' if entity else 'an id and a value'}.",
            valid="loopwright label ID VALUE, or: loopwright label --deployment D --entity E --at TIME VALUE",
            hint="loopwright label --help",
        )
    moment = _moment(at) if at else None
    if entity:
        send(
            actual=as_scalar(words[-1]),
            deployment=deployment,
            entity=entity,
            at=moment,
            within=within,
            project=common.open(),
        )
    else:
        send(words[0], as_scalar(words[1]), at=moment, project=common.open())
    console.print(f"Labelled {entity or words[0]} as {words[-1]}.")


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(f"--at {text!r} is no time.", valid="2026-01-31T20:00:00Z") from None


@app.command(name="import", help_epilogue="")
def import_(
    file: Path,
    /,
    *,
    value: Annotated[str, Parameter(help="The column of what was true.")],
    id_: Annotated[str, Parameter(name="--id", help="The column of prediction ids.")] = "",
    entity: Annotated[str, Parameter(help="Or the column of entities, with --at and --deployment.")] = "",
    at: Annotated[str, Parameter(help="The column of when it was true.")] = "",
    deployment: Annotated[str, Parameter(help="Whose predictions they are, with --entity.")] = "",
    within: Annotated[str, Parameter(help="How much older the prediction may be, with --entity.")] = "1d",
    common: Common = COMMON,
) -> None:
    """Hand in the labels of a CSV or Parquet file; rows that are none are named and the others taken.

    For example:

        loopwright label import truth.csv --id prediction_id --value actual
        loopwright label import sales.csv --entity shop --at day --value sold --deployment api
    """
    from loopwright.config import LabelSourceConfig
    from loopwright.deploy.labels.importing import import_file

    project = common.open()
    try:
        config = LabelSourceConfig(
            source=str(file),
            deployment=deployment,
            id=id_,
            entity=entity,
            at=at,
            value=value,
            within=within,
        )
    except ValueError as error:
        raise InvalidInput(
            f"The columns do not say which predictions are meant: {_said(error)}.",
            hint="loopwright label import --help",
        ) from None
    with _progress(file, quiet=common.json) as advance:
        done = import_file(project, file, config, advance)
    if common.json:
        emit(done)
        return
    console.print(f"{done.taken:,} of {done.rows:,} rows of {file.name} were taken as labels.")
    if done.unlogged:
        console.print(
            f"{done.unlogged:,} of them name predictions that are not in the log: they never count."
        )
    for reason, count in done.refused.items():
        console.print(f"{count:,} refused: {reason}.")
    for row, reason in done.examples:
        console.print(f"  row {row}: {reason}")


def _said(error: ValueError) -> str:
    import pydantic

    if not isinstance(error, pydantic.ValidationError):
        return str(error)
    return "; ".join(problem["msg"].removeprefix("Value error, ") for problem in error.errors())


def _progress(file: Path, *, quiet: bool) -> Any:
    """Return a context that shows how much of a file has been read, and gives what is told of it."""
    import contextlib

    @contextlib.contextmanager
    def shown() -> Iterator[Any]:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        hidden = quiet or not sys.stderr.isatty()
        with Progress(*columns, console=Console(stderr=True), transient=True, disable=hidden) as bar:
            task = bar.add_task(file.name, total=None)
            yield lambda done, whole: bar.update(task, completed=done, total=whole)

    return shown()


@app.command(help_epilogue="")
def status(
    deployment: str,
    /,
    *,
    days: Annotated[int, Parameter(help="How far to look back.")] = 30,
    common: Common = COMMON,
) -> None:
    """Show how long the labels of a deployment take, what share of its predictions gets one, and what became of them.

    For example:

        loopwright label status demand-api
        loopwright label status demand-api --json
    """
    from datetime import timedelta

    from loopwright.config import MonitorConfig
    from loopwright.monitor.label_delay import LabelDelay
    from loopwright.predictions import DELAY_AGES, PredictionStore
    from loopwright.records import now

    project = common.open()
    model = project.deployment(deployment).model
    config = project.config.monitor.get(model, MonitorConfig())
    store, moment = PredictionStore(project), now()
    delay = LabelDelay.read(store, deployment, moment, config)
    counts = store.label_summary(deployment, moment - timedelta(days=days), moment)
    curve = delay.shares()
    if common.json:
        points = [
            {"age_s": float(age), "share": share} for age, share in zip(DELAY_AGES, curve, strict=False)
        ]
        emit(
            {
                "deployment": deployment,
                "days": days,
                "counts": counts,
                "final": delay.final,
                "overdue_s": delay.overdue_s,
                "stopped": delay.stopped,
                "curve": points,
            }
        )
        return
    console.print(
        f"{deployment}: {counts.labelled:,} of {counts.rows:,} predictions of the last {days} days have a label."
    )
    console.print(
        f"{counts.labels:,} labels: {counts.corrected:,} predictions corrected, {counts.duplicates:,} said twice, "
        f"{counts.unusable:,} of the wrong type, {counts.before:,} before their prediction, {counts.unknown:,} of none."
    )
    if not curve:
        console.print("How long labels take is not known yet: no predictions were followed long enough.")
        return
    assert delay.final is not None
    console.print(f"In the end {delay.final:.0%} of the predictions have one. Of these labels there are:")
    rows = [
        {"after": _span(age), "share": f"{share:.0%}"}
        for age, share in delay.milestones((0.5, 0.75, 0.9, 0.95, 0.99))
    ]
    emit_table("", rows, empty="")
    if delay.stopped:
        console.print("No label has come for longer than can be chance: look whether their sender works.")


def _span(seconds: float) -> str:
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"


@app.command(help_epilogue="")
def sources(*, common: Common = COMMON) -> None:
    """List the label sources of loopwright.toml, when each was read and what came of it.

    For example:

        loopwright label sources
    """
    from loopwright.deploy.labels import states
    from loopwright.ledger import Ledger

    project = common.open()
    ledger = Ledger.open(project)
    found = states(project, ledger)
    ledger.close()
    if common.json:
        emit([{"name": name, "state": state} for name, state in found.items()])
        return
    rows = [
        {
            "source": name,
            "state": state.state if state else "never read",
            "read at": when(state.at) if state else "-",
            "rows": state.read if state else 0,
            "taken": state.taken if state else 0,
            "refused": sum(state.refused.values()) if state else 0,
            "next": when(state.next) if state else "now",
            "why": (state.reason or "; ".join(state.refused)) if state else "",
        }
        for name, state in found.items()
    ]
    emit_table("", rows, empty="No label sources. Add [labels.<name>] to loopwright.toml.")


@app.command(help_epilogue="")
def sync(name: str, /, *, common: Common = COMMON) -> None:
    """Read one label source now and take what is new or corrected.

    For example:

        loopwright label sync outcomes
    """
    from loopwright.deploy import labels
    from loopwright.errors import Unavailable
    from loopwright.ledger import Ledger

    project = common.open()
    ledger = Ledger.open(project)
    try:
        found = labels.sync(project, ledger, name)
    finally:
        ledger.close()
    if common.json:
        emit(found)
    if found.state == "down":
        raise Unavailable(f"The label source {name!r} cannot be read: {found.reason}")
    if common.json:
        return
    console.print(f"{name}: {found.read:,} rows read, {found.taken:,} labels taken.")
    for row, reason in found.examples:
        console.print(f"  row {row}: {reason}")
