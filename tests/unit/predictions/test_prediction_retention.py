"""How long rows are kept, and deleting those of one person."""

import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from prediction_rows import FLOWERS, project_in, rows

from loopwright.config import Project
from loopwright.errors import InvalidInput, NotFound
from loopwright.ledger import Ledger
from loopwright.predictions import (
    Ids,
    LabelLog,
    PredictionLog,
    PredictionStore,
    files,
    maintain,
    retention,
)
from loopwright.predictions.catalogue import Catalogue
from loopwright.predictions.privacy import stored_hash
from loopwright.predictions.retention import expire, forget
from loopwright.records import Label, now

DAY_US = 86_400 * 1_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a new project."""
    project_in(tmp_path)
    return tmp_path


@pytest.fixture
def ledger(folder: Path) -> Iterator[Ledger]:
    """Return the project's ledger."""
    opened = Ledger.open(Project(folder))
    yield opened
    opened.close()


def _project(folder: Path, more: str) -> Project:
    text = (folder / "loopwright.toml").read_text()
    (folder / "loopwright.toml").write_text(f"{text}\n{more}\n")
    return Project(folder)


def _write(
    project: Project, days: int, n: int = 5, deployment: str = "api", shadow: bool = False
) -> list[str]:
    log = PredictionLog(project, deployment, "iris", FLOWERS, shadow=shadow)
    batch = rows(project, n, at_us=int(time.time() * 1e6) - days * DAY_US)
    log.append(batch)
    log.close()
    return batch.prediction_id


def test_whole_segments_go_when_they_are_old(folder: Path, ledger: Ledger) -> None:
    """`[log] keep` deletes what is older, counts it in an event, and leaves what is partly older."""
    project = _project(folder, '[log]\nkeep = "30d"')
    old = _write(project, 40)
    both = PredictionLog(project, "api", "iris", FLOWERS)
    for days in (31, -10):
        both.append(rows(project, 2, at_us=int(time.time() * 1e6) - days * DAY_US))
    both.close()
    _write(project, 40, shadow=True)
    _write(project, 1)
    # Rows of long ago that were written today are as old as that.
    assert expire(project, ledger, now()) == 0
    assert expire(project, ledger, now() + timedelta(days=29)) == 0
    assert expire(project, ledger, now() + timedelta(days=31)) == 3
    maintain(project, ledger)
    assert PredictionStore(project).count() == 4
    assert PredictionStore(project).count(shadows=True) == 0
    assert expire(project, ledger, now() + timedelta(days=41)) == 1
    maintain(project, ledger)
    assert PredictionStore(project).count() == 0
    events = ledger.events("predictions.expired")
    assert [(one.subject, one.payload["log"], one.payload["rows"]) for one in events] == [
        ("api", "predictions", 10),
        ("api", "shadows", 5),
        ("api", "predictions", 4),
    ]
    assert len(Catalogue(ledger).entries("predictions/deployment=api", "expired")) == 3
    with pytest.raises(NotFound, match=r"Predictions made before .* were deleted"):
        PredictionStore(project).find(old[0])


def test_a_deployment_may_say_otherwise(folder: Path, ledger: Ledger) -> None:
    """`[deployment.x.log] keep` goes before `[log] keep`; without either nothing is ever deleted."""
    _write(Project(folder), 40, deployment="quiet")
    _write(Project(folder), 40)
    later = now() + timedelta(days=365)
    assert expire(Project(folder), ledger, later) == 0
    project = _project(folder, 'log = { keep = "2d" }')  # of [deployment.quiet], the last table
    assert expire(project, ledger, later) == 1
    store = PredictionStore(project)
    assert (store.count(deployment="quiet"), store.count(deployment="api")) == (0, 5)


def test_labels_are_kept_as_long_as_any_predictions(folder: Path, ledger: Ledger) -> None:
    """They belong to no deployment: the longest of all spans holds, and forever where one is kept forever."""
    ids = _write(Project(folder), 1, deployment="quiet")
    _write(Project(folder), 1)
    labels = LabelLog(Project(folder))
    labels.append([Label(ids[0], 1)])
    labels.close()
    later = now() + timedelta(days=50)
    project = _project(folder, 'log = { keep = "2d" }')
    assert expire(project, ledger, later) == 1
    assert len(files.labels(project).segments()) == 1
    project = _project(folder, '[log]\nkeep = "60d"')
    assert expire(project, ledger, later) == 0
    assert expire(project, ledger, later + timedelta(days=11)) == 2
    assert files.labels(project).segments() == []


