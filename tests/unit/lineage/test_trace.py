"""The trace of a real prediction: every link is checked, and exactly the one that was tampered with says so."""

import contextlib
import dataclasses
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from four_modes import wine, wine_version
from git_repository import commit_all

from loopwright.config import Project
from loopwright.deploy.base import Predictor, publish
from loopwright.errors import NotFound
from loopwright.ledger import Ledger
from loopwright.lineage import Recorder, Trace, capture, code_digest, dataset, recorder, trace
from loopwright.lineage.environment import keep, stored
from loopwright.lineage.snapshots import path_of
from loopwright.predictions import Ids
from loopwright.records import Deployment, Mode, ModelVersion, PipelineRun, StepRun, Variant, now

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
API = "wine-api"
TOML = f'[model.wine]\ntarget = "grower"\n[deployment.{API}]\nmodel = "wine"\nmode = "online"\n'
CODE = """def read():
    return 1  # a comment


def fit(table):
    return table
"""
KINDS = [
    "prediction", "deployment", "model version", "run", "git commit", "uncommitted changes", "packages",
    "step", "step", "dataset snapshot", "source file",
]  # fmt: skip


class World:
    """A project in git with one version that a run has trained, serving, and one prediction of it."""

    def __init__(self, root: Path) -> None:
        (root / "loopwright.toml").write_text(TOML)
        (root / "train.py").write_text(CODE)
        (root / ".gitignore").write_text("models/\n*.csv\n")
        self.project = Project(root)
        self.source = root / "wine.csv"
        wine().to_csv(self.source, index=False)
        commit_all(root)
        (root / "notes.py").write_text("uncommitted = True\n")
        self.ledger = Ledger.open(self.project, actor="test")
        self.run = self._run()
        self.version = dataclasses.replace(wine_version(self.project), training=self.run.datasets[0])
        self.put(self.version, self.run)
        publish(self.ledger, Deployment(API, "wine", Mode.online, (Variant("champion", 1, 1.0),), "salt"))
        self.prediction_id = self._predict()

    def _run(self) -> PipelineRun:
        running = Recorder("train:main")
        token = recorder.set(running)
        dataset("wine", "wine.csv", project=self.project)
        recorder.reset(token)
        environment = capture(self.project)
        keep(self.project, environment)
        read, fit = _functions(self.project.root / "train.py")
        return PipelineRun(
            "train:main", "run-1", "flow", "completed", now(),
            # A step may be given another name than its function has.
            steps=(StepRun("read", read, "completed", 0.1), StepRun("fit the model", fit, "completed", 0.2)),
            datasets=tuple(running.datasets),
            git_commit=environment.git_commit,
            git_dirty=environment.git_dirty,
            diff_digest=environment.diff_digest,
            lock_digest=environment.lock_digest,
            python=environment.python,
        )  # fmt: skip

    def _predict(self) -> str:
        predictor = Predictor(
            self.project, API, ledger=self.ledger, ids=Ids.open(self.project), worker="serving-1"
        )
        predictor.refresh()
        columns = {name: values.to_numpy()[:1] for name, values in wine().items() if name != "grower"}
        answers = predictor.predict({str(name): values for name, values in columns.items()})
        predictor.close()
        return answers.prediction_id[0]

    def put(self, version: ModelVersion, run: PipelineRun | None = None) -> None:
        """Write down what is known of the version and of its run."""
        self.ledger.put("model_version", version.ref, version)
        if run:
            self.ledger.put("pipeline_run", run.run_id, run)

    @contextlib.contextmanager
    def recorded(self, version: dict[str, Any], run: dict[str, Any]) -> Iterator[Trace]:
        """Trace with other records of the version and the run, and put the right ones back."""
        self.put(dataclasses.replace(self.version, **version), dataclasses.replace(self.run, **run))
        try:
            yield self.trace()
        finally:
            self.put(self.version, self.run)

    def trace(self) -> Trace:
        """Trace the prediction."""
        return trace(self.project, self.prediction_id)

    def files(self, kind: str) -> Path:
        """Return a file that the link of a kind is checked against."""
        digests = {"uncommitted changes": self.run.diff_digest, "packages": self.run.lock_digest}
        places = {
            "model version": Path(self.version.uri) / "model.pkl",
            "dataset snapshot": path_of(self.project, self.run.datasets[0].digest),
            "source file": self.source,
            "uncommitted changes": stored(self.project, digests["uncommitted changes"], "diff"),
            "packages": stored(self.project, digests["packages"], "lock"),
        }
        return places[kind]


