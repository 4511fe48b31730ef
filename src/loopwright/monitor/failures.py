"""Checks that cannot judge: said once, and again when the reason is another one."""

from __future__ import annotations

from loopwright.ledger import Ledger
from loopwright.records import Window

__all__ = ["Failures"]

_KIND = "monitor_failure"


class Failures:
    """What each check of a deployment failed with last, as state of the ledger. One per process."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._failing = {
            state.key: str(state.value.get("reason", "")) for state in ledger.states(_KIND) if state.value
        }

    def failed(self, deployment: str, check: str, reason: str, window: Window | None) -> None:
        """Write an event ``monitor.failed``, unless the check failed for the same reason before."""
        key = _key(deployment, check)
        if self._failing.get(key) == reason:
            return
        facts = {"deployment": deployment, "check": check, "window": window, "reason": reason}
        self._ledger.put(_KIND, key, facts, event="monitor.failed", subject=deployment)
        self._failing[key] = reason

    def works(self, deployment: str, check: str) -> None:
        """Note that a check judges again."""
        key = _key(deployment, check)
        if self._failing.get(key):
            self._ledger.put(_KIND, key, {"deployment": deployment, "check": check, "reason": ""})
            self._failing[key] = ""


def _key(deployment: str, check: str) -> str:
    return f"{deployment}/{check}"[:255]
