"""Micro-batches that form by themselves: what is decoded in one turn of the event loop is scored together.

There is no timer: a lone request is scored in the next turn and waits for nobody. What would hold the loop goes to a
thread, one batch of a deployment at a time, and what arrives meanwhile forms the next.
"""

from __future__ import annotations

import asyncio
import logging
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Executor

from loopwright.deploy.base import Answers, Predictor, Route
from loopwright.deploy.online.codecs.base import Reply
from loopwright.deploy.online.limits import Admission, Late
from loopwright.deploy.online.meters import Meter, VariantMeter
from loopwright.deploy.online.request import Request
from loopwright.errors import LoopwrightError
from loopwright.registry.blocks import Blocks
from loopwright.scoring import Scorer

__all__ = ["LOOP_ROWS", "Batcher"]

#: Rows that are scored at once on the event loop; more would hold it for milliseconds, so they go to a thread.
LOOP_ROWS = 256
#: A batch is not cut smaller than this for the sake of its runtime.
LEAST_ROWS = 32
#: Bytes of bodies in one batch: what a batch holds in memory at once.
BATCH_BYTES = 4 << 20
#: A model that takes so many seconds for a batch of at most `LOOP_ROWS` is called in a thread.
SLOW_S = 0.004
#: Rows of a usual batch, for what was timed beforehand.
FEW_ROWS = 16
#: Seconds between two looks at the deadlines of what is in threads.
LOOK_S = 0.05

logger = logging.getLogger(__name__)
#: A reply, the answers it was written from, and its first row among them; or why there is none.
_Outcome = tuple[Reply, Answers, int] | LoopwrightError


