"""One deployment in one serving process: from a complete request to the batch it is answered in."""

from __future__ import annotations

import asyncio
import dataclasses
import time
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass

from loopwright import plugins
from loopwright.deploy.base import Predictor, Route
from loopwright.deploy.online.batcher import Batcher
from loopwright.deploy.online.codecs.base import Codec
from loopwright.deploy.online.codecs.options import Options
from loopwright.deploy.online.codecs.records import Records
from loopwright.deploy.online.request import Request
from loopwright.errors import LoopwrightError
from loopwright.records import Signature

__all__ = ["LARGE_BODY", "RECORDS", "Service"]

#: The protocol of plain JSON records.
RECORDS = "records"
#: Bodies from here on are decoded in a thread.
LARGE_BODY = 256 * 1024
#: Seconds between two looks whether a model that was asleep is loaded.
WAKE_S = 0.02


@dataclass(slots=True)
class _Made:
    """The codecs for a route, which is kept by weak reference: what is no longer served is to be given back."""

    route: Callable[[], Route | None]
    signature: Signature | None
    entity: str | None
    codecs: dict[str, Codec]


class Service:
    """One deployment: its predictor, its batches, and the codecs for what it serves now.

    Parameters
    ----------
    predictor, batcher
        Of this deployment.
    executor
        Threads for large bodies.
    """

    def __init__(self, predictor: Predictor, batcher: Batcher, executor: Executor) -> None:
        self.predictor = predictor
        self.batcher = batcher
        self._executor = executor
        self._made = _Made(lambda: None, None, None, {})

    @property
    def name(self) -> str:
        """The deployment's name."""
        return self.predictor.name

    def codec(self, protocol: str, route: Route) -> Codec:
        """Return what reads and writes a protocol for a route; a new version with the same inputs keeps it."""
        entity = self.predictor.config.entity
        # Read once: a large body is decoded in a thread, for a route that may be another by now.
        made = self._made
        if made.route() is not route or made.entity != entity:
            alike = (made.signature, made.entity) == (route.signature, entity)
            codecs = made.codecs if alike else {}
            self._made = made = _Made(weakref.ref(route), route.signature, entity, codecs)
        codec = made.codecs.get(protocol)
        if codec is None:
            more = {"deployment": self.name} if protocol == "v2" else {}
            codec = made.codecs[protocol] = plugins.load("codec", protocol)(route.signature, entity, **more)
        return codec

    def take(self, request: Request, body: bytes | bytearray, headers: Mapping[bytes, bytes]) -> None:
        """Take a request that is complete: it is answered, or failed, now or later.

        `request.protocol` and `request.details` are set already.
        """
        request.size = len(body)
        received = request.received = time.monotonic()
        predictor = self.predictor
        wanted = request.details.timeout_s
        allowed = predictor.timeout_s
        request.deadline = received + (allowed if wanted is None or wanted > allowed else wanted)
        route = predictor.route
        if route is None:
            if predictor.asleep:
                self._when_awake(request, body, headers)
            else:
                self.batcher.fail(request, predictor.absent())
        elif len(body) < LARGE_BODY:
            self._decode(request, route, body, headers)
        else:
            self._decode_apart(request, route, body, headers)

    def _decode_apart(
        self, request: Request, route: Route, body: bytes | bytearray, headers: Mapping[bytes, bytes]
    ) -> None:
        """Read a large body in a thread. It counts among what waits, so that the threads' queue is bounded too."""
        admission = self.batcher.admission
        if not admission.enter(0, len(body)):
            self.batcher.meter.refuse("queue_full")
            self.batcher.fail(request, admission.refusal())
            return

        def done(work: asyncio.Future[LoopwrightError | None]) -> None:
            admission.leave(0, len(body))
            self._go_on(request, work.result())

        loop = asyncio.get_running_loop()
        loop.run_in_executor(self._executor, self._decoded, request, route, body, headers).add_done_callback(
            done
        )

    def _decode(
        self, request: Request, route: Route, body: bytes | bytearray, headers: Mapping[bytes, bytes]
    ) -> None:
        self._go_on(request, self._decoded(request, route, body, headers))

    def _decoded(
        self, request: Request, route: Route, body: bytes | bytearray, headers: Mapping[bytes, bytes]
    ) -> LoopwrightError | None:
        """Read a request's rows; return the error of one that cannot be read."""
        try:
            if request.details.variant:
                request.place = route.named(request.details.variant)
            request.route = route
            records = self.codec(RECORDS, route)
            assert isinstance(records, Records)
            request.decoder = records.decoder
            request.codec = codec = (
                records if request.protocol == RECORDS else self.codec(request.protocol, route)
            )
            request.asked = codec.decode(body, headers)
            if isinstance(request.asked.notes, Options):
                self._heed(request, route, request.asked.notes)
        except LoopwrightError as error:
            return error
        except Exception as error:  # noqa: BLE001  (no body may end a worker, or go unanswered)
            made = LoopwrightError(f"The body could not be read: {type(error).__name__}: {error}")
            made.__cause__ = error
            return made
        request.decoded = time.monotonic()
        self.batcher.meter.decode.add(request.decoded - request.received)
        return None

    def _heed(self, request: Request, route: Route, options: Options) -> None:
        """Take over what a body asks for besides its rows; where a header says it too, the header counts."""
        details = request.details
        if options.entity and not details.entity:
            request.details = details = dataclasses.replace(details, entity=options.entity)
        if options.variant and not details.variant:
            request.place = route.named(options.variant)
        if options.timeout_ms and details.timeout_s is None:
            request.deadline = min(request.deadline, request.received + options.timeout_ms / 1000.0)

    def _go_on(self, request: Request, error: LoopwrightError | None) -> None:
        if error is None:
            try:
                self.batcher.submit(request)
            except LoopwrightError as refusal:
                error = refusal
        if error is not None:
            self.batcher.fail(request, error)

    def _when_awake(self, request: Request, body: bytes | bytearray, headers: Mapping[bytes, bytes]) -> None:
        """Go on with a request when the model it waits for is loaded, or its time is over."""
        predictor = self.predictor
        predictor.wake()

        def look() -> None:
            route = predictor.route
            if route is not None:
                self._decode(request, route, body, headers)
            elif not predictor.asleep or time.monotonic() > request.deadline:
                self.batcher.fail(request, predictor.absent())
            else:
                asyncio.get_running_loop().call_later(WAKE_S, look)

        look()
