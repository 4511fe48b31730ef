"""How an online deployment answers, as HTML: stages, budgets, requests, and what computes the answers."""

from __future__ import annotations

import math
import re

from loopwright.console.formats import duration, percent, size, span
from loopwright.console.fragments import empty, pill
from loopwright.console.markup import Html, el, join
from loopwright.console.views import Counted, RefusedVersion, Runs, Serving, Story, Tone
from loopwright.deploy.online.levels import Objective

__all__ = ["absent", "budget", "queue", "requests", "rules", "runtimes", "stages"]

_ALERTS: dict[str, tuple[Tone, str]] = {
    "page": ("bad", "burning fast"),
    "ticket": ("warn", "burning"),
    "": ("good", "kept"),
}
#: Below this share the bar of a budget is a warning.
_LOW = 0.25


def _over(found: Serving) -> str:
    """Say over which time and how many processes the figures are."""
    processes = f"{found.workers} process{'es' if found.workers != 1 else ''}"
    return f"last {span(found.seconds)}, {processes}"


def absent(story: Story) -> Html | None:
    """Return what is said while there are no figures; None when there are."""
    found = story.serving
    if found is not None and found.stages:
        return None
    if not story.card.started:
        return empty("Not in service yet.", story.card.hint)
    if found is None or not found.workers:
        return empty("No serving process is running.", "loopwright up")
    if story.card.state == "asleep":
        return empty("Asleep: nobody asked, so the model gave back its memory. The next request wakes it.")
    return empty("No request yet in the last minutes.", story.card.hint)


def stages(story: Story) -> Html:
    """Return the table of the stages, with the share of all time that each takes."""
    found = story.serving
    if found is None or not found.stages:
        return Html("")
    rows = [
        el(
            "tr",
            el("td", one.name),
            *(el("td.num", duration(value)) for value in (one.p50_ms, one.p95_ms, one.p99_ms)),
            el(
                "td.share",
                el("i", style=f"width:{max(1, round(100 * one.share))}%"),
                el("span", percent(one.share)),
            ),
            title=f"{one.n:,} times, {duration(one.mean_ms)} on average",
            data_stage=one.name,
        )
        for one in found.stages
    ]
    head = el(
        "tr",
        el("th", "Stage"),
        *(el("th.num", name) for name in ("p50", "p95", "p99")),
        el("th", "Share of the time"),
    )
    key = el(
        "div.legend",
        el("span", "● p50"),
        el("span", "┃ p95"),
        el("span", "○ p99"),
        el("span", f"{_over(found)}; decode and queue by request, the others by micro-batch"),
    )
    return join(key, el("table.stage-table", el("thead", head), el("tbody", *rows)))


def budget(story: Story) -> Html:
    """Return both promises with the bar of what may still be missed."""
    found = story.serving
    level = found.level if found else None
    if found is None or level is None:
        return empty(
            "No service level is declared. Below the deployment, write for example:",
            'slo = { latency = "50ms", share = 0.99, availability = 0.999 }',
        )
    parts = [_budget(one, words) for one, words in zip(level.objectives, found.level_words, strict=True)]
    return el("div.budgets", *parts)


def _budget(one: Objective, words: str) -> Html:
    left = one.budget_left
    if left is None:
        tone, state = "plain", pill("plain", "no request yet")
    else:
        what: tuple[Tone, str] = ("bad", "overspent") if left < 0 else _ALERTS[one.alert]
        tone = "bad" if left <= 0 or one.alert == "page" else "warn" if left < _LOW or one.alert else "good"
        state = pill(*what)
    shown = 100 * min(1.0, max(0.0, left if left is not None else 0.0))
    figure = (
        "-" if left is None else f"{percent(max(0.0, left))} left" if left >= 0 else f"{percent(-left)} over"
    )
    return el(
        "div.budget",
        el("div.budget-head", el("b", one.name.capitalize()), state, el("span.budget-left", figure)),
        el(
            "div.budget-track",
            el(f"span.budget-bar.{tone}", style=f"width:{shown:.1f}%"),
            role="img",
            aria_label=f"error budget of {one.name}: {figure}",
            data_field=f"budget_{one.name}",
        ),
        el("p.minor", words),
        el(
            "p.minor",
            f"{one.missed:,} of {one.of:,} missed · burn rate ",
            el("b", _burn(one.burn_1h)),
            " over the last hour, ",
            el("b", _burn(one.burn_5m)),
            " over 5 minutes",
            title="A burn rate of 1 spends the budget in exactly one window.",
        ),
    )


def _burn(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.2g}" if rate < 100 else f"{rate:,.0f}"


def requests(story: Story) -> Html:
    """Return the requests by status and protocol, and what was refused."""
    found = story.serving
    if found is None or not found.requests:
        return Html("")
    rows = [
        el(
            "tr",
            el("td", pill(_tone(one.status), str(one.status))),
            el("td", one.name),
            el("td.num", f"{one.n:,}"),
            el("td.num", percent(one.share)),
        )
        for one in found.requests
    ]
    head = el("tr", el("th", "Status"), el("th", "Protocol"), el("th.num", "Requests"), el("th.num", "Share"))
    table = el("table", el("thead", head), el("tbody", *rows))
    return join(table, _refusals(found.refused), el("p.panel-note", _over(found)))


def _tone(status: int) -> Tone:
    return "good" if status < 400 else "warn" if status < 500 else "bad"


def _refusals(refused: tuple[Counted, ...]) -> Html:
    if not refused:
        return el("p.minor", "Nothing was refused.")
    said = [
        el("span.check", pill("warn", f"{one.name.replace('_', ' ')} {one.n:,}"), title=percent(one.share))
        for one in refused
    ]
    return el("div.checks", el("span.minor", "Refused "), *said)


