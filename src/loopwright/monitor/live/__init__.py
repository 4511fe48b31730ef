"""Live numbers: what the prediction log says of the last minutes, from the same counts as the windowed reports.

A `Follower` in the controller reads the log as it grows and keeps additive blocks of each version's minutes, hours and
days in the ledger; `LiveNumbers` adds them up for pages, the command line and Prometheus. Nothing of this is in the path of
a request.
"""

from loopwright.monitor.live.follower import Follower
from loopwright.monitor.live.numbers import LiveNumbers
from loopwright.monitor.live.prometheus import render
from loopwright.monitor.live.rebuilding import progress, rebuild
from loopwright.monitor.live.rollup import roll_up
from loopwright.monitor.live.standing import Standing, standing

__all__ = ["Follower", "LiveNumbers", "Standing", "progress", "rebuild", "render", "roll_up", "standing"]
