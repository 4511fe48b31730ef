"""The cards of the first page: one deployment each, with its curve and its key numbers."""

from __future__ import annotations

from urllib.parse import quote

from loopwright.console.formats import latency, number, rate
from loopwright.console.fragments import STATES, WHAT, empty, judged, pill, serves
from loopwright.console.markup import Html, el, join
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
                _fact(found.name.replace("_", " ").capitalize(), number(found.value), "metric", judged(card)),
            ),
        )
    else:
        text_of = "Not started." if card.state == "not started" else "No predictions in the last 15 minutes."
        body = empty(text_of, card.hint)
    alerts_text = f"{card.open_alerts} open alert{'s' if card.open_alerts != 1 else ''}"
    return el(
        "a.card",
        el("div.card-head", el("h2", card.name), el("span.badge", card.mode), pill(tone, text)),
        el("div.card-sub", el("b", card.model), f" · {serves(card)}"),
        body,
        el(
            "div.card-foot",
            el("span.bad-text" if card.open_alerts else "span", alerts_text),
            el("span", card.release.summary if card.release else "no release yet"),
        ),
        href=f"/model/{quote(card.name, safe='')}",
        data_deployment=card.name,
    )


def _fact(name: str, value: str, field: str, tone: str = "") -> Html:
    return el("div", el("dt", name), el(f"dd{'.bad-text' if tone == 'bad' else ''}", value, data_field=field))


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
