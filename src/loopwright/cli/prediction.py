"""``loopwright prediction``: the prediction log."""

from typing import Annotated

import cyclopts
from cyclopts import Parameter

from loopwright.cli.output import COMMON, Common, emit, emit_table

__all__ = ["app"]

app = cyclopts.App(name="prediction", help="Query the prediction log.")


@app.command(name="list")
def list_(
    deployment: str | None = None,
    /,
    *,
    sql: Annotated[
        str | None, Parameter(help="A SELECT over `predictions`, instead of the newest rows.")
    ] = None,
    limit: int = 20,
    common: Common = COMMON,
) -> None:
    """List the newest predictions, or run a query over all of them.

    For example:

        loopwright prediction list digits-api
        loopwright prediction list --sql "select version, avg(actual = prediction) from predictions group by 1"
    """
    from loopwright.predictions import PredictionStore, rows_of

    query = sql or (
        "select prediction_id, at, deployment, version, variant, prediction, actual, latency_ms "
        f"from predictions order by at desc limit {int(limit)}"
    )
    rows = rows_of(PredictionStore(common.open()).query(query, deployment=deployment))
    if common.json:
        emit(rows)
        return
    emit_table("", rows, empty="No predictions. Try: loopwright deployment list")


@app.command
def show(prediction_id: str, /, *, common: Common = COMMON) -> None:
    """Show one prediction with its inputs and its label, as JSON.

    For example:

        loopwright prediction show 0192f3...
    """
    from loopwright.predictions import PredictionStore

    emit(PredictionStore(common.open()).find(prediction_id))
