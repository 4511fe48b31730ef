"""What a serving process counts about itself while it answers, and the files through which others see it.

The hot path adds to plain numbers: no lock, no library, no clock of its own. Each process writes all of its numbers to
``.loopwright/run/meters/<worker>.json`` about once a second, so that any worker, the console and the command line can
put those of all workers together. Nothing here is ever read back into a counter: a process that starts, starts at 0.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

import msgspec

from loopwright.config import Project

__all__ = [
    "BOUNDS",
    "KEEP_S",
    "STALE_S",
    "Histogram",
    "Meter",
    "Meters",
    "Recent",
    "Sizes",
    "Snapshot",
    "VariantMeter",
    "read",
    "recent",
]

#: Buckets of a `Histogram`; the last one begins after years, so that no index is ever out of range.
_BUCKETS = 96
#: Upper bounds of the buckets of a `Histogram`, in seconds: each the square root of 2 times the one before, from 1 us.
BOUNDS = tuple(2 ** (place / 2) * 1e-6 for place in range(_BUCKETS))
#: Buckets of `Sizes`: up to 1, 2, 4... 2**31 rows.
_SIZES = 32
#: A worker that has written nothing for so many seconds is dead or stuck: its gauges say nothing about now.
STALE_S = 10.0
#: For so long the counters of a worker that has gone are still shown, so that no scrape misses its last answers.
KEEP_S = 3600.0
#: Every so many seconds a process keeps a copy of its numbers, and so many of them: what happened lately is the numbers
#: less the oldest copy, of 4 to 5 minutes ago.
_MARK_S, _MARKS = 60.0, 5
#: Pairs of variant and version that one deployment counts; of more, the oldest are left out.
_VARIANTS = 16


class Histogram(msgspec.Struct, gc=False):
    """How often something took how long, in buckets that grow by the square root of 2 from one microsecond.

    `total` is the sum in seconds. Several threads may add: CPython interrupts neither of the two statements between
    its reading and its writing, and a reader meanwhile sees at most one observation too few.

    Examples
    --------
    >>> times = Histogram()
    >>> for milliseconds in (1, 1, 1, 8):
    ...     times.add(milliseconds / 1000)
    >>> times.count, round(times.total, 3), 0.0007 < times.quantile(0.5) <= 0.00102
    (4, 0.011, True)
    """

    counts: list[int] = msgspec.field(default_factory=lambda: [0] * _BUCKETS)
    total: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one observation, in seconds."""
        self.counts[int(seconds * seconds * 1e12).bit_length()] += 1
        self.total += seconds

    @property
    def bounds(self) -> tuple[float, ...]:
        """The upper bounds of the buckets, in seconds."""
        return BOUNDS

    @property
    def count(self) -> int:
        """How many observations there were."""
        return sum(self.counts)

    @property
    def mean(self) -> float | None:
        """The mean in seconds, exact; None without observations."""
        n = self.count
        return self.total / n if n else None

    def quantile(self, q: float) -> float | None:
        """Return the quantile `q` (0 to 1) in seconds, None without observations.

        Within a bucket observations are taken to be spread evenly on a logarithmic scale, so that the answer is off by
        less than a factor of the square root of 2.
        """
        return _quantile(self.counts, BOUNDS, q)

    def merge(self, other: Histogram) -> None:
        """Add the observations of another one."""
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.total += other.total


class Sizes(msgspec.Struct, gc=False):
    """How often a batch had how many rows: bucket k counts batches of 2**(k-1) + 1 to 2**k rows, the first those of 1.

    `total` is the sum of the rows.
    """

    counts: list[int] = msgspec.field(default_factory=lambda: [0] * _SIZES)
    total: int = 0

    def add(self, rows: int) -> None:
        """Count one batch of `rows` rows, 1 or more."""
        self.counts[(rows - 1).bit_length()] += 1
        self.total += rows

    @property
    def count(self) -> int:
        """How many batches there were."""
        return sum(self.counts)

    @property
    def bounds(self) -> tuple[int, ...]:
        """The largest batch of each bucket, in rows."""
        return tuple(1 << place for place in range(_SIZES))

    def quantile(self, q: float) -> float | None:
        """Return the quantile `q` (0 to 1) in rows, None without batches; exact for 1 and 2, else within a factor of 2."""
        return _quantile(self.counts, [float(bound) for bound in self.bounds], q)

    def merge(self, other: Sizes) -> None:
        """Add the batches of another one."""
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.total += other.total


