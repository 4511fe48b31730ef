"""The project files that `loopwright init` and `loopwright demo` write: folders of plain files with ``$name`` fields."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from string import Template

from loopwright.config import FILE, STATE
from loopwright.errors import NotFound

__all__ = ["adopt", "write"]

HOME = Path(__file__).parent
SUFFIX = ".template"


def write(template: str, root: Path, values: Mapping[str, str]) -> list[Path]:
    """Write the files of a template below `root` and return their paths.

    Parameters
    ----------
    template
        ``starter``, ``digits`` or ``table``.
    values
        What replaces each ``$name`` of the files.

    Raises
    ------
    NotFound
        There is no such template.
    KeyError
        A field of the template is missing in `values`.
    """
    source = HOME / template
    if not source.is_dir():
        raise NotFound.among(
            "template", template, sorted(path.name for path in HOME.iterdir() if path.is_dir())
        )
    written = []
    for path in sorted(source.rglob(f"*{SUFFIX}")):
        relative = str(path.relative_to(source)).removesuffix(SUFFIX).replace("dot_", ".")
        target = root / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(Template(path.read_text(encoding="utf-8")).substitute(values), encoding="utf-8")
        written.append(target)
    make = DATA.get(template)
    if make:
        written += make(root)
    return written


_OWN = """[project]
name = {name}

# A pipeline of yours, each night:
#
# [schedule.nightly]
# pipeline = "pipelines:train"
# cron = "0 2 * * *"
"""


def adopt(root: Path) -> list[Path]:
    """Make a folder with files of its owner a project: `loopwright.toml`, and a line of `.gitignore`.

    Returns
    -------
    list of pathlib.Path
        The files that were written or changed.
    """
    changed = [root / FILE]
    changed[0].write_text(_OWN.format(name=json.dumps(root.name, ensure_ascii=False)), encoding="utf-8")
    ignored = root / ".gitignore"
    before = ignored.read_text(encoding="utf-8") if ignored.exists() else ""
    if f"{STATE}/" not in before.splitlines():
        end = "" if not before or before.endswith("\n") else "\n"
        ignored.write_text(f"{before}{end}{STATE}/\n", encoding="utf-8")
        changed.append(ignored)
    return changed


def _wine(root: Path) -> list[Path]:
    """Write the wine data that is bundled with scikit-learn (178 wines, 13 measurements, 3 growers) as a CSV file.

    One wine without its grower is written too, as the body of a request.
    """
    from sklearn.datasets import load_wine

    path = root / "data" / "wine.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = load_wine(as_frame=True).frame
    frame.columns = [name.replace("/", "_per_") for name in frame.columns]
    frame.rename(columns={"target": "grower"}).to_csv(path, index=False)
    request = root / "wine.json"
    request.write_text(frame.drop(columns="target").iloc[100].to_json(indent=1) + "\n", encoding="utf-8")
    return [path, request]


DATA: dict[str, Callable[[Path], list[Path]]] = {"starter": _wine}
