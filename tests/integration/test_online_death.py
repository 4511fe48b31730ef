"""Serving workers that are killed, and logs that are cut: what was acknowledged is there, and nothing that is not whole."""

import random
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from serving_worker import TOML, Load, Worker, copy_of, listening, logged, three_versions, workers

from loopwright.config import Project
from loopwright.predictions import Layout, PredictionStore, seal_orphans

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
THREADS = 6
KILLS = 10
CUTS = 50


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project with three versions, prepared."""
    return three_versions(tmp_path_factory)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Return a listening socket on a free port."""
    with listening() as made:
        yield made


@pytest.fixture
def start(listener: socket.socket) -> Iterator[Callable[..., Worker]]:
    """Return a function that starts a worker; what still runs at the end is killed."""
    with workers(listener) as begin:
        yield begin


@pytest.mark.parametrize(("durability", "kills"), [("process", KILLS), ("power", 1)])
def test_what_was_acknowledged_is_logged_however_often_a_worker_is_killed(
    prepared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    start: Callable[..., Worker],
    durability: str,
    kills: int,
) -> None:
    """After kill -9 under load, again and again, the log has every acknowledged prediction, once.

    It may have one more for each request that was cut off: logged, and killed before its answer was out.
    """
    monkeypatch.delenv("LOOPWRIGHT_LEDGER", raising=False)
    project = copy_of(prepared, tmp_path, TOML.format(durability=durability))
    worker = start(project)
    load = Load(worker.port, THREADS)
    for _ in range(kills):
        load.more(150)
        worker.kill()
        worker = start(project)
    load.more(150, "traffic after the last restart")
    load.stop()
    acknowledged = {one["prediction_id"]: one for one in load.answers}
    found = logged(project)
    assert len(found) == len(set(found))
    assert len(acknowledged) == len(load.answers)
    assert acknowledged.keys() <= set(found)
    extra = set(found) - acknowledged.keys()
    assert len(extra) <= len(load.failures) <= 2 * THREADS * kills
    table = PredictionStore(project).table(
        deployment="wine-api", columns=["prediction_id", "prediction", "version", "probability"]
    )
    for row in table.to_pylist():
        answer = acknowledged.get(row["prediction_id"])
        if answer is not None:
            assert (row["prediction"], row["version"]) == (answer["prediction"], answer["version"])
            assert row["probability"] == pytest.approx(list(answer["probability"].values()), abs=1e-12)
    assert worker.stop() == 0
    # The last worker has sealed what the others left, or will: nothing is lost and nothing doubled by it.
    seal_orphans(project)
    assert sorted(logged(project)) == sorted(found)
    assert not list((project.predictions / "deployment=wine-api" / "open").iterdir())


def whole_batches(path: Path) -> list[tuple[int, list[str]]]:
    """Return where each batch of a tail ends, by the framing of the format, and the ids it holds."""
    data = path.read_bytes()
    source = pa.BufferReader(data)
    schema = pa.ipc.read_schema(pa.ipc.read_message(source))
    layout = Layout.read(schema)
    assert layout is not None
    found = []
    while source.tell() < len(data):
        batch = pa.ipc.read_record_batch(pa.ipc.read_message(source), schema)
        batch.validate(full=True)
        found.append((source.tell(), layout.expand(batch)["prediction_id"].to_pylist()))
    return found


def test_a_log_that_is_cut_anywhere_gives_back_every_whole_batch(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Callable[..., Worker]
) -> None:
    """Cut at random bytes, the log has the whole batches and no more, before and after it is sealed."""
    monkeypatch.delenv("LOOPWRIGHT_LEDGER", raising=False)
    project = copy_of(prepared, tmp_path)
    worker = start(project)
    load = Load(worker.port, THREADS)
    load.more(400)
    worker.kill()
    load.end()
    # The load waits in the backlog for an answer.
    second = start(project, "serving-2")
    load.stop()
    assert second.stop() == 0
    [tail] = [
        one
        for one in (project.predictions / "deployment=wine-api" / "open").iterdir()
        if f"-p{worker.process.pid}-" in one.name
    ]
    batches = whole_batches(tail)
    assert len(batches) > 50
    assert any(len(ids) > 1 for _, ids in batches)
    data, chance = tail.read_bytes(), random.Random(20)
    assert batches[-1][0] == len(data)
    ends = [end for end, _ in batches]
    cuts = [chance.randrange(len(data) + 1) for _ in range(CUTS)]
    # And at the edges: behind a batch, one byte more, one less, in the frame's first eight bytes, and nothing at all.
    cuts += [end + more for end in ends[::40] for more in (0, 1, -1, 7)] + [0, 1, len(data)]
    for number, cut in enumerate(cuts):
        root = tmp_path / f"cut-{number}"
        opened = root / ".loopwright" / "predictions" / "deployment=wine-api" / "open"
        opened.mkdir(parents=True)
        shutil.copy(project.root / "loopwright.toml", root)
        # Zeros behind a whole batch, as a file system leaves them, are no batch.
        zeros = bytes(4096 if cut in ends else 0)
        (opened / tail.name).write_bytes(data[:cut] + zeros)
        other = Project(root)
        right = [one for end, ids in batches if end <= cut for one in ids]
        assert sorted(logged(other)) == sorted(right), (cut, len(zeros))
        if number % 5 == 0:
            assert seal_orphans(other) == 1
            assert not list(opened.iterdir())
            assert sorted(logged(other)) == sorted(right), (cut, len(zeros))
        shutil.rmtree(root)
