"""What moved, for people: in a few words, and as two distributions side by side."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loopwright.monitor.comparison import Comparison
from loopwright.monitor.statistics import (
    jensen_shannon,
    kolmogorov_smirnov_binned,
    wasserstein_binned,
)

__all__ = ["details", "labels_of", "what_moved"]

#: Categories that a plot has beside *other*, *unseen* and *missing*.
PLOTTED = 20
#: From so many standard deviations on, a change is told as a change of the mean.
SHIFTED = 0.1


def details(one: Comparison) -> dict[str, Any]:
    """Return what a signal keeps of a comparison: further statistics, moments, words and a plot.

    Returns
    -------
    dict
        ``p``; ``statistic``; ``jensen_shannon`` (base 2, 0 to 1); of numbers ``wasserstein`` (from bins, in standard
        deviations of the training data), ``ks`` (from bins, a lower bound), ``mean`` and ``mean_before``, ``std`` and
        ``std_before``; ``what`` (a sentence's part); ``bins`` (``labels``, and shares ``reference`` and ``current``).
    """
    found: dict[str, Any] = {
        "p": one.p,
        "statistic": "psi",
        "jensen_shannon": _rounded(jensen_shannon(one.reference, one.counts.bins)),
    }
    if one.counts.kind == "numeric":
        found |= {
            "ks": _rounded(kolmogorov_smirnov_binned(one.reference[:-1], one.counts.bins[:-1])),
            "wasserstein": _rounded(_wasserstein(one)),
            "mean": one.counts.mean,
            "mean_before": _mean_before(one),
            "std": one.counts.std,
            "std_before": one.profile.std,
        }
    return found | {"what": what_moved(one), "bins": _plot(one)}


def _rounded(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else round(value, 6)


def _mean_before(one: Comparison) -> float | None:
    """Return the mean in training; of a segment only the counts are known."""
    return None if one.segment.column else one.profile.mean


def _wasserstein(one: Comparison) -> float | None:
    profile, counts = one.profile, one.counts
    if not profile.std or counts.minimum is None or counts.maximum is None:
        return None
    if profile.minimum is None or profile.maximum is None:
        return None
    low, high = min(profile.minimum, counts.minimum), max(profile.maximum, counts.maximum)
    edges = np.asarray(profile.edges)
    with np.errstate(over="ignore", invalid="ignore"):
        return wasserstein_binned(edges, one.reference[:-1], counts.bins[:-1], low, high) / profile.std


def what_moved(one: Comparison) -> str:
    """Say in a few words what moved most.

    Examples
    --------
    ``mean 3.1 -> 4.2 (+0.5 sd)``, ``share of 'red' 12 % -> 31 %``, ``missing 2 % -> 30 %``,
    ``share of values never seen in training 0 % -> 8 %``.
    """
    before, now = _shares(one.reference), _shares(one.counts.bins)
    weights = _weights(one.reference, one.counts.bins)
    most = int(weights.argmax())
    if most == len(weights) - 1:
        return f"missing {_percent(before[-1])} -> {_percent(now[-1])}"
    if one.counts.kind == "categorical":
        if most < len(one.profile.categories):
            name = f"'{one.profile.categories[most]}'"
        elif one.counts.unseen * 2 > one.counts.bins[most]:
            share = one.counts.unseen / one.counts.rows
            return f"share of values never seen in training 0 % -> {_percent(share)}"
        else:
            name = "rare values"
        return f"share of {name} {_percent(before[most])} -> {_percent(now[most])}"
    mean, std = _mean_before(one), one.profile.std
    if mean is not None and one.counts.mean is not None and std:
        shift = (one.counts.mean - mean) / std
        if abs(shift) >= SHIFTED:
            return f"mean {mean:.4g} -> {one.counts.mean:.4g} ({shift:+.2g} sd)"
    label = labels_of(one.profile.edges)[most]
    return f"share of {label} {_percent(before[most])} -> {_percent(now[most])}"


def _weights(reference: NDArray[np.int64], current: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return what each bin adds to PSI."""
    p = (reference + 0.5) / (reference.sum() + 0.5 * len(reference))
    q = (current + 0.5) / (current.sum() + 0.5 * len(current))
    return np.asarray((q - p) * np.log(q / p))


def _shares(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    return counts / max(1, int(counts.sum()))


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def labels_of(edges: tuple[float, ...]) -> list[str]:
    """Return the names of the bins between edges: ``up to 3``, ``3 to 4``, ``above 4``."""
    if not edges:
        return ["any value"]
    inner = [f"{low:.4g} to {high:.4g}" for low, high in pairwise(edges)]
    return [f"up to {edges[0]:.4g}", *inner, f"above {edges[-1]:.4g}"]


def _plot(one: Comparison) -> dict[str, list[Any]]:
    """Return both distributions in at most 23 bins."""
    before, now = one.reference, one.counts.bins
    if one.counts.kind == "numeric":
        rows = list(zip(labels_of(one.profile.edges), before, now, strict=False))
    else:
        frequent = np.argsort(-(_shares(before) + _shares(now))[:-2], kind="stable")[:PLOTTED]
        rows = [(one.profile.categories[place], before[place], now[place]) for place in frequent]
        others = [counts[:-1].sum() - counts[frequent].sum() for counts in (before, now)]
        beside = [("(other)", others[0], others[1] - one.counts.unseen), ("(unseen)", 0, one.counts.unseen)]
        rows += [row for row in beside if row[1] or row[2]]
    if before[-1] or now[-1]:
        rows.append(("(missing)", before[-1], now[-1]))
    return {
        "labels": [label for label, *_ in rows],
        "reference": [round(float(count) / int(before.sum()), 5) for _, count, _ in rows],
        "current": [round(float(count) / int(now.sum()), 5) for *_, count in rows],
    }
