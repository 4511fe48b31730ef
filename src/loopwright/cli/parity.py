"""``loopwright parity``: one model, four modes, the same answers."""

import sys

from loopwright.cli.output import COMMON, Common, emit, emit_table

__all__ = ["parity"]


def parity(model: str, /, *, version: int | None = None, rows: int = 200, common: Common = COMMON) -> None:
    """Score the same rows online, in batch, in a stream and on the edge, and print the differences.

    The exit code is 1 when a mode answers differently.

    For example:

        loopwright parity digits --rows 500
    """
    from loopwright import parts
    from loopwright.deploy.parity import parity as measure

    project = common.open()
    parts.connect(project)
    found = measure(project, model, rows=rows, version=version)
    if common.json:
        emit(found)
    else:
        emit_table(
            f"{model}/{found.version}: {found.rows} rows, against {found.reference}",
            [
                {
                    "mode": mode.mode,
                    "rows": mode.rows,
                    "max difference": f"{mode.max_difference:.2g}",
                    "label flips": mode.label_flips,
                    "how": mode.how,
                }
                for mode in found.modes
            ],
            empty="Nothing was compared.",
        )
    if not found.ok:
        sys.exit(1)
