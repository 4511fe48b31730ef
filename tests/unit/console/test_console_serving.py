"""What the page of an online deployment says of how it answers."""

import dataclasses
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from console_seed import API, CONFIG, answering, make_project, seed

from loopwright.config import Project
from loopwright.console import charts, fragments, serving, serving_panel, snapshot, tokens
from loopwright.console.formats import duration, percent, size
from loopwright.console.monitoring.source import Source
from loopwright.console.views import Serving, Story
from loopwright.deploy.online import keys
from loopwright.deploy.online.levels import Levels
from loopwright.deploy.online.meters import Meters
from loopwright.ledger import Ledger
from loopwright.predictions import PredictionStore
from loopwright.records import Deployment, Mode, Variant


def story(project: Project, name: str = API, later: timedelta = timedelta(0)) -> Story:
    """Return the story of a deployment."""
    ledger = Ledger.open(project)
    at = datetime.now(UTC) + later
    found = snapshot.story(snapshot.Moment.read(Source(project, ledger, PredictionStore(project), at)), name)
    ledger.close()
    return found


def view(found: Story) -> Serving:
    """Return how it answers."""
    assert found.serving is not None
    return found.serving


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a project with a story and a worker that has answered."""
    made = make_project(tmp_path_factory.mktemp("serving"))
    seed(made, state="canary")
    return made


@pytest.fixture(scope="module")
def worker(project: Project) -> Meters:
    """Return the numbers of the worker."""
    return answering(project)


@pytest.fixture
def told(project: Project, worker: Meters) -> Story:
    """Return the story of the deployment as its worker just wrote its numbers."""
    worker.save(project)
    return story(project)


def test_figures_are_those_that_the_worker_counted(told: Story) -> None:
    """Stages, batches, requests, refusals and the queue are the worker's counts."""
    found = view(told)
    assert found.workers == 1
    assert [one.name for one in found.stages] == list(serving.STAGES)
    assert all(one.n == 6000 for one in found.stages)
    score = found.stages[2]
    assert score.p50_ms == pytest.approx(0.42, rel=0.2)
    assert score.p95_ms is not None
    assert score.p99_ms is not None
    assert score.p50_ms is not None
    assert score.p50_ms < score.p95_ms < score.p99_ms
    assert sum(one.share for one in found.stages) == pytest.approx(1)
    assert [one.rows for one in found.batches][:4] == [1, 2, 4, 8]
    assert sum(one.share for one in found.batches) == pytest.approx(1)
    assert found.mean_batch == pytest.approx(5, rel=0.1)
    assert [(one.status, one.name, one.n) for one in found.requests][:2] == [
        (200, "predict", 18_240),
        (200, "v2", 2730),
    ]
    assert [(one.name, one.n) for one in found.refused] == [("queue_full", 12), ("too_large", 1)]
    assert (found.queued_rows, found.queued_rows_limit) == (37, 50_000)


def test_the_budget_is_shown_with_words(told: Story) -> None:
    """What is left of both budgets is there as a figure, as a bar and as a sentence."""
    level = view(told).level
    assert level is not None
    assert level.availability.missed == 86
    assert level.availability.budget_left is not None
    page = serving_panel.budget(told)
    assert f"width:{100 * level.availability.budget_left:.1f}%" in page
    assert f"{percent(level.availability.budget_left)} left" in page
    assert "99.9 % of requests without an error: 99.95 % were" in page
    assert "86 of 190,686 missed" in page


def test_an_overspent_budget_is_told_plainly(tmp_path: Path) -> None:
    """A budget below nothing has an empty bar, and says by how much it is overspent."""
    project = make_project(tmp_path)
    slo = project.deployment(API).slo
    assert slo is not None
    counts = Levels(project, "serving-1")
    meter = counts.of(API, slo)
    for status in (200,) * 990 + (503,) * 10:
        meter.add(0.001, status)
    counts.close()
    page = serving_panel.budget(story(project))
    assert "overspent" in page
    assert "900.0 % over" in page
    assert "budget-bar bad" in page
    assert "width:0.0%" in page


