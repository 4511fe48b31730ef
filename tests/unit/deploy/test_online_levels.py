"""The service level: what counts, what survives a killed worker, and budgets and burn rates as the workbook has them."""

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from console_seed import make_project

from loopwright.config import Project, SloConfig
from loopwright.deploy.online.levels import LevelMeter, Levels, ServiceLevel, sentences, service_level
from loopwright.errors import NotFound

CONFIG = """
[model.digits]
target = "digit"

[deployment.api]
model = "digits"
mode = "online"
slo = { latency = "50ms", share = 0.99, availability = 0.999, window = "7d" }

[deployment.plain]
model = "digits"
mode = "online"
"""
NOW = datetime(2026, 11, 26, 12, 0, 30, tzinfo=UTC)
SLO = SloConfig(latency=timedelta(milliseconds=50))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return a project with one deployment that promises something."""
    return make_project(tmp_path / "project", CONFIG)


def count(
    project: Project,
    ago: timedelta,
    *,
    good: int = 0,
    slow: int = 0,
    failed: int = 0,
    worker: str = "serving-1",
) -> None:
    """Count requests as a worker would have, so long ago."""
    mine = Levels(project, worker)
    meter = mine.of("api", SLO)
    for seconds, status, n in ((0.01, 200, good), (0.3, 200, slow), (0.01, 500, failed)):
        for _ in range(n):
            meter.add(seconds, status)
    mine.flush((NOW - ago).timestamp())
    mine.close()


def level(project: Project) -> ServiceLevel:
    """Return the level of the deployment that promises something."""
    found = service_level(project, "api", NOW)
    assert found is not None
    return found


def test_what_is_the_callers_fault_counts_for_nobody() -> None:
    """A refusal with 400 to 499 is no request of the service level; an error of the server is one, and never quick."""
    meter = LevelMeter(0.05)
    for status in (200, 404, 422, 429, 499, 500, 503):
        meter.add(0.01, status)
    meter.add(0.051, 202)
    assert (meter.requests, meter.errors, meter.within) == (4, 2, 1)


def test_without_a_promise_there_is_no_level(project: Project) -> None:
    """A deployment without `slo` has none; one that is not declared is refused by name."""
    assert service_level(project, "plain", NOW) is None
    with pytest.raises(NotFound, match="apo"):
        service_level(project, "apo", NOW)


def test_without_a_request_nothing_is_known(project: Project) -> None:
    """No request, no share and no budget, rather than full or empty ones."""
    found = level(project)
    assert (found.requests, found.since) == (0, None)
    assert found.latency.good is None
    assert found.availability.budget_left is None
    assert "no request yet" in sentences(found)[0]


def test_the_budget_is_what_may_still_be_missed(project: Project) -> None:
    """Shares and budgets over all workers and days are those of the counts, each miss charged once."""
    count(project, timedelta(days=3), good=4000)
    count(project, timedelta(days=1), good=3000, slow=25, worker="serving-2")
    count(project, timedelta(minutes=2), good=2968, slow=4, failed=3)
    found = level(project)
    assert found.requests == 10_000
    assert found.since == datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
    assert found.availability.missed == 3
    assert found.availability.good == pytest.approx(0.9997)
    assert found.availability.budget_left == pytest.approx(1 - 3 / 10)
    assert (found.latency.of, found.latency.missed) == (9997, 29)
    assert found.latency.budget_left == pytest.approx(1 - 29 / 99.97)
    # 3 of 2975 in the last hour, of which one in a thousand may fail.
    assert found.availability.burn_1h == pytest.approx(3 / 2975 / 0.001)
    assert found.availability.burn_5m == found.availability.burn_1h


def test_what_lies_before_the_window_is_forgotten(project: Project) -> None:
    """A request older than the window counts no more."""
    count(project, timedelta(days=7, minutes=1), good=50, failed=50)
    count(project, timedelta(days=6, hours=23), good=10)
    assert level(project).requests == 10
    assert level(project).availability.budget_left == 1


@pytest.mark.parametrize(
    ("failed_ago", "failed", "expected"),
    [
        # 2 % of the last hour: 20 times what may fail, still going on.
        (timedelta(minutes=3), 20, "page"),
        # The same, but over for twenty minutes: the short window is quiet again. 30 minutes are not.
        (timedelta(minutes=20), 20, "page"),
        (timedelta(minutes=45), 20, "ticket"),
        # A quarter of what may fail.
        (timedelta(minutes=3), 0, ""),
    ],
)
def test_an_alert_needs_both_windows(
    project: Project, failed_ago: timedelta, failed: int, expected: str
) -> None:
    """A page needs a fast burn that still goes on; a slower or ended one is a ticket, none is nothing."""
    for minutes in range(1, 60):
        count(project, timedelta(minutes=minutes), good=17)
    count(project, failed_ago, failed=failed)
    assert level(project).availability.alert == expected


def test_one_failure_of_a_quiet_service_alerts_nobody(project: Project) -> None:
    """Few missed requests are a large share of few requests, and no reason to wake anyone."""
    count(project, timedelta(minutes=2), good=6, failed=4)
    found = level(project)
    assert found.availability.burn_5m == pytest.approx(400)
    assert found.availability.alert == ""


def test_the_open_minute_is_written_over(project: Project) -> None:
    """Each flush of a minute replaces the one before; the next minute gets a line of its own."""
    mine = Levels(project, "serving-1")
    meter = mine.of("api", SLO)
    start = NOW.timestamp() - 30
    for second in range(0, 120, 5):
        for _ in range(100):
            meter.add(0.01, 200)
        mine.flush(start + second)
        mine.flush(start + second)
    mine.close()
    (path,) = (project.state / "levels").iterdir()
    assert len(path.read_bytes().splitlines()) == 2
    found = service_level(project, "api", NOW + timedelta(minutes=2))
    assert found is not None
    assert found.requests == 2400


def test_a_worker_that_comes_back_goes_on(project: Project) -> None:
    """A second life under the same name and pid, within the same minute, adds to the file of the first."""
    count(project, timedelta(0), good=7)
    count(project, timedelta(0), good=5, failed=1)
    assert len(list((project.state / "levels").iterdir())) == 1
    assert level(project).requests == 13


def test_a_torn_line_hides_no_other(project: Project) -> None:
    """What a power cut left half written is passed over."""
    count(project, timedelta(minutes=5), good=7)
    (path,) = (project.state / "levels").iterdir()
    path.write_bytes(path.read_bytes() + b'{"minute":29669')
    assert level(project).requests == 7


def test_a_killed_worker_keeps_what_was_flushed(project: Project) -> None:
    """After kill -9 all counts up to the last flush are there."""
    code = (
        "import sys, time; from loopwright.config import Project, SloConfig\n"
        "from loopwright.deploy.online.levels import Levels\n"
        "mine = Levels(Project(sys.argv[1]), 'serving-1'); meter = mine.of('api', SloConfig())\n"
        "for turn in range(3):\n"
        "    [meter.add(0.01, 200) for _ in range(1000)]; mine.flush()\n"
        "meter.add(0.01, 200); print('ready', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(project.root)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "ready\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    found = service_level(project, "api")
    assert found is not None
    assert found.requests == 3000


def test_files_are_removed_after_the_longest_window(project: Project) -> None:
    """A day that no window reaches back to is deleted when the next day's file is begun; younger ones stay."""
    count(project, timedelta(days=40), good=1)
    count(project, timedelta(days=20), good=1)
    assert len(list((project.state / "levels").iterdir())) == 2
    count(project, timedelta(0), good=1)
    assert sorted(path.name[:10] for path in (project.state / "levels").iterdir()) == [
        "2026-11-06",
        "2026-11-26",
    ]


def test_counts_that_could_not_be_written_are_written_later(project: Project) -> None:
    """A flush that fails loses nothing: the next one writes it all."""
    mine = Levels(project, "serving-1")
    meter = mine.of("api", SLO)
    meter.add(0.01, 200)
    (project.state / "levels").write_text("in the way")
    with pytest.raises(OSError, match="levels"):
        mine.flush(NOW.timestamp())
    (project.state / "levels").unlink()
    meter.add(0.01, 200)
    mine.flush(NOW.timestamp())
    mine.close()
    assert level(project).requests == 2


def test_words_say_when_the_budget_ends(project: Project) -> None:
    """The sentences name shares, what is left and, while it burns, for how long; an overspent budget is said plainly."""
    count(project, timedelta(days=2), good=90_000)
    count(project, timedelta(minutes=3), good=9_960, failed=40)
    kept = sentences(level(project))[1]
    assert kept == (
        "99.9 % of requests without an error: 99.96 % were, 60 % of the error budget of 7 d is left; "
        "at the last hour's rate it is spent in 25 h."
    )
    count(project, timedelta(minutes=2), failed=100)
    assert "overspent: 1.4 times what it allows was missed" in sentences(level(project))[1]
