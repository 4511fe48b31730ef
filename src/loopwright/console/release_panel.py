"""The release as HTML: its stages one below the other, and the interval on which the verdict rests."""

from __future__ import annotations

from loopwright.console.formats import Reader
from loopwright.console.fragments import empty, pill
from loopwright.console.markup import Html, el, join
from loopwright.console.releases import bounded
from loopwright.console.views import ReleaseNow, Stage, Story, Tone

__all__ = ["release"]

_SIGNS = {"done": "✓", "now": "●", "next": "", "failed": "✕", "skipped": "–"}  # noqa: RUF001 (a dash is meant)
_TONES: dict[str, Tone] = {
    "promoted": "good",
    "rolled_back": "warn",
    "rejected": "warn",
    "failed": "bad",
}


def release(story: Story, reader: Reader) -> Html:
    """Return the panel of the release that is going on, or the last one."""
    found = story.card.release
    if found is None:
        if story.card.mode in {"batch", "edge"}:
            return empty("No release yet: this deployment follows its model's champion.")
        if not story.card.started:
            return empty("No release yet: nothing is in service.", story.card.hint)
        return empty(
            "No release yet. An alert starts one, or:", f"loopwright release start {story.card.name}"
        )
    state = found.state.replace("_", " ")
    return join(
        el(
            "div.release-head",
            pill(_TONES.get(found.state, "info"), state),
            pill("warn", "forced") if found.forced else None,
            el("span.minor", f"since {reader.clock(found.started)} · {found.trigger}"),
        ),
        el("p.summary", found.summary),
        el("ol.stages", *(_stage(stage) for stage in found.stages)),
        _interval(found),
        el("p.minor.reason", found.reason) if found.reason else None,
    )


def _stage(stage: Stage) -> Html:
    return el(
        f"li.{stage.state}",
        el("span.stage-sign", _SIGNS[stage.state], aria_hidden="true"),
        el("span.stage-name", stage.name),
        el("span.stage-detail", stage.detail or ("skipped" if stage.state == "skipped" else "")),
        aria_label=f"{stage.name}: {stage.state}",
    )


def _interval(found: ReleaseNow) -> Html | None:
    """Draw the confidence interval of the loss difference: of the canary, else of the gate."""
    source = found.verdict or found.gate
    if source is None:
        return None
    about = (
        f"canary, {found.verdict.candidate_rows:,} + {found.verdict.champion_rows:,} rows"
        if found.verdict
        else "gate"
    )
    name = f"{found.loss.replace('_', ' ')}, candidate minus champion ({about})"
    if not bounded(source.lower, source.upper):
        return el(
            "div.ci", el("div.ci-name", name), el("p.minor", "Too few labelled rows for an interval yet.")
        )
    low = min(source.lower, -source.margin, 0.0)
    high = max(source.upper, source.margin, 0.0)
    air = (high - low) * 0.08
    low, high = low - air, high + air

    def at(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    left, right = at(source.lower), at(source.upper)
    worse = source.lower > source.margin
    tone = "good" if source.upper < source.margin else "bad" if worse else "info"
    drawing = el(
        "div.ci-track",
        el("span.ci-beyond", style=f"left:{at(source.margin)}%"),
        el("span.ci-line.zero", style=f"left:{at(0.0)}%"),
        el("span.ci-line.margin", style=f"left:{at(source.margin)}%"),
        el(f"span.ci-bar.{tone}", style=f"left:{left}%;width:{max(0.5, right - left)}%"),
        el(f"span.ci-dot.{tone}", style=f"left:{at(source.estimate)}%"),
        role="img",
        aria_label=f"{source.estimate:+.3g}, interval {source.lower:+.3g} to {source.upper:+.3g}",
    )
    text = f"{source.estimate:+.3f} [{source.lower:+.3f}, {source.upper:+.3f}]"
    ends = el(
        "div.ci-ends", el("span", "← better"), el("span", f"margin {source.margin:g}"), el("span", "worse →")
    )
    return el(
        "div.ci",
        el("div.ci-name", name),
        drawing,
        ends,
        el("div.ci-text", el("b", text, data_field="interval"), f" · {_confidence(found)}"),
    )


def _confidence(found: ReleaseNow) -> str:
    if found.verdict is None:
        return "95 % interval on the same rows"
    return f"{100 * (1 - found.verdict.alpha):g} % at any time, look {found.verdict.looks}"
