"""The parts of the pages that are text: from views to HTML. Nothing here reads anything."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from urllib.parse import quote

from loopwright.console.formats import Reader, latency, number, rate, span
from loopwright.console.markup import Html, el, join
from loopwright.console.views import Card, Entry, Link, Story, Tone

__all__ = [
    "STATES",
    "WHAT",
    "breadcrumb",
    "code",
    "empty",
    "foot",
    "heading",
    "judged",
    "live",
    "missing",
    "pill",
    "serves",
    "tiles",
    "timeline",
]

#: How a state of a deployment is shown.
STATES: dict[str, tuple[Tone, str]] = {
    "alert": ("bad", "Alert"),
    "releasing": ("info", "Releasing"),
    "healthy": ("good", "Healthy"),
    "idle": ("plain", "Idle"),
    "asleep": ("plain", "Asleep"),
    "not started": ("plain", "Not started"),
}
#: A sign beside each colour, for those who cannot tell the colours apart.
_SIGNS: dict[Tone, str] = {"good": "✓", "warn": "!", "bad": "▲", "info": "▸", "plain": "•"}
#: What the rows of each mode are called.
WHAT = {"online": "Predictions", "batch": "Rows", "stream": "Messages", "edge": "Predictions"}


def pill(tone: Tone, text: str) -> Html:
    """Return a small coloured label with a sign."""
    sign = el("span.sign", _SIGNS[tone], aria_hidden="true") if tone != "plain" else None
    return el(f"span.pill.{tone}", sign, text)


def link(target: Link) -> Html:
    """Return a link to another server's page; greyed out while that server is not running."""
    if not target.url:
        return el("span.link.off", target.text, title="The server is not running: loopwright up")
    return el(
        "a.link",
        target.text,
        el("span", " ↗", aria_hidden="true"),
        href=target.url,
        target="_blank",
        rel="noopener",
    )


def code(command: str) -> Html:
    """Return a command whose lines break between words only, never after the hyphen of an option."""
    words = [
        join(" " if place else "", el("span.word", word)) for place, word in enumerate(command.split(" "))
    ]
    return el("code", *words)


def empty(text: str, command: str = "") -> Html:
    """Return what is said where there is nothing to show, with the next command."""
    return el("div.empty", el("p", text), code(command) if command else None)


def breadcrumb(project: str, crumbs: Sequence[tuple[str, str]] = ()) -> Html:
    """Return the way from the project to this page: names and addresses, the page itself last."""
    steps = [
        join(
            el("span.slash", "/"),
            el("a.step", name, href=url, title=name)
            if url and place < len(crumbs) - 1
            else el("span.here", name, title=name),
        )
        for place, (name, url) in enumerate(crumbs)
    ]
    return join(
        el("a.brand", el("span.mark", aria_hidden="true"), "Loopwright", href="/"),
        el("span.slash", "/"),
        el("a.project", project, href="/"),
        *steps,
    )


def live(at: datetime | None, error: str, reader: Reader) -> Html:
    """Return how fresh the page is."""
    if error:
        return el("span.live.stale", el("span.dot"), error, title=error)
    if at is None:
        return el("span.live", el("span.dot"), "Live")
    return el("span.live", el("span.dot"), "Live ", el("time", reader.clock(at), datetime=at.isoformat()))


def serves(card: Card) -> str:
    """Say which versions answer."""
    if not card.variants:
        return "nothing served yet"
    beside = "".join(f", version {version} as a shadow" for version in card.shadows)
    if len(card.variants) == 1:
        return f"version {card.variants[0].version}{beside}"
    return ", ".join(f"version {one.version} {100 * one.weight:.3g} %" for one in card.variants) + beside


def heading(story: Story) -> Html:
    """Return the title of a model's page: what it is, how it is, where to read more."""
    card = story.card
    tone, text = STATES[card.state]
    return join(
        el(
            "div.title",
            el("h1", card.name),
            el("span.badge", card.mode),
            pill(tone, text),
            pill("info", "Releasing")
            if card.state == "alert" and card.release and not card.release.ended
            else None,
        ),
        el("div.subtitle", el("b", card.model), " · ", el("span", serves(card), data_field="serves")),
        el("nav.links", *(link(one) for one in story.links), aria_label="Pages about this model"),
    )


