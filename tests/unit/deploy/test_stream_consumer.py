"""A stream consumer with a real model: results, ids, entities, and messages that the model refuses."""

import json
import shutil
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from four_modes import add_version, new_project, serve, wine, wine_version, with_bands
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from loopwright.config import Project
from loopwright.deploy.base import Predictor, publish
from loopwright.deploy.stream import Progress, progress, results, source
from loopwright.deploy.stream.base import open_channel, parse
from loopwright.deploy.stream.consumer import Consumer
from loopwright.deploy.stream.sqlite import SqliteChannel
from loopwright.deploy.stream.worker import Reader
from loopwright.errors import InvalidConfig, InvalidInput, NotFound, Unavailable
from loopwright.ledger import Ledger
from loopwright.predictions import Ids, PredictionStore
from loopwright.records import Deployment, Mode, Variant
from loopwright.scoring.base import Band

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def fussy(rows: Any) -> Any:
    """Refuse rows with a hue above 100, as a model's own code may do."""
    if np.asarray(rows["hue"]).max() > 100:
        raise ValueError("no such hue")
    return rows


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of wine/1 and wine/2, and of wine/3, which refuses some rows."""
    root = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("LOOPWRIGHT_LEDGER", raising=False)
        project = new_project(root)
        wine_version(project)
        wine_version(project, seed_rows=120)
        table = wine()[["hue", "ash", "grower"]]
        model = make_pipeline(FunctionTransformer(fussy), LogisticRegression(max_iter=500))
        add_version(project, model.fit(table[["hue", "ash"]], table["grower"]), table)
    return root


@pytest.fixture
def project(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return a project of its own for each test."""
    monkeypatch.delenv("LOOPWRIGHT_LEDGER", raising=False)
    project = new_project(tmp_path)
    (project.state / "scorers").symlink_to(prepared / ".loopwright" / "scorers")
    return project


class Running:
    """A consumer of the project's stream deployment, with what it needs."""

    def __init__(self, project: Project) -> None:
        self.ledger, self.ids = Ledger.open(project), Ids.open(project)
        self.predictor = Predictor(project, "wine-stream", ledger=self.ledger, ids=self.ids, worker="test")
        self.channel = open_channel(project, "wine-stream")
        self.predictor.refresh()
        self.consumer = Consumer(self.predictor, self.channel, ids=self.ids, ledger=self.ledger)

    def drain(self) -> None:
        """Answer everything that waits."""
        while self.channel.lag():
            self.consumer.step()

    def close(self) -> None:
        """Close everything."""
        self.channel.close()
        self.predictor.close()
        self.ledger.close()


@pytest.fixture
def running(project: Project) -> Iterator[Running]:
    """Return a consumer that serves wine/1."""
    serve(project, "wine-stream", 1)
    running = Running(project)
    yield running
    running.close()


def rows(columns: Sequence[str] | None = None, n: int = 178) -> list[dict[str, Any]]:
    """Return rows of the wine table."""
    table: pd.DataFrame = wine().drop(columns="grower").head(n)
    found: Any = table[list(columns) if columns else list(table)].to_dict("records")
    return list(found)


def send(project: Project, these: list[tuple[str, dict[str, Any]]]) -> None:
    """Publish rows."""
    channel = source(project, "wine-stream")
    channel.publish([(key, msgspec.json.encode(row)) for key, row in these])
    channel.close()


def answers(project: Project) -> list[dict[str, Any]]:
    """Return all results."""
    channel = results(project, "wine-stream", group="test")
    found = [json.loads(message.value) for message in channel.read(1000, 0).messages]
    channel.close()
    return found


def logged(project: Project) -> list[dict[str, Any]]:
    """Return the prediction log."""
    found: list[dict[str, Any]] = PredictionStore(project).query("select * from predictions").to_pylist()
    return found


def test_each_message_gets_a_result_and_a_logged_prediction(project: Project, running: Running) -> None:
    """Key, prediction, probabilities by class, version and id; extra fields do not matter; a key may come twice."""
    these = rows(n=3)
    send(project, [("a", these[0]), ("a", these[1] | {"cellar": 7}), ("", these[2])])
    running.drain()
    found = answers(project)
    assert [one["key"] for one in found] == ["a", "a", ""]
    assert {(one["model"], one["version"], one["variant"]) for one in found} == {("wine", 1, "champion")}
    assert set(found[0]["probability"]) == {"anna", "bruno", "carla"}
    assert sum(found[0]["probability"].values()) == pytest.approx(1)
    log = {row["prediction_id"]: row for row in logged(project)}
    assert len({one["prediction_id"] for one in found}) == 3
    for one in found:
        running.ids.check(one["prediction_id"])
        assert log[one["prediction_id"]]["prediction"] == one["prediction"]
    assert log[found[1]["prediction_id"]]["entity"] == "a"
    assert progress(project, "wine-stream") == Progress("wine-stream", 0, 3, 0)


