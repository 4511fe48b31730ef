"""A project whose ledger and prediction log tell one story: quiet traffic, a shift, an alert, a retraining, a release.

Everything is written through the ledger and the log themselves; only the ledger's clock is turned back, so that the
past is in the past. Run it to look at the pages: ``python console_seed.py FOLDER``.
"""

import contextlib
import dataclasses
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from loopwright.config import Project
from loopwright.deploy.online.levels import Levels
from loopwright.deploy.online.meters import Meters
from loopwright.ledger import Ledger, store
from loopwright.monitor.results import Results
from loopwright.predictions import Ids, LabelLog, PredictionLog, Predictions
from loopwright.records import (
    Alert,
    Column,
    DatasetRef,
    DecisionRecord,
    Deployment,
    GateResult,
    Judged,
    Label,
    Mode,
    ModelVersion,
    PipelineRun,
    Release,
    ReleaseState,
    Signal,
    Signature,
    StepRun,
    Task,
    Variant,
    Verdict,
    Window,
    now,
)
from loopwright.registry.layout import Layout
from loopwright.scoring.base import Band, Manifest, Proof, Timing

CONFIG = """
[project]
name = "digits-demo"

[model.digits]
pipeline = "pipelines:train"
target = "digit"
gate = { metric = "accuracy", margin = 0.02, rows = 400 }

[deployment.digits-api]
model = "digits"
mode = "online"
release = { strategy = "canary", steps = [5, 25, 50], metric = "error", margin = 0.03, step_rows = 40 }
slo = { latency = "20ms", share = 0.99, availability = 0.999, window = "7d" }

[deployment.digits-batch]
model = "digits"
mode = "batch"
source = "data/scans.csv"
sink = "sqlite:///predictions.db?table=digits"

[deployment.digits-stream]
model = "digits"
mode = "stream"
source = "sqlite:///streams.db?topic=scans"
sink = "sqlite:///streams.db?topic=readings"

[deployment.digits-edge]
model = "digits"
mode = "edge"

[monitor.digits]
window = "20s"
performance = { metric = "accuracy", worse_than = 0.9, label_delay = "3s" }
retrain_on = ["performance"]
"""
FEATURES = tuple(f"pixel_{row}_{column}" for row in range(8) for column in range(8))
DIGITS = Signature(
    tuple(Column(name, "double") for name in FEATURES), Task.classification, "digit", tuple(range(10))
)
DATASET = DatasetRef("scans", "3f9c" * 16, 600, (*FEATURES, "digit"), "data/scans.csv", "ab12" * 16)
#: Minutes before "now" at which the story turns.
START, SHIFT, ALERT, TRAIN, GATE, CANARY, HALF, END = 12.0, 7.0, 6.2, 6.0, 5.4, 5.2, 3.6, 2.4
API = "digits-api"


def make_project(folder: Path, config: str = CONFIG) -> Project:
    """Write a project without any history."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "loopwright.toml").write_text(config)
    return Project(folder)


class Clock:
    """The ledger's clock, set by hand."""

    def __init__(self, end: datetime) -> None:
        self.end = end
        self.moment = end

    def __call__(self) -> datetime:
        """Return the time, a millisecond after the last."""
        self.moment += timedelta(milliseconds=1)
        return self.moment

    def to(self, minutes_before: float) -> datetime:
        """Set the clock to so many minutes before the end."""
        self.moment = self.end - timedelta(minutes=minutes_before)
        return self.moment


@contextlib.contextmanager
def turned_back(end: datetime) -> Iterator[Clock]:
    """Let the ledger write events with times of the past."""
    clock = Clock(end)
    vars(store)["now"] = clock
    try:
        yield clock
    finally:
        vars(store)["now"] = now


def seed(
    project: Project, *, state: str = "promoted", rate: float = 20.0, end: datetime | None = None
) -> None:
    """Write the story up to `state`: ``quiet``, ``canary``, ``promoted`` or ``rolled_back``."""
    end = end or datetime.now(UTC)
    ledger = Ledger.open(project, actor="controller")
    with turned_back(end) as clock:
        _tell(ledger, clock, state)
    ledger.close()
    _predict(project, end, state, rate)


