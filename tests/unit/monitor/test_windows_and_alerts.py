"""Windows of event time, and alerts from enough of the last of them."""

import dataclasses
import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopwright.config import MonitorConfig
from loopwright.ledger import Ledger
from loopwright.monitor.alerts import alert_id, judge, severity_of
from loopwright.monitor.results import Results
from loopwright.monitor.windows import due, floor
from loopwright.records import Alert, Judged, Signal, Window

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def test_windows_are_due_when_their_delay_is_over() -> None:
    """Whole windows after the start, none that is not over for long enough."""
    found = list(
        due(HOUR, after=START + timedelta(minutes=5), now=START + 4 * HOUR, delay=timedelta(minutes=30))
    )
    assert [window.start for window in found] == [START + HOUR, START + 2 * HOUR]


def test_after_a_pause_only_the_newest_windows_are_judged() -> None:
    """A controller that was off for long does not spend its life on the past."""
    found = list(due(HOUR, after=START, now=START + 1000 * HOUR, delay=timedelta(0), most=5))
    assert len(found) == 5
    assert found[-1].end == START + 1000 * HOUR


def test_nothing_is_judged_twice() -> None:
    """What ends where the last window ended comes next."""
    first = list(due(HOUR, after=START, now=START + 2 * HOUR, delay=timedelta(0)))
    assert list(due(HOUR, after=first[-1].end, now=START + 2 * HOUR, delay=timedelta(0))) == []


@given(
    length=st.integers(1, 10**6),
    gap=st.integers(0, 10**8),
    delay=st.integers(0, 10**6),
)
def test_windows_lie_end_to_end_and_are_over(length: int, gap: int, delay: int) -> None:
    """Whatever the length, the pause and the delay: aligned, without gap or overlap, and over by now."""
    step, now = timedelta(seconds=length), START + timedelta(seconds=gap)
    found = list(due(step, after=START, now=now, delay=timedelta(seconds=delay)))
    assert len(found) <= 20
    for one, after in itertools.pairwise(found):
        assert one.end == after.start
    for window in found:
        assert window.start == floor(window.start, step)
        assert window.start >= START
        assert window.end + timedelta(seconds=delay) <= now


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Return a new ledger."""
    return Ledger(f"sqlite:///{tmp_path}/ledger.db", actor="test")


def record(ledger: Ledger, number: int, signals: list[Signal], state: str = "judged") -> None:
    """Record a window of the labels as it is written by the runner."""
    window = Window(START + number * HOUR, START + (number + 1) * HOUR)
    judged = Judged("api", "digits", "labels", 1, window, state, 100, 90, 1.0)  # type: ignore[arg-type]
    Results(ledger).record(judged, [dataclasses.replace(signal, window=window) for signal in signals])


def accuracy(fired: bool, version: int = 1, segment: str = "", value: float = 0.7) -> Signal:
    """Return a signal about the accuracy; its window is set when it is recorded."""
    window = Window(START, START + HOUR)
    return Signal(
        "performance", "digits", "api", window, value, 0.9, 100, fired, "accuracy", version,
        segment=segment, lower=0.6, upper=0.8,
    )  # fmt: skip


def feed(
    ledger: Ledger, fired: str, version: int = 1, config: MonitorConfig | None = None, state: str = "judged"
) -> list[Alert]:
    """Judge one window per letter: x fired, . did not, _ says nothing; return what the last one opened."""
    opened: list[Alert] = []
    for letter in fired:
        number = len(Results(ledger).windows("api", "labels", limit=1000))
        record(ledger, number, [] if letter == "_" else [accuracy(letter == "x", version)], state)
        now = START + (number + 1) * HOUR
        opened = judge(ledger, "api", version, config or MonitorConfig(window=HOUR), now)
    return opened


def states(ledger: Ledger) -> list[str]:
    """Return the states of all alerts."""
    return [state.value["state"] for state in ledger.states("alert")]


@pytest.mark.parametrize(
    ("fired", "alerts"),
    [("x", 0), ("..x", 0), ("xx", 1), ("x.x", 1), ("x..x", 0), ("xxxx", 1), ("x_x", 1), ("x___x", 1)],
)
def test_two_of_the_last_three_windows_make_one_alert(ledger: Ledger, fired: str, alerts: int) -> None:
    """One bad window is none, two of three are one, and it is not opened again while it is open."""
    feed(ledger, fired)
    assert len(ledger.events("alert.opened")) == alerts


@pytest.mark.parametrize(
    ("needed", "windows", "fired", "alerts"), [(1, 1, ".x", 1), (3, 5, "x.x.", 0), (3, 5, "x.x.x", 1)]
)
def test_the_rule_is_declared(ledger: Ledger, needed: int, windows: int, fired: str, alerts: int) -> None:
    """`needed` of the last `windows`, whatever they are set to."""
    feed(ledger, fired, config=MonitorConfig(window=HOUR, needed=needed, windows=windows))
    assert len(ledger.events("alert.opened")) == alerts


@pytest.mark.parametrize("state", ["immature", "overdue"])
def test_windows_that_were_not_judged_open_nothing(ledger: Ledger, state: str) -> None:
    """What is said of a window that waits for its labels, or was given up, is no reason for an alert."""
    feed(ledger, "xxx", state=state)
    assert not ledger.events("alert.opened")


def test_an_alert_says_what_how_much_and_since_when(ledger: Ledger) -> None:
    """The message names metric, value, interval, limit and windows; the record names the first window and the event."""
    [alert] = feed(ledger, "xx")
    assert alert.since == START
    for words in (
        "accuracy of digits/1 in api is 0.7",
        "0.6 to 0.8",
        "below 0.9",
        "2 of the last 2 windows of 1 h",
    ):
        assert words in alert.message
    [event] = ledger.events("alert.opened", "digits")
    assert alert.event == event.id
    assert alert.severity == "critical"
    assert "loopwright release start api" in alert.advice


def test_an_alert_about_a_segment_says_for_whom(ledger: Ledger) -> None:
    """The segment, and its share of the window, are in the message; all rows together have an alert of their own."""
    for number in range(2):
        record(
            ledger,
            number,
            [accuracy(False), dataclasses.replace(accuracy(True, segment="region=north"), rows=25)],
        )
    [alert] = judge(ledger, "api", 1, MonitorConfig(window=HOUR), START + 2 * HOUR)
    assert "where region=north (28% of the labelled rows)" in alert.message
    assert alert.id == "api/1/performance/accuracy/region=north"


def test_an_alert_is_resolved_when_the_windows_are_fine_again(ledger: Ledger) -> None:
    """Two good windows of three, the last of them good, resolve it; it may open again later."""
    feed(ledger, "xx..")
    assert states(ledger) == ["resolved"]
    feed(ledger, "xx")
    assert len(ledger.events("alert.opened")) == 2
    assert states(ledger) == ["open"]


def test_judging_again_changes_nothing(ledger: Ledger) -> None:
    """A process that was killed after a window was recorded judges it when it begins: once, however often it begins."""
    record(ledger, 0, [accuracy(True)])
    record(ledger, 1, [accuracy(True)])
    config, now = MonitorConfig(window=HOUR), START + 2 * HOUR
    assert len(judge(ledger, "api", 1, config, now)) == 1
    revision = ledger.revision()
    for _ in range(3):
        assert judge(ledger, "api", 1, config, now) == []
    assert ledger.revision() == revision


def test_an_open_alert_says_how_bad_it_is_by_now(ledger: Ledger) -> None:
    """Its value and message are those of the newest window, without an event; an acknowledged one stays so."""
    [alert] = feed(ledger, "xx")
    state = ledger.get("alert", alert.id)
    assert state is not None
    ledger.put(
        "alert", alert.id, dataclasses.replace(alert, state="acknowledged", by="ada"), expect=state.revision
    )
    record(ledger, 2, [accuracy(True, value=0.55)])
    judge(ledger, "api", 1, MonitorConfig(window=HOUR), START + 3 * HOUR)
    state = ledger.get("alert", alert.id)
    assert state is not None
    found = state.read(Alert)
    assert (found.state, found.by, found.value) == ("acknowledged", "ada", 0.55)
    assert "3 of the last 3" in found.message
    assert not ledger.events("alert.changed")
    feed(ledger, "..")
    assert states(ledger) == ["resolved"]


def test_a_new_champion_starts_without_a_past(ledger: Ledger) -> None:
    """After a promotion the old version's alerts are resolved, and its windows do not count."""
    feed(ledger, "xx", version=1)
    feed(ledger, "x", version=2)
    assert len(ledger.events("alert.opened")) == 1
    assert states(ledger) == ["resolved"]