def _tile(name: str, value: str, unit: str, note: str, field: str, tone: str = "") -> Html:
    return el(
        f"div.tile{'.' + tone if tone else ''}",
        el("div.tile-name", name),
        el("div.tile-value", el("span", value, data_field=field), el("small", f" {unit}") if unit else None),
        el("div.tile-note", note),
    )


def tiles(story: Story) -> Html:
    """Return the four key numbers."""
    card, numbers = story.card, story.card.numbers
    what = f"Logged {WHAT[card.mode].lower()}" if card.logged < 1 else WHAT[card.mode]
    total = f"{numbers.rows:,} in {span(numbers.span_s)}"
    total += f", {numbers.labelled:,} labelled" if numbers.labelled is not None else ""
    if card.logged < 1:
        total += f" · {100 * card.logged:.3g} % are logged"
    found = numbers.metric
    measured = (
        f"version {found.version}, {found.rows:,} labelled rows"
        if found.value is not None
        else "no labels yet"
    )
    if found.lower is not None and found.upper is not None:
        measured = f"{number(found.lower)} to {number(found.upper)}, {measured}"
    limit = f" · limit {found.limit:.4g}" if found.limit is not None else ""
    open_ones = [alert for alert in story.alerts if alert.state != "resolved"]
    newest = f"newest: {open_ones[0].subject or open_ones[0].check}" if open_ones else "all quiet"
    known = numbers.latency_p50_ms is not None
    p99 = f"p99 {latency(numbers.latency_p99_ms)} ms · last minute" if known else "none in the last minute"
    return join(
        _tile(f"{what} per second", rate(numbers.per_s), "/s", total, "per_s"),
        _tile(
            "Median latency", latency(numbers.latency_p50_ms), "ms" if known else "", p99, "latency_p50_ms"
        ),
        _tile(
            f"{found.name.replace('_', ' ').capitalize()} now",
            number(found.value),
            "",
            measured + limit,
            "metric",
            judged(card),
        ),
        _tile(
            "Open alerts", str(card.open_alerts), "", newest, "open_alerts", "bad" if card.open_alerts else ""
        ),
    )


def judged(card: Card) -> str:
    """Return the tone of the metric: bad on the wrong side of its limit."""
    found = card.numbers.metric
    if found.value is None or found.limit is None:
        return ""
    worse = found.value < found.limit if found.better == "higher" else found.value > found.limit
    return "bad" if worse else ""


def timeline(entries: tuple[Entry, ...], reader: Reader) -> Html:
    """Return the events as sentences, newest first."""
    if not entries:
        return empty("Nothing has happened yet.")
    rows = [
        el(
            "li",
            el("time", reader.clock(one.at), datetime=one.at.isoformat(), title=reader.date(one.at)),
            el(f"span.knot.{one.tone}", _SIGNS[one.tone], aria_hidden="true"),
            el(
                "span.said",
                one.text,
                el("span.more", f" and {one.repeats - 1} more like this") if one.repeats > 1 else None,
                *(join(" ", link(where)) for where in one.links),
            ),
        )
        for one in entries
    ]
    return el("ol.timeline", *rows)


def foot(*addresses: str) -> Html:
    """Return where the same figures are for programs."""
    return join("The same as JSON: ", *(el("a", el("code", address), href=address) for address in addresses))


def missing(fact: str, valid: str, hint: str, known: list[str]) -> Html:
    """Return the page of something that does not exist."""
    return el(
        "div.missing",
        el("h1", fact),
        el("p", valid) if valid else None,
        el("ul", *(el("li", el("a", name, href=f"/model/{quote(name, safe='')}")) for name in known))
        if known
        else None,
        el("p", "Next: ", code(hint)) if hint else None,
        el("p", el("a", "All deployments", href="/")),
    )
