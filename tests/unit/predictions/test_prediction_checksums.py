"""Checksums of batches: what a power cut leaves of a tail is told from what was written."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prediction_rows import FLOWERS, project_in, rows

from loopwright.config import Project
from loopwright.predictions import LabelLog, Layout, PredictionLog, PredictionStore, files
from loopwright.predictions.checksums import frames, head_length, is_marked, marked, seed_of, with_trailer
from loopwright.predictions.seal import seal
from loopwright.predictions.tail import read_after, read_batches
from loopwright.records import Label

CUTS = 200


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return a new project."""
    return project_in(tmp_path)


def _written(project: Project, batches: int) -> tuple[Path, list[int], list[list[str]]]:
    """Write batches of 1 to 40 rows; return the tail, the bytes up to the end of each, and the ids of each."""
    log = PredictionLog(project, "api", "iris", FLOWERS)
    sizes = random.Random(7)
    ends, ids = [], []
    for _ in range(batches):
        batch = rows(project, sizes.randint(1, 40))
        log.append(batch)
        (path,) = files.of_deployment(project, "api").tails()
        ends.append(path.stat().st_size)
        ids.append(batch.prediction_id)
    return path, ends, ids


def _ids(path: Path) -> list[str]:
    return [one for batch in read_batches(path) for one in batch.column("prediction_id").to_pylist()]


@pytest.mark.parametrize("rest", ["cut", "zeros", "noise"])
def test_every_whole_batch_of_a_torn_tail_is_read(project: Project, rest: str) -> None:
    """At 200 random bytes the rest is missing, is zeros, or is noise: all batches before it are read and nothing else."""
    path, ends, ids = _written(project, 20)
    whole = path.read_bytes()
    chance = random.Random(f"{rest} 20260131")
    torn = path.with_name("torn")
    recovered = 0
    for cut in [chance.randrange(len(whole)) for _ in range(CUTS)]:
        tail = {"cut": b"", "zeros": bytes(len(whole) - cut), "noise": chance.randbytes(len(whole) - cut)}
        torn.write_bytes(whole[:cut] + tail[rest])
        # Zeros where zeros were change nothing: a batch is whole when its bytes are.
        same = next(
            (at for at in range(cut, len(whole)) if torn.read_bytes()[at : at + 1] != whole[at : at + 1]), cut
        )
        complete = sum(end <= max(cut, same if rest != "cut" else cut) for end in ends)
        assert _ids(torn) == [one for batch in ids[:complete] for one in batch]
        recovered += complete
    assert recovered > CUTS
    torn.unlink()


def test_a_page_of_zeros_in_the_middle_ends_the_tail(project: Project) -> None:
    """A page that never reached the disk takes its batch and all behind it; those before are read."""
    path, ends, ids = _written(project, 20)
    whole = bytearray(path.read_bytes())
    assert len(whole) > 3 * 4096
    whole[4096:8192] = bytes(4096)
    path.write_bytes(whole)
    complete = sum(end <= 4096 for end in ends)
    assert complete < 19
    assert _ids(path) == [one for batch in ids[:complete] for one in batch]
    assert PredictionStore(project).count() == len(_ids(path))


def test_a_tail_that_is_damaged_before_its_end_is_kept(project: Project) -> None:
    """Its good rows are sealed; the file is set aside and counted, because whole batches may follow the damage."""
    path, ends, ids = _written(project, 20)
    whole = bytearray(path.read_bytes())
    whole[ends[9] + 100] ^= 1
    path.write_bytes(whole)
    assert seal(files.of_deployment(project, "api"), path) is not None
    expected = [one for batch in ids[:10] for one in batch]
    store = PredictionStore(project)
    assert sorted(store.table(columns=["prediction_id"]).column(0).to_pylist()) == sorted(expected)
    aside = files.of_deployment(project, "api").root / "quarantine"
    assert (aside / path.name).read_bytes() == whole
    assert f"from {ends[9]} to {ends[-1]}" in (aside / f"{path.stem}.txt").read_text()
    assert store.extent("api").quarantined == 1


@pytest.mark.parametrize("rest", [b"", b"\xff\xff\xff", bytes(5000)])
def test_a_write_that_was_cut_short_is_no_damage(project: Project, rest: bytes) -> None:
    """What a death or a power cut leaves of the last, unacknowledged batch is dropped without a word."""
    path, ends, _ = _written(project, 5)
    whole = path.read_bytes()
    path.write_bytes(whole[: ends[3] + 50 if not rest else ends[3]] + rest)
    assert seal(files.of_deployment(project, "api"), path) is not None
    assert PredictionStore(project).extent("api").quarantined == 0