def test_a_row_the_model_refuses_does_not_hold_up_the_others(project: Project) -> None:
    """It is tried three times alone and put aside with the model's own words; the log has no row twice."""
    serve(project, "wine-stream", 3)
    running = Running(project)
    these = [(str(number), row) for number, row in enumerate(rows(["hue", "ash"], 20))]
    these[4][1]["hue"] = 500.0
    send(project, these)
    running.drain()
    assert [one["key"] for one in answers(project)] == [key for key, _ in these if key != "4"]
    assert len(logged(project)) == 19
    with sqlite3.connect(project.root / "streams.db") as connection:
        assert "no such hue" in connection.execute("SELECT error FROM dead WHERE key = '4'").fetchone()[0]
    connection.close()
    event = running.ledger.last("stream.dead", "wine-stream")
    assert event is not None
    assert event.payload["first"][0]["key"] == "4"
    running.close()


def test_a_commit_that_fails_repeats_nothing_in_the_log(
    project: Project, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that were logged before the channel failed are scored again and not logged again."""
    send(project, [(str(number), row) for number, row in enumerate(rows(n=10))])
    commit = SqliteChannel.commit

    def failing(*_: Any) -> None:
        raise Unavailable("the disk is full")

    monkeypatch.setattr(SqliteChannel, "commit", failing)
    for _ in range(8):
        with pytest.raises(Unavailable):
            running.consumer.step()
    monkeypatch.setattr(SqliteChannel, "commit", commit)
    send(project, [("late", rows(n=1)[0])])
    running.drain()
    assert len(answers(project)) == 11
    assert progress(project, "wine-stream").refused == 0
    assert len({row["prediction_id"] for row in logged(project)}) == len(logged(project)) == 11


def test_two_variants_share_the_entities(project: Project, running: Running) -> None:
    """A declared field decides who gets the candidate, the same one each time, and its id names its version."""
    text = (
        (project.root / "loopwright.toml")
        .read_text()
        .replace('topic=wines"', 'topic=wines"\nentity = "buyer"')
    )
    (project.root / "loopwright.toml").write_text(text)
    running.close()
    project = Project(project.root)
    both = (Variant("champion", 1, 0.5), Variant("candidate", 2, 0.5))
    ledger = Ledger.open(project)
    publish(ledger, Deployment("wine-stream", "wine", Mode.stream, both, salt="x"))
    running = Running(project)
    send(project, [(str(number), row | {"buyer": f"b{number % 9}"}) for number, row in enumerate(rows(n=90))])
    running.drain()
    found = answers(project)
    versions = {number: {one["version"] for one in found[number::9]} for number in range(9)}
    assert {len(one) for one in versions.values()} == {1}
    assert {1, 2} == {one["version"] for one in found}
    assert {row["entity"] for row in logged(project)} == {f"b{number}" for number in range(9)}
    assert [one["key"] for one in found] == [str(number) for number in range(90)]
    running.close()


def test_nothing_is_committed_before_something_is_served(project: Project) -> None:
    """Without a started deployment a step raises and the messages wait."""
    running = Running(project)
    send(project, [("a", rows(n=1)[0])])
    with pytest.raises(Unavailable, match="wine-stream"):
        running.consumer.step()
    assert progress(project, "wine-stream").waiting == 1
    running.close()


def test_wrong_addresses_say_which_channels_there_are(project: Project) -> None:
    """An unknown kind, no topic, and a sink of the same topic are refused; so is a deployment of another mode."""
    with pytest.raises(NotFound, match=r"There is no channel 'kafka'\. Known: sqlite"):
        parse(project, "kafka://broker:9092/hours")
    with pytest.raises(InvalidConfig, match="has no topic"):
        parse(project, "sqlite:///streams.db")
    with pytest.raises(InvalidConfig, match=r"has topik.*Did you mean 'topic'"):
        parse(project, "sqlite:///streams.db?topik=t")
    with pytest.raises(InvalidInput, match="Stream deployments: wine-stream"):
        source(project, "wine-batch")
    text = (project.root / "loopwright.toml").read_text().replace("topic=growers", "topic=wines")
    (project.root / "loopwright.toml").write_text(text)
    with pytest.raises(InvalidConfig, match="to the topic it reads"):
        source(Project(project.root), "wine-stream")


def test_what_answers_large_batches_is_loaded_before_the_first(prepared: Path, project: Project) -> None:
    """A reader loads the runtime for full batches with the version, for each variant by its share of them."""
    (project.state / "scorers").unlink()
    shutil.copytree(prepared / ".loopwright" / "scorers", project.state / "scorers")
    for version in (1, 2):
        folder = project.scorer("wine", version)
        with_bands(
            folder, Band("onnx", 100), Band("native"), native=prepared / "models" / "wine" / str(version)
        )
    ledger, ids = Ledger.open(project), Ids.open(project)
    variants = (Variant("champion", 1, 0.9), Variant("candidate", 2, 0.1))
    publish(ledger, Deployment("wine-stream", "wine", Mode.stream, variants, salt="s"))
    reader = Reader(project, "wine-stream", ledger=ledger, ids=ids, worker="test", stop=threading.Event())
    reader._follow()
    route = reader.predictor.route
    assert route is not None
    assert {version: one.scorer.loaded for version, one in route.loaded.items()} == {
        1: ("onnx", "native"),
        2: ("onnx",),
    }
    reader.predictor.close()
    ledger.close()
