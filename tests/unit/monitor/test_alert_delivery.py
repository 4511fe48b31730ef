"""Alerts that arrive: at a webhook and at a mail server on this machine, through everything that is between."""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from told_people import Clock, Webhook, free_port, mail_server, open_alert, told_project, webhook, within

from loopwright.config import Project
from loopwright.ledger import Ledger
from loopwright.monitor import alerting
from loopwright.monitor.alerting import channel, outbox
from loopwright.records import Alert

SECRET = "s3cr3t-T0KEN-9f8e7d"
MAIL = "mailto://watch:${{PASSWORD}}@127.0.0.1:{port}?from=watch@example.com&to=ops@example.com&mode=insecure"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Return a new ledger in a file."""
    return Ledger(f"sqlite:///{tmp_path / 'ledger.db'}", actor="controller")


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", SECRET)
    monkeypatch.setenv("PASSWORD", SECRET)


class Telling:
    """The controller's part in this: a clock, ticks, and a sender whose threads are waited for."""

    def __init__(self, ledger: Ledger, project: Project) -> None:
        self.clock = Clock()
        self.ledger = ledger
        self.project = project
        self.sender = alerting.Sender(lambda: self.project, ledger, self.clock)

    def after(self, seconds: float) -> int:
        """Do what is due some seconds later; return how many messages were tried."""
        self.clock.pass_(seconds)
        alerting.tick(self.project, self.ledger, self.clock())
        tried = self.sender.turn()
        self.sender.wait()
        return tried

    def states(self) -> Sequence[tuple[str, int]]:
        """Return state and attempts of all rows, the oldest first."""
        return [(row.state, row.attempts) for row in outbox.deliveries(self.ledger)][::-1]


def hook(got: Webhook) -> str:
    """Return the address of a webhook, with a secret in its path."""
    return f"json://127.0.0.1:{got.port}/alerts/${{TOKEN}}"


def test_an_alert_arrives_at_a_webhook_as_text_and_as_data(tmp_path: Path, ledger: Ledger) -> None:
    """Title, what moved, for whom, what to do, how to acknowledge; and the alert itself."""
    with webhook() as got:
        telling = Telling(ledger, told_project(tmp_path, to=(hook(got),)))
        alert = open_alert(ledger, segment="region=north", detail={"lower": float("nan")})
        telling.after(0)
        assert telling.after(5) == 1
    assert got.paths == [f"/alerts/{SECRET}"]
    body = got.bodies[0]
    assert body["title"] == "[critical] digits-api: accuracy (region=north) 0.71, limit 0.85"
    assert body["type"] == "failure"
    for part in (
        alert.message,
        "Since: 2026-11-26 10:00 UTC (2 h)",
        "For: digits/3 in digits-api, rows with region=north, 1,234 rows",
        "What to do: Look at the newest labels",
        f"Acknowledge: loopwright alert ack {alerting.short_id(alert)}",
    ):
        assert part in body["message"]
    data = body["alerts"][0]
    assert (data["id"], data["value"], data["detail"]) == (alert.id, 0.71, {"lower": None})
    assert (data["reason"], data["short_id"]) == ("opened", alerting.short_id(alert))
    assert telling.states() == [("sent", 1)]


def test_many_alerts_are_one_message_and_what_is_over_is_another(tmp_path: Path, ledger: Ledger) -> None:
    """With a list, the worst of them in the title, and all of them as data."""
    with webhook() as got:
        telling = Telling(ledger, told_project(tmp_path, to=(hook(got),)))
        for number in range(30):
            open_alert(ledger, f"c{number:02}", check="missing", severity="warning")
        worst = open_alert(ledger)
        telling.after(0)
        telling.after(5)
        alerting.resolve(ledger, worst.id, reason="repaired")
        telling.after(0)
        telling.after(5)
    assert got.titles == [
        "[critical] 31 alerts: digits-api",
        "[resolved] digits-api: accuracy 0.71, limit 0.85",
    ]
    lines = got.bodies[0]["message"].splitlines()
    assert lines[0] == "- [critical] digits-api: accuracy 0.71, limit 0.85"
    assert "and 11 more: loopwright alert list" in lines
    assert len(got.bodies[0]["alerts"]) == 31
    assert [body["type"] for body in got.bodies] == ["failure", "success"]


