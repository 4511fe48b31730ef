"""uvicorn's HTTP protocol with a shorter way for what nearly all requests are: one JSON body to one deployment.

uvicorn parses HTTP, keeps connections, and serves every request that is in any way unusual through the ASGI interface.
A usual one, which is complete when its body is, needs no task, no scope and no messages: its body goes to the
deployment's batch, and its answer is written in one piece. That is two thirds of what a small request costs.

One look a second at all connections replaces a timer for each request: a request that does not become complete, an
answer that is not read and a connection that idles are ended by it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import urllib.parse
from typing import TYPE_CHECKING, Any, NoReturn

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

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
#: Seconds in which what still arrives is read and forgotten after the last answer of a connection.
LINGER_S = 5.0
#: Seconds that idle connections stay when the server stops, for requests that are on their way already.
LEAVE_S = 0.05
_NEVER = float("inf")
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
#: Headers that ask for another protocol.
_UPGRADE = frozenset({b"connection", b"http2-settings", b"upgrade"})
_VALID = "HTTP/1.1 with one Host and either Content-Length or chunks."


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


class Cycle(RequestResponseCycle):
    """A request on the ASGI side. `lingers` says that the connection ends with its answer."""

    lingers = False

    async def send(self, message: Any) -> None:
        """Send a part of the answer."""
        if message["type"] != "http.response.start":
            await super().send(message)
            return
        if self.more_body and self.waiting_for_100_continue:
            # Whether its body still comes is its sender's choice, so that nobody knows where the next request begins.
            self.keep_alive = False
        await super().send(message)
        if not self.keep_alive:
            # uvicorn would close at once, and what is still arriving would destroy the answer.
            self.keep_alive = self.lingers = True


class Wire(HttpToolsProtocol):
    """One connection.

    `cycle` is the request that arrived last. Those before it that wait for their turn are in `pipeline`, the newest at
    its left, and the one that is answered is in neither unless it is the last.

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
        self.idle_since = self.paused_since = self.ending_since = _NEVER
        self._unsent = 0
        self._in_headers = self._arrived = 0
        #: Nothing of what arrives is read any more; and the answers that are due now are the last.
        self._broken = self._last = False
        self._fresh = True
        self._said_all = False
        self._upgrading = False
        self._asked = b"", b""
        self._refused: LoopwrightError | None = None
        #: The request on the ASGI side that was started last.
        self._answering: Any = None
        self._head: tuple[Any, bytes] = (None, b"")

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin with a connection."""
        super().connection_made(transport)
        self._own_app.watch(self.connections, self.loop)

    def data_received(self, data: bytes) -> None:
        """Take what arrived."""
        if self._broken:
            return
        self._fresh = False
        self._in_headers += len(data)
        self._arrived = self._in_headers
        rest: bytes | memoryview = data
        try:
            while True:
                try:
                    self.parser.feed_data(rest)
                    break
                except httptools.HttpParserUpgrade as found:
                    rest = memoryview(rest)[found.args[0] :]
                    head = self._stay()
                    self.parser.feed_data(head)
        except httptools.HttpParserError as error:
            self._refuse_all(self._refused or NotHttp(f"This is no HTTP/1.1: {error}.", valid=_VALID))
            return
        if self._in_headers > MOST_HEADERS:
            self._refuse_all(_too_long())

    def eof_received(self) -> bool:  # type: ignore[override]
        """Note that the caller sends nothing more; what it has sent as a whole is answered.

        Returns
        -------
        bool
            Whether the connection stays open for that.
        """
        self._said_all = True
        if self._broken:
            # What is due was found out when it broke.
            return self._last and self.ending_since == _NEVER
        self._broken = True
        self.reading_since = self.idle_since = _NEVER
        self._last = self._is_due()
        return self._last

    def _stay(self) -> bytes:
        """Return the head of a request that asks for another protocol as one that does not: there is no other here.

        The parser would leave the body to that protocol. Java's HTTP client asks for HTTP/2 with every first request.
        """
        self._upgrading = False
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        lines = [b"%b %b HTTP/%b" % (self._asked[0], self.url, self._asked[1])]
        for name, value in self.headers:
            if name == b"connection":
                wanted = [one.strip() for one in value.split(b",")]
                lines.append(
                    b"connection: " + b", ".join(one for one in wanted if one.lower() not in _UPGRADE)
                )
            elif name not in _UPGRADE:
                lines.append(name + b": " + value)
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def _is_due(self) -> bool:
        """Forget a request that will never be complete, and return whether answers to others are still to come."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return False
        if not cycle.more_body:
            return True
        cycle.disconnected = True
        cycle.message_event.set()
        if self.pipeline:
            self.pipeline.popleft()
            return True
        return False

    def _refuse_all(self, error: LoopwrightError | None) -> None:
        """Answer with an error and end the connection; behind requests that are being answered, end it once they are."""
        self._broken = True
        self.reading_since = self.idle_since = _NEVER
        cycle: Any = self.cycle
        # An answer that went out before its request was complete is not followed by a second.
        answered = (
            cycle is not None
            and cycle.more_body
            and (cycle.response_complete or (type(cycle) is Cycle and cycle.response_started))
        )
        if self._is_due():
            self._last = True
            return
        if error is not None and not answered:
            self.transport.write(self._answer(error.http_status, refusal(error), close=True))
        self._end()

    def _end(self) -> None:
        """Send nothing more, and read on for a while: to close on what is still arriving would destroy the answer."""
        # The server stops, and has no time to lose; or nothing more can arrive.
        at_once = self._said_all or (self._last and not self._broken)
        self._broken = True
        self.reading_since = self.idle_since = _NEVER
        if at_once or self.transport.is_closing():
            self.transport.close()
            return
        self.ending_since = time.monotonic()
        try:
            self.transport.write_eof()
        except (OSError, NotImplementedError, RuntimeError):
            self.transport.close()
            return
        self.flow.resume_reading()

    def on_message_begin(self) -> None:
        """Begin with a request."""
        # As uvicorn does, but for the scope, which only the ASGI side needs.
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        if self.reading_since == _NEVER:
            self.reading_since = time.monotonic()
        self.idle_since = _NEVER

    def on_headers_complete(self) -> None:
        """Choose the way of a request."""
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                self._refuse(NotHttp("CONNECT asks for a proxy, and this is none.", valid=_VALID))
            self._upgrading = True
            # Afterwards the parser has forgotten it.
            self._asked = self.parser.get_method(), self.parser.get_http_version().encode()
            return
        if self._arrived > MOST_HEADERS:
            length = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if length > MOST_HEADERS:
                self._refuse(_too_long())
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
                and len(given) == len(self.headers)
                and b"host" in given
                and self.parser.get_method() == b"POST"
                and self.parser.get_http_version() == "1.1"
            ):
                self.cycle = Exchange(  # type: ignore[assignment]
                    self, service, given, self.parser.should_keep_alive()
                )
                return
        self._long_way()

    def _refuse(self, error: LoopwrightError) -> NoReturn:
        """End parsing with an error, from within the parser."""
        self._refused = error
        raise error

    def _long_way(self) -> None:
        """Give a request to the ASGI side."""
        version = self.parser.get_http_version()
        self._check(version)
        try:
            url = httptools.parse_url(self.url)
            raw_path = url.path
            path = raw_path.decode("ascii")
        except (httptools.HttpParserError, UnicodeDecodeError, AttributeError):
            shown = self.url[:100].decode("latin-1")
            self._refuse(NotHttp(f"The address {shown!r} is none.", valid="It begins with /."))
        self.scope = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,  # type: ignore[typeddict-item]
            "method": self.parser.get_method().decode("ascii"),
            "root_path": self.root_path,
            "path": urllib.parse.unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": url.query or b"",
            "headers": self.headers,
            "state": {},
        }
        existing = self.cycle
        self.cycle = cycle = Cycle(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version == "1.1" and self.parser.should_keep_alive() and not self._last,
            on_response=self.on_response_complete,
        )
        if existing is None or existing.response_complete:
            self._answering = cycle
            self._start_asgi_task(cycle, self.app)
        else:
            # It was sent before the answer to another: it waits, and so does what comes behind it.
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))

    def _check(self, version: str) -> None:
        """Refuse what two servers could understand in two ways."""
        if version not in {"1.1", "1.0"}:
            self._refuse(NotHttp(f"HTTP/{version} is not spoken here.", valid=_VALID))
        hosts = 0
        for name, value in self.headers:
            if name == b"host":
                hosts += 1
            elif name == b"transfer-encoding" and value.strip().lower() != b"chunked":
                shown = value[:60].decode("latin-1")
                self._refuse(NotHttp(f"The transfer encoding {shown!r} is not read here.", valid=_VALID))
        if hosts > 1 or (hosts == 0 and version == "1.1"):
            self._refuse(NotHttp(f"The request has {hosts} headers called Host.", valid=_VALID))

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body."""
        # What is counted while headers arrive: a piece of body in the same data must not be.
        self._in_headers = 0
        cycle: Any = self.cycle
        if type(cycle) is Exchange:
            if not cycle.body:
                cycle.body = body
            elif type(cycle.body) is bytearray:
                cycle.body += body
            else:
                cycle.body = bytearray(cycle.body + body)
        elif not cycle.response_complete:
            cycle.body += body
            if len(cycle.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
            cycle.message_event.set()

    def on_message_complete(self) -> None:
        """Take a request that is complete."""
        if self._upgrading:
            return
        self._in_headers = 0
        self.reading_since = _NEVER
        cycle: Any = self.cycle
        cycle.more_body = False
        if type(cycle) is not Exchange:
            cycle.message_event.set()
            if cycle.response_complete:
                self.idle_since = time.monotonic()
            return
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
            reply.headers.append((b"x-request-id", request_id[: wire.LONGEST]))
        close = not exchange.keep_alive or (self._last and not self.pipeline)
        self.transport.write(self._answer(status, reply, close=close))
        self.server_state.total_requests += 1
        if close:
            self._end()
        else:
            self._go_on()

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
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self._answering.lingers:
            self._end()
        else:
            self._go_on()

    def _go_on(self) -> None:
        """Turn to the next request of the connection."""
        if self.flow.write_paused:
            # The caller does not read its answers: nothing more is read from it until it does.
            self.flow.pause_reading()
        elif self.flow.read_paused:
            self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            if cycle.more_body:
                # While it waited it was not read.
                self.reading_since = time.monotonic()
            self._answering = cycle
            self._start_asgi_task(cycle, app)
        elif self._last:
            self._end()
        else:
            self.idle_since = time.monotonic()

    def pause_writing(self) -> None:
        """Note that the caller does not read."""
        self.paused_since = time.monotonic()
        self._unsent = self.transport.get_write_buffer_size()
        super().pause_writing()

    def resume_writing(self) -> None:
        """Go on when the caller reads again."""
        self.paused_since = _NEVER
        super().resume_writing()
        if self.cycle is None or self.cycle.response_complete:
            self.flow.resume_reading()

    def shutdown(self) -> None:
        """End the connection once what was sent to it is answered; uvicorn says so when the server stops."""
        self._last = True
        cycle = self.cycle
        if self.ending_since != _NEVER:
            self.transport.close()
        elif cycle is None or cycle.response_complete:
            # A request may be on its way, or wait to be read: what the system has taken for us is answered.
            self.loop.call_later(LEAVE_S, self._leave)
        else:
            cycle.keep_alive = False

    def _leave(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self._answering is not None:
            # uvicorn tells only the request that arrived last.
            self._answering.disconnected = True
        self.pipeline.clear()
        super().connection_lost(exc)

    def look(self, now: float, timeout: float) -> None:
        """End what takes longer than it may; called about once a second."""
        if now - self.paused_since > timeout:
            unsent = self.transport.get_write_buffer_size()
            if unsent >= self._unsent:
                self.transport.abort()
                return
            self._unsent, self.paused_since = unsent, now
        if self.transport.is_closing():
            # It waits for its last answer to be read.
            self.ending_since = min(self.ending_since, now)
            if now - self.ending_since > timeout and self.paused_since == _NEVER:
                self.transport.abort()
            return
        if now - self.ending_since > LINGER_S:
            with contextlib.suppress(OSError):
                self.transport.close()
        elif self.pipeline or (
            self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body
        ):
            return
        elif now - self.reading_since > timeout:
            # On the ASGI side reading has a time limit of its own, and an answer.
            cycle: Any = self.cycle
            on_asgi = cycle is not None and not cycle.response_complete and type(cycle) is not Exchange
            if not on_asgi or now - self.reading_since > timeout + MERCY_S:
                self._refuse_all(None if self._fresh else wire.too_slow(timeout))
        elif now - self.idle_since > self.timeout_keep_alive:
            self.transport.close()


def _too_long() -> HeadersTooLong:
    return HeadersTooLong(
        f"The request line and headers have more than {MOST_HEADERS} bytes.", valid="Send rows in the body."
    )
