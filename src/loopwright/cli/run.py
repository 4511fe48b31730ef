"""``loopwright run``: tracked runs, as MLflow has them."""

import cyclopts

from loopwright.cli.output import COMMON, Common, emit, emit_table

__all__ = ["app"]

app = cyclopts.App(name="run", help="Look at tracked runs.")


@app.command(name="list")
def list_(*, common: Common = COMMON) -> None:
    """List the newest tracked runs with their metrics.

    For example:

        loopwright run list
    """
    from loopwright import parts, tracking

    project = common.open()
    parts.connect(project)
    runs = tracking.runs(project)
    if common.json:
        emit(runs)
        return
    emit_table(
        "",
        [
            {
                "started": run.started,
                "run": run.run_id,
                "name": run.name,
                "status": run.status,
                "metrics": "  ".join(
                    f"{name}={value:.4g}" for name, value in sorted(run.metrics.items())[:6]
                ),
            }
            for run in runs
        ],
        empty="No run has been tracked yet. Try: loopwright pipeline run pipelines:train",
    )
