"""Monitors: checks over windows of the prediction log, and the alerts that follow.

Performance and KPIs may start a training; drift only proposes one.
"""

from loopwright.monitor.run import tick
from loopwright.monitor.schedules import tick as tick_schedules

__all__ = ["tick", "tick_schedules"]
