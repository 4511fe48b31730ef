"""What the console says of a project, from the ledger and the log alone."""

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from console_seed import API, make_project, seed

from loopwright.config import Project
from loopwright.console import charts, sentences, snapshot, tokens
from loopwright.console.formats import Reader, latency, number, rate, span
from loopwright.console.links import Links
from loopwright.console.monitoring.drift import DriftOf
from loopwright.console.monitoring.source import Source
from loopwright.console.views import Glance, Story
from loopwright.ledger import Ledger
from loopwright.predictions import PredictionStore

NOW = datetime.now(UTC).replace(microsecond=0)
LINKS = Links("http://127.0.0.1:1/mlflow", "http://127.0.0.1:1/prefect")


def views(project: Project, name: str = API) -> tuple[Glance, Story]:
    """Return the glance over a project and the story of one deployment."""
    ledger = Ledger.open(project)
    moment = snapshot.Moment.read(Source(project, ledger, PredictionStore(project), NOW))
    found = snapshot.glance(moment), snapshot.story(moment, name, LINKS)
    ledger.close()
    return found


@pytest.fixture(scope="module", params=["promoted", "rolled_back", "canary", "quiet"])
def state(request: pytest.FixtureRequest) -> str:
    """Return how far the story has gone."""
    return str(request.param)


