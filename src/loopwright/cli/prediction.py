"""``loopwright prediction``: the prediction log."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import cyclopts
from cyclopts import Parameter

from loopwright.cli.output import COMMON, Common, console, emit, emit_table, working

if TYPE_CHECKING:
    from loopwright.config import Project
    from loopwright.predictions import Extent

__all__ = ["app"]

app = cyclopts.App(name="prediction", help="Query, export and look after the prediction log.")

Since = Annotated[
    str | None, Parameter(help="Made at or after: '2026-11-01', '2026-11-01T12:30', or '7d' ago.")
]
Until = Annotated[str | None, Parameter(help="Made before; written as --since.")]
_SHOWN = "prediction_id, at, deployment, version, variant, prediction, actual, latency_ms"


@app.command(name="list")
def list_(
    deployment: str | None = None,
    /,
    *,
    since: Since = None,
    until: Until = None,
    version: Annotated[int | None, Parameter(help="Only of this model version.")] = None,
    variant: Annotated[str | None, Parameter(help="Only of this variant.")] = None,
    labelled: Annotated[bool, Parameter(help="Only those with a label.", negative="")] = False,
    where: Annotated[str | None, Parameter(help="An SQL condition on the columns.")] = None,
    sql: Annotated[
        str | None, Parameter(help="A SELECT over `predictions`, instead of the newest rows.")
    ] = None,
    limit: Annotated[int, Parameter(help="At most so many rows.")] = 20,
    common: Common = COMMON,
) -> None:
    """List the newest predictions, or run a query over all of them.

    For example:

        loopwright prediction list digits-api
        loopwright prediction list digits-api --since 1h --version 3 --where "actual <> prediction"
        loopwright prediction list --sql "select version, avg(actual = prediction) from predictions group by 1"
    """
    from loopwright.predictions import PredictionStore, rows_of
    from loopwright.predictions.frames import moment

    conditions = [f"({where})"] if where else []
    conditions += [f"version = {version}"] if version is not None else []
    conditions += [f"variant = {_quoted(variant)}"] if variant is not None else []
    conditions += ["actual is not null"] if labelled else []
    query = sql or (
        f"select {_SHOWN} from predictions where {' and '.join(conditions or ['true'])} "
        f"order by at desc limit {int(limit)}"
    )
    store = PredictionStore(common.open())
    found = store.query(
        query, deployment=deployment, since=moment(since, "--since"), until=moment(until, "--until")
    )
    rows = rows_of(found)
    if common.json:
        emit(rows)
        return
    emit_table("", rows, empty="No predictions. Try: loopwright deployment list")
    if aside := store.extent(deployment).quarantined:
        console.print(
            f"{aside} damaged {'segment is' if aside == 1 else 'segments are'} set aside and not among these. "
            "Try: loopwright prediction status"
        )


@app.command
def show(prediction_id: str, /, *, common: Common = COMMON) -> None:
    """Show one prediction with its inputs, its label and all labels it ever had, as JSON.

    For example:

        loopwright prediction show 0192f3...
    """
    import msgspec

    from loopwright.predictions import PredictionStore

    store = PredictionStore(common.open())
    found = msgspec.to_builtins(store.find(prediction_id), enc_hook=str)
    emit(found | {"labels": store.labels_of(prediction_id)})


@app.command
def status(deployment: str | None = None, /, *, common: Common = COMMON) -> None:
    """Show how much is in the log of each deployment, and what is damaged.

    For example:

        loopwright prediction status
        loopwright prediction status digits-api --json
    """
    from loopwright.predictions import PredictionStore, files

    project = common.open()
    store = PredictionStore(project)
    names = [deployment] if deployment else files.deployments(project)
    found = {name: store.extent(name) for name in names}
    if common.json:
        emit(found)
        return
    emit_table(
        "",
        [{"deployment": name} | _row(one) for name, one in found.items()],
        empty="No predictions. Try: loopwright deployment list",
    )
    if any(one.quarantined for one in found.values()):
        console.print(
            f"Damaged segments lie in {project.predictions}/<log>/quarantine, each with its reason."
        )


def _row(extent: Extent) -> dict[str, Any]:
    return {
        "rows": extent.rows,
        "first": extent.first,
        "last": extent.last,
        "MB": extent.bytes / 1e6,
        "segments": extent.segments,
        "open": extent.open,
        "damaged": extent.quarantined,
    }


@app.command
def export(
    deployment: str,
    path: Path,
    /,
    *,
    since: Since = None,
    until: Until = None,
    columns: Annotated[
        str | None, Parameter(help="Only these columns, in this order, with commas between them.")
    ] = None,
    force: Annotated[bool, Parameter(help="Replace a file that is there.", negative="")] = False,
    common: Common = COMMON,
) -> None:
    """Write the predictions of a deployment to a file: .parquet, .csv, .arrow or .jsonl, oldest first.

    The file appears when it is complete. Memory stays the same however many predictions there are.

    For example:

        loopwright prediction export digits-api november.parquet --since 2026-11-01 --until 2026-12-01
        loopwright prediction export digits-api answers.csv --columns at,prediction,actual
    """
    from loopwright.predictions import frames
    from loopwright.predictions.exports import export as write

    frame = frames.predictions(deployment, since=since, until=until, project=common.open())
    names = [name.strip() for name in columns.split(",")] if columns else None
    with _counting(frame.count, f"Writing {path.name}") as told:
        rows = write(frame, path, columns=names, force=force, told=told)
    if common.json:
        emit({"path": str(path), "rows": rows, "bytes": path.stat().st_size})
        return
    console.print(f"{rows:,} predictions are in {path} ({path.stat().st_size / 1e6:.1f} MB).")


@contextlib.contextmanager
def _counting(total: Callable[[], int], what: str) -> Iterator[Callable[[int], None]]:
    """Show a bar on a terminal, on standard error; give what moves it to a number of rows."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    shown = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*shown, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total())
        yield lambda rows: bar.update(task, completed=rows)


