"""The ASGI application without a socket: batches, isolation, and what the process loads."""

import asyncio
import gc
import json
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from four_modes import add_version, wine, wine_version
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from loopwright import scoring
from loopwright.config import Project
from loopwright.deploy.base import publish
from loopwright.deploy.online.app import App
from loopwright.deploy.online.client import label, labels
from loopwright.deploy.online.follower import Follower, online
from loopwright.errors import InvalidInput, NotFound
from loopwright.ledger import Ledger
from loopwright.predictions import Ids, LabelLog, PredictionStore
from loopwright.records import Deployment, Label, Mode, Variant, now

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
TOML = """
[model.wine]
target = "grower"
[deployment.wine-api]
model = "wine"
mode = "online"
entity = "bottle"
[deployment.picky-api]
model = "wine"
mode = "online"
[deployment.idle-api]
model = "wine"
mode = "online"
[deployment.wine-batch]
model = "wine"
mode = "batch"
source = "rows.parquet"
sink = "sqlite:///out.db?table=p"
"""
TABLE = wine()
ROWS: list[dict[str, Any]] = [
    {str(name): value for name, value in row.items()}
    for row in TABLE.drop(columns="grower").to_dict("records")
]


def strict(rows: Any) -> Any:
    """Refuse what the model was not made for, as some models do."""
    if (rows.to_numpy() < 0).any():
        raise ValueError("no wine has less than nothing")
    return rows


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a project with a compiled and a native version, both in service."""
    root = tmp_path_factory.mktemp("app")
    (root / "loopwright.toml").write_text(TOML)
    project = Project(root)
    wine_version(project)
    picky = make_pipeline(FunctionTransformer(strict), LogisticRegression(max_iter=10_000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strict, "__module__", "__main__")  # pickled by value, as a notebook's function is
        add_version(project, picky.fit(TABLE.drop(columns="grower"), TABLE["grower"]), TABLE)
    ledger = Ledger.open(project)
    for name, version in (("wine-api", 1), ("picky-api", 2)):
        publish(ledger, Deployment(name, "wine", Mode.online, (Variant("champion", version),), salt="s"))
    ledger.close()
    return project


@pytest.fixture
def app(project: Project) -> Iterator[App]:
    """Return an application that serves the project."""
    ledger, ids, log = Ledger.open(project), Ids.open(project), LabelLog(project)
    made = App(project, online(project, ledger, ids, "serving-1"), log, ids)
    Follower(project, ledger, ids, "serving-1", made).turn()
    yield made
    made.close()
    for predictor in made.predictors.values():
        predictor.close()
    log.close()
    ledger.close()


async def ask(
    app: App,
    path: str,
    body: Any = None,
    headers: dict[str, str] | None = None,
    method: str = "POST",
    *,
    text: bool = False,
) -> tuple[int, Any]:
    """Send one request to the application."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {"content-type": "application/json"} | (headers or {})
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
    }
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": raw, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], sent[1]["body"].decode() if text else json.loads(sent[1]["body"])


def test_requests_of_one_turn_are_scored_together_and_never_mixed(project: Project, app: App) -> None:
    """Hundreds of requests at once share batches, and each gets the answers of its own rows."""
    bodies = [ROWS[number % 178 : number % 178 + 1 + number % 3] for number in range(300)]

    async def many() -> list[tuple[int, Any]]:
        return await asyncio.gather(*(ask(app, "/predict/wine-api", body) for body in bodies))

    columns = {name: TABLE[name].to_numpy() for name in TABLE.columns[:-1]}
    right = scoring.load(project.scorer("wine", 1)).score(columns).probability
    assert right is not None
    answers = asyncio.run(many())
    for number, (status, answer) in enumerate(answers):
        assert status == 200
        found = [list(one["probability"].values()) for one in answer["predictions"]]
        assert len(found) == len(bodies[number])
        for place, shares in enumerate(found):
            assert shares == pytest.approx(right[number % 178 + place], abs=1e-9)
    ids = [one["prediction_id"] for _, answer in answers for one in answer["predictions"]]
    assert len(set(ids)) == len(ids)


