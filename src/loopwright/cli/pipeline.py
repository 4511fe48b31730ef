"""``loopwright pipeline``: run pipelines, look at their runs, resume and cancel them."""

import collections
import sys
from typing import Annotated, Any

import cyclopts
from cyclopts import Parameter

from loopwright.cli.output import COMMON, Common, console, emit, emit_table, when
from loopwright.errors import InvalidInput
from loopwright.records import PipelineRun

__all__ = ["app"]

app = cyclopts.App(name="pipeline", help="Run pipelines; look at, resume and cancel their runs.")
app.command("loopwright.cli.backfill:backfill", name="backfill")


def _values(texts: tuple[str, ...]) -> dict[str, Any]:
    import msgspec

    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise InvalidInput(f"{text!r} is no parameter.", valid="Write name=value, such as -p depth=6.")
        try:
            found[name] = msgspec.json.decode(value)
        except msgspec.DecodeError:
            found[name] = value
    return found


@app.command
def run(
    entrypoint: str,
    /,
    *,
    parameter: Annotated[
        tuple[str, ...],
        Parameter(name=["--parameter", "-p"], help="name=value; may be repeated.", negative=""),
    ] = (),
    common: Common = COMMON,
) -> None:
    """Run a pipeline here and now, tracked in MLflow and seen in Prefect.

    For example:

        loopwright pipeline run pipelines:train -p depth=6

    Parameters
    ----------
    entrypoint
        ``<module>:<function>``, or the name of a model whose pipeline is meant.
    """
    from loopwright import pipelines

    project = common.open()
    if ":" not in entrypoint:
        entrypoint = project.model(entrypoint).pipeline or entrypoint
    _say(pipelines.run(project, entrypoint, _values(parameter)), common)


def _say(done: PipelineRun, common: Common) -> None:
    if common.json:
        emit(done)
        return
    if not sys.stderr.isatty():  # a terminal has seen them one by one
        for step in done.steps:
            console.print(f"  {step.name:<20} {step.status} in {step.seconds:.2f} s")
    cached = sum(step.status == "cached" for step in done.steps)
    again = f" · {cached} of {len(done.steps)} steps used again" if cached else ""
    console.print(
        f"[bold]{done.pipeline}[/bold] {done.status} in {done.seconds:.1f} s{again} · MLflow run {done.run_id}"
    )


@app.command
def resume(run: str = "last", /, *, common: Common = COMMON) -> None:
    """Run a failed run's pipeline again from the step that failed, with the same parameters.

    What its steps had computed is used again where neither code nor packages have changed.

    For example:

        loopwright pipeline resume 4f1c02ab

    Parameters
    ----------
    run
        The run's id, or its beginning; else the newest run.
    """
    from loopwright.pipelines import history

    project = common.open()
    _say(history.resume(project, history.find(project, run)), common)


@app.command
def cancel(run: str, /, *, common: Common = COMMON) -> None:
    """Stop a run that goes on, or take back one that waits for the runner.

    For example:

        loopwright pipeline cancel 4f1c02ab

    Parameters
    ----------
    run
        The id of the run, MLflow's or Prefect's, or its beginning.
    """
    from loopwright.pipelines import history

    project = common.open()
    what = history.cancel(project, run)
    if common.json:
        emit({"run": run, "result": what})
        return
    console.print(f"{run}: {what}.")


@app.command(name="list")
def list_(
    pipeline: str = "",
    /,
    *,
    limit: Annotated[int, Parameter(help="At most so many.")] = 50,
    common: Common = COMMON,
) -> None:
    """List the newest pipeline runs.

    For example:

        loopwright pipeline list pipelines:train

    Parameters
    ----------
    pipeline
        Only runs of this pipeline, ``<module>:<function>``.
    """
    from loopwright.pipelines import history

    runs = history.recent(common.open(), pipeline, limit)
    if common.json:
        emit(runs)
        return
    emit_table(
        "",
        [
            {
                "started": run.started,
                "pipeline": run.pipeline,
                "status": run.status,
                "s": round(run.seconds, 1),
                "steps": _counted(run),
                "trigger": run.trigger,
                "commit": run.git_commit[:8] + ("+" if run.git_dirty else ""),
                "MLflow run": run.run_id,
            }
            for run in runs
        ],
        empty="No pipeline has run yet. Try: loopwright pipeline run pipelines:train",
    )


