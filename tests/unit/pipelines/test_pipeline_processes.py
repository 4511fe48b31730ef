"""Which processes run pipelines: the journal, and the runner's children."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from loopwright.config import Project
from loopwright.pipelines import journal
from loopwright.pipelines.child import Child
from loopwright.pipelines.serving import Served

STUBBORN = """
import pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
inner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
pathlib.Path(sys.argv[1]).write_text(str(inner.pid))
time.sleep(60)
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return an empty project."""
    (tmp_path / "loopwright.toml").touch()
    return Project(tmp_path)


def test_a_run_is_noted_while_its_process_lives(project: Project) -> None:
    """It is there before Prefect has given an id, then with it, and gone when it has ended."""
    journal.write(project, "r1")
    journal.write(project, "r2", "f2")
    assert [(entry.run_id, entry.flow_run_id) for entry in journal.alive(project)] == [
        ("r1", ""),
        ("r2", "f2"),
    ]
    journal.write(project, "r1", "f1")
    assert {entry.flow_run_id for entry in journal.alive(project)} == {"f1", "f2"}
    assert {entry.pid for entry in journal.alive(project)} == {os.getpid()}
    assert journal.dead(project) == []
    journal.forget(project, "r1")
    journal.forget(project, "r1")
    assert [entry.run_id for entry in journal.alive(project)] == ["r2"]


def test_a_run_of_a_killed_process_is_dead(project: Project) -> None:
    """Also while the killed process has not been waited for by its parent."""
    program = (
        "import sys, time\n"
        "from loopwright.config import Project\n"
        "from loopwright.pipelines import journal\n"
        "journal.write(Project(sys.argv[1]), 'r', 'f')\n"
        "print('noted', flush=True)\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-c", program, str(project.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "noted\n"
        assert [entry.pid for entry in journal.alive(project)] == [process.pid]
        process.kill()
        psutil.wait_procs([psutil.Process(process.pid)], timeout=0.5)
        assert [entry.flow_run_id for entry in journal.dead(project)] == ["f"]
    assert [entry.flow_run_id for entry in journal.dead(project)] == ["f"]
    assert journal.alive(project) == []


def test_a_reused_pid_is_not_the_run(project: Project) -> None:
    """A process that started at another time is another process."""
    journal.write(project, "r", "f")
    path = project.run / "flows" / "r.json"
    path.write_text(path.read_text().replace('"created": ', '"created": 1'))
    assert len(journal.dead(project)) == 1


def test_a_torn_entry_is_passed_over(project: Project) -> None:
    """A file that is no entry, such as an older version's, stops nobody."""
    journal.write(project, "r", "f")
    (project.run / "flows" / "a.json").write_text('{"run_')
    (project.run / "flows" / "b.json").write_text('{"other": 1}')
    assert len(journal.alive(project)) == 1


def test_a_child_that_does_not_end_is_killed_with_what_it_started(project: Project) -> None:
    """SIGTERM first; when its time has passed, the process and its own processes are killed."""
    (project.root / "stubborn.py").write_text(STUBBORN)
    mark = project.root / "mark"
    child = Child(project, Served("1", "stubborn", str(mark)), "f")
    _wait(lambda: mark.exists() and mark.read_text() != "")
    inner = psutil.Process(int(mark.read_text()))
    child.stop(0.3)
    child.insist()
    assert child.exit_code is None, "it still has time"
    time.sleep(0.4)
    child.insist()
    _wait(lambda: child.exit_code == -9)
    _wait(lambda: not inner.is_running() or inner.status() == psutil.STATUS_ZOMBIE)


def test_a_childs_output_is_kept(project: Project) -> None:
    """What it prints is in a log file named by the flow run."""
    (project.root / "says.py").write_text("import sys\nprint('hello', sys.argv[1:])\nsys.exit(3)\n")
    child = Child(project, Served("1", "says", "nightly"), "f1")
    _wait(lambda: child.exit_code is not None)
    assert child.exit_code == 3
    assert (project.run / "logs" / "flows" / "f1.log").read_text() == "hello ['nightly']\n"


def _wait(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)
