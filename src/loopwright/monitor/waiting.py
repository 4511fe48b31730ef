"""Windows that wait for their labels: which of them to look at again, and when, at a bounded cost."""

from __future__ import annotations

from datetime import datetime, timedelta

from loopwright.config import MonitorConfig
from loopwright.monitor.results import Results
from loopwright.records import Judged, Window

__all__ = ["Waiting"]

#: Windows that are looked at in one turn, at most.
MOST = 20
#: The time between two looks at a window: a part of its length, or of its age when that is longer.
PARTS, PARTS_OF_AGE = 20, 10
SOONEST, LATEST = timedelta(seconds=0.5), timedelta(hours=1)
#: After looks that took a while, none is taken for so many times as long: a tenth of one core at most.
REST = 9


class Waiting:
    """The waiting windows of one deployment, as one process knows them. Lost with it at no harm."""

    def __init__(self, results: Results, deployment: str, config: MonitorConfig) -> None:
        self._results = results
        self._deployment = deployment
        self._config = config
        self._looks: dict[Window, datetime] = {}
        self._oldest: datetime | None = None
        self._rested: datetime | None = None

    def forget(self) -> None:
        """Look at all of them again: the clock was set back."""
        self._looks.clear()
        self._rested = self._oldest = None

    def ready(self, now: datetime) -> list[Window]:
        """Return the windows to look at now: first those whose labels are due, oldest first.

        Of those that are younger than the declared delay only the newest are looked at, so that pages show how far they
        have come.
        """
        if self._rested is not None and now < self._rested:
            return []
        found = self._candidates(now)
        kept = set(found)
        self._looks = {window: at for window, at in self._looks.items() if window in kept}
        return [window for window in found if self._looks.get(window, now) <= now][:MOST]

    def looked(self, judged: Judged, now: datetime) -> None:
        """Note that a window was looked at: the older it is, the later it is again."""
        if judged.state != "immature":
            self._looks.pop(judged.window, None)
            return
        length, age = judged.window.end - judged.window.start, now - judged.window.end
        wait = min(max(length / PARTS, age / PARTS_OF_AGE, SOONEST), max(LATEST, length / PARTS))
        due = judged.window.end + self._config.performance.label_delay
        self._looks[judged.window] = min(now + wait, due) if due > now else now + wait

    def rest(self, now: datetime, seconds: float) -> None:
        """Note how long the looks of a turn took."""
        self._rested = now + timedelta(seconds=REST * seconds)

    def next(self, now: datetime) -> datetime | None:
        """Return when to look next, None where nothing waits."""
        looks = [self._looks.get(window, now) for window in self._candidates(now)]
        if not looks:
            return None
        return max(min(looks), self._rested) if self._rested is not None else min(looks)

    def _candidates(self, now: datetime) -> list[Window]:
        """Return the windows whose labels are due, oldest first, and then the newest of the others."""
        length, delay = self._config.window, self._config.performance.label_delay
        due_until = now - delay - length + timedelta(microseconds=1)
        due = self._immature(until=due_until, since=self._oldest, limit=1000, oldest=True)
        young = self._immature(since=due_until, limit=MOST)
        # Older ones never wait again, so that the next question does not go through a year of windows.
        self._oldest = due[0].start if due else due_until
        return due + young[::-1]

    def _immature(
        self,
        *,
        limit: int,
        since: datetime | None = None,
        until: datetime | None = None,
        oldest: bool = False,
    ) -> list[Window]:
        found = self._results.windows(
            self._deployment,
            "labels",
            states=("immature",),
            since=since,
            until=until,
            limit=limit,
            oldest=oldest,
        )
        return [one.window for one in found]
