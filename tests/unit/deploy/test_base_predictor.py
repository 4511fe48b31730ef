"""One deployment in one process: loading, refusing, scoring by variant and logging."""

import gc
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from four_modes import add_version, wine, wine_version
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from loopwright import scoring
from loopwright.config import Project
from loopwright.deploy.base import Predictor, current, publish, rollback
from loopwright.errors import Conflict, InvalidInput, NotFound, SchemaMismatch, Unavailable
from loopwright.ledger import Ledger
from loopwright.predictions import Ids, PredictionStore
from loopwright.records import Deployment, Mode, Variant

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
TABLE = wine()
NAMES = list(TABLE.columns[:-1])


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project with five versions: two alike, one with fewer classes, one with another input, one with fewer."""
    root = tmp_path_factory.mktemp("online")
    (root / "loopwright.toml").write_text(
        '[model.wine]\ntarget = "grower"\n[deployment.wine-api]\nmodel = "wine"\nmode = "online"\n'
    )
    project = Project(root)
    wine_version(project)
    wine_version(project, seed_rows=90)
    table = TABLE
    variations = [
        table[table["grower"] != "anna"],
        table.assign(humidity=1.0 + table["hue"]),
        table[["alcohol", "ash", "grower"]],
    ]
    for rows in variations:
        model = make_pipeline(StandardScaler(), LogisticRegression()).fit(
            rows.drop(columns="grower"), rows["grower"]
        )
        add_version(project, model, rows)
    return root


@pytest.fixture
def project(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return a copy of the project, in which nothing was started."""
    monkeypatch.delenv("LOOPWRIGHT_LEDGER", raising=False)
    shutil.copytree(prepared, tmp_path / "project")
    return Project(tmp_path / "project")


@pytest.fixture
def ledger(project: Project) -> Iterator[Ledger]:
    """Return its ledger."""
    opened = Ledger.open(project, actor="test")
    yield opened
    opened.close()


@pytest.fixture
def predictor(project: Project, ledger: Ledger) -> Iterator[Predictor]:
    """Return a predictor that has not looked yet."""
    made = Predictor(project, "wine-api", ledger=ledger, ids=Ids.open(project), worker="serving-1")
    yield made
    made.close()


def serve(ledger: Ledger, **variants: tuple[int, float]) -> Deployment:
    """Publish variants as (version, weight)."""
    made = Deployment(
        "wine-api",
        "wine",
        Mode.online,
        tuple(Variant(name, version, weight) for name, (version, weight) in variants.items()),
        salt="salt",
    )
    publish(ledger, made)
    return made


def columns(rows: int | None = None) -> dict[str, Any]:
    """Return the first rows of the wine table as columns."""
    return {name: TABLE[name].to_numpy()[:rows] for name in NAMES}


def damage(project: Project, version: int) -> None:
    """Change one byte of a prepared scorer."""
    path = project.scorer("wine", version) / "model.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def events(ledger: Ledger, kind: str) -> list[int]:
    """Return the versions of the events of one kind."""
    return [event.payload["version"] for event in ledger.events(kind, "wine-api")]


def test_answers_are_logged_before_they_are_given(
    project: Project, ledger: Ledger, predictor: Predictor
) -> None:
    """What `predict` returns can be read from the log at once, with everything that belongs to it."""
    serve(ledger, champion=(1, 1.0))
    assert predictor.refresh()
    answers = predictor.predict(columns(5), entities=["e", None, "", "f", "g"], request_ids=["r"] * 5)
    table = PredictionStore(project).table(deployment="wine-api")
    assert table["prediction_id"].to_pylist() == answers.prediction_id
    assert table["prediction"].to_pylist() == answers.prediction.tolist()
    assert table["entity"].to_pylist() == ["e", *answers.prediction_id[1:3], "f", "g"]
    assert set(table["propensity"].to_pylist()) == {1.0}
    assert table["input_alcohol"].to_pylist() == columns(5)["alcohol"].tolist()
    assert min(table["latency_ms"].to_pylist()) > 0
    assert answers.classes == ("anna", "bruno", "carla")
    expected = scoring.load(project.scorer("wine", 1)).score(columns(5))
    np.testing.assert_array_equal(answers.probability, expected.probability)


