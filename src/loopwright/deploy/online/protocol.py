"""uvicorn's HTTP protocol with a shorter way for what nearly all requests are: one JSON body to one deployment.

uvicorn parses HTTP, keeps connections, and serves every request that is in any way unusual through the ASGI interface.
A usual one, which is complete when its body is, needs no task, no scope and no messages: its body goes to the
deployment's batch, and its answer is written in one piece. That is two thirds of what a small request costs.

One look a second at all connections replaces a timer for each request: a request that does not become complete, an
answer that is not read and a connection that idles are ended by it.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from loopwright.deploy.online import wire
from loopwright.deploy.online.codecs.base import Reply
from loopwright.deploy.online.refusals import refusal
from loopwright.deploy.online.request import Request
from loopwright.deploy.online.service import LARGE_BODY, Service
from loopwright.errors import InvalidInput, LoopwrightError

if TYPE_CHECKING:
    from loopwright.deploy.online.app import App

__all__ = ["Exchange", "Wire"]

#: Most bytes of a request line and its headers together.
MOST_HEADERS = 64 * 1024
#: Seconds between two looks at the connections.
LOOK_S = 1.0
#: Seconds that the ASGI side has longer than we do, so that it can answer that a body came too slowly.
MERCY_S = 2.0
_JSON = b"application/json"
#: Headers that change nothing about how a request is answered.
_USUAL = frozenset(
    {
        b"accept",
        b"accept-encoding",
        b"cache-control",
        b"connection",
        b"content-length",
        b"content-type",
        b"host",
        b"user-agent",
    }
)
#: Headers of a request that needs the ASGI side.
_LONG_WAY = frozenset({b"content-encoding", b"expect", b"transfer-encoding", b"upgrade"})


class HeadersTooLong(InvalidInput):
    """The request line and headers are longer than a server takes."""

    code = "headers_too_long"
    http_status = 431


class NotHttp(InvalidInput):
    """What arrived is no HTTP request."""

    code = "not_http"


class _Silent:
    """Stands for the event that a request on the ASGI side waits for."""

    def set(self) -> None:
        """Wake nobody."""


_SILENT = _Silent()


class Exchange(Request):
    """A request on the short way; to uvicorn it is the connection's present cycle."""

    __slots__ = (
        "body",
        "disconnected",
        "given",
        "keep_alive",
        "message_event",
        "more_body",
        "response_complete",
        "service",
        "wire",
    )

    def __init__(self, protocol: Wire, service: Service, given: dict[bytes, bytes], keep_alive: bool) -> None:
        super().__init__()
        self.wire = protocol
        self.service = service
        self.given = given
        self.keep_alive = keep_alive
        self.body: bytes | bytearray = b""
        self.response_complete = self.disconnected = False
        self.more_body = True
        self.message_event = _SILENT

    def reply(self, reply: Reply) -> None:
        """Write the answer."""
        self.sent = len(reply.body)
        self.wire.write(self, 200, reply)

    def fail(self, error: LoopwrightError) -> None:
        """Write an error."""
        self.wire.write(self, error.http_status, refusal(error))


