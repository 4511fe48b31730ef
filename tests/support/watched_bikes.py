"""A bike-sharing model that its monitors have watched for days: windows, alerts, silences, messages and a log.

What monitors found is written through `Results`, alerts come from the rule itself, and the newest hours are in the
prediction log and counted live. Run it to look at the pages: ``python watched_bikes.py FOLDER``.
"""

import math
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from console_seed import turned_back
from numpy.typing import NDArray

from loopwright.config import Project
from loopwright.ledger import Ledger
from loopwright.ledger.schema import deliveries
from loopwright.monitor import alerting
from loopwright.monitor.alerts import judge
from loopwright.monitor.live import Follower
from loopwright.monitor.results import Results
from loopwright.predictions import Ids, PredictionLog, Predictions
from loopwright.records import (
    Column,
    DecisionRecord,
    Deployment,
    Judged,
    Mode,
    ModelVersion,
    Signal,
    Signature,
    Task,
    Variant,
    Window,
)
from loopwright.registry.profile import profile_of

API, BATCH, MODEL = "bike-api", "bike-nightly", "bikes"
CONFIG = """
[project]
name = "city-bikes"

[model.bikes]
target = "busy"

[deployment.bike-api]
model = "bikes"
mode = "online"

[deployment.bike-nightly]
model = "bikes"
mode = "batch"
source = "data/hours.csv"
sink = "sqlite:///predictions.db?table=busy"

[monitor.bikes]
window = "1h"
segments = ["district", "season"]
performance = { metric = "accuracy", worse_than = 0.8, label_delay = "2h" }
kpi.stockouts = { sql = "select avg(actual > prediction) from predictions", at_most = 0.08, unit = "of hours" }
kpi.revenue = { sql = "select sum(actual) from predictions", at_least = 120.0, unit = "EUR" }
"""
LONG = "rolling_mean_of_rentals_in_the_same_hour_of_the_last_four_weeks_by_station_group"
NUMBERS = ("temperature", "humidity", "wind_speed", "hour", "docks_free", LONG)
TEXTS = ("weather", "district")
DISTRICTS = tuple(f"district {number}" for number in range(1, 9))
WEATHER = ("clear", "cloudy", "rain", "snow")
HOUR = timedelta(hours=1)
#: Windows, how many of the newest of them wait for labels, and where the weather turns and version 4 takes over.
WINDOWS, WAITING, TURN, PROMOTED = 72, 3, 40, 60
BIKES = Signature(
    (*(Column(name, "double") for name in NUMBERS), *(Column(name, "string") for name in TEXTS)),
    Task.classification,
    "busy",
    (0, 1),
)


@dataclass(frozen=True, slots=True)
class Watched:
    """The project, and when its newest window ended."""

    project: Project
    end: datetime


