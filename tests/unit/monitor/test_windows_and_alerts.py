"""Windows of event time, and alerts from two of three of them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from loopwright.ledger import Ledger
from loopwright.monitor.alerts import judge
from loopwright.monitor.windows import due
from loopwright.records import Alert, Signal, Window

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


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Return a new ledger."""
    return Ledger(f"sqlite:///{tmp_path}/ledger.db", actor="test")


def feed(ledger: Ledger, fired: str, version: int = 1) -> list[Alert]:
    """Judge one window per letter: x fired, . did not; return what the last one opened."""
    opened: list[Alert] = []
    for letter in fired:
        number = len(ledger.events("monitor.window"))
        window = Window(START + number * HOUR, START + (number + 1) * HOUR)
        detail = {"lower": 0.6, "upper": 0.8}
        signal = Signal(
            "performance", "digits", "api", window, 0.7, 0.9, 100, letter == "x", "accuracy", version, detail
        )
        ledger.append("monitor.window", "api", {"window": window, "phase": "labels", "signals": [signal]})
        opened = judge(ledger, "api", "labels", version, 3600)
    return opened


@pytest.mark.parametrize(
    ("fired", "alerts"), [("x", 0), ("..x", 0), ("xx", 1), ("x.x", 1), ("x..x", 0), ("xxxx", 1)]
)
def test_two_of_the_last_three_windows_make_one_alert(ledger: Ledger, fired: str, alerts: int) -> None:
    """One bad window is none, two of three are one, and it is not opened again while it is open."""
    feed(ledger, fired)
    assert len(ledger.events("alert.opened")) == alerts


def test_an_alert_says_what_how_much_and_since_when(ledger: Ledger) -> None:
    """The message names metric, value, interval, limit and windows; the record names the first window."""
    [alert] = feed(ledger, "xx")
    assert alert.since == START
    for words in ("accuracy of digits/1 in api is 0.7", "0.6 to 0.8", "below 0.9", "2 of the last 2 windows"):
        assert words in alert.message


def test_an_alert_is_resolved_when_the_windows_are_fine_again(ledger: Ledger) -> None:
    """Two good windows of three, the last of them good, resolve it; it may open again later."""
    feed(ledger, "xx..")
    assert [state.value["state"] for state in ledger.states("alert")] == ["resolved"]
    feed(ledger, "xx")
    assert len(ledger.events("alert.opened")) == 2


def test_a_new_champion_starts_without_a_past(ledger: Ledger) -> None:
    """After a promotion the old version's alerts are resolved, and its windows do not count."""
    feed(ledger, "xx", version=1)
    feed(ledger, "x", version=2)
    assert len(ledger.events("alert.opened")) == 1
    assert [state.value["state"] for state in ledger.states("alert")] == ["resolved"]
