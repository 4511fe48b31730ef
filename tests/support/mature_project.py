"""A project that has all facts of maturity level 4, or all but one: a git repository and a ledger that tell it."""

import dataclasses
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

from loopwright.config import Project
from loopwright.ledger import Ledger
from loopwright.monitor.results import Results
from loopwright.records import (
    Alert,
    Column,
    DatasetRef,
    DecisionRecord,
    Deployment,
    GateResult,
    Judged,
    Mode,
    ModelVersion,
    PipelineRun,
    Release,
    ReleaseState,
    Signal,
    Signature,
    Task,
    Variant,
    Verdict,
    Window,
    now,
)
from loopwright.reproduction import Reproduction

CONFIG = """
[model.digits]
pipeline = "pipelines:train"
target = "digit"

[deployment.digits-api]
model = "digits"
mode = "online"

[deployment.digits-batch]
model = "digits"
mode = "batch"
source = "scans.csv"
sink = "sqlite:///predictions.db?table=digits"

[monitor.digits]
window = "20s"
retrain_on = ["performance"]
"""
API = "digits-api"
SIGNATURE = Signature((Column("pixel", "double"),), Task.classification, "digit", (0, 1))
DATASET = DatasetRef("scans", "3f" * 32, 600, ("pixel", "digit"), "scans.csv", "ab" * 32)
VERDICT = Verdict("promote", "test", 0.05, 0.03, -0.1, -0.2, -0.01, 400, 390, 9, "the candidate is better")
GATE = GateResult(True, "accuracy", 0.95, 0.75, -0.2, -0.3, -0.1, 0.02, 400)
#: Which committed file each of these facts is seen by.
FILES = {
    "L1.2": ".github/workflows/test.yml",
    "L1.3": "tests/test_pipelines.py",
    "L1.5": "loopwright.toml",
    "L2.6": "uv.lock",
    "L3.7": "CODEOWNERS",
}


def mature_project(folder: Path, *, without: str = "", below: str = "") -> Project:
    """Make the project in a new repository, in its folder `below` when one is given; the fact `without` is missing."""
    root = folder / below
    root.mkdir(parents=True)
    texts = {
        FILES["L1.2"]: "on: push\n",
        FILES["L1.3"]: "",
        FILES["L2.6"]: "",
        FILES["L3.7"]: "* @team\n" if without != "L4.9" else "*.py @team\n",
        FILES["L1.5"]: CONFIG,
        "pipelines.py": "def train(): ...\n",
    }
    for name, text in texts.items():
        path = (folder if name in {"CODEOWNERS", FILES["L1.2"]} else root) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    project = Project(root)
    _commit(folder, root, "" if without == "L1.1" else FILES.get(without, "-"), alone=without == "L2.9")
    tell(project, without=without)
    return project


