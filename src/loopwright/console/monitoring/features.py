"""Inputs: all of them in the newest window, and one with its distribution, its windows and its versions."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from loopwright.console.monitoring.alerts import AlertsOf, bins_of
from loopwright.console.monitoring.drift import ratio
from loopwright.console.monitoring.source import INPUTS, WINDOWS, Source, Span
from loopwright.console.monitoring.views import (
    Bin,
    Category,
    FeatureLine,
    FeaturePage,
    FeatureStory,
    FeatureVersion,
    Found,
    Moved,
)
from loopwright.errors import LoopwrightError, NotFound
from loopwright.monitor.blocks import ColumnCounts, Plan
from loopwright.monitor.live.comparing import Feature, bars, feature_of
from loopwright.records import moment
from loopwright.registry.column_profile import ColumnProfile
from loopwright.registry.profile import Profile, read_profile

__all__ = ["FeatureOf", "FeaturesOf"]

_CHECKS = ("drift", "missing", "unseen", "out_of_range")
#: Rows of the newest window that a distribution is counted from where no check left one.
_ROWS = 200_000
#: Windows whose details are read for the curve of the mean.
_MOVED = 100


@dataclass(frozen=True, slots=True)
class FeaturesOf:
    """Inputs whose name contains `search`, `limit` of them from `offset` on."""

    deployment: str
    search: str = ""
    offset: int = 0
    limit: int = 50

    def stamp(self, source: Source) -> Hashable:
        """Return what changes with each window."""
        return source.stamp(self.deployment)

    def answer(self, source: Source) -> FeaturePage:
        """Read them in the newest window, those that drift most first."""
        signature = source.signature(self.deployment)
        types = {one.name: str(one.type) for one in signature.inputs} if signature else {}
        start = source.newest(self.deployment, INPUTS)
        found = source.found(self.deployment, _CHECKS, Span(start, start)) if start is not None else []
        by_name: dict[str, dict[str, Found]] = {name: {} for name in types}
        for one in found:
            by_name.setdefault(one.subject, {})[one.check] = one
        wanted = self.search.casefold()
        lines = [
            _feature_line(name, types.get(name, ""), seen)
            for name, seen in by_name.items()
            if wanted in name.casefold()
        ]
        lines.sort(key=lambda one: (not one.firing, -_part(one), one.name))
        return FeaturePage(
            deployment=self.deployment,
            end=max((one.end for one in found), default=None),
            total=len(lines),
            offset=self.offset,
            features=tuple(lines[self.offset : self.offset + self.limit]),
        )


def _feature_line(name: str, kind: str, seen: dict[str, Found]) -> FeatureLine:
    drift = seen.get("drift")

    def share(check: str) -> float | None:
        return seen[check].value if check in seen else None

    return FeatureLine(
        name=name,
        type=kind,
        psi=drift.value if drift else None,
        limit=drift.limit if drift else None,
        firing=any(one.fired for one in seen.values()),
        missing=share("missing"),
        unseen=share("unseen"),
        out_of_range=share("out_of_range"),
        rows=max((one.rows for one in seen.values()), default=0),
    )


def _part(one: FeatureLine) -> float:
    return one.psi / one.limit if one.psi is not None and one.limit else 0.0


@dataclass(frozen=True, slots=True)
class FeatureOf:
    """One input of a deployment over its newest windows."""

    deployment: str
    feature: str
    windows: int = WINDOWS

    def stamp(self, source: Source) -> Hashable:
        """Return what changes with each window."""
        return source.stamp(self.deployment)

    def answer(self, source: Source) -> FeatureStory:
        """Read it.

        Raises
        ------
        NotFound
            The model has no such input, and no window had one.
        """
        name, feature = self.deployment, self.feature
        declared = source.project.deployment(name)
        signature, champion = source.signature(name), source.champion(name)
        types = {one.name: str(one.type) for one in signature.inputs} if signature else {}
        span = source.span(name, INPUTS, self.windows)
        found = source.found(name, _CHECKS, span, subjects=[feature], segment=None) if span else []
        if feature not in types and not found:
            raise NotFound.among("input", feature, list(types), hint=f"loopwright monitor features {name}")
        whole = [one for one in found if not one.segment]
        drift = tuple(one for one in whole if one.check == "drift")
        version = drift[-1].version if drift else champion
        known = profile_of(source, declared.model, version)
        profile = known.column(feature) if known else None
        detailed = source.in_full(name, "drift", feature, span, most=_MOVED) if span else []
        now, bins, basis = _now(source, name, version, profile)
        newest = drift[-1] if drift else None
        detail = detailed[-1][1] if detailed else {}
        if not bins and (bins := bins_of(detail)):
            basis = "newest window"
        return FeatureStory(
            deployment=name,
            model=declared.model,
            name=feature,
            type=types.get(feature, ""),
            kind=profile.kind if profile else "",
            version=version,
            basis=basis,
            what=str(detail.get("what", "")),
            psi=newest.value if newest else (now.psi if now else None),
            limit=newest.limit if newest else None,
            firing=newest.fired if newest else False,
            reference_mean=profile.mean if profile else None,
            reference_std=profile.std if profile else None,
            current_mean=now.mean if now else _number(detail.get("mean")),
            bins=bins,
            categories=_categories(bins) if profile and profile.kind == "categorical" else (),
            drift=drift,
            missing=tuple(one for one in whole if one.check == "missing"),
            unseen=tuple(one for one in whole if one.check == "unseen"),
            out_of_range=tuple(one for one in whole if one.check == "out_of_range"),
            moved=_moved(source, name, version, profile, span, detailed),
            versions=_versions(whole, detailed),
            segments=_segments(found),
            alerts=_alerts(source, name, feature),
        )


def profile_of(source: Source, model: str, version: int | None) -> Profile | None:
    """Return how the inputs of a version were distributed in training; None where it has no profile."""
    if version is None:
        return None
    with contextlib.suppress(LoopwrightError, OSError):
        return read_profile(source.project.scorer(model, version) / "profile.json")
    return None


def _now(
    source: Source, deployment: str, version: int | None, profile: ColumnProfile | None
) -> tuple[Feature | None, tuple[Bin, ...], str]:
    """Return an input in the newest window and its distribution against the reference, and what "now" is."""
    if profile is None or version is None:
        return None, (), ""
    start = source.newest(deployment, INPUTS)
    windows = source.windows(deployment, INPUTS, at=moment(start), most=1) if start is not None else []
    basis = "newest window" if windows else "last hour"
    since = windows[0].start if windows else source.at - timedelta(hours=1)
    until = windows[0].end if windows else source.at
    counts = source.live.block(deployment, version, since, until).column(profile.name)
    if counts is None or not counts.rows:
        counts = _counted(source, deployment, profile, since, until)
    if counts is None or not counts.rows:
        return None, (), ""
    drawn = tuple(Bin(one.label, one.before, one.now) for one in bars(profile, counts))
    return feature_of(profile, counts), drawn, basis


def _counted(
    source: Source, deployment: str, profile: ColumnProfile, since: datetime, until: datetime
) -> ColumnCounts | None:
    """Count an input of the log's rows, where no controller has; None where the log does not have it."""
    column = "input_" + profile.name
    quoted = '"' + column.replace('"', '""') + '"'
    with contextlib.suppress(LoopwrightError):
        with source.store.view(deployment=deployment, since=since, until=until, labels=False) as view:
            if column not in view.columns():
                return None
            rows = view.table(f"select {quoted} from predictions limit {_ROWS}")
        whole = Profile((profile,), profile, profile.rows)
        return Plan.of(whole).count(rows).column(profile.name)
    return None