def test_a_single_record_is_answered_singly(app: App) -> None:
    """One record gives one answer, with a probability for each class."""
    status, answer = asyncio.run(ask(app, "/predict/wine-api", ROWS[0]))
    assert status == 200
    assert set(answer) == {"prediction_id", "prediction", "probability", "model", "version", "variant"}
    assert answer["prediction"] == max(answer["probability"], key=answer["probability"].get) == "anna"
    assert (answer["model"], answer["version"], answer["variant"]) == ("wine", 1, "champion")


def test_rows_that_a_model_refuses_fail_alone(app: App) -> None:
    """In one batch, the request whose rows the model refuses gets the error; the others get their answers."""
    bad = ROWS[1] | {"hue": -1.0}

    async def three() -> list[tuple[int, Any]]:
        return await asyncio.gather(*(ask(app, "/predict/picky-api", row) for row in (ROWS[0], bad, ROWS[2])))

    first, second, third = asyncio.run(three())
    assert (first[0], second[0], third[0]) == (200, 400, 200)
    assert "less than nothing" in second[1]["error"]["message"]


def test_the_entity_comes_from_the_row_then_from_the_header(project: Project, app: App) -> None:
    """A row that names its entity keeps it; the header speaks for the others; else each row is its own."""
    body = [ROWS[0] | {"bottle": "b-1"}, ROWS[1]]
    _, with_header = asyncio.run(
        ask(app, "/predict/wine-api", body, {"x-entity": "müller", "x-request-id": "r-9"})
    )
    _, without = asyncio.run(ask(app, "/predict/wine-api", ROWS[2]))
    store = PredictionStore(project)
    found = [store.find(one["prediction_id"]).entity for one in with_header["predictions"]]
    assert found == ["b-1", "müller"]
    assert store.find(without["prediction_id"]).entity == without["prediction_id"]
    one = with_header["predictions"][0]["prediction_id"]
    query = f"select request_id from predictions where prediction_id = '{one}'"
    assert store.query(query).to_pylist() == [{"request_id": "r-9"}]


def test_large_requests_go_to_a_thread_and_keep_their_order(app: App) -> None:
    """More rows than a micro-batch takes are answered too, in order, beside small requests."""
    body = ROWS * 8

    async def both() -> tuple[tuple[int, Any], tuple[int, Any]]:
        return await asyncio.gather(
            ask(app, "/predict/wine-api", body), ask(app, "/predict/wine-api", ROWS[0])
        )

    (status, large), (_, small) = asyncio.run(both())
    assert (status, len(large["predictions"])) == (200, len(body))
    assert large["predictions"][0]["probability"] == pytest.approx(small["probability"], abs=1e-9)
    predicted = [one["prediction"] for one in large["predictions"]]
    assert predicted == predicted[:178] * 8


def test_a_deployment_of_another_mode_is_named_as_such(app: App) -> None:
    """Asking a batch deployment over HTTP says in which mode it is."""
    status, answer = asyncio.run(ask(app, "/predict/wine-batch", ROWS[0]))
    assert status == 404
    assert "in mode batch" in answer["error"]["message"]


def test_ready_lists_only_what_was_started(app: App) -> None:
    """A declared deployment that was never started does not make the process unready."""
    assert asyncio.run(ask(app, "/ready", method="GET"))[0] == 200
    _, listed = asyncio.run(ask(app, "/deployments", method="GET"))
    assert {one["name"]: one["state"] for one in listed} == {
        "idle-api": "not started",
        "picky-api": "serving",
        "wine-api": "serving",
    }


def test_a_deployment_can_be_declared_while_serving(project: Project, app: App, tmp_path: Path) -> None:
    """A deployment added to loopwright.toml is known without a restart; a broken file changes nothing."""
    ledger, ids = Ledger.open(project), Ids.open(project)
    follower = Follower(project, ledger, ids, "serving-1", app)
    path = project.root / "loopwright.toml"
    try:
        path.write_text("[broken")
        follower.turn()
        assert asyncio.run(ask(app, "/predict/wine-api", ROWS[0]))[0] == 200
        path.write_text(TOML + '[deployment.new-api]\nmodel = "wine"\nmode = "online"\n')
        follower.turn()
        assert asyncio.run(ask(app, "/predict/new-api", ROWS[0]))[0] == 503
        assert asyncio.run(ask(app, "/predict/wine-api", ROWS[0]))[0] == 200
    finally:
        path.write_text(TOML)
        follower.turn()
        ledger.close()
    assert asyncio.run(ask(app, "/predict/new-api", ROWS[0]))[0] == 404


