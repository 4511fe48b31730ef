"""``loopwright edge``: models for devices."""

from pathlib import Path

import cyclopts

from loopwright.cli.output import COMMON, Common, console, emit

__all__ = ["app"]

app = cyclopts.App(name="edge", help="Bundle a model for a device and verify a bundle.")


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
