"""A transient process of the demo: train candidates, and put one into service.

It is a process of its own because training needs libraries that the demo's own process does without.
"""

import json
import sys
from typing import Any

from loopwright import parts, pipelines
from loopwright.config import Project
from loopwright.deploy.base import start
from loopwright.ledger import Ledger
from loopwright.records import ModelVersion

__all__ = ["main"]


def main(order: dict[str, Any]) -> None:
    """Run the pipeline once per entry of ``order["runs"]``, print one JSON line each, and start a deployment.

    ``order`` has ``entrypoint``, ``runs`` (parameters), ``metric``, ``higher`` and, to start the best version,
    ``deployment``.
    """
    project = Project.find()
    parts.connect(project)
    import mlflow

    ledger = Ledger.open(project, actor="demo")
    best: tuple[float, int] | None = None
    for parameters in order["runs"]:
        run = pipelines.run(project, order["entrypoint"], parameters, trigger="demo")
        registered = [
            event.read(ModelVersion) for event in ledger.events("model.registered", newest=True, limit=20)
        ]
        version = next(version for version in registered if version.run_id == run.run_id)
        value = float(mlflow.get_run(run.run_id).data.metrics[order["metric"]])
        _say(
            kind=parameters.get("kind"),
            version=version.version,
            value=value,
            seconds=run.seconds,
            run_id=run.run_id,
        )
        if best is None or (value > best[0]) is order["higher"]:
            best = (value, version.version)
    if order.get("deployment") and best:
        started = start(project, order["deployment"], best[1])
        _say(champion=started.variants[0].version, value=best[0])


def _say(**facts: Any) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
