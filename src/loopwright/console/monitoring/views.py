"""The answers of the monitoring interface, as plain records; the OpenAPI document is made from them.

Times are UTC. Shares are 0 to 1. None means "not known", never 0.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from loopwright.console.monitoring.alert_views import (
    AlertDetail,
    AlertLine,
    AlertPage,
    AlertsNow,
    Message,
    Severity,
    SilenceLine,
    Told,
)
from loopwright.console.monitoring.feature_views import (
    Category,
    DriftCell,
    DriftedFeature,
    DriftMap,
    FeatureLine,
    FeaturePage,
    FeatureStory,
    FeatureVersion,
    Moved,
)
from loopwright.console.monitoring.found_views import Bin, Found, Marker, Tone, WindowLine

__all__ = [
    "AlertDetail",
    "AlertLine",
    "AlertPage",
    "AlertsNow",
    "Better",
    "Bin",
    "Calibration",
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
    "Reliability",
    "SegmentLine",
    "Segments",
    "Severity",
    "SilenceLine",
    "Told",
    "Tone",
    "WindowFound",
    "WindowLine",
    "WindowPage",
]

Better = Literal["higher", "lower"]


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
class Reliability:
    """Rows whose forecast probability was about `predicted`: the share for which it came true."""

    predicted: float
    observed: float
    rows: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """Whether probabilities are what they say, in the newest mature window; `of` is the class they are of."""

    deployment: str
    found: Found | None
    of: str
    bins: tuple[Reliability, ...]


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
    calibration: Calibration
    segments: Segments
    kpis: tuple[Kpi, ...]
    labels: Labels
    quality: Quality
    others: tuple[Found, ...]
    alerts: tuple[AlertLine, ...]
    failed: tuple[FailedCheck, ...]
    windows: tuple[WindowLine, ...]
    markers: tuple["Marker", ...]
