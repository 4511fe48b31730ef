"""``loopwright run``: tracked runs, as MLflow has them."""

import math
from typing import Annotated, Any

import cyclopts
from cyclopts import Parameter
from rich.markup import escape

from loopwright.cli.output import COMMON, Common, console, emit, emit_table, when
from loopwright.config import Project
from loopwright.errors import NotFound
from loopwright.tracking.run import Run

__all__ = ["app"]

app = cyclopts.App(name="run", help="Look at tracked runs.")

_EMPTY = "No run has been tracked yet. Try: loopwright pipeline run pipelines:train"
_BARS = "▁▂▃▄▅▆▇█"
#: Enough of an id to find a run by, as commits are.
_ID = 8
#: Columns of a table of runs that hold metrics, and parameters.
_METRICS, _PARAMS = 4, 3
_LONGEST = 60


@app.command(name="list")
def list_(
    *,
    where: Annotated[str, Parameter(help="Conditions, such as \"accuracy > 0.9 and depth = '6'\".")] = "",
    sort: Annotated[
        str, Parameter(help="What to sort by, such as accuracy, 'loss asc' or started.")
    ] = "started",
    limit: Annotated[
        int, Parameter(help="At most so many.", validator=cyclopts.validators.Number(gte=1))
    ] = 20,
    experiment: Annotated[str, Parameter(help="Only runs of this MLflow experiment.")] = "",
    common: Common = COMMON,
) -> None:
    """List tracked runs, the newest first, with their metrics and with the parameters that differ.

    For example:

        loopwright run list --where "accuracy > 0.9" --sort accuracy --limit 10
    """
    from loopwright.tracking.where import parse_order, parse_where

    conditions, order = parse_where(where), parse_order(sort)
    reader = _reader(common.open(), needed=False)
    runs = reader.search(conditions, order, limit, experiment) if reader else []
    if common.json:
        emit(runs)
        return
    names = {run.experiment_id for run in runs}
    experiments = reader.experiments() if reader and len(names) > 1 else {}
    first = [order.name] if order.kind == "metric" else []
    empty = "No run meets this." if where or experiment else _EMPTY
    emit_table("", _rows(runs, experiments, first), empty=empty)


@app.command
def show(run: str, *, common: Common = COMMON) -> None:
    """Show a run: parameters, the course of its metrics, tags, datasets, artifacts, model versions, its page.

    A run is named by its id, the start of its id, or its name (the newest of that name).

    For example:

        loopwright run show 3f9a
    """
    from loopwright.tracking.reading import details, find

    project = common.open()
    reader = _reader(project)
    found = details(project, reader, find(reader, run))
    if common.json:
        emit(found)
        return
    run_ = found.run
    console.print(f"[bold]{escape(run_.name) or run_.run_id}[/]  {run_.run_id}", highlight=False)
    console.print(
        f"{run_.status} in {found.experiment}, started {when(run_.started)}{_took(run_)}", highlight=False
    )
    _section(
        "Parameters", [{"name": name, "value": _cut(value)} for name, value in sorted(run_.params.items())]
    )
    courses = {history.metric: history for history in found.histories}
    _section(
        "Metrics",
        [
            {
                "name": name,
                "last": _number(value),
                "lowest": _number(courses[name].low) if name in courses else "-",
                "highest": _number(courses[name].high) if name in courses else "-",
                "points": str(courses[name].points) if name in courses else "-",
                "course": _spark(courses[name].course) if name in courses else "",
            }
            for name, value in sorted(run_.metrics.items())
        ],
    )
    _section("Datasets", [{"name": one.name, "digest": one.digest} for one in found.datasets])
    _section("Model versions", [{"version": version} for version in found.versions])
    _section("Artifacts", [{"path": path} for path in found.artifacts])
    _section("Tags", [{"name": name, "value": _cut(value)} for name, value in sorted(run_.tags.items())])
    if found.page:
        console.print(f"\n{found.page}", highlight=False)


