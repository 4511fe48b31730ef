"""What is to be sent, when, and once: the outbox against a clock that the test moves."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from told_people import START, Clock, kinds, open_alert, told_project

from loopwright.config import Project
from loopwright.ledger import Ledger
from loopwright.ledger.schema import deliveries as table
from loopwright.monitor import alerting
from loopwright.monitor.alerting import outbox
from loopwright.monitor.alerting.addresses import Address
from loopwright.records import Alert

HOOK, NIGHT = "json://127.0.0.1:9/day", "json://127.0.0.1:9/night"


@pytest.fixture
def ledger() -> Ledger:
    """Return a new ledger."""
    return Ledger("sqlite://", actor="controller")


@pytest.fixture
def clock() -> Clock:
    """Return a clock that the test moves."""
    return Clock()


def project(folder: Path, **alerts: Any) -> Project:
    """Return a project that tells one webhook of alerts."""
    return told_project(folder, **({"to": (HOOK,)} | alerts))


def take(ledger: Ledger, clock: Clock, error: str = "") -> list[tuple[str, list[str]]]:
    """Take what is due and record what became of it; return reasons and subjects of each message."""
    groups = outbox.claim(ledger, clock())
    for group in groups:
        outbox.record(ledger, group, clock(), error)
    return [(group[0].reason, [row.alert.rpartition("/")[2] for row in group]) for group in groups]


def states(ledger: Ledger) -> Sequence[str]:
    """Return the states of all rows, the oldest first."""
    return [row.state for row in outbox.deliveries(ledger)][::-1]


def test_alerts_that_open_together_are_one_message(tmp_path: Path, ledger: Ledger, clock: Clock) -> None:
    """Twelve columns drift at once: five seconds after the first, one message lists them all."""
    told = project(tmp_path)
    for column in range(12):
        open_alert(ledger, f"c{column:02}", check="missing", severity="warning")
        alerting.tick(told, ledger, clock())
        clock.pass_(0.4)
    assert take(ledger, clock) == []
    clock.pass_(0.3)
    assert take(ledger, clock) == [("opened", [f"c{column:02}" for column in range(12)])]
    clock.pass_(3600)
    assert alerting.tick(told, ledger, clock()) == 0
    assert take(ledger, clock) == []
    assert states(ledger) == ["sent"] * 12


def test_each_address_gets_its_own(tmp_path: Path, ledger: Ledger, clock: Clock) -> None:
    """Two addresses, two rows, two messages; their names say nothing of what is secret."""
    told = project(tmp_path, to=(HOOK, "slack://T0KEN/B/C", HOOK))
    open_alert(ledger)
    assert alerting.tick(told, ledger, clock()) == 2
    clock.pass_(5)
    assert len(take(ledger, clock)) == 2
    assert "T0KEN" not in str(outbox.deliveries(ledger))


def test_events_that_are_read_again_write_nothing_new(tmp_path: Path, ledger: Ledger, clock: Clock) -> None:
    """As after a kill between writing the rows and noting how far the events were read."""
    told = project(tmp_path)
    open_alert(ledger)
    assert alerting.tick(told, ledger, clock()) == 1
    ledger.put("alerting", "outbox", {"event": 0})
    assert alerting.tick(told, ledger, clock()) == 0
    assert states(ledger) == ["pending"]


def test_a_message_that_fails_is_tried_again_after_longer_and_longer_and_then_given_up(
    tmp_path: Path, ledger: Ledger, clock: Clock
) -> None:
    """Six attempts in an hour and a quarter."""
    told = project(tmp_path)
    open_alert(ledger)
    alerting.tick(told, ledger, clock())
    clock.pass_(5)
    for attempt, pause in enumerate((5, 30, 120, 600, 3600), 1):
        assert take(ledger, clock, "refused") == [("opened", ["accuracy"])]
        row = outbox.deliveries(ledger)[0]
        assert (row.state, row.attempts, row.error) == ("pending", attempt, "refused")
        clock.pass_(pause - 1)
        assert take(ledger, clock) == []
        clock.pass_(1)
    assert take(ledger, clock, "refused") == [("opened", ["accuracy"])]
    assert states(ledger) == ["failed"]
    assert alerting.failed(ledger) == 1
    clock.pass_(86400)
    assert take(ledger, clock) == []


def test_a_row_whose_process_was_killed_is_taken_once_more_and_by_nobody_meanwhile(
    tmp_path: Path, ledger: Ledger, clock: Clock
) -> None:
    """Never lost, at most doubled."""
    told = project(tmp_path)
    open_alert(ledger)
    alerting.tick(told, ledger, clock())
    clock.pass_(5)
    assert len(outbox.claim(ledger, clock())) == 1
    clock.pass_(59)
    assert outbox.claim(ledger, clock()) == []
    clock.pass_(1)
    assert [row.attempts for group in outbox.claim(ledger, clock()) for row in group] == [2]


def test_a_clock_that_is_moved_back_neither_doubles_nor_holds_back(
    tmp_path: Path, ledger: Ledger, clock: Clock
) -> None:
    """What was sent stays sent; what waits does not wait for a day."""
    told = project(tmp_path, escalate_after="1h", escalate_to=(NIGHT,))
    open_alert(ledger)
    clock.pass_(4000)
    alerting.tick(told, ledger, clock())
    alerting.tick(told, ledger, clock())
    clock.pass_(5)
    assert len(take(ledger, clock)) == 2
    open_alert(ledger, "f1", at=clock())
    alerting.tick(told, ledger, clock())
    clock.pass_(-86400)
    alerting.tick(told, ledger, clock())
    assert take(ledger, clock, "refused") == [("opened", ["f1"])]
    clock.pass_(-86400)
    assert take(ledger, clock) == [("opened", ["f1"])]
    clock.pass_(10)
    alerting.tick(told, ledger, clock())
    assert take(ledger, clock) == []
    assert len(ledger.events("alert.escalated")) == 1


def test_what_is_over_is_said_after_what_opened(tmp_path: Path, ledger: Ledger, clock: Clock) -> None:
    """Also when the first message had to be tried again."""
    told = project(tmp_path)
    alert = open_alert(ledger)
    alerting.tick(told, ledger, clock())
    clock.pass_(5)
    assert take(ledger, clock, "refused") == [("opened", ["accuracy"])]
    alerting.resolve(ledger, alert.id, reason="repaired")
    alerting.tick(told, ledger, clock())
    clock.pass_(5)
    assert take(ledger, clock) == [("opened", ["accuracy"])]
    assert take(ledger, clock) == [("resolved", ["accuracy"])]
    assert "Resolved: repaired" in outbox.deliveries(ledger)[0].body


def test_nobody_hears_that_something_is_over_who_did_not_hear_of_it(
    tmp_path: Path, ledger: Ledger, clock: Clock
) -> None:
    """An address that was added meanwhile, or one that does not want to know."""
    alert = open_alert(ledger)
    alerting.tick(project(tmp_path), ledger, clock())
    alerting.resolve(ledger, alert.id)
    alerting.tick(project(tmp_path, to=(HOOK, NIGHT)), ledger, clock())
    assert [(row.reason, row.address) for row in outbox.deliveries(ledger)] == [
        ("resolved", Address(HOOK).name),
        ("opened", Address(HOOK).name),
    ]
    mild = open_alert(ledger, "mild")
    alerting.tick(project(tmp_path), ledger, clock())
    state = ledger.get("alert", mild.id)
    assert state is not None
    ledger.put("alert", mild.id, state.value | {"severity": "info"})
    alerting.resolve(ledger, mild.id)
    assert alerting.tick(project(tmp_path), ledger, clock()) == 1
    other = open_alert(ledger, "f1")
    quiet = project(tmp_path, resolved=False)
    alerting.tick(quiet, ledger, clock())
    alerting.resolve(ledger, other.id)
    assert alerting.tick(quiet, ledger, clock()) == 0


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, {"performance", "missing", "schedule late"}),
        ({"severity": "critical"}, {"performance"}),
        ({"severity": "info"}, {"performance", "missing", "schedule late", "drift"}),
        ({"checks": ("performance", "drift")}, {"performance"}),
        ({"checks": ("schedule",)}, {"schedule late"}),
        ({"checks": ("m*",)}, {"missing"}),
    ],
)
def test_only_what_is_asked_for_is_told(
    tmp_path: Path, ledger: Ledger, clock: Clock, settings: dict[str, Any], told: set[str]
) -> None:
    """By severity, and by check; what only proposes something is not told unless it is asked for."""
    for check, severity in (
        ("performance", "critical"),
        ("missing", "warning"),
        ("drift", "info"),
        ("schedule late", "warning"),
    ):
        open_alert(ledger, check=check, severity=severity)
    alerting.tick(project(tmp_path, **settings), ledger, clock())
    assert {row.alert.split("/")[2] for row in outbox.deliveries(ledger)} == told


def test_a_check_that_does_not_exist_is_named() -> None:
    """A misspelled one would mean that nobody is ever told."""
    assert "Did you mean 'performance'?" in alerting.unknown_check("perfomance")
    assert [alerting.unknown_check(text) for text in ("performance", "schedule late", "d*")] == ["", "", ""]


def test_a_silence_holds_messages_back_until_it_ends(tmp_path: Path, ledger: Ledger, clock: Clock) -> None:
    """What is still open then is told then; what is over, or looked after, is not."""
    told = project(tmp_path)
    alerting.silence(ledger, timedelta(hours=1), check="missing", at=clock())
    alerts = {name: open_alert(ledger, name, check="missing", severity="warning") for name in "abc"}
    open_alert(ledger, "loud")
    alerting.tick(told, ledger, clock())
    clock.pass_(5)
    assert take(ledger, clock) == [("opened", ["loud"])]
    alerting.resolve(ledger, alerts["b"].id)
    alerting.acknowledge(ledger, alerts["c"].id)
    alerting.tick(told, ledger, clock.pass_(3500))
    assert take(ledger, clock) == []
    alerting.tick(told, ledger, clock.pass_(100))
    assert take(ledger, clock) == [("opened", ["a"])]
    assert states(ledger) == ["sent", "silenced", "silenced", "sent"]
    assert alerting.tick(told, ledger, clock.pass_(10)) == 0


def test_a_silence_that_ends_early_lets_go_at_once_and_one_that_begins_stops_what_waits(
    tmp_path: Path, ledger: Ledger, clock: Clock
) -> None:
    """Also a message that is between two attempts."""
    told = project(tmp_path)
    open_alert(ledger)
    alerting.tick(told, ledger, clock())
    clock.pass_(5)
    assert len(take(ledger, clock, "refused")) == 1
    made = alerting.silence(ledger, timedelta(hours=1), deployment="digits-*", at=clock())
    alerting.tick(told, ledger, clock.pass_(60))
    assert take(ledger, clock) == []
    assert states(ledger) == ["silenced"]
    alerting.end_silence(ledger, made.id, at=clock())
    alerting.tick(told, ledger, clock())
    assert take(ledger, clock) == [("opened", ["accuracy"])]


def test_what_opens_twice_in_a_silence_is_told_once(tmp_path: Path, ledger: Ledger, clock: Clock) -> None:
    """The newest of the two."""
    told = project(tmp_path)
    made = alerting.silence(ledger, timedelta(hours=1), at=clock())
    for _ in range(2):
        alert = open_alert(ledger)
        alerting.tick(told, ledger, clock.pass_(10))
        alerting.resolve(ledger, alert.id)
        alerting.tick(told, ledger, clock.pass_(10))
    open_alert(ledger)
    alerting.tick(told, ledger, clock())
    alerting.end_silence(ledger, made.id, at=clock())
    alerting.tick(told, ledger, clock())
    assert take(ledger, clock) == [("opened", ["accuracy"])]
    assert states(ledger) == ["silenced", "silenced", "sent"]


def test_an_alert_that_nobody_looks_after_is_escalated_once(
    tmp_path: Path, ledger: Ledger, clock: Clock
) -> None:
    """To the others, after the time that is set; one that is acknowledged or silenced is not."""
    told = project(tmp_path, escalate_after="2h", escalate_to=(NIGHT,))
    alerts = [open_alert(ledger, name) for name in ("alone", "cared", "quiet")]
    alerting.acknowledge(ledger, alerts[1].id)
    made = alerting.silence(ledger, timedelta(days=1), subject="quiet", at=START)
    alerting.tick(told, ledger, clock())
    clock.pass_(5)
    assert take(ledger, clock) == [("opened", ["alone", "cared"])]
    alerting.tick(told, ledger, clock.pass_(7100))
    assert take(ledger, clock) == []
    for _ in range(3):
        alerting.tick(told, ledger, clock.pass_(200))
    assert take(ledger, clock) == [("escalated", ["alone"])]
    sent = outbox.deliveries(ledger, alert=alerts[0].id)[0]
    assert sent.address == Address(NIGHT).name
    assert sent.title.startswith("[critical] still open: digits-api: alone")
    assert kinds(alerting.history(ledger, alerts[0])) == ["alert.opened", "alert.escalated"]
    state = ledger.get("alert", alerts[0].id)
    assert state is not None
    assert state.read(Alert).escalated is not None
    alerting.end_silence(ledger, made.id, at=clock())
    for _ in range(3):
        alerting.tick(told, ledger, clock.pass_(6))
    assert sorted(take(ledger, clock)) == [("escalated", ["quiet"]), ("opened", ["quiet"])]


def test_an_alert_that_is_over_is_told_to_those_it_was_escalated_to(
    tmp_path: Path, ledger: Ledger, clock: Clock
) -> None:
    """They would look for what is not there any more."""
    told = project(tmp_path, escalate_after="1h", escalate_to=(NIGHT,))
    alert = open_alert(ledger)
    for _ in range(3):
        alerting.tick(told, ledger, clock.pass_(3600))
        take(ledger, clock)
    alerting.resolve(ledger, alert.id)
    alerting.tick(told, ledger, clock())
    resolved = [row.address for row in outbox.deliveries(ledger) if row.reason == "resolved"]
    assert sorted(resolved) == sorted(Address(text).name for text in (HOOK, NIGHT))


def test_what_opened_and_ended_while_nobody_looked_is_told_for_a_day(
    tmp_path: Path, ledger: Ledger, clock: Clock
) -> None:
    """A controller that was off for a week does not send a week of messages."""
    for name, age in (("old", 7), ("new", 0)):
        alert = open_alert(ledger, name, at=START - timedelta(days=age))
        alerting.resolve(ledger, alert.id)
        alerting.tick(project(tmp_path), ledger, clock())
    assert {row.alert.rpartition("/")[2] for row in outbox.deliveries(ledger)} == {"new"}


def test_no_event_is_passed_over_where_there_are_more_than_are_read_at_once(
    tmp_path: Path, ledger: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events of one kind must not carry the position past those of another."""
    monkeypatch.setattr(outbox, "_PAGE", 3)
    for number in range(10):
        open_alert(ledger, f"c{number}")
    alerting.resolve(ledger, "digits-api/3/performance/c0")
    for _ in range(5):
        alerting.tick(project(tmp_path), ledger, clock())
    found = [(row.reason, row.alert.rpartition("/")[2]) for row in outbox.deliveries(ledger)]
    assert sorted(found) == [*(("opened", f"c{number}") for number in range(10)), ("resolved", "c0")]