def test_a_bit_that_flipped_in_the_schema_makes_no_row(project: Project) -> None:
    """Batches belong to the schema they were written with: under another one nothing is read, whatever it says."""
    path, _, ids = _written(project, 3)
    whole = path.read_bytes()
    length = head_length(whole)
    assert length is not None
    for at in range(8, length, 7):
        changed = bytearray(whole)
        changed[at] ^= 1
        path.write_bytes(changed)
        assert _ids(path) in ([], [one for batch in ids for one in batch])
    path.write_bytes(whole)


def test_the_tail_of_an_earlier_release_is_read(project: Project) -> None:
    """Batches without checksums, in a schema that does not announce any, are read as before."""
    layout = Layout.of("api", "iris", FLOWERS)
    metadata = {key: value for key, value in layout.tail_schema.metadata.items() if b"checksum" not in key}
    schema = layout.tail_schema.with_metadata(metadata)
    batch = rows(project, 3)
    source = pa.ipc.open_stream(layout.tail_schema.serialize().to_pybytes() + layout.encode(batch))
    folder = files.of_deployment(project, "api").open
    folder.mkdir(parents=True)
    path = folder / "20260131T000000000000-p1-c2-abc-00000000.arrows"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as stream:
        one = source.read_next_batch().replace_schema_metadata(metadata)
        stream.write_batch(one)
        stream.write_batch(one)
    assert not is_marked(pa.ipc.open_stream(path.read_bytes()).schema)
    assert _ids(path) == [*batch.prediction_id, *batch.prediction_id]


def test_labels_have_checksums_too(project: Project) -> None:
    """A label whose bytes are zeros is none; the one before it counts."""
    log = LabelLog(project)
    ids = rows(project, 2).prediction_id
    log.append([Label(ids[0], 0)])
    (path,) = files.labels(project).tails()
    size = path.stat().st_size
    log.append([Label(ids[1], 1)])
    whole = path.read_bytes()
    path.write_bytes(whole[: size + 20] + bytes(len(whole) - size - 20))
    assert _ids(path) == ids[:1]
    path.write_bytes(whole)
    assert _ids(path) == ids
    log.close()


def test_reading_goes_on_where_it_ended(project: Project) -> None:
    """Each batch comes with the offset to go on from; what was read is not read again, and nothing is left out."""
    log = PredictionLog(project, "api", "iris", FLOWERS)
    seen: list[str] = []
    written: list[str] = []
    offset = 0
    for n in (1, 5, 1, 3000, 2):
        batch = rows(project, n)
        log.append(batch)
        written += batch.prediction_id
        (path,) = files.of_deployment(project, "api").tails()
        assert path.stat().st_size > offset
        for found, end in read_after(path, offset):
            seen += found.column("prediction_id").to_pylist()
            offset = end
        assert seen == written
        assert offset == path.stat().st_size
        assert list(read_after(path, offset)) == []
    log.close()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=50), st.data())
def test_any_changed_byte_is_noticed(values: list[int], data: Any) -> None:
    """Whichever byte of a message changes, it does not verify; unchanged it does, and Arrow reads it."""
    schema = marked(pa.schema([("x", pa.int64())]))
    head = schema.serialize().to_pybytes()
    batch = pa.RecordBatch.from_arrays([pa.array(values, pa.int64())], names=["x"])
    message = with_trailer(bytes(batch.serialize()), seed_of(head))
    assert list(frames(memoryview(message), seed_of(head))) == [(0, len(message))]
    assert pa.ipc.open_stream(head + message).read_next_batch().column(0).to_pylist() == values
    changed = bytearray(message)
    changed[data.draw(st.integers(0, len(message) - 1))] ^= data.draw(st.integers(1, 255))
    assert list(frames(memoryview(bytes(changed)), seed_of(head))) == []


def test_one_row_and_many_have_the_same_kind_of_checksum(project: Project) -> None:
    """The quick way of a single row and the general way write messages that verify one after the other."""
    layout = Layout.of("api", "iris", FLOWERS)
    head = layout.tail_schema.serialize().to_pybytes()
    body = b"".join(layout.encode(rows(project, n, prediction=np.zeros(n, np.int64))) for n in (1, 7, 1, 300))
    assert len(list(frames(memoryview(body), seed_of(head)))) == 4