def _quantile(counts: list[int], bounds: Iterable[float], q: float) -> float | None:
    wanted = sum(counts) * q
    if not any(counts):
        return None
    seen, below, found = 0, 0.0, 0.0
    for count, bound in zip(counts, bounds, strict=True):
        if count:
            found = bound
            if seen + count >= wanted:
                # Nothing lies below the first bucket to interpolate from.
                return bound * (below / bound) ** (1 - (wanted - seen) / count) if below else bound
        seen += count
        below = bound
    return found


def _less(whole: list[int], before: list[int]) -> list[int]:
    return [max(0, a - b) for a, b in zip(whole, before, strict=True)]


class VariantMeter(msgspec.Struct, gc=False):
    """What is counted of one variant with one version.

    `score` is per call of the scorer, `latency` per request, from its arrival to its answer; `rows` counts rows that
    were answered. `runtime` is what computes it.
    """

    name: str
    version: int
    runtime: str = ""
    score: Histogram = msgspec.field(default_factory=Histogram)
    latency: Histogram = msgspec.field(default_factory=Histogram)
    rows: int = 0
    serving: bool = True


class Meter(msgspec.Struct):
    """What is counted of one deployment in one process.

    Callers add to the histograms directly: `decode` per request; `queue` per request, from decoded to taken into a
    batch; `log` and `encode` per micro-batch; `batch_rows` per call of a scorer. `queued_rows` and `queued_bytes` are
    gauges that the caller keeps; `shadow_rows`, `shadow_dropped` and `swaps` are counters that the caller
    raises with ``+=``.
    """

    deployment: str
    decode: Histogram = msgspec.field(default_factory=Histogram)
    queue: Histogram = msgspec.field(default_factory=Histogram)
    log: Histogram = msgspec.field(default_factory=Histogram)
    encode: Histogram = msgspec.field(default_factory=Histogram)
    batch_rows: Sizes = msgspec.field(default_factory=Sizes)
    variants: list[VariantMeter] = msgspec.field(default_factory=list)
    requests: dict[str, dict[int, int]] = msgspec.field(default_factory=dict)
    refused: dict[str, int] = msgspec.field(default_factory=dict)
    queued_rows: int = 0
    queued_bytes: int = 0
    shadow_rows: int = 0
    shadow_dropped: int = 0
    swaps: int = 0

    def variant(self, name: str, version: int, runtime: str = "") -> VariantMeter:
        """Return what counts one variant with one version: look it up once per route, not per request.

        A `runtime` that is given replaces the one that was known.
        """
        for known in self.variants:
            if known.name == name and known.version == version:
                known.runtime = runtime or known.runtime
                known.serving = True
                return known
        made = VariantMeter(name, version, runtime)
        # Replaced as a whole: a snapshot sees the old list or the new one.
        self.variants = [*self.variants[1 - _VARIANTS :], made]
        return made

    def serves(self, variants: Iterable[VariantMeter]) -> None:
        """Say which variants answer from now on: the others are not named as served any more, but stay counted."""
        now = {(one.name, one.version) for one in variants}
        for known in self.variants:
            known.serving = (known.name, known.version) in now

    def request(self, protocol: str, status: int, n: int = 1) -> None:
        """Count `n` requests that were answered with an HTTP status, refused ones among them."""
        try:
            self.requests[protocol][status] += n
        except KeyError:
            self.requests.setdefault(protocol, {}).setdefault(status, 0)
            self.requests[protocol][status] += n

    def refuse(self, reason: str) -> None:
        """Count a request that was not taken: ``queue_full``, ``timeout``, ``rate_limit``, ``too_large``..."""
        try:
            self.refused[reason] += 1
        except KeyError:
            self.refused.setdefault(reason, 0)
            self.refused[reason] += 1

    def merge(self, other: Meter) -> None:
        """Add what another process counted of the same deployment."""
        for name in ("decode", "queue", "log", "encode", "batch_rows"):
            getattr(self, name).merge(getattr(other, name))
        for theirs in other.variants:
            known = {(one.name, one.version): one.serving for one in self.variants}
            mine = self.variant(theirs.name, theirs.version, theirs.runtime)
            mine.serving = known.get((mine.name, mine.version), False) or theirs.serving
            mine.score.merge(theirs.score)
            mine.latency.merge(theirs.latency)
            mine.rows += theirs.rows
        for protocol, statuses in other.requests.items():
            for status, n in statuses.items():
                self.request(protocol, status, n)
        for reason, n in other.refused.items():
            self.refused[reason] = self.refused.get(reason, 0) + n
        for name in ("queued_rows", "queued_bytes", "shadow_rows", "shadow_dropped", "swaps"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def less(self, before: Meter) -> None:
        """Take away what had been counted `before`, in the same process; gauges stay as they are."""
        for name in ("decode", "queue", "log", "encode", "batch_rows"):
            _take_away(getattr(self, name), getattr(before, name))
        known = {(one.name, one.version): one for one in before.variants}
        for variant in self.variants:
            if (earlier := known.get((variant.name, variant.version))) is not None:
                _take_away(variant.score, earlier.score)
                _take_away(variant.latency, earlier.latency)
                variant.rows -= earlier.rows
        for protocol, statuses in before.requests.items():
            for status, n in statuses.items():
                self.request(protocol, status, -n)
        for reason, n in before.refused.items():
            self.refused[reason] = self.refused.get(reason, 0) - n
        for name in ("shadow_rows", "shadow_dropped", "swaps"):
            setattr(self, name, getattr(self, name) - getattr(before, name))


def _take_away(times: Histogram | Sizes, before: Histogram | Sizes) -> None:
    times.counts = _less(times.counts, before.counts)
    times.total -= before.total


class Snapshot(msgspec.Struct):
    """All numbers of one process at one moment. `started` and `written` are seconds since 1970 UTC.

    `before` are the same numbers as they were some minutes earlier, at `before_at`; empty where the process is younger.
    """

    worker: str
    pid: int
    started: float
    written: float
    meters: list[Meter] = msgspec.field(default_factory=list)
    facts: dict[str, int] = msgspec.field(default_factory=dict)
    before: list[Meter] = msgspec.field(default_factory=list)
    before_at: float = 0.0

    def alive(self, at: float) -> bool:
        """Whether the process still wrote shortly before `at`, in seconds since 1970 UTC."""
        return at - self.written <= STALE_S


class Meters:
    """The meters of one serving process, one per deployment.

    Parameters
    ----------
    worker
        The process's name, such as ``serving-1``.

    Attributes
    ----------
    facts
        Counters of the process that belong to no deployment, such as access lines that were dropped.
    """

    def __init__(self, worker: str) -> None:
        self.worker = worker
        self.facts: dict[str, int] = {}
        self._started = time.time()
        self._saving = threading.Lock()
        self._meters: dict[str, Meter] = {}
        self._marks: deque[tuple[float, list[Meter]]] = deque(maxlen=_MARKS)

    def of(self, deployment: str) -> Meter:
        """Return the meter of a deployment, made on first use."""
        found = self._meters.get(deployment)
        return found if found is not None else self._meters.setdefault(deployment, Meter(deployment))

    def forget(self, deployment: str) -> None:
        """Stop showing a deployment that is served no more."""
        self._meters.pop(deployment, None)

    def snapshot(self) -> Snapshot:
        """Return a copy of all numbers as they are now, of one moment."""
        return msgspec.msgpack.decode(msgspec.msgpack.encode(self._taken()), type=Snapshot)

    def save(self, project: Project) -> Snapshot:
        """Write the numbers where `read` finds them and return them as they were written.

        Call it about once a second, and once more at the end. What is shown to a scraper must have been saved before:
        the next scrape may reach another worker, which reads the file, and no counter may seem to go backwards.

        Raises
        ------
        OSError
            The disk is full, or the folder cannot be written to.
        """
        folder = _folder(project)
        with self._saving:
            folder.mkdir(parents=True, exist_ok=True)
            self._mark()
            path = folder / f"{quote(self.worker, safe='')}.json"
            temporary = folder / f".{path.name}.{os.getpid()}"
            written = msgspec.json.encode(self._taken())
            temporary.write_bytes(written)
            # At once or not at all, for whoever reads meanwhile.
            temporary.replace(path)
        return msgspec.json.decode(written, type=Snapshot)

    def _mark(self) -> None:
        now = time.time()
        # Also after the clock was set back, or the copies would stay for as long as it was.
        if abs(now - (self._marks[-1][0] if self._marks else self._started)) >= _MARK_S:
            self._marks.append((now, self.snapshot().meters))

    def _taken(self) -> Snapshot:
        """Return the live numbers. Encoding them calls no Python code, so that no other thread counts meanwhile."""
        # Until the copies reach back for minutes, everything since the start happened lately.
        full = len(self._marks) == _MARKS
        at, before = self._marks[0] if full else (self._started, [])
        return Snapshot(
            worker=self.worker,
            pid=os.getpid(),
            started=self._started,
            written=time.time(),
            meters=list(self._meters.values()),
            facts=self.facts,
            before=before,
            before_at=at,
        )


class Recent(msgspec.Struct):
    """What the living workers counted of one deployment in the last minutes: in about `seconds`, by `workers` of them."""

    meter: Meter
    seconds: float
    workers: int


def recent(snapshots: Iterable[Snapshot], deployment: str, at: float | None = None) -> Recent | None:
    """Put together what the living workers counted of a deployment in the last 5 minutes, or since they started.

    Parameters
    ----------
    snapshots
        What `read` returned.
    deployment
        Whose numbers.
    at
        The present, in seconds since 1970 UTC; by default the clock's.

    Returns
    -------
    Recent or None
        None where no worker that lives serves it.
    """
    at = time.time() if at is None else at
    whole, longest, workers = Meter(deployment), 0.0, 0
    for one in snapshots:
        mine = next((meter for meter in one.meters if meter.deployment == deployment), None)
        if mine is None or not one.alive(at):
            continue
        earlier = next((meter for meter in one.before if meter.deployment == deployment), None)
        whole.merge(mine)
        if earlier is not None:
            whole.less(earlier)
        longest = max(longest, one.written - one.before_at)
        workers += 1
    return Recent(whole, longest, workers) if workers else None


def _folder(project: Project) -> Path:
    return project.run / "meters"


def read(project: Project, *, without: str = "", at: float | None = None) -> list[Snapshot]:
    """Return what the serving processes last wrote, by name; those that wrote within the last hour.

    A process that has died since is among them: see `Snapshot.alive`. One that takes its place under the same name
    begins again at 0, with another `started`.

    Parameters
    ----------
    without
        A worker to leave out: the one that asks, and knows its own numbers better.
    at
        The present, in seconds since 1970 UTC; by default the clock's.
    """
    at = time.time() if at is None else at
    found = []
    for path in sorted(_folder(project).glob("*.json")):
        # A file that vanishes, or comes from another release, hides no other worker.
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            one = msgspec.json.decode(path.read_bytes(), type=Snapshot)
            if one.worker != without and at - one.written <= KEEP_S:
                found.append(one)
    return found
