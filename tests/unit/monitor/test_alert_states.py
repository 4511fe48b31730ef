"""Acknowledging, resolving, finding and silencing alerts."""

import threading
from datetime import datetime, timedelta

import pytest
from told_people import START, kinds, open_alert

from loopwright.errors import Conflict, InvalidInput, NotFound
from loopwright.ledger import Ledger
from loopwright.monitor import alerting
from loopwright.records import Alert


@pytest.fixture
def ledger() -> Ledger:
    """Return a new ledger."""
    return Ledger("sqlite://", actor="ada")


def test_an_alert_is_acknowledged_then_resolved_and_its_history_says_so(ledger: Ledger) -> None:
    """By its short id, each change with an event that names its cause."""
    alert = open_alert(ledger)
    short = alerting.short_id(alert)
    done = alerting.acknowledge(ledger, short, note="on it")
    assert (done.state, done.by) == ("acknowledged", "ada")
    over = alerting.resolve(ledger, short, by="bob", reason="repaired")
    assert (over.state, over.by) == ("resolved", "ada")
    events = alerting.history(ledger, over)
    assert kinds(events) == ["alert.opened", "alert.acknowledged", "alert.resolved"]
    assert events[1].payload["note"] == "on it"
    assert (events[2].payload["by"], events[2].payload["reason"]) == ("bob", "repaired")
    assert {event.cause for event in events[1:]} == {events[0].id}


def test_who_acknowledged_first_stays(ledger: Ledger) -> None:
    """A second click changes nothing and adds no event."""
    alert = open_alert(ledger)
    alerting.acknowledge(ledger, alert.id, by="ada")
    assert alerting.acknowledge(ledger, alert.id, by="bob").by == "ada"
    assert kinds(ledger.events("alert.acknowledged")) == ["alert.acknowledged"]


def test_what_is_over_cannot_be_acknowledged(ledger: Ledger) -> None:
    """Nor resolved again."""
    alert = open_alert(ledger)
    alerting.resolve(ledger, alert.id)
    with pytest.raises(Conflict, match="is resolved: there is nothing to acknowledge"):
        alerting.acknowledge(ledger, alert.id)
    with pytest.raises(Conflict, match="nothing to resolve"):
        alerting.resolve(ledger, alert.id)


def test_an_alert_is_found_by_its_first_digits_and_a_wrong_one_names_the_nearest(ledger: Ledger) -> None:
    """Four digits are enough, three are not."""
    alert = open_alert(ledger)
    short = alerting.short_id(alert)
    assert alerting.find(ledger, short[:4].upper()).key == alert.id
    assert short.isalnum()
    with pytest.raises(NotFound, match="There is no alert 'ffff'"):
        alerting.find(ledger, "ffff")
    with pytest.raises(NotFound):
        alerting.find(ledger, short[:3])


def test_digits_that_begin_two_alerts_are_refused(ledger: Ledger) -> None:
    """Nobody acknowledges the wrong one."""
    by_digits: dict[str, str] = {}
    twins: tuple[str, str] | None = None
    for number in range(3000):
        subject = f"c{number}"
        digits = alerting.short_id(f"digits-api/3/performance/{subject}")[:4]
        if digits in by_digits:
            twins = (by_digits[digits], subject)
            break
        by_digits[digits] = subject
    assert twins is not None
    first, _ = (open_alert(ledger, subject) for subject in twins)
    with pytest.raises(InvalidInput, match="is the beginning of 2 alerts"):
        alerting.find(ledger, alerting.short_id(first)[:4])
    assert alerting.find(ledger, alerting.short_id(first)).key == first.id


def test_people_and_monitors_that_change_an_alert_at_once_lose_nothing(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """A monitor that refreshes it does not undo the acknowledgement."""
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}", actor="ada")
    alert = open_alert(ledger)

    def refresh() -> None:
        for value in range(20):
            state = ledger.get("alert", alert.id)
            assert state is not None
            fresh = state.value | {"value": float(value)}
            try:
                ledger.put("alert", alert.id, fresh, expect=state.revision)
            except Conflict:
                continue

    monitor = threading.Thread(target=refresh)
    monitor.start()
    alerting.acknowledge(ledger, alert.id, by="ada")
    monitor.join()
    state = ledger.get("alert", alert.id)
    assert state is not None
    assert state.read(Alert).by == "ada"
    assert len(ledger.events("alert.acknowledged")) == 1


@pytest.mark.parametrize(
    ("fields", "covered"),
    [
        ({}, True),
        ({"deployment": "digits-*"}, True),
        ({"deployment": "digits-*", "check": "drift"}, False),
        ({"segment": "region=*"}, True),
        ({"segment": "region=s*"}, False),
        ({"subject": "width [cm]"}, True),
        ({"model": "digits", "subject": "width"}, False),
    ],
)
def test_a_silence_covers_what_matches_all_its_fields(
    ledger: Ledger, fields: dict[str, str], covered: bool
) -> None:
    """Patterns as in a shell, and names with brackets as they are."""
    alert = open_alert(ledger, "width [cm]", segment="region=north")
    made = alerting.silence(ledger, timedelta(hours=1), at=START, **fields)
    assert (alerting.covers(alert, [made]) is not None) == covered


def test_a_silence_ends_by_itself_or_early(ledger: Ledger) -> None:
    """Once, with an event of each."""
    made = alerting.silence(ledger, timedelta(hours=1), by="bob", reason="a move", at=START)
    assert alerting.active(ledger, START + timedelta(minutes=59)) == [made]
    assert alerting.active(ledger, START + timedelta(minutes=60)) == []
    ended = alerting.end_silence(ledger, made.id, at=START + timedelta(minutes=5))
    assert ended.until == START + timedelta(minutes=5)
    assert kinds(ledger.events("silence.*")) == ["silence.started", "silence.ended"]
    with pytest.raises(Conflict, match="is over"):
        alerting.end_silence(ledger, made.id, at=START + timedelta(minutes=6))
    with pytest.raises(NotFound, match="There is no silence 'nope'"):
        alerting.end_silence(ledger, "nope", at=START)


def test_a_silence_must_end_in_the_future_and_say_in_which_time_zone(ledger: Ledger) -> None:
    """Nothing is written otherwise."""
    with pytest.raises(InvalidInput, match="over already"):
        alerting.silence(ledger, START - timedelta(seconds=1), at=START)
    with pytest.raises(InvalidInput, match="no time zone"):
        alerting.silence(ledger, datetime(2026, 12, 1), at=START)  # noqa: DTZ001
    assert alerting.known_silences(ledger) == []
