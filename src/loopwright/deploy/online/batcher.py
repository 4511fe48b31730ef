"""Micro-batches that form by themselves: what is decoded in one turn of the event loop is scored together.

There is no timer: a lone request is scored in the next turn and waits for nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import msgspec

from loopwright.deploy.base import Answers, Predictor, Route
from loopwright.deploy.online.decode import Decoder, Row
from loopwright.errors import LoopwrightError
from loopwright.records import Scalar

__all__ = ["LOOP_ROWS", "Batcher", "Request"]

#: Rows that are scored at once on the event loop; more would hold it for milliseconds, so they go to a thread.
LOOP_ROWS = 256

_encode = msgspec.json.Encoder().encode


class _Answer(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """One answer as it is sent; a regression has no `probability`."""

    prediction_id: str
    prediction: Any
    probability: dict[str, float] | None = None
    model: str
    version: int
    variant: str


@dataclass(slots=True)
class Request:
    """One request between decoding and answering. `route` is what its rows were checked against."""

    rows: list[Row]
    single: bool
    decoder: Decoder
    route: Route
    entities: list[str | None]
    request_id: str
    received: float


@dataclass(slots=True)
class _Waiting:
    request: Request
    answer: asyncio.Future[bytes]


_Outcome = bytes | LoopwrightError


class Batcher:
    """Collects the requests of one deployment and answers them together.

    Parameters
    ----------
    predictor
        Scores and logs.
    executor
        Threads for what would hold the event loop.
    synced
        Whether logging waits for the disk. Batches then go to a thread one after the other, and what arrives
        meanwhile forms the next one.
    """

    def __init__(self, predictor: Predictor, executor: Executor, *, synced: bool) -> None:
        self.predictor = predictor
        self._executor = executor
        self._synced = synced
        self._waiting: list[_Waiting] = []
        self._scheduled = False
        self._syncing = False
        self._names: tuple[tuple[Scalar, ...], list[str]] = ((), [])

    async def submit(self, request: Request) -> bytes:
        """Answer one request; its rows are in the prediction log when this returns.

        Raises
        ------
        LoopwrightError
            What `Predictor.predict` raises for these rows; others in the same batch are not affected.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bytes] = loop.create_future()
        self._waiting.append(_Waiting(request, answer))
        if not self._scheduled and not self._syncing:
            self._scheduled = True
            loop.call_soon(self._flush)
        return await answer

    def _flush(self) -> None:
        self._scheduled = False
        waiting, self._waiting = self._waiting, []
        small = [one for one in waiting if len(one.request.rows) <= LOOP_ROWS]
        for one in waiting:
            if len(one.request.rows) > LOOP_ROWS:
                self._in_thread([[one]])
        if not small:
            return
        batches = list(_batches(small))
        if self._synced:
            self._syncing = True
            self._in_thread(batches, then=self._synced_once)
        else:
            for batch in batches:
                _deliver(batch, self.answer([one.request for one in batch]))

    def _synced_once(self) -> None:
        self._syncing = False
        if self._waiting:
            self._flush()

    def _in_thread(self, batches: list[list[_Waiting]], then: Any = None) -> None:
        def work() -> list[list[_Outcome]]:
            return [self.answer([one.request for one in batch]) for batch in batches]

        def done(future: asyncio.Future[list[list[_Outcome]]]) -> None:
            if not future.cancelled():
                for batch, outcomes in zip(batches, future.result(), strict=True):
                    _deliver(batch, outcomes)
            if then is not None:
                then()

        asyncio.get_running_loop().run_in_executor(self._executor, work).add_done_callback(done)

    def answer(self, requests: list[Request]) -> list[_Outcome]:
        """Answer requests that share a route together; an error of one does not reach the others."""
        try:
            return self._together(requests)
        except LoopwrightError as error:
            outcome = error
        except Exception as error:  # noqa: BLE001  (a request is never met with silence, whatever went wrong)
            outcome = LoopwrightError(f"The prediction failed: {type(error).__name__}: {error}")
            outcome.__cause__ = error
        if len(requests) == 1:
            return [outcome]
        return [self.answer([one])[0] for one in requests]

    def _together(self, requests: list[Request]) -> list[_Outcome]:
        first = requests[0]
        if len(requests) == 1:
            rows, entities, received = first.rows, first.entities, [first.received] * len(first.rows)
        else:
            rows = [row for one in requests for row in one.rows]
            entities = [entity for one in requests for entity in one.entities]
            received = [one.received for one in requests for _ in one.rows]
        named = any(one.request_id for one in requests)
        answers = self.predictor.predict(
            first.decoder.columns(rows),
            entities=entities,
            request_ids=[one.request_id for one in requests for _ in one.rows] if named else None,
            received=received,
            route=first.route,
        )
        made = self._rows(answers)
        bodies: list[_Outcome] = []
        at = 0
        for one in requests:
            own = made[at : at + len(one.rows)]
            bodies.append(_encode(own[0] if one.single else {"predictions": own}))
            at += len(one.rows)
        return bodies

    def _rows(self, answers: Answers) -> list[_Answer]:
        if self._names[0] is not answers.classes:
            self._names = answers.classes, [str(label) for label in answers.classes]
        names = self._names[1]
        shares: list[dict[str, float] | None] = [None] * len(answers)
        if answers.probability is not None:
            # NaN: this row's variant gives no probability.
            shares = [
                dict(zip(names, row, strict=True)) if row[0] == row[0] else None
                for row in answers.probability.tolist()
            ]
        columns = (answers.prediction_id, answers.prediction.tolist(), shares, answers.version.tolist())
        return [
            _Answer(
                prediction_id=one,
                prediction=prediction,
                probability=share,
                model=answers.model,
                version=version,
                variant=variant,
            )
            for one, prediction, share, version, variant in zip(*columns, answers.variant, strict=True)
        ]


def _batches(waiting: list[_Waiting]) -> Iterator[list[_Waiting]]:
    """Cut requests into batches of one route and at most `LOOP_ROWS` rows, in their order."""
    batch: list[_Waiting] = []
    size = 0
    for one in waiting:
        rows = len(one.request.rows)
        if batch and (size + rows > LOOP_ROWS or one.request.route is not batch[0].request.route):
            yield batch
            batch, size = [], 0
        batch.append(one)
        size += rows
    if batch:
        yield batch


def _deliver(batch: list[_Waiting], outcomes: list[_Outcome]) -> None:
    for one, outcome in zip(batch, outcomes, strict=True):
        if one.answer.done():
            continue
        if isinstance(outcome, LoopwrightError):
            one.answer.set_exception(outcome)
        else:
            one.answer.set_result(outcome)
