"""What a release does at each turn of the controller, on a real model, a real log and a real ledger."""

import dataclasses
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from four_modes import add_version, wine, wine_version
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from loopwright.config import Project
from loopwright.deploy.base import Predictor, current, publish, shadow, stop_shadow
from loopwright.errors import Conflict, NotFound
from loopwright.ledger import Ledger
from loopwright.predictions import Ids, LabelLog, PredictionStore
from loopwright.records import (
    DecisionRecord,
    Deployment,
    GateResult,
    Label,
    Mode,
    Release,
    ReleaseState,
    Variant,
    now,
)
from loopwright.release import request
from loopwright.release.stages import Stages

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
API = "wine-api"
TOML = """
[model.wine]
target = "grower"

[deployment.wine-api]
model = "wine"
mode = "online"
release = { steps = [20, 50], step_rows = 15, margin = 0.1 }

[monitor.wine]
window = "1h"
"""
TABLE = wine()
GOOD, BAD, TWIN = 1, 2, 3


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project with a good version, one that was trained on shuffled labels, and one like the first."""
    root = tmp_path_factory.mktemp("release")
    (root / "loopwright.toml").write_text(TOML)
    project = Project(root)
    wine_version(project)
    shuffled = TABLE.assign(grower=np.random.default_rng(0).permutation(TABLE["grower"]))
    model = make_pipeline(StandardScaler(), LogisticRegression())
    add_version(project, model.fit(shuffled.drop(columns="grower"), shuffled["grower"]), shuffled)
    wine_version(project)
    return root


class World:
    """A deployment that serves version 1, and a release of a candidate that has passed its gate."""

    def __init__(self, root: Path) -> None:
        self.project = Project(root)
        self.ledger = Ledger.open(self.project, actor="test")
        self.stages = Stages(self.project, self.ledger, PredictionStore(self.project))
        self.predictor = Predictor(
            self.project, API, ledger=self.ledger, ids=Ids.open(self.project), worker="serving-1"
        )
        self.labels = LabelLog(self.project)
        publish(self.ledger, Deployment(API, "wine", Mode.online, (Variant("champion", GOOD, 1.0),), "salt"))

    def begin(self, candidate: int, *, passed: bool = True, forced: bool = False) -> None:
        """Start a release whose candidate has been judged."""
        reasons = () if passed else ("too bad by 0.3",)
        gate = GateResult(passed, "accuracy", 0.9, 0.9, 0.0, -0.01, 0.01, 0.02, 100, reasons)
        started = now()
        release = Release(
            f"r{candidate}", "wine", API, ReleaseState.evaluating, "test", started, started,
            champion=GOOD, candidate=candidate, steps=(20, 50), gate=gate, forced=forced,
        )  # fmt: skip
        self.ledger.put("release", API, release, event="release.started")

    @property
    def release(self) -> Release:
        """The release as it is now."""
        state = self.ledger.get("release", API)
        assert state is not None
        return state.read(Release)

    @property
    def shares(self) -> dict[int, float]:
        """What each version that serves has of the rows."""
        return {one.version: one.weight for one in current(self.ledger, API).variants}

    def turn(self) -> None:
        """Let the controller take its next step at once."""
        state = self.ledger.get("release", API)
        assert state is not None
        self.stages._asked.clear()
        self.stages.advance(state)

    def traffic(self, rows: int) -> None:
        """Answer rows of as many people, and say later what they were."""
        self.predictor.refresh()
        sample = TABLE.sample(rows, replace=True, random_state=rows)
        columns = {name: sample[name].to_numpy() for name in TABLE.columns[:-1]}
        answers = self.predictor.predict(columns, entities=[f"{rows}-{n}" for n in range(rows)])
        pairs = zip(answers.prediction_id, sample["grower"], strict=True)
        self.labels.append([Label(one, str(actual), now()) for one, actual in pairs])

    def decisions(self) -> list[DecisionRecord]:
        """Return the decision records, oldest first."""
        return [event.read(DecisionRecord) for event in self.ledger.events("decision", API)]

    def close(self) -> None:
        """Close all files."""
        self.predictor.close()
        self.labels.close()
        self.ledger.close()


@pytest.fixture
def world(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Return a fresh copy of the project, at work."""
    monkeypatch.delenv("LOOPWRIGHT_LEDGER", raising=False)
    shutil.copytree(prepared, tmp_path / "project")
    made = World(tmp_path / "project")
    yield made
    made.close()


def test_a_candidate_that_fails_the_gate_is_rejected_and_serves_nobody(world: World) -> None:
    """The reasons of the gate are in the one decision record."""
    world.begin(BAD, passed=False)
    world.turn()
    assert world.release.state is ReleaseState.rejected
    assert world.shares == {GOOD: 1.0}
    assert [(record.decision, record.reason) for record in world.decisions()] == [
        ("rejected", "too bad by 0.3")
    ]


def test_a_broken_candidate_forced_past_the_gate_is_rolled_back(world: World) -> None:
    """The statistics see it within the rows of the first steps; the champion has all rows again."""
    world.begin(BAD, passed=False, forced=True)
    world.turn()
    assert world.shares == {GOOD: pytest.approx(0.8), BAD: pytest.approx(0.2)}
    for rows in range(201, 206):
        world.traffic(rows)
        world.turn()
    assert world.release.state is ReleaseState.rolled_back
    assert world.shares == {GOOD: 1.0}
    (record,) = world.decisions()
    assert record.verdict is not None
    assert record.verdict.lower > 0
    assert record.forced


