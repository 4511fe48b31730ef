"""Schedules on a real Prefect and a real runner: what runs when, what survives a kill, and what becomes an alert."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Self

import pytest
import waiting
from one_server import Server, environment, serve

from loopwright import monitor, tracking
from loopwright.cli import main
from loopwright.config import Project
from loopwright.ledger import Ledger
from loopwright.pipelines import journal, rest, standing, switch, watch
from loopwright.pipelines.standing import ScheduledRun, Standing
from loopwright.records import Alert, PipelineRun, now
from loopwright.supervisor import reaper

eventually = partial(waiting.eventually, seconds=90)

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

MODULE = """
import os, time
from pathlib import Path
import loopwright as lw

@lw.pipeline
def tick(when: str = "") -> None:
    print("the tick of", when)

@lw.pipeline
def arrive(path: str) -> None:
    with Path("arrived.txt").open("a") as out:
        out.write(path + "\\n")

@lw.pipeline
def nap(seconds: float = 60.0) -> None:
    Path("napping").write_text(str(os.getpid()))
    time.sleep(seconds)
"""

CONFIG = """
[project]
name = "clock"

[runner]
slots = 4

[schedule.often]
pipeline = "pipelines:tick"
every = "15s"
max_late = "5s"
parameters = { when = "{time}" }

[schedule.arrival]
pipeline = "pipelines:arrive"
on = "file: in/*.csv"
parameters = { path = "{what}" }

[schedule.weekly]
pipeline = "pipelines:nap"
cron = "0 3 * * 0"
timezone = "UTC"
timeout = "3s"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run the local server of a project with schedules."""
    root = tmp_path_factory.mktemp("clock")
    (root / "loopwright.toml").write_text(CONFIG)
    (root / "pipelines.py").write_text(MODULE)
    (root / "in").mkdir()
    with serve(root) as server, environment(root, server):
        yield server


@pytest.fixture(scope="module")
def project(server: Server) -> Project:
    """Return the project of the server."""
    return Project(server.root)


@pytest.fixture(scope="module")
def ledger(project: Project) -> Iterator[Ledger]:
    """Return the project's ledger."""
    ledger = Ledger.open(project)
    yield ledger
    ledger.close()


class Runner:
    """A runner as a subprocess: a context manager that ends it."""

    def __init__(self, project: Project) -> None:
        with (project.root / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "loopwright.pipelines.runner"],
                cwd=project.root,
                stdout=log,
                stderr=log,
            )

    def __enter__(self) -> Self:
        return self

    def kill(self) -> None:
        """Kill it as nothing else does."""
        self.process.kill()
        self.process.wait()

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(15)


def state(ledger: Ledger, name: str) -> Standing | None:
    """Return how a schedule stands, None before the runner has seen it."""
    return standing.read_all(ledger).get(name)


def completed(ledger: Ledger, name: str) -> list[ScheduledRun]:
    """Return the runs of a schedule that have completed."""
    return [run for run in standing.history(ledger, name) if run.status == "completed"]


def open_alerts(project: Project, ledger: Ledger) -> set[str]:
    """Have the schedules looked after once, and return the keys of the alerts that are open then."""
    monitor.tick_schedules(project, ledger, now())
    alerts = [one.read(Alert) for one in ledger.states("alert")]
    return {alert.id for alert in alerts if alert.state == "open"}


def ask(project: Project, key: str) -> dict[str, Any]:
    """Make a run of the weekly schedule for now."""
    (deployment,) = rest.deployments(project, "pipelines:nap")
    return rest.create_flow_run(project, deployment["id"], {}, ["schedule:weekly"], at=now(), key=key)