def _categories(bins: tuple[Bin, ...]) -> tuple[Category, ...]:
    found = [Category(one.label, one.reference, one.current, one.current - one.reference) for one in bins]
    return tuple(sorted(found, key=lambda one: -abs(one.change)))


def _number(value: Any) -> float | None:
    known = isinstance(value, int | float) and math.isfinite(value)
    return float(value) if known else None


def _moved(
    source: Source,
    deployment: str,
    version: int | None,
    profile: ColumnProfile | None,
    span: Span | None,
    detailed: Sequence[tuple[Found, dict[str, Any]]],
) -> tuple[Moved, ...]:
    """Return the mean over time: as it was counted live, else that of the windows whose checks kept it."""
    if profile is None or profile.kind != "numeric" or version is None:
        return ()
    if span is not None:
        with contextlib.suppress(LoopwrightError):
            since, until = moment(span.first_us), source.at
            found = source.live.feature(deployment, version, profile.name, since, until).points
            if len(found) > 1:
                return tuple(Moved(one.start, one.mean, one.rows) for one in found)
    made = []
    for one, detail in detailed:
        mean = _number(detail.get("mean"))
        if mean is not None:
            made.append(Moved(one.start, mean, one.rows))
    return tuple(made)


def _versions(
    whole: Sequence[Found], detailed: Sequence[tuple[Found, dict[str, Any]]]
) -> tuple[FeatureVersion, ...]:
    """Return the newest findings of each version, the newest version first."""
    newest: dict[int, dict[str, Found]] = {}
    for one in whole:
        newest.setdefault(one.version, {})[one.check] = one
    means = {one.version: detail for one, detail in detailed}

    def share(seen: dict[str, Found], check: str) -> float | None:
        return seen[check].value if check in seen else None

    return tuple(
        FeatureVersion(
            version=version,
            rows=max(one.rows for one in seen.values()),
            psi=share(seen, "drift"),
            missing=share(seen, "missing"),
            unseen=share(seen, "unseen"),
            out_of_range=share(seen, "out_of_range"),
            mean=_number(means.get(version, {}).get("mean")),
            std=_number(means.get(version, {}).get("std")),
        )
        for version, seen in sorted(newest.items(), reverse=True)
    )


def _segments(found: Sequence[Found]) -> tuple[Found, ...]:
    """Return what was found of this input in parts of the rows of the newest window, the worst first."""
    parts = [one for one in found if one.segment]
    last = max((one.start for one in parts), default=None)
    newest = [one for one in parts if one.start == last]
    return tuple(sorted(newest, key=lambda one: (not one.fired, -(ratio(one) or 0.0))))[:100]


def _alerts(source: Source, deployment: str, feature: str) -> Any:
    found = AlertsOf(resolved=True, deployment=deployment, limit=1000).answer(source).alerts
    return tuple(one for one in found if one.subject == feature)[:20]