def test_an_unpublished_state_makes_the_process_unready(project: Project) -> None:
    """A started deployment that is not loaded yet is listed with its reason."""
    ledger, ids, log = Ledger.open(project), Ids.open(project), LabelLog(project)
    app = App(project, online(project, ledger, ids, "serving-2"), log, ids)
    publish(ledger, Deployment("idle-api", "wine", Mode.online, (Variant("champion", 9),)))
    Follower(project, ledger, ids, "serving-2", app).turn(prepare=False)
    status, answer = asyncio.run(ask(app, "/ready", method="GET"))
    assert status == 503
    assert list(answer["error"]["missing"]) == ["idle-api"]
    noted = ledger.get("worker", "serving-2")
    assert noted is not None
    assert noted.value["serving"] == {"picky-api": {"champion": 2}, "wine-api": {"champion": 1}}
    assert noted.value["generation"] == 1
    app.close()
    for predictor in app.predictors.values():
        predictor.close()
    log.close()
    ledger.close()


def test_serving_a_compiled_model_loads_nothing_heavy(project: Project) -> None:
    """A process that answers, logs and labels with a compiled model has neither MLflow, pandas nor scikit-learn."""
    program = f"""
import asyncio, json, sys
from loopwright.config import Project
from loopwright.deploy.online.app import App
from loopwright.deploy.online.follower import online
import loopwright.deploy.online.worker
from loopwright.ledger import Ledger
from loopwright.predictions import Ids, LabelLog
project = Project({str(project.root)!r})
ledger, ids, log = Ledger.open(project), Ids.open(project), LabelLog(project)
predictors = online(project, ledger, ids, "serving-1")
predictors["wine-api"].refresh()
app = App(project, predictors, log, ids)
async def ask(path, body):
    scope = dict(type="http", method="POST", path=path, headers=[(b"content-type", b"application/json")])
    sent = []
    async def receive(): return dict(type="http.request", body=json.dumps(body).encode(), more_body=False)
    async def send(message): sent.append(message)
    await app(scope, receive, send)
    return json.loads(sent[1]["body"])
answer = asyncio.run(ask("/predict/wine-api", {json.dumps(ROWS[0])}))
accepted = asyncio.run(ask("/labels", dict(prediction_id=answer["prediction_id"], actual="anna")))
app.close()
for predictor in predictors.values(): predictor.maintain(); predictor.close()
log.close()
heavy = [name for name in ("mlflow", "prefect", "pandas", "sklearn", "duckdb") if name in sys.modules]
print(json.dumps([answer["prediction"], accepted, heavy]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == ["anna", {"accepted": 1}, []]


def test_a_label_without_a_server(project: Project, app: App) -> None:
    """`label` appends to the log directly, checks the id, and a later label corrects an earlier one."""
    _, answer = asyncio.run(ask(app, "/predict/wine-api", ROWS[5]))
    label(answer["prediction_id"], "carla", project=project)
    label(answer["prediction_id"], "anna", project=project)
    found = PredictionStore(project).find(answer["prediction_id"])
    assert (found.actual, found.labelled is not None) == ("anna", True)
    with pytest.raises(NotFound, match="no prediction 'abc'"):
        label("abc", 1, project=project)
    for wrong in (float("nan"), [1], None):
        with pytest.raises(InvalidInput, match="cannot be used"):
            label(answer["prediction_id"], wrong, project=project)  # type: ignore[arg-type]


def test_labels_by_entity_over_http_and_without_a_server(project: Project, app: App) -> None:
    """Both find the entity's last prediction; what cannot be is refused with its row, and nothing of it kept."""
    _, answer = asyncio.run(ask(app, "/predict/wine-api", ROWS[5], headers={"x-entity": "cellar-7"}))
    moment = now() + timedelta(seconds=2)
    form = {"deployment": "wine-api", "entity": "cellar-7", "at": moment.isoformat(), "actual": "carla"}
    store = PredictionStore(project)
    for change, status, says in (
        ({"deployment": "beer-api"}, 404, "Row 1: There is no deployment 'beer-api'"),
        ({"at": (moment + timedelta(days=2)).isoformat()}, 400, "Row 1: The label of the entity 'cellar-7'"),
        ({"at": "2026-01-31T13:00:00"}, 422, "without a time zone"),
        ({"within": 0}, 400, "within 0 s"),
    ):
        code, refused = asyncio.run(ask(app, "/labels", [form, form | change]))
        assert (code, says in refused["error"]["message"]) == (status, True), refused
    assert store.find(answer["prediction_id"]).actual is None
    assert asyncio.run(ask(app, "/labels", [form, form | {"within": "1h"}])) == (202, {"accepted": 2})
    assert store.find(answer["prediction_id"]).actual == "carla"
    label(actual="anna", deployment="wine-api", entity="cellar-7", at=moment, within="1h", project=project)
    assert store.find(answer["prediction_id"]).actual == "anna"
    many: list[tuple[str, str] | Label] = [
        Label("", "bruno", moment, "wine-api", "cellar-7"),
        (answer["prediction_id"], "carla"),
    ]
    assert labels(many, project=project) == 2
    assert store.find(answer["prediction_id"]).actual == "carla"
    with pytest.raises(InvalidInput, match="within"):
        label(actual=1, deployment="wine-api", entity="cellar-7", within="long", project=project)
    with pytest.raises(InvalidInput, match="without a zone"):
        label(actual=1, deployment="wine-api", entity="a", at=moment.replace(tzinfo=None), project=project)


