"""Pieces of PromQL that the dashboard and the rules are made of."""

from __future__ import annotations

import re
from datetime import timedelta

__all__ = ["alternatives", "failing", "latency", "number", "quoted", "selector", "span"]


def quoted(text: str) -> str:
    """Return a text as a PromQL string.

    Examples
    --------
    >>> print(quoted("digits-api"))
    "digits-api"
    """
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def selector(**labels: str) -> str:
    """Return a label selector; a value that begins with ``~`` is a regular expression, with ``!`` one to differ from.

    Examples
    --------
    >>> selector(deployment="digits-api", status="~5..", severity="!info")
    '{deployment="digits-api",status=~"5..",severity!="info"}'
    """
    parts = []
    for name, value in labels.items():
        operator = {"~": "=~", "!": "!="}.get(value[:1], "=")
        parts.append(f"{name}{operator}{quoted(value if operator == '=' else value[1:])}")
    return "{" + ",".join(parts) + "}"


def alternatives(names: list[str]) -> str:
    """Return the regular expression, as `selector` takes it, of any of some names."""
    return "~" + "|".join(re.escape(name) for name in names)


def span(length: timedelta) -> str:
    """Return a length of time as PromQL writes it, at least one second.

    Examples
    --------
    >>> span(timedelta(hours=2)), span(timedelta(seconds=90))
    ('2h', '90s')
    """
    seconds = max(round(length.total_seconds()), 1)
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def number(value: float) -> str:
    """Return a number as PromQL reads it."""
    return f"{value:.12g}"


def failing(where: str, window: str) -> str:
    """Return the share of requests, by deployment, that the server failed to answer. `where` is like ``deployment="x"``."""
    of = f"{{{where}}}[{window}]"
    bad = f'{{{where},status=~"5.."}}[{window}]'
    return (
        f"sum by (deployment) (rate(loopwright_requests_total{bad}))"
        f" / sum by (deployment) (rate(loopwright_requests_total{of}))"
    )


def latency(quantile: float, where: str, window: str) -> str:
    """Return a quantile of the time to answer in seconds, by deployment; exact to the factor two of the buckets."""
    buckets = f"rate(loopwright_latency_seconds_bucket{{{where}}}[{window}])"
    return f"histogram_quantile({number(quantile)}, sum by (deployment, le) ({buckets}))"
