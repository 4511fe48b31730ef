"""Sentences, release stages, empty states and markup of the console, each for what the story does not contain."""

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from console_seed import API, CONFIG, make_project

from loopwright.config import Project
from loopwright.console import charts, fragments, release_panel, snapshot, tokens
from loopwright.console.formats import Reader
from loopwright.console.links import Links
from loopwright.console.markup import el, join
from loopwright.console.monitoring.source import Source
from loopwright.console.releases import release_now
from loopwright.console.sentences import KINDS, entry
from loopwright.console.views import Point, Series, Story
from loopwright.ledger import Event, Ledger
from loopwright.predictions import PredictionStore
from loopwright.records import (
    Deployment,
    GateResult,
    Mode,
    ModelVersion,
    PipelineRun,
    Release,
    ReleaseState,
    Task,
    Variant,
    to_plain,
)

NOW = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
LINKS = Links("http://127.0.0.1:1/mlflow", "http://127.0.0.1:1/prefect")
RUN = PipelineRun("pipelines:train", "ab", "cd", "failed", NOW, 3.0, {}, error="the file is empty")
RELEASE = Release(
    "r1", "digits", API, ReleaseState.training, "by hand", NOW, NOW, champion=3, steps=(5, 25), reason="busy"
)
GATE = GateResult(False, "accuracy", 0.7, 0.9, 0.2, 0.1, 0.3, 0.02, 400, ("worse than the champion",))


def event(kind: str, payload: Any, subject: str = API) -> Event:
    """Return an event as the ledger reads it."""
    return Event(1, NOW, kind, subject, "test", None, payload)


def empty_story(project: Project, name: str = API) -> Story:
    """Return the story of a deployment as its ledger tells it."""
    ledger = Ledger.open(project)
    moment = snapshot.Moment.read(Source(project, ledger, PredictionStore(project), datetime.now(UTC)))
    found = snapshot.story(moment, name, LINKS)
    ledger.close()
    return found


@pytest.mark.parametrize(
    ("kind", "payload", "tone", "text"),
    [
        ("pipeline.failed", to_plain(RUN), "bad", "Pipeline train failed: the file is empty."),
        ("training.proposed", {"reason": "it drifts"}, "plain", "Training proposed, not started: it drifts."),
        ("training.requested", {"reason": "asked"}, "info", "Training requested: asked."),
        ("release.retried", to_plain(RELEASE), "warn", "The release tries again: busy."),
        (
            "release.gate",
            to_plain(dataclasses.replace(RELEASE, gate=GATE)),
            "bad",
            "Gate not met: accuracy 0.7 against 0.9 on 400 rows (worse than the champion).",
        ),
        (
            "worker.refused",
            {"worker": "serving-1", "version": 4, "reason": "wrong golden answers"},
            "bad",
            "serving-1 refused version 4: wrong golden answers.",
        ),
        (
            "scorer.prepared",
            {"version": 4, "runtime": "native", "reason": "no converter", "replay_rows": 0},
            "plain",
            "Version 4 runs as native: no converter.",
        ),
        ("alias.set", {"alias": "champion", "version": 1}, "plain", "Alias champion moved to version 1."),
        ("stream.dead", {"messages": 2}, "warn", "2 messages could not be answered and were put aside."),
        (
            "edge.bundled",
            {"version": 4, "bytes": 51200},
            "good",
            "Edge bundle of version 4 written, 0.05 MB, signed.",
        ),
        (
            "parity.measured",
            {"ok": False, "rows": 600, "modes": [{"mode": "online"}, {"mode": "edge"}]},
            "bad",
            "Parity of online, edge on 600 rows: answers differ.",
        ),
    ],
)
def test_events_are_sentences(kind: str, payload: dict[str, Any], tone: str, text: str) -> None:
    """What happened is said with its numbers and a tone."""
    said = entry(event(kind, payload), LINKS)
    assert (said.tone, said.text) == (tone, text)


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("payload", [{}, {"version": None}, {"variants": [], "steps": []}])
def test_an_unreadable_event_is_named_by_its_kind(kind: str, payload: dict[str, Any]) -> None:
    """One bad row of the ledger does not take the page down."""
    assert entry(event(kind, payload), LINKS).text


def test_a_run_leads_to_both_servers() -> None:
    """A pipeline's sentence links its MLflow run and its Prefect flow run; without servers there are no links."""
    urls = [link.url for link in entry(event("pipeline.failed", to_plain(RUN)), LINKS).links]
    assert urls == ["http://127.0.0.1:1/mlflow/#/runs/ab", "http://127.0.0.1:1/prefect/runs/flow-run/cd"]
    assert entry(event("pipeline.failed", to_plain(RUN)), Links()).links == ()


def test_what_others_wrote_cannot_become_markup() -> None:
    """Texts of the ledger and names are escaped in elements and in attributes."""
    bad = '"><script>alert(1)</script>'
    proposed = entry(event("training.proposed", {"reason": bad}), LINKS)
    shown = fragments.timeline((proposed,), Reader()) + fragments.missing(bad, bad, bad, [bad])
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
    assert join(el("b", "a & b"), " < c") == "<b>a &amp; b</b> &lt; c"


