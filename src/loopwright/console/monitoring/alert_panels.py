"""Alerts as HTML: what moved, by how much, since when, for whom, with a plot, and what can be done from here."""

from __future__ import annotations

from urllib.parse import quote

from loopwright.console.formats import Reader, number, percent, span
from loopwright.console.fragments import code, empty, pill
from loopwright.console.markup import Html, el, join
from loopwright.console.monitoring.panels import feature_url, model_url
from loopwright.console.monitoring.views import (
    AlertDetail,
    AlertLine,
    AlertPage,
    Bin,
    Found,
    Message,
    SilenceLine,
    Told,
)
from loopwright.console.monitoring.words import name_of, value_of
from loopwright.console.views import Tone

__all__ = ["alert_url", "brief", "card", "counts", "curve", "full", "mini", "plot", "silences"]

SEVERITIES: dict[str, Tone] = {"critical": "bad", "warning": "warn", "info": "info"}
_TOLD = {
    "opened": "opened",
    "acknowledged": "acknowledged",
    "resolved": "resolved",
    "changed": "changed",
    "escalated": "escalated",
}
_SENT: dict[str, Tone] = {"sent": "good", "failed": "bad", "pending": "info", "silenced": "plain"}


def alert_url(alert: AlertLine) -> str:
    """Return the address of an alert's page."""
    return f"/alerts/{alert.short}"


def counts(critical: int, warning: int, info: int) -> Html:
    """Return how many alerts are open, by severity."""
    if not critical + warning + info:
        return el("span", "no open alert")
    parts = [
        pill(SEVERITIES[name], f"{n} {name}")
        for name, n in (("critical", critical), ("warning", warning), ("info", info))
        if n
    ]
    return el("span.counts", *parts)


def brief(found: tuple[AlertLine, ...], reader: Reader) -> Html:
    """Return alerts as a short list, with what can be done from here."""
    if not found:
        return empty("No alert, open or resolved.")
    return el("div.alerts", *(card(one, reader, short=True) for one in found))


def card(alert: AlertLine, reader: Reader, *, short: bool = False) -> Html:
    """Return one alert: what is wrong, since when, and buttons."""
    past = alert.state == "resolved"
    tone: Tone = "good" if past else SEVERITIES[alert.severity]
    about = " · ".join(filter(None, (name_of(alert.check), alert.subject, alert.segment)))
    return el(
        f"article.alert{'.past' if past else ''}",
        el(
            "div.alert-head",
            pill(tone, alert.state if past else alert.severity),
            el("a.alert-name", about, href=alert_url(alert), title=about),
            pill("plain", "acknowledged") if alert.state == "acknowledged" else None,
            pill("plain", f"silent until {reader.stamp(alert.silenced_until)}")
            if alert.silenced_until
            else None,
            el("span.minor.alert-since", f"since {reader.stamp(alert.since)}"),
        ),
        el("p.alert-said", alert.message),
        None if short else _facts(alert),
        el("p.alert-advice", el("b", "What to do: "), alert.advice) if alert.advice and not past else None,
        None if short or not alert.bins else mini(alert.bins),
        None if past else _buttons(alert),
        data_alert=alert.short,
        data_state=alert.state,
    )


def _facts(alert: AlertLine) -> Html:
    """Return the facts of an alert: for whom, by how much, over how many rows."""
    where = el("a", alert.deployment, href=model_url(alert.deployment)) if alert.deployment else "-"
    facts: list[tuple[str, Html | str]] = [
        ("Deployment", join(where, f" · version {alert.version}" if alert.version else "")),
        ("For", alert.segment or "all rows"),
        ("Value", value_of(alert.check, alert.subject, alert.value)),
        ("Limit", value_of(alert.check, alert.subject, alert.limit)),
    ]
    if alert.rows:
        facts.append(("Rows", f"{alert.rows:,}"))
    if alert.by:
        facts.append(("Looked after by", alert.by))
    return el("dl.alert-facts", *(el("div", el("dt", name), el("dd", value)) for name, value in facts))


