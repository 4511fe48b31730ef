"""The hourly demand for bicycles of two years, replayed in its own time with labels two hours late.

    python benches/replay.py [--data ../shared/data/bike_sharing_hour.csv] [--pictures DIR]

A model learns the first half; the second half is predicted, labelled and judged week by week, as it came and, as the
control, with the rows of both halves shuffled over time: the same values, and nothing that drifts. Prints which windows
alarmed and why; the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from rich.console import Console
from rich.table import Table
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

import loopwright as lw
from loopwright import scoring
from loopwright.monitor.replay import Replayed, replay
from loopwright.supervisor import control

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "bike_sharing_hour.csv"
FEATURES = ["season", "hr", "holiday", "weekday", "workingday", "weathersit", "temp", "hum", "windspeed"]
TARGET = "cnt"
DELAY = timedelta(hours=2)
#: The pages that are taken as pictures.
PAGES = {"model": "/model/replay", "feature": "/model/replay/feature/temp", "alerts": "/alerts"}
TOML = f"""
[model.bikes]
target = "{TARGET}"

[monitor.bikes]
window = "7d"
performance = {{ metric = "rmse", margin = 0.25, label_delay = "2h" }}
"""


def read(path: Path) -> pd.DataFrame:
    """Return the rows with the moment each is about."""
    rows = pd.read_csv(path)
    rows["at"] = pd.to_datetime(rows["dteday"], format="%m/%d/%y") + pd.to_timedelta(rows["hr"], unit="h")
    rows["season"] = rows["season"].map({1: "winter", 2: "spring", 3: "summer", 4: "autumn"})
    return rows.sort_values("at", ignore_index=True)


def trained(project: lw.Project, rows: pd.DataFrame) -> int:
    """Train on the first half, register the model, and return its version, ready to score."""
    half = rows.iloc[: len(rows) // 2]
    # Held out from the first half, so that the limit is of rows the model has not seen.
    kept = np.random.default_rng(0).random(len(half)) < 0.8
    model = make_pipeline(
        make_column_transformer((OrdinalEncoder(), ["season"]), remainder="passthrough"),
        RandomForestRegressor(100, min_samples_leaf=3, random_state=0, n_jobs=1),
    )
    model.fit(half.loc[kept, FEATURES], half.loc[kept, TARGET])
    held = half.loc[~kept]
    rmse = float(np.sqrt(((model.predict(held[FEATURES]) - held[TARGET]) ** 2).mean()))
    made = lw.register("bikes", model, half[[*FEATURES, TARGET]], project=project, metrics={"rmse": rmse})
    scoring.prepare(project, "bikes", made.version)
    return made.version


def replayed(project: lw.Project, version: int, rows: pd.DataFrame, into: Path) -> Replayed:
    """Replay the second half, and return what the monitors said."""
    rest = rows.iloc[len(rows) // 2 :]
    table = pa.Table.from_pandas(rest[["at", *FEATURES, TARGET]], preserve_index=False)
    return replay(project, "bikes", version, table, time="at", into=into, label_delay=DELAY)


def shuffled(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the same rows in another order, at the same moments."""
    mixed = rows.sample(frac=1, random_state=0, ignore_index=True)
    mixed["at"] = rows["at"]
    return mixed


def show(name: str, found: Replayed) -> dict[str, Any]:
    """Print the alerts of a replay and return its counts."""
    table = Table(title=f"{name}: {len(found.alerts)} alerts", show_lines=False)
    for heading in ("since", "check", "of", "what"):
        table.add_column(heading)
    for alert in found.alerts:
        table.add_row(f"{alert.since:%Y-%m-%d}", alert.check, alert.subject, alert.message)
    Console(width=160).print(table)
    windows = {judged.window.start for judged in found.windows}
    return {
        "windows": len(windows),
        "windows_fired": len({signal.window.start for signal in found.fired}),
        "alerts": len(found.alerts),
    }


def pictures(project: Path, target: Path) -> None:
    """Write pictures of the console's pages about a replay, where there is a browser."""
    browser = next((found for name in ("chromium", "google-chrome") if (found := shutil.which(name))), None)
    if browser is None:
        print("no browser: no pictures", file=sys.stderr)
        return
    from playwright.sync_api import sync_playwright

    target.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "loopwright.console.app", "--port", str(port)]
    console = subprocess.Popen(command, env=os.environ | {"LOOPWRIGHT_PROJECT": str(project)})
    try:
        with sync_playwright() as driver:
            page = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"]).new_page(
                viewport={"width": 1360, "height": 900}
            )
            for name, path in PAGES.items():
                _open(page, f"http://127.0.0.1:{port}{path}")
                page.screenshot(path=target / f"{name}.png", full_page=True)
    finally:
        console.terminate()
        console.wait(20)


def _open(page: Any, address: str) -> None:
    for _ in range(60):
        with contextlib.suppress(Exception):
            page.goto(address)
            break
        time.sleep(0.5)
    page.wait_for_timeout(4000)


def main() -> None:
    """Replay twice and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--pictures", type=Path)
    options = parser.parse_args()
    if not options.data.is_file():
        sys.exit(
            f"There is no {options.data}: this bench needs the hourly bike sharing data, see docs/benchmarks.md"
        )
    rows = read(options.data)
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "loopwright.toml").write_text(TOML, encoding="utf-8")
        project = lw.Project(folder)
        tables = {"as it came": rows, "shuffled": shuffled(rows)}
        try:
            versions = [trained(project, table) for table in tables.values()]
        finally:
            control.down(project)  # the local server, which registering started
        for (name, table), version in zip(tables.items(), versions, strict=True):
            mark = name.replace(" ", "-")
            found = replayed(project, version, table, Path(folder) / mark)
            figures[name.replace(" ", "_")] = show(name, found)
            if options.pictures:
                pictures(found.folder, options.pictures / f"replay-{mark}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