def test_rows_of_one_entity_go_from_everywhere(folder: Path, ledger: Ledger) -> None:
    """Segments, merged ones, shadows and labels; rows of others stay as they were, and no file has the name any more."""
    project = Project(folder)
    ids = [_write(project, 0, 6) for _ in range(4)]
    _write(project, 0, 6, shadow=True)
    labels = LabelLog(project)
    labels.append([Label(one, 1) for batch in ids for one in batch])
    labels.close()
    maintain(project, ledger, few=2, grace_s=0)
    store = PredictionStore(project)
    before = store.table()
    done = forget(project, ledger, entity="flower-3")
    assert (done.predictions, done.shadows, done.labels, done.pending) == (4, 1, 4, 0)
    others = before.filter([one != "flower-3" for one in before.column("entity").to_pylist()])
    assert store.table().equals(others)
    assert store.count(shadows=True) == 5
    assert store.query("select count(*) as n from labels").to_pylist() == [{"n": 20}]
    for path in project.state.rglob("*"):
        if path.is_file() and "ledger" not in path.name:
            assert b"flower-3" not in path.read_bytes(), path
    assert b"flower-3" not in (project.state / "ledger.db").read_bytes()
    (event,) = ledger.events("predictions.forgotten")
    assert (event.payload["what"], event.payload["predictions"], event.payload["labels"]) == ("entity", 4, 4)
    with pytest.raises(NotFound, match="deleted on request"):
        store.find(ids[0][3])
    assert forget(project, ledger, entity="flower-3").predictions == 0
    assert store.table().equals(others)


def test_one_prediction_goes_by_its_id(folder: Path, ledger: Ledger) -> None:
    """With its label; a segment that has no row left stays as an empty one, and its columns with it."""
    project = Project(folder)
    (only,) = _write(project, 0, 1)
    labels = LabelLog(project)
    labels.append([Label(only, 1)])
    labels.close()
    done = forget(project, ledger, prediction_id=only)
    assert (done.predictions, done.labels) == (1, 1)
    store = PredictionStore(project)
    assert store.count() == 0
    assert "input_petal" in store.table().schema.names
    _write(project, 0, 3)
    assert maintain(project, ledger, few=2, grace_s=0).made == 1
    assert store.count() == 3


def test_hashed_entities_and_entities_of_an_input_are_found(folder: Path, ledger: Ledger) -> None:
    """The hash in the log is the one of the name that is asked for, and an input that is the entity is looked at, too."""
    (folder / "loopwright.toml").write_text(
        '[model.iris]\npipeline = "p:t"\ntarget = "species"\n[deployment.api]\nmodel = "iris"\nmode = "online"\n'
        'entity = "colour"\n'
    )
    project = Project(folder)
    log = PredictionLog(project, "api", "iris", FLOWERS)
    hashed = stored_hash(project, "someone")
    log.append(rows(project, 2, entity=[hashed, "nobody"]))
    colours = {"petal": np.zeros(2), "sepal": np.zeros(2), "colour": np.array(["someone", "red"], object)}
    log.append(rows(project, 2, entity=None, inputs=colours))
    log.close()
    assert forget(project, ledger, entity="someone").predictions == 2
    table = PredictionStore(project).table(columns=["input_colour"])
    assert sorted(table.column(0).to_pylist()) == ["blue", "red"]


def test_open_tails_are_sealed_by_their_owner_first(folder: Path, ledger: Ledger) -> None:
    """The process that writes is asked to seal; the request waits for it, and is done when it has."""
    project = Project(folder)
    log = PredictionLog(project, "api", "iris", FLOWERS)
    log.append(rows(project, 5))
    ended = threading.Event()

    def write() -> None:
        while not ended.wait(0.05):
            log.maintain()

    writer = threading.Thread(target=write)
    writer.start()
    done = forget(project, ledger, entity="flower-3", wait_s=10)
    ended.set()
    writer.join()
    assert (done.predictions, done.pending) == (1, 0)
    assert PredictionStore(project).count() == 4
    log.close()


def test_what_is_still_open_is_deleted_later(folder: Path, ledger: Ledger) -> None:
    """A request whose tails do not close in time goes on with the upkeep, also in another process, and then is an event."""
    project = Project(folder)
    log = PredictionLog(project, "api", "iris", FLOWERS)
    log.append(rows(project, 5))
    _write(project, 0, 5)
    done = forget(project, ledger, entity="flower-3", wait_s=0)
    assert (done.predictions, done.pending) == (1, 1)
    assert ledger.events("predictions.forgotten") == []
    (request,) = (project.state / "forget").iterdir()
    assert request.stat().st_mode & 0o077 == 0
    maintain(project, ledger)
    assert PredictionStore(project).count() == 9
    log.maintain()
    assert maintain(project, ledger).problems == []
    assert PredictionStore(project).count() == 8
    (event,) = ledger.events("predictions.forgotten")
    assert event.payload["predictions"] == 2
    assert list((project.state / "forget").iterdir()) == []
    log.close()


def test_what_is_to_be_forgotten_must_be_said(folder: Path, ledger: Ledger) -> None:
    """Neither or both is refused before anything is deleted."""
    project = Project(folder)
    _write(project, 0)
    for entity, one in ((None, None), ("flower-1", "0" * 32)):
        with pytest.raises(InvalidInput, match="not said"):
            forget(project, ledger, entity=entity, prediction_id=one)
    assert PredictionStore(project).count() == 5


def test_an_unknown_id_has_no_story(folder: Path) -> None:
    """What was never there was not deleted."""
    project = Project(folder)
    assert retention.what_became(project, "0" * 32) == ""
    assert retention.what_became(project, Ids.open(project).derive("a", "b")) == ""
