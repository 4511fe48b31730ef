"""Inputs and their drift, as plain records."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from loopwright.console.monitoring.alert_views import AlertLine
from loopwright.console.monitoring.found_views import Bin, Found

__all__ = [
    "Category",
    "DriftCell",
    "DriftMap",
    "DriftedFeature",
    "FeatureLine",
    "FeaturePage",
    "FeatureStory",
    "FeatureVersion",
    "Moved",
]


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
