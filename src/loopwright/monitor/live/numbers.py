"""Reading live numbers: how many predictions, how fast, and how the inputs are distributed, now or in any span."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from loopwright.config import Project
from loopwright.errors import Damaged, InvalidInput, NotFound
from loopwright.ledger import Ledger
from loopwright.monitor.blocks import Block
from loopwright.monitor.live.comparing import Bar, Feature, FeaturePoint, bars, feature_of
from loopwright.monitor.live.kept import Kept, Stored
from loopwright.monitor.live.plans import Plans, model_of
from loopwright.monitor.live.rebuilding import Progress, progress
from loopwright.monitor.live.spans import DAY_S, HOUR_S, MINUTE_S, SPANS_S, Piece, cover, horizon_us
from loopwright.records import micros, moment, now

__all__ = ["FeatureDetail", "LiveNumbers", "Point"]

#: Points of a series where the caller does not say how long each is.
MOST_POINTS = 180
#: Blocks that one call reads at most: some tens of milliseconds.
MOST_BLOCKS = 1500


@dataclass(frozen=True, slots=True)
class Point:
    """What one version answered from `start` on; rows a second, and quantiles of the latency in milliseconds."""

    start: datetime
    version: int
    rows: int
    per_s: float
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True, slots=True)
class FeatureDetail:
    """One input now and in training, as bars, and over time."""

    feature: Feature
    bars: tuple[Bar, ...]
    points: tuple[FeaturePoint, ...]


class LiveNumbers:
    """The live numbers of a project. Safe to share between threads; keep one, it remembers the bins of the versions.

    Every call costs some tens of milliseconds at most, however many predictions there are. Spans are taken to whole
    minutes outwards, and to whole hours where they lie more than two days back.

    Raises
    ------
    InvalidInput
        From any call: a moment has no time zone.
    """

    def __init__(self, ledger: Ledger, project: Project) -> None:
        self._ledger = ledger
        self._project = project
        self._kept = Kept(ledger)
        self._plans = Plans(project, ledger)

    def totals(self) -> dict[tuple[str, int], int]:
        """Return how many predictions each deployment and version ever made, as far as they are kept."""
        return self._kept.totals(DAY_S)

    def rows(self, deployment: str, since: datetime, until: datetime) -> dict[int, int]:
        """Return how many predictions each version made in [since, until), without reading what they were."""
        found: dict[int, int] = {}
        for key, rows in self._kept.rows(deployment, self._pieces(since, until)):
            found[key.version] = found.get(key.version, 0) + rows
        return found

    def per_second(self, deployment: str, at: datetime | None = None) -> float:
        """Return how many predictions a second were made in the last whole minute."""
        end = moment(micros(at or now()) // 60_000_000 * 60_000_000)
        return sum(self.rows(deployment, end - timedelta(minutes=1), end).values()) / MINUTE_S

    def progress(self, deployment: str) -> Progress:
        """Return how far the log of a deployment is counted, as after an upgrade."""
        return progress(self._project, self._ledger, deployment)

    def series(
        self, deployment: str, since: datetime, until: datetime, step_s: int | None = None
    ) -> list[Point]:
        """Return traffic and latency over time, oldest first; steps without a prediction are left out.

        Parameters
        ----------
        since, until
            The span, its end excluded.
        step_s
            Seconds of each step, a multiple of 60; by default a minute, an hour or a day, for at most 180 steps. Steps
            begin at whole multiples of it since 1970.

        Raises
        ------
        InvalidInput
            The step is no multiple of 60, or so short that thousands of them would have to be read.
        """
        step_s = self._step(since, until, step_s)
        points = []
        for start_us, version, block in self._steps(deployment, since, until, step_s, None):
            start = moment(start_us)
            covered = min(start + timedelta(seconds=step_s), until) - max(start, since)
            seconds = max(1.0, covered.total_seconds())
            quantiles = (block.latency(share) for share in (0.5, 0.95, 0.99))
            points.append(Point(start, version, block.rows, block.rows / seconds, *quantiles))
        return points

    def block(self, deployment: str, version: int, since: datetime, until: datetime) -> Block:
        """Return all counts of a version's rows in [since, until)."""
        model = model_of(self._project, self._ledger, deployment)
        whole = self._plans.of(model, version).plan.empty()
        for stored in self._kept.within(deployment, self._pieces(since, until), version):
            block = self._load(model, stored)
            if block is not None and block.plan.digest != whole.plan.digest:
                whole = block.plan.empty()  # the version's profile came after it was first asked for
            if block is not None:
                whole.add(block)
        return whole

    def features(self, deployment: str, version: int, since: datetime, until: datetime) -> list[Feature]:
        """Return how each input of a version is now and how it was in training, the largest PSI first.

        Empty where the version has no reference profile.
        """
        block = self.block(deployment, version, since, until)
        profile = self._plans.of(model_of(self._project, self._ledger, deployment), version).profile
        if profile is None:
            return []
        found = [feature_of(column, block.column(column.name)) for column in profile.columns]
        return sorted(found, key=lambda one: -one.psi if one.psi is not None else 1.0)

    def feature(
        self,
        deployment: str,
        version: int,
        name: str,
        since: datetime,
        until: datetime,
        step_s: int | None = None,
    ) -> FeatureDetail:
        """Return one input of a version, or its ``prediction`` or ``score``: the distributions, and over time.

        Raises
        ------
        NotFound
            The version's profile has no such column.
        InvalidInput
            As for `series`.
        """
        profile = self._plans.of(model_of(self._project, self._ledger, deployment), version).profile
        known = {column.name: column for column in profile.columns} if profile else {}
        if profile:
            known = (
                {"prediction": profile.prediction}
                | ({"score": profile.scores} if profile.scores else {})
                | known
            )
        if name not in known:
            raise NotFound.among(
                "feature", name, sorted(known), hint=f"loopwright monitor features {deployment}"
            )
        column = known[name]
        step_s = self._step(since, until, step_s)
        points = [
            FeaturePoint.of(moment(start_us), column, block.column(name))
            for start_us, _, block in self._steps(deployment, since, until, step_s, version)
        ]
        counts = self.block(deployment, version, since, until).column(name)
        return FeatureDetail(feature_of(column, counts), bars(column, counts), tuple(points))

    def _pieces(self, since: datetime, until: datetime) -> list[Piece]:
        for name, at in (("since", since), ("until", until)):
            if at.tzinfo is None:
                raise InvalidInput(
                    f"{name} = {at.isoformat()} has no time zone.",
                    valid="Use datetime.now(UTC), for example.",
                )
        return list(cover(micros(since), micros(until), horizon_us(now())))

    def _step(self, since: datetime, until: datetime, step_s: int | None) -> int:
        length_s = (until - since).total_seconds()
        if step_s is None:
            step_s = next((one for one in SPANS_S if length_s <= one * MOST_POINTS), DAY_S)
        if step_s < MINUTE_S or step_s % MINUTE_S:
            raise InvalidInput(f"step_s = {step_s} is no step.", valid="It is a multiple of 60.")
        if step_s < HOUR_S and micros(since) < horizon_us(now()):
            step_s = HOUR_S  # there are no minutes any more
        blocks = length_s / _span_of(step_s)
        if blocks > MOST_BLOCKS:
            raise InvalidInput(
                f"{blocks:.0f} blocks would have to be read for steps of {step_s} s.",
                valid=f"At most {MOST_BLOCKS}: make the span shorter, or the steps whole hours or days.",
            )
        return step_s

    def _steps(
        self, deployment: str, since: datetime, until: datetime, step_s: int, version: int | None
    ) -> Iterator[tuple[int, int, Block]]:
        """Yield start, version and counts of each step, oldest first."""
        span_s, step_us = _span_of(step_s), step_s * 1_000_000
        first = micros(since) // step_us * step_us
        pieces = [Piece(span_s, first, micros(until))]
        model = model_of(self._project, self._ledger, deployment)
        found: dict[tuple[int, int], Block] = {}
        for stored in self._kept.within(deployment, pieces, version):
            block = self._load(model, stored)
            if block is None:
                continue
            key = (stored.key.start_us // step_us * step_us, stored.key.version)
            if key in found and found[key].plan.digest == block.plan.digest:
                found[key].add(block)
            else:
                found[key] = block
        for (start_us, of), block in sorted(found.items(), key=lambda item: item[0]):
            yield start_us, of, block

    def _load(self, model: str, stored: Stored) -> Block | None:
        """Return a block, or None where its bins are not the version's any more: the follower counts it anew."""
        try:
            return self._plans.of(model, stored.key.version).plan.loads(stored.data)
        except (Damaged, InvalidInput):
            pass
        try:
            return self._plans.again(model, stored.key.version).plan.loads(stored.data)
        except (Damaged, InvalidInput):
            return None


def _span_of(step_s: int) -> int:
    """Return the longest span that steps of this length are made of."""
    return next(span_s for span_s in SPANS_S[::-1] if step_s % span_s == 0)
