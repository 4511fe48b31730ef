"""What the pages show, as plain records. The JSON interface answers with the same records.

Times are UTC; rates are per second over `RATE_S` seconds; latencies are milliseconds. None means "not known", never 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from loopwright.records import Alert, GateResult, Signal, Verdict

__all__ = [
    "Card",
    "Cell",
    "Drift",
    "Entry",
    "Glance",
    "Link",
    "Marker",
    "MetricNow",
    "Numbers",
    "Point",
    "ReleaseNow",
    "ScheduleLine",
    "Series",
    "Share",
    "Stage",
    "Story",
    "Tick",
    "Tone",
]

#: What a thing means, told by colour and sign.
Tone = Literal["good", "warn", "bad", "info", "plain"]


@dataclass(frozen=True, slots=True)
class Link:
    """A page of MLflow or Prefect about the same thing; `url` is empty while its server is not running."""

    text: str
    url: str


@dataclass(frozen=True, slots=True)
class Share:
    """A version that is served, and its share of entities (0 to 1)."""

    variant: str
    version: int
    weight: float


@dataclass(frozen=True, slots=True)
class MetricNow:
    """The newest value of a deployment's metric: of `version`, over `rows` labelled predictions."""

    name: str
    better: Literal["higher", "lower"]
    value: float | None
    version: int | None
    rows: int
    at: datetime | None
    limit: float | None


@dataclass(frozen=True, slots=True)
class Numbers:
    """The key numbers. `rows` and `labelled` count the predictions of the last `span_s` seconds."""

    rows: int
    labelled: int
    span_s: int
    per_s: float
    latency_p50_ms: float | None
    latency_p99_ms: float | None
    metric: MetricNow
    last: datetime | None


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a release."""

    name: str
    state: Literal["done", "now", "next", "failed", "skipped"]
    detail: str


@dataclass(frozen=True, slots=True)
class ReleaseNow:
    """The release that is going on, or the last one."""

    id: str
    state: str
    ended: bool
    summary: str
    trigger: str
    reason: str
    started: datetime
    changed: datetime
    champion: int | None
    candidate: int | None
    stages: tuple[Stage, ...]
    gate: GateResult | None
    verdict: Verdict | None
    loss: str
    forced: bool
    run_id: str
    flow_run_id: str


@dataclass(frozen=True, slots=True)
class Card:
    """One deployment at a glance."""

    name: str
    model: str
    mode: str
    started: bool
    champion: int | None
    variants: tuple[Share, ...]
    numbers: Numbers
    curve: tuple[float, ...]
    open_alerts: int
    release: ReleaseNow | None
    state: Literal["not started", "idle", "alert", "releasing", "healthy"]
    hint: str


@dataclass(frozen=True, slots=True)
class ScheduleLine:
    """One schedule: its next time, its last run, and what is wrong with it."""

    name: str
    when: str
    following: datetime | None
    active: bool
    last: datetime | None
    result: str
    seconds: float | None
    wrong: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Glance:
    """All deployments and schedules of the project."""

    project: str
    at: datetime
    deployments: tuple[Card, ...]
    schedules: tuple[ScheduleLine, ...] = ()


@dataclass(frozen=True, slots=True)
class Tick:
    """Traffic of one interval; `rows` divided by its length is `per_s`."""

    start: datetime
    rows: int
    per_s: float
    latency_p50_ms: float | None
    latency_p99_ms: float | None


@dataclass(frozen=True, slots=True)
class Point:
    """The metric over the `rows` labelled predictions of one interval that begins at `start`."""

    start: datetime
    value: float
    rows: int


@dataclass(frozen=True, slots=True)
class Series:
    """The metric of one version over time."""

    version: int
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Marker:
    """A moment to mark in the charts."""

    at: datetime
    text: str
    tone: Tone


@dataclass(frozen=True, slots=True)
class Cell:
    """The drift of one feature in one window: the effect, its limit, and whether the window fired."""

    window: int
    feature: int
    value: float
    limit: float
    rows: int
    fired: bool


@dataclass(frozen=True, slots=True)
class Drift:
    """The features that drift most, over the last windows; `windows` are their ends.

    `fired` of all `inputs` of the model fired in the last window.
    """

    windows: tuple[datetime, ...]
    features: tuple[str, ...]
    cells: tuple[Cell, ...]
    inputs: int
    fired: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One event as a sentence, with where to read more.

    `repeats` counts the events that it stands for: those in a row with the same, non-empty `group`.
    """

    id: int
    at: datetime
    kind: str
    tone: Tone
    text: str
    links: tuple[Link, ...] = ()
    group: str = ""
    repeats: int = 1


@dataclass(frozen=True, slots=True)
class Story:
    """One deployment, live. Everything lies between `since` and `at`, but drift, alerts and timeline reach back further.

    `checks` are the newest signals of the monitors, without drift.
    """

    project: str
    since: datetime
    at: datetime
    card: Card
    links: tuple[Link, ...]
    traffic: tuple[Tick, ...]
    metric: tuple[Series, ...]
    markers: tuple[Marker, ...]
    drift: Drift
    checks: tuple[Signal, ...]
    alerts: tuple[Alert, ...]
    timeline: tuple[Entry, ...]
