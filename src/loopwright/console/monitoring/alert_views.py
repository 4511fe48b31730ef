"""Alerts, silences and messages, as plain records."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from loopwright.console.monitoring.found_views import Bin, Found

__all__ = ["AlertDetail", "AlertLine", "AlertPage", "AlertsNow", "Message", "Severity", "SilenceLine", "Told"]

Severity = Literal["info", "warning", "critical"]


@dataclass(frozen=True, slots=True)
class AlertsNow:
    """How many alerts are not resolved, by severity, and how many of them were acknowledged."""

    critical: int = 0
    warning: int = 0
    info: int = 0
    acknowledged: int = 0

    @property
    def open(self) -> int:
        """How many there are."""
        return self.critical + self.warning + self.info


@dataclass(frozen=True, slots=True)
class AlertLine:
    """One alert. `short` names it in addresses and commands; `silenced_until` is set while no message is sent of it."""

    id: str
    short: str
    check: str
    severity: Severity
    state: Literal["open", "acknowledged", "resolved"]
    model: str
    deployment: str
    version: int
    subject: str
    segment: str
    since: datetime
    changed: datetime | None
    message: str
    advice: str
    value: float | None
    limit: float | None
    rows: int
    by: str
    silenced_until: datetime | None = None
    bins: tuple[Bin, ...] = ()
    points: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class AlertPage:
    """Alerts, the open ones and the gravest first; `total` match, these are those from `offset` on."""

    at: datetime
    total: int
    open: int
    offset: int
    alerts: tuple[AlertLine, ...]
    silences: tuple["SilenceLine", ...]


@dataclass(frozen=True, slots=True)
class Told:
    """One thing that happened to an alert."""

    at: datetime
    what: str
    by: str
    note: str


@dataclass(frozen=True, slots=True)
class Message:
    """One message about an alert to one address (without its secrets), and what became of it."""

    address: str
    reason: str
    state: str
    attempts: int
    changed: datetime
    error: str


@dataclass(frozen=True, slots=True)
class AlertDetail:
    """One alert with its history and its messages, and the newest values of what it is about."""

    alert: AlertLine
    detail: dict[str, Any]
    history: tuple[Told, ...]
    messages: tuple[Message, ...]
    points: tuple[Found, ...]


@dataclass(frozen=True, slots=True)
class SilenceLine:
    """One silence that holds: no message is sent of alerts that match; empty fields match all."""

    id: str
    until: datetime
    by: str
    reason: str
    model: str
    deployment: str
    check: str
    subject: str
    segment: str
    created: datetime
