"""The maturity level as HTML: what was observed, level by level."""

from __future__ import annotations

from loopwright.console.fragments import code, pill
from loopwright.console.markup import Html, el, join
from loopwright.console.views import Tone
from loopwright.maturity import Assessment, Fact

__all__ = ["maturity"]

_NAMES = ("DevOps, no MLOps", "Automated training", "Automated deployment", "Full automation")


def maturity(found: Assessment | None) -> Html:
    """Return the level, and per level which facts were observed."""
    if found is None:
        return Html("")
    dimensions = " · ".join(f"{name} {level}" for name, level in found.dimensions.items())
    head = el(
        "div.section",
        el("h1", "Maturity"),
        pill("info" if found.level else "plain", f"level {found.level} of 4"),
        el("span.minor", f"observed, not asked: {dimensions}"),
    )
    columns = [
        _level(level, [fact for fact in found.facts if fact.level == level], level == found.level + 1)
        for level in range(1, 5)
    ]
    return join(head, el("div.levels", *columns))


def _level(level: int, facts: list[Fact], due: bool) -> Html:
    """Return one level with its facts; `due` is the one that comes next, which says how to get there."""
    held = sum(fact.ok is True for fact in facts)
    tone: Tone = "good" if held == len(facts) else "plain"
    title = el("h3", pill(tone, f"{held} of {len(facts)}"), f"Level {level}: {_NAMES[level - 1]}")
    return el(
        "div.panel.level", title, el("ul", *(_fact(fact, due and fact.ok is not True) for fact in facts))
    )


def _fact(fact: Fact, due: bool) -> Html:
    sign = {True: "✓", False: "✕", None: "?"}[fact.ok]
    note = fact.evidence if fact.ok else f"{fact.evidence}. Next: {fact.command}"
    return el(
        "li.held" if fact.ok else "li",
        el("span.sign", sign, aria_hidden="true"),
        el(
            "div",
            el("span", fact.statement, title=note),
            el("div.minor", fact.evidence) if due else None,
            code(fact.command) if due else None,
        ),
        data_fact=fact.id,
    )