def test_a_shadow_that_a_person_set_stays_through_a_release(world: World) -> None:
    """Set before a release or while it is under way, it is neither dropped nor taken for a change of what serves."""
    shadow(world.project, API, TWIN)
    beside = Variant("shadow", TWIN, 0.0, shadow=True)
    world.begin(BAD, passed=False, forced=True)
    world.turn()
    assert current(world.ledger, API).variants[2:] == (beside,)
    stop_shadow(world.project, API)
    shadow(world.project, API, TWIN)
    assert current(world.ledger, API).release == world.release.id
    for rows in range(201, 206):
        world.traffic(rows)
        world.turn()
    assert world.release.state is ReleaseState.rolled_back
    (record,) = world.decisions()
    assert record.verdict is not None
    assert "by hand" not in record.reason
    assert current(world.ledger, API).variants == (Variant("champion", GOOD), beside)


def test_an_equal_candidate_takes_the_next_step_when_it_has_answered_enough(world: World) -> None:
    """Undecided after the rows of the first step means a larger share, not a verdict."""
    world.begin(TWIN)
    world.turn()
    world.traffic(60)
    world.turn()
    assert world.shares[TWIN] == pytest.approx(0.2), "fewer than 15 labelled rows"
    world.traffic(61)
    world.turn()
    assert world.release.step == 1
    assert world.shares[TWIN] == pytest.approx(0.5)


def test_a_promotion_waits_while_mlflow_is_down(world: World) -> None:
    """Without MLflow the alias cannot move: the candidate keeps its share, and nothing has ended."""
    world.begin(TWIN)
    world.turn()
    for rows in range(401, 406):
        world.traffic(rows)
        world.turn()
    look = world.ledger.last("release.look", API)
    assert look is not None
    assert look.payload["decision"] == "promote"
    assert world.release.state is ReleaseState.canary
    assert set(world.shares) == {GOOD, TWIN}


def test_a_rollback_by_hand_ends_the_release(world: World) -> None:
    """What a person puts into service stays, and the record says that it was by hand."""
    world.begin(TWIN)
    world.turn()
    publish(world.ledger, Deployment(API, "wine", Mode.online, (Variant("champion", GOOD, 1.0),), "by hand"))
    world.turn()
    assert world.release.state is ReleaseState.rolled_back
    assert world.shares == {GOOD: 1.0}
    assert "changed by hand: it serves champion wine/1" in world.decisions()[0].reason


def test_another_version_started_by_hand_before_the_canary_stays(world: World) -> None:
    """The release does not put back a champion that has been replaced meanwhile."""
    world.begin(TWIN)
    publish(world.ledger, Deployment(API, "wine", Mode.online, (Variant("champion", BAD, 1.0),), "by hand"))
    world.turn()
    assert world.release.state is ReleaseState.rolled_back
    assert world.shares == {BAD: 1.0}


def test_a_candidate_whose_files_are_damaged_is_taken_back(world: World) -> None:
    """A worker that cannot serve it says so, and the release ends with that reason."""
    (world.project.scorer("wine", TWIN) / "golden.arrow").write_bytes(b"torn")
    world.begin(TWIN)
    world.turn()
    world.traffic(10)
    world.turn()
    assert world.release.state is ReleaseState.rolled_back
    assert "no worker can serve the candidate" in world.release.reason
    assert world.shares == {GOOD: 1.0}


def test_a_cause_that_passes_does_not_end_a_release(world: World) -> None:
    """A worker that waits for MLflow has not refused for good."""
    world.begin(TWIN)
    world.turn()
    facts = {
        "version": TWIN,
        "worker": "serving-1",
        "reason": "MLflow does not answer",
        "code": "unavailable",
    }
    world.ledger.append("worker.refused", API, facts)
    world.turn()
    assert world.release.state is ReleaseState.canary


def test_no_evidence_in_time_is_no_success(world: World) -> None:
    """A canary that is older than `max_age` is taken back."""
    world.begin(TWIN)
    world.turn()
    state = world.ledger.get("release", API)
    assert state is not None
    old = dataclasses.replace(state.read(Release), started=now() - timedelta(days=8))
    world.ledger.put("release", API, old, expect=state.revision)
    world.turn()
    assert world.release.state is ReleaseState.rolled_back
    assert "no evidence is not success" in world.release.reason


def test_a_decision_that_a_kill_prevented_is_written_by_the_next_turn(world: World) -> None:
    """There is exactly one record for each release."""
    world.begin(TWIN)
    state = world.ledger.get("release", API)
    assert state is not None
    ended = dataclasses.replace(state.read(Release), state=ReleaseState.rolled_back, reason="killed here")
    world.ledger.put("release", API, ended, expect=state.revision, event="release.ended")
    for _ in range(3):
        world.turn()
    assert [record.reason for record in world.decisions()] == ["killed here"]


def test_wrong_requests_say_what_is_right(world: World) -> None:
    """A release needs a deployment that exists and is free, and leaves a running one alone."""
    with pytest.raises(NotFound, match=r"wine-ap.*wine-api"):
        request(world.project, "wine-ap", reason="test")
    world.begin(TWIN)
    with pytest.raises(Conflict, match="under way: it is evaluating"):
        request(world.project, API, reason="test")
    assert world.release.id == "r3"
