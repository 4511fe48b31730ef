"""``loopwright pipeline``: run training pipelines."""

from typing import Annotated, Any

import cyclopts
from cyclopts import Parameter

from loopwright.cli.output import COMMON, Common, console, emit, emit_table
from loopwright.errors import InvalidInput

__all__ = ["app"]

app = cyclopts.App(name="pipeline", help="Run training pipelines.")
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
    done = pipelines.run(project, entrypoint, _values(parameter))
    if common.json:
        emit(done)
        return
    for step in done.steps:
        console.print(f"  {step.name:<20} {step.status} in {step.seconds:.2f} s")
    console.print(
        f"[bold]{done.pipeline}[/bold] {done.status} in {done.seconds:.1f} s · MLflow run {done.run_id}"
    )


@app.command(name="list")
def list_(*, common: Common = COMMON) -> None:
    """List the newest pipeline runs.

    For example:

        loopwright pipeline list
    """
    from loopwright.ledger import Ledger
    from loopwright.records import PipelineRun

    ledger = Ledger.open(common.open())
    runs = [state.read(PipelineRun) for state in ledger.states("pipeline_run")]
    runs.sort(key=lambda run: run.started, reverse=True)
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
                "trigger": run.trigger,
                "commit": run.git_commit[:8] + ("+" if run.git_dirty else ""),
                "MLflow run": run.run_id,
            }
            for run in runs[:50]
        ],
        empty="No pipeline has run yet. Try: loopwright pipeline run pipelines:train",
    )
