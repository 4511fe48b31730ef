"""The prediction log in a folder, in another one, and in an S3 store, with SQLite and PostgreSQL as ledger: all the same."""

import itertools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.fs as pafs
import pytest
import sqlalchemy as sa
from object_store import object_store
from one_server import free_port
from postgres import postgresql
from prediction_rows import FLOWERS, project_in, rows

import loopwright as lw
from loopwright.config import Project
from loopwright.errors import InvalidConfig, Unavailable
from loopwright.ledger import Ledger
from loopwright.predictions import (
    LabelLog,
    PredictionLog,
    PredictionStore,
    files,
    maintain,
    quarantine,
    repair,
)
from loopwright.predictions.catalogue import Catalogue, close_shared
from loopwright.predictions.places import Bucket
from loopwright.predictions.retention import forget
from loopwright.records import Label, now

pytestmark = pytest.mark.integration

LOG = "predictions/deployment=api"
DAY_US = 86_400 * 1_000_000
YESTERDAY_US = int(time.time() * 1e6) // DAY_US * DAY_US - DAY_US
_numbers = itertools.count()


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a PostgreSQL server; return its address."""
    with postgresql(tmp_path_factory.mktemp("postgres")) as place:
        yield place


@pytest.fixture(scope="module")
def bucket() -> Iterator[pafs.S3FileSystem]:
    """Run an S3 server with the bucket ``logs``, and point the environment at it."""
    with object_store("logs") as made:
        yield made


Open = Callable[[str], Project]


@pytest.fixture(params=["own", "folder", "another disk", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return what `[log] store` says, each time another place."""
    name = f"team-{os.getpid()}-{next(_numbers)}"
    if request.param == "s3":
        request.getfixturevalue("bucket")
        yield f"s3://logs/{name}"
    elif request.param == "another disk":
        memory = Path("/dev/shm")
        if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("there is no second file system at /dev/shm")
        yield str(memory / name)
        shutil.rmtree(memory / name, ignore_errors=True)
    else:
        yield "" if request.param == "own" else str(tmp_path / "elsewhere")


