"""Damaged segments are set aside and said; what is only gone or unreadable for a moment is not."""

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prediction_rows import FLOWERS, project_in, rows

from loopwright.config import Project
from loopwright.errors import InvalidInput
from loopwright.ledger import Ledger
from loopwright.predictions import PredictionLog, PredictionStore, files, maintain, quarantine, repair
from loopwright.predictions.catalogue import Catalogue
from loopwright.predictions.files import Segment
from loopwright.predictions.quarantine import examine

START_US = 1_790_000_000_000_000


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return a project with three segments of 1000 rows."""
    monkeypatch.setattr(quarantine, "PAUSE_S", 0.01)
    project = project_in(tmp_path)
    for number in range(3):
        log = PredictionLog(project, "api", "iris", FLOWERS)
        log.append(rows(project, 1000, at_us=START_US + number * 10_000))
        log.close()
    return project


def _segments(project: Project) -> list[Segment]:
    return files.of_deployment(project, "api").segments()


def _noise(data: bytes, at: int, length: int) -> bytes:
    return data[:at] + bytes(byte ^ 0x5A for byte in data[at : at + length]) + data[at + length :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "zeros": lambda data: bytes(len(data)),
    "truncated": lambda data: data[: len(data) // 2],
    "footer": lambda data: _noise(data, len(data) - 400, 380),
    "another file": lambda data: b"what is this" * 500,
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_query_goes_on_without_a_damaged_segment(
    project: Project, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever happened to it: the first query that needs the file sets it aside, says so, and has the other rows."""
    damaged = _segments(project)[1]
    content = damaged.path.read_bytes()
    damaged.path.write_bytes(DAMAGE[kind](content))
    store = PredictionStore(project)
    (found,) = store.query("select count(*) as n, sum(input_petal) as petals from predictions").to_pylist()
    assert found == {"n": 2000, "petals": 999_000.0}
    assert "1000 rows are set aside" in caplog.text
    assert not damaged.path.exists()
    aside = files.of_deployment(project, "api").root / "quarantine"
    assert (aside / damaged.name).read_bytes() == DAMAGE[kind](content)
    assert (aside / damaged.name).with_suffix(".txt").read_text()
    extent = store.extent("api")
    assert (extent.rows, extent.segments, extent.quarantined) == (2000, 2, 1)
    # Restored from a backup it counts again.
    damaged.path.write_bytes(content)
    assert store.count() == 3000


def test_the_ledger_says_what_was_lost(project: Project) -> None:
    """An event and the catalogue name the segment, its rows and why."""
    ledger = Ledger.open(project)
    damaged = _segments(project)[0]
    damaged.path.write_bytes(b"")
    assert PredictionStore(project).count() == 2000
    maintain(project, ledger)
    maintain(project, ledger)
    (event,) = ledger.events("predictions.quarantined")
    assert (event.subject, event.payload["rows"]) == ("api", 1000)
    assert event.payload["segment"].endswith(damaged.name)
    (entry,) = Catalogue(ledger).entries("predictions/deployment=api", "quarantined")
    assert "0 bytes" in entry.note
    ledger.close()


def test_a_damaged_page_is_found_by_its_checksum(project: Project) -> None:
    """A page that was changed on the disk can be read and says something else: repair, and merging, find it."""
    ledger = Ledger.open(project)
    damaged = _segments(project)[2]
    content = damaged.path.read_bytes()
    damaged.path.write_bytes(_noise(content, 2000, 8))
    reason = examine(damaged.path)
    assert reason is not None
    done = repair(project, ledger)
    assert (done.quarantined, len(done.problems)) == (1, 1)
    assert damaged.name in done.problems[0]
    assert PredictionStore(project).count() == 2000
    again = _segments(project)[0]
    again.path.write_bytes(_noise(again.path.read_bytes(), 2000, 8))
    assert maintain(project, ledger, few=2).made == 0
    assert PredictionStore(project).count() == 1000
    assert len(ledger.events("predictions.quarantined")) == 2
    ledger.close()


def test_a_merged_segment_that_is_damaged_gives_back_what_it_replaced(project: Project) -> None:
    """As long as the files it replaced are there they count again."""
    ledger = Ledger.open(project)
    assert maintain(project, ledger, few=2).made == 1
    (merged,) = _segments(project)
    merged.path.write_bytes(bytes(100))
    store = PredictionStore(project)
    assert store.count() == 3000
    assert store.extent("api").quarantined == 1
    assert maintain(project, ledger, few=2, grace_s=0).made == 1
    assert store.count() == 3000
    ledger.close()


def test_many_damaged_segments_are_one_query(project: Project) -> None:
    """All whose end cannot be read are found at once; a query does not fail for their number."""
    for number in range(15):
        log = PredictionLog(project, "api", "iris", FLOWERS)
        log.append(rows(project, 1, at_us=START_US + number))
        log.close()
    for segment in _segments(project)[3:]:
        segment.path.write_bytes(b"gone")
    assert PredictionStore(project).count() == 3000
    assert PredictionStore(project).extent("api").quarantined == 15


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.EACCES])
def test_what_cannot_be_read_now_is_not_damaged(
    project: Project, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the system says nothing of the bytes: the file stays where it is."""
    segment = _segments(project)[0]

    def refuses(*_: object, **__: object) -> Any:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "open", refuses)
    shelf = files.of_deployment(project, "api").shelf
    assert not quarantine.mend([(shelf, segment)], f"{segment.path} cannot be read")
    monkeypatch.undo()
    assert segment.path.exists()
    assert PredictionStore(project).count() == 3000


def test_damage_that_is_gone_at_the_second_look_is_none(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read that went wrong once is not the file's fault."""
    segment = _segments(project)[0]
    content = segment.path.read_bytes()
    segment.path.write_bytes(b"")
    monkeypatch.setattr(time, "sleep", lambda _: segment.path.write_bytes(content))
    shelf = files.of_deployment(project, "api").shelf
    assert quarantine.set_aside(shelf, segment) is None
    assert segment.path.read_bytes() == content


def test_a_wrong_query_sets_nothing_aside(project: Project) -> None:
    """What DuckDB says of a query is the query's fault, also where it sounds like that of a file."""
    store = PredictionStore(project)
    for sql in (
        "select nothing from predictions",
        "select error('zstd decompression of parquet failed')",
        "select cast('x' as int)",
        "select * from read_parquet('/tmp/nothing.parquet')",
    ):
        with pytest.raises(InvalidInput):
            store.query(sql)
    assert store.extent("api").quarantined == 0
    assert store.count() == 3000


def test_damaged_labels_are_set_aside_too(project: Project) -> None:
    """Predictions are read without the labels that are lost."""
    from loopwright.predictions import LabelLog
    from loopwright.records import Label

    store = PredictionStore(project)
    ids = store.table(columns=["prediction_id"]).column(0).to_pylist()
    log = LabelLog(project)
    log.append([Label(one, 1) for one in ids[:10]])
    log.close()
    assert store.count(labelled=True) == 10
    (segment,) = files.labels(project).segments()
    segment.path.write_bytes(b"gone")
    assert store.count(labelled=True) == 0
    assert store.count() == 3000
