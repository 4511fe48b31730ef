"""What becomes of old blocks: minutes go after two days, all others when the predictions they count do."""

from __future__ import annotations

from datetime import datetime, timedelta

from loopwright.config import Project
from loopwright.ledger import Ledger
from loopwright.monitor.live.kept import Kept
from loopwright.monitor.live.spans import DAY_S, HOUR_S, MINUTE_S, horizon_us
from loopwright.records import micros

__all__ = ["roll_up"]


def roll_up(project: Project, ledger: Ledger, now: datetime) -> int:
    """Drop the minutes that hours tell of, and what is older than the log keeps; return how many blocks went.

    Nothing has to be added up: each row was counted into its minute, its hour and its day, so that the hour is exactly
    the sum of its minutes. A bounded number of blocks is dropped; call it again, about once a minute.
    """
    kept = Kept(ledger)
    dropped = kept.drop(MINUTE_S, horizon_us(now))
    for name in kept.changes():
        keep = _keep(project, name)
        if keep is not None:
            for span_s in (HOUR_S, DAY_S):
                # Of a block that is partly older all is kept, as of a segment.
                before = micros(now - keep - timedelta(seconds=span_s))
                dropped += kept.drop(span_s, before, name)
    return dropped


def _keep(project: Project, deployment: str) -> timedelta | None:
    config = project.config.deployment.get(deployment)
    own = config.log.keep if config else None
    return own if own is not None else project.config.log.keep
