"""Micro-batches that form by themselves: what is decoded in one turn of the event loop is scored together.

There is no timer: a lone request is scored in the next turn and waits for nobody.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from loopwright.deploy.base import Answers, Predictor
from loopwright.deploy.online.decode import Decoder
from loopwright.errors import LoopwrightError

__all__ = ["Batcher"]

#: Rows that are scored at once on the event loop; more would hold it for milliseconds.
LOOP_ROWS = 256


@dataclass(slots=True)
class _Waiting:
    """One request between decoding and answering."""

    rows: list[tuple[Any, ...]]
    decoder: Decoder
    entities: list[str] | None
    request_id: str
    received: float
    answer: asyncio.Future[tuple[Answers, int]]


class Batcher:
    """Collects the requests of one deployment and answers them together.

    Parameters
    ----------
    predictor
        Scores and logs.
    threaded
        Whether every batch goes to a thread, because logging waits for the disk.
    """

    def __init__(self, predictor: Predictor, *, threaded: bool) -> None:
        self.predictor = predictor
        self._threaded = threaded
        self._waiting: list[_Waiting] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def submit(
        self,
        rows: list[tuple[Any, ...]],
        decoder: Decoder,
        entities: list[str] | None,
        request_id: str,
        received: float,
    ) -> tuple[Answers, int]:
        """Answer the rows of one request.

        Returns
        -------
        tuple of Answers and int
            The answers of the whole batch, and where this request's rows begin in them.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[tuple[Answers, int]] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._flush)
        self._waiting.append(_Waiting(rows, decoder, entities, request_id, received, answer))
        return await answer

    def _flush(self) -> None:
        """Score what has come together, in batches of rows that were decoded alike."""
        waiting, self._waiting = self._waiting, []
        batch: list[_Waiting] = []
        size = 0
        for one in waiting:
            if batch and (size + len(one.rows) > LOOP_ROWS or one.decoder is not batch[0].decoder):
                self._run(batch, size)
                batch, size = [], 0
            batch.append(one)
            size += len(one.rows)
        if batch:
            self._run(batch, size)

    def _run(self, batch: list[_Waiting], size: int) -> None:
        if size <= LOOP_ROWS and not self._threaded:
            self._deliver(batch, *self._score(batch))
            return
        task = asyncio.ensure_future(self._in_thread(batch))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _in_thread(self, batch: list[_Waiting]) -> None:
        self._deliver(batch, *await asyncio.to_thread(self._score, batch))

    def _score(self, batch: list[_Waiting]) -> tuple[Answers | None, LoopwrightError | None]:
        try:
            rows = [row for one in batch for row in one.rows]
            ids = None
            entities: list[str] | None = None
            if any(one.entities is not None for one in batch):
                ids = self.predictor.new_ids(len(rows))
                entities, at = [], 0
                for one in batch:
                    entities += one.entities if one.entities is not None else ids[at : at + len(one.rows)]
                    at += len(one.rows)
            return self.predictor.predict(
                batch[0].decoder.columns(rows),
                entities=entities,
                ids=ids,
                request_ids=[one.request_id for one in batch for _ in one.rows],
                received=[one.received for one in batch for _ in one.rows],
            ), None
        except LoopwrightError as error:
            return None, error
        except Exception as error:
            # A request is never answered with silence: whatever went wrong reaches its caller.
            wrapped = LoopwrightError(f"The prediction failed: {type(error).__name__}: {error}.")
            wrapped.__cause__ = error
            return None, wrapped

    def _deliver(self, batch: list[_Waiting], answers: Answers | None, error: LoopwrightError | None) -> None:
        if answers is None and len(batch) > 1:
            # One request's rows must not fail the others': each alone now.
            for one in batch:
                self._run([one], len(one.rows))
            return
        at = 0
        for one in batch:
            if not one.answer.done():
                if answers is not None:
                    one.answer.set_result((answers, at))
                else:
                    assert error is not None
                    one.answer.set_exception(error)
            at += len(one.rows)