def test_rows_can_be_answered_without_the_log(project: Project, ledger: Ledger, predictor: Predictor) -> None:
    """A comparison leaves no prediction behind."""
    serve(ledger, champion=(1, 1.0))
    predictor.refresh()
    assert len(predictor.predict(columns(3), log=False)) == 3
    assert PredictionStore(project).count(deployment="wine-api") == 0


def test_each_variant_answers_its_own_rows_in_their_order(
    project: Project, ledger: Ledger, predictor: Predictor
) -> None:
    """The rows of one batch are scored by their variants and come back in order."""
    serve(ledger, champion=(1, 0.5), candidate=(2, 0.5))
    predictor.refresh()
    answers = predictor.predict(columns(), entities=[f"user-{row}" for row in range(178)])
    assert set(answers.version.tolist()) == {1, 2}
    assert answers.probability is not None
    for version in (1, 2):
        own = answers.version == version
        expected = scoring.load(project.scorer("wine", version)).score(columns())
        assert expected.probability is not None
        np.testing.assert_allclose(answers.probability[own], expected.probability[own], rtol=1e-12)
        assert answers.prediction[own].tolist() == expected.prediction[own].tolist()
    logged = PredictionStore(project).table(deployment="wine-api")
    found = dict(zip(logged["prediction_id"].to_pylist(), logged["version"].to_pylist(), strict=True))
    assert [found[one] for one in answers.prediction_id] == answers.version.tolist()


def test_rows_of_many_threads_are_never_mixed(project: Project, ledger: Ledger, predictor: Predictor) -> None:
    """Threads that send distinct rows get the answers of their own rows, and each is logged once."""
    serve(ledger, champion=(1, 0.6), candidate=(2, 0.4))
    predictor.refresh()
    expected = {version: scoring.load(project.scorer("wine", version)).score(columns()) for version in (1, 2)}

    def ask(seed: int) -> list[str]:
        rng, ids = np.random.default_rng(seed), []
        for _ in range(25):
            rows = rng.integers(0, 178, rng.integers(1, 6))
            answers = predictor.predict({name: values[rows] for name, values in columns().items()})
            assert answers.probability is not None
            for place, row in enumerate(rows):
                right = expected[int(answers.version[place])].probability
                assert right is not None
                np.testing.assert_allclose(answers.probability[place], right[row], rtol=1e-9)
            ids += answers.prediction_id
        return ids

    with ThreadPoolExecutor(12) as pool:
        given = [one for ids in pool.map(ask, range(12)) for one in ids]
    logged = PredictionStore(project).table(deployment="wine-api", columns=["prediction_id"])
    assert sorted(logged["prediction_id"].to_pylist()) == sorted(given)


def test_a_class_that_one_variant_does_not_know_gets_zero(
    project: Project, ledger: Ledger, predictor: Predictor
) -> None:
    """Variants with different classes answer in one table of classes, and are logged with their own."""
    serve(ledger, champion=(1, 0.5), candidate=(3, 0.5))
    predictor.refresh()
    answers = predictor.predict(columns(60), entities=[f"user-{row}" for row in range(60)])
    assert answers.classes == ("anna", "bruno", "carla")
    assert answers.probability is not None
    candidate = answers.version == 3
    assert candidate.any()
    assert (answers.probability[candidate, 0] == 0).all()
    np.testing.assert_allclose(answers.probability.sum(axis=1), 1.0)
    logged = PredictionStore(project).table(deployment="wine-api")
    lengths = {
        (version, len(shares))
        for version, shares in zip(
            logged["version"].to_pylist(), logged["probability"].to_pylist(), strict=True
        )
    }
    assert lengths == {(1, 3), (3, 2)}


def test_a_damaged_version_never_serves(project: Project, ledger: Ledger, predictor: Predictor) -> None:
    """A version that does not verify is refused once with its reason, and what served before goes on."""
    serve(ledger, champion=(1, 1.0))
    predictor.refresh()
    damage(project, 2)
    serve(ledger, champion=(1, 0.5), candidate=(2, 0.5))
    assert not predictor.refresh()
    assert not predictor.refresh()
    assert set(predictor.predict(columns()).version.tolist()) == {1}
    assert predictor.deployment.variants == (Variant("champion", 1, 1.0),)
    assert events(ledger, "worker.refused") == [2]
    assert "is not what was prepared" in ledger.events("worker.refused")[0].payload["reason"]
    assert events(ledger, "worker.loaded") == [1]