def test_a_mail_server_that_was_down_gets_the_mail_once(tmp_path: Path, ledger: Ledger) -> None:
    """Refused twice, taken once, never again."""
    port = free_port()
    telling = Telling(ledger, told_project(tmp_path, to=(MAIL.format(port=port),)))
    bins = [
        {"bin": "cat", "reference": 0.5, "current": 0.1},
        {"bin": "dog", "reference": 0.5, "current": 0.9},
    ]
    alert = open_alert(ledger, message="accuracy <b> fell & stays low", detail={"bins": bins})
    telling.after(0)
    telling.after(5)
    telling.after(5)
    assert telling.states() == [("pending", 2)]
    assert "Connection refused" in outbox.deliveries(ledger)[0].error
    with mail_server(port) as mails:
        telling.after(29)
        assert mails == []
        telling.after(1)
        for _ in range(5):
            telling.after(3600)
    assert telling.states() == [("sent", 3)]
    assert [mail["subject"] for mail in mails] == ["[critical] digits-api: accuracy 0.71, limit 0.85"]
    assert (mails[0]["to"], mails[0]["from"]) == ("ops@example.com", "watch@example.com")
    html, text = mails[0].get_body(("html",)), mails[0].get_body(("plain",))
    assert html is not None
    assert text is not None
    assert "<p>accuracy &lt;b&gt; fell &amp; stays low</p>" in html.get_content()
    assert "<pre>share of rows: = training, # now<br/>cat ====" in html.get_content()
    assert "accuracy <b> fell & stays low" in text.get_content()
    assert f"Acknowledge: loopwright alert ack {alerting.short_id(alert)}" in text.get_content()


def test_no_secret_is_kept_or_logged(
    tmp_path: Path, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in the ledger's file, not in a log at any level, whatever goes wrong."""
    alerting.try_addresses(("json://127.0.0.1:9",), told_project(tmp_path))
    caplog.set_level(logging.DEBUG)
    with webhook() as got:
        got.status = 403
        port = free_port()
        texts = (
            hook(got),
            MAIL.format(port=port),
            f"json://me:{SECRET}@127.0.0.1:{port}/x?+Authorization={SECRET}",
            f"slack://{SECRET}",
        )
        telling = Telling(ledger, told_project(tmp_path, to=texts))
        open_alert(ledger)
        telling.after(0)
        telling.after(5)
    assert [state for state, _ in telling.states()] == ["pending"] * 4
    assert all(row.error for row in outbox.deliveries(ledger))
    ledger.close()
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("ledger.db*"))
    assert b"digits-api" in kept
    assert SECRET.encode() not in kept
    # What requests itself logs for programmers is not ours, and is off in every part of the system.
    logged = [record for record in caplog.records if not record.name.startswith("urllib3")]
    assert any("403" in record.getMessage() for record in logged)
    assert not any(SECRET in record.getMessage() for record in logged)


