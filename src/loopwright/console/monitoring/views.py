"""The answers of the monitoring interface, as plain records; the OpenAPI document is made from them.

Times are UTC. Shares are 0 to 1. None means "not known", never 0.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

__all__ = [
    "AlertDetail",
    "AlertLine",
    "AlertPage",
    "AlertsNow",
    "Bin",
    "Category",
    "DriftCell",
    "DriftMap",
    "DriftedFeature",
    "Estimated",
    "FailedCheck",
    "FeatureLine",
    "FeaturePage",
    "FeatureStory",
    "FeatureVersion",
    "Found",
    "Health",
    "Held",
    "Kpi",
    "Labels",
    "Live",
    "LivePoint",
    "Logged",
    "Marker",
    "Message",
    "Monitored",
    "Moved",
    "Overview",
    "Performance",
    "Quality",
    "SegmentLine",
    "Segments",
    "SilenceLine",
    "Told",
    "Tone",
    "WindowFound",
    "WindowLine",
    "WindowPage",
]

Severity = Literal["info", "warning", "critical"]
#: What a thing means, told by colour and sign.
Tone = Literal["good", "warn", "bad", "info", "plain"]
Better = Literal["higher", "lower"]


@dataclass(frozen=True, slots=True)
class Found:
    """What one check said of one window: `value` against `limit` over `rows` rows, with its 95 % interval."""

    check: str
    subject: str
    segment: str
    version: int
    start: datetime
    end: datetime
    value: float | None
    lower: float | None
    upper: float | None
    limit: float | None
    rows: int
    fired: bool


@dataclass(frozen=True, slots=True)
class Held:
    """The newest value of a metric against its limit."""

    metric: str
    better: Better
    value: float | None
    lower: float | None
    upper: float | None
    limit: float | None
    rows: int
    version: int
    at: datetime
    fired: bool


@dataclass(frozen=True, slots=True)
class Kpi:
    """One number of the product against its target, window by window, oldest first. `met` is of the newest."""

    name: str
    unit: str
    at_most: float | None
    at_least: float | None
    value: float | None
    met: bool | None
    points: tuple[Found, ...] = ()


@dataclass(frozen=True, slots=True)
class AlertsNow:
    """How many alerts are not resolved, by severity, and how many of them were acknowledged."""

    critical: int = 0
    warning: int = 0
    info: int = 0
    acknowledged: int = 0

    @property
    def open(self) -> int:
        """How many there are."""
        return self.critical + self.warning + self.info


@dataclass(frozen=True, slots=True)
class Health:
    """One deployment as its monitors see it.

    `drifted` of `inputs` fired in the newest window of inputs. `maturity` is the share of the labels expected in the
    end that has arrived for the newest windows; `waiting` counts windows whose labels are on the way. `window_age_s` is
    how long ago the newest window ended. `failed` names checks that could not judge it. `trouble` orders deployments: the
    highest first.
    """

    deployment: str
    model: str
    monitored: bool
    window_s: float | None
    metric: Held | None
    drifted: int
    inputs: int
    kpis: tuple[Kpi, ...]
    maturity: float | None
    waiting: int
    alerts: AlertsNow
    last_window: datetime | None
    window_age_s: float | None
    failed: tuple[str, ...]
    trouble: int


@dataclass(frozen=True, slots=True)
class Overview:
    """All deployments, the one with most trouble first."""

    project: str
    at: datetime
    deployments: tuple[Health, ...]


@dataclass(frozen=True, slots=True)
class WindowLine:
    """One window of one phase of checks: ``inputs`` as soon as it is over, ``labels`` when they are due."""

    start: datetime
    end: datetime
    phase: Literal["inputs", "labels"]
    state: Literal["judged", "immature", "overdue", "empty"]
    version: int
    rows: int
    labelled: int
    maturity: float | None
    fired: int
    failed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WindowPage:
    """Windows, newest first. `before` asks for the page that follows, None on the last."""

    deployment: str
    windows: tuple[WindowLine, ...]
    before: datetime | None


@dataclass(frozen=True, slots=True)
class WindowFound:
    """One window with all that was found, what fired first; `total` findings in all, from `offset` on.

    `earlier` and `later` are the starts of its neighbours.
    """

    deployment: str
    model: str
    start: datetime
    end: datetime
    phases: tuple[WindowLine, ...]
    found: tuple[Found, ...]
    total: int
    offset: int
    failed: tuple["FailedCheck", ...]
    earlier: datetime | None
    later: datetime | None


@dataclass(frozen=True, slots=True)
class Performance:
    """A metric over labelled predictions, window by window, oldest first; over all rows or one segment.

    `waiting` are the windows that are not mature: they have no value yet and alarm nobody.
    """

    deployment: str
    metric: str
    better: Better
    segment: str
    metrics: tuple[str, ...]
    points: tuple[Found, ...]
    waiting: tuple[WindowLine, ...]


@dataclass(frozen=True, slots=True)
class Estimated:
    """Performance without labels, and the assumption it rests on."""

    deployment: str
    metric: str
    assumption: str
    points: tuple[Found, ...]


@dataclass(frozen=True, slots=True)
class SegmentLine:
    """One part of the rows in the newest mature window, beside the value over `overall` rows."""

    segment: str
    metric: str
    version: int
    value: float | None
    lower: float | None
    upper: float | None
    limit: float | None
    overall: float | None
    rows: int
    fired: bool


@dataclass(frozen=True, slots=True)
class Segments:
    """The parts of the rows, the worst first; `total` in all, from `offset` on."""

    deployment: str
    metric: str
    better: Better
    end: datetime | None
    total: int
    offset: int
    segments: tuple[SegmentLine, ...]


@dataclass(frozen=True, slots=True)
class Labels:
    """How far the labels of the newest windows have come, oldest first."""

    deployment: str
    label_delay_s: float | None
    windows: tuple[WindowLine, ...]


@dataclass(frozen=True, slots=True)
class Quality:
    """What the data-quality checks said of the newest window, what fired first; `total` in all, from `offset` on."""

    deployment: str
    end: datetime | None
    total: int
    fired: int
    offset: int
    found: tuple[Found, ...]


@dataclass(frozen=True, slots=True)
class FailedCheck:
    """A check that could not judge a window, and why."""

    check: str
    at: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class DriftedFeature:
    """One input over the windows of a heat map: how often it fired, its largest and its newest effect by its limit."""

    name: str
    fired: int
    largest: float | None
    newest: float | None
    firing: bool


@dataclass(frozen=True, slots=True)
class DriftCell:
    """The effect in one window and feature, by their places; `ratio` is the effect divided by its limit."""

    window: int
    feature: int
    value: float | None
    limit: float | None
    ratio: float | None
    rows: int
    fired: bool


@dataclass(frozen=True, slots=True)
class DriftMap:
    """Features by windows, complete: `total` features match, these are those from `offset` on.

    `firing` of all `inputs` fired in the newest window.
    """

    deployment: str
    windows: tuple[datetime, ...]
    ends: tuple[datetime, ...]
    features: tuple[DriftedFeature, ...]
    cells: tuple[DriftCell, ...]
    total: int
    offset: int
    inputs: int
    firing: int


@dataclass(frozen=True, slots=True)
class FeatureLine:
    """One input in the newest window: its drift, and the shares of missing, unseen and out-of-range values."""

    name: str
    type: str
    psi: float | None
    limit: float | None
    firing: bool
    missing: float | None
    unseen: float | None
    out_of_range: float | None
    rows: int


@dataclass(frozen=True, slots=True)
class FeaturePage:
    """Inputs, those that drift most first; `total` match, these are those from `offset` on."""

    deployment: str
    end: datetime | None
    total: int
    offset: int
    features: tuple[FeatureLine, ...]


@dataclass(frozen=True, slots=True)
class Bin:
    """A bin or category: the share of rows in the reference and now."""

    label: str
    reference: float
    current: float


@dataclass(frozen=True, slots=True)
class Category:
    """A category and how its share changed; the largest change first."""

    name: str
    reference: float
    current: float
    change: float


@dataclass(frozen=True, slots=True)
class FeatureVersion:
    """One input as one version's predictions saw it lately."""

    version: int
    rows: int
    psi: float | None
    missing: float | None
    unseen: float | None
    out_of_range: float | None
    mean: float | None
    std: float | None


