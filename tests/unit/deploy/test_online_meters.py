"""Numbers that a serving process counts: exact counts, quantiles within their bound, and files that others can read."""

import math
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from console_seed import make_project

from loopwright.config import Project
from loopwright.deploy.online import meters
from loopwright.deploy.online.meters import BOUNDS, Histogram, Meter, Meters, Sizes


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return a project without any history."""
    return make_project(tmp_path / "project")


@pytest.mark.parametrize("q", [0.01, 0.5, 0.95, 0.99])
def test_quantiles_lie_within_a_factor_of_the_square_root_of_two(q: float) -> None:
    """A quantile of any spread of times is off by less than its bucket is wide."""
    random = np.random.default_rng(5)
    seconds = 10 ** random.normal(-3.5, 1.0, 20_000)
    times = Histogram()
    for one in seconds.tolist():
        times.add(one)
    found = times.quantile(q)
    assert found is not None
    true = float(np.quantile(seconds, q))
    assert 1 / math.sqrt(2) < found / true < math.sqrt(2)
    assert times.count == 20_000
    assert times.total == pytest.approx(seconds.sum())


def test_every_time_finds_its_bucket() -> None:
    """Times from nothing to months are counted between the bounds of their bucket, and none is out of range."""
    for seconds in (0.0, 1e-9, 9.9e-7, 1e-6, 1.5e-6, 3.3e-4, 1.0, 59.9, 3600.0, 1e7):
        times = Histogram()
        times.add(seconds)
        place = times.counts.index(1)
        assert seconds <= BOUNDS[place] * (1 + 1e-12)
        assert place == 0 or seconds >= BOUNDS[place - 1] * (1 - 1e-12)


def test_nothing_counted_has_no_quantile() -> None:
    """Without observations nothing is known: no quantile, no mean."""
    assert Histogram().quantile(0.5) is None
    assert Histogram().mean is None
    assert Sizes().quantile(0.5) is None


def test_batch_sizes_fall_into_powers_of_two() -> None:
    """A batch of n rows is counted in the bucket whose largest batch is the next power of two."""
    sizes = Sizes()
    for rows in (1, 2, 3, 4, 5, 64, 65, 4096):
        sizes.add(rows)
    counted = {bound: n for bound, n in zip(sizes.bounds, sizes.counts, strict=True) if n}
    assert counted == {1: 1, 2: 1, 4: 2, 8: 1, 64: 1, 128: 1, 4096: 1}
    assert sizes.total == 4240


def test_threads_lose_no_count() -> None:
    """Four threads that add at the same time, interrupted as often as can be, count every observation."""
    meter = Meter("api")
    times = meter.decode
    n = 20_000

    def work() -> None:
        for _ in range(n):
            times.add(0.0012)
            meter.request("predict", 200)
            meter.batch_rows.add(3)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert times.count == 4 * n
    assert times.total == pytest.approx(4 * n * 0.0012)
    assert meter.requests == {"predict": {200: 4 * n}}
    assert meter.batch_rows.total == 4 * n * 3


def test_a_variant_is_counted_on_when_it_comes_back() -> None:
    """The same variant and version are the same meter; what is served is told apart from what was."""
    meter = Meter("api")
    champion = meter.variant("champion", 3, "onnx")
    champion.rows += 5
    candidate = meter.variant("candidate", 4)
    meter.serves([candidate])
    assert [one.serving for one in meter.variants] == [False, True]
    assert meter.variant("champion", 3) is champion
    assert champion.serving
    assert champion.runtime == "onnx"


def test_versions_without_end_take_no_memory_without_end() -> None:
    """Of a hundred versions one after the other only the newest stay counted."""
    meter = Meter("api")
    for version in range(100):
        meter.variant("champion", version)
    assert len(meter.variants) == 16
    assert meter.variants[-1].version == 99


def test_what_one_process_writes_another_reads(project: Project) -> None:
    """All numbers of all workers come back from their files, and can be put together."""
    for number in (1, 2):
        mine = Meters(f"serving-{number}")
        meter = mine.of("api")
        meter.decode.add(0.001 * number)
        meter.request("v2", 200, 10 * number)
        meter.request("predict", 422)
        meter.refuse("queue_full")
        meter.queued_rows = 7
        meter.variant("champion", 3, "onnx").rows += 11
        meter.variant("champion", 3).latency.add(0.004)
        mine.save(project)
    found = meters.read(project)
    assert [one.worker for one in found] == ["serving-1", "serving-2"]
    whole = Meter("api")
    for one in found:
        assert one.alive(time.time())
        whole.merge(one.meters[0])
    assert whole.decode.count == 2
    assert whole.decode.total == pytest.approx(0.003)
    assert whole.requests == {"v2": {200: 30}, "predict": {422: 2}}
    assert whole.refused == {"queue_full": 2}
    assert whole.queued_rows == 14
    assert [(one.name, one.version, one.rows, one.runtime) for one in whole.variants] == [
        ("champion", 3, 22, "onnx")
    ]
    assert whole.variants[0].latency.count == 2
    assert [one.worker for one in meters.read(project, without="serving-1")] == ["serving-2"]


def test_a_dead_worker_is_told_apart_and_forgotten_in_time(project: Project) -> None:
    """A worker that stopped writing is not alive after ten seconds, and not shown after an hour."""
    mine = Meters("serving-1")
    mine.of("api")
    mine.save(project)
    written = meters.read(project)[0].written
    assert not meters.read(project, at=written + 11)[0].alive(written + 11)
    assert meters.read(project, at=written + 3601) == []


def test_a_damaged_file_hides_no_other_worker(project: Project) -> None:
    """A file that is torn or foreign is passed over."""
    Meters("serving-2").save(project)
    (project.run / "meters" / "serving-1.json").write_bytes(b'{"worker": "serving-1", "pid"')
    assert [one.worker for one in meters.read(project)] == ["serving-2"]


def test_a_snapshot_stays_as_it_was() -> None:
    """What is counted after a snapshot is not in it."""
    mine = Meters("serving-1")
    mine.of("api").decode.add(0.001)
    taken = mine.snapshot()
    mine.of("api").decode.add(0.001)
    assert taken.meters[0].decode.count == 1
    mine.forget("api")
    assert mine.snapshot().meters == []


def test_what_happened_lately_is_told_apart_from_all_that_did(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Figures of the last minutes leave out what was counted before them, put together over the living workers."""
    clock = time.time()
    monkeypatch.setattr(time, "time", lambda: clock)
    workers = [Meters(f"serving-{number}") for number in (1, 2)]
    for mine in workers:
        mine.of("api").request("predict", 500, 40)
        mine.of("api").refuse("queue_full")
        mine.of("api").decode.add(2.0)
        mine.of("api").variant("champion", 3).rows += 40
        mine.of("api").swaps += 1
    for minute in range(1, 9):
        clock += 60
        for mine in workers:
            mine.of("api").request("predict", 200, 10)
            mine.of("api").decode.add(0.001)
            mine.of("api").batch_rows.add(4)
            mine.of("api").queued_rows = 5
            mine.of("api").variant("champion", 3).rows += 10
            mine.save(project)
        found = meters.recent(meters.read(project, at=clock), "api", clock)
        assert found is not None
        # A young process shows all that it did, and never less than four minutes afterwards.
        assert found.seconds == (60 * minute if minute < 5 else 240)
    assert found is not None
    assert found.workers == 2
    assert found.seconds == 240
    assert found.meter.requests["predict"] == {200: 80, 500: 0}
    assert found.meter.refused == {"queue_full": 0}
    assert found.meter.swaps == 0
    assert found.meter.queued_rows == 10
    assert found.meter.variants[0].rows == 80
    assert found.meter.decode.count == 8
    assert found.meter.decode.total == pytest.approx(0.008)
    assert found.meter.batch_rows.total == 32
    assert meters.recent(meters.read(project, at=clock), "other", clock) is None
    assert meters.recent(meters.read(project, at=clock + 60), "api", clock + 60) is None