def test_each_variant_says_what_computes_it_and_why(told: Story) -> None:
    """Runtime, reason and proof come from the prepared scorers; a refused version says why."""
    runs = {one.version: one for one in view(told).runs}
    assert (runs[4].runtime, runs[4].replay_rows, runs[4].label_flips) == ("onnx", 1797, 0)
    assert (runs[3].runtime, runs[3].reason) == ("native", "ONNX changes 2 of 600 labels")
    page = serving_panel.runtimes(told)
    # Where the manifest has no proofs, it is the reason and the figures of the replay.
    assert (
        "ONNX changes 2 of 600 labels Replay of 1,797 rows: largest difference 0.02 of 1e-05 allowed, 2 labels changed."
        in page
    )
    refused = view(told).refused_versions
    assert [(one.version, one.workers) for one in refused] == [(5, ("serving-1",))]
    assert "3 of 200 golden rows differ" in page


def test_a_version_that_is_not_prepared_says_so(tmp_path: Path) -> None:
    """A variant without a scorer is shown with the reason, and never hides the others."""
    project = make_project(tmp_path)
    seed(project, state="quiet")
    (only,) = view(story(project)).runs
    assert only.runtime == ""
    assert "No scorer is prepared" in only.reason
    assert "not prepared" in serving_panel.runtimes(story(project))


def test_bands_and_proofs_are_words_and_times_a_table(told: Story) -> None:
    """Which runtime answers how many rows is a sentence, each proof is one without its times, and those are a table."""
    proven = next(one for one in view(told).runs if one.version == 4)
    assert proven.bands == "onnx up to 82 rows, native above"
    assert proven.proofs == (
        "onnx: agrees with the model on 1,797 rows; largest difference 2.2e-16, 0 labels changed (tolerance 1e-05)",
        "native: the model itself",
    )
    assert [(one.runtime, one.rows) for one in proven.timings] == [
        (runtime, rows) for runtime in ("onnx", "native") for rows in (1, 16, 256, 4096)
    ]
    page = serving_panel.runtimes(told)
    assert "onnx up to 82 rows, native above" in page
    assert ">12 µs<" in page
    assert proven.answers == {1: "onnx", 16: "onnx", 256: "native", 4096: "native"}
    assert page.count('class="num serves"') == 4
    assert "2.2e\u201116, 0 labels" in page
    # 12 us is 8 % of the way from 10 us to 100 ms, on a logarithmic scale.
    assert "width:2%" in page
    assert "logarithmic, 10 µs to 100 ms." in page


def test_a_shadow_answers_nobody(tmp_path: Path) -> None:
    """A shadow is told among what computes, and not among the versions that answer."""
    project = make_project(tmp_path)
    variants = (Variant("champion", 3), Variant("shadow", 4, 0.0, shadow=True))
    with_shadow = Ledger.open(project)
    with_shadow.put("deployment", API, Deployment(API, "digits", Mode.online, variants))
    with_shadow.close()
    found = story(project)
    assert [one.version for one in found.card.variants] == [3]
    assert [(one.version, one.shadow) for one in view(found).runs] == [(3, False), (4, True)]
    assert "version 4 · shadow, answers nobody" in serving_panel.runtimes(found)
    assert found.card.shadows == (4,)
    head = fragments.heading(found)
    assert "version 3, version 4 as a shadow" in head
    assert "4 0 %" not in head
    assert " 0 %" not in serving_panel.runtimes(found)


def test_a_model_that_is_unloaded_is_told_as_asleep(tmp_path: Path) -> None:
    """A living process that unloaded the model is asleep; one before it that said so counts for nothing."""
    config = CONFIG.replace('mode = "online"', 'mode = "online"\nunload_after = "1m"', 1)
    project = make_project(tmp_path, config)
    variants = (Variant("champion", 3),)
    ledger = Ledger.open(project)
    ledger.put("deployment", API, Deployment(API, "digits", Mode.online, variants))
    mine = Meters("serving-1")
    mine.of(API)
    mine.save(project)
    said = {"pid": os.getpid(), "serving": {}, "refused": {}, "asleep": [API]}
    ledger.put("worker", "serving-1", said)
    found = story(project)
    assert found.card.state == "asleep"
    assert [(one.name, one.state) for one in view(found).processes] == [("serving-1", "asleep")]
    assert "The next request wakes it" in (serving_panel.absent(found) or "")
    assert "serving-1 asleep" in serving_panel.rules(found)
    ledger.put("worker", "serving-1", said | {"pid": 1})
    assert story(project).card.state == "idle"
    ledger.put("worker", "serving-1", said | {"asleep": [], "serving": {API: {"champion": 3}}})
    assert [one.state for one in view(story(project)).processes] == ["serving"]
    ledger.close()