@dataclass(frozen=True, slots=True)
class Moved:
    """The mean of a numeric input over the rows of one step of time."""

    start: datetime
    mean: float | None
    rows: int


@dataclass(frozen=True, slots=True)
class FeatureStory:
    """One input: how it is distributed now against the reference, and how that came about.

    `basis` says what "now" is. `drift`, `missing`, `unseen` and `out_of_range` are window by window, oldest first.
    """

    deployment: str
    model: str
    name: str
    type: str
    kind: Literal["numeric", "categorical", ""]
    version: int | None
    basis: str
    what: str
    psi: float | None
    limit: float | None
    firing: bool
    reference_mean: float | None
    reference_std: float | None
    current_mean: float | None
    bins: tuple[Bin, ...]
    categories: tuple[Category, ...]
    drift: tuple[Found, ...]
    missing: tuple[Found, ...]
    unseen: tuple[Found, ...]
    out_of_range: tuple[Found, ...]
    moved: tuple[Moved, ...]
    versions: tuple[FeatureVersion, ...]
    segments: tuple[Found, ...]
    alerts: tuple["AlertLine", ...]


@dataclass(frozen=True, slots=True)
class AlertLine:
    """One alert. `short` names it in addresses and commands; `silenced_until` is set while no message is sent of it."""

    id: str
    short: str
    check: str
    severity: Severity
    state: Literal["open", "acknowledged", "resolved"]
    model: str
    deployment: str
    version: int
    subject: str
    segment: str
    since: datetime
    changed: datetime | None
    message: str
    advice: str
    value: float | None
    limit: float | None
    rows: int
    by: str
    silenced_until: datetime | None = None
    bins: tuple[Bin, ...] = ()
    points: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class AlertPage:
    """Alerts, the open ones and the gravest first; `total` match, these are those from `offset` on."""

    at: datetime
    total: int
    open: int
    offset: int
    alerts: tuple[AlertLine, ...]
    silences: tuple["SilenceLine", ...]


