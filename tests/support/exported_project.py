"""A project with all that the exported dashboard and rules are made from, for the tests beside this file."""

from pathlib import Path
from typing import Any

from loopwright.config import Config, Project

DECLARED: dict[str, Any] = {
    "model": {"digits": {"target": "digit"}, "rides": {"target": "count"}},
    "deployment": {
        "digits-api": {"model": "digits", "mode": "online", "slo": {"latency": "50ms"}},
        'rides "v2"': {"model": "rides", "mode": "online"},
        "nightly": {"model": "rides", "mode": "batch", "source": "in.parquet", "sink": "out.parquet"},
    },
    "monitor": {
        "digits": {
            "window": "10m",
            "performance": {"metric": "accuracy", "label_delay": "1h"},
            "service": {"errors": 0.01, "latency": "250ms"},
            "kpi": {"stock {{outs}}": {"sql": "select 1", "at_most": 0.1, "at_least": 0.02, "unit": "EUR"}},
        },
        "rides": {"window": "1h"},
    },
}


def exported_project(folder: Path, **changes: Any) -> Project:
    """Return a project of three deployments; `changes` replace whole sections of its configuration."""
    return Project(folder, Config.model_validate({**DECLARED, **changes}))
