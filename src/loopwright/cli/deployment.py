"""``loopwright deployment``: the four modes."""

import cyclopts

from loopwright.cli.output import COMMON, Common, console, emit, emit_table
from loopwright.errors import InvalidInput
from loopwright.records import Deployment, Mode

__all__ = ["app"]

app = cyclopts.App(name="deployment", help="Start, look at and roll back deployments.")


@app.command
def start(name: str, /, *, version: int | None = None, common: Common = COMMON) -> None:
    """Put a model version into service; the champion unless a version is named, the newest when there is none.

    For example:

        loopwright deployment start digits-api --version 2
    """
    from loopwright import parts
    from loopwright.deploy import base

    project = common.open()
    parts.connect(project)
    started = base.start(project, name, version)
    _show(started, common)


@app.command
def rollback(name: str, /, *, common: Common = COMMON) -> None:
    """Go back to the version that served before, at once.

    For example:

        loopwright deployment rollback digits-api
    """
    from loopwright import parts
    from loopwright.deploy import base

    project = common.open()
    parts.connect(project)
    _show(base.rollback(project, name), common)


@app.command
def run(name: str, /, *, common: Common = COMMON) -> None:
    """Run a batch deployment now: each row of its source is scored once, also after a crash.

    For example:

        loopwright deployment run demand-nightly
    """
    from rich.progress import Progress

    from loopwright.deploy import batch

    project = common.open()
    if project.deployment(name).mode is not Mode.batch:
        raise InvalidInput(
            f"The deployment {name!r} is in mode {project.deployment(name).mode}; only a batch is run.",
            hint="loopwright deployment list",
        )
    with Progress(disable=common.json) as progress:
        bar = progress.add_task(name, total=None)
        done = batch.run(
            project, name, progress=lambda rows, total: progress.update(bar, completed=rows, total=total)
        )
    if common.json:
        emit(done)
        return
    console.print(f"{done.rows} rows read, {done.new_rows} new predictions written in {done.seconds:.1f} s.")


@app.command(name="list")
def list_(*, common: Common = COMMON) -> None:
    """List the declared deployments and what each serves now.

    For example:

        loopwright deployment list
    """
    from loopwright.ledger import Ledger

    project = common.open()
    ledger = Ledger.open(project)
    served = {state.key: state.read(Deployment) for state in ledger.states("deployment")}
    rows = [
        {
            "deployment": name,
            "mode": str(declared.mode),
            "model": declared.model,
            "serves": ", ".join(
                f"{variant.name}={variant.version} ({variant.weight:.0%})"
                for variant in served[name].variants
            )
            if name in served
            else "not started",
        }
        for name, declared in project.config.deployment.items()
    ]
    if common.json:
        emit(rows)
        return
    emit_table("", rows, empty="No deployment is declared. Add [deployment.<name>] to loopwright.toml.")


def _show(deployment: Deployment, common: Common) -> None:
    if common.json:
        emit(deployment)
        return
    for variant in deployment.variants:
        console.print(
            f"[bold]{deployment.name}[/bold] ({deployment.mode}) serves {deployment.model}/{variant.version} "
            f"as {variant.name} to {variant.weight:.0%}"
        )
