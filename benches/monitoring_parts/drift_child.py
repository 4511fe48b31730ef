"""One engine compares two Parquet files and prints what it took, as one JSON line: run in a process of its own.

    python drift_child.py ours|evidently REFERENCE CURRENT

Extra memory is the largest resident size while computing, less the size with both tables loaded and all imports done.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path


def main() -> None:
    """Load, compute, print."""
    engine, reference, current = sys.argv[1:4]
    prepare = {"ours": _ours, "evidently": _evidently}[engine]
    compute = prepare(reference, current)
    base = _resident_kb()
    # The largest size so far may lie above what is in use now: reading Parquet takes more than its result.
    _reset_peak()
    started = time.perf_counter()
    flagged = compute()
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "extra_mb": (_peak_kb() - base) / 1024, "flagged": flagged}))


def _ours(reference, current):
    import pyarrow.parquet as pq

    from loopwright.monitor.statistics.report import compare

    before, now = pq.read_table(reference), pq.read_table(current)
    return lambda: sorted(found.column for found in compare(before, now) if _moved(found))


def _moved(found) -> bool:
    """Judge a column as Evidently's preset does: a distance of 0.1 or more, a p-value below 0.05."""
    if found.p:
        return min(found.p.values()) < 0.05
    return max(found.value.values()) >= 0.1


def _evidently(reference, current):
    import warnings

    warnings.simplefilter("ignore")
    import pandas as pd
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    before, now = pd.read_parquet(reference), pd.read_parquet(current)
    texts = [name for name in before.columns if name.startswith("c")]
    definition = DataDefinition(
        numerical_columns=[name for name in before.columns if name not in texts], categorical_columns=texts
    )

    def compute():
        report = Report([DataDriftPreset()])
        made = report.run(
            Dataset.from_pandas(now, data_definition=definition),
            Dataset.from_pandas(before, data_definition=definition),
        )
        return _drifted(made.dict())

    return compute


def _drifted(found):
    """Return the columns whose value is on the drifted side of the preset's own threshold."""
    names = []
    for metric in found["metrics"]:
        config = metric.get("config", {})
        if "column" in config and isinstance(metric["value"], (int, float)):
            limit = config.get("threshold") or 0.1
            low_is_drift = "p_value" in config.get("method", "")
            if metric["value"] < limit if low_is_drift else metric["value"] >= limit:
                names.append(config["column"])
    return sorted(names)


def _resident_kb() -> int:
    return _status_kb("VmRSS")


def _reset_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak_kb() -> int:
    return _status_kb("VmHWM")


def _status_kb(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


if __name__ == "__main__":
    main()
