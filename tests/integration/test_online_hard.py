"""A real serving worker against bad and slow input, byte by byte: each case is refused or answered, and harms nobody."""

import contextlib
import http.client
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from serving_worker import (
    ROWS,
    TOML,
    Answer,
    Wired,
    Worker,
    copy_of,
    listening,
    logged,
    request,
    three_versions,
    workers,
)

from loopwright import scoring
from loopwright.predictions import PredictionStore

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
BODY_S = 2.0
ROW = ROWS[0]
RAW = json.dumps(ROW).encode()
POST = b"POST /predict/wine-api HTTP/1.1"
HOST, TYPE, LENGTH = b"host: x", b"content-type: application/json", b"content-length: %d" % len(RAW)
CHUNKED = b"transfer-encoding: chunked"
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(RAW), RAW)


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """Return one worker for all tests: none of them may harm it."""
    toml = TOML.format(durability="process").replace("[serving]", f'[serving]\nbody_timeout = "{BODY_S:g}s"')
    with pytest.MonkeyPatch.context() as patch, listening() as listener, workers(listener) as begin:
        patch.delenv("LOOPWRIGHT_LEDGER", raising=False)
        prepared = three_versions(tmp_path_factory)
        made = begin(copy_of(prepared, tmp_path_factory.mktemp("hard"), toml))
        yield made
        assert made.process.poll() is None
        assert "Traceback" not in made.log.read_text()


@pytest.fixture
def unharmed(worker: Worker) -> Iterator[Callable[[], list[str]]]:
    """Return a function that gives what was logged since the test began; at the end the worker must still serve."""
    before = set(logged(worker.project))

    def new() -> list[str]:
        return [one for one in logged(worker.project) if one not in before]

    yield new
    with worker.connect() as wired:
        wired.send(request(ROW))
        good = wired.answer()
    assert good is not None
    assert good.status == 200
    assert worker.process.poll() is None


def head(*lines: bytes, body: bytes = b"") -> bytes:
    """Return a request of these lines."""
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def post(*lines: bytes, body: bytes = RAW) -> bytes:
    """Return a request for a prediction with these headers."""
    return head(POST, HOST, TYPE, *lines, body=body)


def exchange(worker: Worker, sent: bytes) -> Answer | None:
    """Send bytes on a new connection and return the first answer, None where there is none."""
    with worker.connect() as wired:
        wired.send(sent)
        return wired.answer()