def _buttons(alert: AlertLine) -> Html:
    url = f"/api/monitoring/alerts/{quote(alert.short, safe='')}"
    name = alert.subject or alert.check

    def button(text: str, path: str, body: str, label: str) -> Html:
        return el(
            "button.act",
            text,
            type="button",
            data_act=f"{url}/{path}",
            data_body=body,
            aria_label=f"{label} {name}",
        )

    return el(
        "div.acts",
        button("Acknowledge", "acknowledge", "{}", "Acknowledge the alert on")
        if alert.state == "open"
        else None,
        button("Resolve", "resolve", "{}", "Resolve the alert on"),
        None
        if alert.silenced_until
        else button("Silence 1 h", "silence", '{"seconds": 3600}', "Silence for an hour the alert on"),
        el("span.act-said", role="status", aria_live="polite"),
    )


def mini(bins: tuple[Bin, ...]) -> Html:
    """Return the distribution in the reference and now as a small picture, bin beside bin."""
    top = max((max(one.reference, one.current) for one in bins), default=0.0) or 1.0
    width = 100 / len(bins)
    bars = []
    for place, one in enumerate(bins):
        for kind, value, shift in (("before", one.reference, 0.12), ("now", one.current, 0.5)):
            tall = round(46 * value / top, 2)
            bars.append(
                el(
                    f"rect.{kind}",
                    x=round((place + shift) * width, 2),
                    y=round(48 - tall, 2),
                    width=round(0.36 * width, 2),
                    height=tall,
                )
            )
    most = max(bins, key=lambda one: one.current - one.reference)
    text = f"most grew {most.label}: {percent(most.reference)} in training, {percent(most.current)} now"
    return el(
        "figure.mini",
        el("svg", *bars, viewBox="0 0 100 48", preserveAspectRatio="none", role="img", aria_label=text),
        el(
            "figcaption.legend",
            el("span", el("i.before"), "training"),
            el("span", el("i.now"), "now"),
            el("span", text),
        ),
    )


def plot(bins: tuple[Bin, ...]) -> Html:
    """Return the distribution in the reference and now as small bars, one row per bin."""
    top = max((max(one.reference, one.current) for one in bins), default=0.0) or 1.0
    rows = [
        el(
            "tr",
            el("th", el("span.long", one.label, title=one.label), scope="row"),
            el(
                "td",
                el(
                    "span.pair",
                    el("i.before", style=f"width:{_width(one.reference, top)}%"),
                    aria_hidden="true",
                ),
                el("span.pair", el("i.now", style=f"width:{_width(one.current, top)}%"), aria_hidden="true"),
            ),
            el("td.num", percent(one.reference)),
            el("td.num", percent(one.current)),
        )
        for one in bins
    ]
    head = el("tr", el("th", "Bin"), el("th", ""), el("th.num", "Reference"), el("th.num", "Now"))
    made = el(
        "table.plot", el("caption.unseen", "Reference against now"), el("thead", head), el("tbody", *rows)
    )
    return el("div.wide", made, tabindex="0", role="region", aria_label="Reference against now")


def _width(value: float, top: float) -> float:
    return round(100 * value / top, 1)


def curve(found: tuple[Found, ...]) -> Html:
    """Return the newest values as a small line with the limit."""
    known = [one for one in found if one.value is not None]
    if len(known) < 2:
        return Html("")
    limits = [one.limit for one in known if one.limit is not None]
    values = [one.value or 0.0 for one in known]
    low, high = min([*values, *limits]), max([*values, *limits])
    high = high if high > low else low + 1.0

    def up(value: float) -> float:
        return round(46 - 42 * (value - low) / (high - low), 2)

    last = len(known) - 1
    path = " ".join(f"{200 * place / last:.2f},{up(value)}" for place, value in enumerate(values))
    bound = " ".join(
        f"{200 * place / last:.2f},{up(one.limit)}"
        for place, one in enumerate(known)
        if one.limit is not None
    )
    text = f"The last {len(known)} windows: from {number(values[0])} to {number(values[-1])}"
    return el(
        "figure.curve",
        el(
            "svg",
            el("polyline.spark-line", points=path, vector_effect="non-scaling-stroke"),
            el("polyline.limit-line", points=bound, vector_effect="non-scaling-stroke") if limits else None,
            viewBox="0 0 200 50",
            preserveAspectRatio="none",
            role="img",
            aria_label=text,
        ),
        el("figcaption.minor", f"{text}, limit dashed"),
    )