def test_a_schedule_runs_its_pipeline(
    project: Project, ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run has the time it was due as its parameter, is traced to its schedule, and nothing is wrong."""
    with Runner(project):
        run = eventually("a run", lambda: completed(ledger, "often"))[0]
        found = open_alerts(project, ledger)
    record = ledger.get("pipeline_run", run.run_id)
    assert record is not None
    pipeline_run = record.read(PipelineRun)
    assert (pipeline_run.pipeline, pipeline_run.trigger) == ("pipelines:tick", "schedule often")
    assert pipeline_run.parameters["when"] == run.time.isoformat()
    assert run.time.second % 15 == 0
    assert tracking.get(project, run.run_id).status == "FINISHED"
    (deployment,) = rest.deployments(project, "pipelines:tick")
    assert [(one["slug"], one["schedule"]["interval"]) for one in deployment["schedules"]] == [("often", 15)]
    assert rest.get_flow_run(project, run.flow_run_id)["auto_scheduled"], "Prefect has planned it"
    assert not {key for key in found if not key.endswith(("late", "slow", "fast"))}
    with pytest.raises(SystemExit, match="0"):
        main(["pipeline", "show", run.run_id, "--project", str(project.root)])
    (printed,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("printed: ")]
    assert run.time.isoformat() in Path(printed.removeprefix("printed: ")).read_text()


def test_a_file_that_appears_starts_one_run(project: Project, ledger: Ledger) -> None:
    """It is found while a runner is there, after a kill too, and never twice; what was there before is no news."""
    arrived = project.root / "arrived.txt"
    with Runner(project) as first:
        eventually("the first look", lambda: (found := state(ledger, "arrival")) and "files" in found.seen)
        (project.root / "in" / "a.csv").write_text("x\n1\n")
        eventually("the run", arrived.exists)
        first.kill()
    (project.root / "in" / "b.csv").write_text("x\n2\n")
    with Runner(project):
        eventually(
            "the second run",
            lambda: len(completed(ledger, "arrival")) >= 1 and "b.csv" in arrived.read_text(),
        )
        eventually("its end", lambda: (found := state(ledger, "arrival")) and not found.running)
        time.sleep(5)  # two more looks
    assert arrived.read_text().splitlines() == ["in/a.csv", "in/b.csv"]


def test_what_is_paused_or_changed_on_prefects_pages_stays(project: Project, ledger: Ledger) -> None:
    """Over a restart of the runner too; a change of the same thing in the file counts again."""
    assert switch.switch(project, "weekly", active=False).active is False
    (deployment,) = rest.deployments(project, "pipelines:nap")
    (schedule,) = deployment["schedules"]
    path = f"deployments/{deployment['id']}/schedules/{schedule['id']}"
    rest.call(project, "PATCH", path, {"schedule": {"cron": "0 5 * * *", "timezone": "UTC"}})
    file = project.root / "loopwright.toml"
    with Runner(project):
        changed = eventually(
            "the change",
            lambda: (found := state(ledger, "weekly")) and found.timing["cron"] == "0 5 * * *" and found,
        )
        assert changed.active is False
        assert "was changed on Prefect's pages to 0 5 * * *" in (project.root / "server.log").read_text()
        file.write_text(CONFIG.replace("0 3 * * 0", "30 4 * * *"))
        eventually(
            "the file's", lambda: (found := state(ledger, "weekly")) and found.timing["cron"] == "30 4 * * *"
        )
        file.write_text(CONFIG)
        eventually(
            "the first", lambda: (found := state(ledger, "weekly")) and found.timing["cron"] == "0 3 * * 0"
        )
    (schedule,) = rest.deployments(project, "pipelines:nap")[0]["schedules"]
    assert (schedule["slug"], schedule["active"]) == ("weekly", False)


def test_a_runner_that_is_gone_over_its_time_is_an_alert_until_it_is_back(
    project: Project, ledger: Ledger
) -> None:
    """The alert opens once, says what was missed, and resolves when the newest missed run is made up for."""
    with Runner(project):
        eventually("a run", lambda: (found := state(ledger, "often")) and found.last)
    down = now()
    key = "schedule/often/missed"
    eventually("the alert", lambda: key in open_alerts(project, ledger), seconds=60)
    assert key in open_alerts(project, ledger)
    assert len(ledger.events("alert.opened", key)) == 1
    (problem,) = [one for one in watch.check(project, ledger, now()) if one.key == key]
    assert "no runner was there" in problem.message
    time.sleep(16)  # one more time is missed
    with Runner(project):
        eventually("the end", lambda: key not in open_alerts(project, ledger))
    run = next(run for run in completed(ledger, "often") if run.started > down)
    assert ledger.last("alert.resolved", key) is not None
    made_up = [one for one in standing.history(ledger, "often") if one.time < run.time and one.started > down]
    assert made_up == [], "only the newest missed run is made up for"
    skipped = ledger.events(standing.SKIPPED, "often", since=down)
    assert skipped
    assert "a newer one is due" in skipped[0].payload["reason"]


def test_a_run_that_takes_too_long_is_stopped(project: Project, ledger: Ledger) -> None:
    """Its time is over after `timeout`; the run failed and that is an alert; the process is gone."""
    with Runner(project):
        eventually("the schedule", lambda: state(ledger, "weekly"))
        switch.switch(project, "weekly", active=True)
        asked = ask(project, "by the test")
        last = eventually("its end", lambda: (found := state(ledger, "weekly")) and found.last)
    assert (last.flow_run_id, last.status) == (asked["id"], "failed")
    assert last.message == "Timed out: it took more than 3 s."
    assert [one for one in journal.alive(project) if one.flow_run_id == asked["id"]] == []
    assert "schedule/weekly/failed" in open_alerts(project, ledger)


def test_a_pipeline_that_was_renamed_is_an_alert_with_the_nearest_name(
    project: Project, ledger: Ledger
) -> None:
    """Found by whoever looks, and by the runner; its schedule is not dropped and not run."""
    file = project.root / "pipelines.py"
    file.write_text(MODULE.replace("def tick(", "def ticks("))
    try:
        assert "schedule/often/broken" in open_alerts(project, ledger)
        alert = ledger.get("alert", "schedule/often/broken")
        assert alert is not None
        assert "Did you mean 'pipelines:ticks'?" in alert.read(Alert).message
    finally:
        file.write_text(MODULE)
    assert "schedule/often/broken" not in open_alerts(project, ledger)


def test_without_a_runner_the_supervisor_ends_killed_runs(project: Project, ledger: Ledger) -> None:
    """A run that was started by hand, and killed, is ended in Prefect, MLflow and the ledger."""
    napping = project.root / "napping"
    napping.unlink(missing_ok=True)
    by_hand = subprocess.Popen([sys.executable, "-c", "import pipelines; pipelines.nap()"], cwd=project.root)
    eventually("the start", napping.exists)
    by_hand.kill()
    by_hand.wait()
    (entry,) = journal.dead(project)
    reaper.reap(project, ledger)
    assert journal.dead(project) == []
    assert tracking.get(project, entry.run_id).status == "KILLED"
    assert rest.get_flow_run(project, entry.flow_run_id)["state"]["type"] == "CRASHED"


def test_kills_are_noticed(project: Project, server: Server, ledger: Ledger) -> None:
    """After kill -9 of run, runner and server at once, the next ones mark the run crashed and go on."""
    napping = project.root / "napping"
    napping.unlink(missing_ok=True)
    (project.root / "loopwright.toml").write_text(CONFIG.replace('timeout = "3s"\n', ""))
    with Runner(project) as runner:
        eventually("the schedule", lambda: state(ledger, "weekly"))
        asked = ask(project, "to be killed")
        eventually("the start", napping.exists)
        os.kill(int(napping.read_text()), signal.SIGKILL)
        runner.kill()
    server.restart()
    with Runner(project):
        last = eventually(
            "the end",
            lambda: (
                (found := state(ledger, "weekly"))
                and found.last
                and found.last.flow_run_id == asked["id"]
                and found.last
            ),
            seconds=40,
        )
    assert last.status == "crashed"
    assert tracking.get(project, last.run_id).status == "KILLED"
    assert rest.get_flow_run(project, asked["id"])["state"]["type"] == "CRASHED"
