"""The service level of an online deployment: what was promised, what was kept, and how much may still be missed.

Each serving process counts, in each minute, the requests it answered, those that failed, and those that were quick
enough, and keeps the counts in a file per UTC day below ``.loopwright/levels``. The minute that is going on is written
over again every few seconds, so a killed process loses at most `FLUSH_S` seconds of counts. Budgets and burn rates are
those of the Site Reliability Workbook (Beyer, Murphy, Rensin, Kawahara and Thorne, eds., O'Reilly 2018, chapter 5,
"Alerting on SLOs", sections 5 and 6).
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Literal
from urllib.parse import quote

import msgspec
import numpy as np
from numpy.typing import NDArray

from loopwright.config import Project, SloConfig
from loopwright.predictions.requests import Minute, files, folder, minutes

__all__ = [
    "FLUSH_S",
    "PAIRS",
    "LevelMeter",
    "Levels",
    "Objective",
    "ServiceLevel",
    "sentences",
    "service_level",
]

#: Seconds between two writes of the minute that is going on.
FLUSH_S = 5.0
#: Long window, short window and the burn rate that both must exceed, and what is then due: table 5-8 of the workbook.
#: The short window ends the alert soon after its cause has ended.
PAIRS: tuple[tuple[int, int, float, Literal["page", "ticket"]], ...] = (
    (3600, 300, 14.4, "page"),
    (6 * 3600, 1800, 6.0, "page"),
    (3 * 86400, 6 * 3600, 1.0, "ticket"),
)
#: Fewer missed requests than this in the long window alert nobody: of a quiet service one is a large share.
LEAST_MISSED = 5
#: Files are kept at least so long, so that a service level that is declared again finds its past.
_KEPT = timedelta(days=28)
_Counts = tuple[int, int, int]
_Column = NDArray[np.int64]
_NONE: _Counts = (0, 0, 0)


class LevelMeter:
    """What one process counts of one deployment since it started. `limit` is what is quick enough, in seconds.

    Requests that were refused on the caller's account (a status of 400 to 499) are not counted: they say nothing
    about the service, and a caller must be able neither to spend its budget nor to hide what it missed.
    """

    __slots__ = ("errors", "limit", "requests", "within")

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.requests = 0
        self.errors = 0
        self.within = 0

    def add(self, seconds: float, status: int) -> None:
        """Count one request that was answered after `seconds` with an HTTP status."""
        if status < 400:
            self.requests += 1
            if seconds <= self.limit:
                self.within += 1
        elif status >= 500:
            self.requests += 1
            self.errors += 1


_encode = msgspec.json.Encoder().encode


class Levels:
    """The counts of one serving process, and the file they are kept in.

    Parameters
    ----------
    project
        Whose levels these are.
    worker
        The process's name.
    """

    def __init__(self, project: Project, worker: str) -> None:
        self._project = project
        self._worker = worker
        self._meters: dict[str, LevelMeter] = {}
        # Totals as they were last written, and as they were when the open minute began.
        self._written: dict[str, _Counts] = {}
        self._base: dict[str, _Counts] = {}
        self._minute = -1
        self._day: date | None = None
        self._file = -1
        self._start = self._end = 0

    def of(self, deployment: str, slo: SloConfig) -> LevelMeter:
        """Return what counts a deployment; what is quick enough is that of `slo` from now on."""
        limit = slo.latency.total_seconds()
        found = self._meters.setdefault(deployment, LevelMeter(limit))
        found.limit = limit
        return found

    def flush(self, at: float | None = None) -> None:
        """Write what was counted since the last time, to the minute of `at`; without news it costs nothing.

        Call it every `FLUSH_S` seconds from one thread, and once at the end.

        Parameters
        ----------
        at
            The present, in seconds since 1970 UTC; by default the clock's.

        Raises
        ------
        OSError
            The disk is full or cannot be written to. The counts are kept and written the next time.
        """
        minute = int((time.time() if at is None else at) // 60)
        totals = {name: (one.requests, one.errors, one.within) for name, one in self._meters.items()}
        if totals == self._written or not any(any(one) for one in totals.values()):
            return
        if minute != self._minute:
            self._turn(minute)
        counts = {name: _minus(total, self._base.get(name, _NONE)) for name, total in totals.items()}
        line = _encode(Minute(minute, {name: count for name, count in counts.items() if any(count)})) + b"\n"
        # The line only ever grows, so that one write replaces what the last one left.
        os.pwrite(self._file, line, self._start)
        self._end = self._start + len(line)
        self._written = totals

    def close(self) -> None:
        """Write what is left and close the file."""
        self.flush()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _turn(self, minute: int) -> None:
        """Begin another minute, and with a new day another file."""
        day = datetime.fromtimestamp(minute * 60, UTC).date()
        if day != self._day:
            place = folder(self._project.state)
            place.mkdir(parents=True, exist_ok=True)
            path = place / f"{day}.{quote(self._worker, safe='')}.{os.getpid()}.jsonl"
            opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            if self._file >= 0:
                os.close(self._file)
            self._file, self._day = opened, day
            self._end = os.fstat(opened).st_size
            self._sweep(day)
        self._start, self._minute = self._end, minute
        self._base = self._written

    def _sweep(self, today: date) -> None:
        """Remove the files that no window reaches back to."""
        declared = [one.slo.window for one in self._project.config.deployment.values() if one.slo]
        kept = max([_KEPT, *declared]) + timedelta(days=2)
        for path, day in files(self._project.state):
            if today - day > kept:
                path.unlink(missing_ok=True)


def _minus(one: _Counts, other: _Counts) -> _Counts:
    return one[0] - other[0], one[1] - other[1], one[2] - other[2]


@dataclass(frozen=True, slots=True)
class Objective:
    """One of the two promises, and how it was kept.

    `good` is the share of requests that kept it, of `of` requests; None without any. `budget_left` is what is left
    of what may be missed in the window: 1 untouched, 0 spent, below 0 overspent. A burn rate of 1 spends the budget in
    exactly one window. `alert` is ``page`` or ``ticket`` where `PAIRS` say so, else empty.
    """

    name: Literal["latency", "availability"]
    target: float
    of: int
    missed: int
    good: float | None
    budget_left: float | None
    burn_1h: float | None
    burn_5m: float | None
    alert: Literal["", "page", "ticket"]


@dataclass(frozen=True, slots=True)
class ServiceLevel:
    """What a deployment promised and kept over the window that ends now.

    `latency` is judged over the requests that were answered without an error of the server, so that an outage is
    charged once, to `availability`. `since` is the first minute that was counted.
    """

    deployment: str
    window_s: float
    latency_limit_s: float
    since: datetime | None
    requests: int
    latency: Objective
    availability: Objective

    @property
    def objectives(self) -> tuple[Objective, Objective]:
        """Both promises."""
        return self.latency, self.availability


def service_level(project: Project, deployment: str, now: datetime | None = None) -> ServiceLevel | None:
    """Return how an online deployment kept its service level, over all its serving processes.

    Reads the files of all workers; days that are over are read once per process.

    Parameters
    ----------
    project, deployment
        A deployment that is declared.
    now
        The end of the window, UTC-aware; by default the present.

    Returns
    -------
    ServiceLevel or None
        None where ``slo`` is not declared.

    Raises
    ------
    NotFound
        No deployment of this name is declared.
    """
    slo = project.deployment(deployment).slo
    if slo is None:
        return None
    now = now or datetime.now(UTC)
    minute = int(now.timestamp() // 60)
    window_s = slo.window.total_seconds()
    counted = minutes(project.state, deployment, now - slo.window)
    counted = counted[(counted[:, 0] > minute - window_s / 60) & (counted[:, 0] <= minute)]
    started, requests, errors, within = counted.T
    answered, ages = requests - errors, minute - started
    return ServiceLevel(
        deployment=deployment,
        window_s=window_s,
        latency_limit_s=slo.latency.total_seconds(),
        since=datetime.fromtimestamp(int(started.min()) * 60, UTC) if len(started) else None,
        requests=int(requests.sum()),
        latency=_objective("latency", ages, slo.share, answered, answered - within),
        availability=_objective("availability", ages, slo.availability, requests, errors),
    )


def _objective(
    name: Literal["latency", "availability"], ages: _Column, target: float, asked: _Column, missed: _Column
) -> Objective:
    def last(seconds: int) -> tuple[int, int, float | None]:
        mine = ages < seconds // 60
        n, bad = int(asked[mine].sum()), int(missed[mine].sum())
        return n, bad, bad / n / (1 - target) if n else None

    n, bad = int(asked.sum()), int(missed.sum())
    alert: Literal["", "page", "ticket"] = ""
    for long_s, short_s, limit, what in PAIRS:
        _, missed_long, burn = last(long_s)
        recent = last(short_s)[2]
        if (
            burn is not None
            and recent is not None
            and missed_long >= LEAST_MISSED
            and min(burn, recent) >= limit
        ):
            alert = what
            break
    return Objective(
        name=name,
        target=target,
        of=n,
        missed=bad,
        good=1 - bad / n if n else None,
        budget_left=1 - bad / n / (1 - target) if n else None,
        burn_1h=last(3600)[2],
        burn_5m=last(300)[2],
        alert=alert,
    )


def sentences(level: ServiceLevel) -> tuple[str, str]:
    """Say both promises in words, one sentence each, as the console and the command line show them.

    Examples
    --------
    >>> kept = Objective("availability", 0.999, 10_000, 2, 0.9998, 0.8, 0.2, 0.0, "")
    >>> quick = Objective("latency", 0.99, 0, 0, None, None, None, None, "")
    >>> for sentence in sentences(ServiceLevel("api", 28 * 86400.0, 0.1, None, 10_000, quick, kept)):
    ...     print(sentence)
    99 % of requests within 100 ms: no request yet.
    99.9 % of requests without an error: 99.98 % were, 80 % of the error budget of 28 d is left.
    """
    promised = (
        f"{_percent(level.latency.target)} of requests within {level.latency_limit_s * 1000:g} ms",
        f"{_percent(level.availability.target)} of requests without an error",
    )
    window = f"{level.window_s / 86400:g} d" if level.window_s >= 86400 else f"{level.window_s / 3600:g} h"
    made = [
        f"{what}: {_kept(one, window, level.window_s)}"
        for what, one in zip(promised, level.objectives, strict=True)
    ]
    return made[0], made[1]


def _kept(one: Objective, window: str, window_s: float) -> str:
    if one.good is None or one.budget_left is None:
        return "no request yet."
    kept = f"{_percent(one.good)} were, "
    if one.budget_left < 0:
        kept += f"the error budget of {window} is overspent: {1 - one.budget_left:.3g} times what it allows was missed"
    else:
        kept += f"{_percent(one.budget_left)} of the error budget of {window} is left"
    burn = one.burn_1h or 0.0
    if burn > 1 and one.budget_left > 0:
        hours = one.budget_left * window_s / burn / 3600
        kept += f"; at the last hour's rate it is spent in {f'{hours / 24:.2g} d' if hours >= 48 else f'{hours:.2g} h'}"
    return kept + "."


def _percent(share: float) -> str:
    # Never rounded up to a whole: 99.9996 % is not 100 %.
    text = f"{100 * share:.4g}"
    return f"{100 * share:.7g} %" if text == "100" and share != 1 else f"{text} %"
