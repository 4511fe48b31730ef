"""The controller's turn: rows are counted, and what fails keeps nothing else from its turn."""

import threading
from pathlib import Path

import pytest
from prediction_rows import FLOWERS, project_in, rows

from loopwright.config import Project
from loopwright.monitor.live import LiveNumbers
from loopwright.predictions import PredictionLog, files
from loopwright.release.controller import Controller
from loopwright.release.upkeep import Upkeep


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return a new project."""
    monkeypatch.delenv("LOOPWRIGHT_LEDGER", raising=False)
    return project_in(tmp_path)


def test_a_turn_counts_what_was_logged_whatever_else_fails(
    project: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Monitors that fail are logged; the live numbers are there."""
    controller = Controller(project)
    log = PredictionLog(project, "quiet", "iris", FLOWERS)
    log.append(rows(project, 12))
    done: list[str] = []

    def fail(*_: object) -> None:
        raise RuntimeError("no monitor today")

    monkeypatch.setattr("loopwright.monitor.tick", fail)
    monkeypatch.setattr(controller, "_trigger", lambda: done.append("triggers"))
    controller.turn()
    assert LiveNumbers(controller.ledger, project).totals() == {("quiet", 1): 12}
    assert done == ["triggers"]
    assert "no monitor today" in caplog.text
    log.close()


def test_upkeep_merges_only_what_is_counted(project: Project) -> None:
    """Segments that the follower has not seen stay as they are until it has."""
    controller = Controller(project)
    upkeep = Upkeep(controller.declared, controller.ledger, threading.Event())
    log = PredictionLog(project, "quiet", "iris", FLOWERS, seal_rows=5)
    log.append(rows(project, 1))
    controller.turn()
    for _ in range(9):
        log.append(rows(project, 5))
        log.maintain()
    folder = files.of_deployment(project, "quiet")
    before = len(folder.segments())
    upkeep.turn()
    assert len(folder.segments()) == before >= 9
    controller.turn()
    upkeep.turn()
    assert len(folder.segments()) == 1
    controller.turn()
    assert LiveNumbers(controller.ledger, project).totals() == {("quiet", 1): 46}
    log.close()


def test_upkeep_that_fails_is_logged_and_goes_on(
    project: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A log that cannot be merged does not keep old blocks from going."""
    controller = Controller(project)
    rolled: list[int] = []

    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr("loopwright.release.upkeep.maintain", fail)
    monkeypatch.setattr("loopwright.monitor.live.roll_up", lambda *_: rolled.append(1))
    Upkeep(controller.declared, controller.ledger, threading.Event()).turn()
    assert rolled == [1]
    assert "the disk is full" in caplog.text


def test_monitors_follow_the_file(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A window that is declared while the controller runs is the one that is judged; a half-edited file changes nothing."""
    controller = Controller(project)
    seen: list[str] = []

    def tick(declared: Project, *_: object) -> list[object]:
        seen.extend(declared.config.monitor)
        return []

    monkeypatch.setattr("loopwright.monitor.tick", tick)
    file = project.root / "loopwright.toml"
    file.write_text(file.read_text() + '\n[model.late]\ntarget = "y"\n[monitor.late]\nwindow = "5m"\n')
    controller.turn()  # the file is looked at when the schedules are
    controller.turn()
    assert "late" in seen
    file.write_text("[monitor.late\n")
    controller._scheduled = 0.0
    controller.turn()
    seen.clear()
    controller.turn()
    assert "late" in seen
