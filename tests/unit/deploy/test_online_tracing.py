"""Traces: which headers are taken, what a collector receives, and that one which is gone holds nothing up."""

import http.server
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from one_server import free_port
from waiting import eventually

from loopwright.deploy.online.tracing import QUEUE, Tracer, parse
from loopwright.errors import InvalidConfig

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{PARENT}-01"


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (SAMPLED, SAMPLED),
        (f"00-{TRACE}-{PARENT}-00", f"00-{TRACE}-{PARENT}-00"),
        # A newer version may say more.
        (f"cc-{TRACE}-{PARENT}-01-what-the-future-brings", f"cc-{TRACE}-{PARENT}-01"),
        (f"cc-{TRACE}-{PARENT}-01", f"cc-{TRACE}-{PARENT}-01"),
        (f"cc-{TRACE}-{PARENT}-01.what", None),
        (f"00-{TRACE}-{PARENT}-01-more", None),
        (f"ff-{TRACE}-{PARENT}-01", None),
        (f"00-{'0' * 32}-{PARENT}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-{PARENT}-01", None),
        (f"00-{TRACE[:-1]}-{PARENT}-01", None),
        (f"00-{TRACE}-{PARENT}-1", None),
        (f"00-{TRACE}-{PARENT}-0g", None),
        (f"00_{TRACE}_{PARENT}_01", None),
        (f"{SAMPLED}\n", None),
        (f" {SAMPLED}", None),
        ("", None),
        ("é" * 40, None),
    ],
)
def test_only_a_whole_header_is_taken(header: str, found: str | None) -> None:
    """A header is taken as the standard has it, or not at all."""
    assert parse(header.encode()) == found


class Collector:
    """A collector that keeps what it receives."""

    def __init__(self) -> None:
        pytest.importorskip(
            "opentelemetry.exporter.otlp.proto.http", reason="the extra 'otel' is not installed"
        )
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        self.spans: list[Any] = []
        self.resources: list[dict[str, str]] = []
        self.paths: set[str] = set()
        keep = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = ExportTraceServiceRequest()
                body.ParseFromString(self.rfile.read(int(self.headers["content-length"])))
                keep.paths.add(self.path)
                for one in body.resource_spans:
                    keep.resources.append(
                        {fact.key: fact.value.string_value for fact in one.resource.attributes}
                    )
                    for scope in one.scope_spans:
                        keep.spans.extend(scope.spans)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self) -> None:
        """Stop listening."""
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Return a running collector."""
    made = Collector()
    yield made
    made.close()


def test_a_request_becomes_a_span_with_its_stages(collector: Collector) -> None:
    """The collector gets one server span below the caller's, with a child for each stage and the times of day."""
    tracer = Tracer(collector.url, "shop", "serving-1")
    wall, now = time.time_ns(), time.monotonic()
    stages = (("decode", now + 0.001, now + 0.002), ("score", now + 0.002, now + 0.007))
    tracer.record(
        SAMPLED, "api", now, now + 0.01, stages, 200, ["id-1", "id-2"], variant="champion", version=3
    )
    eventually("three spans", lambda: len(collector.spans) == 3, 20)
    tracer.close()
    by_name = {span.name: span for span in collector.spans}
    whole = by_name["predict api"]
    assert whole.trace_id.hex() == TRACE
    assert whole.parent_span_id.hex() == PARENT
    assert whole.kind == 2
    assert whole.status.code == 0
    assert abs(whole.start_time_unix_nano - wall) < 1e9
    assert whole.end_time_unix_nano - whole.start_time_unix_nano == pytest.approx(1e7, abs=1e4)
    for name, length in (("decode", 1e6), ("score", 5e6)):
        part = by_name[name]
        assert part.parent_span_id == whole.span_id
        assert part.trace_id == whole.trace_id
        assert part.end_time_unix_nano - part.start_time_unix_nano == pytest.approx(length, abs=1e4)
    facts = {fact.key: fact.value for fact in whole.attributes}
    assert facts["http.response.status_code"].int_value == 200
    assert facts["loopwright.version"].int_value == 3
    assert [one.string_value for one in facts["loopwright.prediction_ids"].array_value.values] == [
        "id-1",
        "id-2",
    ]
    assert collector.paths == {"/v1/traces"}
    assert collector.resources[0]["service.name"] == "shop"
    assert collector.resources[0]["service.instance.id"] == "serving-1"
    assert tracer.dropped == 0


