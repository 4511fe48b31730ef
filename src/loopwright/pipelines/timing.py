"""When a schedule is due, by cron or by interval: the same times as Prefect's."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

__all__ = ["Timing"]

#: Intervals count from here: "6h" means 0, 6, 12 and 18 o'clock in UTC.
_ANCHOR = datetime(2024, 1, 1, tzinfo=UTC)
_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Timing:
    """A cron expression and the time zone it is meant in, or an interval in seconds.

    Examples
    --------
    >>> daily = Timing(cron="0 2 * * *")
    >>> daily.after(datetime(2026, 5, 1, 12, tzinfo=UTC)).isoformat()
    '2026-05-02T02:00:00+00:00'
    """

    cron: str = ""
    every_s: float = 0.0
    zone: str = "UTC"

    @classmethod
    def of(cls, schedule: dict[str, Any]) -> Timing | None:
        """Return a schedule of Prefect's; None for a kind that only Prefect's pages can make."""
        zone = schedule.get("timezone") or "UTC"
        if schedule.get("cron"):
            return cls(cron=schedule["cron"], zone=zone)
        if schedule.get("interval") and _same_moment(schedule.get("anchor_date"), _ANCHOR):
            return cls(every_s=float(schedule["interval"]))
        return None

    def to_prefect(self) -> dict[str, Any]:
        """Return it as Prefect takes it."""
        if self.cron:
            return {"cron": self.cron, "timezone": self.zone}
        return {"interval": self.every_s, "anchor_date": _ANCHOR.isoformat(), "timezone": "UTC"}

    def __str__(self) -> str:
        """Show it as `loopwright.toml` has it."""
        if self.cron:
            return self.cron
        for unit, seconds in (("d", 86400), ("h", 3600), ("m", 60)):
            if self.every_s % seconds == 0:
                return f"every {self.every_s / seconds:g}{unit}"
        return f"every {self.every_s:g}s"

    def after(self, moment: datetime) -> datetime | None:
        """Return the first time after a moment; None when there is none any more."""
        return next(self.times(moment), None)

    def before(self, moment: datetime) -> datetime:
        """Return the last time before a moment."""
        if self.cron:
            return next(self._crons(moment, back=True))
        return max(itertools.takewhile(lambda time: time < moment, self._intervals(moment - self._span())))

    def between(self, after: datetime, until: datetime, *, most: int = 10_000) -> list[datetime]:
        """Return the times after one moment and not after another, the newest `most` of them."""
        if not self.cron:
            every = self._span()
            after = until - most * every if (until - after) / every > most else after
            return list(itertools.takewhile(lambda time: time <= until, self.times(after)))[-most:]
        newest: list[datetime] = []
        for time in self._crons(until + timedelta(seconds=1), back=True):
            if time <= after or len(newest) == most:
                break
            if time <= until:
                newest.append(time)
        return newest[::-1]

    def times(self, after: datetime) -> Iterator[datetime]:
        """Yield the times after a moment, in UTC."""
        found = self._crons(after) if self.cron else self._intervals(after)
        return (time for time in found if time > after)

    def _span(self) -> timedelta:
        return timedelta(seconds=self.every_s)

    def _crons(self, moment: datetime, *, back: bool = False) -> Iterator[datetime]:
        from cronsim import CronSim

        zone = ZoneInfo(self.zone)
        local = moment.astimezone(zone)
        minute, hour = self.cron.split()[:2]
        if minute.startswith("*") or hour.startswith("*"):
            return (time.astimezone(UTC) for time in CronSim(self.cron, local, reverse=back))
        # At an hour of the clock: once a day, also when clocks are changed. An hour ahead, as the day may begin twice.
        naive = local.replace(tzinfo=None) + (_HOUR if back else -_HOUR)
        found = (_localized(time, zone) for time in CronSim(self.cron, naive, reverse=back))
        return (time for time in found if (time < moment if back else time > moment))

    def _intervals(self, moment: datetime) -> Iterator[datetime]:
        """Yield the times from about a moment on."""
        every = timedelta(seconds=self.every_s)
        first = int((moment - _ANCHOR) / every) - 1
        return (_ANCHOR + number * every for number in itertools.count(first))


def _localized(time: datetime, zone: ZoneInfo) -> datetime:
    """Return a time of the clock in UTC: the first of two; one that is left out as Prefect has it on this Python."""
    first = time.replace(tzinfo=zone).astimezone(UTC)
    # From Python 3.13 on Prefect has another library for times, which goes as far past the gap as the other stays before it.
    if sys.version_info >= (3, 13) or first.astimezone(zone).replace(tzinfo=None) == time:
        return first
    return time.replace(tzinfo=zone, fold=1).astimezone(UTC)


def _same_moment(text: str | None, moment: datetime) -> bool:
    return bool(text) and datetime.fromisoformat(str(text)) == moment