def test_what_applies_to_callers_and_rows_is_said(tmp_path: Path) -> None:
    """Sample, dropped and hashed fields, limits and keys, one line each; a sampled log's numbers say that they are."""
    config = CONFIG.replace(
        'mode = "online"',
        'mode = "online"\nlog = { sample = 0.25, drop = ["pixel_0_0"], hash = ["entity"] }\ntimeout = "2s"',
        1,
    )
    project = make_project(tmp_path, config)
    found = story(project)
    assert view(found).rules == {
        "log": "25 % of the rows, without pixel_0_0, entity hashed, survives a killed process",
        "limits": "any rate, bodies up to 16 MB, 2 s to answer, 50,000 rows may wait in 1 worker",
        "API key": "not needed from this machine",
    }
    page = serving_panel.rules(found) + fragments.tiles(found)
    assert "25 % of the rows, without pixel_0_0, entity hashed" in page
    assert "Logged predictions per second" in page
    ledger = Ledger.open(project)
    keys.create(ledger, "shop")
    ledger.close()
    assert view(story(project)).rules["API key"] == "needed"


def test_a_dead_worker_leaves_no_figures_of_now(told: Story, project: Project) -> None:
    """When no process writes any more the panels say how to start one, and the budget stays."""
    found = story(project, later=timedelta(minutes=2))
    assert view(found).workers == 0
    assert view(found).stages == ()
    absent = serving_panel.absent(found)
    assert absent is not None
    assert "loopwright" in absent
    assert view(found).level is not None
    assert serving_panel.absent(told) is None
    for make in (serving_panel.stages, serving_panel.requests, serving_panel.queue):
        assert make(found) == ""


def test_other_modes_have_no_such_panel(told: Story, project: Project) -> None:
    """Only online deployments answer requests."""
    assert story(project, "digits-batch").serving is None


def test_without_a_promise_the_panel_says_how_to_make_one(tmp_path: Path) -> None:
    """A deployment without `slo` shows what to write."""
    config = '[model.m]\ntarget = "y"\n[deployment.api]\nmodel = "m"\nmode = "online"\n'
    page = serving_panel.budget(story(make_project(tmp_path, config), "api"))
    assert "No service level is declared." in page
    assert ">availability<" in page


def test_charts_have_what_the_table_has(told: Story) -> None:
    """The picture of the stages spans all times in whole powers of ten; both themes differ in colours only."""
    found = view(told)
    for make in (charts.stages, charts.batches):
        light, dark = (make(found, tokens.palette(theme)) for theme in (False, True))
        assert light != dark
        assert [one["data"] for one in light["series"]] == [one["data"] for one in dark["series"]]
    axis = charts.stages(found, tokens.LIGHT)["xAxis"]
    times = [value for one in found.stages for value in (one.p50_ms, one.p99_ms) if value]
    assert axis["min"] <= min(times)
    assert axis["max"] >= max(times)
    assert charts.batches(found, tokens.LIGHT)["xAxis"]["data"][:4] == ["1", "2", "3-4", "5-8"]
    nothing = dataclasses.replace(found, stages=(), batches=())
    assert charts.stages(nothing, tokens.LIGHT)["series"][0]["data"] == []


def test_everything_is_json(told: Story) -> None:
    """The same figures go out as JSON, service level and words included."""
    body = msgspec.json.decode(msgspec.json.encode(told))["serving"]
    assert body["stages"][2]["name"] == "score"
    assert body["level"]["availability"]["missed"] == 86
    assert len(body["level_words"]) == 2
    assert body["runs"][0]["runtime"] == "native"


def test_small_figures_are_never_rounded_to_nothing_or_all() -> None:
    """Times carry their unit, and shares near the ends say on which side they are."""
    assert [duration(value) for value in (0.0034, 0.42, 0.9999, 12.34, 999.6, 2500, None)] == [
        "3.4 µs",
        "420 µs",
        "1 ms",
        "12.3 ms",
        "1 s",
        "2.5 s",
        "-",
    ]
    assert [percent(share) for share in (0, 0.0001, 0.123, 0.99999, 1)] == [
        "0 %",
        "< 0.1 %",
        "12.3 %",
        "> 99.9 %",
        "100 %",
    ]
    assert [size(count) for count in (512, 9800, 64e6, 2.5e9)] == ["512 B", "9.8 kB", "64 MB", "2.5 GB"]
