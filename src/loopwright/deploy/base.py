"""What all deployment modes share: the deployment's state, who answers which row, and the predictor.

A mode takes rows from somewhere, hands them to a `Predictor` as columns, and passes the answers on; scoring, variants
and the prediction log are the same everywhere.
"""

from loopwright.deploy.answers import Answers
from loopwright.deploy.lifecycle import (
    champion_of,
    current,
    publish,
    rollback,
    shadow,
    shadows_beside,
    split,
    start,
    stop_shadow,
)
from loopwright.deploy.predictor import Predictor
from loopwright.deploy.routing import Route, assign

__all__ = [
    "Answers",
    "Predictor",
    "Route",
    "assign",
    "champion_of",
    "current",
    "publish",
    "rollback",
    "shadow",
    "shadows_beside",
    "split",
    "start",
    "stop_shadow",
]