@app.command
def compare(runs: Annotated[list[str], Parameter(consume_multiple=True)], *, common: Common = COMMON) -> None:
    """Compare runs side by side: only what differs, metrics with their difference to the first run.

    For example:

        loopwright run compare 3f9a 81c0
    """
    from loopwright.errors import InvalidInput
    from loopwright.tracking.reading import find

    reader = _reader(common.open())
    found = list({run.run_id: run for run in (find(reader, name) for name in runs)}.values())
    if len(found) < 2:
        raise InvalidInput(
            "There is only one run to compare.", valid="Name two runs or more.", hint="loopwright run list"
        )
    differing = {
        "params": _differing([run.params for run in found]),
        "metrics": _differing([run.metrics for run in found]),
        "tags": _differing([run.tags for run in found]),
    }
    if common.json:
        emit({"runs": found, **differing})
        return
    heads = [f"{escape(run.name) or 'run'} {run.run_id[:_ID]}" for run in found]
    if not any(differing.values()):
        console.print("The runs have the same parameters, metrics and tags.")
    metrics = [
        {"name": name} | {head: _against(values, index) for index, head in enumerate(heads)}
        for name, values in differing["metrics"].items()
    ]
    _section("Metrics that differ", metrics)
    for title, kind in (("Parameters that differ", "params"), ("Tags that differ", "tags")):
        rows = [
            {"name": name} | {head: _cut(value) for head, value in zip(heads, values, strict=True)}
            for name, values in differing[kind].items()
            if not name.startswith("mlflow.log-model")
        ]
        _section(title, rows)
    same = {name: value for name, value in found[0].params.items() if name not in differing["params"]}
    _section(
        "Parameters in common", [{"name": name, "value": _cut(value)} for name, value in sorted(same.items())]
    )


@app.command
def best(
    metric: str,
    *,
    lower: Annotated[bool, Parameter(help="The lowest value is the best.", negative="")] = False,
    where: Annotated[str, Parameter(help="Only among runs that meet these conditions.")] = "",
    limit: Annotated[int, Parameter(help="Show so many.", validator=cyclopts.validators.Number(gte=1))] = 1,
    common: Common = COMMON,
) -> None:
    """Find the run with the best last value of a metric: the highest, or with --lower the lowest.

    For example:

        loopwright run best accuracy
        loopwright run best rmse --lower --where "status = 'FINISHED'" --limit 5
    """
    from loopwright.tracking.reading import best as best_

    found = best_(_reader(common.open()), metric, where, lower=lower, limit=limit)
    if common.json:
        emit(found)
        return
    emit_table("", _rows(found, {}, [metric]), empty=_EMPTY)
    console.print(f"\nTry: loopwright run show {found[0].run_id[:_ID]}", highlight=False)


def _reader(project: Project, *, needed: bool = True) -> Any:
    from loopwright.tracking.reading import open_reader

    reader = open_reader(project)
    if reader is None and needed:
        raise NotFound("No run has been tracked yet.", hint="loopwright pipeline run pipelines:train")
    return reader


def _rows(runs: list[Run], experiments: dict[str, str], first: list[str]) -> list[dict[str, Any]]:
    """Return runs as rows of a table, with the metrics that most of them have and parameters that differ."""
    counts: dict[str, int] = {}
    for run in runs:
        for name in run.metrics:
            counts[name] = counts.get(name, 0) + 1
    metrics = list(dict.fromkeys(first + sorted(counts, key=lambda name: (-counts[name], name))))[:_METRICS]
    given = {
        name: {run.params[name] for run in runs if name in run.params} for run in runs for name in run.params
    }
    params = sorted(name for name, values in given.items() if len(values) > 1)[:_PARAMS]
    return [
        {"run": run.run_id[:_ID], "name": escape(run.name), "started": run.started}
        | ({"experiment": experiments.get(run.experiment_id, run.experiment_id)} if experiments else {})
        | {"status": run.status.lower()}
        | {name: _number(run.metrics.get(name)) for name in metrics}
        | {name: _cut(run.params.get(name, "-"), 20) for name in params}
        for run in runs
    ]


def _differing(of_each: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return what is not the same in all of them, by name; None where one lacks it."""
    names = sorted({name for values in of_each for name in values})
    found = {name: [values.get(name) for values in of_each] for name in names}
    return {name: values for name, values in found.items() if any(value != values[0] for value in values)}


def _against(values: list[float | None], index: int) -> str:
    value, base = values[index], values[0]
    if value is None or base is None or index == 0:
        return _number(value)
    share = f", {(value - base) / abs(base):+.1%}" if base else ""
    return f"{_number(value)} ({value - base:+.4g}{share})"


def _section(title: str, rows: list[dict[str, Any]]) -> None:
    if rows:
        # Not the table's own title, which wraps where the table is narrow.
        console.print(f"\n[italic]{title}[/]")
        emit_table("", rows, empty="")


def _took(run: Run) -> str:
    return f", took {(run.ended - run.started).total_seconds():.1f} s" if run.ended else ""


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.5g}"


def _cut(value: Any, longest: int = _LONGEST) -> str:
    text = "-" if value is None else " ".join(str(value).split())
    return escape(text if len(text) <= longest else f"{text[: longest - 1]}…")


def _spark(course: tuple[float, ...]) -> str:
    """Draw a course with bars of eight heights; one point has none."""
    low, high = min(course), max(course)
    if len(course) < 2 or not math.isfinite(high - low):
        return ""
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((value - low) * scale)] for value in course)
