"""What the monitoring pages say of a watched project, and the JSON interface over it."""

import asyncio
import contextlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import jsonschema
import pytest
from fastapi import FastAPI
from watched_bikes import API, BATCH, HOUR, LONG, TURN, WAITING, WINDOWS, Watched, watched

from loopwright.console import tokens
from loopwright.console.app import make_routes, register_api
from loopwright.console.formats import Reader
from loopwright.console.monitoring import alert_panels, charts, feature_charts, feature_panels, panels
from loopwright.console.monitoring.alerts import AlertOf, AlertsOf, bins_of
from loopwright.console.monitoring.api import document
from loopwright.console.monitoring.drift import DriftOf
from loopwright.console.monitoring.features import FeatureOf, FeaturesOf
from loopwright.console.monitoring.health import HealthOf, OverviewOf
from loopwright.console.monitoring.live import LiveOf
from loopwright.console.monitoring.model import MonitoredOf
from loopwright.console.monitoring.performance import CalibrationOf, LabelsOf, PerformanceOf, SegmentsOf
from loopwright.console.monitoring.quality import QualityOf
from loopwright.console.monitoring.source import Source
from loopwright.console.monitoring.windows import WindowOf, WindowsOf
from loopwright.console.monitoring.words import CHECKS, name_of, sentence
from loopwright.console.refresh import Board
from loopwright.errors import NotFound
from loopwright.ledger import Ledger
from loopwright.ledger.store import user
from loopwright.monitor.results import Results
from loopwright.predictions import PredictionStore
from loopwright.records import Judged, Signal, Window


class Client:
    """A program that asks the JSON interface of a project, without a server in between."""

    def __init__(self, bikes: Watched, base_url: str) -> None:
        application = FastAPI(openapi_url=None)
        register_api(Board(bikes.project), application)
        transport = httpx.ASGITransport(application, raise_app_exceptions=False)
        self._client = httpx.AsyncClient(transport=transport, base_url=base_url)
        self._runner = asyncio.Runner()

    def get(self, path: str) -> httpx.Response:
        """Read."""
        return self._runner.run(self._client.get(path))

    def post(self, path: str, **sent: Any) -> httpx.Response:
        """Change something."""
        return self._runner.run(self._client.post(path, **sent))

    def close(self) -> None:
        """End it."""
        self._runner.run(self._client.aclose())
        self._runner.close()


BASE = f"/api/monitoring/deployments/{API}"


