"""Scoring: the only place that calls a model. Prepare a version once, load it anywhere, score columns.

`prepare` is heavy and runs in a transient process; `load` is light and is what serving processes do. A compiled
runtime is used only after it gave the model's own answers on real rows; otherwise the model itself is called.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopwright.config import Project

if TYPE_CHECKING:
    from loopwright.scoring.base import Manifest, Scores
    from loopwright.scoring.scorer import Scorer, read_manifest

__all__ = ["Manifest", "Scorer", "Scores", "load", "prepare", "read_manifest"]


def prepare(project: Project, model: str, version: int, *, force: bool = False) -> Path:
    """Prepare one model version for scoring.

    Fetches its files, compiles them in every form that may carry them (an ONNX graph, trees in treelite), replays the
    real rows stored with the version and rows at the edges through each, and keeps a compiled runtime only when no label
    changes and no answer differs by more than the model's tolerance (1e-5 unless it declares its own, absolute or
    relative). What was proven is timed, and the number of rows decides who answers. Otherwise the model itself serves,
    and `scorer.json` says why.

    Parameters
    ----------
    project
        The project whose registry has the version.
    model, version
        The version, also one that was registered by hand.
    force
        Prepare again what is prepared already.

    Returns
    -------
    Path
        The folder for `load`. It appears in one piece; several processes may ask for it at once.

    Raises
    ------
    NotFound
        There is no such version.
    InvalidInput
        The model cannot be loaded here, or nothing says which inputs it takes.
    Damaged
        The files are not those that were registered.
    Unavailable
        MLflow is needed and does not answer.
    """
    from loopwright.scoring import preparation

    return preparation.prepare(project, model, version, force=force)


def load(folder: Path | str) -> "Scorer":
    """Load a prepared scorer, checking the hash of every file, and warm it up.

    Loads neither MLflow, pandas nor scikit-learn when the runtime is compiled.

    Parameters
    ----------
    folder
        What `prepare` returned, such as ``.loopwright/scorers/digits/3``.

    Raises
    ------
    NotFound
        Nothing was prepared there.
    Damaged
        A file is missing or was changed since, or cannot be loaded.
    """
    from loopwright.scoring import scorer

    return scorer.load(folder)


def __getattr__(name: str) -> Any:
    if name in {"Manifest", "Scores"}:
        from loopwright.scoring import base

        return getattr(base, name)
    if name in {"Scorer", "read_manifest"}:
        from loopwright.scoring import scorer

        return getattr(scorer, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}. Names: {', '.join(__all__)}")