def _functions(path: Path) -> tuple[str, str]:
    """Import a module from its file, as a run does, and return the digests of its two steps."""
    spec = importlib.util.spec_from_file_location("wine_train", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return code_digest(module.read), code_digest(module.fit)


@contextlib.contextmanager
def tampered(path: Path, content: bytes | None) -> Iterator[None]:
    """Give a file another content, or take it away, and put it back after."""
    data = path.read_bytes()
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(data)


def flipped(path: Path) -> bytes:
    """Return a file's content with one bit of its middle changed."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    return bytes(data)


def doubtful(found: Trace) -> dict[str, bool | None]:
    """Return the links that do not hold, by kind."""
    return {link.kind: link.ok for link in found.links if link.ok is not True}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Return the project; each test leaves it as it was."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("LOOPWRIGHT_LEDGER", raising=False)
        made = World(tmp_path_factory.mktemp("trace"))
        yield made
        made.ledger.close()


def test_an_untouched_project_holds(world: World) -> None:
    """From the prediction to the source file every link is there, in order, and its hash was computed again."""
    found = world.trace()
    assert doubtful(found) == {}
    assert found.holds
    assert [link.kind for link in found.links] == KINDS
    hashes = {link.kind: link.hash for link in found.links}
    assert hashes["prediction"] == found.prediction_id == world.prediction_id
    assert hashes["model version"] == world.version.digest
    assert hashes["git commit"] == world.run.git_commit
    assert hashes["dataset snapshot"] == world.run.datasets[0].digest
    assert hashes["source file"] == world.run.datasets[0].source_digest


@pytest.mark.parametrize("kind", ["model version", "dataset snapshot", "uncommitted changes", "packages"])
@pytest.mark.parametrize("gone", [False, True], ids=["changed", "gone"])
def test_what_was_tampered_with_is_broken_and_nothing_else(world: World, kind: str, gone: bool) -> None:
    """One changed bit, or a missing file, breaks its own link and leaves all others as they were."""
    path = world.files(kind)
    with tampered(path, None if gone else flipped(path)):
        found = world.trace()
    assert doubtful(found) == {kind: False}
    assert not found.holds
    assert world.trace().holds


def test_a_truncated_snapshot_is_broken(world: World) -> None:
    """A snapshot that cannot even be opened breaks its link instead of the trace."""
    path = world.files("dataset snapshot")
    with tampered(path, path.read_bytes()[:100]):
        assert doubtful(world.trace()) == {"dataset snapshot": False}


def test_a_file_added_to_the_model_is_noticed(world: World) -> None:
    """Not only the files that were there count."""
    extra = Path(world.version.uri) / "sitecustomize.py"
    extra.write_text("import os\n")
    assert doubtful(world.trace()) == {"model version": False}
    extra.unlink()
    assert world.trace().holds


@pytest.mark.parametrize(("gone", "text"), [(False, "changed since it was read"), (True, "gone")])
def test_a_source_file_that_moved_on_does_not_hold(world: World, gone: bool, text: str) -> None:
    """Its link says what happened; the snapshot still holds, so nothing else is in doubt."""
    with tampered(world.source, None if gone else flipped(world.source)):
        found = world.trace()
    assert doubtful(found) == {"source file": None}
    assert not found.holds
    assert found.links[-1].detail.startswith(text)


def test_a_commit_that_was_lost_is_broken(world: World) -> None:
    """A commit that the repository does not have breaks its link; the steps cannot be checked then."""
    with world.recorded({}, {"git_commit": "c" * 40}) as found:
        assert doubtful(found) == {"git commit": False, "step": None}


def test_other_code_under_a_steps_name_is_broken(world: World) -> None:
    """A step's code is compared with its commit; where it may be in the uncommitted diff, that is said."""
    steps = (StepRun("read", "e" * 64, "completed", 0.1), StepRun("elsewhere", "e" * 64, "completed", 0.1))
    with world.recorded({}, {"steps": steps, "diff_digest": ""}) as found:
        assert [link.ok for link in found.links if link.kind == "step"] == [False, None]
        assert set(doubtful(found)) == {"step"}
    with world.recorded({}, {"steps": steps}) as found:
        assert [link.ok for link in found.links if link.kind == "step"] == [None, None]


def test_a_commit_with_broken_code_can_be_traced(world: World) -> None:
    """A module that was committed with a syntax error leaves its steps unknown."""
    path = world.project.root / "train.py"
    with tampered(path, b"def read(:\n"):
        broken = commit_all(world.project.root)
    commit_all(world.project.root)
    with world.recorded({}, {"git_commit": broken, "diff_digest": ""}) as found:
        assert doubtful(found) == {"step": None}


def test_a_run_without_environment_or_datasets_is_unknown(world: World) -> None:
    """What was never recorded is unknown, not broken, and the training data is checked all the same."""
    facts = {"git_commit": "", "diff_digest": "", "lock_digest": "", "steps": (), "datasets": ()}
    with world.recorded({}, facts) as found:
        assert doubtful(found) == {"git commit": None, "packages": None}
        assert (found.links[-1].kind, found.links[-1].ok) == ("training data", True)
    path = world.files("dataset snapshot")
    with tampered(path, flipped(path)), world.recorded({}, facts) as found:
        assert doubtful(found) == {"git commit": None, "packages": None, "training data": False}


def test_a_version_from_no_pipeline_ends_at_its_training_data(world: World) -> None:
    """A version trained by hand has its files and its data checked, and says that there is no run."""
    with world.recorded({"run_id": "by-hand"}, {}) as found:
        assert [link.kind for link in found.links][-2:] == ["run", "training data"]
        assert doubtful(found) == {"run": None}


def test_a_failed_run_and_a_remote_model_are_told_apart(world: World) -> None:
    """A run that did not complete is broken; files that lie elsewhere are unknown."""
    with world.recorded({"uri": "s3://bucket/model"}, {"status": "failed"}) as found:
        assert doubtful(found) == {"model version": None, "run": False}


def test_an_id_of_another_project_is_refused(world: World) -> None:
    """An id with one digit changed is found out by its checksum before anything is read."""
    last = "0" if world.prediction_id[-1] != "0" else "1"
    with pytest.raises(NotFound):
        trace(world.project, world.prediction_id[:-1] + last)
    never_given = Ids.open(world.project).new(1, 1_700_000_000_000_000)[0]
    with pytest.raises(NotFound):
        trace(world.project, never_given)
