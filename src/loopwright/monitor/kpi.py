"""KPIs of the product: one number per window, by SQL or Python over its predictions, against a target."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from loopwright.config import KpiConfig
from loopwright.errors import InvalidInput, LoopwrightError
from loopwright.monitor import kpi_python
from loopwright.monitor.base import Context, Incomplete, Phase
from loopwright.records import Signal

__all__ = ["EarlyKpiCheck", "KpiCheck"]

_VALID = "It gives one number, nothing, or a list of three: the number and the lower and upper end of its interval."


class KpiCheck:
    """Fires when a KPI that needs labels misses its target.

    A KPI that gives its interval too misses the target when the whole interval does.
    """

    name = "kpi"
    phase: Phase = "labels"
    labelled = True

    def run(self, context: Context) -> list[Signal]:
        """Return one signal per KPI that has a value in this window; none in a window without rows.

        Raises
        ------
        Incomplete
            Some KPIs could not be computed; it holds the signals of the others.
        """
        if not context.data.rows():
            return []
        signals: list[Signal] = []
        problems: list[str] = []
        for name, kpi in context.config.kpi.items():
            if kpi.labelled is not self.labelled:
                continue
            try:
                found = _numbers(name, _compute(context, kpi))
            except LoopwrightError as error:
                problems.append(_problem(name, error))
                continue
            if found is not None:
                signals.append(self._signal(context, name, kpi, found))
        if problems:
            raise Incomplete(problems, signals, hint=f"edit [monitor.{context.model}] kpi in loopwright.toml")
        return signals

    def _signal(
        self, context: Context, name: str, kpi: KpiConfig, found: tuple[float, float | None, float | None]
    ) -> Signal:
        value, lower, upper = found
        least, most = (value, value) if lower is None or upper is None else (lower, upper)
        above = kpi.at_most is not None and least > kpi.at_most
        below = kpi.at_least is not None and most < kpi.at_least
        limit = kpi.at_least if below or kpi.at_most is None else kpi.at_most
        return Signal(
            check=self.name,
            model=context.model,
            deployment=context.deployment,
            window=context.window,
            value=value,
            limit=math.nan if limit is None else limit,
            rows=context.data.rows(),
            fired=above or below,
            subject=name,
            version=context.champion,
            detail={"unit": kpi.unit, "at_most": kpi.at_most, "at_least": kpi.at_least},
            lower=lower,
            upper=upper,
        )


class EarlyKpiCheck(KpiCheck):
    """The same for KPIs that need no labels: they are computed as soon as a window is over."""

    phase: Phase = "inputs"
    labelled = False


def _compute(context: Context, kpi: KpiConfig) -> Any:
    timeout_s = kpi.timeout.total_seconds()
    if kpi.python:
        return kpi_python.call(kpi.python, context.data.table(), root=context.root, timeout_s=timeout_s)
    return context.data.query(kpi.sql, timeout_s)


def _problem(name: str, error: LoopwrightError) -> str:
    text = f"{error.fact} {error.valid}".strip()
    return text if repr(name) in text else f"The KPI {name!r}: {text}"


def _numbers(name: str, given: Any) -> tuple[float, float | None, float | None] | None:
    """Return value and interval of what a KPI gave, None where it has no value in this window."""
    if isinstance(given, Mapping):
        given = list(given.values())
    items = list(given) if isinstance(given, list | tuple) else [given]
    if len(items) not in (1, 3):
        raise InvalidInput(f"The KPI {name!r} gives {len(items)} values: {_shown(given)}.", valid=_VALID)
    numbers = [_number(name, item) for item in items]
    value = numbers[0]
    if value is None:
        return None
    if len(numbers) == 1:
        return value, None, None
    lower, upper = numbers[1:]
    if lower is None or upper is None or not lower <= value <= upper:
        raise InvalidInput(
            f"The KPI {name!r} gives {_shown(given)}, where the value is not inside its interval.",
            valid="Write [value, lower, upper].",
        )
    return value, lower, upper


def _number(name: str, item: Any) -> float | None:
    if item is None:
        return None
    if isinstance(item, bool) or not isinstance(item, int | float | Decimal):
        raise InvalidInput(f"The KPI {name!r} gives {_shown(item)}.", valid=_VALID)
    value = float(item)
    if math.isinf(value):
        raise InvalidInput(f"The KPI {name!r} gives an infinite number.", valid=_VALID)
    return None if math.isnan(value) else value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
