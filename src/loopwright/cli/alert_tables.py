"""Tables of what users wrote: names of columns, reasons, errors of services."""

from collections.abc import Mapping, Sequence
from typing import Any

from loopwright.cli.output import emit_table

__all__ = ["table"]


def table(rows: Sequence[Mapping[str, Any]], *, empty: str) -> None:
    """Print rows in which brackets are brackets, as in ``width [cm]``."""
    from rich.markup import escape

    safe = [{name: escape(one) if isinstance(one, str) else one for name, one in row.items()} for row in rows]
    emit_table("", safe, empty=empty)
