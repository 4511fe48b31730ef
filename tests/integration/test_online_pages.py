"""The try-it page in a real browser, in front of a real model."""

import asyncio
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from console_visits import open_browser
from described_deployments import mixed, quantiles
from four_modes import FILTERS, wine_version

from loopwright.config import Project
from loopwright.deploy.base import publish
from loopwright.deploy.online import tryit
from loopwright.deploy.online.app import App
from loopwright.deploy.online.codecs.base import Reply
from loopwright.deploy.online.described import Described, described
from loopwright.deploy.online.follower import Follower, online
from loopwright.ledger import Ledger
from loopwright.predictions import Ids, LabelLog, PredictionStore
from loopwright.records import Deployment, Mode, Variant

pytestmark = [pytest.mark.integration, *(pytest.mark.filterwarnings(text) for text in FILTERS)]
TOML = """
[model.wine]
target = "grower"
[deployment.wine-api]
model = "wine"
mode = "online"
"""
BOTTLES = "bottle"


class Front:
    """The pages and, behind them, the application with a real model; other deployments keep what they are sent."""

    def __init__(self, app: App, deployments: dict[str, Described | None]) -> None:
        self.app = app
        self.deployments = deployments
        self.sent: list[tuple[dict[str, str], Any]] = []
        self.answers: list[tuple[int, Any]] = []
        self.key = ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        path = scope["path"]
        name = path.rpartition("/")[2]
        if self.key and dict(scope["headers"]).get(b"x-api-key", b"").decode() != self.key:
            await self._reply(send, 401, tryit.door("cellar"))
        elif path == "/":
            await self._reply(send, 200, tryit.index("cellar", self.deployments))
        elif path.startswith("/try/"):
            one = self.deployments[name]
            assert one is not None
            await self._reply(send, 200, tryit.page("cellar", name, one))
        elif path.startswith("/predict/") and name != "wine-api":
            body = (await receive())["body"]
            self.sent.append(
                ({key.decode(): value.decode() for key, value in scope["headers"]}, json.loads(body))
            )
            status, answer = self.answers.pop(0)
            await self._reply(send, status, Reply(json.dumps(answer).encode()))
        else:
            await self.app(scope, receive, send)

    @staticmethod
    async def _reply(send: Any, status: int, reply: Reply) -> None:
        headers = [(b"content-type", reply.content_type), *reply.headers]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Front, Project]]:
    """Return the address of the pages, what answers there, and the project."""
    root = tmp_path_factory.mktemp("tryit")
    (root / "loopwright.toml").write_text(TOML)
    project = Project(root)
    wine_version(project)
    ledger, ids, log = Ledger.open(project), Ids.open(project), LabelLog(project)
    publish(ledger, Deployment("wine-api", "wine", Mode.online, (Variant("champion", 1),), salt="s"))
    app = App(project, online(project, ledger, ids, "serving-1"), log, ids)
    Follower(project, ledger, ids, "serving-1", app).turn()
    route = app.predictors["wine-api"].route
    assert route is not None
    own = described(route, project.scorer("wine", 1), BOTTLES)
    front = Front(app, {"wine-api": own, "churn-api": mixed(), "demand": quantiles(), "idle-api": None})
    config = uvicorn.Config(
        front, host="127.0.0.1", port=0, log_level="warning", lifespan="off", log_config=None
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    while not server.started:
        assert thread.is_alive()
        thread.join(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}", front, project
    server.should_exit = True
    thread.join()
    app.close()
    for predictor in app.predictors.values():
        predictor.close()
    log.close()
    ledger.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Return a headless browser."""
    with open_browser() as opened:
        yield opened


class Visit:
    """One page in a browser, with all that went wrong on it."""

    def __init__(self, browser: Any, address: str, *, scheme: str = "light", width: int = 1400) -> None:
        self.context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        self.page.goto(address)

    def send(self) -> str:
        """Press Predict and return the answer as it is written."""
        self.page.evaluate("document.getElementById('result').replaceChildren()")
        self.page.click("#send")
        self.page.wait_for_selector("#result > *")
        return str(self.page.inner_text("#result"))

    def code(self, kind: str) -> str:
        """Return what one of the tabs shows."""
        self.page.click(f"[data-shows={kind}]")
        return str(self.page.inner_text("#code"))

    def close(self, *, expected: str = "") -> None:
        """Leave the page; nothing else than what is expected may have gone wrong on it."""
        wide = self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        self.context.close()
        assert wide <= 0
        assert [one for one in self.errors if not expected or expected not in one] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 420])
def test_a_real_row_is_answered_by_the_model(
    served: tuple[str, Front, Project], browser: Any, scheme: str, width: int
) -> None:
    """The prefilled row gives the model's answer with its shares; nothing is wider than the screen."""
    url, front, project = served
    visit = Visit(browser, f"{url}/try/wine-api", scheme=scheme, width=width)
    said = visit.send()
    answer = json.loads(visit.code("answer"))
    example = front.deployments["wine-api"]
    assert example is not None
    logged = PredictionStore(project).find(answer["prediction_id"])
    assert logged.inputs == example.example
    for part in (
        answer["prediction"],
        answer["prediction_id"],
        "wine/1",
        "champion",
        "anna",
        "bruno",
        "carla",
    ):
        assert part in said
    filled = visit.page.eval_on_selector_all(".fill", "all => all.map(one => one.style.width)")
    shares = sorted(answer["probability"].values(), reverse=True)
    assert [float(text.rstrip("%")) for text in filled] == pytest.approx(
        [100 * share for share in shares], abs=0.01
    )
    visit.page.click("#another")
    visit.send()
    other = PredictionStore(project).find(json.loads(visit.code("answer"))["prediction_id"])
    assert other.inputs == example.examples[1]
    visit.close()


def test_the_shown_calls_work_as_they_stand(
    served: tuple[str, Front, Project], browser: Any, capsys: Any
) -> None:
    """The curl command and the Python program give the same answer as the button, for the entity that was typed."""
    url, _, project = served
    visit = Visit(browser, f"{url}/try/wine-api")
    visit.page.fill("#entity", "Müller's 1")
    visit.send()
    first = json.loads(visit.code("answer"))
    exec(visit.code("python"), {})
    prediction, identifier = capsys.readouterr().out.split()
    ids = [first["prediction_id"], identifier]
    assert prediction == first["prediction"]
    if shutil.which("curl"):
        command = ["bash", "-c", visit.code("curl")]
        done = subprocess.run(command, capture_output=True, check=True, timeout=30)
        again = json.loads(done.stdout)
        assert again["probability"] == first["probability"]
        ids.append(again["prediction_id"])
    assert {PredictionStore(project).find(one).entity for one in ids} == {"Müller's 1"}
    visit.close()


def test_every_type_is_sent_as_it_was_typed(served: tuple[str, Front, Project], browser: Any) -> None:
    """Large numbers are exact, missing is null, a value that is not in the list can be typed, headers are UTF-8."""
    url, front, _ = served
    base = {"prediction_id": "p", "model": "churn", "version": 4, "variant": "candidate"}
    shares = {"leaves": 0.2, "stays": 0.8, "</script>": 0.0}
    front.answers = [(200, base | {"prediction": "stays", "probability": shares})] * 2
    visit = Visit(browser, f"{url}/try/churn-api")
    page = visit.page
    visit.send()
    page.fill("#input-1", "+0000012345678901234567")
    page.uncheck("#field-3 .missing input")
    page.fill("#input-3", "1e3")
    page.select_option("#input-4", label="another value ...")
    page.fill("#field-4 .other", 'a "quoted" <b>')
    page.check("#field-5 .missing input")
    page.uncheck("#input-6")
    page.fill("#input-7", "2026-01-31T12:00")
    page.fill("#entity", "日本")
    page.select_option("#variant", "candidate")
    page.fill("#key", "k-1")
    assert "candidate" in visit.send()
    (_, first), (headers, second) = front.sent
    front.sent.clear()
    assert first == mixed().example | {"since": "2020-02-29T08:30:00.25Z"}
    assert second == {
        "age": 41,
        "visits": 12345678901234567,
        "height m": 1.75,
        "income": 1000,
        "city": 'a "quoted" <b>',
        "note": None,
        "member": False,
        "since": "2026-01-31T12:00:00Z",
        "last": None,
    }
    assert (headers["x-entity"], headers["x-variant"], headers["x-api-key"]) == ("日本", "candidate", "k-1")
    visit.close()


def test_what_is_wrong_is_shown_where_it_is(served: tuple[str, Front, Project], browser: Any) -> None:
    """A field that is empty is marked before anything is sent; what the server refuses is shown at its field."""
    url, front, _ = served
    visit = Visit(browser, f"{url}/try/churn-api")
    visit.page.fill("#input-0", "")
    visit.page.click("#send")
    assert "A value is needed" in visit.page.inner_text("#field-0.wrong")
    visit.page.fill("#input-0", "1.5")
    visit.page.click("#send")
    assert "whole number" in visit.page.inner_text("#field-0.wrong")
    assert front.sent == []
    visit.page.fill("#input-0", "200")
    assert "outside 18 to 89" in visit.page.inner_text("#field-0.outside")
    error = {
        "code": "schema_mismatch",
        "message": "Row 0, field 'age': no.",
        "valid": "Less.",
        "hint": "do it",
    }
    front.answers = [(422, {"error": error | {"field": "age", "row": 0}})]
    said = visit.send()
    for part in ("422 schema_mismatch", "Row 0, field 'age': no.", "Less.", "do it"):
        assert part in said
    assert "Less." in visit.page.inner_text("#field-0.wrong")
    front.sent.clear()
    visit.close(expected="422")


def test_several_outputs_are_shown_by_name(served: tuple[str, Front, Project], browser: Any) -> None:
    """Quantiles are bars with their names and values."""
    url, front, _ = served
    base = {"prediction_id": "p", "model": "demand", "version": 1, "variant": "champion"}
    front.answers = [(200, base | {"prediction": [12.5, 50.0, 100.0]})]
    visit = Visit(browser, f"{url}/try/demand")
    said = visit.send()
    for part in ("p10", "12.5", "p50", "50", "p90", "100"):
        assert part in said
    visit.close()
    front.sent.clear()


def test_the_index_leads_to_the_pages(served: tuple[str, Front, Project], browser: Any) -> None:
    """A click on a deployment opens its page, and the theme that was chosen goes along."""
    url, _, _ = served
    visit = Visit(browser, url, width=420)
    visit.page.click(".theme")
    visit.page.click("a.card[href='/try/wine-api']")
    visit.page.wait_for_selector("#form")
    assert visit.page.evaluate("document.documentElement.dataset.theme") == "dark"
    visit.close()


def test_a_key_opens_the_pages(served: tuple[str, Front, Project], browser: Any) -> None:
    """Where a key is needed the browser is asked for it once; a wrong one is said to be wrong; requests carry it."""
    url, front, _ = served
    front.key = "lw_secret"
    try:
        visit = Visit(browser, url)
        page = visit.page
        assert page.query_selector("a.card") is None
        page.fill("#key", "lw_wrong")
        page.click(".send")
        page.get_by_text("This key is not valid.").wait_for(timeout=20_000)
        page.fill("#key", "lw_secret")
        page.click(".send")
        page.wait_for_selector("a.card")
        page.click("a.card[href='/try/wine-api']")
        page.wait_for_selector("#form")
        assert page.input_value("#key") == "lw_secret"
        assert "wine/1" in visit.send()
        visit.close(expected="401")
    finally:
        front.key = ""
