"""What checks find, in words: names people use, values with their units."""

from __future__ import annotations

from loopwright.console.formats import number, percent, span
from loopwright.console.monitoring.views import Found

__all__ = ["CHECKS", "name_of", "sentence", "value_of"]

#: Each check: what it looks at, and whether its values are shares of rows.
CHECKS: dict[str, tuple[str, bool]] = {
    "schema": ("Columns and types", False),
    "missing": ("Missing values", True),
    "unseen": ("Unseen categories", True),
    "out_of_range": ("Out of range", True),
    "duplicates": ("Duplicates", True),
    "freshness": ("Freshness", False),
    "volume": ("Volume", False),
    "labels": ("Labels", True),
    "drift": ("Input drift", False),
    "prediction_drift": ("Prediction drift", False),
    "performance": ("Performance", False),
    "calibration": ("Calibration", False),
    "estimated": ("Estimated performance", False),
    "service": ("Service", False),
    "kpi": ("KPI", False),
}


def name_of(check: str) -> str:
    """Return what a check is called on a page.

    Examples
    --------
    >>> name_of("out_of_range"), name_of("own_check")
    ('Out of range', 'Own check')
    """
    known = CHECKS.get(check)
    return known[0] if known else check.replace("_", " ").capitalize()


def value_of(check: str, subject: str, value: float | None) -> str:
    """Write a value of a check with its unit."""
    if value is None:
        return "-"
    if CHECKS.get(check, ("", False))[1] or subject in {"errors", "error_rate"}:
        return percent(value) if 0 <= value <= 1 else number(value)
    if check == "freshness":
        return span(value)
    if check == "volume":
        return f"{value:,.0f}"
    if check == "service" and subject.startswith("latency"):
        return f"{number(value)} ms"
    return number(value)


def sentence(one: Found) -> str:
    """Say what one check found in one window.

    Examples
    --------
    >>> from datetime import UTC, datetime
    >>> at = datetime(2026, 1, 2, tzinfo=UTC)
    >>> sentence(Found("missing", "age", "region=north", 3, at, at, 0.12, None, None, 0.01, 400, True))
    'Missing values of age where region=north: 12.0 %, limit 1.0 %, over 400 rows'
    """
    about = f" of {one.subject}" if one.subject else ""
    where = f" where {one.segment}" if one.segment else ""
    limit = f", limit {value_of(one.check, one.subject, one.limit)}" if one.limit is not None else ""
    value = value_of(one.check, one.subject, one.value)
    return f"{name_of(one.check)}{about}{where}: {value}{limit}, over {one.rows:,} rows"