class Batcher:
    """Collects the requests of one deployment and answers them together. All methods are for the loop's thread.

    Parameters
    ----------
    predictor
        Scores and logs.
    executor
        Threads for what would hold the event loop.
    synced
        Whether logging waits for the disk: then every batch goes to a thread.
    admission
        Bounds what waits in this worker.
    meter
        Where this deployment is counted.
    ended
        Called with each request that was answered and the status it got, for the records that are kept of requests.
    """

    def __init__(
        self,
        predictor: Predictor,
        executor: Executor,
        *,
        synced: bool,
        admission: Admission,
        meter: Meter,
        ended: Callable[[Request, int, Answers | None, int], None] | None = None,
    ) -> None:
        self.predictor = predictor
        self.meter = meter
        self.ended = ended
        self._executor = executor
        self._synced = synced
        self.admission = admission
        self._waiting: list[Request] = []
        self._away: set[Request] = set()
        self._scheduled = self._busy = self._looking = False
        #: Seconds of a usual batch, as they were lately.
        self._usual_s = 0.0
        self._most_rows = LOOP_ROWS
        # By weak reference: what is no longer served is to be given back, also when nobody asks again.
        self._counted: tuple[Callable[[], Route | None], list[VariantMeter]] = (lambda: None, [])

    def submit(self, request: Request) -> None:
        """Take one decoded request; it is answered, or failed, later.

        Raises
        ------
        Overloaded
            Too much waits in this worker.
        """
        asked = request.asked
        if not self.admission.enter(asked.n, request.size):
            self.meter.refuse("queue_full")
            raise self.admission.refusal()
        self.meter.queued_rows += asked.n
        self.meter.queued_bytes += request.size
        self._waiting.append(request)
        if self._busy:
            self._watch()
        elif not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        waiting, self._waiting = self._waiting, []
        now = time.monotonic()
        add = self.meter.queue.add
        small: list[Request] = []
        for request in waiting:
            if now > request.deadline:
                self._late(request)
            elif request.asked.n > LOOP_ROWS:
                add(now - request.decoded)
                self._in_thread([[request]])
            else:
                add(now - request.decoded)
                small.append(request)
        if not small:
            return
        self._meters(small[0].route)
        batches = [small] if len(small) == 1 else list(_batches(small, self._most_rows))
        if self._synced or self._usual_s > SLOW_S:
            self._busy = True
            self._in_thread(batches, then=self._free)
        else:
            for batch in batches:
                self._deliver(batch, self.answer(batch))

    def _free(self) -> None:
        self._busy = False
        if self._waiting:
            self._flush()

    def _in_thread(self, batches: list[list[Request]], then: Callable[[], None] | None = None) -> None:
        loop = asyncio.get_running_loop()

        def work() -> None:
            for batch in batches:
                # Each batch is answered when it is ready, not when all are.
                loop.call_soon_threadsafe(self._deliver, batch, self.answer(batch))

        def done(future: asyncio.Future[None]) -> None:
            if not future.cancelled() and (error := future.exception()) is not None:
                logger.error("a batch of %s was lost", self.predictor.name, exc_info=error)
            if then is not None:
                then()

        self._away.update(request for batch in batches for request in batch)
        self._watch()
        loop.run_in_executor(self._executor, work).add_done_callback(done)

    def _watch(self) -> None:
        if not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def _look(self) -> None:
        """Tell the callers of what is in threads, and of what waits behind it, when their time is over."""
        now = time.monotonic()
        for request in [one for one in self._away if now > one.deadline]:
            self._away.discard(request)
            self._late(request)
        if self._busy and any(now > one.deadline for one in self._waiting):
            late = [one for one in self._waiting if now > one.deadline]
            self._waiting = [one for one in self._waiting if now <= one.deadline]
            for request in late:
                self._late(request)
        self._looking = False
        if self._away or self._waiting:
            self._watch()

    def _late(self, request: Request) -> None:
        waited = (time.monotonic() - request.received) * 1000.0
        self.meter.refuse("timeout")
        self._leave(request)
        self.fail(
            request,
            Late(
                f"The answer was not there after {waited:.0f} ms.",
                valid="The deadline is timeout of the deployment in loopwright.toml, or less where x-timeout-ms says so.",
                hint="send fewer records at once, or try again",
            ),
        )

    def fail(self, request: Request, error: LoopwrightError) -> None:
        """Answer a request with an error, and count it."""
        if request.ended:
            return
        request.ended = True
        self.meter.request(request.protocol, error.http_status)
        if error.__cause__ is not None and error.http_status >= 500:
            logger.error("%s: %s", self.predictor.name, error, exc_info=error.__cause__)
        request.fail(error)
        if self.ended is not None:
            self.ended(request, error.http_status, None, 0)

    def answer(self, requests: list[Request]) -> list[_Outcome]:
        """Answer requests that share a route together; an error of one does not reach the others."""
        try:
            answers = self._predict(requests)
        except LoopwrightError as error:
            outcome = error
        except Exception as error:  # noqa: BLE001  (a request is never met with silence, whatever went wrong)
            outcome = _unexpected("The prediction", error)
        else:
            return self._write(requests, answers)
        if len(requests) == 1:
            return [outcome]
        return [self.answer([one])[0] for one in requests]

    def _predict(self, requests: list[Request]) -> Answers:
        first = requests[0]
        if len(requests) == 1:
            return self._predict_one(first)
        columns = _columns(requests)
        entities: list[str | None] | None = None
        if any(one.asked.entities or one.details.entity for one in requests):
            entities = [entity for one in requests for entity in _entities(one)]
        plain = all(one.details.request_id == one.details.trace == "" for one in requests)
        return self.predictor.predict(
            columns,
            entities=entities,
            request_ids=None
            if plain
            else [one.details.request_id for one in requests for _ in range(one.asked.n)],
            traces=None if plain else [one.details.trace for one in requests for _ in range(one.asked.n)],
            received=[one.received for one in requests for _ in range(one.asked.n)],
            route=first.route,
            places=(
                [one.place for one in requests for _ in range(one.asked.n)]
                if any(one.place is not None for one in requests)
                else None
            ),
        )

    def _predict_one(self, request: Request) -> Answers:
        n, details = request.asked.n, request.details
        entities: list[str | None] | None = None
        if request.asked.entities or details.entity:
            entities = _entities(request)
        return self.predictor.predict(
            _columns([request]),
            entities=entities,
            request_ids=[details.request_id] * n if details.request_id else None,
            traces=[details.trace] * n if details.trace else None,
            received=request.received,
            route=request.route,
            places=None if request.place is None else [request.place] * n,
        )

    def _write(self, requests: list[Request], answers: Answers) -> list[_Outcome]:
        """Write the replies; the predictions are made and logged, whatever becomes of one reply."""
        started = time.monotonic()
        outcomes: list[_Outcome] = []
        at = 0
        for one in requests:
            try:
                outcomes.append((one.codec.encode(answers, at, one.asked), answers, at))
            except LoopwrightError as error:
                outcomes.append(error)
            except Exception as error:  # noqa: BLE001  (as above)
                outcomes.append(_unexpected("The reply", error))
            at += one.asked.n
        self._count(requests[0].route, answers, time.monotonic() - started)
        return outcomes

    def _count(self, route: Route, answers: Answers, encode_s: float) -> None:
        meter, n = self.meter, len(answers)
        meter.log.add(answers.log_s)
        meter.encode.add(encode_s)
        meter.batch_rows.add(n)
        meters = self._meters(route)
        for place, rows, seconds in answers.parts:
            meters[place].score.add(seconds)
            meters[place].rows += rows
        if n <= LOOP_ROWS:
            self._usual_s += 0.2 * (answers.score_s - self._usual_s)

    def _meters(self, route: Route) -> list[VariantMeter]:
        """Return what counts each variant of a route, by place."""
        if self._counted[0]() is not route:
            found = [
                self.meter.variant(variant.name, variant.version, scorer.runtime)
                for variant, scorer in zip(route.variants, route.scorers, strict=True)
            ]
            self.meter.serves(found)
            # What was timed when the versions were prepared, until it is known better: a slow one is never on the loop.
            self._usual_s = max(self._usual_s, *(_timed_s(scorer) for scorer in route.scorers))
            # Where another runtime would take over, a batch is cut: requests of few rows never cause it to be loaded.
            own = min(scorer.own_rows for scorer in route.scorers)
            self._most_rows = min(LOOP_ROWS, max(own, LEAST_ROWS))
            self._counted = weakref.ref(route), found
        return self._counted[1]

    def _leave(self, request: Request) -> None:
        self.admission.leave(request.asked.n, request.size)
        self.meter.queued_rows -= request.asked.n
        self.meter.queued_bytes -= request.size

    def _deliver(self, batch: list[Request], outcomes: list[_Outcome]) -> None:
        done = time.monotonic()
        meters = self._meters(batch[0].route)
        away, ended, count = self._away, self.ended, self.meter.request
        for request, outcome in zip(batch, outcomes, strict=True):
            if request.ended:
                continue
            if away:
                away.discard(request)
            self._leave(request)
            if isinstance(outcome, LoopwrightError):
                self.fail(request, outcome)
                continue
            reply, answers, first = outcome
            request.ended = True
            request.reply(reply)
            place = 0 if answers.places is None else answers.places[first]
            meters[place].latency.add(done - request.received)
            count(request.protocol, 200)
            if ended is not None:
                ended(request, 200, answers, first)