def test_a_slow_server_holds_nobody_up(
    tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others are told meanwhile, and its own message has failed when the deadline is over."""
    monkeypatch.setattr(channel, "DEADLINE_S", 1.0)
    with webhook() as slow, webhook() as quick:
        slow.wait_s = 2.0
        telling = Telling(ledger, told_project(tmp_path, to=(hook(slow), hook(quick))))
        open_alert(ledger)
        telling.clock.pass_(0)
        alerting.tick(telling.project, ledger, telling.clock())
        telling.clock.pass_(5)
        began = time.monotonic()
        telling.sender.turn()
        assert time.monotonic() - began < 0.5
        assert within(0.9, lambda: quick.titles)
        open_alert(ledger, "f1", at=telling.clock())
        telling.sender.wait()
        assert any("no answer within 1 s" in row.error for row in outbox.deliveries(ledger))
        alerting.tick(telling.project, ledger, telling.clock())
        telling.clock.pass_(5)
        telling.sender.turn()
        telling.sender.wait()
        assert len(quick.titles) == 2
        time.sleep(2.2)


def test_an_address_that_is_not_configured_any_more_is_said(tmp_path: Path, ledger: Ledger) -> None:
    """And one that is wrong fails with the reason, beside one that works."""
    with webhook() as got:
        telling = Telling(ledger, told_project(tmp_path, to=("json://127.0.0.1:9/gone", "slck://A/B/C")))
        open_alert(ledger)
        telling.after(0)
        telling.project = told_project(tmp_path, to=(hook(got), "slck://A/B/C"))
        telling.after(5)
        open_alert(ledger, "f1", at=telling.clock())
        telling.after(0)
        telling.after(5)
        assert got.titles == ["[critical] digits-api: f1 0.71, limit 0.85"]
    errors = {row.address.partition("://")[0]: row.error for row in outbox.deliveries(ledger) if row.error}
    assert "not in [alerts] of loopwright.toml any more" in errors["json"]
    assert "Did you mean slack://?" in errors["slck"]


def test_a_sender_thread_sends_by_itself_and_stops(tmp_path: Path, ledger: Ledger) -> None:
    """As the controller runs it, with the addresses as they are when it sends."""
    with webhook() as got:
        telling = Telling(ledger, told_project(tmp_path, to=(hook(got),)))
        open_alert(ledger)
        alerting.tick(telling.project, ledger, telling.clock())
        telling.sender.start()
        assert not within(0.7, lambda: got.titles)
        telling.clock.pass_(5)
        assert within(5, lambda: telling.states() == [("sent", 1)])
        telling.sender.stop()
        assert got.titles == ["[critical] digits-api: accuracy 0.71, limit 0.85"]


def test_a_wrong_address_is_said_when_it_is_configured(
    tmp_path: Path, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in the night in which it is needed; once, without its secret."""
    wrong = told_project(tmp_path, to=(f"slck://{SECRET}", "json://${NOT_SET}"), checks=("perfomance",))
    telling = Telling(ledger, wrong)
    telling.sender.start()
    assert within(5, lambda: len(caplog.messages) >= 3)
    time.sleep(1.2)
    telling.sender.stop()
    said = "\n".join(caplog.messages)
    assert len(caplog.messages) == 3
    for words in ("Did you mean slack://?", "needs ${NOT_SET}", "Did you mean 'performance'?"):
        assert words in said
    assert SECRET not in said


def test_a_test_message_goes_to_each_address_and_says_what_became_of_it(tmp_path: Path) -> None:
    """One that works, one that refuses, one that cannot be reached, one that is none."""
    with webhook() as got, webhook() as refusing:
        refusing.status = 500
        project = told_project(tmp_path)
        texts = (hook(got), hook(refusing), f"json://127.0.0.1:{free_port()}/{SECRET}", "json://${NOWHERE}")
        rows = alerting.try_addresses(texts, project)
        assert got.titles == [f"[test] {project.name}: a test message"]
    assert [bool(error) for _, _, error in rows] == [False, True, True, True]
    assert 0 < rows[0][1] < 5
    assert "500" in rows[1][2]
    assert "Connection refused" in rows[2][2]
    assert "needs ${NOWHERE}" in rows[3][2]
    assert SECRET not in str(rows)


def test_a_message_that_is_longer_than_a_service_takes_is_shortened(
    tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the list of alerts, not to the first part of the first one."""
    from apprise.plugins.custom_json import NotifyJSON

    monkeypatch.setattr(NotifyJSON, "body_maxlen", 400)
    with webhook() as got:
        telling = Telling(ledger, told_project(tmp_path, to=(hook(got),)))
        for name in ("f1", "f2", "f3"):
            open_alert(ledger, name)
        telling.after(0)
        telling.after(5)
    text = got.bodies[0]["message"]
    assert [line for line in text.splitlines() if line] == [
        f"- [critical] digits-api: {name} 0.71, limit 0.85" for name in ("f1", "f2", "f3")
    ]


_AUDITED = """
import sys
reached = set()
def hook(event, args):
    if event == "socket.connect":
        reached.add(str(args[1]))
    elif event == "socket.getaddrinfo":
        reached.add(str(args[0]))
sys.addaudithook(hook)
from loopwright.monitor.alerting import channel
from loopwright.monitor.alerting.addresses import Address
channel.send(Address(sys.argv[1]), channel.Message("title", "body"))
print(" ".join(sorted(reached)))
"""


def test_nothing_else_is_reached() -> None:
    """Neither by Apprise nor by what it imports: only the address itself."""
    with webhook() as got:
        command = [sys.executable, "-c", _AUDITED, f"json://127.0.0.1:{got.port}/x"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ))
    assert done.stdout.strip() == f"('127.0.0.1', {got.port}) 127.0.0.1"
    assert got.titles == ["title"]


def test_an_alert_that_a_monitor_opens_is_delivered(tmp_path: Path, ledger: Ledger) -> None:
    """From the schedule nobody runs, to the alert, to the message, to the record: nothing is put in between."""
    from loopwright.config import AlertsConfig, Config, ScheduleConfig
    from loopwright.monitor import tick_schedules

    (tmp_path / "pipelines.py").write_text("def train():\n    pass\n")
    (tmp_path / "loopwright.toml").write_text("")
    with webhook() as got:
        alerts = AlertsConfig(to=(hook(got),))
        nightly: dict[str, Any] = {"nightly": ScheduleConfig(pipeline="pipelines:missing", every="1m")}
        telling = Telling(ledger, Project(tmp_path, Config(alerts=alerts, schedule=nightly)))
        opened = tick_schedules(telling.project, ledger, telling.clock())
        assert opened
        telling.after(0)
        telling.after(5)
    told = {body["id"] for body in got.bodies[0]["alerts"]}
    assert told == {alert.id for alert in opened}
    state = ledger.get("alert", opened[0].id)
    assert state is not None
    assert state.read(Alert).state == "open"
    assert {state for state, _ in telling.states()} == {"sent"}
