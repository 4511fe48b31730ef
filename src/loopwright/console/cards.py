"""The cards of the first page: one deployment each, with its curve and its key numbers."""

from __future__ import annotations

from urllib.parse import quote

from loopwright.console.formats import latency, number, percent, rate, span
from loopwright.console.fragments import STATES, WHAT, empty, judged, pill, serves
from loopwright.console.markup import Html, el, join
from loopwright.console.monitoring.alert_panels import counts
from loopwright.console.monitoring.words import name_of
from loopwright.console.views import Card, Glance, Numbers

__all__ = ["cards"]


def cards(view: Glance) -> Html:
    """Return one card per deployment."""
    if not view.deployments:
        return empty("No deployment is declared.", "Add [deployment.<name>] to loopwright.toml")
    return join(*(_card(card) for card in view.deployments))


def _card(card: Card) -> Html:
    tone, text = STATES[card.state]
    numbers, found = card.numbers, card.numbers.metric
    body: Html
    if numbers.rows:
        body = join(
            _spark(card),
            el(
                "dl.facts",
                _fact(f"{WHAT[card.mode]}/s", rate(numbers.per_s), "per_s"),
                _fact("p50 / p99", _latencies(numbers), "latency"),
                _fact(
                    found.name.replace("_", " ").capitalize(),
                    number(found.value),
                    "metric",
                    judged(card),
                    _held(card),
                ),
            ),
        )
    else:
        text_of = "Not started." if card.state == "not started" else "No predictions in the last 15 minutes."
        body = empty(text_of, card.hint)
    return el(
        "a.card",
        el("div.card-head", el("h2", card.name), el("span.badge", card.mode), pill(tone, text)),
        el("div.card-sub", el("b", card.model), f" · {serves(card)}"),
        body,
        _signs(card),
        el(
            "div.card-foot",
            _alerts(card),
            el("span", card.release.summary if card.release else "no release yet"),
        ),
        href=f"/model/{quote(card.name, safe='')}",
        data_deployment=card.name,
    )


def _held(card: Card) -> str:
    """Return the interval and the limit of the metric."""
    found = card.numbers.metric
    parts = []
    if found.lower is not None and found.upper is not None:
        parts.append(f"{number(found.lower)} to {number(found.upper)}")
    if found.limit is not None:
        parts.append(f"limit {number(found.limit)}")
    return " · ".join(parts)


def _alerts(card: Card) -> Html:
    found = card.health.alerts if card.health else None
    if found is None or not found.open:
        return el("span", "no open alert")
    return counts(found.critical, found.warning, found.info)


def _signs(card: Card) -> Html | None:
    """Return what the monitors found in one line: drift, KPIs, labels, the age of the newest window."""
    found = card.health
    if found is None or found.last_window is None:
        return None
    signs = []
    if found.inputs:
        signs.append(_sign("Drift", f"{found.drifted} of {found.inputs}", bool(found.drifted)))
    if found.kpis:
        known = [one for one in found.kpis if one.met is not None]
        met = sum(one.met is True for one in known)
        signs.append(_sign("KPIs met", f"{met} of {len(known)}" if known else "-", met < len(known)))
    if found.maturity is not None:
        signs.append(_sign("Labels in", percent(min(1.0, found.maturity)), False))
    late = found.window_s is not None and (found.window_age_s or 0.0) > 3 * found.window_s + 120
    signs.append(_sign("Last window", f"{span(found.window_age_s or 0.0)} ago", late))
    if found.failed:
        signs.append(_sign("Not judged", ", ".join(name_of(one).lower() for one in found.failed), True))
    return el("dl.signs", *signs)


def _sign(name: str, value: str, bad: bool) -> Html:
    return el("div", el("dt", name), el("dd.bad-text" if bad else "dd", value, title=value))


def _fact(name: str, value: str, field: str, tone: str = "", note: str = "") -> Html:
    return el(
        "div",
        el("dt", name),
        el(f"dd{'.bad-text' if tone == 'bad' else ''}", value, data_field=field),
        el("dd.fact-note", note) if note else None,
    )


def _latencies(numbers: Numbers) -> str:
    if numbers.latency_p50_ms is None:
        return "-"
    return f"{latency(numbers.latency_p50_ms)} / {latency(numbers.latency_p99_ms)} ms"


def _spark(card: Card) -> Html:
    """Return the curve of the rate as a small line without axes."""
    top = max(card.curve, default=0.0) or 1.0
    last = max(1, len(card.curve) - 1)
    points = [
        f"{100 * place / last:.2f},{28 - 26 * value / top:.2f}" for place, value in enumerate(card.curve)
    ]
    if len(points) < 2:
        return el("div.spark")
    shape = el("polygon.spark-area", points=" ".join(["0,30", *points, "100,30"]))
    line = el("polyline.spark-line", points=" ".join(points), vector_effect="non-scaling-stroke")
    return el("svg.spark", shape, line, viewBox="0 0 100 30", preserveAspectRatio="none", aria_hidden="true")
