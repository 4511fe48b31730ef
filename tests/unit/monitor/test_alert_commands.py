"""``loopwright alert``: what each command prints, with and without --json."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from told_people import free_port, open_alert, webhook

from loopwright.cli import main
from loopwright.config import Project
from loopwright.ledger import Ledger
from loopwright.monitor import alerting
from loopwright.monitor.alerting import outbox
from loopwright.records import Alert, now

Run = Callable[..., Any]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return a project in the working folder that tells an address that nobody listens to."""
    monkeypatch.delenv("LOOPWRIGHT_LEDGER", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loopwright.toml").write_text(
        f'[alerts]\nto = ["json://127.0.0.1:{free_port()}/s3cr3t-path"]\nchecks = ["perfomance", "kpi"]\n'
    )
    return Project(tmp_path)


@pytest.fixture
def ledger(project: Project) -> Ledger:
    """Return its ledger."""
    return Ledger.open(project, actor="controller")


@pytest.fixture
def alert(ledger: Ledger) -> Alert:
    """Open one alert in it."""
    bins = {"labels": ["cat", "dog"], "reference": [0.5, 0.5], "current": [0.1, 0.9]}
    return open_alert(ledger, check="kpi", at=now(), detail={"bins": bins})


@pytest.fixture
def run(project: Project, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return what runs a command and gives back its text, or with --json its value, or its code and what it said."""

    def ran(*words: str) -> Any:
        try:
            main(["alert", *words])
        except SystemExit as end:
            if end.code:
                said = capsys.readouterr()
                return end.code, said.out + said.err
        text = capsys.readouterr().out
        return json.loads(text) if "--json" in words else text

    return ran


def test_alerts_are_listed_open_ones_first(run: Run, ledger: Ledger, alert: Alert) -> None:
    """Resolved ones only when they are asked for; silenced ones marked."""
    over = open_alert(ledger, "over", at=now())
    alerting.resolve(ledger, over.id)
    other = open_alert(ledger, "f1", at=now(), deployment="rides")
    run("silence", "--subject", "f1", "--for", "2h", "--reason", "known")
    listed = run("list", "--json")
    assert {(one["id"], one["short_id"], one["silence"] is not None) for one in listed} == {
        (alert.id, alerting.short_id(alert), False),
        (other.id, alerting.short_id(other), True),
    }
    text = run("list")
    assert alerting.short_id(alert) in text
    assert "open, silenced" in text
    assert alerting.short_id(over) not in text
    assert alerting.short_id(over) in run("list", "--all").splitlines()[-1]
    assert [one["id"] for one in run("list", "--deployment", "rides", "--json")] == [other.id]


def test_an_empty_list_says_where_the_others_are(run: Run, ledger: Ledger) -> None:
    """And that there are none at all."""
    assert run("list") == "No alert.\n"
    shown = open_alert(ledger, at=now(), message="width [cm] of digits has no value")
    assert "width [cm] of digits" in run("list")
    alerting.resolve(ledger, shown.id)
    assert "loopwright alert list --all" in run("list")


def test_an_alert_is_shown_with_its_plot_its_history_and_who_was_told(
    run: Run, project: Project, ledger: Ledger, alert: Alert
) -> None:
    """By its short id."""
    short = alerting.short_id(alert)
    alerting.tick(project, ledger, now())
    assert "Acknowledged by ada" in run("ack", short, "--note", "on it", "--by", "ada")
    text = run("show", short)
    for words in (
        alert.message,
        "acknowledged, by ada",
        "on it",
        "====",
        "####",
        "pending",
        "json://127.0.0.1",
    ):
        assert words in text
    found = run("show", short, "--json")
    assert [one["kind"] for one in found["events"]] == ["alert.opened", "alert.acknowledged"]
    assert found["events"][1]["said"] == "on it"
    assert found["deliveries"][0]["state"] == "pending"
    assert "s3cr3t" not in text + str(found)


def test_an_alert_is_resolved_with_a_reason(run: Run, alert: Alert) -> None:
    """And then cannot be again."""
    done = run("resolve", alert.id, "--reason", "repaired", "--json")
    assert (done["state"], done["short_id"]) == ("resolved", alerting.short_id(alert))
    code, said = run("resolve", alert.id, "--reason", "repaired")
    assert code == 1
    assert "there is nothing to resolve" in said
    assert run("resolve", alert.id)[0] != 0


def test_silences_are_made_listed_and_ended(run: Run, alert: Alert) -> None:
    """Of one alert, or of what matches; never of all by mistake."""
    made = run("silence", alerting.short_id(alert), "--for", "30m", "--reason", "known", "--json")
    assert [made[name] for name in ("deployment", "check", "subject")] == ["digits-api", "kpi", "accuracy"]
    assert [one["id"] for one in run("silences", "--json")] == [made["id"]]
    assert "check kpi, subject accuracy" in run("silences")
    assert "is over" in run("unsilence", made["id"])
    assert "No silence holds" in run("silences")
    assert made["id"] in run("silences", "--all")
    code, said = run("silence", "--for", "2h", "--reason", "noise")
    assert code == 2
    assert "would silence every alert" in said
    assert run("silence", "--all", "--for", "2h", "--reason", "moving", "--json")["model"] == ""
    code, said = run("silence", "--all", "--for", "soon", "--reason", "x")
    assert code == 2
    assert "'soon' is no duration" in said


def test_a_test_message_ends_with_what_became_of_it(run: Run) -> None:
    """Code 1 when one address did not take it; a check that is not there is named."""
    code, said = run("test")
    assert code == 1
    assert "Connection refused" in said
    assert "Did you mean 'performance'?" in said
    assert "s3cr3t" not in said
    with webhook() as got:
        rows = run("test", f"json://127.0.0.1:{got.port}/s3cr3t", "--json")
        assert [row["result"] for row in rows] == ["sent"]
        assert len(got.titles) == 1
    code, said = run("test", "slck://A/B")
    assert code == 1
    assert "Did you mean slack://?" in said


def test_without_addresses_a_test_says_how_to_add_one(run: Run, project: Project) -> None:
    """Nobody would be told."""
    (project.root / "loopwright.toml").write_text("")
    code, said = run("test")
    assert code == 2
    assert "Nobody is told of alerts" in said
    assert "[alerts] to = " in said


def test_deliveries_are_listed_and_what_was_given_up_is_said(
    run: Run, project: Project, ledger: Ledger, alert: Alert
) -> None:
    """In the list of alerts as well."""
    assert "No message was sent yet" in run("deliveries")
    alerting.tick(project, ledger, now())
    assert [row["state"] for row in run("deliveries", "--json")] == ["pending"]
    assert "[critical] digits-api" in run("deliveries")
    row = outbox.deliveries(ledger)[0]
    given_up = [outbox.Delivery(**{**_fields(row), "attempts": 6})]
    outbox.record(ledger, given_up, now(), "refused")
    assert run("deliveries", "--failed", "--json")[0]["error"] == "refused"
    assert "could not be delivered: 1. See: loopwright alert deliveries --failed" in run("list")
    assert "refused" in run("show", alerting.short_id(alert))


def _fields(row: outbox.Delivery) -> dict[str, Any]:
    return {name: getattr(row, name) for name in outbox.Delivery.__slots__}


def test_exports_are_printed_or_written(run: Run, tmp_path: Path) -> None:
    """Both can be read back."""
    assert json.loads(run("export", "grafana"))["title"].startswith("Loopwright: ")
    assert "Written" in run("export", "prometheus", "--out", str(tmp_path / "rules.yml"))
    assert yaml.safe_load((tmp_path / "rules.yml").read_text()) == {"groups": []}
    code, said = run("export", "grafana", "--out", str(tmp_path / "no" / "such.json"))
    assert code == 1
    assert "cannot be written" in said


def test_an_alert_that_is_not_there_is_named(run: Run) -> None:
    """With the next command."""
    code, said = run("show", "ffffffff")
    assert code == 1
    assert "There is no alert 'ffffffff'" in said
    assert "loopwright alert list --all" in said
