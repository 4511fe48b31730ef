"""`loopwright demo`: the whole loop once through, on real data and real parts, told as it happens.

Nothing here is simulated inside the system: the demo writes a project as a user would, starts its parts with the
supervisor, sends requests and labels over HTTP, and then only watches what the ledger says.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from loopwright import parts
from loopwright.config import PROJECT_VARIABLE, Project
from loopwright.demo.digits import Digits
from loopwright.demo.memory import Memory
from loopwright.demo.scenario import Row, Scenario
from loopwright.demo.story import Report, StageFailed, Story, facts
from loopwright.demo.table import Table
from loopwright.demo.traffic import Sent, Traffic
from loopwright.errors import InvalidInput, LoopwrightError
from loopwright.ledger import Event, Ledger
from loopwright.records import Alert, Release, ReleaseState, Scalar

__all__ = ["run"]

Found = TypeVar("Found")

#: How long each thing may take before the story ends with a failure, in seconds.
PATIENCE = {"alert": 120, "training": 150, "canary": 150, "rollback": 120}
#: Seconds over which the repaired service is measured.
AFTER_S = 15.0


def run(
    *,
    data: Path | None = None,
    target: str | None = None,
    time_column: str | None = None,
    drop: tuple[str, ...] = (),
    stay: bool = False,
    report_path: Path = Path("demo-report.json"),
    folder: Path | None = None,
) -> int:
    """Run the demo and return its exit code: 0 only when every stage really happened.

    Parameters
    ----------
    data, target, time_column, drop
        A table of the user's own instead of the digits; see `loopwright.demo.table.Table`.
    stay
        Keep everything running at the end, until Ctrl-C.
    report_path
        Where the report is written.
    folder
        Where the project is written; an existing project there is replaced. Else a temporary folder.
    """
    if data is not None and target is None:
        raise InvalidInput("--data needs --target.", hint=f"loopwright demo --data {data} --target COLUMN")
    scenario: Scenario = Table(data, target or "", time_column, drop) if data else Digits()
    root = folder.resolve() if folder else Path(tempfile.mkdtemp(prefix="loopwright-demo-"))
    _clear(root)
    report = Report(metric=scenario.metric)
    story = Story(f"Loopwright demo in {root}", Console(), report)
    demo = _Demo(scenario, root, story)
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        stack.callback(demo.stop)
        try:
            with story.telling():
                demo.tell()
        except (StageFailed, LoopwrightError) as error:
            story.console.print(str(error), style="bold red", highlight=False)
        finally:
            demo.measure()
            report.duration_s = round(time.monotonic() - started, 1)
            report.write(report_path)
        story.console.print(facts(report))
        demo.addresses(report_path)
        stay = stay and report.ok
        story.console.print(
            "Everything keeps running. Ctrl-C stops it."
            if stay
            else f"Stopped now; to look around: cd {root} && loopwright up",
            style="bold",
            soft_wrap=True,
            highlight=False,
        )
        if stay:
            with contextlib.suppress(KeyboardInterrupt):
                demo.linger()
    return 0 if report.ok else 1


def _clear(root: Path) -> None:
    """Empty the folder of an earlier demo; refuse a folder that holds anything else."""
    if not root.exists() or not any(root.iterdir()):
        root.mkdir(parents=True, exist_ok=True)
        return
    marker = root / "loopwright.toml"
    if not marker.is_file() or '-demo"' not in marker.read_text():
        raise InvalidInput(
            f"{root} is not empty and no demo project.", hint="loopwright demo --folder NEW-FOLDER"
        )
    if parts.supervisor(Project(root)):
        from loopwright.supervisor import control

        control.down(Project(root))
    shutil.rmtree(root)
    root.mkdir()


class _Demo:
    """The story itself: one method per stage."""

    def __init__(self, scenario: Scenario, root: Path, story: Story) -> None:
        self.scenario, self.root, self.story = scenario, root, story
        self.report = story.report
        self.traffic: Traffic | None = None
        self.memory: Memory | None = None
        self._shift_at = 0.0
        self._seen = 0

    def tell(self) -> None:
        """Run all stages in order."""
        self._set_up()
        self.project = Project(self.root)
        os.environ[PROJECT_VARIABLE] = str(self.root)
        self.memory = Memory(self.project)
        self.memory.start()
        self._train()
        self._start()
        self.ledger = Ledger.open(self.project, actor="demo")
        self._baseline()
        self._alert()
        self._retrain()
        self._canary()
        self._recovered()
        self._broken()
        self._parity()
        self._trace()

    # The stages.

    def _set_up(self) -> None:
        with self.story.stage("project") as stage:
            self.scenario.write(self.root)
            for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "The demo's project"]):
                self._git(*command)
            stage.detail = f"a project as `loopwright init` writes it, committed to git, in {self.root}"

    def _git(self, *words: str) -> None:
        who = {"GIT_AUTHOR_NAME": "demo", "GIT_AUTHOR_EMAIL": "demo@localhost"}
        who |= {"GIT_COMMITTER_NAME": "demo", "GIT_COMMITTER_EMAIL": "demo@localhost"}
        subprocess.run(["git", *words], cwd=self.root, env=os.environ | who, check=True, capture_output=True)

    def _train(self) -> None:
        with self.story.stage("train") as stage:
            order = {
                "entrypoint": "pipelines:train",
                "runs": list(self.scenario.runs),
                "metric": self.scenario.metric,
                "higher": self.scenario.higher,
                "deployment": self.scenario.deployment,
            }
            lines = self._transient(order)
            if "champion" not in lines[-1]:
                raise StageFailed(f"no champion was put into service: {lines[-1]}")
            stage.detail = (
                f"{len(lines) - 1} tracked candidates; version {lines[-1]['champion']} is champion "
                f"with {self.scenario.metric} {lines[-1]['value']:.3f} in cross-validation"
            )

    def _transient(self, order: dict[str, Any]) -> list[dict[str, Any]]:
        """Run the training process and tell each line it prints."""
        lines: list[dict[str, Any]] = []
        with subprocess.Popen(
            [sys.executable, "-m", "loopwright.demo.candidates", json.dumps(order)],
            cwd=self.root,
            env=os.environ | {PROJECT_VARIABLE: str(self.root), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            for line in process.stdout:
                with contextlib.suppress(json.JSONDecodeError):
                    found = json.loads(line)
                    lines.append(found)
                    if "kind" in found:
                        self.story.say(
                            f"run {found['run_id'][:8]}: {found['kind'] or 'best'} -> version {found['version']}, "
                            f"{self.scenario.metric} {found['value']:.3f} ({found['seconds']:.1f} s)"
                        )
            errors = process.stderr.read()
        if process.returncode or not lines:
            raise StageFailed(f"the training process ended with code {process.returncode}:\n{errors[-3000:]}")
        return lines

    def _start(self) -> None:
        from loopwright.supervisor import control

        with self.story.stage("up") as stage:
            control.up(self.project)
            url = parts.url(self.project, "serving")
            host, _, port = url.removeprefix("http://").partition(":")
            self.traffic = Traffic(
                host, int(port), self.scenario.deployment, self.scenario.rows(), self.scenario.rate
            )
            names = ", ".join(sorted(parts.read(self.project)))
            stage.detail = f"running: {names}; console {parts.url(self.project, 'console')}"

    def _baseline(self) -> None:
        assert self.traffic is not None
        with self.story.stage("baseline") as stage:
            self.traffic.start()
            self._watch(self.scenario.baseline_s, lambda: None)
            answered = self.traffic.since(time.monotonic() - self.scenario.baseline_s + 2)
            if len(answered) < 0.5 * self.scenario.rate * self.scenario.baseline_s:
                raise StageFailed(f"only {len(answered)} answers; failures: {self.traffic.failures[:3]}")
            self.report.accuracy_before = self._score(answered)
            stage.detail = (
                f"{len(answered)} answers, {self.scenario.metric} {self.report.accuracy_before:.3f}, "
                f"median latency {sorted(sent.latency_ms for sent in answered)[len(answered) // 2]:.1f} ms"
            )

    def _alert(self) -> None:
        with self.story.stage("shift") as stage:
            self._seen = self._last_event()
            self._shift_at = time.monotonic()
            self.story.say(self.scenario.shift())
            event = self._wait("alert.opened", self.scenario.model, PATIENCE["alert"], check="performance")
            alert = event.read(Alert)
            stage.detail = f"alert: {alert.message}"

    def _retrain(self) -> None:
        with self.story.stage("retrain") as stage:
            event = self._wait("release.started", self.scenario.deployment, PATIENCE["training"])
            self.story.say(f"release {event.payload['id']} started by itself: {event.payload['trigger']}")
            release = self._until(lambda state: state is not ReleaseState.training, PATIENCE["training"])
            self._must(release, {ReleaseState.evaluating, ReleaseState.canary, ReleaseState.promoted})
            self.scenario.fresh()
            stage.detail = f"Prefect flow run {release.flow_run_id[:8]}, MLflow run {release.run_id[:8]}"
        with self.story.stage("gate") as stage:
            release = self._until(lambda state: state is not ReleaseState.evaluating, PATIENCE["training"])
            self._must(release, {ReleaseState.canary, ReleaseState.promoted})
            gate = release.gate
            assert gate is not None
            champion = "-" if gate.champion is None else f"{gate.champion:.3f}"
            stage.detail = (
                f"version {release.candidate} against {release.champion} on the same {gate.rows} rows: "
                f"{gate.metric} {gate.candidate:.3f} against {champion}"
            )

    def _canary(self) -> None:
        with self.story.stage("canary") as stage:
            release = self._until(lambda state: state.ended, PATIENCE["canary"])
            self._must(release, {ReleaseState.promoted})
            self.report.shift_to_promoted_s = round(time.monotonic() - self._shift_at, 1)
            verdict = release.verdict
            assert verdict is not None
            stage.detail = (
                f"promoted after {verdict.candidate_rows} labelled rows of the candidate: loss difference "
                f"{verdict.estimate:+.3f} [{verdict.lower:+.3f}, {verdict.upper:+.3f}], margin {verdict.margin:g}"
            )
            self._promoted = release

    def _recovered(self) -> None:
        assert self.traffic is not None
        with self.story.stage("recovered") as stage:
            champion, candidate = self._promoted.champion, self._promoted.candidate
            shifted = [s for s in self.traffic.since(self._shift_at + 1) if s.version == champion]
            self.report.accuracy_shifted = self._score(shifted)
            until = time.monotonic() + 10
            while time.monotonic() < until and not self._serves_only(candidate):
                time.sleep(0.2)
            began = time.monotonic()
            self._watch(AFTER_S, lambda: None)
            after = self.traffic.since(began)
            if {sent.version for sent in after} != {candidate}:
                raise StageFailed(
                    f"versions {sorted({s.version for s in after})} answered, not only {candidate}"
                )
            self.report.accuracy_after = self._score(after)
            pairs: list[tuple[Row, Scalar]] = [(sent.row, sent.prediction) for sent in after]
            before = self.report.accuracy_before
            assert before is not None
            good, stage.detail = self.scenario.recovered(self.root, before, self.report.accuracy_after, pairs)
            if not good:
                raise StageFailed(f"not recovered: {stage.detail}")

    def _serves_only(self, version: int | None) -> bool:
        assert self.traffic is not None
        last = self.traffic.sent[-20:]
        return len(last) == 20 and {sent.version for sent in last} == {version}

    def _broken(self) -> None:
        from loopwright import release as releases

        assert self.traffic is not None
        with self.story.stage("broken") as stage:
            order = {
                "entrypoint": "pipelines:train",
                "runs": [{"shuffle": True}],
                "metric": self.scenario.metric,
                "higher": self.scenario.higher,
            }
            version = self._transient(order)[0]["version"]
            self._seen = self._last_event()
            releases.request(
                self.project,
                self.scenario.deployment,
                version=version,
                reason="demo: trained on shuffled labels, forced past the gate",
                forced=True,
            )
            stage.detail = f"version {version}, trained on shuffled labels, forced into the canary"
        with self.story.stage("rollback") as stage:
            release = self._until(lambda state: state.ended, PATIENCE["rollback"], candidate=version)
            self._must(release, {ReleaseState.rolled_back})
            served = [sent for sent in self.traffic.sent if sent.version == version]
            self.report.bad_candidate_to_rollback_requests = len(served)
            verdict = release.verdict
            assert verdict is not None
            stage.detail = f"rolled back after {len(served)} requests to it: {verdict.reason}"

    def _parity(self) -> None:
        with self.story.stage("parity") as stage:
            done = self._command("parity", self.scenario.model, "--json")
            found = json.loads(done)
            worst = max(mode["max_difference"] for mode in found["modes"])
            flips = sum(mode["label_flips"] for mode in found["modes"])
            names = ", ".join(mode["mode"] for mode in found["modes"])
            if not found["ok"]:
                raise StageFailed(f"the modes differ: {found['modes']}")
            stage.detail = (
                f"{names}: {found['rows']} rows each, largest difference {worst:.1g}, {flips} label flips"
            )

    def _trace(self) -> None:
        assert self.traffic is not None
        with self.story.stage("trace") as stage:
            sent = self.traffic.sent[-1]
            found = json.loads(self._command("trace", sent.prediction_id, "--json"))
            bad = [link for link in found["links"] if link["ok"] is not True]
            for link in found["links"]:
                self.story.say(f"{link['kind']}: {link['name']} {(link['hash'] or '')[:12]}")
            if bad:
                raise StageFailed(f"links that do not hold: {bad}")
            stage.detail = f"prediction {sent.prediction_id}: {len(found['links'])} links back to the file, all hashes hold"

    def _command(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "loopwright", *words],
            cwd=self.root,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise StageFailed(
                f"loopwright {' '.join(words)} ended with {done.returncode}: {done.stderr[-2000:]}{done.stdout[-500:]}"
            )
        return done.stdout

    # Watching.

    def _last_event(self) -> int:
        found = self.ledger.events(limit=1, newest=True)
        return found[0].id if found else 0

    def _wait(self, kind: str, subject: str, patience: float, **payload: Any) -> Event:
        """Wait for an event that came after `_seen`."""

        def look() -> Event | None:
            for event in self.ledger.events(kind, subject, after=self._seen):
                if all(event.payload.get(key) == value for key, value in payload.items()):
                    return event
            return None

        found = self._watch(patience, look)
        if found is None:
            raise StageFailed(f"no {kind} for {subject} within {patience:.0f} s")
        return found

    def _until(
        self, done: Callable[[ReleaseState], bool], patience: float, candidate: int | None = None
    ) -> Release:
        """Wait until the release of the deployment is in a state that `done` accepts."""

        def look() -> Release | None:
            state = self.ledger.get("release", self.scenario.deployment)
            release = state.read(Release) if state else None
            if release is None or (candidate is not None and release.candidate != candidate):
                return None
            return release if done(release.state) else None

        found = self._watch(patience, look)
        if found is None:
            state = self.ledger.get("release", self.scenario.deployment)
            last = state.read(Release) if state else None
            seen = f"it is in {last.state}" if last else "there is none"
            last_look = self.ledger.last("release.look", self.scenario.deployment)
            seen += f"; at the last look: {last_look.payload['reason']}" if last_look else ""
            raise StageFailed(f"the release did not move on within {patience:.0f} s: {seen}")
        return found

    def _must(self, release: Release, states: set[ReleaseState]) -> None:
        if release.state not in states:
            raise StageFailed(f"release {release.id} is {release.state}: {release.reason}")

    def _watch(self, seconds: float, look: Callable[[], Found | None]) -> Found | None:
        """Update the live picture until `look` returns something or the time is over."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._figures()
            found = look()
            if found is not None:
                return found
            time.sleep(0.25)
        return None

    def _figures(self) -> None:
        assert self.traffic is not None
        now = time.monotonic()
        recent = self.traffic.since(now - 60)
        seconds: dict[int, list[Sent]] = {}
        for sent in recent:
            seconds.setdefault(int(now - sent.at), []).append(sent)
        curve = [self._score(seconds.get(age, [])) if seconds.get(age) else 0.0 for age in range(59, 0, -1)]
        last = self.traffic.since(now - 5)
        figures = {
            "requests": f"{self.traffic.requests}",
            "failed": f"{len(self.traffic.failures)}",
            "per second": f"{len(last) / 5:.0f}",
            self.scenario.metric: f"{self._score(last):.3f}" if last else "-",
            "versions": ", ".join(str(version) for version in sorted({sent.version for sent in last})),
        }
        self.story.show(figures, curve, f"{self.scenario.metric}, last minute")

    def _score(self, sent: list[Sent]) -> float:
        return self.scenario.score([(one.prediction, one.row.actual) for one in sent])

    # The end.

    def measure(self) -> None:
        """Put what was counted into the report."""
        if self.traffic:
            self.report.requests = self.traffic.requests
            self.report.failed_requests = len(self.traffic.failures)
            for failure in self.traffic.failures[:5]:
                self.story.say(f"failed request: {failure}")
        if self.memory:
            self.report.memory_total_mb = round(self.memory.peak_mb, 1)
            self.report.memory_mb = {
                name: round(size, 1) for name, size in sorted(self.memory.at_peak.items())
            }

    def addresses(self, report_path: Path) -> None:
        """Print where the pages are, and the report."""
        with contextlib.suppress(LoopwrightError, AttributeError):
            server, console = parts.url(self.project, "server"), parts.url(self.project, "console")
            self.story.console.print(
                f"console  {console}/model/{self.scenario.deployment}\nMLflow   {server}/mlflow/\n"
                f"Prefect  {server}/prefect/\nreport   {report_path}",
                highlight=False,
            )

    def linger(self) -> None:
        """Keep the traffic and the parts going until Ctrl-C."""
        while True:
            time.sleep(1)

    def stop(self) -> None:
        """Stop the traffic and all parts."""
        from loopwright.supervisor import control

        if self.traffic and self.traffic.sent:
            self.traffic.stop()
        if self.memory:
            self.memory.stop()
        project = getattr(self, "project", None)
        if project is not None:
            control.down(project)