def test_after_a_restart_a_sound_champion_serves_alone(
    project: Project, ledger: Ledger, predictor: Predictor
) -> None:
    """A new process whose candidate cannot be loaded gives everything to the champion, and says so in the log."""
    damage(project, 2)
    serve(ledger, champion=(1, 0.5), candidate=(2, 0.5))
    assert predictor.refresh()
    answers = predictor.predict(columns())
    assert set(answers.version.tolist()) == {1}
    assert set(answers.propensity.tolist()) == {1.0}


def test_a_candidate_never_serves_alone(project: Project, ledger: Ledger, predictor: Predictor) -> None:
    """When the champion cannot be loaded, the candidate does not inherit its share."""
    damage(project, 1)
    serve(ledger, champion=(1, 0.5), candidate=(2, 0.5))
    assert not predictor.refresh()
    with pytest.raises(Unavailable, match=r"version 1: .* is not what was prepared"):
        predictor.predict(columns(1))


def test_a_repaired_version_is_tried_again(project: Project, ledger: Ledger, predictor: Predictor) -> None:
    """What was refused is loaded later, when it has become sound, without a new deployment."""
    sound = (project.scorer("wine", 1) / "model.onnx").read_bytes()
    damage(project, 1)
    serve(ledger, champion=(1, 1.0))
    assert not predictor.refresh()
    (project.scorer("wine", 1) / "model.onnx").write_bytes(sound)
    waits = predictor.due
    predictor._retry_at = 0.0  # the wait is over
    assert (waits, predictor.due, predictor.refresh()) == (False, True, True)
    assert predictor.refused == {}
    assert len(predictor.predict(columns(2))) == 2


@pytest.mark.parametrize(("version", "refused"), [(4, True), (5, False)])
def test_a_candidate_must_take_the_champions_rows(
    project: Project, ledger: Ledger, predictor: Predictor, version: int, refused: bool
) -> None:
    """A candidate that needs an input more is refused; one that needs fewer serves beside the champion."""
    serve(ledger, champion=(1, 0.5), candidate=(version, 0.5))
    assert predictor.refresh()
    assert bool(predictor.refused) is refused
    answers = predictor.predict(columns())
    assert set(answers.version.tolist()) == ({1} if refused else {1, version})
    assert PredictionStore(project).count(deployment="wine-api") == 178


def test_what_is_under_way_keeps_its_version(project: Project, ledger: Ledger, predictor: Predictor) -> None:
    """Rows checked against an earlier route are answered by it, and its scorer is closed only after that."""
    serve(ledger, champion=(1, 1.0))
    predictor.refresh()
    route = predictor.route
    assert route is not None
    old = predictor.scorer
    serve(ledger, champion=(2, 1.0))
    assert predictor.refresh()
    assert set(predictor.predict(columns(3)).version.tolist()) == {2}
    assert set(predictor.predict(columns(3), route=route).version.tolist()) == {1}
    del route
    gc.collect()
    with pytest.raises(InvalidInput, match="closed"):
        old.score(columns(1))


def test_a_version_that_stays_is_not_loaded_again(ledger: Ledger, predictor: Predictor) -> None:
    """When only weights change, the scorers stay."""
    serve(ledger, champion=(1, 0.99), candidate=(2, 0.01))
    predictor.refresh()
    scorer = predictor.scorer
    serve(ledger, champion=(1, 0.5), candidate=(2, 0.5))
    assert predictor.refresh()
    assert predictor.scorer is scorer
    assert events(ledger, "worker.loaded") == [1, 2]


def test_an_unprepared_version_is_prepared_in_another_process(
    project: Project, ledger: Ledger, predictor: Predictor
) -> None:
    """Without a prepared folder a quick refresh leaves the version for later, and a full one prepares it."""
    shutil.rmtree(project.scorer("wine", 1))
    serve(ledger, champion=(1, 1.0))
    assert not predictor.refresh(prepare=False)
    with pytest.raises(Unavailable, match="still being loaded"):
        predictor.predict(columns(1))
    assert predictor.due
    assert predictor.refresh()
    assert len(predictor.predict(columns(2))) == 2