@pytest.fixture(scope="module")
def project(state: str, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a project whose story has gone that far."""
    made = make_project(tmp_path_factory.mktemp(state))
    seed(made, state=state, end=NOW)
    return made


def test_the_release_says_how_it_stands(project: Project, state: str) -> None:
    """Its stages, its verdict and the versions that serve agree with the ledger."""
    _, story = views(project)
    release = story.card.release
    serving = {share.version: share.weight for share in story.card.variants}
    if state == "quiet":
        assert release is None
        assert serving == {3: 1.0}
        return
    assert release is not None
    assert (release.champion, release.candidate, release.ended) == (3, 4, state != "canary")
    expected = {"promoted": {4: 1.0}, "rolled_back": {3: 1.0}, "canary": {3: 0.5, 4: 0.5}}
    assert serving == expected[state]
    assert [stage.name for stage in release.stages][:2] == ["Training", "Gate"]
    if state == "canary":
        assert [stage.state for stage in release.stages].count("now") == 1
    assert release.gate is not None
    assert release.gate.rows == 400


def test_the_figures_are_those_of_the_log(project: Project, state: str) -> None:
    """Rows, rate and latency are computed from logged rows; the metric of each version is what its windows had."""
    _, story = views(project)
    numbers = story.card.numbers
    store = PredictionStore(project)
    assert numbers.rows == store.count(deployment=API, since=story.since)
    assert 10 < numbers.per_s < 22
    assert numbers.latency_p50_ms is not None
    assert numbers.latency_p99_ms is not None
    assert numbers.latency_p50_ms == pytest.approx(1.3, abs=0.2)
    assert numbers.latency_p99_ms > 2 * numbers.latency_p50_ms
    assert {series.version for series in story.metric} == ({3, 4} if state == "promoted" else {3})
    first = next(series for series in story.metric if series.version == 3)
    assert first.points[2].value == pytest.approx(0.957, abs=0.07)
    if state == "promoted":
        assert numbers.metric.version == 4


def test_the_timeline_tells_it_in_order(project: Project, state: str) -> None:
    """Newest first; a promotion, a rollback and an alert are sentences with their numbers."""
    _, story = views(project)
    times = [entry.at for entry in story.timeline]
    assert times == sorted(times, reverse=True)
    told = "\n".join(entry.text for entry in story.timeline)
    assert "Pipeline train finished in 4 steps after 8.4 s." in told
    if state == "quiet":
        assert "Alert" not in told
        return
    assert "Alert opened: accuracy of digits/3 in digits-api is 0.744" in told
    assert "Gate met: accuracy 0.931 against 0.744 on 400 rows." in told
    decided = {
        "promoted": "Decision: version 4 promoted: the upper bound -0.08 is below the margin 0.03.",
        "rolled_back": "Decision: version 4 rolled back: the lower bound 0.12 is above 0.03.",
    }
    assert (decided.get(state, "Canary step 3 of 3: version 4 gets 50 %.")) in told


def test_drift_names_the_features_that_fired(project: Project, state: str) -> None:
    """Nine features drift after the shift, until a version that knows the new data serves."""
    ledger = Ledger.open(project)
    found = DriftOf(API).answer(Source(project, ledger, PredictionStore(project), NOW))
    ledger.close()
    assert found.firing == (0 if state in {"quiet", "promoted"} else 9)
    assert "pixel_2_5" in [one.name for one in found.features[:9]] or state == "quiet"


def test_every_chart_has_options_for_both_themes(project: Project) -> None:
    """Charts differ between light and dark only in colours."""
    _, story = views(project)
    for make in (charts.traffic, charts.latency, charts.metric):
        light, dark = (make(story, tokens.palette(theme)) for theme in (False, True))
        assert light != dark
        assert [line.get("data") and len(line["data"]) for line in light["series"]] == [
            line.get("data") and len(line["data"]) for line in dark["series"]
        ]


def test_the_glance_has_all_declared_deployments(project: Project) -> None:
    """Those that were never started say how to start."""
    glance, _ = views(project)
    assert [card.name for card in glance.deployments] == [
        "digits-api",
        "digits-batch",
        "digits-stream",
        "digits-edge",
    ]
    edge = glance.deployments[-1]
    assert not edge.started
    assert edge.hint == "loopwright edge bundle digits-edge"


def test_an_empty_project_has_a_page(tmp_path: Path) -> None:
    """Without any event or prediction there is nothing to draw, and a hint what to do."""
    glance, story = views(make_project(tmp_path))
    assert len(glance.deployments) == 4
    assert not story.card.started
    assert (story.traffic, story.metric, story.timeline, story.alerts) == ((), (), (), ())
    assert story.card.hint == "loopwright pipeline run digits"


def test_what_others_did_in_the_registry_is_told(tmp_path: Path) -> None:
    """Versions of MLflow's button and aliases moved on its page are part of the story."""
    project = make_project(tmp_path)
    facts = {"alias": "champion", "model": "digits", "version": 5}
    ledger = Ledger.open(project)
    ledger.append("model.found", "digits", {"version": 5})
    ledger.append("model.incomplete", "digits", {"version": 6, "reason": "it has no signature"})
    ledger.append("model.deleted", "digits", {"version": 4})
    ledger.append("alias.removed", "digits", {"alias": "shadow", "previous": 3})
    ledger.append("deployment.followed", API, facts)
    ledger.append("deployment.refused", API, facts | {"version": 6, "reason": "answers differ on 3 rows"})
    ledger.close()
    _, story = views(project)
    assert [one.text for one in story.timeline][::-1] == [
        "Version 5 registered in MLflow.",
        "Version 6 cannot be served yet: it has no signature.",
        "Version 4 deleted from the registry.",
        "Alias shadow taken from version 3.",
        "Version 5 put into service: it was made champion in the registry.",
        "Version 6 was made champion in the registry and is not served: answers differ on 3 rows.",
    ]


def test_links_lead_to_the_same_thing() -> None:
    """Pages of MLflow are routes behind a hash; without a server there is no address."""
    assert LINKS.run("ab").url == "http://127.0.0.1:1/mlflow/#/runs/ab"
    assert LINKS.version("a b", 3).url == "http://127.0.0.1:1/mlflow/#/models/a%20b/versions/3"
    assert LINKS.flow_run("cd").url == "http://127.0.0.1:1/prefect/runs/flow-run/cd"
    assert Links().run("ab").url == ""


def test_numbers_are_written_as_people_read_them() -> None:
    """Digits that matter at their size; what is not known is a hyphen, never 0."""
    assert [number(value) for value in (0.9531, 25.04, 12345.6, None)] == ["0.953", "25.0", "12,346", "-"]
    assert [latency(value) for value in (0.456, 1.26, 250.4, None)] == ["0.46", "1.3", "250", "-"]
    assert [rate(value) for value in (11.52, 1234.5)] == ["11.5", "1,234"]
    assert [span(value) for value in (12, 240, 10800, 200000)] == ["12 s", "4 min", "3 h", "2 d"]


def test_times_are_those_of_the_reader() -> None:
    """A zone that does not exist is this machine's."""
    moment = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
    assert Reader(zone="Asia/Tokyo").clock(moment) == "21:00:00"
    assert Reader(zone="Mars/Olympus").clock(moment) == moment.astimezone().strftime("%H:%M:%S")


def test_every_kind_of_event_is_told(project: Project) -> None:
    """No event of the ledger breaks the timeline, not even one of a kind that nobody knows."""
    ledger = Ledger.open(project)
    unknown = ledger.append("something.new", API, {"a": 1})
    for event in [*ledger.events(limit=2000), dataclasses.replace(unknown, at=NOW - timedelta(days=3))]:
        say = sentences.KINDS.get(event.kind)
        if say is not None:
            tone, text, _ = say(event, LINKS)
            assert tone in {"good", "warn", "bad", "info", "plain"}
            assert text.endswith((".", "!", "?")), text
    ledger.close()
