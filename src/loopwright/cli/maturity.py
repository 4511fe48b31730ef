"""``loopwright maturity``: the level, from observed facts."""

from loopwright.cli.output import COMMON, Common, console, emit, emit_table

__all__ = ["maturity"]


def maturity(*, common: Common = COMMON) -> None:
    """Compute the MLOps maturity level, 0 to 4, from what the ledger shows; each missing fact names its command.

    For example:

        loopwright maturity
    """
    from loopwright.ledger import Ledger
    from loopwright.maturity import assess

    project = common.open()
    found = assess(project, Ledger.open(project))
    if common.json:
        emit(found)
        return
    emit_table(
        "",
        [
            {
                "fact": fact.id,
                "level": fact.level,
                "held": {True: "yes", False: "no", None: "unknown"}[fact.ok],
                "what": fact.statement,
                "evidence or next command": fact.evidence if fact.ok else fact.command,
            }
            for fact in found.facts
        ],
        empty="",
    )
    console.print(f"Maturity level [bold]{found.level}[/bold] of 4.")