def watched(
    folder: Path, *, extra: int = 0, segments: int = 6, windows: int = WINDOWS, rows: int = 600
) -> Watched:
    """Write the project with its history.

    Parameters
    ----------
    extra
        So many more features, to see how pages bear them.
    segments
        Parts of the rows that are watched apart.
    rows
        Predictions of each of the newest three hours in the log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "loopwright.toml").write_text(CONFIG, encoding="utf-8")
    project = Project(folder)
    end = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    ledger = Ledger.open(project, actor="controller")
    random = np.random.default_rng(5)
    _versions(project, ledger, random)
    for name, mode in ((API, Mode.online), (BATCH, Mode.batch)):
        served = Deployment(name, MODEL, mode, (Variant("champion", 4),))
        ledger.put("deployment", name, served, event="deployment.changed")
    results = Results(ledger)
    for number in range(windows):
        start = end - (windows - number) * HOUR
        place = WINDOWS - windows + number
        _judge_inputs(results, Window(start, start + HOUR), place, extra, random)
        _judge_labels(
            results, Window(start, start + HOUR), place, number >= windows - WAITING, segments, random
        )
    monitor = project.config.monitor[MODEL]
    judge(ledger, API, 4, monitor, end)
    _people(ledger, end)
    _decide(ledger, end - (WINDOWS - PROMOTED) * HOUR)
    facts = {
        "deployment": API,
        "check": "kpi",
        "window": None,
        "reason": "revenue: the table fares is not there",
    }
    ledger.put("monitor_failure", f"{API}/kpi", facts, event="monitor.failed", subject=API)
    _predict(project, end, rows, random)
    follower = Follower(project, ledger)
    while follower.turn(datetime.now(UTC)):
        pass
    ledger.close()
    return Watched(project, end)


def inputs(n: int, random: np.random.Generator, warm: float = 0.0) -> dict[str, NDArray[Any]]:
    """Return n rows of inputs; `warm` moves the temperature by so many standard deviations."""
    made: dict[str, NDArray[Any]] = {name: random.normal(0, 1, n) for name in NUMBERS}
    made["temperature"] = random.normal(12 + 7 * warm, 7, n)
    made["weather"] = np.array(WEATHER, object)[random.choice(4, n, p=(0.5, 0.3, 0.15, 0.05))]
    made["district"] = np.array(DISTRICTS, object)[random.integers(0, len(DISTRICTS), n)]
    return made


def _versions(project: Project, ledger: Ledger, random: np.random.Generator) -> None:
    for version in (3, 4):
        columns = inputs(4000, random)
        made = ModelVersion(MODEL, version, "", "file:///x", signature=BIKES)
        ledger.put("model_version", made.ref, made, event="model.registered", subject=MODEL)
        probability = random.dirichlet((2, 2), 4000)
        profile = profile_of(columns, BIKES, random.integers(0, 2, 4000), probability=probability)
        path = project.scorer(MODEL, version) / "profile.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.encode(profile))


def _signal(window: Window, check: str, subject: str, value: float, limit: float, **facts: Any) -> Signal:
    facts = {"rows": 600, "version": 4, "fired": False} | facts
    return Signal(check, MODEL, API, window, value, limit, subject=subject, **facts)


def _judge_inputs(
    results: Results, window: Window, place: int, extra: int, random: np.random.Generator
) -> None:
    turned = place >= TURN
    moving = {"temperature": 0.31, "weather": 0.16, LONG: 0.09} if turned else {}
    found = []
    names = (*NUMBERS, *TEXTS, *(f"feature_{number:03d}" for number in range(extra)))
    for name in names:
        value = round(moving.get(name, 0.0) * random.uniform(0.8, 1.2) + abs(random.normal(0.012, 0.006)), 4)
        detail = _drift_detail(name, window, random) if value > 0.06 else {}
        found.append(_signal(window, "drift", name, value, 0.06, fired=value > 0.06, detail=detail))
        missing = round(
            abs(random.normal(0.001, 0.001)) + (0.06 if name == "humidity" and place > 66 else 0), 4
        )
        found.append(_signal(window, "missing", name, missing, 0.012, fired=missing > 0.012))
    found += [
        _signal(window, "unseen", "weather", 0.004, 0.011),
        _signal(
            window,
            "out_of_range",
            "temperature",
            0.03 if turned else 0.002,
            0.012,
            fired=turned,
            detail={"low": -12.0, "high": 37.0, "below": 0, "above": 18},
        ),
        _signal(window, "volume", "rows", 600.0, 420.0),
        _signal(window, "duplicates", "", 0.0, 0.01),
        _signal(window, "service", "latency_p99", 18.0 + 4 * random.random(), 50.0),
        _signal(window, "prediction_drift", "prediction", 0.03, 0.05),
    ]
    estimate = 0.86 - (0.05 if turned else 0) + random.normal(0, 0.004)
    assumption = "assumes that the truth given the inputs is as in training"
    found.append(
        _signal(
            window,
            "estimated",
            "accuracy",
            estimate,
            0.8,
            lower=estimate - 0.02,
            upper=estimate + 0.02,
            detail={"assumption": assumption},
        )
    )
    fired = sum(one.fired for one in found)
    results.record(Judged(API, MODEL, "inputs", 4, window, "judged", 600, 0, None, fired), found)


def _drift_detail(name: str, window: Window, random: np.random.Generator) -> dict[str, Any]:
    """Return what the drift check keeps of an input that moved."""
    if name in TEXTS:
        bins = {
            "labels": list(WEATHER),
            "reference": [0.5, 0.3, 0.15, 0.05],
            "current": [0.32, 0.28, 0.3, 0.1],
        }
        return {"bins": bins, "what": "share of 'rain' 15 % -> 30 %"}
    edges = np.linspace(-2, 2, 9)
    before, after = np.exp(-(edges**2) / 2), np.exp(-((edges - 1) ** 2) / 2)
    bins = {
        "labels": [f"{edge:.1f}" for edge in edges],
        "reference": (before / before.sum()).tolist(),
        "current": (after / after.sum()).tolist(),
    }
    mean = 19.0 + random.normal(0, 0.3) + window.start.hour / 24
    return {"bins": bins, "what": "mean 12 -> 19.2 (+1.0 sd)", "mean": mean}


def _judge_labels(
    results: Results, window: Window, place: int, waiting: bool, segments: int, random: np.random.Generator
) -> None:
    version = 4 if place >= PROMOTED else 3
    if waiting:
        share = 0.55 - 0.2 * (place - (WINDOWS - WAITING))
        judged = Judged(API, MODEL, "labels", version, window, "immature", 600, int(600 * 0.9 * share), share)
        results.record(judged, ())
        return
    if place == 20:
        results.record(Judged(API, MODEL, "labels", version, window, "overdue", 600, 90, 0.17), ())
        return
    level = 0.88 if place < TURN else 0.765 if version == 3 else 0.87
    value = level + random.normal(0, 0.01)
    found = [_performance(window, version, value, 540)]
    for number in range(segments):
        name = f"district={DISTRICTS[number % 8]}" if number < 8 else f"season=part {number}"
        at = value + random.normal(0, 0.02) - (0.14 if number == 1 else 0)
        found.append(_performance(window, version, at, 60, segment=name))
    found.append(_signal(window, "performance", "f1", value - 0.03, math.nan, rows=540, version=version))
    bins = [
        {"predicted": share, "observed": min(1.0, share + 0.04 * share), "rows": rows}
        for share, rows in ((0.1, 150), (0.3, 90), (0.5, 60), (0.7, 90), (0.9, 150))
    ]
    detail = {"bins": bins, "of": "1"}
    found.append(
        _signal(window, "calibration", "probability", 0.02, 0.03, rows=540, version=version, detail=detail)
    )
    stockouts = (0.05 if place < TURN else 0.11 if version == 3 else 0.06) + random.normal(0, 0.006)
    found.append(
        _signal(window, "kpi", "stockouts", stockouts, 0.08, fired=stockouts > 0.08, version=version)
    )
    revenue = 150 + random.normal(0, 8)
    found.append(_signal(window, "kpi", "revenue", revenue, 120.0, fired=revenue < 120, version=version))
    fired = sum(one.fired for one in found)
    results.record(Judged(API, MODEL, "labels", version, window, "judged", 600, 540, 1.0, fired), found)


def _performance(window: Window, version: int, value: float, rows: int, segment: str = "") -> Signal:
    half = 1.96 * math.sqrt(value * (1 - value) / rows)
    return _signal(
        window, "performance", "accuracy", value, 0.8, rows=rows, version=version, segment=segment,
        lower=value - half, upper=value + half, fired=value + half < 0.8,
    )  # fmt: skip


def _people(ledger: Ledger, end: datetime) -> None:
    """Let somebody look after one alert, another one be silent, and a message be sent and one fail."""
    alerts = [state.value for state in ledger.states("alert")]
    drift = next(one for one in alerts if one["check"] == "drift" and one["subject"] == "weather")
    alerting.acknowledge(ledger, drift["id"], by="ada", note="the new weather service reports rain earlier")
    alerting.silence(
        ledger, timedelta(hours=5), by="ada", reason="the sensor is being replaced", check="missing",
        subject="humidity", deployment=API,
    )  # fmt: skip
    row = {
        "alert": drift["id"], "event": drift["event"], "reason": "opened", "attempts": 1, "due": end,
        "changed": end, "title": "t", "body": "b",
    }  # fmt: skip
    with ledger.writing() as connection:
        connection.execute(
            deliveries.insert(),
            [
                row | {"address": "mailto://ops@example.com", "state": "sent", "error": ""},
                row
                | {
                    "address": "slack://...",
                    "state": "failed",
                    "error": "timed out after 10 s",
                    "attempts": 5,
                },
            ],
        )


def _decide(ledger: Ledger, at: datetime) -> None:
    record = DecisionRecord(
        "r-0001", MODEL, API, "promoted", "performance alert", 1, 3, 4, "", "", "", None, None, at, at, False,
        "the upper bound is below the margin",
    )  # fmt: skip
    with turned_back(at):
        ledger.append("decision", API, record)


def _predict(project: Project, end: datetime, rows: int, random: np.random.Generator) -> None:
    """Log the newest three hours, of which the last fifteen minutes are after the newest window."""
    now = datetime.now(UTC)
    log = PredictionLog(project, API, MODEL, BIKES)
    ids = Ids.open(project)
    for start in (end - 2 * HOUR, end - HOUR, end):
        until = min(start + HOUR, now)
        n = max(1, int(rows * (until - start) / HOUR))
        at = np.sort(random.uniform(start.timestamp(), until.timestamp(), n))
        at_us = (at * 1e6).astype(np.int64)
        log.append(
            Predictions(
                prediction_id=[ids.new(1, int(moment))[0] for moment in at_us],
                at_us=at_us,
                version=np.full(n, 4, np.int32),
                variant=["champion"] * n,
                propensity=np.ones(n),
                entity=[f"station-{number % 80}" for number in range(n)],
                latency_ms=(10.0 ** random.normal(0.4, 0.25, n)).astype(np.float32),
                inputs=inputs(n, random, warm=1.0),
                prediction=random.integers(0, 2, n).astype(np.int64),
                probability=random.dirichlet((2, 2), n),
            )
        )
    log.close()


if __name__ == "__main__":
    watched(Path(sys.argv[1]), extra=int(sys.argv[2]) if len(sys.argv) > 2 else 0, rows=20_000)
