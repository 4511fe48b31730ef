"""What an alert says: what moved, by how much, since when, for whom, and what to do."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from loopwright.config import WATCHED
from loopwright.records import Judged, Signal

__all__ = ["Told", "span", "tell"]


@dataclass(frozen=True, slots=True)
class Told:
    """An alert in words: one sentence of what is wrong, one of what to do."""

    message: str
    advice: str


def tell(signal: Signal, judged: Judged, fired: int, windows: int) -> Told:
    """Put a signal into words.

    Parameters
    ----------
    signal
        The newest one that fired, with its details.
    judged
        Its window.
    fired, windows
        In how many of its last windows the subject fired.
    """
    length = span(signal.window.end - signal.window.start)
    since = f"in {fired} of the last {windows} windows of {length}"
    say = _SENTENCES.get(signal.check, _any)
    return Told(f"{say(signal, _where(signal, judged))}, {since}", _advice(signal))


def span(length: timedelta) -> str:
    """Return a length of time as people write it, such as ``1 h``."""
    seconds = length.total_seconds()
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def _where(signal: Signal, judged: Judged) -> str:
    where = f"{signal.model}/{signal.version} in {signal.deployment}"
    if not signal.segment:
        return where
    rows, what = (judged.labelled, "labelled rows") if judged.phase == "labels" else (judged.rows, "rows")
    share = f" ({signal.rows / rows:.0%} of the {what})" if rows else ""
    return f"{where} where {signal.segment}{share}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _number(value: Any) -> str:
    return "nothing" if value is None or (isinstance(value, float) and math.isnan(value)) else f"{value:.4g}"


def _interval(signal: Signal) -> str:
    if signal.lower is None or signal.upper is None:
        return f"{signal.rows:,} rows"
    return f"95 % interval {signal.lower:.3g} to {signal.upper:.3g}, {signal.rows:,} rows"


def _performance(signal: Signal, where: str) -> str:
    side = "below" if WATCHED.get(signal.subject) == "higher" else "above"
    interval = _interval(signal).replace(" rows", " labelled rows")
    before = signal.detail.get("earlier", signal.detail.get("trained"))
    usual = f"; it was {before:.3g} before" if isinstance(before, float) else ""
    return f"{signal.subject} of {where} is {signal.value:.3g} ({interval}), {side} {signal.limit:.4g}{usual}"


def _estimated(signal: Signal, where: str) -> str:
    side = "below" if WATCHED.get(signal.subject) == "higher" else "above"
    return (
        f"estimated {signal.subject} of {where} is {signal.value:.3g} ({_interval(signal)}), {side} "
        f"{signal.limit:.4g}; it {signal.detail.get('assumption', 'is an estimate')}"
    )


def _calibration(signal: Signal, where: str) -> str:
    if signal.subject == "bias":
        side = "high" if signal.value > 0 else "low"
        return (
            f"predictions of {where} are {abs(signal.value):.3g} standard deviations too {side} on average "
            f"({_interval(signal)}), allowed {signal.limit:.3g}"
        )
    return (
        f"probabilities of {where} are off by {signal.value:.3g} on average ({_interval(signal)}), allowed "
        f"{signal.limit:.3g}"
    )


def _service(signal: Signal, where: str) -> str:
    if signal.subject == "errors":
        return f"{_percent(signal.value)} of {signal.rows:,} requests to {where} failed, allowed {_percent(signal.limit)}"
    return (
        f"the 99th percentile of the latency of {where} is {signal.value:.4g} ms over {signal.rows:,} rows, allowed "
        f"{signal.limit:.4g} ms"
    )


def _labels(signal: Signal, where: str) -> str:
    what = "cannot be used" if signal.subject == "unusable" else f"are from {signal.subject}"
    return f"{_percent(signal.value)} of {signal.rows:,} labels of {where} {what}, allowed {_percent(signal.limit)}"


def _drift(signal: Signal, where: str) -> str:
    moved = f": {signal.detail['what']}" if signal.detail.get("what") else ""
    what = "the predictions" if signal.check == "prediction_drift" else f"input {signal.subject!r}"
    verb = "have" if signal.check == "prediction_drift" else "has"
    return (
        f"{what} of {where} {verb} drifted{moved}; PSI {signal.value:.3g} against a limit of {signal.limit:.3g} over "
        f"{signal.rows:,} rows"
    )


def _missing(signal: Signal, where: str) -> str:
    return (
        f"input {signal.subject!r} of {where} has no value in {_percent(signal.value)} of {signal.rows:,} rows, in "
        f"training {_percent(signal.detail.get('trained', 0.0))}"
    )


def _unseen(signal: Signal, where: str) -> str:
    expected = signal.detail.get("trained", 0.0)
    return (
        f"input {signal.subject!r} of {where} has values that training never had in {_percent(signal.value)} of "
        f"{signal.rows:,} rows, expected {_percent(expected)}"
    )


def _out_of_range(signal: Signal, where: str) -> str:
    detail = signal.detail
    whose = "declared" if detail.get("declared") else "of training"
    return (
        f"input {signal.subject!r} of {where} is outside {_number(detail.get('low'))} to "
        f"{_number(detail.get('high'))}, the range {whose}, in {_percent(signal.value)} of {signal.rows:,} rows "
        f"({detail.get('below', 0):,} below, {detail.get('above', 0):,} above)"
    )


def _duplicates(signal: Signal, where: str) -> str:
    what = (
        "an id that another has" if signal.subject == "prediction_id" else f"the {signal.subject} of another"
    )
    return (
        f"{_percent(signal.value)} of {signal.rows:,} predictions of {where} have {what}, allowed "
        f"{_percent(signal.limit)}"
    )


def _freshness(signal: Signal, where: str) -> str:
    age, limit = timedelta(seconds=round(signal.value)), timedelta(seconds=signal.limit)
    return f"the newest prediction of {where} was {age} old at the window's end, allowed {span(limit)}"


def _volume(signal: Signal, where: str) -> str:
    side = "fewer" if signal.value < signal.limit else "more"
    mean = signal.detail.get("mean")
    usual = f"; usual are {mean:,.0f}" if mean is not None else ""
    return f"{where} made {signal.value:,.0f} predictions, {side} than {signal.limit:,.0f}{usual}"


def _schema(signal: Signal, where: str) -> str:
    detail = signal.detail
    what = {
        "vanished": "is not in the log any more",
        "appeared": f"has appeared in the log with {detail.get('found')}, and the model does not take it",
        "changed": f"holds {detail.get('found')} in the log, where the model takes {detail.get('expected')}",
    }
    return f"input {signal.subject!r} of {where} {what.get(str(detail.get('what')), 'is not as the model takes it')}"


def _kpi(signal: Signal, where: str) -> str:
    side = "above" if signal.value > signal.limit else "below"
    unit = f" {signal.detail['unit']}" if signal.detail.get("unit") else ""
    return f"KPI {signal.subject!r} of {where} is {signal.value:.4g}{unit}, {side} its target of {signal.limit:.4g}{unit}"


def _any(signal: Signal, where: str) -> str:
    subject = f" {signal.subject!r}" if signal.subject else ""
    return f"{signal.check}{subject} of {where} is {signal.value:.4g}, its limit {signal.limit:.4g}"


_SENTENCES: dict[str, Callable[[Signal, str], str]] = {
    "performance": _performance,
    "estimated": _estimated,
    "calibration": _calibration,
    "service": _service,
    "labels": _labels,
    "drift": _drift,
    "prediction_drift": _drift,
    "missing": _missing,
    "unseen": _unseen,
    "out_of_range": _out_of_range,
    "duplicates": _duplicates,
    "freshness": _freshness,
    "volume": _volume,
    "schema": _schema,
    "kpi": _kpi,
}


#: What to do about probabilities, and about a regression's bias.
_CALIBRATION = (
    "Probabilities are not what they say; train again before you act on them",
    "All answers are off in one direction: look whether the target or its unit has changed, and train on newer data",
)


def _advice(signal: Signal) -> str:
    name = signal.deployment
    rows = f"loopwright prediction list {name}"
    train = f"loopwright release start {name}"
    return {
        "performance": f"Train on newer data, which the gate judges before it serves: {train}",
        "calibration": f"{_CALIBRATION[signal.subject == 'bias']}: {train}",
        "kpi": f"Look at the predictions behind it: {rows}",
        "estimated": "Get labels for the newest rows before you act: this is an estimate. loopwright label --help",
        "drift": f"Look whether performance follows; if it does: {train}",
        "prediction_drift": f"Look which inputs moved, and whether performance follows; if it does: {train}",
        "schema": f"Correct what writes the rows, or train with the new columns: {rows}",
        "missing": f"Ask whoever sends {signal.subject!r}: {rows}",
        "unseen": f"Ask whoever sends {signal.subject!r}; if the values are right, train with them: {train}",
        "out_of_range": f"Ask whoever sends {signal.subject!r}; if the values are right, train with them: {train}",
        "duplicates": f"Look who sends the same rows again: {rows}",
        "freshness": "Look whether the deployment runs and is asked: loopwright status",
        "volume": "Look whether the deployment runs and who asks it: loopwright status",
        "service": "Look at the worker that answers: loopwright status",
        "labels": "Look at the labels that could not be used: loopwright label --help",
    }.get(signal.check, f"Look at the rows: {rows}")