NOT_HTTP = {
    "nonsense": b"\x00\xff\x13 nonsense\r\n\r\n",
    "http 0.9": b"GET /health\r\n\r\n",
    "http 1.2": head(b"GET /health HTTP/1.2", HOST),
    "http 2.0": head(b"GET /health HTTP/2.0", HOST),
    "http 2 without a word before": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no version number": b"GET /health HTTP/x.y\r\n\r\n",
    "a lower-case method": head(b"get /health HTTP/1.1", HOST),
    "an unknown method of 1 KB": head(b"A" * 1024 + b" /health HTTP/1.1", HOST),
    "connect": head(b"CONNECT x:443 HTTP/1.1", HOST),
    "an address without a slash": head(b"GET health HTTP/1.1", HOST),
    "an address that is none": head(b"GET http://[:: HTTP/1.1", HOST),
    "bytes in an address": head(b"POST /predict/\xff\xfe HTTP/1.1", HOST),
    "length and chunks": post(LENGTH, CHUNKED, body=CHUNKS),
    "chunks and length": post(CHUNKED, LENGTH, body=CHUNKS),
    "two lengths": post(LENGTH, b"content-length: 5"),
    "the same length twice": post(LENGTH, LENGTH),
    "a list of lengths": post(b"content-length: 5, 5"),
    "a negative length": post(b"content-length: -5"),
    "a length with a sign": post(b"content-length: +5"),
    "a length with letters": post(b"content-length: abc"),
    "a hexadecimal length": post(b"content-length: 0x10"),
    "a length with an underscore": post(b"content-length: 1_0"),
    "a length beyond 64 bits": post(b"content-length: 99999999999999999999999"),
    "a length of nothing": post(b"content-length: "),
    "a length that is no digit": post(b"content-length: \xb2"),
    "chunked, then identity": post(b"transfer-encoding: chunked, identity", body=CHUNKS),
    "identity": post(b"transfer-encoding: identity", body=CHUNKS),
    "nearly chunked": post(b"transfer-encoding: xchunked", body=CHUNKS),
    "compressed and chunked": post(b"transfer-encoding: gzip, chunked", body=CHUNKS),
    "two transfer encodings": post(CHUNKED, b"transfer-encoding: identity", body=CHUNKS),
    "a folded transfer encoding": post(b"transfer-encoding:\r\n chunked", body=CHUNKS),
    "a space before the colon": post(b"transfer-encoding : chunked", body=CHUNKS),
    "a tab of the other kind": post(b"transfer-encoding: \x0bchunked", body=CHUNKS),
    "line feeds alone": post(LENGTH).replace(b"\r\n", b"\n"),
    "a carriage return alone": post(b"x: a\rb", LENGTH),
    "a chunk size that is none": post(CHUNKED, body=b"zz\r\n"),
    "a negative chunk size": post(CHUNKED, body=b"-5\r\nabcde\r\n0\r\n\r\n"),
    "a chunk size beyond 64 bits": post(CHUNKED, body=b"fffffffffffffffffffff\r\n"),
    "a chunk size with 0x": post(CHUNKED, body=b"0x5\r\nabcde\r\n0\r\n\r\n"),
    "chunks with line feeds": post(CHUNKED, body=CHUNKS.replace(b"\r\n", b"\n")),
    "a chunk longer than it says": post(CHUNKED, body=b"2\r\nabc\r\n0\r\n\r\n"),
    "a trailer with a length": post(CHUNKED, body=CHUNKS[:-2] + b"content-length: 5\r\n\r\n"),
    "a header without a colon": post(b"nothing", LENGTH),
    "a header without a name": post(b": nothing", LENGTH),
    "a header with a zero byte": post(b"x: a\x00b", LENGTH),
    "a header with a control character": post(b"x-request-id: a\x01b", LENGTH),
    "a folded header": post(b"x-request-id: a\r\n set-cookie: b", LENGTH),
    "a space before the first header": head(POST, b" host: x", TYPE, LENGTH, body=RAW),
    "no host": head(POST, TYPE, LENGTH, body=RAW),
    "two hosts": post(HOST, LENGTH),
}


@pytest.mark.parametrize("sent", NOT_HTTP.values(), ids=NOT_HTTP.keys())
def test_what_is_no_http_is_refused_and_the_connection_ends(
    worker: Worker, unharmed: Callable[[], list[str]], sent: bytes
) -> None:
    """What two servers could read in two ways is answered with 400, and nothing behind it is read."""
    with worker.connect() as wired:
        wired.send(sent + request(ROW))
        refused = wired.answer()
        assert refused is not None
        assert (refused.status, refused.headers["connection"]) == (400, "close")
        assert refused.json["error"]["code"] == "not_http"
        assert wired.closed()
    assert unharmed() == []


TOO_LONG = {
    "a header of 100 KB": post(b"x: " + b"a" * 100_000, LENGTH),
    "an id of 100 KB": post(b"x-request-id: " + b"a" * 100_000, LENGTH),
    "20,000 headers": post(*[b"a: b"] * 20_000, LENGTH),
    "an address of 100 KB": head(b"POST /predict/" + b"a" * 100_000 + b" HTTP/1.1", HOST, LENGTH, body=RAW),
    "headers without an end": head(POST, HOST, b"x: " + b"a" * 300_000)[:-4],
}