def _commit(folder: Path, root: Path, left_out: str, *, alone: bool) -> None:
    """Commit everything but one file as two people, or the code as one `alone`; nothing when no file is named."""
    if not left_out:
        return
    git(folder, "init", "-q", "-b", "main")
    (folder / ".git" / "info" / "exclude").write_text(f"{left_out}\n.loopwright/\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "Start", author="ada")
    for name in ("loopwright.toml", "pipelines.py"):
        if name != left_out and not (alone and name == "pipelines.py"):
            with (root / name).open("a") as file:
                file.write("\n")
    git(folder, "commit", "-q", "-a", "-m", "Go on", "--allow-empty", author="grace")


def git(folder: Path, *arguments: str, author: str = "ada") -> str:
    """Run git as one author and return what it wrote."""
    who = ("-c", f"user.name={author}", "-c", f"user.email={author}@example.org")
    done = subprocess.run(
        ["git", *who, "-c", "commit.gpgsign=false", *arguments],
        cwd=folder, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout.strip()


def tell(project: Project, *, without: str = "") -> None:
    """Write the ledger: version 1 by hand, 2 promoted, 3 rolled back, 4 promoted, all but the first by themselves."""
    ledger = Ledger.open(project, actor="controller")
    commit = "0" * 40 if without in {"L1.1", "L3.2"} else git(project.root, "rev-parse", "HEAD")
    for version in (1, 2, 3, 4):
        _release(ledger, version, commit, without)
    for name, mode in ((API, Mode.online), ("digits-batch", Mode.batch)):
        served = Deployment(name, "digits", mode, (Variant("champion", 4),))
        ledger.put("deployment", name, served, event="" if without == "L2.8" else "deployment.changed")
    if without != "L3.3":
        ledger.append("parity.measured", "digits", {"version": 4, "ok": True})
    if without != "L2.3":
        ledger.put("reproduction", "run4", reproduction("run4"))
    rows = 0 if without == "L1.6" else 600
    ledger.append("scorer.prepared", "digits", {"version": 4, "runtime": "onnx", "replay_rows": rows})
    window = Window(now() - timedelta(seconds=20), now())
    for phase, check in (("inputs", "drift"), ("labels", "performance")):
        if without != "L4.1" or phase == "inputs":
            signal = Signal(check, "digits", API, window, 0.95, 0.9, 400, False, "accuracy", 4)
            judged = Judged(API, "digits", phase, 4, window, "judged", 400)  # type: ignore[arg-type]
            Results(ledger).record(judged, [signal])
    ledger.close()


def reproduction(run_id: str) -> Reproduction:
    """Return the verdict that a run was reproduced."""
    return Reproduction(
        run_id, "pipelines:train", "reproduced", "", "", 1e-6, "commit 0", "the present ones", "3.11.9", 8.0
    )


def _release(ledger: Ledger, version: int, commit: str, without: str) -> None:
    """Train a version and, after the first, release it."""
    event = _asked(ledger, without)
    release = Release(
        f"r{version}", "digits", API, ReleaseState.training, "performance alert", now(), now(), event
    )
    last = version == 4
    if version > 1:
        by_hand = last and without == "L4.4"
        person = Ledger(ledger.url, actor="ada" if by_hand else "controller")
        person.put("release", API, release, event="release.started", cause=event)
        person.close()
    trigger = f"performance alert (r{version})"
    if version == 1 or (last and without == "L2.2"):
        trigger = "manual"
    elif last and without == "L4.4":
        trigger = "schedule"  # a person released what the schedule had trained
    _train(ledger, version, commit, trigger, without)
    if version == 1:
        return
    promoted = version != 3
    record = DecisionRecord(
        release.id, "digits", API, "promoted" if promoted else "rolled_back", release.trigger, event,
        version - 1, version, f"run{version}", "", DATASET.digest, GATE, VERDICT, now(), now(), False, "",
    )  # fmt: skip
    if last and without == "L3.1":
        record = dataclasses.replace(record, forced=True)
    if last and without == "L3.4":
        record = dataclasses.replace(record, verdict=None)
    if not (version == 3 and without == "L3.6"):
        ledger.append("decision", API, record)


def _asked(ledger: Ledger, without: str) -> int:
    """Open an alert and ask for a training because of it; return the id of the event that a release names."""
    if without == "L4.2":
        return 0
    alert = Alert("a", "performance", "digits", API, "open", now(), "accuracy is 0.7", 0.7, 0.9)
    opened = ledger.append("alert.opened", "digits", alert)
    return ledger.append("training.requested", "digits", {"reason": "accuracy"}, cause=opened.id).id


def _train(ledger: Ledger, version: int, commit: str, trigger: str, without: str) -> None:
    run = PipelineRun(
        "pipelines:train", f"run{version}", "", "completed", now(), 8.0, {}, datasets=(DATASET,),
        git_commit=commit, lock_digest="77" * 32, python="3.11.9", trigger=trigger,
    )  # fmt: skip
    if version == 4:
        changes: dict[str, dict[str, Any]] = {
            "L1.4": {"datasets": ()},
            "L2.1": {"python": ""},
            "L2.4": {"status": "failed"},
        }
        run = dataclasses.replace(run, **changes.get(without, {}))
    ledger.put("pipeline_run", run.run_id, run)
    digest = "" if version == 4 and without == "L2.5" else "d1" * 32
    made = ModelVersion("digits", version, run.run_id, "file:///x", digest, SIGNATURE, DATASET, 600, now())
    ledger.put("model_version", made.ref, made)