def _tell(ledger: Ledger, clock: Clock, state: str) -> None:
    clock.to(START + 1)
    _train(ledger, clock, "1f" * 16, 3, "manual")
    _serve(ledger, (Variant("champion", 3),))
    for name, mode in (("digits-batch", Mode.batch), ("digits-stream", Mode.stream)):
        served = Deployment(name, "digits", mode, (Variant("champion", 3),))
        ledger.put("deployment", name, served, event="deployment.changed")
    ledger.append("alias.set", "digits", {"alias": "champion", "version": 3, "previous": 2})
    done = {"rows": 1797, "new_rows": 1797, "repeated": 0, "seconds": 2.31}
    ledger.append("batch.completed", "digits-batch", done)
    _monitor(ledger, clock, state)
    if state == "quiet":
        return
    alert = _alert(ledger, clock)
    clock.to(TRAIN)
    reason = "accuracy 0.744 is below 0.9 in 2 of 3 windows"
    asked = ledger.append(
        "training.requested", "digits", {"reason": reason, "alert": alert.id}, cause=alert.event
    )
    release = _release(clock.moment, asked.id)
    ledger.put("release", API, release, event="release.started", cause=asked.id)
    _train(ledger, clock, "2e" * 16, 4, "performance alert (r-0007)")
    clock.to(GATE)
    gate = GateResult(True, "accuracy", 0.931, 0.744, -0.187, -0.229, -0.145, 0.02, 400)
    release = dataclasses.replace(
        release, state=ReleaseState.canary, candidate=4, run_id="2e" * 16, gate=gate, changed=clock.moment
    )
    ledger.put("release", API, release, event="release.gate")
    _canary(ledger, clock, release, state)


def _canary(ledger: Ledger, clock: Clock, release: Release, state: str) -> None:
    good = state != "rolled_back"
    for step, minutes in enumerate((CANARY, 4.4, HALF)):
        clock.to(minutes)
        share = (0.05, 0.25, 0.5)[step]
        estimate = -0.17 if good else 0.21
        width = (0.31, 0.16, 0.09)[step]
        verdict = Verdict(
            "continue", "asymptotic confidence sequence", 0.05, 0.03, estimate, estimate - width, estimate + width,
            (880, 700, 450)[step], (44, 231, 455)[step], 3 * step + 2, "the interval still holds the margin",
        )  # fmt: skip
        release = dataclasses.replace(release, step=step, verdict=verdict, changed=clock.moment)
        ledger.put("release", API, release, event="release.step")
        _serve(ledger, (Variant("champion", 3, 1 - share), Variant("candidate", 4, share)), release.id)
        for look in range(3):
            verdict = dataclasses.replace(verdict, looks=verdict.looks + look)
            ledger.append("release.look", API, verdict)
    if state == "canary":
        return
    clock.to(END)
    assert release.verdict is not None
    reason = (
        "the upper bound -0.08 is below the margin 0.03" if good else "the lower bound 0.12 is above 0.03"
    )
    verdict = dataclasses.replace(release.verdict, decision="promote" if good else "rollback", reason=reason)
    ended = ReleaseState.promoted if good else ReleaseState.rolled_back
    release = dataclasses.replace(release, state=ended, verdict=verdict, reason=reason, changed=clock.moment)
    version = 4 if good else 3
    _serve(ledger, (Variant("champion", version),))
    if good:
        ledger.append("alias.set", "digits", {"alias": "champion", "version": 4, "previous": 3})
    ledger.put("release", API, release, event="release.ended")
    record = DecisionRecord(
        release.id, "digits", API, "promoted" if good else "rolled_back", release.trigger, release.trigger_event, 3, 4, release.run_id,
        release.flow_run_id, DATASET.digest, release.gate, verdict, release.started, clock.moment, False, reason,
    )  # fmt: skip
    ledger.append("decision", API, record)
    for state_of in ledger.states("alert") if good else ():
        resolved = dataclasses.replace(state_of.read(Alert), state="resolved")
        ledger.put("alert", resolved.id, resolved)
        facts = dataclasses.asdict(resolved) | {"reason": "version 4 serves now"}
        ledger.append("alert.resolved", "digits", facts)


