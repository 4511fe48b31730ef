"""Writing predictions."""

from __future__ import annotations

from loopwright.config import Project
from loopwright.predictions.files import of_deployment
from loopwright.predictions.rolling import Durability, RollingLog
from loopwright.predictions.rows import Predictions
from loopwright.predictions.schema import Layout
from loopwright.records import Signature

__all__ = ["PredictionLog"]


class PredictionLog:
    """The prediction log of one deployment in one process. Thread-safe.

    Parameters
    ----------
    project, deployment, model
        Whose predictions these are.
    signature
        What the model takes and gives: the columns of the log.
    durability
        ``process``: an append returns when the rows survive the death of this process; ``power``: when they also
        survive a power cut, which waits for the disk.
    seal_rows, seal_bytes, seal_after_s
        When a tail is sealed to Parquet: at so many rows or bytes, or at this age in seconds; one below 1 MB waits
        twelve times as long. Every tail also ends with the UTC day.
    shadow
        Whether these are predictions of shadow variants, which answered nobody; they lie in a log of their own.
    """

    def __init__(
        self,
        project: Project,
        deployment: str,
        model: str,
        signature: Signature,
        *,
        durability: Durability = "process",
        seal_rows: int = 131_072,
        seal_bytes: int = 32 << 20,
        seal_after_s: float = 300.0,
        shadow: bool = False,
    ) -> None:
        self._deployment = deployment
        self._model = model
        self._signature = signature
        # By identity, with the signature kept so that its identity stays taken: comparing 64 columns costs more than
        # writing a row.
        self._layouts: dict[int, tuple[Signature, Layout]] = {}
        self._log = RollingLog(
            project,
            of_deployment(project, deployment, shadow),
            durability=durability,
            seal_rows=seal_rows,
            seal_bytes=seal_bytes,
            seal_after_s=seal_after_s,
        )

    def append(self, rows: Predictions, signature: Signature | None = None) -> None:
        """Append rows and return when they are durable; all of them or none.

        Parameters
        ----------
        rows
            Predictions of one model version, or of several versions with the same signature.
        signature
            The signature of the version that made them, where it is not the one the log was opened with, as while a
            candidate with other inputs takes a share. Such rows go to a tail of their own.

        Raises
        ------
        SchemaMismatch
            A column is not as long as the others or holds values of another type.
        Unavailable
            The disk does not take them, or the log is closed; nothing of them is kept.
        """
        if not len(rows):
            return
        layout = self._layout(signature or self._signature)
        self._log.append(layout.kind, layout.tail_schema, layout.encode(rows), len(rows))

    def _layout(self, signature: Signature) -> Layout:
        known = self._layouts.get(id(signature))
        if known is None:
            known = signature, Layout.of(self._deployment, self._model, signature)
            self._layouts[id(signature)] = known
        return known[1]

    def maintain(self) -> None:
        """Seal what is full or old enough; call it about once a second. Raises `Unavailable` on a full disk."""
        self._log.maintain()

    def close(self) -> None:
        """Seal and stop; what cannot be sealed stays readable."""
        self._log.close()
