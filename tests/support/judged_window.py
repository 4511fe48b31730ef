"""The context that checks are given, around a window made of arrays, with a ledger that keeps what they find."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from loopwright.config import MonitorConfig
from loopwright.ledger import Ledger
from loopwright.monitor.base import Check, Context, WindowData
from loopwright.monitor.results import Results
from loopwright.records import Judged, Mode, Signal, Signature, Window
from loopwright.registry.profile import ColumnProfile, Profile

START = datetime(2026, 3, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)


def hour(number: int) -> Window:
    """Return the window of an hour."""
    return Window(START + number * HOUR, START + (number + 1) * HOUR)


def profile_with(performance: dict[str, float], **more: Any) -> Profile:
    """Return a profile that knows nothing but what a model achieved when it was registered."""
    return Profile((), ColumnProfile("prediction", "numeric", 100), 100, performance, **more)


class Judge:
    """Gives windows to checks, one hour after the other, and keeps what they find."""

    def __init__(
        self,
        folder: Path,
        *,
        metric: str = "accuracy",
        signature: Signature | None = None,
        profile: Profile | None = None,
        mode: Mode = Mode.online,
        **config: Any,
    ) -> None:
        self.ledger = Ledger(f"sqlite:///{folder}/judged.db", actor="test")
        self.results = Results(self.ledger)
        self.root = folder
        self.config = MonitorConfig.model_validate(config)
        self._facts = (metric, signature, profile, mode)
        self._number = 0

    def context(self, data: WindowData) -> Context:
        """Return the context of the hour that is next."""
        metric, signature, profile, mode = self._facts
        return Context(
            model="shop",
            deployment="api",
            mode=mode,
            window=hour(self._number),
            config=self.config,
            champion=1,
            signature=signature,
            metric=metric,
            data=data,
            profile=lambda _version: profile,
            results=self.results,
            at=hour(self._number).end,
            root=self.root,
        )

    def run(self, check: Check, data: WindowData) -> list[Signal]:
        """Judge the next hour, keep what was found, and return it."""
        found = check.run(self.context(data))
        judged = Judged("api", "shop", check.phase, 1, hour(self._number), "judged", data.rows())
        self.results.record(judged, found)
        self._number += 1
        return found

    def forget(self) -> None:
        """Begin again with no earlier windows."""
        self.results.prune(START + 10_000 * HOUR)
        self._number = 0

    def close(self) -> None:
        """Close the ledger."""
        self.ledger.close()