def test_an_event_or_an_alert_that_is_none_holds_up_no_other(
    tmp_path: Path, ledger: Ledger, clock: Clock
) -> None:
    """A hand that slipped in the ledger must not end all messages."""
    told = project(tmp_path, escalate_after="1h", escalate_to=(NIGHT,))
    ledger.append("alert.opened", "digits", {"value": 0.71})
    broken = open_alert(ledger, "broken")
    alerting.tick(told, ledger, clock())
    ledger.put("alert", broken.id, {"id": broken.id, "state": "open"})
    open_alert(ledger)
    alerting.silence(ledger, timedelta(hours=1), subject="nothing", at=clock())
    alerting.tick(told, ledger, clock())
    clock.pass_(5)
    assert take(ledger, clock) == [("opened", ["broken", "accuracy"])]
    alerting.tick(told, ledger, clock.pass_(3600))
    assert take(ledger, Clock(clock.pass_(5))) == [("escalated", ["accuracy"])]


def test_a_busy_address_waits_and_the_others_do_not(tmp_path: Path, ledger: Ledger, clock: Clock) -> None:
    """What is being sent to one holds nobody else up."""
    open_alert(ledger)
    alerting.tick(project(tmp_path, to=(HOOK, NIGHT)), ledger, clock())
    clock.pass_(5)
    groups = outbox.claim(ledger, clock(), busy={Address(HOOK).name})
    assert [group[0].address for group in groups] == [Address(NIGHT).name]
    with ledger.reading() as connection:
        attempts = sorted(connection.execute(sa.select(table.c.attempts)).scalars())
    assert attempts == [0, 1]
