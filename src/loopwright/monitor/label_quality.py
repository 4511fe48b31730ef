"""The labels themselves: those of no use, which would otherwise look as if none had come, and those before their time.

A label is of no use when it has no value of the prediction's type, such as text where the model predicts a number: a
column was renamed, a unit was added, another table is joined. One that was true before its prediction was made was known
by then, or is joined to the wrong row. A class the model does not know is a label as any other: the model is wrong there.
"""

from __future__ import annotations

from loopwright.monitor.base import Context, Phase
from loopwright.monitor.quality import MIN_ROWS, QUIET, chance, signal
from loopwright.records import Signal

__all__ = ["LabelQualityCheck"]

#: The share of labels that may be wrong, 0 to 1.
FLOOR = 0.01
#: A label may be this much older than its prediction, in microseconds: machines' clocks differ.
_SLACK_US = 1_000_000
_TIMEOUT_S = 60.0
#: What is counted among the rows that have a label, for each subject.
_COUNTED = {
    "unusable": "actual is null",
    "before the prediction": f"epoch_us(actual_at) < epoch_us(at) - {_SLACK_US}",
}


class LabelQualityCheck:
    """Fires when clearly more than 1 % of a window's labels cannot be used, or lie before their prediction.

    Clearly: by the exact binomial test, at a level that both tests together share.
    """

    name = "labels"
    phase: Phase = "labels"

    def run(self, context: Context) -> list[Signal]:
        """Return a signal for each kind of wrong label; none with fewer than 30 labels."""
        if not {"labelled_at", "actual_at"} <= context.data.types.keys():
            return []  # rows of a simulation, whose labels have no times
        labels = self._count(context, "true")
        if labels < MIN_ROWS:
            return []
        found = []
        for subject, condition in _COUNTED.items():
            hits = self._count(context, condition)
            share, p = hits / labels, chance(hits, labels, FLOOR)
            fired = share > FLOOR and p <= QUIET / len(_COUNTED)
            detail = {"hits": hits, "p": p}
            found.append(signal(context, self.name, subject, share, FLOOR, labels, fired, detail=detail))
        return found

    @staticmethod
    def _count(context: Context, condition: str) -> int:
        query = f"select count(*) from predictions where labelled_at is not null and {condition}"
        return int(context.data.query(query, _TIMEOUT_S) or 0)
