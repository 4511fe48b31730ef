"""Drift of 30 columns between two tables: ours against Evidently's preset, which sets the statistics.

20 numeric columns (normal, lognormal, gamma, rounded uniform; 2 % missing in four) and 10 categorical ones (cardinality
2 to 1,000, Zipf); five and three of them have drifted. Evidently runs in an environment of its own with pandas 2.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["run", "table"]

HERE = Path(__file__).parent
EVIDENTLY = HERE.parents[1] / ".tools" / "evidently"
PINS = ("evidently==0.7.23", "pandas<3", "pyarrow")
#: Standard deviations, or shares, by which the drifted columns have moved.
MOVED = 0.3
NUMERIC, CARDINALITIES = 20, (2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)


def table(rows: int, seed: int, *, drifted: bool = False) -> pa.Table:
    """Return a table of 30 columns; with `drifted` five numeric and three categorical ones are moved."""
    random = np.random.default_rng(seed)
    made: dict[str, Any] = {}
    for place in range(NUMERIC):
        values = (
            random.normal(0, 1, rows),
            random.lognormal(0, 0.5, rows),
            random.gamma(2, 1, rows),
            np.round(random.uniform(0, 100, rows)),
        )[place % 4]
        if drifted and place % 4 == 0:
            values = values + MOVED * values.std()
        missing = random.random(rows) < 0.02 if place >= NUMERIC - 4 else None
        made[f"n{place:02}"] = pa.array(values, mask=missing)
    for place, cardinality in enumerate(CARDINALITIES):
        weights = 1 / np.arange(1, cardinality + 1)
        if drifted and place % 4 == 1:
            weights[0] *= 2
        codes = random.choice(cardinality, rows, p=weights / weights.sum()).astype(np.int32)
        names = pa.array([f"value {code}" for code in range(cardinality)])
        made[f"c{place:02}"] = pa.DictionaryArray.from_arrays(pa.array(codes), names).cast(pa.string())
    return pa.table(made)


def peer() -> Path | None:
    """Return the Python that has Evidently, installed once; None where it cannot be."""
    made = EVIDENTLY / "bin" / "python"
    if made.exists():
        return made
    import uv

    tool = uv.find_uv_bin()
    print(f"installing {PINS[0]} into {EVIDENTLY} ...", file=sys.stderr)
    for command in (
        [tool, "venv", "--quiet", "--python", sys.executable, str(EVIDENTLY)],
        [tool, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(made), *PINS],
    ):
        if subprocess.run(command, check=False).returncode:
            shutil.rmtree(EVIDENTLY, ignore_errors=True)
            return None
    return made


def run(rows: int = 1_000_000, tries: int = 3) -> dict[str, Any]:
    """Return our time and memory as shares of Evidently's: median of our tries against its one."""
    python = peer()
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for name, seed, drifted in (("reference", 1, False), ("current", 2, True)):
            path = Path(folder) / f"{name}.parquet"
            pq.write_table(table(rows, seed, drifted=drifted), path)
            paths.append(str(path))
        ours = sorted(
            (_child(sys.executable, "ours", paths) for _ in range(tries)), key=lambda one: one["seconds"]
        )
        mine = ours[len(ours) // 2]
        theirs = _child(str(python), "evidently", paths) if python else None
    found: dict[str, Any] = {
        "rows": rows,
        "ours_s": mine["seconds"],
        "ours_extra_mb": mine["extra_mb"],
        "ours_flagged": mine["flagged"],
    }
    if theirs:
        found |= {
            "evidently_s": theirs["seconds"],
            "evidently_extra_mb": theirs["extra_mb"],
            "evidently_flagged": theirs["flagged"],
            "time_ratio": mine["seconds"] / theirs["seconds"],
            "memory_ratio": mine["extra_mb"] / theirs["extra_mb"],
        }
    return found


def _child(python: str, engine: str, paths: list[str]) -> dict[str, Any]:
    command = [python, str(HERE / "drift_child.py"), engine, *paths]
    made = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(made.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    print(json.dumps(run(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000), indent=2))
