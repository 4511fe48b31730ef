"""A transient process: prepare a candidate and put it to the gate. ``python -m loopwright.release.evaluate DEPLOYMENT ID``.

It is a process of its own because preparing needs MLflow and the model's library; the controller does without.
"""

from __future__ import annotations

import dataclasses
import sys

from loopwright import parts, scoring
from loopwright.config import Project
from loopwright.errors import Conflict, LoopwrightError, listing
from loopwright.ledger import Ledger
from loopwright.monitor.metrics import default_metric
from loopwright.predictions import PredictionStore
from loopwright.predictions.privacy import left_out
from loopwright.records import GateResult, Release, now
from loopwright.release.gate import judge, refused
from loopwright.release.held import held_rows

__all__ = ["evaluate"]


def evaluate(project: Project, deployment: str, release_id: str) -> GateResult:
    """Prepare the candidate of a release, judge it, and write the result into the release.

    Raises
    ------
    Conflict
        The deployment has another release by now.
    """
    ledger = Ledger.open(project, actor="release")
    state = ledger.get("release", deployment)
    release = state.read(Release) if state else None
    if state is None or release is None or release.id != release_id or release.candidate is None:
        raise Conflict(f"The release {release_id} of {deployment} is not under way any more.")
    config = project.model(release.model).gate
    candidate = scoring.load(scoring.prepare(project, release.model, release.candidate))
    candidate.verify()
    champion = None
    if release.champion is not None:
        champion = scoring.load(scoring.prepare(project, release.model, release.champion))
    metric = config.metric or default_metric(candidate.signature.task)
    hidden = left_out(project.deployment(deployment)).intersection(candidate.signature.names)
    if hidden and champion is not None:
        reason = f"the log does not keep {listing(sorted(hidden))}, so its rows cannot be scored again"
        result = refused(metric, 0, config.margin, reason)
    else:
        held = held_rows(PredictionStore(project), deployment, candidate.signature, config.rows)
        result = judge(config, metric, held, candidate, champion)
    done = dataclasses.replace(release, gate=result, changed=now())
    ledger.put("release", deployment, done, expect=state.revision, event="release.gate")
    return result


def main() -> int:
    """Run from the command line; the exit code is that of the error, 0 when a result was written."""
    project = Project.find()
    parts.connect(project)
    try:
        evaluate(project, sys.argv[1], sys.argv[2])
    except LoopwrightError as error:
        sys.stderr.write(f"{error.fact}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
