"""What Prometheus gets: text that its own parser reads, with the figures that were counted."""

import subprocess
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from console_seed import make_project
from prometheus_client.parser import text_string_to_metric_families

from loopwright.config import Project
from loopwright.deploy.online import meters
from loopwright.deploy.online.levels import Objective, ServiceLevel
from loopwright.deploy.online.meters import Meters, Snapshot
from loopwright.deploy.online.metrics import exposition

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return a project without any history."""
    return make_project(tmp_path / "project")


def busy(worker: str, factor: int = 1) -> Meters:
    """Return the meters of a worker that has answered."""
    mine = Meters(worker)
    meter = mine.of('api "quoted"\n')
    for _ in range(factor):
        meter.decode.add(3e-6)
        meter.decode.add(0.0012)
        meter.queue.add(100.0)
    meter.request("predict", 200, 5 * factor)
    meter.request("v2", 422, factor)
    meter.refuse("queue_full")
    meter.queued_rows, meter.queued_bytes = 12, 3400
    meter.batch_rows.add(3)
    meter.batch_rows.add(70)
    meter.swaps += 1
    champion, candidate = meter.variant("champion", 3, "onnx"), meter.variant("candidate", 4, "native")
    champion.rows += 9
    champion.score.add(0.0005)
    candidate.score.add(0.004)
    champion.latency.add(0.002)
    meter.serves([champion])
    mine.facts["access_dropped"] = 4
    return mine


def samples(
    own: Snapshot, others: Iterable[Snapshot] = (), *, levels: Iterable[ServiceLevel] = ()
) -> Samples:
    """Return what the parser reads; no series may be there twice."""
    found: Samples = {}
    for family in text_string_to_metric_families(exposition(own, others, levels).decode()):
        assert family.documentation
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in found
            found[key] = sample.value
    return found


def figure(found: Samples, name: str, **labels: str) -> float:
    """Return the sum of the series with these labels; at least one must be there."""
    mine = [
        value
        for (one, given), value in found.items()
        if one == name and labels.items() <= dict(given).items()
    ]
    assert mine, f"{name} {labels} is not there"
    return sum(mine)


def test_every_figure_is_there_as_it_was_counted() -> None:
    """Counters, gauges and histograms have the names, labels and values of what was counted."""
    found = samples(busy("serving-1").snapshot())
    name = 'api "quoted"\n'
    assert figure(found, "loopwright_requests_total", deployment=name, protocol="predict", status="200") == 5
    assert figure(found, "loopwright_requests_total", protocol="v2", status="422") == 1
    assert figure(found, "loopwright_refused_total", reason="queue_full") == 1
    assert figure(found, "loopwright_rows_total", variant="champion", version="3") == 9
    assert figure(found, "loopwright_queue_rows", worker="serving-1") == 12
    assert figure(found, "loopwright_queue_bytes") == 3400
    assert figure(found, "loopwright_swaps_total") == 1
    assert figure(found, "loopwright_access_dropped_total") == 4
    assert figure(found, "loopwright_worker_up") == 1
    assert abs(figure(found, "loopwright_worker_start_time_seconds") - time.time()) < 60


def test_histograms_are_cumulative_and_complete() -> None:
    """Buckets rise, the last holds all, and sum and count are those of the observations."""
    found = samples(busy("serving-1").snapshot())
    stage = {
        float(dict(labels)["le"]): value
        for (name, labels), value in found.items()
        if name == "loopwright_stage_seconds_bucket" and dict(labels)["stage"] == "decode"
    }
    ordered = [value for _, value in sorted(stage.items())]
    assert ordered == sorted(ordered)
    assert stage[8e-6] == 1
    assert stage[0.001024] == 1
    assert stage[0.002048] == stage[float("inf")] == 2
    assert figure(found, "loopwright_stage_seconds_count", stage="decode") == 2
    assert figure(found, "loopwright_stage_seconds_sum", stage="decode") == pytest.approx(0.001203)
    # Beyond the last bucket, and still counted.
    assert figure(found, "loopwright_stage_seconds_bucket", stage="queue", le="67.1089") == 0
    assert figure(found, "loopwright_stage_seconds_count", stage="queue") == 1
    assert figure(found, "loopwright_stage_seconds_count", stage="score") == 2
    assert figure(found, "loopwright_score_seconds_sum", variant="candidate") == pytest.approx(0.004)
    assert figure(found, "loopwright_latency_seconds_count", variant="champion", version="3") == 1
    assert figure(found, "loopwright_batch_rows_bucket", le="4") == 1
    assert figure(found, "loopwright_batch_rows_sum") == 73


def test_only_what_is_served_is_named_as_a_model() -> None:
    """The info series names the variants that answer now, with their runtime, and no earlier one."""
    found = samples(busy("serving-1").snapshot())
    assert figure(found, "loopwright_model_info", variant="champion", version="3", runtime="onnx") == 1
    assert not [
        labels for name, labels in found if name == "loopwright_model_info" and ("version", "4") in labels
    ]


def test_all_workers_are_shown_by_each(project: Project) -> None:
    """The figures of other workers come from their files, each under its own name."""
    own = busy("serving-1").save(project)
    busy("serving-2", 3).save(project)
    found = samples(own, meters.read(project, without="serving-1"))
    assert figure(found, "loopwright_requests_total", worker="serving-2", status="200") == 15
    assert figure(found, "loopwright_requests_total", status="200") == 20
    assert figure(found, "loopwright_queue_rows") == 24


def test_a_dead_worker_keeps_its_counters_and_loses_its_gauges(project: Project) -> None:
    """What it answered stays counted; what waited in it, and what it served, is gone."""
    dead = busy("serving-2").snapshot()
    dead.written -= 60
    found = samples(busy("serving-1").snapshot(), [dead])
    assert figure(found, "loopwright_requests_total", worker="serving-2", status="200") == 5
    assert figure(found, "loopwright_worker_up", worker="serving-2") == 0
    assert figure(found, "loopwright_queue_rows") == 12
    assert figure(found, "loopwright_model_info") == 1


def test_no_counter_goes_backwards_between_two_workers(project: Project) -> None:
    """Scrapes that reach one worker after the other see each counter rise, also right after it was counted."""
    first, second = busy("serving-1"), busy("serving-2")
    seen = 0.0
    for turn in range(6):
        asked, other = (first, second) if turn % 2 else (second, first)
        first.of('api "quoted"\n').request("predict", 200)
        second.of('api "quoted"\n').request("predict", 200)
        found = samples(asked.save(project), meters.read(project, without=asked.worker))
        assert figure(found, "loopwright_requests_total", worker=asked.worker, status="200") == 6 + turn
        if turn:
            now = figure(found, "loopwright_requests_total", worker=other.worker, status="200")
            assert now >= seen
        seen = figure(found, "loopwright_requests_total", worker=asked.worker, status="200")


def test_the_service_level_is_shown_where_it_is_known() -> None:
    """Target, share, budget and burn rates are there for each promise; what is not known has no sample."""
    quick = Objective("latency", 0.99, 0, 0, None, None, None, None, "")
    kept = Objective("availability", 0.999, 10_000, 25, 0.9975, -1.5, 3.0, 0.0, "")
    level = ServiceLevel("api", 86400.0, 0.1, datetime(2026, 11, 26, tzinfo=UTC), 10_000, quick, kept)
    found = samples(Meters("serving-1").snapshot(), levels=[level])
    here = {"deployment": "api", "objective": "availability"}
    assert figure(found, "loopwright_slo_target_ratio", **here) == 0.999
    assert figure(found, "loopwright_slo_good_ratio", **here) == 0.9975
    assert figure(found, "loopwright_slo_error_budget_left_ratio", **here) == -1.5
    assert figure(found, "loopwright_slo_burn_rate", window="1h", **here) == 3
    assert not [
        labels
        for name, labels in found
        if name == "loopwright_slo_good_ratio" and ("objective", "latency") in labels
    ]


def test_the_library_is_loaded_by_the_first_scrape_only() -> None:
    """A worker that nobody scrapes does not pay for the library."""
    code = "import sys, loopwright.deploy.online.metrics; print('prometheus_client' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_nothing_counted_makes_no_histogram() -> None:
    """A deployment that nobody asked yet has its gauges and counters, and no buckets of zeros."""
    mine = Meters("serving-1")
    mine.of("idle").variant("champion", 1, "onnx")
    found = samples(mine.snapshot())
    assert figure(found, "loopwright_queue_rows", deployment="idle") == 0
    assert figure(found, "loopwright_model_info", deployment="idle") == 1
    assert [name for name, _ in found if name.endswith("_bucket")] == []
