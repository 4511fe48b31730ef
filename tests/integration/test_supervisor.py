"""The supervisor with real parts: start, restart after kill -9, stop, and the next start after everything died."""

import os
import signal
import socket
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from loopwright import parts
from loopwright.config import Project
from loopwright.deploy.online import keys
from loopwright.errors import Conflict, Unavailable
from loopwright.ledger import Ledger
from loopwright.supervisor import control
from loopwright.supervisor.ports import port_for

pytestmark = pytest.mark.integration


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """Return an empty project, and stop whatever a test left running."""
    (tmp_path / "loopwright.toml").write_text('[project]\nname = "supervised"\n')
    made = Project(tmp_path)
    yield made
    control.down(made)


def wait_for(what: str, condition: object, seconds: float = 90.0) -> None:
    """Wait until a condition holds, or fail saying what was waited for."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():  # type: ignore[operator]
            return
        time.sleep(0.1)
    raise AssertionError(f"{what} did not happen within {seconds:.0f} s")


def answers(url: str) -> bool:
    """Whether an address answers with 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_a_killed_part_comes_back_and_a_killed_supervisor_leaves_nothing_behind(project: Project) -> None:
    """Kill -9 of the server is repaired on the same port; after kill -9 of all, the next start goes on there."""
    parts.ensure(project, "server", wait_s=150)
    first = parts.read(project)["server"]
    assert answers(f"{first.url}/health")

    os.kill(first.pid, signal.SIGKILL)
    wait_for(
        "the restart",
        lambda: parts.ready(project, "server") and parts.read(project)["server"].pid != first.pid,
    )
    second = parts.read(project)["server"]
    assert second.url == first.url
    assert second.restarts == 1
    ledger = Ledger.open(project)
    assert [event.kind for event in ledger.events("part.*", "server")] == [
        "part.started",
        "part.died",
        "part.started",
    ]

    boss = parts.supervisor(project)
    assert boss is not None
    os.kill(boss.pid, signal.SIGKILL)
    wait_for("the end of the orphan", lambda: not parts.alive(second), 20)
    assert parts.supervisor(project) is None
    with pytest.raises(Unavailable, match="loopwright up"):
        parts.url(project, "server")

    parts.ensure(project, "server", wait_s=150)
    third = parts.read(project)["server"]
    assert third.url == first.url
    assert {row.name for row in control.status(project)} == {"supervisor", "server"}
    parts.ensure(project, "server")
    assert parts.read(project)["server"] == third, "a second request must not start anything"

    assert control.down(project)
    assert not psutil.pid_exists(third.pid)
    assert not control.down(project)


def test_the_parts_of_a_deleted_project_stop(project: Project, tmp_path: Path) -> None:
    """Who deletes or moves the folder of a project that is up leaves no process behind."""
    parts.ensure(project, "server", wait_s=150)
    parts.ensure(project, "runner", wait_s=150)
    boss = parts.supervisor(project)
    assert boss is not None
    running = [boss, *parts.read(project).values()]
    assert len(running) == 3
    project.state.rename(tmp_path / "elsewhere")  # in one go, as the parts still write
    wait_for("the end", lambda: not any(parts.alive(part) for part in running), 30)


def test_a_supervisor_gives_way_to_that_of_a_project_begun_anew(project: Project, tmp_path: Path) -> None:
    """A folder that was deleted and made again has a supervisor of its own; the first one leaves it alone."""
    parts.start(project)
    wait_for("the first supervisor", lambda: parts.supervisor(project) is not None, 30)
    first = parts.supervisor(project)
    assert first is not None
    project.state.rename(tmp_path / "elsewhere")
    second = parts.claim(project)
    try:
        wait_for("the end of the first", lambda: not parts.alive(first), 30)
        assert parts.supervisor(project) == second
    finally:
        parts.unclaim(project)  # the fixture stops the supervisor, which would be this process


def test_a_taken_port_is_refused_with_its_owner(project: Project) -> None:
    """A configured port that somebody uses names who; a free one that was remembered is kept."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(Conflict, match=rf"Port {port} for serving is taken.*pid {os.getpid()}"):
            port_for(project, "serving", port)
    kept = port_for(project, "console")
    assert port_for(project, "console") == kept
    assert port_for(project, "server") != kept


def test_a_remembered_port_that_was_taken_meanwhile_is_replaced(project: Project) -> None:
    """A port nobody asked for by number gives way."""
    kept = port_for(project, "console")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", kept))
        taken.listen()
        assert port_for(project, "console") != kept


def test_nothing_listens_for_other_machines_without_a_key(project: Project) -> None:
    """Bound elsewhere the serving workers are not started before there is a key, and the message says how to make one."""
    (project.root / "loopwright.toml").write_text('[serving]\nhost = "0.0.0.0"\n')
    with pytest.raises(Unavailable, match="has no API key") as caught:
        parts.ensure(project, "serving", wait_s=60)
    assert "loopwright key create" in str(caught.value)
    assert not any(parts.alive(part) for name, part in parts.read(project).items() if "serving" in name)
    control.down(project)
    ledger = Ledger.open(project)
    keys.create(ledger, "shop")
    ledger.close()
    parts.ensure(project, "serving", wait_s=60)
    assert answers(f"{parts.url(project, 'serving')}/health")
