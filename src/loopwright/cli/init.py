"""``loopwright init``: a new project that runs."""

from pathlib import Path

from loopwright.cli.output import console
from loopwright.errors import Conflict, Denied

__all__ = ["init"]


def init(name: str, /) -> None:
    """Write a new project that runs: a pipeline on real data, a deployment in each mode, a monitor.

    For example:

        loopwright init my-project

    Parameters
    ----------
    name
        The folder to make; it must not exist, or be empty.
    """
    from loopwright.templates import write

    root = Path(name).resolve()
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise Conflict(f"{root} is there already and not empty.", hint="loopwright init another-name")
    try:
        root.mkdir(parents=True, exist_ok=True)
        write("starter", root, {"name": root.name})
    except PermissionError as error:
        raise Denied(f"{error.filename} cannot be written.", hint=f"ls -ld {root.parent}") from error
    console.print(f"Wrote the project [bold]{root.name}[/bold]. Next:", highlight=False)
    console.print(
        f"  cd {name}\n"
        "  loopwright pipeline run pipelines:train\n"
        "  loopwright deployment start wine-api\n"
        "  loopwright up",
        highlight=False,
    )
