"""What monitoring costs, each figure as a ratio against a named peer or ceiling that is measured in the same run.

    python benches/monitoring.py [--quick] [--only drift,live,window,label_join,log,pages]

Drift of 1M x 30 against Evidently in an environment of its own; live counts per value; a window of 30 columns and all
checks over 1M logged rows; the join of 1M late labels against plain DuckDB; appends against a bare Arrow stream; pages
over 10M predictions. The last line is one JSON object. See docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from typing import Any

from rich.console import Console
from rich.table import Table

#: Parts in the order they run, with what makes each of them quick.
PARTS: dict[str, dict[str, Any]] = {
    "drift": {"rows": 100_000},
    "live": {},
    "window": {},
    "label_join": {},
    "log": {},
    "pages": {"scale": 0.1},
}
#: What is in the JSON line: where it comes from, what it is, and the bar.
FIGURES: dict[str, tuple[str, str, str, str]] = {
    "drift_1m_vs_evidently": ("drift", "time_ratio", "drift of 1M x 30: time, of Evidently's", "<= 0.04"),
    "memory_vs_evidently": ("drift", "memory_ratio", "its extra memory, of Evidently's", "<= 0.2"),
    "histogram_ns": ("live", "histogram_ns", "live count of a value, ns", "<= 100"),
    "merge_us": ("live", "merge_us", "merging 30 features, us", "<= 5"),
    "follower_rows_s": ("live", "follower_rows_s", "rows of 30 features followed, per s", ""),
    "window_1m_s": ("window", "window_s", "window of 50k of 1M rows, all checks, s", "<= 0.3"),
    "window_vs_duckdb": ("window", "ratio", "the same, of reading it with plain DuckDB", ""),
    "label_join_vs_duckdb": ("label_join", "ratio", "1M x 1M late labels: time, of plain DuckDB's", "<= 2"),
    "append_vs_arrow": ("log", "append_vs_arrow", "appends of 1,000 synced: rate, of bare Arrow's", ">= 0.8"),
    "compaction": ("log", "compaction", "a window of 2,000 small segments: time before, of that after", ""),
    "page_s": ("pages", "page_html_s", "slowest page over 10M predictions, console just started, s", "<= 1"),
    "page_api_s": ("pages", "page_api_s", "its slowest answer in JSON, s", "<= 1"),
}


def main() -> None:
    """Run the parts and print what they found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows where that is the cost")
    parser.add_argument("--only", default="", help="parts between commas: " + ", ".join(PARTS))
    options = parser.parse_args()
    chosen = [name for name in options.only.split(",") if name] or list(PARTS)
    found: dict[str, dict[str, Any]] = {}
    for name in chosen:
        started = time.perf_counter()
        part = importlib.import_module(f"monitoring_parts.{name}")
        found[name] = part.run(**(PARTS[name] if options.quick else {}))
        print(f"{name}: {time.perf_counter() - started:.0f} s {json.dumps(found[name])}", file=sys.stderr)
    table = Table(title="Monitoring")
    for heading in ("what", "found", "bar"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    figures = {}
    for key, (part_name, field, what, bar) in FIGURES.items():
        value = found.get(part_name, {}).get(field)
        if part_name in found:
            figures[key] = value
            table.add_row(what, "not measured" if value is None else f"{value:.4g}", bar)
    Console(width=110).print(table)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
