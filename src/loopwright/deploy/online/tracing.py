"""Traces: reading the caller's `traceparent`, and sending spans to an OpenTelemetry collector.

Reading the header is all that a request pays by default: it is kept with the prediction, so that a trace of any system
leads to it. Spans are made only where ``[serving] traces`` names a collector, for requests whose caller samples the
trace, in a thread, after the answer. A collector that is slow or gone costs spans, never a request.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from loopwright.errors import InvalidConfig, Unavailable

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

__all__ = ["QUEUE", "Stage", "Tracer", "parse"]

#: A part of a request: its name, its begin and its end, both as `time.monotonic` gives them.
Stage = tuple[str, float, float]
#: Requests that wait to be sent; what comes on top is dropped.
QUEUE = 4096
#: Seconds between two looks at what waits, requests sent together, and seconds for one try to send them.
_EVERY_S, _TOGETHER, _TRY_S = 0.5, 100, 5.0
#: Prediction ids that a span carries of a request with many rows.
_IDS = 16
_SAMPLER = "OTEL_TRACES_SAMPLER"
_HEADER = re.compile(rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")

logger = logging.getLogger(__name__)


def parse(header: bytes) -> str | None:
    """Return a `traceparent` header as text when it is one, else None, as the W3C's Trace Context, level 1, has it.

    A version that is newer than this one may go on after the flags; what it adds is left out.

    Examples
    --------
    >>> parse(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'
    >>> parse(b"00-00000000000000000000000000000000-b7ad6b7169203331-01") is None
    True
    """
    if len(header) != 55 and (header[:2] == b"00" or header[55:56] != b"-"):
        return None
    found = header[:55]
    return found.decode("ascii") if _HEADER.fullmatch(found) else None


class Tracer:
    """Sends spans of requests to a collector by OTLP over HTTP.

    A request whose `traceparent` is sampled becomes a span of kind server with one child per stage. Requests without
    one are not traced, unless the environment variable ``OTEL_TRACES_SAMPLER`` asks the SDK to choose some; headers
    for the collector come from ``OTEL_EXPORTER_OTLP_HEADERS``.

    Parameters
    ----------
    collector
        Its address, such as ``http://127.0.0.1:4318``; ``/v1/traces`` is added where there is no path.
    service, worker
        What the spans are said to come from: the project's name, and the process's.

    Raises
    ------
    InvalidConfig
        The address is none.
    Unavailable
        OpenTelemetry's exporter is not installed.
    """

    def __init__(self, collector: str, service: str, worker: str) -> None:
        self._endpoint = _endpoint(collector)
        self._chosen = _SAMPLER in os.environ
        self._waiting: deque[tuple[Any, ...]] = deque()
        self._made: list[ReadableSpan] = []
        self._ended = threading.Event()
        self._dead = False
        #: Requests whose spans were not sent: too many waited, or the collector did not take them.
        self.dropped = 0
        self._tracer, self._exporter = self._connect(service, worker)
        self._thread = threading.Thread(target=self._run, name="sending traces", daemon=True)
        self._thread.start()

    def record(
        self,
        traceparent: str | None,
        deployment: str,
        started: float,
        ended: float,
        stages: Sequence[Stage],
        status: int,
        prediction_ids: Sequence[str] = (),
        *,
        variant: str = "",
        version: int | None = None,
    ) -> None:
        """Take note of one request after its answer was sent. Never waits and never raises.

        Parameters
        ----------
        traceparent
            What `parse` returned.
        deployment
            Which deployment answered.
        started, ended
            The arrival and the answer, as `time.monotonic` gives them.
        stages
            The parts of it in order; those of a micro-batch may be shared by several requests.
        status
            The HTTP status.
        prediction_ids
            The ids that were given out; the first 16 are sent.
        variant, version
            Who answered, where that is one for all rows.
        """
        # The last bit of the flags says whether the caller records the trace.
        if not self._chosen and (traceparent is None or int(traceparent[-1], 16) & 1 == 0):
            return
        if len(self._waiting) >= QUEUE:
            self.dropped += 1
            return
        ids = prediction_ids[:_IDS]
        self._waiting.append((traceparent, deployment, started, ended, stages, status, ids, variant, version))

    def close(self, timeout_s: float = 1.0) -> None:
        """Send what waits, for at most `timeout_s` seconds, and stop."""
        self._ended.set()
        self._thread.join(timeout_s)
        self._exporter.shutdown()

    def _connect(self, service: str, worker: str) -> tuple[Any, SpanExporter]:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
        except ImportError as error:
            raise Unavailable(
                f"[serving] traces is set, and OpenTelemetry's exporter is not installed: {error}.",
                hint="pip install 'loopwright[otel]'",
            ) from error
        # It complains at each try; one line when the collector goes and one when it comes back say as much.
        logging.getLogger("opentelemetry.exporter.otlp.proto.http.trace_exporter").setLevel(logging.CRITICAL)
        provider = TracerProvider(
            # None is the SDK's own choice, by the environment.
            sampler=None if self._chosen else ParentBased(ALWAYS_OFF),
            resource=Resource.create({"service.name": service, "service.instance.id": worker}),
            shutdown_on_exit=False,
        )
        provider.add_span_processor(_collector(self._made))
        return provider.get_tracer("loopwright"), OTLPSpanExporter(endpoint=self._endpoint, timeout=_TRY_S)

    def _run(self) -> None:
        while not self._ended.wait(_EVERY_S):
            self._drain()
        self._drain()

    def _drain(self) -> None:
        while self._waiting:
            taken = [self._waiting.popleft() for _ in range(min(_TOGETHER, len(self._waiting)))]
            try:
                sent = self._send(taken)
                why = "it does not take them"
            except Exception as error:  # noqa: BLE001 (whatever goes wrong with a trace goes wrong with nothing else)
                sent, why = False, f"{type(error).__name__}: {error}"
            if not sent:
                self.dropped += len(taken)
                if self._ended.is_set():
                    # One last try is enough: the process is about to end.
                    self.dropped += len(self._waiting)
                    self._waiting.clear()
            if sent == self._dead:
                self._dead = not sent
                if sent:
                    logger.info("traces reach %s again", self._endpoint)
                else:
                    logger.warning("traces do not reach %s and are dropped: %s", self._endpoint, why)

    def _send(self, taken: list[tuple[Any, ...]]) -> bool:
        from opentelemetry.sdk.trace.export import SpanExportResult

        # Spans carry the time of day: what the clock that never jumps shows is moved by what the two differ now.
        offset_ns = time.time_ns() - time.monotonic_ns()
        self._made.clear()
        for one in taken:
            self._span(offset_ns, *one)
        return not self._made or self._exporter.export(self._made) is SpanExportResult.SUCCESS

    def _span(
        self,
        offset_ns: int,
        traceparent: str | None,
        deployment: str,
        started: float,
        ended: float,
        stages: Sequence[Stage],
        status: int,
        prediction_ids: Sequence[str],
        variant: str,
        version: int | None,
    ) -> None:
        from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context

        def at(moment: float) -> int:
            return offset_ns + int(moment * 1e9)

        facts: dict[str, Any] = {
            "http.request.method": "POST",
            "http.response.status_code": status,
            "loopwright.deployment": deployment,
            "loopwright.prediction_ids": list(prediction_ids),
            "loopwright.variant": variant,
            "loopwright.version": version,
        }
        span = self._tracer.start_span(
            f"predict {deployment}",
            context=_parent(traceparent),
            kind=SpanKind.SERVER,
            attributes={key: value for key, value in facts.items() if value or value == 0},
            start_time=at(started),
        )
        if not span.is_recording():
            return
        within = set_span_in_context(span)
        for name, begin, end in stages:
            self._tracer.start_span(name, context=within, start_time=at(begin)).end(end_time=at(end))
        if status >= 500:
            span.set_status(StatusCode.ERROR)
        span.end(end_time=at(ended))


def _collector(made: list[ReadableSpan]) -> Any:
    """Return a processor that keeps spans until they are sent together."""
    from opentelemetry.sdk.trace import SpanProcessor

    class Kept(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            made.append(span)

    return Kept()


def _parent(traceparent: str | None) -> Context:
    from opentelemetry.context import Context
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

    if traceparent is None:
        return Context()
    _, trace_id, span_id, flags = traceparent.split("-")
    caller = SpanContext(
        int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16))
    )
    return set_span_in_context(NonRecordingSpan(caller), Context())


def _endpoint(collector: str) -> str:
    try:
        parts = urlsplit(collector)
        right = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        right = False
    if not right:
        raise InvalidConfig(
            f"[serving] traces = {collector!r} is no address of a collector.",
            valid="Write one such as 'http://127.0.0.1:4318'.",
        )
    return collector if parts.path.strip("/") else f"{collector.rstrip('/')}/v1/traces"
