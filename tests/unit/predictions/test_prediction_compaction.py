"""Merging segments: each row once, for readers at any moment, whoever dies in between."""

import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from prediction_rows import FLOWERS, project_in, rows

from loopwright.config import Project
from loopwright.errors import Conflict, Unavailable
from loopwright.ledger import Ledger
from loopwright.ledger.schema import positions
from loopwright.predictions import LabelLog, PredictionLog, PredictionStore, files, maintain, repair
from loopwright.predictions.catalogue import Catalogue
from loopwright.predictions.compaction import FULL_ROWS, compact, locked, plan, rewrite
from loopwright.predictions.files import LogFolder, Segment
from loopwright.predictions.shelves import NamedShelf
from loopwright.records import Column, Label, Signature, Task, now

DAY_US = 86_400 * 1_000_000
YESTERDAY_US = int(time.time() * 1e6) // DAY_US * DAY_US - DAY_US
SUM = (
    "select count(*) as n, count(distinct prediction_id) as ids, sum(input_petal) as petals from predictions"
)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return a new project."""
    return project_in(tmp_path)


@pytest.fixture
def ledger(project: Project) -> Any:
    """Return the project's ledger."""
    opened = Ledger.open(project)
    yield opened
    opened.close()


def _folder(project: Project) -> LogFolder:
    return files.of_deployment(project, "api")


def _segments(
    project: Project, n: int, each: int = 5, at_us: int = YESTERDAY_US, **changes: Any
) -> list[str]:
    """Write `n` segments of `each` rows, the newest rows first, and return the ids."""
    ids: list[str] = []
    for number in range(n):
        log = PredictionLog(project, "api", "iris", FLOWERS)
        batch = rows(project, each, at_us=at_us + (n - number) * 1000, **changes)
        log.append(batch)
        log.close()
        ids += batch.prediction_id
    return ids


def _ids(project: Project) -> list[str]:
    return sorted(PredictionStore(project).table(columns=["prediction_id"]).column(0).to_pylist())


def test_small_segments_become_one_in_the_order_of_time(project: Project, ledger: Ledger) -> None:
    """Ten segments are replaced by one, with the same rows sorted by time, encoded and bounded as any segment."""
    ids = _segments(project, 10)
    before = PredictionStore(project).table()
    done = maintain(project, ledger)
    assert (done.merged, done.made, done.problems) == (10, 1, [])
    (segment,) = _folder(project).segments()
    assert segment.merged
    assert (segment.rows, segment.first_us, segment.last_us) == (
        50,
        YESTERDAY_US + 1000,
        YESTERDAY_US + 10_004,
    )
    assert segment.path.parent == _folder(project).day(YESTERDAY_US)
    table = pq.read_table(segment.path)
    moments = table.column("at").cast("int64").to_pylist()
    assert moments == sorted(moments)
    column = pq.ParquetFile(segment.path).metadata.row_group(0).column(0)
    assert (column.compression, "DELTA_BYTE_ARRAY" in column.encodings) == ("ZSTD", True)
    assert _ids(project) == sorted(ids)
    assert PredictionStore(project).table().equals(before)
    # The replaced files are still there, for who has listed them, until the grace is over; then they are gone.
    assert len(list(_folder(project).root.rglob("*.parquet"))) == 11
    assert maintain(project, ledger).deleted == 0
    assert maintain(project, ledger, grace_s=0).deleted == 10
    assert len(list(_folder(project).root.rglob("*.parquet"))) == 1
    assert PredictionStore(project).table().equals(before)


def test_the_catalogue_follows(project: Project, ledger: Ledger) -> None:
    """What counts, what was replaced, and what is in the folder agree; the names alone rebuild it."""
    _segments(project, 9)
    maintain(project, ledger)
    catalogue = Catalogue(ledger)
    log = "predictions/deployment=api"
    (live,) = catalogue.entries(log)
    assert (live.rows, live.state) == (45, "live")
    assert len(catalogue.entries(log, "replaced")) == 9
    extent = PredictionStore(project).extent("api")
    assert (extent.rows, extent.segments, extent.bytes) == (45, 1, live.bytes)
    with ledger.writing() as connection:
        connection.execute(sa.text("delete from segments"))
    assert repair(project, ledger).catalogued == 1
    assert [entry.path for entry in catalogue.entries(log)] == [live.path]