class Wire(HttpToolsProtocol):
    """One connection.

    Parameters
    ----------
    app
        Whose deployments are asked.
    **given
        What uvicorn gives its protocols.
    """

    def __init__(self, app: App, **given: Any) -> None:
        super().__init__(**given)
        self._own_app = app
        #: Since when the request that is arriving has been, or nothing has arrived at all; infinity while none is.
        self.reading_since = time.monotonic()
        self.idle_since = self.paused_since = float("inf")
        self._in_headers = 0
        self._broken = False
        self._head: tuple[Any, bytes] = (None, b"")

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin with a connection."""
        super().connection_made(transport)
        self._own_app.watch(self.connections, self.loop)

    def data_received(self, data: bytes) -> None:
        """Take what arrived."""
        if self._broken:
            return
        self._in_headers += len(data)
        super().data_received(data)
        if self._in_headers > MOST_HEADERS and not self._broken:
            self._refuse_all(
                HeadersTooLong(
                    f"The request line and headers have more than {MOST_HEADERS} bytes.",
                    valid="Send rows in the body.",
                )
            )

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self._refuse_all(NotHttp(msg, valid="HTTP/1.1 with either Content-Length or chunks."))

    def _refuse_all(self, error: LoopwrightError) -> None:
        """Answer with an error and close; behind a request that is being answered, close once it is."""
        self._broken = True
        self.reading_since = float("inf")
        if self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body:
            self.cycle.keep_alive = False
            return
        if self.cycle is not None and not self.cycle.response_complete:
            # Its body will never be complete.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        made = refusal(error)
        self.transport.write(self._answer(error.http_status, made, close=True))
        self.transport.close()

    def on_message_begin(self) -> None:
        """Begin with a request."""
        # As uvicorn does, but for the scope, which only the ASGI side needs.
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        if self.reading_since == float("inf"):
            self.reading_since = time.monotonic()
        self.idle_since = float("inf")

    def on_headers_complete(self) -> None:
        """Choose the way of a request."""
        self._in_headers = 0
        cycle = self.cycle
        service = self._own_app.short.get(self.url)
        if service is not None and (cycle is None or cycle.response_complete):
            given = dict(self.headers)
            declared = given.get(b"content-length", b"")
            if (
                given.get(b"content-type") == _JSON
                and 0 < len(declared) < 7
                and declared.isdigit()
                and int(declared) < min(LARGE_BODY, self._own_app.limit + 1)
                and _LONG_WAY.isdisjoint(given)
                and self.parser.get_method() == b"POST"
                and self.parser.get_http_version() == "1.1"
            ):
                self.cycle = Exchange(  # type: ignore[assignment]
                    self, service, given, self.parser.should_keep_alive()
                )
                return
        self._long_way()

    def _long_way(self) -> None:
        """Give a request to the ASGI side."""
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers += headers
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body."""
        # What is counted while headers arrive: a piece of body in the same data must not be.
        self._in_headers = 0
        cycle: Any = self.cycle
        if type(cycle) is Exchange:
            cycle.body = cycle.body + body if cycle.body else body
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Take a request that is complete."""
        self._in_headers = 0
        self.reading_since = float("inf")
        cycle: Any = self.cycle
        if type(cycle) is not Exchange:
            super().on_message_complete()
            return
        cycle.more_body = False
        app, given = self._own_app, cycle.given
        if not given.keys() <= _USUAL or app.guarded:
            try:
                cycle.remote = self.client[0] if self.client else ""
                cycle.key = app.guard(given, self.client)
                cycle.details = wire.details_of(given)
            except LoopwrightError as error:
                cycle.received = time.monotonic()
                cycle.service.batcher.fail(cycle, error)
                return
        cycle.service.take(cycle, cycle.body, given)

    def write(self, exchange: Exchange, status: int, reply: Reply) -> None:
        """Write the answer of the present exchange and go on with the connection."""
        exchange.response_complete = True
        if exchange.disconnected or self.transport.is_closing():
            return
        if request_id := exchange.given.get(b"x-request-id"):
            reply.headers.append((b"x-request-id", request_id))
        close = not exchange.keep_alive or self._broken
        self.transport.write(self._answer(status, reply, close=close))
        self.server_state.total_requests += 1
        if close:
            self.transport.close()
            return
        if self.flow.write_paused:
            # The caller does not read its answers: nothing more is read from it until it does.
            self.flow.pause_reading()
        elif self.flow.read_paused:
            self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        else:
            self.idle_since = time.monotonic()

    def _answer(self, status: int, reply: Reply, *, close: bool) -> bytes:
        """Return a whole answer: status line, headers and body."""
        defaults = self.server_state.default_headers
        if self._head[0] is not defaults:
            self._head = defaults, b"".join(b"%b: %b\r\n" % header for header in defaults)
        parts = [STATUS_LINE[status], self._head[1], b"content-type: ", reply.content_type]
        for name, value in reply.headers:
            if name != b"connection":
                parts += (b"\r\n", name, b": ", value)
        parts.append(b"\r\ncontent-length: %d\r\n" % len(reply.body))
        parts.append(b"connection: close\r\n\r\n" if close else b"\r\n")
        parts.append(reply.body)
        return b"".join(parts)

    def on_response_complete(self) -> None:
        """Go on after an answer of the ASGI side."""
        super().on_response_complete()
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
            self.idle_since = time.monotonic()

    def pause_writing(self) -> None:
        """Note that the caller does not read."""
        self.paused_since = time.monotonic()
        super().pause_writing()

    def resume_writing(self) -> None:
        """Go on when the caller reads again."""
        self.paused_since = float("inf")
        super().resume_writing()
        if self.cycle is None or self.cycle.response_complete:
            self.flow.resume_reading()

    def look(self, now: float, timeout: float) -> None:
        """End what takes longer than it may; called about once a second."""
        if self.transport.is_closing():
            return
        if now - self.paused_since > timeout:
            self.transport.abort()
        elif self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body:
            return
        elif now - self.reading_since > timeout:
            # On the ASGI side reading has a time limit of its own, and an answer.
            cycle: Any = self.cycle
            on_asgi = cycle is not None and not cycle.response_complete and type(cycle) is not Exchange
            if not on_asgi or now - self.reading_since > timeout + MERCY_S:
                self._refuse_all(wire.too_slow(timeout))
        elif now - self.idle_since > self.timeout_keep_alive:
            self.transport.close()