@app.command
def forget(
    *,
    entity: Annotated[str | None, Parameter(help="The person or device whose rows are to go.")] = None,
    id: Annotated[str | None, Parameter(help="The id of one prediction.")] = None,  # noqa: A002
    yes: Annotated[bool, Parameter(help="Do not ask.", negative="")] = False,
    wait: Annotated[float, Parameter(help="Seconds to wait for files that are being written.")] = 15.0,
    common: Common = COMMON,
) -> None:
    """Delete all predictions of one entity, or one prediction, with its shadows and labels. Cannot be undone.

    What stays is an event without the value. Datasets and models that were made of the rows are not changed.

    For example:

        loopwright prediction forget --entity customer-17
        loopwright prediction forget --id 0192f3... --yes
    """
    from loopwright.errors import InvalidInput
    from loopwright.ledger import Ledger
    from loopwright.predictions.retention import forget as delete

    project = common.open()
    if bool(entity) == bool(id):
        raise InvalidInput(
            "What is to be forgotten is not said.",
            valid="Write either --entity or --id.",
            hint="loopwright prediction forget --entity customer-17",
        )
    if not yes and not _sure(f"Delete all predictions of {entity or id} for good?"):
        console.print("Nothing was deleted.")
        return
    ledger = Ledger.open(project)
    try:
        with working("Searching all segments"):
            done = delete(project, ledger, entity=entity, prediction_id=id, wait_s=wait)
    finally:
        ledger.close()
    if common.json:
        emit(done)
        return
    console.print(
        f"Deleted: {done.predictions} predictions, {done.shadows} of shadows, {done.labels} labels, "
        f"in {done.segments} segments."
    )
    if done.pending:
        console.print(
            f"{done.pending} files are still written to: their rows go within minutes, by `loopwright up`."
        )
    if done.damaged:
        console.print(f"{done.damaged} damaged segments could not be searched: delete their files by hand.")


def _sure(question: str) -> bool:
    """Ask on a terminal; without one the answer is no."""
    return sys.stdin.isatty() and console.input(f"{question} [y/N] ").strip().lower() in {"y", "yes"}


@app.command
def repair(*, common: Common = COMMON) -> None:
    """Check every segment of the log, set damaged ones aside, and bring the catalogue up to date.

    Reads all of the log, also what is in a store elsewhere. Harmless while predictions are made.

    For example:

        loopwright prediction repair
    """
    from loopwright.predictions import PredictionStore

    project = common.open()
    with working("Reading all segments"):
        done = _repaired(project)
    if common.json:
        emit(done)
        return
    whole = PredictionStore(project).extent()
    console.print(
        f"{whole.segments} segments with {whole.rows:,} predictions are sound. "
        f"Sealed: {done.sealed}; set aside: {done.quarantined}; corrected in the catalogue: {done.catalogued}."
    )
    for problem in done.problems:
        console.print(problem)


def _repaired(project: Project) -> Any:
    from loopwright.ledger import Ledger
    from loopwright.predictions import repair as check

    ledger = Ledger.open(project)
    try:
        return check(project, ledger)
    finally:
        ledger.close()


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