@pytest.fixture(scope="module")
def bikes(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """Return a project that has been watched for days."""
    return watched(tmp_path_factory.mktemp("bikes"))


@pytest.fixture(scope="module")
def source(bikes: Watched) -> Iterator[Source]:
    """Return what questions about it are answered from."""
    ledger = Ledger.open(bikes.project)
    yield Source(bikes.project, ledger, PredictionStore(bikes.project), datetime.now(UTC))
    ledger.close()


@pytest.fixture(scope="module")
def client(bikes: Watched) -> Iterator[Client]:
    """Return a client of its JSON interface, as a program on this machine."""
    opened = Client(bikes, "http://127.0.0.1:8500")
    yield opened
    opened.close()


def test_the_deployment_with_trouble_comes_first(source: Source) -> None:
    """Its metric, drift, KPIs, labels and alerts are in one line; another one without windows says so."""
    first, second = OverviewOf().answer(source).deployments
    assert (first.deployment, second.deployment) == (API, BATCH)
    assert first.trouble > second.trouble
    assert first.metric is not None
    assert (first.metric.metric, first.metric.version, first.metric.limit) == ("accuracy", 4, 0.8)
    assert first.metric.lower is not None
    assert first.metric.value is not None
    assert first.metric.lower < first.metric.value
    assert (first.drifted, first.inputs) == (3, 8)
    assert [(kpi.name, kpi.met) for kpi in first.kpis] == [("stockouts", True), ("revenue", True)]
    assert first.waiting == WAITING
    assert (first.alerts.critical, first.alerts.warning, first.alerts.info) == (0, 2, 3)
    assert first.alerts.acknowledged == 1
    assert (second.metric, second.last_window, second.alerts.open) == (None, None, 0)


def test_performance_has_intervals_and_says_which_windows_wait(source: Source) -> None:
    """A mature window has a value with its interval; one that waits has none; a segment can be asked for."""
    found = PerformanceOf(API).answer(source)
    assert len(found.points) == WINDOWS - WAITING - 1
    assert {one.state for one in found.waiting} == {"immature", "overdue"}
    assert found.metrics == ("accuracy", "f1")
    newest = found.points[-1]
    assert newest.lower is not None
    assert newest.upper is not None
    assert newest.value is not None
    assert newest.lower < newest.value < newest.upper
    part = PerformanceOf(API, segment="district=district 2", windows=10).answer(source)
    assert 0 < len(part.points) <= 10
    assert {one.segment for one in part.points} == {"district=district 2"}


def test_the_heat_map_is_complete(source: Source) -> None:
    """Each feature has a cell in each window; those that drift come first; a search and pages narrow it."""
    found = DriftOf(API).answer(source)
    assert len(found.cells) == WINDOWS * 8
    assert {one.name for one in found.features[:3]} == {"temperature", "weather", LONG}
    assert found.firing == 3
    fired = {cell.window for cell in found.cells if cell.fired and cell.feature < 3}
    assert fired == set(range(TURN, WINDOWS))
    assert [one.name for one in DriftOf(API, search="WEA").answer(source).features] == ["weather"]
    page = DriftOf(API, offset=5, limit=2).answer(source)
    assert (len(page.features), page.total, len(page.cells)) == (2, 8, 2 * WINDOWS)
    assert len(DriftOf(API, windows=10).answer(source).windows) == 10


def test_segments_come_worst_first(source: Source) -> None:
    """Each beside the value over all rows; pages of them are possible."""
    found = SegmentsOf(API).answer(source)
    assert found.total == 6
    assert found.segments[0].segment == "district=district 2"
    values = [one.value for one in found.segments]
    assert values == sorted(values)  # type: ignore[type-var]
    assert {one.overall for one in found.segments} == {PerformanceOf(API).answer(source).points[-1].value}
    assert len(SegmentsOf(API, offset=4, limit=10).answer(source).segments) == 2


def test_calibration_has_how_often_forecasts_came_true(source: Source) -> None:
    """By forecast probability, of the newest mature window; bins of another kind are none."""
    found = CalibrationOf(API).answer(source)
    assert found.found is not None
    assert (found.found.subject, found.found.fired, found.of) == ("probability", False, "1")
    assert [one.predicted for one in found.bins] == [0.1, 0.3, 0.5, 0.7, 0.9]
    assert CalibrationOf(BATCH).answer(source).found is None
    points = charts.calibration(found, tokens.LIGHT)["series"][1]["data"]
    assert [point["value"][1] for point in points] == [round(one.observed, 4) for one in found.bins]


def test_labels_and_quality(source: Source) -> None:
    """Windows whose labels are on the way have a share; what fired in data quality comes first."""
    labels = LabelsOf(API).answer(source)
    assert [one.state for one in labels.windows[-3:]] == ["immature"] * 3
    assert [round(one.maturity or 0, 2) for one in labels.windows[-3:]] == [0.55, 0.35, 0.15]
    quality = QualityOf(API).answer(source)
    assert quality.fired == 2
    assert {(one.check, one.subject) for one in quality.found[:2]} == {
        ("missing", "humidity"),
        ("out_of_range", "temperature"),
    }
    assert {one.check for one in QualityOf(API, check="missing").answer(source).found} == {"missing"}
    assert QualityOf(API, fired=True).answer(source).total == 2


def test_a_numeric_feature(source: Source) -> None:
    """Its distribution is counted from the newest window, the mean moved by one deviation, alerts are its own."""
    found = FeatureOf(API, "temperature").answer(source)
    assert (found.type, found.kind, found.version, found.basis) == (
        "double",
        "numeric",
        4,
        "newest window",
    )
    assert found.firing
    assert sum(one.reference for one in found.bins) == pytest.approx(1, abs=1e-6)
    assert sum(one.current for one in found.bins) == pytest.approx(1, abs=1e-6)
    assert found.current_mean is not None
    assert found.reference_mean is not None
    assert found.reference_std is not None
    assert (found.current_mean - found.reference_mean) / found.reference_std == pytest.approx(1, abs=0.2)
    assert len(found.drift) == WINDOWS
    assert found.out_of_range[-1].fired
    assert {one.subject for one in found.alerts} == {"temperature"}
    assert len(found.moved) > 1


def test_a_categorical_feature(source: Source) -> None:
    """Categories are listed with their change; there is no mean."""
    found = FeatureOf(API, "weather").answer(source)
    assert found.kind == "categorical"
    assert found.moved == ()
    assert {one.name for one in found.categories} >= {"clear", "cloudy", "rain", "snow"}
    changes = [abs(one.change) for one in found.categories]
    assert changes == sorted(changes, reverse=True)


def test_unknown_names_are_told_with_the_nearest(source: Source) -> None:
    """A feature, a deployment, a window and an alert that do not exist."""
    with pytest.raises(NotFound, match="Did you mean 'humidity'"):
        FeatureOf(API, "humidty").answer(source)
    with pytest.raises(NotFound, match="Did you mean 'bike-api'"):
        MonitoredOf("bike-apo").answer(source)
    with pytest.raises(NotFound, match="The newest starts at"):
        WindowOf(API, datetime(2020, 1, 1, tzinfo=UTC)).answer(source)
    with pytest.raises(NotFound, match="no alert 'nothing'"):
        AlertOf("nothing").answer(source)


def test_windows_are_paged_without_losing_one(source: Source, bikes: Watched) -> None:
    """Following `before` from page to page gives each window of each phase once."""
    seen: list[tuple[datetime, str]] = []
    before = None
    for _ in range(100):
        page = WindowsOf(API, before=before, limit=7).answer(source)
        seen += [(one.start, one.phase) for one in page.windows]
        before = page.before
        if before is None:
            break
    assert len(seen) == len(set(seen)) == 2 * WINDOWS
    assert seen[0][0] == bikes.end - HOUR
    immature = WindowsOf(API, phase="labels", state="immature").answer(source)
    assert len(immature.windows) == WAITING


def test_a_window_has_all_that_was_found_in_it(source: Source, bikes: Watched) -> None:
    """What fired comes first; its neighbours can be reached; findings are paged."""
    start = bikes.end - 4 * HOUR
    found = WindowOf(API, start).answer(source)
    assert [one.phase for one in found.phases] == ["labels", "inputs"]
    fired = [one.fired for one in found.found]
    assert fired == sorted(fired, reverse=True)
    assert sum(fired) == sum(one.fired for one in found.phases)
    assert {one.check for one in found.found} >= {"drift", "performance", "kpi", "missing", "estimated"}
    assert (found.earlier, found.later) == (start - HOUR, start + HOUR)
    rest = WindowOf(API, start, offset=5, limit=3).answer(source)
    assert rest.found == found.found[5:8]
    assert {one.check for one in WindowOf(API, start, check="kpi").answer(source).found} == {"kpi"}


def test_alerts_say_who_looks_after_them_and_whom_they_were_told(source: Source) -> None:
    """A silence marks its alert; history and messages are there; the curve has the values around it."""
    page = AlertsOf().answer(source)
    assert [one.severity for one in page.alerts[:2]] == ["warning", "warning"]
    silent = [one for one in page.alerts if one.silenced_until]
    assert [(one.check, one.subject) for one in silent] == [("missing", "humidity")]
    assert page.silences[0].reason == "the sensor is being replaced"
    weather = next(one for one in page.alerts if one.subject == "weather")
    assert (weather.state, weather.by) == ("acknowledged", "ada")
    detail = AlertOf(weather.short).answer(source)
    assert [one.what for one in detail.history] == ["acknowledged", "opened"]
    assert detail.history[0].by == "ada"
    assert {(one.address, one.state) for one in detail.messages} == {
        ("mailto://ops@example.com", "sent"),
        ("slack://...", "failed"),
    }
    assert len(detail.points) == 60
    assert sum(one.reference for one in detail.alert.bins) == pytest.approx(1)


def test_traffic_is_counted_live(source: Source) -> None:
    """Rows over hours, from what the controller counted: as many as the log has."""
    found = LiveOf(API, 6 * 3600).answer(source)
    assert found.basis == "live"
    logged = source.store.query("select count(*) from predictions", deployment=API, until=found.until)
    assert sum(one.rows for one in found.points) == logged.column(0)[0].as_py()
    assert LiveOf(BATCH, 3600).answer(source).points == ()


def test_answers_change_only_when_something_has(source: Source) -> None:
    """The stamp stays while nothing is judged or put, and changes with a window."""
    question = DriftOf(API)
    before = question.stamp(source)
    assert question.stamp(source) == before
    at = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - 400 * timedelta(hours=1)
    Results(source.ledger).record(Judged(API, "bikes", "inputs", 4, Window(at, at + HOUR), "empty"), ())
    assert question.stamp(source) != before
    Results(source.ledger).prune(at + 2 * HOUR)


def test_bins_that_are_none_are_passed_over() -> None:
    """What a check left for a plot may be counts or shares; anything else is no plot."""
    found = bins_of(
        {"bins": [{"bin": "a", "reference": 30, "current": 1}, {"bin": "b", "reference": 10, "current": 3}]}
    )
    assert [(one.reference, one.current) for one in found] == [(0.75, 0.25), (0.25, 0.75)]
    lists = {"labels": ["a", "b"], "reference": [0.75, 0.25], "current": [0.25, 0.75]}
    assert bins_of({"bins": lists}) == found
    assert bins_of({"bins": lists | {"current": [1.0]}}) == ()
    for wrong in (None, 3, [3], [{"bin": "a"}], [{"bin": "a", "reference": "x", "current": 1}], []):
        assert bins_of({"bins": wrong}) == ()
    assert bins_of({}) == ()


@pytest.mark.parametrize("check", sorted(CHECKS))
def test_every_check_has_words(check: str) -> None:
    """A finding of each check is a sentence with its value and limit, also where it has no subject."""
    at = datetime(2026, 1, 2, tzinfo=UTC)
    signal = Signal(check, "m", "d", Window(at, at), 0.5, 0.25, 40, True, "a<b", 3)
    from loopwright.console.monitoring.views import Found

    found = Found(check, "a<b", "s=1", 3, at, at, signal.value, None, None, signal.limit, 40, True)
    assert sentence(found).startswith(name_of(check))
    assert "limit" in sentence(found)


def test_names_of_others_cannot_become_markup(source: Source) -> None:
    """Features, segments and reasons are escaped wherever they are shown."""
    import dataclasses

    bad = '"><script>alert(1)</script>'
    view = MonitoredOf(API).answer(source)
    quality = dataclasses.replace(
        view.quality,
        found=tuple(dataclasses.replace(one, subject=bad, segment=bad) for one in view.quality.found),
    )
    alerts = tuple(dataclasses.replace(one, subject=bad, message=bad, advice=bad) for one in view.alerts)
    feature = dataclasses.replace(FeatureOf(API, "weather").answer(source), name=bad, what=bad)
    shown = (
        panels.quality(quality)
        + alert_panels.brief(alerts, Reader())
        + feature_panels.feature_head(feature)
        + panels.failed(tuple(dataclasses.replace(one, reason=bad) for one in view.failed), Reader())
    )
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown


def test_charts_differ_between_themes_in_colours_only(source: Source) -> None:
    """Every chart has options for light and dark, with the same data."""
    view, feature = MonitoredOf(API).answer(source), FeatureOf(API, "temperature").answer(source)
    drift = DriftOf(API).answer(source)
    for make in (
        lambda colours: charts.performance(view.performance, view.markers, colours),
        lambda colours: charts.estimated(view.estimated, colours),
        lambda colours: charts.kpi(view.kpis[0], colours),
        lambda colours: charts.labels(view.labels, colours),
        lambda colours: charts.calibration(view.calibration, colours),
        lambda colours: charts.drift(drift, colours),
        lambda colours: feature_charts.distribution(feature.bins, colours),
        lambda colours: feature_charts.drift(feature.drift, colours),
        lambda colours: feature_charts.moved(feature, colours),
    ):
        light, dark = make(tokens.LIGHT), make(tokens.DARK)
        assert light != dark
        colour = re.compile(r"#[0-9a-f]{6}")
        assert colour.sub("", repr(light)) == colour.sub("", repr(dark))


def test_an_interval_is_a_band_below_its_line(source: Source) -> None:
    """The lower bound and the height above it are stacked, and have the numbers of the interval."""
    view = PerformanceOf(API).answer(source)
    series = charts.performance(view, (), tokens.LIGHT)["series"]
    low, height, line = series[0], series[1], series[2]
    first = next(one for one in view.points if one.version == 3)
    assert low["data"][0][1] == first.lower
    assert first.upper is not None
    assert first.lower is not None
    assert low["data"][0][1] + height["data"][0][1] == pytest.approx(first.upper)
    assert low["stack"] == height["stack"]
    assert line["name"] == "version 3"
    areas = series[-1]["markArea"]["data"]
    assert len(areas) == WAITING + 1


def test_a_project_without_windows_has_empty_answers(tmp_path: Path) -> None:
    """Nothing was judged: every answer is there, and empty."""
    from console_seed import API as DIGITS
    from console_seed import make_project

    project = make_project(tmp_path)
    ledger = Ledger.open(project)
    empty = Source(project, ledger, PredictionStore(project), datetime.now(UTC))
    view = MonitoredOf(DIGITS).answer(empty)
    assert (view.performance.points, view.kpis, view.labels.windows, view.quality.found) == ((), (), (), ())
    assert (view.health.metric, view.health.last_window) == (None, None)
    assert DriftOf(DIGITS).answer(empty).total == 0
    assert FeaturesOf(DIGITS).answer(empty).total == 0
    assert HealthOf(DIGITS).answer(empty).trouble == 0
    charts.performance(view.performance, view.markers, tokens.LIGHT)
    ledger.close()


# The JSON interface.


def paths(bikes: Watched) -> list[str]:
    """Return an address of each route that reads."""
    start = quote((bikes.end - 4 * HOUR).isoformat())
    return [
        "/api/deployments",
        f"/api/deployments/{API}",
        "/api/maturity",
        "/api/monitoring/deployments",
        BASE,
        *(f"{BASE}/{part}" for part in ("health", "series", "performance", "estimated", "segments", "kpis")),
        *(
            f"{BASE}/{part}"
            for part in ("labels", "log", "calibration", "quality", "drift", "features", "windows")
        ),
        f"{BASE}/features/temperature",
        f"{BASE}/features/{LONG}",
        f"{BASE}/windows/{start}",
        "/api/monitoring/alerts?state=all",
        "/api/monitoring/silences",
    ]


def test_every_answer_is_as_the_document_says(client: Client, bikes: Watched) -> None:
    """Each route is described, with a schema that its real answer fits."""
    described = client.get("/api/openapi.json").json()
    tried = set()
    alert = client.get("/api/monitoring/alerts").json()["alerts"][0]["short"]
    for path in [*paths(bikes), f"/api/monitoring/alerts/{alert}"]:
        answer = client.get(path)
        assert answer.status_code == 200, (path, answer.text)
        template = match(described, path.partition("?")[0])
        schema = described["paths"][template]["get"]["responses"]["200"]["content"]["application/json"][
            "schema"
        ]
        whole = schema | {"components": described["components"]}
        jsonschema.Draft202012Validator(whole).validate(answer.json())
        tried.add(template)
    reading = {path for path, methods in described["paths"].items() if "get" in methods}
    assert reading == tried


def match(described: dict[str, Any], path: str) -> str:
    """Return the template of a path that is described."""
    fits = []
    for template in described["paths"]:
        pattern = re.sub(r"\\{(feature|alert)\\}", ".+", re.escape(template))
        if re.fullmatch(re.sub(r"\\{[a-z]+\\}", "[^/]+", pattern), path):
            fits.append(template)
    return min(fits, key=lambda template: template.count("{"))


def test_every_route_is_in_the_document(bikes: Watched) -> None:
    """Nothing below /api is left out, and each has a description and a schema of its answer."""
    described = document(*make_routes(Board(bikes.project)))
    assert len(described["paths"]) >= 24
    for path, methods in described["paths"].items():
        for what in methods.values():
            assert what["description"], path
            assert what["responses"]["200"]["content"]["application/json"]["schema"] != {}, path


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        (f"{BASE}/windows/yesterday", 400, "is no moment with a time zone"),
        (f"{BASE}/windows/2026-01-01T00:00:00", 400, "is no moment with a time zone"),
        (f"{BASE}/windows/2020-01-01T00:00:00Z", 404, "has no window that starts at"),
        (f"{BASE}/drift?windows=0", 400, "greater than or equal to 1"),
        (f"{BASE}/drift?limit=100000", 400, "less than or equal to 1000"),
        (f"{BASE}/windows?phase=late", 400, "query.phase"),
        (f"{BASE}/features/nothing", 404, "There is no input 'nothing'"),
        ("/api/monitoring/deployments/bike-apo/drift", 404, "bike-api"),
        ("/api/monitoring/alerts/ffffffff", 404, "no alert"),
    ],
)
def test_what_is_asked_wrongly_is_said(client: Client, path: str, status: int, said: str) -> None:
    """Wrong moments, ranges and names are 4xx with a reason, in the form of all errors."""
    answer = client.get(path)
    assert answer.status_code == status
    assert said in answer.json()["error"]["message"] + answer.json()["error"].get("valid", "")


