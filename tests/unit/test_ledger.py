"""The ledger: append-only events, current state with revisions, safe between processes."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from loopwright.errors import Conflict, Damaged, Denied
from loopwright.ledger import Ledger
from loopwright.records import Deployment, Mode, Variant, now


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Return a new ledger in a file."""
    return Ledger(f"sqlite:///{tmp_path}/ledger.db", actor="test")


def test_events_come_back_in_order_and_by_kind(ledger: Ledger) -> None:
    """Exact kinds, prefixes, subjects, `after` and `newest` each select what they say."""
    for number in range(5):
        ledger.append("alert.opened", "digits", {"number": number})
    last = ledger.append("alert.resolved", "wine")
    assert [event.payload["number"] for event in ledger.events("alert.opened")] == [0, 1, 2, 3, 4]
    assert len(ledger.events("alert.*")) == 6
    assert ledger.events(subject="wine") == [last]
    assert [event.payload.get("number") for event in ledger.events(limit=2, newest=True)] == [4, None]
    assert ledger.events(after=last.id) == []
    assert ledger.event(last.id) == last
    assert ledger.event(last.id + 1) is None
    assert ledger.events(since=datetime(2999, 1, 1, tzinfo=UTC)) == []


def test_records_survive_the_way_there_and_back(ledger: Ledger) -> None:
    """A record put into the ledger is read as an equal record."""
    deployment = Deployment(
        "api", "digits", Mode.online, (Variant("champion", 3, 0.9), Variant("candidate", 4, 0.1))
    )
    ledger.put("deployment", "api", deployment)
    found = ledger.get("deployment", "api")
    assert found is not None
    assert found.read(Deployment) == deployment


def test_a_value_of_another_kind_is_called_damaged(ledger: Ledger) -> None:
    """Reading what is no such record says so instead of returning nonsense."""
    ledger.put("deployment", "api", {"nonsense": 1})
    found = ledger.get("deployment", "api")
    assert found is not None
    with pytest.raises(Damaged, match="no Deployment"):
        found.read(Deployment)


def test_put_refuses_a_value_that_was_changed_meanwhile(ledger: Ledger) -> None:
    """With `expect` a change is only made on the state the caller has seen."""
    first = ledger.put("release", "api", 1, expect=0)
    ledger.put("release", "api", 2, expect=first)
    with pytest.raises(Conflict, match="was changed meanwhile"):
        ledger.put("release", "api", 3, expect=first)
    assert ledger.get("release", "nothing") is None
    found = ledger.get("release", "api")
    assert found is not None
    assert found.value == 2


def test_a_refused_put_leaves_no_event(ledger: Ledger) -> None:
    """State and event are one transaction."""
    ledger.put("release", "api", 1, expect=0, event="release.started")
    with pytest.raises(Conflict):
        ledger.put("release", "api", 2, expect=0, event="release.started")
    assert len(ledger.events("release.started")) == 1


def test_revision_rises_with_each_change(ledger: Ledger) -> None:
    """One number tells whether any current value has changed."""
    before = ledger.revision()
    ledger.put("a", "1", 1)
    ledger.put("b", "1", 1)
    assert ledger.revision() == before + 2
    ledger.append("anything", "x")
    assert ledger.revision() == before + 2
    assert [state.key for state in ledger.states("a")] == ["1"]


def test_times_are_utc_aware(ledger: Ledger) -> None:
    """What comes back has a time zone."""
    event = ledger.append("a", "b")
    assert ledger.events()[0].at == event.at
    assert abs((now() - ledger.events()[0].at).total_seconds()) < 60


def test_a_folder_that_is_missing_is_told(tmp_path: Path) -> None:
    """A ledger that cannot be opened names its place."""
    with pytest.raises(Denied, match="cannot be opened"):
        Ledger(f"sqlite:///{tmp_path}/missing/ledger.db")


def test_processes_that_meet_a_new_ledger_at_once_lose_nothing(tmp_path: Path) -> None:
    """Several processes create and write the same new ledger: every event and every revision is there."""
    program = (
        "from loopwright.ledger import Ledger\n"
        f"ledger = Ledger('sqlite:///{tmp_path}/ledger.db')\n"
        "import os\n"
        "for n in range(20):\n"
        "    ledger.append('e', str(os.getpid()))\n"
        "    ledger.put('s', f'{os.getpid()}-{n}', n)\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(4)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0, 0]
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    assert len(ledger.events("e")) == 80
    assert ledger.revision() == 80