def test_a_version_that_cannot_be_prepared_is_refused(ledger: Ledger, predictor: Predictor) -> None:
    """The reason of the other process reaches the ledger and the caller."""
    serve(ledger, champion=(77, 1.0))
    assert not predictor.refresh()
    with pytest.raises(Unavailable, match="wine/77 could not be prepared"):
        predictor.predict(columns(1))
    assert events(ledger, "worker.refused") == [77]


def test_what_was_never_started_says_how(predictor: Predictor) -> None:
    """A deployment without a published state names the command that starts it."""
    assert not predictor.refresh()
    with pytest.raises(Unavailable, match="has not been started") as caught:
        predictor.predict(columns(1))
    assert caught.value.hint == "loopwright deployment start wine-api"


def test_rows_that_do_not_fit_are_not_logged(project: Project, ledger: Ledger, predictor: Predictor) -> None:
    """A missing column is named, and nothing of the call is kept."""
    serve(ledger, champion=(1, 1.0))
    predictor.refresh()
    with pytest.raises(SchemaMismatch, match="'alcohol' is missing"):
        predictor.predict({name: values for name, values in columns(2).items() if name != "alcohol"})
    assert PredictionStore(project).count(deployment="wine-api") == 0


def test_a_full_disk_acknowledges_nothing(project: Project, ledger: Ledger, predictor: Predictor) -> None:
    """When the log cannot be written there is no answer."""
    serve(ledger, champion=(1, 1.0))
    predictor.refresh()
    project.predictions.mkdir(parents=True, exist_ok=True)
    (project.predictions / "deployment=wine-api").write_text("in the way")
    with pytest.raises(Unavailable):
        predictor.predict(columns(1))


@pytest.mark.parametrize(
    "variants",
    [
        (Variant("champion", 1, 0.5),),
        (Variant("champion", 1, 0.5), Variant("champion", 2, 0.5)),
        (Variant("champion", 1, 1.5), Variant("candidate", 2, -0.5)),
        (),
    ],
)
def test_impossible_variants_are_not_published(ledger: Ledger, variants: tuple[Variant, ...]) -> None:
    """Weights sum to 1 and names are unique, or nothing changes."""
    with pytest.raises(InvalidInput, match="wine-api"):
        publish(ledger, Deployment("wine-api", "wine", Mode.online, variants))
    with pytest.raises(NotFound, match="no started deployment 'wine-api'"):
        current(ledger, "wine-api")


def test_publishing_notes_the_change(ledger: Ledger) -> None:
    """The state and the event that led to it are written together; a stale writer is told."""
    cause = ledger.append("decision", "wine-api")
    made = Deployment("wine-api", "wine", Mode.online, (Variant("champion", 1),))
    revision = publish(ledger, made, cause=cause.id, expect=0)
    assert current(ledger, "wine-api") == made
    event = ledger.last("deployment.changed", "wine-api")
    assert event is not None
    assert event.cause == cause.id
    assert event.read(Deployment) == made
    with pytest.raises(Conflict, match=f"at revision {revision}"):
        publish(ledger, made, expect=0)


def test_rollback_serves_the_version_before(
    project: Project, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Going back works at once, also while MLflow is down, where only the alias has to wait."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    serve(ledger, champion=(1, 1.0))
    with pytest.raises(Conflict, match="has served no version but 1"):
        rollback(project, "wine-api")
    serve(ledger, champion=(1, 0.5), candidate=(2, 0.5))
    serve(ledger, champion=(2, 1.0))
    with pytest.raises(Unavailable, match="serves wine/1 now, but the alias"):
        rollback(project, "wine-api")
    assert current(ledger, "wine-api").variants == (Variant("champion", 1, 1.0),)
    serve(ledger, champion=(1, 0.5), candidate=(2, 0.5))
    with pytest.raises(Unavailable, match="serves wine/1 now"):
        rollback(project, "wine-api")
    assert current(ledger, "wine-api").variants == (Variant("champion", 1, 1.0),)


def test_rollback_needs_a_started_deployment(project: Project) -> None:
    """What was never declared or never started is named."""
    with pytest.raises(NotFound, match="Did you mean 'wine-api'"):
        rollback(project, "wine-ap")
    with pytest.raises(NotFound, match="no started deployment"):
        rollback(project, "wine-api")
