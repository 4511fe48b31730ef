"""Duplicates: predictions that are in the log twice, and rows that repeat what is declared unique."""

from __future__ import annotations

from loopwright.monitor.base import ALL, Context, Phase
from loopwright.monitor.quality import MIN_ROWS, QUIET, Share, signals
from loopwright.predictions.schema import INPUT
from loopwright.records import Signal

__all__ = ["DuplicatesCheck"]

#: Counting what is distinct in a large window spills to the disk; it must not hold the other monitors up for ever.
TIMEOUT_S = 60.0


class DuplicatesCheck:
    """Fires when too many rows repeat an earlier one of the same window."""

    name = "duplicates"
    phase: Phase = "inputs"

    def run(self, context: Context) -> list[Signal]:
        """Return a signal about prediction ids, and one about the declared columns together.

        A row repeats another when all the declared columns are equal; rows without one of the values are left out.
        """
        asked: list[tuple[str, list[str]]] = []
        if "prediction_id" in context.data.types:
            asked.append(("prediction_id", ["prediction_id"]))
        unique = [self._column(context, name) for name in context.config.quality.unique]
        if unique and all(unique):
            asked.append((", ".join(context.config.quality.unique), [name for name in unique if name]))
        level = QUIET / max(1, 2 * len(asked))
        allowed = context.config.quality.duplicates
        found = []
        for subject, columns in asked:
            names = ['"' + name.replace('"', '""') + '"' for name in columns]
            present = " and ".join(f"{name} is not null" for name in names)
            both = f"[count(*), count(distinct ({', '.join(names)}))]"
            rows, distinct = context.data.query(f"select {both} from predictions where {present}", TIMEOUT_S)
            if rows >= MIN_ROWS:
                found.append((ALL, Share(subject, rows - distinct, rows, 0.0, allowed, allowed)))
        return signals(context, self.name, found, level)

    def _column(self, context: Context, name: str) -> str | None:
        """Return the log's column of a declared one, None where the window has none."""
        return next((known for known in (INPUT + name, name) if known in context.data.types), None)