@pytest.fixture(params=["sqlite", "postgresql"])
def machine(
    request: pytest.FixtureRequest, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Open]:
    """Return what gives the project on a machine of a name; all of them share the ledger and the store."""
    if request.param == "postgresql":
        place = request.getfixturevalue("database")
        name = f"ledger_{next(_numbers)}"
        admin = sa.create_engine(f"postgresql+psycopg://owner@{place}/postgres", isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.exec_driver_sql(f"create database {name}")
        admin.dispose()
        monkeypatch.setenv("LOOPWRIGHT_LEDGER", f"postgresql+psycopg://owner@{place}/{name}")
    else:
        monkeypatch.setenv("LOOPWRIGHT_LEDGER", f"sqlite:///{tmp_path / 'ledger.db'}")
    yield lambda name: _machine(tmp_path / name, store)
    close_shared()


def _machine(folder: Path, store: str, more: str = "") -> Project:
    if not folder.exists():
        folder.mkdir()
        project_in(folder)
        text = (folder / "loopwright.toml").read_text()
        (folder / "loopwright.toml").write_text(f'{text}\n[log]\nstore = "{store}"\n{more}\n')
    return Project(folder)


def _write(project: Project, n: int, each: int = 10, at_us: int = YESTERDAY_US) -> list[str]:
    ids: list[str] = []
    for number in range(n):
        log = PredictionLog(project, "api", "iris", FLOWERS)
        batch = rows(project, each, at_us=at_us + number * 1000)
        log.append(batch)
        log.close()
        ids += batch.prediction_id
    return ids


def _ids(project: Project) -> list[str]:
    return sorted(PredictionStore(project).table(columns=["prediction_id"]).column(0).to_pylist())


def test_the_life_of_a_log(machine: Open) -> None:
    """Appended, sealed, labelled, merged, counted, forgotten, expired: the same wherever it lies and whatever lists it."""
    project = machine("one")
    ledger = Ledger.open(project)
    ids = _write(project, 4)
    log = PredictionLog(project, "api", "iris", FLOWERS)
    last = rows(project, 3, at_us=YESTERDAY_US + 60_000_000)
    log.append(last)
    ids += last.prediction_id
    labels = LabelLog(project)
    labels.append([Label(one, 1) for one in ids])
    labels.append([Label(one, 2) for one in ids[:5]])
    labels.close()
    store = PredictionStore(project)
    before = store.table()
    assert before.num_rows == 43
    assert store.query("select sum(actual) as s from predictions").to_pylist() == [{"s": 48}]
    assert store.find(ids[7]).actual == 1
    done = maintain(project, ledger, few=2)
    assert (done.merged, done.made, done.problems) == (4, 1, [])
    assert store.table().equals(before)
    assert maintain(project, ledger, few=2, grace_s=0).deleted == 4
    assert store.table().equals(before)
    extent = store.extent("api")
    assert (extent.rows, extent.segments, extent.open, extent.quarantined) == (43, 1, 1, 0)
    address = project.config.log.store
    (entry,) = Catalogue(ledger).entries(f"{address}/{LOG}" if address.startswith("s3") else LOG)
    assert (entry.rows, entry.bytes) == (40, extent.bytes)
    log.close()
    assert repair(project, ledger).problems == []
    assert store.table().equals(before)
    gone = forget(project, ledger, entity="flower-1", wait_s=0)
    assert (gone.predictions, gone.labels) == (5, 6)
    assert _ids(project) == sorted(set(ids) - {*ids[1:40:10], ids[41]})
    assert lw.predictions("api", project=project).count() == 38
    project.config.log.__dict__["keep"] = now() - now().replace(year=2020)
    assert maintain(project, ledger).expired == 0
    ledger.close()


def test_two_machines_share_a_log(machine: Open, store: str) -> None:
    """What one has sealed the other reads, merges and deletes; each row is there once for both, and labels join."""
    one, two = machine("one"), machine("two")
    if not store:
        pytest.skip("a log in the project's own state is not shared")
    shutil.copy(_key(one), two.state / "project.key")
    ids = _write(one, 3) + _write(two, 3, at_us=YESTERDAY_US + 500)
    assert _ids(one) == _ids(two) == sorted(ids)
    assert files.deployments(two) == ["api"]
    labels = LabelLog(two)
    labels.append([Label(one_id, 2) for one_id in ids])
    labels.close()
    assert PredictionStore(one).count(labelled=True) == 60
    ledger = Ledger.open(two)
    assert maintain(two, ledger, few=2).made == 1
    assert _ids(one) == _ids(two) == sorted(ids)
    assert maintain(one, ledger, few=2, grace_s=0).deleted == 6
    assert _ids(one) == _ids(two) == sorted(ids)
    ledger.close()


def _key(project: Project) -> Path:
    from loopwright.predictions import Ids

    Ids.open(project)
    return project.state / "project.key"


KILLED = """
import os, signal, sys
from pathlib import Path
from prediction_rows import *
from loopwright.predictions import PredictionLog, shelves, catalogue, seal
where, root = sys.argv[2], Path(sys.argv[1])
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
project = Project(root)
log = PredictionLog(project, "api", "iris", FLOWERS)
batch = rows(project, 10)
log.append(batch)
print(" ".join(batch.prediction_id), flush=True)
if where == "before the upload":
    shelves.Bucket.put = die
    shelves._moved = die
elif where == "before it is catalogued":
    shelves.Catalogue.add = die
    seal.catalogue = die
elif where == "before the tail is dropped":
    Path.unlink = die
log.close()
print("closed")
"""


@pytest.mark.parametrize(
    "where", ["before the upload", "before it is catalogued", "before the tail is dropped"]
)
def test_death_while_sealing_loses_and_doubles_nothing(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """At each step of writing, uploading and cataloguing a segment; and the next upkeep finishes what was begun."""
    project = _machine(tmp_path / "one", store)
    support = str(Path(__file__).parents[1] / "support")
    code = ["-c", KILLED, str(project.root), where]
    done = subprocess.run(
        [sys.executable, *code],
        env=os.environ | {"PYTHONPATH": support},
        capture_output=True,
        text=True,
        check=False,
    )
    if where == "before it is catalogued" and not store.startswith("s3"):
        assert done.returncode in {0, -9}
    else:
        assert (done.returncode, "closed" in done.stdout) == (-9, False), done.stderr
    ids = sorted(done.stdout.splitlines()[0].split())
    assert _ids(project) == ids
    ledger = Ledger.open(project)
    for _ in range(2):
        assert maintain(project, ledger).problems == []
        assert _ids(project) == ids
    folder = files.of_deployment(project, "api")
    assert folder.tails() == []
    assert [segment.rows for segment in folder.segments()] == [10]
    assert repair(project, ledger).problems == []
    assert _ids(project) == ids
    ledger.close()


@pytest.fixture
def distant(bucket: pafs.S3FileSystem, tmp_path: Path) -> Project:
    """Return a project whose log is in a bucket."""
    return _machine(tmp_path / "one", f"s3://logs/team-{os.getpid()}-{next(_numbers)}")


def test_without_the_store_appends_go_on_and_copies_are_read(
    bucket: pafs.S3FileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody answers: rows are taken and read, sealing waits and says why, what is not here is asked for by its store."""
    from moto.server import ThreadedMotoServer

    port = free_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    project = _machine(tmp_path / "one", f"s3://logs/team-{os.getpid()}-{next(_numbers)}", 'cache = "1MB"')
    log = PredictionLog(project, "api", "iris", FLOWERS, seal_rows=5)
    ids = _write(project, 2)
    store = PredictionStore(project)
    assert _ids(project) == sorted(ids)
    server.stop()
    batch = rows(project, 5)
    log.append(batch)
    ids += batch.prediction_id
    with pytest.raises(Unavailable, match=r"could not be sealed: The store s3://logs/team.* does not answer"):
        log.maintain()
    assert _ids(project) == sorted(ids)
    assert store.extent("api").rows == 25
    ledger = Ledger.open(project)
    assert maintain(project, ledger, few=2).made == 0
    shutil.rmtree(project.state / "cache")
    with pytest.raises(Unavailable, match=r"The store s3://logs/team.* does not answer"):
        store.count()
    assert store.extent("api").rows == 25
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    log.maintain()
    assert files.of_deployment(project, "api").tails() == []
    assert _ids(project) == sorted(ids)
    assert maintain(project, ledger, few=2).problems == []
    assert _ids(project) == sorted(ids)
    log.close()
    ledger.close()
    server.stop()


def test_the_cache_is_bounded(bucket: pafs.S3FileSystem, tmp_path: Path) -> None:
    """The copies that were not asked for the longest go; what one query needs is there for it, even if it is more."""
    made = Bucket("s3://logs/bounded", tmp_path / "cache", 2500)
    for number in range(4):
        local = tmp_path / f"{number}"
        local.write_bytes(bytes(1000))
        made.put(local, f"log/{number}")
    shutil.rmtree(tmp_path / "cache")
    for number in (0, 1, 2, 0, 3):
        made.fetch([f"log/{number}"])
        os.utime(
            made.cached(f"log/{number}"), (time.time() + number, time.time() + (9 if number == 3 else number))
        )
    assert sum(facts.st_size for _, facts in made.copies()) <= 2500
    assert made.cached("log/3").exists()
    made.fetch([f"log/{number}" for number in range(4)])
    assert sum(facts.st_size for _, facts in made.copies()) == 4000
    assert made.listed("log") == [(f"log/{number}", 1000) for number in range(4)]
    with pytest.raises(FileNotFoundError):
        made.fetch(["log/9"])
    with pytest.raises(InvalidConfig, match="names no bucket"):
        Bucket("s3://", tmp_path, 1)


def test_a_damaged_copy_is_fetched_again_and_a_damaged_object_set_aside(
    distant: Project, bucket: pafs.S3FileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only when the store's own file is damaged, too, its rows are lost, and that is said."""
    monkeypatch.setattr(quarantine, "PAUSE_S", 0.01)
    _write(distant, 2)
    store = PredictionStore(distant)
    first, second = files.of_deployment(distant, "api").segments()
    first.path.write_bytes(b"gone")
    assert store.count() == 20
    place = f"{distant.config.log.store.removeprefix('s3://')}/{LOG}/date={_day()}/{second.name}"
    with bucket.open_output_stream(place) as stream:
        stream.write(b"gone")
    second.path.unlink()
    assert store.count() == 10
    assert store.extent("api").quarantined == 1
    ledger = Ledger.open(distant)
    (event,) = ledger.events("predictions.quarantined")
    assert event.payload["segment"].endswith(second.name)
    assert repair(distant, ledger).problems == []
    ledger.close()


def _day() -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(YESTERDAY_US / 1e6))


def test_a_lost_catalogue_is_rebuilt_from_the_bucket(distant: Project) -> None:
    """Listing the objects is enough; and what the catalogue has but the store has not is said."""
    ids = _write(distant, 3)
    ledger = Ledger.open(distant)
    with ledger.writing() as connection:
        connection.execute(sa.text("delete from segments"))
    assert PredictionStore(distant).count(deployment="api") == 0
    assert repair(distant, ledger).catalogued == 3
    assert _ids(distant) == sorted(ids)
    segment = files.of_deployment(distant, "api").segments()[0]
    Bucket(distant.config.log.store, distant.state / "cache" / "log", 1).remove(
        f"{LOG}/date={_day()}/{segment.name}"
    )
    done = repair(distant, ledger)
    assert [segment.name in problem for problem in done.problems] == [True]
    assert _ids(distant) == sorted(ids[10:])
    ledger.close()


def test_setting_a_store_moves_what_was_sealed_before(bucket: pafs.S3FileSystem, tmp_path: Path) -> None:
    """The next upkeep uploads the segments that lie here; nothing is lost or counted twice, merged ones included."""
    project = _machine(tmp_path / "one", "")
    ledger = Ledger.open(project)
    ids = _write(project, 4)
    maintain(project, ledger, few=2)
    ids += _write(project, 2)
    text = (project.root / "loopwright.toml").read_text()
    (project.root / "loopwright.toml").write_text(
        text.replace('store = ""', f'store = "s3://logs/moved-{os.getpid()}"')
    )
    project = Project(project.root)
    for _ in range(2):
        assert maintain(project, ledger, few=2).problems == []
        assert _ids(project) == sorted(ids)
    assert list(project.predictions.rglob("*.parquet")) == []
    ledger.close()


@pytest.mark.parametrize("store", ["gs://bucket/log", "s3://", "https://example.org/log"])
def test_a_store_that_is_none_is_refused(tmp_path: Path, store: str) -> None:
    """Before any folder of such a name is made."""
    with pytest.raises(InvalidConfig, match="is no store: write a folder, or 's3://bucket/prefix'"):
        _machine(tmp_path / "one", store)
