"""``loopwright edge``: models for devices."""

import sys
from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import Parameter

from loopwright.cli.output import COMMON, Common, console, emit, working

__all__ = ["app"]

app = cyclopts.App(
    name="edge", help="Bundle a model for a device, verify a bundle, and take in what devices answered."
)


@app.command
def bundle(
    name: str, /, *, version: int | None = None, out: Path | None = None, common: Common = COMMON
) -> None:
    """Write a signed bundle: the model, its manifest, golden rows and a predictor of a few lines.

    For example:

        loopwright edge bundle digits-edge --out digits.tar.gz

    Parameters
    ----------
    name
        An edge deployment, or a model.
    """
    from loopwright import parts
    from loopwright.deploy import edge

    project = common.open()
    parts.connect(project)
    path = edge.bundle(project, name, version=version, out=out)
    if common.json:
        emit({"bundle": str(path), "bytes": path.stat().st_size})
        return
    console.print(f"Wrote {path} ({path.stat().st_size / 1000:.0f} kB). Next: loopwright edge verify {path}")


@app.command
def verify(bundle: Path, /, *, json: bool = False) -> None:
    """Check a bundle's signature, hashes and expiry, and score its golden rows.

    For example:

        loopwright edge verify digits.tar.gz
    """
    from loopwright.deploy import edge

    report = edge.verify(bundle)
    if json:
        emit(report)
        return
    console.print(f"[green]ok[/green] {bundle}: {report}", highlight=False, soft_wrap=True)


@app.command(name="import")
def import_(
    file: Path,
    /,
    *,
    deployment: Annotated[
        str | None, Parameter(help="Which deployment the answers are of; else the one that each names.")
    ] = None,
    common: Common = COMMON,
) -> None:
    """Take what a device has answered into the prediction log: `outbox.py export` wrote it, or a copy of the outbox.

    Importing a file again adds nothing twice. Lines that cannot be taken are
    named and left out; the command then ends with 1.

    For example:

        loopwright edge import answers.jsonl
        loopwright edge import answers.db --deployment digits-edge
    """
    from loopwright.deploy import edge

    with working(f"taking in {file.name}"):
        found = edge.import_answers(common.open(), file, deployment=deployment)
    if common.json:
        emit(found)
    else:
        console.print(
            f"{found.imported:,} answers taken in, {found.known:,} were known, {found.refused:,} refused."
        )
        if found.left_out:
            console.print(f"{found.left_out:,} are not logged, as [deployment.*.log] says.", markup=False)
        for number, why in found.reasons:
            console.print(f"line {number}: {why}", markup=False)
        for name in found.deployments:
            console.print(f"Next: loopwright monitor run {name} --since 7d   (judges past windows anew)")
    if found.refused:
        sys.exit(1)