def test_a_check_that_is_switched_off_has_no_open_alert(ledger: Ledger) -> None:
    """And so has one that no window speaks of any more."""
    feed(ledger, "xx")
    feed(ledger, "_", config=MonitorConfig(window=HOUR, off=("performance",)))
    assert states(ledger) == ["resolved"]
    feed(ledger, "xx")
    feed(ledger, "_" * 11)
    assert states(ledger) == ["open"]
    feed(ledger, "_")
    assert states(ledger) == ["resolved"]
    assert "last 12 windows" in ledger.events("alert.resolved")[-1].payload["reason"]


def test_a_quality_check_that_does_not_keep_a_subject_says_it_is_fine(ledger: Ledger) -> None:
    """Only the worst columns of a window are kept: what is not among them was not missing."""

    def missing(subject: str, fired: bool) -> Signal:
        return dataclasses.replace(accuracy(fired), check="missing", subject=subject)

    config = MonitorConfig(window=HOUR)
    for number in range(2):
        record(ledger, number, [missing("age", True)])
    assert len(judge(ledger, "api", 1, config, START + 2 * HOUR)) == 1
    for number in range(2, 4):
        record(ledger, number, [missing("height", False)])
        judge(ledger, "api", 1, config, START + (number + 1) * HOUR)
    assert states(ledger) == ["resolved"]


@given(subject=st.text(max_size=400), segment=st.text(max_size=400))
def test_an_id_fits_the_ledger_and_tells_troubles_apart(subject: str, segment: str) -> None:
    """At most 255 characters; another subject or segment is another id."""
    signal = dataclasses.replace(accuracy(True), subject=subject, segment=segment)
    assert len(alert_id(signal)) <= 255
    assert alert_id(signal) != alert_id(dataclasses.replace(signal, subject=subject + "x"))


def test_severities() -> None:
    """What only proposes is info, what harms users critical, all else a warning."""
    assert [severity_of(check) for check in ("drift", "missing", "kpi", "of somebody else")] == [
        "info",
        "warning",
        "critical",
        "warning",
    ]
