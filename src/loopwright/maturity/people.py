"""Dimension "people": only traces that working together leaves in git. The rest cannot be observed."""

from __future__ import annotations

from collections.abc import Iterator

from loopwright.maturity.facts import ATTEST, Fact
from loopwright.maturity.observed import Observed

__all__ = ["facts"]

_OWNERS = ("CODEOWNERS", ".github/CODEOWNERS", "docs/CODEOWNERS")


def facts(seen: Observed) -> Iterator[Fact]:
    """Yield the facts about people."""
    authors = len(seen.repository.authors)
    yield Fact(
        "L2.9",
        2,
        "people",
        "Data scientists and engineers work on the training code together (seen as two authors in git)",
        True if authors >= 2 else None,
        f"{authors} authors of {', '.join(seen.code[1:])}" if authors >= 2 else f"{authors} author; {ATTEST}",
        f"git shortlog -sn -- {' '.join(seen.code[1:])}",
    )
    owners = [name for name in _OWNERS if name in seen.repository.files]
    yield Fact(
        "L3.7",
        3,
        "people",
        "It is settled who owns the code and approves changes (seen as a CODEOWNERS file)",
        True if owners else None,
        owners[0] if owners else f"no CODEOWNERS in git; {ATTEST}",
        "git add CODEOWNERS && git commit -m 'Name the owners'",
    )
    yield Fact(
        "L4.9",
        4,
        "people",
        "Data scientists and engineers have agreed on the metrics that are watched, and each has an owner",
        None,
        ATTEST,
        "loopwright maturity",
    )
