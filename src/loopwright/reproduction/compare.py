"""What a run gave then and what it gives now, side by side, and what follows from it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from loopwright.records import DatasetRef, StepRun
from loopwright.reproduction.verdict import (
    Cause,
    DatasetCheck,
    MetricCheck,
    ModelCheck,
    Outcome,
    Problem,
    StepCheck,
)

__all__ = ["Comparison", "compare_datasets", "compare_metrics", "compare_steps", "first_unsteady"]


def compare_metrics(
    then: Mapping[str, float], now: Mapping[str, float], *, tolerance: float, ignore: Collection[str] = ()
) -> tuple[MetricCheck, ...]:
    """Compare metrics by name. What MLflow measures of the machine says nothing about the run and is left out."""
    names = sorted({*then, *now} - set(ignore))
    return tuple(
        _metric(name, then.get(name), now.get(name), tolerance)
        for name in names
        if not name.startswith("system/")
    )


def _metric(name: str, then: float | None, now: float | None, tolerance: float) -> MetricCheck:
    if then is None or now is None:
        return MetricCheck(name, then, now, None, ok=False)
    if then == now or (math.isnan(then) and math.isnan(now)):
        return MetricCheck(name, then, now, 0.0, ok=True)
    difference = abs(now - then) / max(abs(then), abs(now))
    if not math.isfinite(difference):  # one of them is infinite or no number
        return MetricCheck(name, then, now, None, ok=False)
    return MetricCheck(name, then, now, difference, ok=difference <= tolerance)


def compare_datasets(then: Iterable[DatasetRef], now: Iterable[DatasetRef]) -> tuple[DatasetCheck, ...]:
    """Compare the datasets of a run by name; several of one name pair up by their fingerprints."""
    before, after = _by_name(then), _by_name(now)
    found = []
    for name in dict.fromkeys([*before, *after]):
        old, new = Counter(before.get(name, ())), Counter(after.get(name, ()))
        found += [DatasetCheck(name, digest, digest) for digest in (old & new).elements()]
        left, right = [*(old - new).elements()], [*(new - old).elements()]
        for position in range(max(len(left), len(right))):
            found.append(DatasetCheck(name, _at(left, position), _at(right, position)))
    return tuple(found)


def _by_name(datasets: Iterable[DatasetRef]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for dataset in datasets:
        found.setdefault(dataset.name, []).append(dataset.digest)
    return found


def _at(items: Sequence[str], position: int) -> str:
    return items[position] if position < len(items) else ""


def compare_steps(then: Sequence[StepRun], now: Sequence[StepRun]) -> tuple[StepCheck, ...]:
    """Compare the steps by name, in the order of their first calls.

    All calls of a step are taken together: what runs side by side ends in any order.
    """
    names = dict.fromkeys(step.name for step in (*then, *now))
    return tuple(
        _step(name, [step for step in then if step.name == name], [step for step in now if step.name == name])
        for name in names
    )


def _step(name: str, then: list[StepRun], now: list[StepRun]) -> StepCheck:
    problem: Problem = ""
    if len(then) != len(now):
        problem = "calls"
    elif _count(step.code_digest for step in then) != _count(step.code_digest for step in now):
        problem = "code"
    elif _count(step.inputs for step in then) != _count(step.inputs for step in now):
        problem = "inputs"
    elif _count(step.outputs for step in then) != _count(step.outputs for step in now):
        problem = "outputs"
    tables = sum(len(step.outputs) for step in then)
    return StepCheck(name, len(then), tables, problem)


def _count(items: Iterable[object]) -> Counter[object]:
    return Counter(items)


def first_unsteady(one: Sequence[Sequence[str]], other: Sequence[Sequence[str]]) -> str:
    """Return the first step whose values differ between two repetitions, each a list of ``[step, digest]``.

    A value that could not be hashed has an empty digest and is passed over. Empty when there is no such step.
    """
    before, after = _values(one), _values(other)
    for name in dict.fromkeys([*before, *after]):
        if before.get(name) != after.get(name):
            return name
    return ""


def _values(pairs: Sequence[Sequence[str]]) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {}
    for name, digest in pairs:
        found.setdefault(name, Counter())[digest] += 1
    return found


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that was compared of one run."""

    metrics: tuple[MetricCheck, ...]
    models: tuple[ModelCheck, ...]
    steps: tuple[StepCheck, ...]
    datasets: tuple[DatasetCheck, ...]

    @property
    def outcome(self) -> Outcome:
        """What follows: metrics and models decide; where a run has neither, its steps and datasets do."""
        tables = all(not step.problem for step in self.steps) and all(one.ok for one in self.datasets)
        results: list[MetricCheck | ModelCheck] = [*self.metrics, *self.models]
        if results:
            if not all(one.ok for one in results):
                return "not reproduced"
            exact = tables and all(one.difference == 0 for one in results)
            return "reproduced" if exact else "within tolerance"
        return "reproduced" if tables else "not reproduced"

    def why(self, unsteady: str, differences: Sequence[str]) -> tuple[Cause, str]:
        """Return the cause of a run that was not reproduced, and the reason as a sentence.

        Parameters
        ----------
        unsteady
            The first step that gave two values in two repetitions, empty when there is none.
        differences
            In what the environment is known to differ from that of the run.
        """
        first = next((step for step in self.steps if step.problem), None)
        if first is not None and first.problem == "code":
            return "code", f"step {first.name} has other code than the run had"
        if unsteady:
            return (
                "nondeterministic step",
                f"step {unsteady} gave two different results in two repetitions with the same inputs: seed it",
            )
        what = (
            f"step {first.name} is the first that differs, in its {first.problem}" if first else self._what()
        )
        steady = "two repetitions agree with each other"
        if differences:
            return "environment", f"{what}; {steady}, and the environment differs: {'; '.join(differences)}"
        if first is not None and first.problem in {"outputs", "inputs"}:
            return "data", f"{what}; {steady}: it uses something that the run did not put on record"
        return "unknown", f"{what}; {steady}, in the environment on record"

    def _what(self) -> str:
        bad = [f"metric {one.name}" for one in self.metrics if not one.ok]
        bad += [f"model {one.version}" for one in self.models if not one.ok]
        bad += [f"dataset {one.name}" for one in self.datasets if not one.ok]
        return f"{bad[0]} differs, and no step's tables do" if bad else "something differs"