def _train(ledger: Ledger, clock: Clock, run_id: str, version: int, trigger: str) -> None:
    steps = tuple(
        StepRun(name, "c0de" * 8, "completed", 0.4) for name in ("load", "split", "fit", "evaluate")
    )
    run = PipelineRun(
        "pipelines:train", run_id, "9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d", "running", clock.moment, 0.0,
        {"kind": "svc"}, git_commit="7af521e9" * 5, lock_digest="77" * 32, python="3.11.9", seed=7, trigger=trigger,
    )  # fmt: skip
    ledger.put("pipeline_run", run_id, run)
    ledger.append("pipeline.started", run.pipeline, run)
    clock.moment += timedelta(seconds=8)
    run = dataclasses.replace(run, status="completed", seconds=8.4, steps=steps, datasets=(DATASET,))
    ledger.put("pipeline_run", run_id, run)
    ledger.append("pipeline.completed", run.pipeline, run)
    made = ModelVersion(
        "digits",
        version,
        run_id,
        f"file:///artifacts/{run_id}",
        "d1" * 32,
        DIGITS,
        DATASET,
        600,
        clock.moment,
    )
    ledger.put("model_version", made.ref, made)
    ledger.append("model.registered", "digits", made)
    proof = {"version": version, "runtime": "onnx", "reason": "", "replay_rows": 600}
    proof |= {"max_difference": 2.2e-16, "label_flips": 0, "seconds": 1.2}
    ledger.append("scorer.prepared", "digits", proof)


def _serve(ledger: Ledger, variants: tuple[Variant, ...], release: str = "") -> None:
    deployment = Deployment(API, "digits", Mode.online, variants, "5a17", release)
    known = {event.payload["version"] for event in ledger.events("worker.loaded", API)}
    ledger.put("deployment", API, deployment, event="deployment.changed")
    for version in {variant.version for variant in variants} - known:
        ledger.append("worker.loaded", API, {"worker": "serving-1", "version": version})


def _alert(ledger: Ledger, clock: Clock) -> Alert:
    since = clock.to(ALERT)
    message = (
        "accuracy of digits/3 in digits-api is 0.744 (95 % interval 0.7 to 0.78, 398 labelled rows), "
        "below 0.9 in 2 of the last 3 windows of 20 s"
    )
    alert = Alert(
        f"{API}/3/performance/accuracy",
        "performance",
        "digits",
        API,
        "open",
        since,
        message,
        0.744,
        0.9,
        "accuracy",
    )
    event = ledger.append("alert.opened", "digits", alert)
    alert = dataclasses.replace(alert, event=event.id)
    ledger.put("alert", alert.id, alert)
    drift = "input 'pixel_2_5' of digits/3 in digits-api has drifted: PSI 0.41 against a limit of 0.1 over 400 rows"
    other = Alert(
        f"{API}/3/drift/pixel_2_5", "drift", "digits", API, "open", since, drift, 0.41, 0.1, "pixel_2_5"
    )
    ledger.append("alert.opened", "digits", other)
    ledger.put("alert", other.id, other)
    return alert


def _release(started: datetime, cause: int) -> Release:
    return Release(
        "r-0007", "digits", API, ReleaseState.training, "performance alert", started, started,
        cause, "9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d", champion=3, steps=(5, 25, 50),
    )  # fmt: skip


