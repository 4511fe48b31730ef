"""What a person should know about the pipeline: draws without a seed, files that are written, modules beside it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

from loopwright.tracking.notebooks.convert.cells import Statement
from loopwright.tracking.notebooks.convert.dataflow import called, root_name

__all__ = ["notes_on"]

#: Estimators and functions that draw random numbers and take `random_state`.
_DRAWING = (
    "RandomForest", "ExtraTrees", "GradientBoosting", "KMeans", "MiniBatch", "MLP", "SGD", "Bagging", "IsolationForest",
    "RandomizedSearchCV", "ShuffleSplit", "StratifiedShuffleSplit", "train_test_split", "sample", "AdaBoost", "TSNE",
)  # fmt: skip
_SEEDS = {"random_state", "seed", "random_seed"}


def notes_on(
    imports: Sequence[Statement], body: Sequence[Statement], source: Path, target: Path
) -> list[str]:
    """Return one sentence for each thing to know.

    Parameters
    ----------
    source, target
        The folders of the notebook and of the pipeline.
    """
    return [*_unseeded(body), *_writes(body), *_neighbours(imports, source, target)]


def _unseeded(body: Sequence[Statement]) -> Iterator[str]:
    calls = [(item.cell, node) for item in body for node in ast.walk(item.node) if isinstance(node, ast.Call)]
    seeds = [cell for cell, node in calls if called(node) == "seed"]
    if seeds:
        yield (
            f"The seed that cell {seeds[0]} sets holds for all steps after it, while they run in one process. "
            "Give random_state to what draws, and a step can run again alone."
        )
        return
    for cell, node in calls:
        name = called(node)
        numpy = root_name(node) in {"np", "numpy"} and ast.unparse(node.func).startswith(
            ("np.random.", "numpy.random.")
        )
        seeded = any(word.arg in _SEEDS or word.arg is None for word in node.keywords) or (
            numpy and name == "default_rng"
        )
        if (name.startswith(_DRAWING) or numpy) and not seeded:
            yield (
                f"{name} (cell {cell}) draws random numbers without a seed: each run gives another result. "
                f"Give {'np.random.default_rng(0)' if numpy else 'random_state=0'}."
            )


def _writes(body: Sequence[Statement]) -> Iterator[str]:
    for item in body:
        for node in ast.walk(item.node):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            writing = called(node).startswith("to_") or called(node) in {
                "dump",
                "save",
                "savetxt",
                "save_model",
            }
            paths = [
                part.value
                for part in node.args
                if isinstance(part, ast.Constant) and isinstance(part.value, str) and "." in part.value
            ]
            if writing and paths:
                yield f"The pipeline writes {paths[0]} (cell {item.cell})."


def _neighbours(imports: Sequence[Statement], source: Path, target: Path) -> Iterator[str]:
    if source == target:
        return
    for item in imports:
        node = item.node
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            first = name.partition(".")[0]
            beside = (source / f"{first}.py").is_file() or (source / first / "__init__.py").is_file()
            if first and beside and not (target / f"{first}.py").is_file() and not (target / first).is_dir():
                yield f"{first} lies beside the notebook: move it to {target}, where the pipeline finds it."
