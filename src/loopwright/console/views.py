"""What the pages show, as plain records. The JSON interface answers with the same records.

Times are UTC; rates are per second over `RATE_S` seconds; latencies are milliseconds. None means "not known", never 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from loopwright.console.monitoring.views import Health, Marker, Tone
from loopwright.deploy.online.levels import ServiceLevel
from loopwright.deploy.overview import Worker
from loopwright.records import Alert, GateResult, Verdict
from loopwright.scoring.base import Timing

__all__ = [
    "Batch",
    "Card",
    "Counted",
    "Entry",
    "Glance",
    "Link",
    "Marker",
    "MetricNow",
    "Numbers",
    "Point",
    "RefusedVersion",
    "ReleaseNow",
    "Runs",
    "ScheduleLine",
    "Series",
    "Serving",
    "Share",
    "Stage",
    "StageTime",
    "Story",
    "Tick",
    "Tone",
]


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
    """The newest value of a deployment's metric: of `version`, over `rows` labelled predictions.

    `lower` and `upper` are its 95 % interval where a monitor computed it.
    """

    name: str
    better: Literal["higher", "lower"]
    value: float | None
    version: int | None
    rows: int
    at: datetime | None
    limit: float | None
    lower: float | None = None
    upper: float | None = None


@dataclass(frozen=True, slots=True)
class Numbers:
    """The key numbers. `rows` and `labelled` count the predictions of the last `span_s` seconds.

    `labelled` is None where labels are judged by windows and were not counted apart.
    """

    rows: int
    labelled: int | None
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
    """One deployment at a glance.

    `shadows` are versions that score the same rows and answer nobody. `logged` is the share of predictions that the
    log keeps (0 to 1): the key numbers count those alone. `health` is what its monitors found.
    """

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
    state: Literal["not started", "idle", "asleep", "alert", "releasing", "healthy"]
    hint: str
    shadows: tuple[int, ...] = ()
    logged: float = 1.0
    health: Health | None = None


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
class StageTime:
    """How long one stage of answering took, `n` times. `share` is its share (0 to 1) of the time of all stages."""

    name: str
    n: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    mean_ms: float | None
    share: float


@dataclass(frozen=True, slots=True)
class Batch:
    """Micro-batches of up to `rows` rows, and more than half of it: how many, and their share (0 to 1)."""

    rows: int
    n: int
    share: float


@dataclass(frozen=True, slots=True)
class Counted:
    """Requests with one status of one protocol, or refused for one reason; `share` is that of all requests."""

    name: str
    n: int
    share: float
    status: int = 0


@dataclass(frozen=True, slots=True)
class Runs:
    """What computes a variant: the runtime, why it is that one, and how it was proven and measured.

    `replay_rows`, `max_difference` and `label_flips` are those of the replay against the model itself; `bands` says
    which runtime answers how many rows, and `proofs` what the replay showed of each, in words. `timings` are
    microseconds by runtime and number of rows; `answers` is the runtime that answers each of these numbers of rows.
    """

    variant: str
    version: int
    weight: float
    shadow: bool
    runtime: str
    reason: str
    replay_rows: int
    max_difference: float | None
    label_flips: int | None
    tolerance: float | None
    bands: str = ""
    proofs: tuple[str, ...] = ()
    timings: tuple[Timing, ...] = ()
    answers: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RefusedVersion:
    """A version that serving processes refuse to serve, and why."""

    version: int
    reason: str
    workers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Serving:
    """How an online deployment answers: over the last `seconds` seconds, by `workers` living processes.

    `level` is None where ``slo`` is not declared; `level_words` are its two sentences. Limits are those of all workers
    together. `processes` are the workers and what each does for this deployment; `rules` say who may ask, how much, and
    what the log keeps, by topic. `tryit` is the address of the page to try it, empty where no worker runs.
    """

    workers: int
    seconds: float
    stages: tuple[StageTime, ...]
    batches: tuple[Batch, ...]
    mean_batch: float | None
    requests: tuple[Counted, ...]
    refused: tuple[Counted, ...]
    queued_rows: int
    queued_rows_limit: int
    queued_bytes: int
    queued_bytes_limit: int
    shadow_rows: int
    shadow_dropped: int
    runs: tuple[Runs, ...]
    refused_versions: tuple[RefusedVersion, ...]
    level: ServiceLevel | None
    level_words: tuple[str, ...]
    processes: tuple[Worker, ...] = ()
    rules: Mapping[str, str] = field(default_factory=dict)
    tryit: str = ""


@dataclass(frozen=True, slots=True)
class Story:
    """One deployment, live. Everything lies between `since` and `at`, but alerts and timeline reach back further.

    `metric` is by window where a monitor judges the model, else read from the log. `serving` is None but for online
    deployments.
    """

    project: str
    since: datetime
    at: datetime
    card: Card
    links: tuple[Link, ...]
    traffic: tuple[Tick, ...]
    metric: tuple[Series, ...]
    markers: tuple[Marker, ...]
    alerts: tuple[Alert, ...]
    timeline: tuple[Entry, ...]
    serving: Serving | None = None