def full(view: AlertDetail, reader: Reader) -> Html:
    """Return one alert with its history and its messages."""
    alert = view.alert
    feature = None
    if alert.check in {"drift", "missing", "unseen", "out_of_range"} and alert.subject and alert.deployment:
        feature = el("a", f"All about {alert.subject}", href=feature_url(alert.deployment, alert.subject))
    return join(
        card(alert, reader),
        el("section.panel", el("h2", "Distribution"), plot(alert.bins)) if alert.bins else None,
        el("section.panel", el("h2", "How it went"), curve(view.points), feature) if view.points else feature,
        el("section.panel", el("h2", "History"), _history(view.history, reader)),
        el("section.panel", el("h2", "Messages"), _messages(view.messages, reader)),
        el("p.minor", "In a terminal: ", code(f"loopwright alert show {alert.short}")),
    )


def _history(found: tuple[Told, ...], reader: Reader) -> Html:
    if not found:
        return el("p.minor", "Nothing is known of it but that it is there.")
    rows = [
        el(
            "li",
            el("time", reader.date(one.at), datetime=one.at.isoformat()),
            el("b", _TOLD.get(one.what, one.what)),
            el("span", f"by {one.by}"),
            el("span.minor", one.note) if one.note else None,
        )
        for one in found
    ]
    return el("ol.history", *rows)


def _messages(found: tuple[Message, ...], reader: Reader) -> Html:
    if not found:
        return el(
            "p.minor",
            "Nobody was told. Addresses belong into loopwright.toml: ",
            code('[alerts] to = ["mailto://..."]'),
        )
    rows = [
        el(
            "tr",
            el("td", reader.date(one.changed)),
            el("td", el("span.long", one.address, title=one.address)),
            el("td", one.reason),
            el("td", pill(_SENT.get(one.state, "plain"), one.state)),
            el("td.num", str(one.attempts)),
            el("td", el("span.bad-text", one.error) if one.error else "-"),
        )
        for one in found
    ]
    head = el("tr", *(el("th", name) for name in ("When", "To", "Why", "State", "Tries", "Error")))
    return el("div.wide", el("table", el("thead", head), el("tbody", *rows)), tabindex="0")


def silences(view: AlertPage, reader: Reader) -> Html:
    """Return the silences that hold."""
    if not view.silences:
        return Html("")
    rows = [_silence(one, reader, view) for one in view.silences]
    return el("section.panel", el("h2", "Silences"), el("ul.silences", *rows))


def _silence(one: SilenceLine, reader: Reader, view: AlertPage) -> Html:
    fields = [
        f"{name} {value}"
        for name, value in (
            ("model", one.model), ("deployment", one.deployment), ("check", one.check),
            ("subject", one.subject), ("segment", one.segment),
        )
        if value
    ]  # fmt: skip
    left = span((one.until - view.at).total_seconds())
    return el(
        "li",
        el("b", ", ".join(fields) or "every alert"),
        el("span", f"until {reader.date(one.until)} ({left} left), by {one.by}"),
        el("span.minor", one.reason) if one.reason else None,
        el(
            "button.act",
            "End",
            type="button",
            data_act=f"/api/monitoring/silences/{quote(one.id, safe='')}/end",
            data_body="{}",
            aria_label=f"End the silence of {', '.join(fields) or 'every alert'}",
        ),
        el("span.act-said", role="status", aria_live="polite"),
    )