@pytest.mark.parametrize("pieces", [1, 7])
@pytest.mark.parametrize("sent", TOO_LONG.values(), ids=TOO_LONG.keys())
def test_headers_that_are_too_long_are_refused(
    worker: Worker, unharmed: Callable[[], list[str]], sent: bytes, pieces: int
) -> None:
    """Headers beyond 64 KB are answered with 431 however they arrive, and the sender gets to read it."""
    size = -(-len(sent) // pieces)
    with worker.connect() as wired:
        for at in range(0, len(sent), size):
            wired.send(sent[at : at + size])
            time.sleep(0.01 if pieces > 1 else 0)
        refused = wired.answer()
        assert refused is not None
        assert (refused.status, refused.json["error"]["code"]) == (431, "headers_too_long")
        assert wired.closed()
    assert unharmed() == []


V2 = "/v2/models/wine-api/infer"
REFUSED: dict[str, tuple[int, bytes, str]] = {
    "an id that is too long": (400, request(ROW, "/predict/wine-api", "x-request-id: " + "a" * 60_000), "60000 bytes"),
    "a timeout that is none": (400, request(ROW, "/predict/wine-api", "x-timeout-ms: abc"), "x-timeout-ms"),
    "a timeout of nothing": (400, request(ROW, "/predict/wine-api", "x-timeout-ms: 0"), "x-timeout-ms"),
    "a timeout in other digits": (400, request(ROW, "/predict/wine-api", "x-timeout-ms: ٣"), "x-timeout-ms"),
    "a superscript timeout": (400, request(ROW, "/predict/wine-api", "x-timeout-ms: ²"), "x-timeout-ms"),
    "an unknown variant": (404, request(ROW, "/predict/wine-api", "x-variant: nope"), "no variant 'nope'"),
    "a compressed body": (415, request(b"\x1f\x8b", "/predict/wine-api", "content-encoding: gzip"), "compressed"),
    "a compressed tensor": (415, request(b"\x1f\x8b", V2, "content-encoding: gzip"), "compressed"),
    "compressed rows": (415, request(b"\x1f\x8b", "/deployments/wine-api/invocations", "content-encoding: gzip"), "compressed"),
    "a slash behind": (404, request(ROW, "/predict/wine-api/"), "wine-api/"),
    "two dots": (404, request(ROW, "/predict/../predict/wine-api"), "online deployment"),
    "a zero byte in a name": (404, request(ROW, "/predict/wine%00api"), "online deployment"),
    "a name that is no UTF-8": (404, request(ROW, "/predict/%ff%fe"), "online deployment"),
    "a name with half an escape": (404, request(ROW, "/predict/wine%zzapi"), "online deployment"),
    "an address of 60 KB": (404, request(ROW, "/predict/" + "a" * 60_000), "online deployment"),
    "delete": (405, request(ROW, method="DELETE"), "DELETE does not work"),
    "options": (405, request(None, method="OPTIONS"), "OPTIONS does not work"),
    "options for all": (405, request(None, "*", method="OPTIONS"), "OPTIONS does not work"),
    "a method of others": (405, request(None, "/health", method="PROPFIND"), "PROPFIND does not work"),
    "no body": (400, head(POST, HOST, TYPE), "body is empty"),
    "no chunk": (400, post(CHUNKED, body=b"0\r\n\r\n"), "body is empty"),
    "a length of 10^15": (413, post(b"content-length: 999999999999999"), "more than 200000 bytes"),
    "a length of 10^15 that is asked for": (413, post(b"content-length: 999999999999999", b"expect: 100-continue", body=b""), "more than"),
    "a latin-1 body": (400, request(b'{"hue": "\xe4"}'), "not UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_http_and_cannot_be_answered_says_why(
    worker: Worker, unharmed: Callable[[], list[str]], case: tuple[int, bytes, str]
) -> None:
    """A request that is understood and cannot be answered gets its own status and a message, and nothing is logged."""
    status, sent, said = case
    refused = exchange(worker, sent)
    assert refused is not None
    assert (refused.status, said in refused.body.decode()) == (status, True), refused
    assert unharmed() == []


ANSWERED = {
    "http 1.0": head(b"POST /predict/wine-api HTTP/1.0", TYPE, LENGTH, body=RAW),
    "empty lines before": b"\r\n\r\n" + request(ROW),
    "chunks": post(CHUNKED, body=CHUNKS),
    "chunks in odd letters": post(b"Transfer-Encoding: ChUnKeD", body=CHUNKS),
    "a chunk extension": post(CHUNKED, body=CHUNKS.replace(b"\r\n", b";a=b\r\n", 1)),
    "trailers": post(CHUNKED, b"trailer: x-a", body=CHUNKS[:-2] + b"x-a: b\r\n\r\n"),
    "spaces around a length": post(b"content-length:   %d  " % len(RAW)),
    "an absolute address": head(b"POST http://x/predict/wine-api HTTP/1.1", HOST, TYPE, LENGTH, body=RAW),
    "an escaped name": request(ROW, "/predict/%77ine%2Dapi"),
    "a query": request(ROW, "/predict/wine-api?a=b"),
    "a charset": request(ROW, kind="application/json; charset=utf-8"),
    "a type in capitals": request(ROW, kind="Application/JSON"),
    "a trace that is none": request(ROW, "/predict/wine-api", "traceparent: garbage"),
    "an unknown expectation": request(ROW, "/predict/wine-api", "expect: 200-maybe"),
    "two entities": request(ROW, "/predict/wine-api", "x-entity: a", "x-entity: b"),
    "websocket": request(ROW, "/predict/wine-api", "connection: upgrade", "upgrade: websocket"),
    "http 2, as Java asks": request(
        ROW, "/predict/wine-api", "connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAEAAEAA"
    ),
    "http 2 and chunks": post(CHUNKED, b"connection: upgrade", b"upgrade: h2c", body=CHUNKS),
}  # fmt: skip


@pytest.mark.parametrize("sent", ANSWERED.values(), ids=ANSWERED.keys())
def test_what_is_unusual_and_right_is_answered(
    worker: Worker, unharmed: Callable[[], list[str]], sent: bytes
) -> None:
    """Requests that are rarely seen and right are answered and logged, and so is the next on the connection."""
    with worker.connect() as wired:
        wired.send(sent)
        first = wired.answer()
        assert first is not None
        assert (first.status, first.json["prediction"]) == (200, "anna")
        ids = [first.json["prediction_id"]]
        if first.headers.get("connection") != "close":
            wired.send(request(ROW))
            second = wired.answer()
            assert second is not None
            ids.append(second.json["prediction_id"])
        else:
            assert b"HTTP/1.0" in sent
    assert unharmed() == ids


def test_the_last_of_two_entities_counts(worker: Worker) -> None:
    """A header that is sent twice counts once, by the same rule on every way through the server."""
    short = request(ROW, "/predict/wine-api", "x-entity: a", "x-entity: b")
    for sent in (short, short.replace(b"wine-api", b"wine%2Dapi", 1)):
        answer = exchange(worker, sent)
        assert answer is not None
        assert PredictionStore(worker.project).find(answer.json["prediction_id"]).entity == "b"


def test_expectations_are_met_before_the_body(worker: Worker, unharmed: Callable[[], list[str]]) -> None:
    """Who asks before sending a body is told to go on, or refused and, as nobody knows what follows, disconnected."""
    with worker.connect() as wired:
        wired.send(post(LENGTH, b"expect: 100-continue", body=b""))
        asked = wired.answer()
        assert asked is not None
        assert asked.status == 100
        wired.send(RAW)
        answer = wired.answer()
        assert answer is not None
        assert answer.status == 200
    with worker.connect() as wired:
        wired.send(head(b"POST /predict/nothing HTTP/1.1", HOST, TYPE, LENGTH, b"expect: 100-continue"))
        refused = wired.answer()
        assert refused is not None
        assert (refused.status, refused.headers["connection"]) == (404, "close")
        assert wired.closed()
    assert unharmed() == [answer.json["prediction_id"]]


def test_a_head_request_has_no_body(worker: Worker, unharmed: Callable[[], list[str]]) -> None:
    """HEAD is answered as GET, without the body; the next answer on the connection is its own."""
    with worker.connect() as wired:
        wired.send(head(b"HEAD /health HTTP/1.1", HOST) + request(None, "/health", method="GET"))
        first = wired.answer(head=True)
        second = wired.answer()
        assert first is not None
        assert second is not None
        assert first.headers["content-length"] == str(len(second.body)) != "0"
        assert second.json == {"status": "ok"}
    assert unharmed() == []


def mixed(number: int) -> bytes:
    """Return one of a sequence of requests that take different ways through the server."""
    kinds = [
        request(ROWS[number], "/predict/wine-api", f"x-request-id: {number}"),
        request(ROWS[number], "/predict/wine%2Dapi", f"x-request-id: {number}"),
        request([ROWS[number]], "/predict/wine-api", f"x-request-id: {number}", "connection: upgrade", "upgrade: h2c"),
        request(None, "/health", f"x-request-id: {number}", method="GET"),
        request({}, "/predict/wine-api", f"x-request-id: {number}"),
    ]  # fmt: skip
    return kinds[number % len(kinds)]


@pytest.mark.parametrize("number", [2, 50, 170])
def test_pipelined_requests_are_answered_in_their_order(
    project_scores: Any, worker: Worker, unharmed: Callable[[], list[str]], number: int
) -> None:
    """Requests that are sent before the answers to others are answered one by one, each with its own answer."""
    with worker.connect() as wired:
        wired.send(b"".join(map(mixed, range(number))))
        for place in range(number):
            answer = wired.answer()
            assert answer is not None
            assert answer.headers["x-request-id"] == str(place)
            assert answer.status == (422 if place % 5 == 4 else 200)
            if place % 5 < 3:
                one = answer.json["predictions"][0] if place % 5 == 2 else answer.json
                assert list(one["probability"].values()) == pytest.approx(project_scores[place], abs=1e-9)
    assert len(unharmed()) == sum(place % 5 < 3 for place in range(number))


@pytest.fixture(scope="module")
def project_scores(worker: Worker) -> Any:
    """Return the probabilities of all rows, scored in this process."""
    columns = {name: np.array([row[name] for row in ROWS]) for name in ROWS[0]}
    return scoring.load(worker.project.scorer("wine", 1)).score(columns).probability


@pytest.mark.parametrize("bad", [b"NONSENSE\r\n\r\n", post(CHUNKED, body=b"zz\r\n"), post(LENGTH, CHUNKED)])
@pytest.mark.parametrize("ways", ["s", "a", "ss", "sa", "as", "sas", "aaa"])
def test_good_requests_in_front_of_a_bad_one_are_answered(
    worker: Worker, unharmed: Callable[[], list[str]], ways: str, bad: bytes
) -> None:
    """What was sent as a whole before the connection went wrong is answered, in order; then it ends."""
    paths = {"s": "/predict/wine-api", "a": "/predict/wine%2Dapi"}
    with worker.connect() as wired:
        wired.send(b"".join(request(ROW, paths[way]) for way in ways) + bad + request(ROW))
        found = wired.answers()
    assert [answer.status for answer in found] == [200] * len(ways)
    assert unharmed() == [answer.json["prediction_id"] for answer in found]


@pytest.mark.parametrize("ways", ["s", "a", "sa", "ssss", "aas"])
def test_a_caller_that_has_said_all_is_answered(
    worker: Worker, unharmed: Callable[[], list[str]], ways: str
) -> None:
    """Who closes its side of the connection behind whole requests gets the answers; half a request is dropped."""
    paths = {"s": "/predict/wine-api", "a": "/predict/wine%2Dapi"}
    for rest in (b"", post(LENGTH)[:-10]):
        with worker.connect() as wired:
            wired.send(b"".join(request(ROW, paths[way]) for way in ways) + rest)
            wired.socket.shutdown(socket.SHUT_WR)
            assert [answer.status for answer in wired.answers()] == [200] * len(ways)
    assert len(unharmed()) == 2 * len(ways)


def test_callers_that_hang_up_in_the_middle_harm_nobody(
    worker: Worker, unharmed: Callable[[], list[str]]
) -> None:
    """A request that is cut off anywhere is dropped."""
    whole = request(ROW, "/predict/wine-api", "x-entity: a")
    for sent in (whole, post(CHUNKED, body=CHUNKS)):
        for at in range(1, len(sent), 23):
            with worker.connect() as wired:
                wired.send(sent[:at])
    assert unharmed() == []


def test_requests_in_single_bytes_are_answered(worker: Worker, unharmed: Callable[[], list[str]]) -> None:
    """How a request is cut into pieces changes nothing."""
    sent = request(ROW) + post(CHUNKED, body=CHUNKS)
    with worker.connect() as wired:
        wired.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(len(sent)):
            wired.send(sent[at : at + 1])
        for _ in range(2):
            answer = wired.answer()
            assert answer is not None
            assert answer.status == 200
    assert len(unharmed()) == 2


def test_a_connection_is_used_a_thousand_times(worker: Worker, unharmed: Callable[[], list[str]]) -> None:
    """A connection stays open from request to request, until its caller says that it is the last."""
    with worker.connect() as wired:
        for number in range(1000):
            wired.send(mixed(number % 170))
            answer = wired.answer()
            assert answer is not None
            assert answer.headers["x-request-id"] == str(number % 170)
        wired.send(request(ROW, "/predict/wine-api", "connection: close"))
        last = wired.answer()
        assert last is not None
        assert (last.status, last.headers["connection"]) == (200, "close")
        assert wired.closed()
    assert len(unharmed()) == 601


SLOW: dict[str, tuple[bytes, int | None]] = {
    "nothing": (b"", None),
    "half a request line": (b"POST /pre", 408),
    "half the headers": (head(POST, HOST)[:-2], 408),
    "half a body": (post(LENGTH)[:-10], 408),
    "half a chunk": (post(CHUNKED, body=CHUNKS)[:-20], 408),
    "half a second request": (request(ROW) + post(LENGTH)[:-10], 408),
    "half a body that nobody reads": (
        head(b"POST /predict/nothing HTTP/1.1", HOST, TYPE, LENGTH, body=RAW[:-10]),
        None,
    ),
}


def test_what_comes_too_slowly_is_ended(worker: Worker, unharmed: Callable[[], list[str]]) -> None:
    """A request that does not become complete in time is answered with 408; a silent connection is closed."""
    with_answer = {"half a second request": 1, "half a body that nobody reads": 1}
    found: dict[str, list[int]] = {}

    def wait(name: str, sent: bytes) -> None:
        with worker.connect(BODY_S + 15.0) as wired:
            wired.send(sent)
            found[name] = [answer.status for answer in wired.answers()]

    threads = [threading.Thread(target=wait, args=(name, sent)) for name, (sent, _) in SLOW.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, (_, status) in SLOW.items():
        assert found[name][with_answer.get(name, 0) :] == ([] if status is None else [status]), name
    assert found["half a second request"][0] == 200
    assert len(unharmed()) == 1


def test_a_body_that_trickles_is_ended(worker: Worker, unharmed: Callable[[], list[str]]) -> None:
    """Sending a little now and then does not win more time, on either way through the server."""
    for path in (b"/predict/wine-api", b"/predict/wine%2Dapi"):
        with worker.connect() as wired:
            wired.send(head(b"POST " + path + b" HTTP/1.1", HOST, TYPE, b"content-length: 1000"))
            began = time.monotonic()
            wired.socket.settimeout(0.2)
            refused = None
            while refused is None and time.monotonic() - began < BODY_S + 10.0:
                wired.send(b" ")
                try:
                    refused = wired.socket.recv(65536)
                except TimeoutError:
                    continue
        assert refused is not None
        assert refused.startswith(b"HTTP/1.1 408 ")
    assert unharmed() == []


def test_a_caller_that_never_reads_is_cut_off(worker: Worker, unharmed: Callable[[], list[str]]) -> None:
    """Answers that nobody reads are not piled up: the connection is read no further, and ended."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", worker.port))
    connection.settimeout(BODY_S + 15.0)
    many = request(ROWS[:100]) * 20
    with connection, pytest.raises((ConnectionResetError, BrokenPipeError)):  # noqa: PT012
        # Nobody reads, so that sooner or later nothing more is taken; at last the connection is reset.
        for _ in range(1000):
            connection.sendall(many)
    assert unharmed()


def test_five_hundred_idle_connections_keep_nobody_waiting(
    worker: Worker, unharmed: Callable[[], list[str]]
) -> None:
    """Connections that send nothing cost nobody an answer."""
    idle = [Wired(worker.port, 20.0) for _ in range(500)]
    try:
        answer = exchange(worker, request(ROW))
        assert answer is not None
        assert answer.status == 200
        for one in idle[::50]:
            one.send(request(ROW))
            found = one.answer()
            assert found is not None
            assert found.status == 200
    finally:
        for one in idle:
            one.__exit__()
    assert len(unharmed()) == 11


def test_large_bodies_that_are_refused_do_not_reset_the_answer(
    worker: Worker, unharmed: Callable[[], list[str]]
) -> None:
    """Who is still sending a body that is too large gets to read why it is refused."""
    for path in ("/predict/wine-api", "/labels", "/v2/models/wine-api/infer"):
        for sent in (
            request(b" " * 2_000_000, path),
            head(f"POST {path} HTTP/1.1".encode(), HOST, TYPE, CHUNKED)
            + (b"ffff\r\n" + b" " * 0xFFFF + b"\r\n") * 30,
        ):
            refused = exchange(worker, sent)
            assert refused is not None
            assert (refused.status, refused.headers["connection"]) == (413, "close")
    assert unharmed() == []


NAMES = list(ROWS[0])


def perturbed(number: int) -> list[dict[str, Any]]:
    """Return 1 to 5 rows that nobody else sends."""
    chance = random.Random(number)
    picked = [ROWS[chance.randrange(178)] for _ in range(1 + number % 5)]
    return [{name: value * chance.uniform(0.9, 1.1) for name, value in row.items()} for row in picked]


def asked_in(form: int, rows: list[dict[str, Any]]) -> tuple[str, str, bytes]:
    """Return path, content type and body of a request for rows in one of several protocols."""
    if form == 0:
        return "/predict/wine-api", "application/json", json.dumps(rows).encode()
    if form == 1:
        lines = [",".join(NAMES), *(",".join(repr(row[name]) for name in NAMES) for row in rows)]
        return "/predict/wine-api", "text/csv", "\n".join(lines).encode()
    if form == 2:
        inputs = [
            {"name": name, "shape": [len(rows)], "datatype": "FP64", "data": [row[name] for row in rows]}
            for name in NAMES
        ]
        outputs = [{"name": "probability"}, {"name": "prediction"}]
        body = json.dumps({"inputs": inputs, "outputs": outputs}).encode()
        return "/v2/models/wine-api/infer", "application/json", body
    split = {"columns": NAMES, "data": [[row[name] for name in NAMES] for row in rows]}
    body = json.dumps({"dataframe_split": split}).encode()
    return "/deployments/wine-api/invocations", "application/json", body


def answered_in(form: int, body: bytes) -> tuple[list[str], list[list[float]] | None]:
    """Return the predictions of an answer, and the probabilities where the protocol has them."""
    answer = json.loads(body)
    if form in (0, 1):
        found = answer["predictions"]
        return [one["prediction"] for one in found], [list(one["probability"].values()) for one in found]
    if form == 2:
        outputs = {one["name"]: one for one in answer["outputs"]}
        shares = np.array(outputs["probability"]["data"]).reshape(outputs["probability"]["shape"])
        return outputs["prediction"]["data"], shares.tolist()
    return answer["predictions"], None


def test_rows_of_many_callers_are_never_mixed(worker: Worker, unharmed: Callable[[], list[str]]) -> None:
    """24 threads with rows of their own, in four protocols at once: each gets what its own rows score, in its order."""
    scorer = scoring.load(worker.project.scorer("wine", 1))
    each, threads = 100, 24
    wrong: list[str] = []
    shares = np.zeros(threads)

    def send(thread: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", worker.port, timeout=30)
        answers = []
        for turn in range(each):
            number = thread * each + turn
            form = (thread + turn) % 4
            path, kind, body = asked_in(form, perturbed(number))
            connection.request("POST", path, body, {"content-type": kind})
            answer = connection.getresponse()
            answers.append((number, form, answer.status, answer.read()))
        connection.close()
        for number, form, status, body in answers:
            rows = perturbed(number)
            right = scorer.score({name: np.array([row[name] for row in rows]) for name in NAMES})
            if status != 200:
                wrong.append(f"{status} {body[:200]!r}")
                continue
            labels, probability = answered_in(form, body)
            if labels != right.prediction.tolist():
                wrong.append(f"form {form}: {labels} for {right.prediction.tolist()}")
            if probability is not None:
                assert right.probability is not None
                worst = float(np.abs(np.array(probability) - right.probability).max())
                shares[thread] = max(shares[thread], worst)

    running = [threading.Thread(target=send, args=(thread,)) for thread in range(threads)]
    for one in running:
        one.start()
    for one in running:
        one.join()
    assert wrong == []
    assert shares.max() < 1e-9
    assert len(unharmed()) == sum(1 + number % 5 for number in range(each * threads))


def test_random_mixtures_are_answered_as_far_as_they_are_right(
    worker: Worker, unharmed: Callable[[], list[str]]
) -> None:
    """Right requests in front, then spoilt ones, cut anywhere and in pieces of any size: the right ones get answers."""
    chance = random.Random(4)
    spoilt = [*NOT_HTTP.values(), *TOO_LONG.values(), *(sent for _, sent, _ in REFUSED.values())]
    for _ in range(300):
        number = chance.randint(0, 8)
        wrong = b"".join(chance.choice([*spoilt, *ANSWERED.values()]) for _ in range(chance.randint(0, 3)))
        changed = bytearray(wrong[: chance.randint(0, len(wrong))])
        for _ in range(chance.randint(0, 3) if changed else 0):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        sent = b"".join(map(mixed, range(number))) + changed
        size = max(chance.choice([10**6, 1000, 100, 30]), len(sent) // 200, 1)
        with worker.connect() as wired:
            for at in range(0, len(sent), size):
                wired.send(sent[at : at + size])
            with contextlib.suppress(OSError):
                wired.socket.shutdown(socket.SHUT_WR)
            for place in range(number):
                answer = wired.answer()
                assert answer is not None
                assert answer.headers["x-request-id"] == str(place)
                assert answer.status == (422 if place % 5 == 4 else 200)
    assert unharmed()


def test_what_is_refused_is_not_written_about(worker: Worker) -> None:
    """Bad requests do not fill the worker's own log."""
    before = worker.log.stat().st_size
    for sent in NOT_HTTP.values():
        exchange(worker, sent)
    assert worker.log.stat().st_size == before
