"""Dimension "people": only traces that working together leaves in git. The rest cannot be observed."""

from __future__ import annotations

from collections.abc import Iterator

from loopwright.config import FILE
from loopwright.maturity.facts import ATTEST, Fact
from loopwright.maturity.observed import CODEOWNERS, Observed

__all__ = ["facts"]


def facts(seen: Observed) -> Iterator[Fact]:
    """Yield the facts about people."""
    authors, code = len(seen.repository.authors), ", ".join(seen.code[1:]) or "the pipelines"
    yield _fact(
        "L2.9",
        2,
        "Data scientists and engineers work on the training code together (seen as two authors in git)",
        f"{authors} authors of {code}" if authors >= 2 else "",
        f"authors of {code} in git: {authors}",
        f"git shortlog -sn -- {' '.join(seen.code[1:])}",
    )
    owners = [name for name in CODEOWNERS if name in seen.repository.files]
    yield _fact(
        "L3.7",
        3,
        "It is settled who owns the code and approves changes (seen as a CODEOWNERS file)",
        owners[0] if owners else "",
        "no CODEOWNERS in git",
        "git add CODEOWNERS && git commit -m 'Name the owners'",
    )
    deciders, named = len(seen.repository.deciders), " ".join(seen.repository.owners)
    yield _fact(
        "L4.9",
        4,
        f"The metrics that are watched are agreed on and owned (seen as two authors of {FILE} and its CODEOWNERS)",
        f"{deciders} authors of {FILE}, owned by {named}" if deciders >= 2 and named else "",
        f"authors of {FILE} in git: {deciders}, owners: {named or 'none'}",
        f"echo '{FILE} @OWNER' >> CODEOWNERS && git add CODEOWNERS && git commit -m 'Name who owns the metrics'",
    )


def _fact(name: str, level: int, statement: str, seen: str, missing: str, command: str) -> Fact:
    """Return a fact: observed where there is a trace, else unknown, for people may well do it without a trace."""
    return Fact(
        name, level, "people", statement, True if seen else None, seen or f"{missing}; {ATTEST}", command
    )
