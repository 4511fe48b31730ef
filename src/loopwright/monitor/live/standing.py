"""How each deployment stands at this moment, in a few numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime

from loopwright.config import Project
from loopwright.errors import NotFound
from loopwright.ledger import Ledger
from loopwright.monitor.live.numbers import LiveNumbers
from loopwright.monitor.results import Results
from loopwright.records import Alert, Deployment, Judged, Mode

__all__ = ["Standing", "standing"]


@dataclass(frozen=True, slots=True)
class Standing:
    """One deployment now.

    Attributes
    ----------
    version
        The champion's.
    watched
        Whether a monitor of its model is declared.
    per_s
        Predictions a second in the last whole minute.
    predictions
        How many there are, of all versions, as far as they are counted: `counted` is the share of the sealed log that is,
        1 but for a while after an upgrade.
    inputs, labels
        The newest window of each phase, whatever its state; None without one.
    fired
        The checks that fired in the newest windows that were judged.
    alerts
        Those that are not resolved, by severity.
    """

    deployment: str
    model: str
    mode: Mode
    version: int
    watched: bool
    per_s: float
    predictions: int
    counted: float
    inputs: Judged | None
    labels: Judged | None
    fired: tuple[str, ...]
    alerts: dict[str, int]


def standing(project: Project, ledger: Ledger, at: datetime, deployment: str | None = None) -> list[Standing]:
    """Return how all deployments stand, or one.

    Raises
    ------
    NotFound
        There is no such deployment.
    """
    found = [state.read(Deployment) for state in ledger.states("deployment")]
    if deployment is not None:
        known = [one.name for one in found]
        if deployment not in known:
            raise NotFound.among("running deployment", deployment, known, hint="loopwright deployment list")
        found = [one for one in found if one.name == deployment]
    alerts: dict[str, Counter[str]] = {}
    for alert in (state.read(Alert) for state in ledger.states("alert")):
        if alert.state != "resolved":
            alerts.setdefault(alert.deployment, Counter())[alert.severity] += 1
    numbers, results = LiveNumbers(ledger, project), Results(ledger)
    totals = numbers.totals()
    return [
        _one(project, numbers, results, one, at, totals, dict(alerts.get(one.name, Counter())))
        for one in found
    ]


def _one(
    project: Project,
    numbers: LiveNumbers,
    results: Results,
    deployment: Deployment,
    at: datetime,
    totals: dict[tuple[str, int], int],
    alerts: dict[str, int],
) -> Standing:
    name = deployment.name
    newest = {phase: results.windows(name, phase, limit=1) for phase in ("inputs", "labels")}
    signals = [*results.latest(name, "inputs")[1], *results.latest(name, "labels")[1]]
    rows, of = numbers.progress(name)
    return Standing(
        deployment=name,
        model=deployment.model,
        mode=deployment.mode,
        version=deployment.variants[0].version if deployment.variants else 0,
        watched=deployment.model in project.config.monitor,
        per_s=numbers.per_second(name, at),
        predictions=sum(count for (one, _), count in totals.items() if one == name),
        counted=rows / of if of else 1.0,
        inputs=newest["inputs"][0] if newest["inputs"] else None,
        labels=newest["labels"][0] if newest["labels"] else None,
        fired=tuple(dict.fromkeys(signal.check for signal in signals if signal.fired)),
        alerts=alerts,
    )