def test_only_segments_with_the_same_columns_and_of_one_day_are_merged(project: Project) -> None:
    """A version with other inputs and another day stay apart; all is read together as before."""
    other = Signature(
        (Column("petal", "double"), Column("weight", "long")), Task.classification, "species", (0, 1)
    )
    _segments(project, 3)
    _segments(project, 3, at_us=YESTERDAY_US - 3 * DAY_US)
    for _ in range(3):
        log = PredictionLog(project, "api", "iris", other)
        inputs = {"petal": np.ones(2), "weight": np.arange(2)}
        log.append(rows(project, 2, at_us=YESTERDAY_US, inputs=inputs))
        log.close()
    before = PredictionStore(project).table()
    assert len(compact(_folder(project), few=2)) == 3
    assert sorted(segment.rows for segment in _folder(project).segments()) == [6, 15, 15]
    assert PredictionStore(project).table().equals(before)


def _made(
    rows_: int, at_us: int = YESTERDAY_US, name: str = "a", begun: str = "20200101T000000000000"
) -> Segment:
    return Segment(Path(name), f"{begun}-p1-c1-{name}-abc", at_us, at_us + 1, rows_)


def test_what_is_worth_merging(project: Project) -> None:
    """Few of one size wait, a day that is over is finished, full segments are left alone, and none gets too large."""
    today_us = YESTERDAY_US + DAY_US + 12 * 3600 * 1_000_000
    sizes = {"size": 1000}

    def planned(*segments: Segment) -> list[int]:
        return sorted(len(group) for group in plan(segments, lambda _: sizes["size"], today_us))

    def some(count: int, number: int, at_us: int = today_us) -> list[Segment]:
        return [_made(number, at_us, f"{number}x{place}") for place in range(count)]

    assert planned(*some(7, 100)) == []
    assert planned(*some(8, 100)) == [8]
    assert planned(*some(7, 100), *some(7, 100_000)) == []
    assert planned(*some(8, 100), *some(8, 100_000)) == [8, 8]
    assert planned(*some(9, FULL_ROWS // 2)) == []
    assert planned(*some(20, 130_000)) == [8, 8]
    assert planned(*some(2, 100, YESTERDAY_US)) == [2]
    assert planned(*some(1, 100, YESTERDAY_US)) == []
    sizes["size"] = 20 << 20
    assert planned(*some(12, 100, YESTERDAY_US)) == [6, 6]
    sizes["size"] = 100 << 20
    assert planned(*some(12, 100, YESTERDAY_US)) == []
    sizes["size"] = 1000
    late = f"{now():%Y%m%dT%H%M%S%f}"
    fresh = [_made(100, YESTERDAY_US, f"late{place}", late) for place in range(2)]
    assert plan(fresh, lambda _: 1000, int(time.time() * 1e6)) == []


def test_a_tail_that_is_still_there_finds_its_segment(project: Project, ledger: Ledger) -> None:
    """A segment whose tail was not deleted is not merged, so that its rows are not sealed a second time."""
    _segments(project, 8)
    segment = _folder(project).segments()[0]
    tail = _folder(project).open / f"{segment.stem}.arrows"
    tail.write_bytes(b"not sealed whole")
    maintain(project, ledger, few=2, grace_s=0)
    maintain(project, ledger, few=2, grace_s=0)
    assert PredictionStore(project).count() == 40
    assert segment.stem in {one.stem for one in _folder(project).segments()}


@pytest.mark.parametrize("until", ["list", "segment", "some deleted", "all deleted"])
def test_death_while_merging_changes_nothing(
    project: Project, ledger: Ledger, until: str, tmp_path: Path
) -> None:
    """After each step of a merge, had it been the last one, each row is seen once, and the next upkeep finishes."""
    ids = sorted(_segments(project, 4))
    folder = _folder(project)
    sources = folder.segments()
    saved = tmp_path / "saved"
    shutil.copytree(folder.root, saved)
    rewrite(folder, sources)
    (merged,) = folder.segments()
    if until == "list":
        merged.path.unlink()
    elif until == "some deleted":
        sources[0].path.unlink()
    elif until == "all deleted":
        for segment in sources:
            segment.path.unlink()
    (folder.root / f".{files.new_stem()}.tmp").write_bytes(b"half a segment")
    assert _ids(project) == ids
    assert PredictionStore(project).count() == 20
    for _ in range(2):
        maintain(project, ledger, few=2, grace_s=0)
        assert _ids(project) == ids
    assert [segment.rows for segment in folder.segments()] == [20]


def test_who_merges_what_is_merged_already_changes_nothing(project: Project) -> None:
    """A second merge of the same segments is refused, and two at the same time do not meet."""
    _segments(project, 4)
    folder = _folder(project)
    sources = folder.segments()
    rewrite(folder, sources)
    with pytest.raises(Conflict, match="4 segments"):
        rewrite(folder, sources)
    assert PredictionStore(project).count() == 20
    _segments(project, 4)
    with locked(folder) as mine:
        assert mine
        assert compact(folder, few=2) == []
    assert len(compact(folder, few=2)) == 1
    assert PredictionStore(project).count() == 40


def test_merged_segments_are_merged_again(project: Project) -> None:
    """What a merged segment replaced stays replaced when it is merged itself before the files are deleted."""
    ids = _segments(project, 4)
    folder = _folder(project)
    rewrite(folder, folder.segments())
    ids += _segments(project, 3)
    rewrite(folder, folder.segments())
    (segment,) = folder.segments()
    assert segment.rows == 35
    # Even where the first merged file is deleted before those it replaced.
    first = next(path for path in folder.root.rglob("*-m-*.parquet") if path != segment.path)
    first.unlink()
    assert _ids(project) == sorted(ids)
    assert NamedShelf(folder.root).settle(0) == 7
    assert _ids(project) == sorted(ids)


def test_readers_see_each_row_once_while_all_is_merged_and_deleted(project: Project, ledger: Ledger) -> None:
    """Two readers query without a pause while segments are written, merged and deleted at once."""
    written = [5]
    _segments(project, 1)
    ended = threading.Event()
    wrong: list[str] = []
    looks = [0, 0]

    def write() -> None:
        log = PredictionLog(project, "api", "iris", FLOWERS, seal_rows=20)
        for number in range(150):
            log.append(rows(project, 10, at_us=YESTERDAY_US + number * 10))
            written[0] += 10
            log.maintain()
        log.close()

    def keep() -> None:
        while not ended.is_set():
            done = maintain(project, ledger, few=3, grace_s=0)
            wrong.extend(done.problems)

    def read(number: int) -> None:
        store = PredictionStore(project)
        last = 0
        while not ended.is_set():
            before = written[0]
            (found,) = store.query(SUM).to_pylist()
            looks[number] += 1
            if found["n"] != found["ids"]:
                wrong.append(f"doubled: {found}")
            if found["n"] < max(before, last):
                wrong.append(f"lost: {found} of {before}")
            last = found["n"]

    others = [threading.Thread(target=keep), *(threading.Thread(target=read, args=(n,)) for n in (0, 1))]
    for thread in others:
        thread.start()
    write()
    time.sleep(0.5)
    ended.set()
    for thread in others:
        thread.join()
    assert wrong == []
    assert min(looks) >= 5
    assert PredictionStore(project).query(SUM).to_pylist() == [{"n": 1505, "ids": 1505, "petals": 6760.0}]
    assert any(segment.merged for segment in _folder(project).segments())


def test_shadows_and_labels_are_merged_as_well(project: Project, ledger: Ledger) -> None:
    """All logs are kept in order, and the last label still wins."""
    ids = _segments(project, 2)
    for number in range(9):
        labels = LabelLog(project)
        labels.append([Label(one, number % 3) for one in ids])
        labels.close()
        shadow = PredictionLog(project, "api", "iris", FLOWERS, shadow=True)
        shadow.append(rows(project, 2))
        shadow.close()
    done = maintain(project, ledger, grace_s=0)
    assert done.problems == []
    assert len(files.labels(project).segments()) == 1
    assert len(files.of_deployment(project, "api", shadow=True).segments()) == 1
    store = PredictionStore(project)
    assert store.count(labelled=True) == 10
    assert set(store.table()["actual"].to_pylist()) == {2}
    assert store.count(shadows=True) == 18


def test_what_the_live_numbers_have_not_counted_is_left_alone(project: Project, ledger: Ledger) -> None:
    """Only segments whose rows are counted are merged, and what they become is counted already."""
    _segments(project, 6)
    segments = _folder(project).segments()
    counted = {"deployment": "api", "changed": now()}
    with ledger.writing() as connection:
        for segment in segments[:4]:
            connection.execute(sa.insert(positions).values(**counted, stem=segment.stem, rows=5))
        connection.execute(sa.insert(positions).values(**counted, stem=segments[4].stem, rows=3))
    assert maintain(project, ledger, few=2).merged == 4
    found = {segment.stem: segment for segment in _folder(project).segments()}
    assert {segments[4].stem, segments[5].stem} < found.keys()
    (merged,) = [segment for segment in found.values() if segment.merged]
    with ledger.reading() as connection:
        query = sa.select(positions.c.rows).where(positions.c.stem == merged.stem)
        assert connection.execute(query).scalar() == merged.rows == 20


def test_a_full_disk_while_merging_leaves_all_as_it_is(project: Project, ledger: Ledger) -> None:
    """A merged segment that cannot be put in its place is thrown away; the others count, and it is said."""
    _segments(project, 8)
    folder = _folder(project)
    (folder.root / "merged").write_text("in the way")
    done = maintain(project, ledger)
    assert done.made == 0
    assert len(done.problems) >= 1
    assert PredictionStore(project).count() == 40
    assert list(folder.root.glob(".*.tmp")) == []
    (folder.root / "merged").unlink()
    assert maintain(project, ledger).made == 1
    assert PredictionStore(project).count() == 40


def test_rows_of_any_time_have_right_bounds(project: Project, ledger: Ledger) -> None:
    """Rows from the future, from long ago and out of order: names, folders and spans of time are right, also merged."""
    moments = np.array([4_000_000_000_000_000, -5_000_000, YESTERDAY_US, 100], np.int64)
    log = PredictionLog(project, "api", "iris", FLOWERS)
    log.append(_at(project, moments))
    log.close()
    log = PredictionLog(project, "api", "iris", FLOWERS)
    log.append(_at(project, moments[:2]))
    log.close()
    for _ in range(2):
        segments = _folder(project).segments()
        assert {(one.first_us, one.last_us) for one in segments} == {(-5_000_000, 4_000_000_000_000_000)}
        assert {one.path.parent.name for one in segments} == {"date=1969-12-31"}
        extent = PredictionStore(project).extent()
        assert extent.first is not None
        assert (extent.rows, extent.first.year) == (6, 1969)
        maintain(project, ledger, few=2, grace_s=0)
    assert len(_folder(project).segments()) == 1


def _at(project: Project, moments: Any) -> Any:
    batch = rows(project, len(moments))
    batch.at_us = moments
    return batch


def test_a_clock_that_moved_back_orders_nothing_wrong(
    project: Project, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tails, segments and merged ones of a clock that jumped back an hour are all read, each row once."""
    from loopwright.predictions import rolling, tail

    clock = [int(time.time() * 1e6)]
    for module in (rolling, tail):
        monkeypatch.setattr(module, "now_us", lambda: clock[0])
    log = PredictionLog(project, "api", "iris", FLOWERS, seal_after_s=60)
    for _ in range(4):
        log.append(rows(project, 5, at_us=clock[0]))
        clock[0] -= 3600 * 1_000_000
        log.maintain()
    assert PredictionStore(project).count() == 20
    log.close()
    maintain(project, ledger, few=2, grace_s=0)
    assert PredictionStore(project).count() == 20


def test_sealing_again_and_again_waits_longer(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that cannot seal tries at once again, then ever less often, and goes on when it can."""
    folder = _folder(project)
    log = PredictionLog(project, "api", "iris", FLOWERS, seal_rows=1)
    log.append(rows(project, 1, at_us=YESTERDAY_US))
    folder.day(YESTERDAY_US).write_text("in the way")
    refused = 0
    for _ in range(20):
        try:
            log.maintain()
        except Unavailable:
            refused += 1
    assert refused == 2
    folder.day(YESTERDAY_US).unlink()
    assert PredictionStore(project).count() == 1
    log.close()
    assert [segment.rows for segment in folder.segments()] == [1]


def test_merging_takes_more_memory_only_where_it_must(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the first limit is too low the next one is tried; where all are, the segments stay and it is said."""
    from loopwright.predictions import compaction

    ids = _segments(project, 3, 20_000)
    folder = _folder(project)
    monkeypatch.setattr(compaction, "_MEMORY", ("2MB", "3MB"))
    with pytest.raises(Unavailable, match="3 segments could not be merged: Out of Memory"):
        rewrite(folder, folder.segments())
    assert len(folder.segments()) == 3
    monkeypatch.setattr(compaction, "_MEMORY", ("2MB", "512MB"))
    rewrite(folder, folder.segments())
    assert [segment.rows for segment in folder.segments()] == [60_000]
    assert _ids(project) == sorted(ids)