def _monitor(ledger: Ledger, clock: Clock, state: str) -> None:
    """Write one window of drift and one of performance every 20 s; a new champion is held against its own data."""
    random = np.random.default_rng(3)
    results = Results(ledger)
    drifting = {name: random.uniform(0.15, 0.4) for name in map(str, random.choice(FEATURES, 8, False))}
    drifting["pixel_2_5"] = 0.41
    for number in range(int(START * 3)):
        minutes = START - number / 3
        at = clock.to(minutes)
        window = Window(at - timedelta(seconds=20), at)
        version = 4 if minutes < END and state == "promoted" else 3
        shifted = minutes < SHIFT and state != "quiet" and version == 3
        signals = []
        for name in (*drifting, *FEATURES[:12]):
            effect = drifting.get(name, 0.0) * random.uniform(0.7, 1.2) if shifted else 0.0
            value = round(effect + abs(random.normal(0.02, 0.015)), 4)
            signals.append(
                Signal("drift", "digits", API, window, value, 0.1, 400, value > 0.1, name, version)
            )
        fired = sum(signal.fired for signal in signals)
        results.record(Judged(API, "digits", "inputs", version, window, "judged", 400, fired=fired), signals)
        value = 0.744 if shifted else 0.957 if version == 3 else 0.931
        signal = Signal(
            "performance", "digits", API, window, value, 0.9, 398, value < 0.9, "accuracy", version,
            lower=value - 0.04, upper=value + 0.03,
        )  # fmt: skip
        judged = Judged(API, "digits", "labels", version, window, "judged", 400, 398, 1.0, int(value < 0.9))
        results.record(judged, [signal])


def _predict(project: Project, end: datetime, state: str, rate: float) -> None:
    random = np.random.default_rng(11)
    n = int(START * 60 * rate)
    before_s = np.sort(random.uniform(0.5, START * 60, n))[::-1]
    rhythm = 0.75 + 0.25 * np.sin(before_s / 55)
    keep = random.uniform(size=n) < rhythm
    before_s = before_s[keep]
    n = len(before_s)
    at_us = (int(end.timestamp() * 1e6) - before_s * 1e6).astype(np.int64)
    share = _share(before_s / 60, state)
    candidate = random.uniform(size=n) < share
    version = np.where(candidate, 4, 3).astype(np.int32)
    accuracy = np.where((before_s / 60 < SHIFT) & (state != "quiet"), 0.74, 0.957)
    accuracy = np.where(candidate, 0.93 if state != "rolled_back" else 0.55, accuracy)
    prediction = random.integers(0, 10, n)
    actual = np.where(random.uniform(size=n) < accuracy, prediction, (prediction + 1) % 10)
    spread = 10.0 ** random.normal(0.12, 0.22, n)
    facts: dict[str, Any] = {
        "prediction_id": _ids(project, at_us),
        "at_us": at_us,
        "version": version,
        "variant": ["candidate" if one else "champion" for one in candidate],
        "propensity": np.where(candidate, np.maximum(share, 0.01), np.maximum(1 - share, 0.01)),
        "entity": [f"scanner-{number % 50}" for number in range(n)],
        "latency_ms": spread.astype(np.float32),
        "inputs": {name: random.uniform(0, 16, n) for name in FEATURES},
        "prediction": prediction.astype(np.int64),
        "probability": np.full((n, 10), 0.1),
    }
    log = PredictionLog(project, API, "digits", DIGITS)
    log.append(Predictions(**facts))
    log.close()
    known = before_s > 5
    labels = LabelLog(project)
    ids = facts["prediction_id"]
    labels.append([Label(ids[row], int(actual[row])) for row in np.nonzero(known)[0]])
    labels.close()


