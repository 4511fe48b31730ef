"""The access log: one whole line per request, whatever was asked, in files of bounded size."""

import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from console_seed import make_project
from waiting import eventually

from loopwright.config import Project
from loopwright.deploy.online.access import AccessLog


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return a project without any history."""
    return make_project(tmp_path / "project")


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a file; each must be whole."""
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_a_request_is_one_line(project: Project) -> None:
    """All that is known of a request is in its line, and what is not known is left out."""
    log = AccessLog(project, "serving-1")
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    log.add("POST", "/predict/api", 200, 0.0012346, "api", 3, 120, 456, "10.0.0.7", "r-1", "mobile", trace)
    log.add("GET", "/health", 200, 0.0001)
    log.close()
    first, second = lines(log.path)
    assert datetime.now(UTC) - datetime.fromisoformat(first.pop("time")) < timedelta(minutes=1)
    assert first == {
        "method": "POST",
        "path": "/predict/api",
        "status": 200,
        "latency_ms": 1.235,
        "deployment": "api",
        "rows": 3,
        "received": 120,
        "sent": 456,
        "remote": "10.0.0.7",
        "request_id": "r-1",
        "key": "mobile",
        "traceparent": trace,
    }
    assert set(second) == {"time", "method", "path", "status", "latency_ms"}
    assert log.path.stat().st_mode & 0o077 == 0


def test_no_request_can_write_a_line_of_its_own(project: Project) -> None:
    """Line breaks, quotes and control characters in what a caller sends stay within one line."""
    log = AccessLog(project, "serving-1")
    path = '/predict/\r\n{"status": 200}\u2028\x00"'
    log.add("POST", path, 404, 0.001, request_id='a"\nb')
    log.close()
    (line,) = lines(log.path)
    assert (line["path"], line["request_id"]) == (path, 'a"\nb')


def test_lines_are_written_while_the_process_runs(project: Project) -> None:
    """A line is in the file soon after its request, without closing."""
    log = AccessLog(project, "serving-1")
    log.add("GET", "/ready", 200, 0.0001)
    eventually("a line", lambda: log.path.exists() and len(lines(log.path)) == 1, 10)
    log.close()


def test_threads_lose_no_line(project: Project) -> None:
    """Requests of four threads at once are all there, each once."""
    log = AccessLog(project, "serving-1")

    def work(number: int) -> None:
        for place in range(2000):
            log.add("POST", "/predict/api", 200, 0.001, request_id=f"{number}-{place}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    ids = [line["request_id"] for line in lines(log.path)]
    assert len(ids) == len(set(ids)) == 8000
    assert log.dropped == 0


def test_files_are_set_aside_and_the_oldest_forgotten(project: Project) -> None:
    """No file exceeds its size, no more are kept than asked for, and what is kept is the newest without a gap."""
    log = AccessLog(project, "serving-1", size=50_000, files=3)
    for place in range(4000):
        log.add("POST", "/predict/api", 200, 0.001, rows=place)
    log.close()
    files = [log.path.with_name(f"{log.path.name}.2"), log.path.with_name(f"{log.path.name}.1"), log.path]
    assert sorted(project.run.glob("access-*")) == sorted(files)
    assert all(path.stat().st_size <= 50_000 for path in files)
    kept = [line.get("rows", 0) for path in files for line in lines(path)]
    assert kept == list(range(4000 - len(kept), 4000))
    assert len(kept) < 4000


def test_a_new_process_goes_on_with_the_file(project: Project) -> None:
    """A worker that starts anew appends, and counts what is there already against the size."""
    for _ in range(2):
        log = AccessLog(project, "serving-1", size=150)
        log.add("GET", "/ready", 200, 0.0001)
        log.close()
    assert len(lines(log.path)) == 1
    assert len(lines(log.path.with_name(f"{log.path.name}.1"))) == 1


def test_a_disk_that_takes_nothing_costs_lines_only(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the file cannot be written nothing is raised; lines are dropped, counted, and the log says it once."""
    log = AccessLog(project, "serving-1")
    log.path.mkdir(parents=True)
    for _ in range(600):
        log.add("GET", "/ready", 200, 0.0001)
    log.close()
    assert log.dropped == 600
    assert len([one for one in caplog.records if "cannot be written" in one.message]) == 1