def test_metrics_for_prometheus(client: Client) -> None:
    """What monitors found is at /metrics, in Prometheus's text."""
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert f'loopwright_monitor_kpi{{deployment="{API}",kpi="stockouts"}}' in answer.text
    assert "loopwright_monitor_label_maturity" in answer.text


def test_alerts_are_acknowledged_silenced_and_resolved(tmp_path: Path) -> None:
    """Each change is one call, in the name of who is given or of this process's user; a repeated one conflicts."""
    bikes = watched(tmp_path, windows=10, rows=10)
    with contextlib.closing(Client(bikes, "http://localhost:8500")) as client:
        alerts = client.get("/api/monitoring/alerts").json()["alerts"]
        alert = next(one for one in alerts if one["subject"] == "temperature" and one["check"] == "drift")
        url = f"/api/monitoring/alerts/{alert['short']}"
        done = client.post(f"{url}/acknowledge", json={"note": "on it"}).json()
        assert (done["alert"]["state"], done["alert"]["by"]) == ("acknowledged", user())
        assert done["history"][0]["note"] == "on it"
        quiet = client.post(f"{url}/silence", json={"seconds": 3600, "reason": "known"}).json()
        assert quiet["alert"]["silenced_until"] is not None
        (silence,) = [
            one for one in client.get("/api/monitoring/silences").json() if one["reason"] == "known"
        ]
        assert silence["subject"] == "temperature"
        ended = client.post(f"/api/monitoring/silences/{silence['id']}/end", json={})
        assert ended.status_code == 200
        assert client.get(url).json()["alert"]["silenced_until"] is None
        over = client.post(f"{url}/resolve", json={"by": "grace", "reason": "the sensor was changed"}).json()
        assert over["alert"]["state"] == "resolved"
        assert (over["history"][0]["by"], over["history"][0]["note"]) == ("grace", "the sensor was changed")
        # By its whole id, which has slashes in it.
        again = client.post(f"/api/monitoring/alerts/{quote(alert['id'])}/acknowledge", json={})
        assert again.status_code == 409
        made = client.post("/api/monitoring/silences", json={"seconds": 60, "check": "drift"}).json()
        assert made["check"] == "drift"
        assert client.post("/api/monitoring/silences", json={"seconds": 60, "chekc": "x"}).status_code == 400
        assert client.post(f"{url}/silence", json={"seconds": 0}).status_code == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://127.0.0.1:8500", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Host": "localhost:8500"}, 200),
        ({"Host": "[::1]:8500"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:9999"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Host": "evil.example:8500", "Origin": "http://evil.example:8500"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "[bad"}, 403),
        ({"Content-Type": "text/plain"}, 400),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 400),
    ],
)
def test_a_foreign_page_changes_nothing(client: Client, headers: dict[str, str], status: int) -> None:
    """Only this console's pages and programs on this machine may post, and only JSON."""
    sent = {"Content-Type": "application/json"} | headers
    answer = client.post("/api/sql", content=b'{"sql": "select 1 as one"}', headers=sent)
    assert answer.status_code == status, answer.text
    alert = client.get("/api/monitoring/alerts").json()["alerts"][0]
    if status != 200:
        url = f"/api/monitoring/alerts/{alert['short']}/resolve"
        assert client.post(url, content=b"{}", headers=sent).status_code == status
        assert (
            client.get(f"/api/monitoring/alerts/{alert['short']}").json()["alert"]["state"] == alert["state"]
        )
