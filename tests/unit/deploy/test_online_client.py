"""The clients: what is sent, what is sent again, and what never is."""

import asyncio
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import loopwright as lw
from loopwright.errors import (
    Conflict,
    Denied,
    InvalidInput,
    LoopwrightError,
    NotFound,
    SchemaMismatch,
    Unavailable,
)

ANSWER = {
    "prediction_id": "p",
    "prediction": "a",
    "probability": None,
    "model": "m",
    "version": 1,
    "variant": "champion",
}
ARROW = "application/vnd.apache.arrow.stream"
REFUSED = (503, {"error": {"code": "unavailable", "message": "The queue is full."}}, {"retry-after": "0"})
#: What a server does with one request: a status, a body and headers; or it hangs up, or sleeps first.
Turn = tuple[int, Any, dict[str, str]]
HANG_UP: Turn = (0, "hang up", {})
SLEEP: Turn = (0, "sleep", {})


class Server:
    """An HTTP server that answers what it is told, in turn, and keeps what it got."""

    def __init__(self, listener: socket.socket | None = None) -> None:
        self.turns: list[Turn] = []
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.connections = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                outer.connections += 1
                super().setup()

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                outer.got.append(
                    (
                        f"{self.command} {self.path}",
                        {name.lower(): value for name, value in self.headers.items()},
                        body,
                    )
                )
                turn = outer.turns.pop(0) if outer.turns else (200, ANSWER, {})
                if turn is HANG_UP:
                    self.close_connection = True
                    return
                if turn is SLEEP:
                    time.sleep(3)
                    turn = (200, ANSWER, {})
                status, found, headers = turn
                raw = found if isinstance(found, bytes) else json.dumps(found).encode()
                with suppress(OSError):
                    self.send_response(status)
                    for name, value in {"content-length": str(len(raw)), **headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(raw)

            do_GET = do_POST = answer  # noqa: N815 - the names that the base class looks for

            def log_message(self, *_: Any) -> None:
                pass

        class Http(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

        if listener is None:
            self.http = Http(("127.0.0.1", 0), Handler)
        else:
            self.http = Http(("127.0.0.1", 0), Handler, bind_and_activate=False)
            self.http.socket.close()
            self.http.socket = listener
        port = self.http.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def stop(self) -> None:
        """Stop it."""
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    """Return a server of the test's own."""
    made = Server()
    yield made
    made.stop()


def in_both(
    url: str, ask: str, *arguments: Any, client: dict[str, Any] | None = None, **given: Any
) -> list[Any]:
    """Do the same with both clients and return what each returned or raised."""
    found: list[Any] = []

    def keep(call: Callable[[], Any]) -> None:
        try:
            found.append(call())
        except LoopwrightError as error:
            found.append(error)

    async def with_async() -> Any:
        async with lw.AsyncClient(url, **(client or {})) as one:
            return await getattr(one, ask)(*arguments, **given)

    with lw.Client(url, **(client or {})) as one:
        keep(lambda: getattr(one, ask)(*arguments, **given))
    keep(lambda: asyncio.run(with_async()))
    return found


def test_both_clients_have_the_same_methods() -> None:
    """What one client can, the other can."""
    import inspect

    names = {name for name in vars(lw.Client) if not name.startswith("_")}
    assert names == {name for name in vars(lw.AsyncClient) if not name.startswith("_")}
    for name in [*names, "__init__"]:
        own, other = (inspect.signature(getattr(kind, name)) for kind in (lw.Client, lw.AsyncClient))
        assert own == other, name


def test_a_refused_request_is_sent_again(server: Server) -> None:
    """503 and 429 with Retry-After mean that nothing was done: the caller only sees the answer that follows."""
    server.turns = [REFUSED, (429, REFUSED[1], {"retry-after": "0"}), (200, ANSWER, {})] * 2
    assert in_both(server.url, "predict", "api", {"x": 1}) == [ANSWER, ANSWER]
    assert len(server.got) == 6


def test_retry_after_is_waited_for_and_the_time_limit_ends_it(server: Server) -> None:
    """A server that asks for a second gets it, and one that asks for more than the caller has is not asked again."""
    later = (503, REFUSED[1], {"retry-after": "1"})
    server.turns = [later]
    began = time.monotonic()
    with lw.Client(server.url) as client:
        assert client.predict("api", {"x": 1}) == ANSWER
    assert time.monotonic() - began >= 1.0
    server.turns = [later] * 2
    found = in_both(server.url, "predict", "api", {"x": 1}, client={"timeout_s": 0.5})
    assert [type(one) for one in found] == [Unavailable, Unavailable]
    assert len(server.got) == 4


@pytest.mark.parametrize("case", ["no Retry-After", "no retries", "500", "504"])
def test_other_refusals_are_raised_at_once(server: Server, case: str) -> None:
    """Without Retry-After, with retries=0, and for errors after the work began, there is exactly one request."""
    status = int(case) if case.isdigit() else 503
    server.turns = [(status, REFUSED[1], {} if case == "no Retry-After" else {"retry-after": "0"})] * 2
    retries = 0 if case == "no retries" else 3
    found = in_both(server.url, "predict", "api", {"x": 1}, client={"retries": retries})
    assert [type(one) for one in found] == [Unavailable, Unavailable]
    assert len(server.got) == 2


def test_a_prediction_that_may_have_been_made_is_not_asked_for_again(server: Server) -> None:
    """A connection that breaks after the request went out is an error that says so, after one request."""
    server.turns = [HANG_UP] * 2
    for found in in_both(server.url, "predict", "api", {"x": 1}):
        assert isinstance(found, Unavailable)
        assert "not known" in found.valid
    assert len(server.got) == 2


def test_a_question_that_changes_nothing_is_asked_again(server: Server) -> None:
    """Reading the deployments survives a broken connection."""
    server.turns = [HANG_UP, (200, [{"name": "api"}], {})] * 2
    assert in_both(server.url, "deployments") == [[{"name": "api"}]] * 2
    assert len(server.got) == 4


def test_a_server_that_starts_late_is_reached() -> None:
    """Nothing was sent while the connection was refused, so it is tried again, and only then."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        started: list[Server] = []

        def later() -> None:
            time.sleep(0.3)
            taken.listen(16)
            started.append(Server(taken))

        thread = threading.Thread(target=later)
        thread.start()
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        try:
            with lw.Client(url, retries=8) as client:
                assert client.predict("api", {"x": 1}) == ANSWER
        finally:
            thread.join()
            started[0].stop()
        assert len(started[0].got) == 1
    found = in_both(url, "predict", "api", {"x": 1}, client={"retries": 1})
    assert all(isinstance(one, Unavailable) and one.hint == "loopwright up" for one in found)
    assert in_both(url, "ready") == [False, False]


def test_a_slow_answer_is_not_asked_for_twice(server: Server) -> None:
    """What takes longer than the caller waits is an error after one request; the server is told the limit."""
    server.turns = [SLEEP] * 2
    found = in_both(server.url, "predict", "api", {"x": 1}, timeout_ms=100)
    assert [type(one) for one in found] == [Unavailable, Unavailable]
    assert [headers["x-timeout-ms"] for _, headers, _ in server.got] == ["100", "100"]


def test_large_tables_go_as_arrow_and_small_ones_as_json(server: Server) -> None:
    """More than 100 rows of pandas, polars and Arrow are one Arrow stream with the same content; 100 are JSON."""
    answers = {"predictions": [ANSWER]}
    columns: dict[str, list[Any]] = {
        "x": [float(number) for number in range(101)],
        "name": ["ä", None, "c"] * 33 + ["d", "e"],
    }
    arrow = pa.table(columns)
    arrow = arrow.set_column(0, "x", pa.array([None, *columns["x"][1:]]))
    for table in (arrow, arrow.to_pandas(), pl.from_arrow(arrow)):
        server.turns = [(200, answers, {})] * 4
        in_both(server.url, "predict", "api", table)
        small = table.slice(0, 100) if isinstance(table, pa.Table | pl.DataFrame) else table.head(100)
        in_both(server.url, "predict", "api", small)
    for _, headers, body in [one for one in server.got if one[1]["content-type"] == ARROW]:
        read = pa.ipc.open_stream(io.BytesIO(body)).read_all()
        assert read.to_pylist() == arrow.to_pylist()
        assert headers["content-length"] == str(len(body))
    assert sum(headers["content-type"] == ARROW for _, headers, _ in server.got) == 6
    rows = [json.loads(body) for _, headers, body in server.got if headers["content-type"] != ARROW]
    assert rows == [arrow.slice(0, 100).to_pylist()] * 6


def test_what_cannot_be_sent_is_said_before_anything_is_sent(server: Server) -> None:
    """Values that JSON or Arrow lack, and headers with line breaks or too long, are refused here."""
    mixed = pd.DataFrame({"x": [object()] * 101})
    cases: list[tuple[Any, dict[str, Any]]] = [
        ({"x": object()}, {}),
        (mixed, {}),
        ({"x": 1}, {"entity": "a\r\nx-api-key: b"}),
        ({"x": 1}, {"request_id": "r" * 257}),
        ({"x": 1}, {"timeout_ms": 0}),
    ]
    for rows, given in cases:
        for found in in_both(server.url, "predict", "api", rows, **given):
            assert isinstance(found, InvalidInput), (rows, given)
    assert server.got == []


def test_headers_say_who_asks_and_for_whom(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Key, entity, variant and request id are sent; the key comes from the environment where none is given."""
    given = {"entity": "müller", "variant": "candidate", "request_id": "r-1"}
    in_both(server.url, "predict", "a b/ü", {"x": 1}, client={"api_key": "k-1"}, **given)
    for asked, headers, _ in server.got:
        assert asked == "POST /predict/a%20b%2F%C3%BC"
        assert headers["x-entity"].encode("latin-1").decode() == "müller"
        assert (headers["x-variant"], headers["x-request-id"], headers["x-api-key"]) == (
            "candidate",
            "r-1",
            "k-1",
        )
    monkeypatch.setenv("LOOPWRIGHT_API_KEY", "k-2")
    in_both(server.url, "ready")
    in_both(server.url, "predict", "api", {"x": 1})
    in_both(server.url, "predict", "api", {"x": 1}, client={"api_key": ""})
    assert [headers.get("x-api-key") for _, headers, _ in server.got[2:]] == [
        None,
        None,
        "k-2",
        "k-2",
        None,
        None,
    ]


def test_connections_are_used_again(server: Server) -> None:
    """Many requests one after the other, refused ones among them, are one connection."""
    server.turns = [(200, ANSWER, {}), REFUSED, (404, {"error": {"code": "not_found", "message": "x"}}, {})]
    with lw.Client(server.url) as client:
        for _ in range(10):
            with suppress(NotFound):
                client.predict("api", {"x": 1})
    assert (len(server.got), server.connections) == (11, 1)


def test_errors_have_the_class_that_the_server_raised(server: Server) -> None:
    """The code decides; where it is unknown, the status; and what is no serving worker is said to be none."""
    cases: list[tuple[int, Any, type[LoopwrightError]]] = [
        (422, {"error": {"code": "schema_mismatch", "message": "m", "row": 3}}, SchemaMismatch),
        (404, {"error": {"code": "not_found", "message": "m", "valid": "v", "hint": "h"}}, NotFound),
        (409, {"error": {"code": "conflict", "message": "m"}}, Conflict),
        (504, {"error": {"code": "deadline_exceeded", "message": "m"}}, Unavailable),
        (401, {"error": {"code": "unauthorized", "message": "m"}}, Denied),
        (429, {"error": {"code": "too_many_requests", "message": "m"}}, InvalidInput),
        (418, {"error": {"code": "of a later version", "message": "m"}}, InvalidInput),
        (500, {"error": {"code": "of a later version", "message": "m"}}, LoopwrightError),
        (502, b"<html>", Unavailable),
        (200, b"hello", Unavailable),
        (400, {"error": "text"}, Unavailable),
    ]
    for status, body, kind in cases:
        server.turns = [(status, body, {})] * 2
        for found in in_both(server.url, "predict", "api", {"x": 1}):
            assert type(found) is kind, (status, body, found)
    server.turns = [(*cases[0][:2], {}), (*cases[1][:2], {})]
    mismatch, missing = in_both(server.url, "predict", "api", {"x": 1})
    assert mismatch.attrs == {"row": 3}
    assert (missing.valid, missing.hint) == ("v", "h")


def test_labels_are_sent_together(server: Server) -> None:
    """One label is an object, many are a list, none is no request."""
    server.turns = [(202, {"accepted": 2}, {})] * 2
    assert in_both(server.url, "labels", [("p", 1), ("q", "b")]) == [2, 2]
    assert in_both(server.url, "labels", []) == [0, 0]
    server.turns = [(202, {"accepted": 1}, {})] * 2
    assert in_both(server.url, "label", "p", True) == [None, None]
    assert [json.loads(body) for _, _, body in server.got] == [
        *[[{"prediction_id": "p", "actual": 1}, {"prediction_id": "q", "actual": "b"}]] * 2,
        *[{"prediction_id": "p", "actual": True}] * 2,
    ]


def test_labels_by_entity_are_sent_as_the_server_takes_them(server: Server) -> None:
    """Times keep their zone, spans become seconds; records and pairs go together."""
    at = datetime(2026, 1, 31, 12, tzinfo=UTC)
    server.turns = [(202, {"accepted": 1}, {})] * 4
    with lw.Client(server.url) as client:
        client.label(actual=3, deployment="api", entity="a", at=at, within="2h")

    async def send() -> None:
        async with lw.AsyncClient(server.url) as other:
            await other.label(actual=3, deployment="api", entity="a", at=at, within="2h")

    asyncio.run(send())
    many = [lw.Label("", 1, at, "api", "a", 60.0), lw.Label("p", 2, at), ("q", 3)]
    in_both(server.url, "labels", many)
    time = "2026-01-31T12:00:00+00:00"
    one = {"actual": 3, "deployment": "api", "entity": "a", "at": time, "within": 7200.0}
    assert [json.loads(body) for _, _, body in server.got] == [
        one,
        one,
        *[
            [
                {"actual": 1, "at": time, "deployment": "api", "entity": "a", "within": 60.0},
                {"actual": 2, "at": time, "prediction_id": "p"},
                {"prediction_id": "q", "actual": 3},
            ]
        ]
        * 2,
    ]
    with lw.Client(server.url) as client:
        with pytest.raises(InvalidInput, match="no value"):
            client.label("p")
        with pytest.raises(InvalidInput, match="within: 'long' is no duration"):
            client.label("", 1, deployment="api", entity="a", within="long")
