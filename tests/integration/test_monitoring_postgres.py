"""The questions of the monitoring pages over PostgreSQL: the same answers as over SQLite."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from postgres import postgresql
from watched_bikes import API, HOUR, watched

from loopwright.console.monitoring.alerts import AlertsOf
from loopwright.console.monitoring.drift import DriftOf
from loopwright.console.monitoring.features import FeatureOf, FeaturesOf
from loopwright.console.monitoring.health import OverviewOf
from loopwright.console.monitoring.model import MonitoredOf
from loopwright.console.monitoring.source import Source
from loopwright.console.monitoring.windows import WindowOf, WindowsOf
from loopwright.ledger import Ledger
from loopwright.predictions import PredictionStore

pytestmark = pytest.mark.integration


def answers(folder: Path) -> list[Any]:
    """Return what is answered of a project that is written anew."""
    bikes = watched(folder, windows=30, rows=40)
    ledger = Ledger.open(bikes.project)
    source = Source(bikes.project, ledger, PredictionStore(bikes.project), datetime.now(UTC))
    questions = (
        DriftOf(API, limit=5),
        FeaturesOf(API),
        FeatureOf(API, "weather"),
        WindowsOf(API, limit=9),
        WindowOf(API, bikes.end - 5 * HOUR),
        OverviewOf(),
        MonitoredOf(API),
        AlertsOf(resolved=True),
    )
    found = []
    for question in questions:
        assert question.stamp(source) == question.stamp(source)
        found.append(msgspec.to_builtins(question.answer(source)))
    ledger.close()
    return found


def test_answers_are_the_same_over_postgresql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows, signals and alerts are read alike; only moments of writing and of asking differ."""
    expected = answers(tmp_path / "sqlite")
    with postgresql(tmp_path) as address:
        monkeypatch.setenv("LOOPWRIGHT_LEDGER", f"postgresql+psycopg://owner@{address}/postgres")
        found = answers(tmp_path / "postgresql")
    for one, other in zip(expected, found, strict=True):
        assert steady(one) == steady(other)


#: What differs between two projects that were written one after the other.
MOMENTS = {
    "at",
    "changed",
    "created",
    "until",
    "silenced_until",
    "window_age_s",
    "id",
    "log",
    "first",
    "last",
}


def steady(value: Any) -> Any:
    """Return an answer without moments of writing."""
    if isinstance(value, dict):
        return {key: steady(one) for key, one in value.items() if key not in MOMENTS}
    if isinstance(value, list | tuple):
        return [steady(one) for one in value]
    return round(value, 9) if isinstance(value, float) else value