@pytest.mark.parametrize(
    ("changes", "states"),
    [
        ({}, ["now", "next", "next", "next", "next"]),
        ({"state": ReleaseState.failed}, ["failed", "skipped", "skipped", "skipped", "failed"]),
        (
            {"state": ReleaseState.rejected, "candidate": 4, "run_id": "ab", "gate": GATE},
            ["done", "failed", "skipped", "skipped", "failed"],
        ),
        (
            {"state": ReleaseState.evaluating, "candidate": 4},
            ["skipped", "now", "next", "next", "next"],
        ),
        (
            {"state": ReleaseState.promoted, "candidate": 4, "run_id": "ab", "step": 1},
            ["done", "done", "done", "done", "done"],
        ),
    ],
)
def test_a_release_is_a_row_of_stages(tmp_path: Path, changes: dict[str, Any], states: list[str]) -> None:
    """Training, gate, each step of the canary, and the end: what is done, what is now, what never came."""
    release = dataclasses.replace(RELEASE, **changes)
    shown = release_now(make_project(tmp_path), release, Task.classification)
    assert [stage.state for stage in shown.stages] == states
    assert shown.loss == "error"
    assert shown.summary.endswith(".")


def test_a_model_without_a_pipeline_is_registered_by_hand(tmp_path: Path) -> None:
    """The hint is the line of Python, as no command trains the model."""
    story = empty_story(make_project(tmp_path, CONFIG.replace('pipeline = "pipelines:train"', "")))
    assert story.card.hint == 'lw.register("digits", model, table)'


def test_a_registered_model_waits_for_its_start(tmp_path: Path) -> None:
    """A version without signature, run and data has a page: the next step is to start the deployment."""
    project = make_project(tmp_path)
    ledger = Ledger.open(project)
    made = ModelVersion("digits", 1, "", "file:///x", created=NOW)
    ledger.put("model_version", made.ref, made)
    ledger.append("model.registered", "digits", made)
    ledger.close()
    story = empty_story(project)
    assert story.card.hint == f"loopwright deployment start {API}"
    assert [said.text for said in story.timeline] == ["Version 1 registered."]
    assert [link.text for link in story.links] == ["Try it", "Model in MLflow"]
    shown = release_panel.release(story, Reader())
    assert "nothing is in service" in shown
    assert fragments.code(f"loopwright deployment start {API}") in shown


def test_a_version_registered_in_mlflow_alone_can_serve(tmp_path: Path) -> None:
    """The ledger knows nothing of it but that it serves: its first prediction is what comes next."""
    project = make_project(tmp_path)
    ledger = Ledger.open(project)
    served = Deployment(API, "digits", Mode.online, (Variant("champion", 2),))
    ledger.put("deployment", API, served, event="deployment.changed")
    ledger.close()
    story = empty_story(project)
    assert (story.card.state, story.card.champion) == ("idle", 2)
    assert story.card.hint.startswith("curl --json ")
    assert [link.text for link in story.links] == ["Try it", "Model in MLflow", "Version 2 in MLflow"]


@pytest.mark.parametrize(
    ("values", "step"), [((0.66, 1.0), 0.1), ((0.957, 0.958), 0.02), ((0.9, 0.9), 0.002)]
)
def test_the_axis_has_round_steps(tmp_path: Path, values: tuple[float, ...], step: float) -> None:
    """The limit is on the axis, an accuracy never goes beyond 1, and labels are at equal steps."""
    story = empty_story(make_project(tmp_path))
    points = tuple(Point(NOW + timedelta(minutes=place), value, 40) for place, value in enumerate(values))
    axis = charts.metric(dataclasses.replace(story, metric=(Series(1, points),)), tokens.LIGHT)["yAxis"]
    assert axis["min"] <= min(*values, 0.9)
    assert max(*values, 0.9) <= axis["max"] <= 1.0
    steps = (axis["max"] - axis["min"]) / axis["interval"]
    assert steps == pytest.approx(round(steps))
    assert 2 <= steps <= 7
    assert axis["interval"] == pytest.approx(step)


def test_colours_can_be_read() -> None:
    """Text reaches a contrast of 4.5:1 on its ground, in both themes."""
    for colours in (tokens.LIGHT, tokens.DARK):
        pairs = [
            (text, ground)
            for text in (colours.text, colours.muted, colours.accent, colours.good, colours.warn, colours.bad)
            for ground in (colours.surface, colours.ground)
        ]
        pairs += [
            (getattr(colours, name), getattr(colours, f"{name}_ground")) for name in ("good", "warn", "bad")
        ]
        pairs += [(colours.accent, colours.info_ground), (colours.muted, colours.raised)]
        assert [pair for pair in pairs if contrast(*pair) < 4.5] == []


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours, 1 to 21 (WCAG 2.2)."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    """Return the relative luminance of a colour such as ``#1f5fc4`` (WCAG 2.2)."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