def queue(story: Story) -> Html:
    """Return how much waits, of how much may."""
    found = story.serving
    if found is None or not found.workers:
        return Html("")
    share = max(
        found.queued_rows / (found.queued_rows_limit or 1),
        found.queued_bytes / (found.queued_bytes_limit or 1),
    )
    mean = f"{found.mean_batch:.3g} rows in a batch on average" if found.mean_batch else "no batch yet"
    shadow = (
        f"Shadows: {found.shadow_rows:,} rows scored, {found.shadow_dropped:,} left out"
        if found.shadow_rows or found.shadow_dropped
        else ""
    )
    tone = "bad" if share >= 0.9 else "warn" if share >= 0.5 else "info"
    return join(
        el("p.minor", mean),
        el(
            "div.budget-track.thin",
            el(f"span.budget-bar.{tone}", style=f"width:{100 * min(1.0, share):.1f}%"),
            role="img",
            aria_label=f"{percent(share)} of the queue is full",
        ),
        el(
            "p.minor",
            el("b", f"{found.queued_rows:,}", data_field="queued_rows"),
            f" of {found.queued_rows_limit:,} rows wait, {size(found.queued_bytes)} of {size(found.queued_bytes_limit)}",
        ),
        el("p.minor", shadow) if shadow else None,
    )


def runtimes(story: Story) -> Html:
    """Return what computes each variant, why, and which versions are refused."""
    found = story.serving
    if found is None or not (found.runs or found.refused_versions):
        return empty("Nothing is served yet.", story.card.hint)
    return el(
        "div.runs", *(_runs(one) for one in found.runs), *(_refused(one) for one in found.refused_versions)
    )


def _runs(one: Runs) -> Html:
    state = pill("plain", "not prepared") if not one.runtime else pill("info", one.runtime)
    weight = "shadow, answers nobody" if one.shadow else f"{100 * one.weight:.3g} %"
    said: Html | None = None
    if one.proofs:
        said = el("ul.proofs", *(el("li", _unbroken(proof)) for proof in one.proofs))
    elif one.reason or one.replay_rows:
        said = el("p.minor", f"{one.reason} {_proof(one) if one.replay_rows else ''}".strip())
    return el(
        "div.run",
        el(
            "div.run-head", el("b", one.variant), el("span.minor", f"version {one.version} · {weight}"), state
        ),
        el(
            "div.run-body",
            el("div", el("p", one.bands) if one.bands else None, said),
            _timings(one) if one.timings else None,
        ),
        data_run=one.variant,
    )


def _timings(one: Runs) -> Html:
    """Return how long a batch takes, by runtime and rows: the figures, and bars on one logarithmic scale."""
    by = {(timing.runtime, timing.rows): timing.microseconds for timing in one.timings}
    runtimes = list(dict.fromkeys(timing.runtime for timing in one.timings))
    sizes = sorted({timing.rows for timing in one.timings})
    low = math.floor(math.log10(min(by.values())))
    decades = max(1, math.ceil(math.log10(max(by.values()))) - low)

    def cell(runtime: str, rows: int) -> Html:
        time = by.get((runtime, rows))
        if time is None:
            return el("td.num", "-")
        width = 100 * (math.log10(time) - low) / decades
        return el(
            "td.num.serves" if runtime == one.answers.get(rows) else "td.num",
            duration(time / 1000),
            el("i", el("i", style=f"width:{max(2, round(width))}%")),
            title=f"{rows:,} row{'s' if rows > 1 else ''} in {runtime}: {time:,.4g} µs",
        )

    head = el("tr", el("th", "Rows in a batch"), *(el("th.num", f"{rows:,}") for rows in sizes))
    body = [el("tr", el("td", runtime), *(cell(runtime, rows) for rows in sizes)) for runtime in runtimes]
    note = f"coloured is what answers; bars are logarithmic, {duration(10.0**low / 1000)} to {duration(10.0 ** (low + decades) / 1000)}"
    table = el("table.timings", el("thead", head), el("tbody", *body))
    return el("div", table, el("p.panel-note", f"As measured when it was prepared. {note.capitalize()}."))


def _unbroken(text: str) -> str:
    """Let no line break between a figure and its power of ten."""
    return re.sub(r"(?<=\de)-(?=\d)", "\u2011", text)


def _proof(one: Runs) -> str:
    text = f"Replay of {one.replay_rows:,} rows"
    if one.max_difference is not None:
        allowed = f" of {one.tolerance:.3g} allowed" if one.tolerance is not None else ""
        text += f": largest difference {one.max_difference:.2g}{allowed}"
    if one.label_flips is not None:
        flips = (
            f"{one.label_flips:,} label{'s' if one.label_flips != 1 else ''}"
            if one.label_flips
            else "no label"
        )
        text += f", {flips} changed"
    return text + "."


def rules(story: Story) -> Html:
    """Return who may ask, how much, what is logged, and what each serving process does for the deployment."""
    found = story.serving
    if found is None:
        return Html("")
    said = dict(found.rules)
    if found.processes:
        said["workers"] = ", ".join(f"{one.name} {one.state}" for one in found.processes)
    lines = [join(el("dt", topic), el("dd", words)) for topic, words in said.items()]
    return el("dl.rules", *lines)


def _refused(one: RefusedVersion) -> Html:
    return el(
        "div.run.refused",
        el(
            "div.run-head",
            el("b", f"version {one.version}"),
            pill("bad", "refused"),
            el("span.minor", ", ".join(one.workers)),
        ),
        el("p.minor", one.reason),
    )