def test_what_the_caller_does_not_record_is_not_sent(collector: Collector) -> None:
    """A trace that is not sampled, and a request without one, make no span; an error of the server is marked."""
    tracer = Tracer(f"{collector.url}/", "shop", "serving-1")
    now = time.monotonic()
    tracer.record(f"00-{TRACE}-{PARENT}-00", "api", now, now, (), 200)
    tracer.record(None, "api", now, now, (), 200)
    tracer.record(SAMPLED, "other", now, now, (), 503)
    tracer.close()
    assert [(span.name, span.status.code) for span in collector.spans] == [("predict other", 2)]


def test_the_sdks_own_sampler_can_be_asked_for(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """With OTEL_TRACES_SAMPLER set, requests without a trace begin one."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
    tracer = Tracer(collector.url, "shop", "serving-1")
    now = time.monotonic()
    tracer.record(None, "api", now, now, (("score", now, now),), 200)
    tracer.close()
    assert len(collector.spans) == 2
    assert len({span.trace_id for span in collector.spans}) == 1


def test_a_collector_that_is_gone_costs_spans_only(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is raised, what waits is bounded, what is lost is counted, and the log says it once."""
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the extra 'otel' is not installed")
    caplog.set_level(logging.WARNING)
    tracer = Tracer(f"http://127.0.0.1:{free_port()}", "shop", "serving-1")
    now = time.monotonic()
    for _ in range(QUEUE + 500):
        tracer.record(SAMPLED, "api", now, now, (("score", now, now),), 200)
        assert len(tracer._waiting) <= QUEUE
    assert tracer.dropped > 0
    tracer.close(timeout_s=0.1)
    eventually("the end of the thread", lambda: not tracer._thread.is_alive(), 30)
    assert tracer.dropped == QUEUE + 500
    assert len([one for one in caplog.records if "do not reach" in one.message]) == 1


def test_a_collector_that_does_not_answer_does_not_hold_the_end() -> None:
    """Closing comes back while the collector still keeps its answer."""
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the extra 'otel' is not installed")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        tracer = Tracer(f"http://127.0.0.1:{silent.getsockname()[1]}", "shop", "serving-1")
        now = time.monotonic()
        tracer.record(SAMPLED, "api", now, now, (), 200)
        tracer.close(timeout_s=0.2)
        assert tracer._thread.is_alive()
        silent.accept()[0].close()
    eventually("the end of the thread", lambda: not tracer._thread.is_alive(), 30)


@pytest.mark.parametrize("address", ["127.0.0.1:4318", "ftp://127.0.0.1", "http://", "http://host:port"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    """What cannot be a collector's address is refused with what would be one."""
    with pytest.raises(InvalidConfig, match="no address of a collector"):
        Tracer(address, "shop", "serving-1")


def test_without_the_exporter_the_error_says_what_to_install() -> None:
    """Where the extra is not installed the error names it; reading headers needs no library at all."""
    code = (
        "import sys; sys.modules['opentelemetry.exporter'] = None\n"
        "from loopwright.deploy.online.tracing import Tracer, parse\n"
        f"assert parse(b'{SAMPLED}'); assert 'opentelemetry.sdk' not in sys.modules\n"
        "Tracer('http://127.0.0.1:9', 'shop', 'serving-1')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Try: pip install 'loopwright[otel]'" in done.stderr