def answering(project: Project, end: datetime | None = None) -> Meters:
    """Return the meters of a worker that has answered for minutes, its counts of the service level and its scorers.

    A worker that lives writes them again and again: call `Meters.save` in time.
    """
    end = end or datetime.now(UTC)
    random = np.random.default_rng(17)
    mine = Meters("serving-1")
    meter = mine.of(API)
    champion = meter.variant("champion", 4, "onnx")
    typical = {"decode": 12e-6, "queue": 90e-6, "log": 60e-6, "encode": 9e-6}
    for _ in range(6000):
        for name, seconds in typical.items():
            getattr(meter, name).add(seconds * 10 ** random.normal(0, 0.25))
        champion.score.add(420e-6 * 10 ** random.normal(0, 0.3))
        champion.latency.add(700e-6 * 10 ** random.normal(0, 0.3))
        meter.batch_rows.add(int(random.geometric(0.2)))
    champion.rows += 21_000
    for protocol, status, n in (("predict", 200, 18_240), ("v2", 200, 2730), ("invocations", 200, 96)):
        meter.request(protocol, status, n)
    for protocol, status, n in (("predict", 422, 41), ("v2", 400, 7), ("predict", 503, 12)):
        meter.request(protocol, status, n)
    for _ in range(12):
        meter.refuse("queue_full")
    meter.refuse("too_large")
    meter.queued_rows, meter.queued_bytes = 37, 9800
    mine.save(project)
    _levels(project, end)
    _scorers(project)
    refused = {API: {"5": "its answers to 3 of 200 golden rows differ by up to 0.02, more than 1e-05"}}
    ledger = Ledger.open(project, actor="serving-1")
    ledger.put(
        "worker", "serving-1", {"pid": 1, "generation": 1, "serving": {API: {"4": 1.0}}, "refused": refused}
    )
    ledger.close()
    return mine


def _levels(project: Project, end: datetime) -> None:
    slo = project.deployment(API).slo
    assert slo is not None
    counts = Levels(project, "serving-1")
    meter = counts.of(API, slo)
    for hours, good, slow, failed in ((50, 90_000, 240, 20), (20, 80_000, 300, 14), (0.5, 20_000, 60, 52)):
        for seconds, status, n in ((0.002, 200, good), (0.05, 200, slow), (0.001, 503, failed)):
            for _ in range(n):
                meter.add(seconds, status)
        counts.flush((end - timedelta(hours=hours)).timestamp())
    counts.close()


def _scorers(project: Project) -> None:
    """Write the manifests of both versions, as preparing them would have."""
    layout = Layout("frame", ())
    proven = Manifest(
        "digits",
        4,
        "onnx",
        "",
        "d1" * 32,
        DIGITS,
        layout,
        True,
        replay_rows=1797,
        max_difference=2.2e-16,
        label_flips=0,
        proofs=(
            Proof("onnx", True, "agrees with the model on 1,797 rows", 2.2e-16, 0),
            Proof("native", True, "the model itself"),
        ),
        bands=(Band("onnx", 82), Band("native")),
        timings=tuple(
            Timing(runtime, rows, time)
            for runtime, times in {"onnx": (12, 61, 1480, 24_100), "native": (1270, 1300, 1810, 9900)}.items()
            for rows, time in zip((1, 16, 256, 4096), times, strict=True)
        ),
    )
    native = dataclasses.replace(
        proven,
        version=3,
        runtime="native",
        reason="ONNX changes 2 of 600 labels",
        max_difference=0.02,
        label_flips=2,
        proofs=(),
        bands=(),
        timings=(),
    )
    for manifest in (proven, native):
        folder = project.scorer("digits", manifest.version)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "scorer.json").write_bytes(msgspec.json.encode(manifest))


def _ids(project: Project, at_us: np.ndarray[Any, Any]) -> list[str]:
    ids = Ids.open(project)
    return [ids.new(1, int(moment))[0] for moment in at_us]


def _share(minutes: np.ndarray[Any, Any], state: str) -> np.ndarray[Any, Any]:
    """Return the candidate's share at so many minutes before the end."""
    share = np.zeros(len(minutes))
    if state == "quiet":
        return share
    share[minutes < CANARY] = 0.05
    share[minutes < 4.4] = 0.25
    share[minutes < HALF] = 0.5
    if state != "canary":
        share[minutes < END] = 1.0 if state == "promoted" else 0.0
    return share


if __name__ == "__main__":
    seed(make_project(Path(sys.argv[1])), state=sys.argv[2] if len(sys.argv) > 2 else "promoted")
