"""``loopwright init``: a new project that runs."""

from pathlib import Path

from loopwright.cli.output import console
from loopwright.config import FILE
from loopwright.errors import Conflict, Denied

__all__ = ["init"]


def init(name: str = ".", /) -> None:
    """Write a new project that runs; or make a folder with code of yours a project, which adds two small files.

    A new project has a pipeline on real data, a deployment in each mode, and a monitor.

    For example:

        loopwright init my-project

    Parameters
    ----------
    name
        The folder to make. One that is there and not empty keeps what is in it.
    """
    from loopwright.templates import adopt, write

    root = Path(name).resolve()
    if root.exists() and not root.is_dir():
        raise Conflict(f"{root} is a file.", hint="loopwright init another-name")
    if (root / FILE).exists():
        raise Conflict(f"{root} is a project already.", hint=f"less {root / FILE}")
    yours = root.is_dir() and any(root.iterdir())
    try:
        root.mkdir(parents=True, exist_ok=True)
        written = adopt(root) if yours else write("starter", root, {"name": root.name})
    except PermissionError as error:
        raise Denied(f"{error.filename} cannot be written.", hint=f"ls -ld {root.parent}") from error
    if yours:
        names = ", ".join(path.name for path in written)
        console.print(
            f"[bold]{root.name}[/bold] is a project now; wrote {names}. Next:\n"
            "  loopwright notebook convert <notebook>   (or decorate your functions: @lw.step, @lw.pipeline)",
            highlight=False,
        )
        return
    console.print(f"Wrote the project [bold]{root.name}[/bold]. Next:", highlight=False)
    here = "" if root == Path.cwd() else f"  cd {name}\n"
    console.print(
        f"{here}  loopwright pipeline run pipelines:train\n"
        "  loopwright deployment start wine-api\n"
        "  loopwright up",
        highlight=False,
    )
