"""Telling people of alerts, and what they do with them: messages, silences, acknowledgement, escalation.

Monitors open and resolve alerts in the ledger and know nothing of messages. `tick` writes from their events what is to
be sent to whom; a `Sender` sends it beside everything else.
"""

from loopwright.monitor.alerting.messages import bars, headline, shares
from loopwright.monitor.alerting.outbox import Delivery, deliveries, failed, tick, unknown_check
from loopwright.monitor.alerting.sender import Sender, try_addresses
from loopwright.monitor.alerting.silences import FIELDS, active, covers, silence
from loopwright.monitor.alerting.silences import end as end_silence
from loopwright.monitor.alerting.silences import known as known_silences
from loopwright.monitor.alerting.states import acknowledge, find, history, resolve, short_id

__all__ = [
    "FIELDS",
    "Delivery",
    "Sender",
    "acknowledge",
    "active",
    "bars",
    "covers",
    "deliveries",
    "end_silence",
    "failed",
    "find",
    "headline",
    "history",
    "known_silences",
    "resolve",
    "shares",
    "short_id",
    "silence",
    "tick",
    "try_addresses",
    "unknown_check",
]