def _timed_s(scorer: Scorer) -> float:
    """Return how long a scorer took for a few rows when its version was prepared, in seconds; 0 when nobody knows."""
    own = [one for one in scorer.manifest.timings if one.runtime == scorer.runtime and one.rows <= FEW_ROWS]
    return max((one.microseconds for one in own), default=0.0) / 1e6


def _unexpected(what: str, error: Exception) -> LoopwrightError:
    made = LoopwrightError(f"{what} failed: {type(error).__name__}: {error}")
    made.__cause__ = error
    return made


def _entities(request: Request) -> list[str | None]:
    """Return who each row is about: what the row itself says goes before the header."""
    given = request.details.entity or None
    own = request.asked.entities
    return [given] * request.asked.n if own is None else [entity or given for entity in own]


def _columns(requests: list[Request]) -> Blocks:
    """Return the rows of requests with the same inputs below each other."""
    first = requests[0]
    if all(one.asked.rows is not None for one in requests):
        if len(requests) == 1:
            return first.decoder.columns(first.asked.rows or [])
        return first.decoder.columns([row for one in requests for row in one.asked.rows or ()])
    return Blocks.concatenated([_own_columns(one) for one in requests])


def _own_columns(request: Request) -> Blocks:
    columns = request.asked.columns
    return request.decoder.columns(request.asked.rows or []) if columns is None else columns


def _batches(waiting: list[Request], most: int) -> Iterator[list[Request]]:
    """Cut requests into batches of one route, at most `most` rows and `BATCH_BYTES` bytes, in their order."""
    batch: list[Request] = []
    rows = size = 0
    for one in waiting:
        n = one.asked.n
        full = rows + n > most or size + one.size > BATCH_BYTES
        if batch and (full or one.route is not batch[0].route):
            yield batch
            batch, rows, size = [], 0, 0
        batch.append(one)
        rows += n
        size += one.size
    if batch:
        yield batch