def _counted(run: PipelineRun) -> str:
    counts = collections.Counter(step.status for step in run.steps)
    return ", ".join(f"{count} {status}" for status, count in counts.items()) or "-"


@app.command
def show(run: str = "last", /, *, common: Common = COMMON) -> None:
    """Show one run: its steps with their times, what it read, and how it ended.

    For example:

        loopwright pipeline show last

    Parameters
    ----------
    run
        The id of the run, MLflow's or Prefect's, or its beginning; else the newest.
    """
    from loopwright.pipelines import history
    from loopwright.pipelines.child import log_of

    project = common.open()
    found = history.find(project, run)
    if common.json:
        emit(found)
        return
    resumed = f", resumed from {found.resumed[:8]}" if found.resumed else ""
    console.print(
        f"[bold]{found.pipeline}[/bold] {found.status} · {when(found.started)} · {found.seconds:.1f} s · "
        f"trigger: {found.trigger or '-'}{resumed}"
    )
    console.print(f"MLflow run {found.run_id} · Prefect flow run {found.flow_run_id}")
    if found.parameters:
        console.print(
            "parameters: " + "  ".join(f"{name}={value!r}" for name, value in found.parameters.items())
        )
    emit_table("", _timed(found), empty="It has called no step.")
    for dataset in found.datasets:
        console.print(
            f"read {dataset.name}: {dataset.rows:,} rows of {dataset.source or 'a table'} · {dataset.digest[:12]}"
        )
    log = log_of(project, found.flow_run_id)
    if log.is_file() and log.stat().st_size:
        console.print(f"printed: {log}")
    if found.error:
        console.print(found.error, style="red", markup=False)
    if found.status in {"failed", "cancelled"}:
        console.print(f"Try: loopwright pipeline resume {found.run_id[:8]}", style="cyan")


def _timed(run: PipelineRun) -> list[dict[str, Any]]:
    """Return a row for each step, with a bar that shows when it went on."""
    width = 24
    whole = max((step.began + step.seconds for step in run.steps), default=0.0) or 1.0
    rows = []
    for step in run.steps:
        start = min(width - 1, int(step.began / whole * width))
        length = max(1, round(step.seconds / whole * width))
        rows.append(
            {
                "#": step.number,
                "step": step.name,
                "status": step.status,
                "s": f"{step.seconds:.2f}",
                "when": " " * start + "█" * min(length, width - start),
                "after": " ".join(map(str, step.after)) or "-",
                "note": step.note,
            }
        )
    return rows


@app.command
def graph(
    what: str,
    /,
    *,
    mermaid: Annotated[bool, Parameter(help="Print a Mermaid flowchart.", negative="")] = False,
    common: Common = COMMON,
) -> None:
    """Draw the steps of a pipeline, or of one run, and how their results flow. Nothing is run.

    For example:

        loopwright pipeline graph pipelines:train

    Parameters
    ----------
    what
        ``<module>:<function>``, the name of a model, or the id of a run.
    """
    from loopwright.pipelines import graph as graphs
    from loopwright.pipelines import history, load

    project = common.open()
    if ":" in what or what in project.config.model:
        entrypoint = what if ":" in what else project.model(what).pipeline or what
        found = graphs.graph_of(load(project, entrypoint))
    else:
        found = graphs.graph_of_run(history.find(project, what))
    if common.json:
        emit(found)
    elif mermaid:
        print(found.mermaid())  # noqa: T201 - a program may read it
    else:
        for line in graphs.drawn(found):
            console.print(line, highlight=False)