def test_a_model_that_nobody_asks_for_gives_back_its_memory(project: Project, app: App) -> None:
    """After `unload_after` nothing in the process holds the model; the next request loads it and is answered."""
    predictor = app.predictors["wine-api"]
    for path in ("/predict/wine-api", "/v2/models/wine-api/infer"):
        asyncio.run(ask(app, path, ROWS[0]))
    asyncio.run(ask(app, "/try/wine-api", method="GET", text=True))
    assert predictor.route is not None
    model = weakref.ref(predictor.route.loaded[1])
    assert not predictor.unload_idle()
    predictor.config = predictor.config.model_copy(update={"unload_after": timedelta(0)})
    assert predictor.unload_idle()
    gc.collect()
    assert model() is None
    assert (predictor.asleep, predictor.ready) == (True, True)
    _, facts = asyncio.run(ask(app, "/deployments/wine-api", method="GET"))
    assert facts["state"] == "asleep"
    status, answer = asyncio.run(ask(app, "/predict/wine-api", ROWS[0]))
    assert (status, answer["prediction"], predictor.asleep) == (200, "anna", False)


def test_a_request_that_waits_behind_a_slow_batch_hears_that_it_is_late(app: App) -> None:
    """A deadline that passes in the queue is answered with 504 when it passes, not when the batch before it is done."""
    service = app._services["wine-api"]
    predict, go = service.predictor.predict, threading.Event()

    def slowly(*given: Any, **more: Any) -> Any:
        go.wait(20)
        return predict(*given, **more)

    async def two() -> tuple[int, tuple[int, Any], tuple[int, Any]]:
        service.batcher._usual_s = 1.0
        service.predictor.predict = slowly  # type: ignore[method-assign]
        first = asyncio.create_task(ask(app, "/predict/wine-api", ROWS[0]))
        await asyncio.sleep(0.05)
        late = await ask(app, "/predict/wine-api", ROWS[1], {"x-timeout-ms": "20"})
        waiting = app.admission.rows
        go.set()
        return waiting, late, await first

    waiting, late, first = asyncio.run(two())
    service.predictor.predict = predict  # type: ignore[method-assign]
    assert (late[0], late[1]["error"]["code"]) == (504, "deadline_exceeded")
    assert first[0] == 200
    assert (waiting, app.admission.rows, app.admission.nbytes) == (1, 0, 0)