@dataclass(frozen=True, slots=True)
class Told:
    """One thing that happened to an alert."""

    at: datetime
    what: str
    by: str
    note: str


@dataclass(frozen=True, slots=True)
class Message:
    """One message about an alert to one address (without its secrets), and what became of it."""

    address: str
    reason: str
    state: str
    attempts: int
    changed: datetime
    error: str


@dataclass(frozen=True, slots=True)
class AlertDetail:
    """One alert with its history and its messages, and the newest values of what it is about."""

    alert: AlertLine
    detail: dict[str, Any]
    history: tuple[Told, ...]
    messages: tuple[Message, ...]
    points: tuple[Found, ...]


@dataclass(frozen=True, slots=True)
class SilenceLine:
    """One silence that holds: no message is sent of alerts that match; empty fields match all."""

    id: str
    until: datetime
    by: str
    reason: str
    model: str
    deployment: str
    check: str
    subject: str
    segment: str
    created: datetime


@dataclass(frozen=True, slots=True)
class LivePoint:
    """Predictions of one version in one step of time; latencies in milliseconds."""

    start: datetime
    version: int
    rows: int
    per_s: float
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    latency_p99_ms: float | None


@dataclass(frozen=True, slots=True)
class Live:
    """Predictions over time, by version, oldest first. `basis` says whether they were counted live or read from the log."""

    deployment: str
    since: datetime
    until: datetime
    step_s: int
    basis: Literal["live", "log"]
    points: tuple[LivePoint, ...]


@dataclass(frozen=True, slots=True)
class Logged:
    """What the prediction log of a deployment holds. `quarantined` files were damaged; their rows are not counted."""

    deployment: str
    rows: int
    first: datetime | None
    last: datetime | None
    bytes: int
    segments: int
    quarantined: int


@dataclass(frozen=True, slots=True)
class Monitored:
    """All panels of one deployment's page."""

    at: datetime
    health: Health
    log: Logged
    performance: Performance
    estimated: Estimated
    segments: Segments
    kpis: tuple[Kpi, ...]
    labels: Labels
    quality: Quality
    others: tuple[Found, ...]
    alerts: tuple[AlertLine, ...]
    failed: tuple[FailedCheck, ...]
    windows: tuple[WindowLine, ...]
    markers: tuple["Marker", ...]


@dataclass(frozen=True, slots=True)
class Marker:
    """A moment to mark in the charts."""

    at: datetime
    text: str
    tone: Tone
