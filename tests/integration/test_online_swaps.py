"""Versions that change under load: no request fails, every answer is the named version's own, memory comes back."""

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from serving_worker import (
    JSON,
    ROWS,
    TOML,
    Load,
    Worker,
    copy_of,
    feel,
    four_versions,
    listening,
    logged,
    serve,
    workers,
)
from waiting import eventually

from loopwright import scoring
from loopwright.config import Project
from loopwright.ledger import Ledger
from loopwright.predictions import PredictionStore

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
ROW = ROWS[0]
PATH = "/predict/wine-api"
SWAPS = 100
#: More than the system's own ups and downs, less than leaving a model behind with each swap would take.
GROWTH_BYTES = 30 << 20


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project with three fast versions and a moody one, prepared."""
    return four_versions(tmp_path_factory)


@pytest.fixture
def project(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return a copy of the project that serves version 1."""
    monkeypatch.delenv("LOOPWRIGHT_LEDGER", raising=False)
    return copy_of(prepared, tmp_path)


@pytest.fixture
def start() -> Iterator[Callable[..., Worker]]:
    """Return a function that starts a worker; what still runs at the end is killed."""
    with listening() as listener, workers(listener) as begin:
        yield begin


def scores(project: Project, version: int) -> Any:
    """Return the probabilities that a version gives all rows, scored in this process."""
    columns = {name: np.array([row[name] for row in ROWS]) for name in ROW}
    return scoring.load(project.scorer("wine", version)).score(columns).probability


def shares(answer: dict[str, Any]) -> list[float]:
    """Return the probabilities of an answer in the order of the classes."""
    return list(answer["probability"].values())


def test_a_hundred_swaps_under_load(project: Project, start: Callable[..., Worker]) -> None:
    """No request fails, each answer is exactly what its version says, and memory does not pile up."""
    right = {version: scores(project, version) for version in (1, 2)}
    assert np.abs(right[1] - right[2]).max(axis=1).min() > 1e-6
    worker = start(project)
    process = psutil.Process(worker.process.pid)
    # Few enough rows that no part of the log is sealed meanwhile, which takes memory of its own, once.
    load = Load(worker.port, 2, pause_s=0.002)
    load.more(1)
    early = 0
    for swap in range(SWAPS):
        wanted = 2 - swap % 2
        serve(project, champion=(wanted, 1.0))
        load.until(lambda wanted=wanted: load.answers[-1]["version"] == wanted, f"version {wanted}")  # type: ignore[misc]
        if swap == 10:
            early = process.memory_info().rss
    grown = process.memory_info().rss - early
    load.stop()
    assert load.failures == []
    assert {answer["version"] for answer in load.answers} == {1, 2}
    worst = max(
        np.abs(np.array(shares(answer)) - right[answer["version"]][answer["row"]]).max()
        for answer in load.answers
    )
    assert worst < 1e-9
    assert sorted(logged(project)) == sorted(answer["prediction_id"] for answer in load.answers)
    assert grown < GROWTH_BYTES, f"{grown / 2**20:.0f} MiB"
    assert worker.stop() == 0


def test_a_damaged_version_never_serves_and_says_why(project: Project, start: Callable[..., Worker]) -> None:
    """A version that does not load is refused with its reason, while the one before goes on."""
    worker = start(project)
    path = project.scorer("wine", 2) / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    load = Load(worker.port, 2)
    serve(project, champion=(2, 1.0))

    def refused() -> Any:
        return worker.ask("GET", "/deployments/wine-api")[1]["refused"]

    reasons = eventually("the refusal", refused, 5.0)
    load.more(50)
    load.stop()
    assert list(reasons) == ["2"]
    assert "model.onnx" in reasons["2"] or "damaged" in reasons["2"]
    assert load.failures == []
    assert {answer["version"] for answer in load.answers} == {1}
    facts = worker.ask("GET", "/deployments/wine-api")[1]
    assert [(one["name"], one["version"]) for one in facts["variants"]] == [("champion", 1)]
    # The next good version is taken, and the refusal forgotten.
    serve(project, champion=(3, 1.0))
    eventually("version 3", lambda: worker.ask("POST", PATH, ROW)[1]["version"] == 3, 5.0)
    eventually("an end of the refusal", lambda: refused() == {}, 5.0)


def test_a_shadow_scores_the_same_rows_and_is_never_seen(
    project: Project, start: Callable[..., Worker]
) -> None:
    """Answers are as without the shadow; what it says is logged apart, under the same ids."""
    right, own = scores(project, 1), scores(project, 2)
    serve(project, champion=(1, 1.0), shadow=(2, 0.0))
    worker = start(project)
    load = Load(worker.port, 4)
    load.more(300)
    load.stop()
    assert load.failures == []
    assert {(answer["version"], answer["variant"]) for answer in load.answers} == {(1, "champion")}
    for answer in load.answers:
        assert shares(answer) == pytest.approx(right[answer["row"]], abs=1e-9)
    rows = {answer["prediction_id"]: answer["row"] for answer in load.answers}
    store = PredictionStore(project)
    eventually(
        "the shadow's rows", lambda: store.count(deployment="wine-api", shadows=True) == len(rows), 10.0
    )
    found = store.table(
        deployment="wine-api", columns=["prediction_id", "version", "probability"], shadows=True
    )
    for one in found.to_pylist():
        assert one["version"] == 2
        assert one["probability"] == pytest.approx(own[rows[one["prediction_id"]]], abs=1e-9)
    assert sorted(found["prediction_id"].to_pylist()) == sorted(rows) == sorted(logged(project))
    assert worker.ask("POST", PATH, ROW, JSON | {"x-variant": "shadow"})[0] == 404


def test_a_shadow_that_is_slow_or_fails_keeps_nobody_waiting(
    project: Project, start: Callable[..., Worker]
) -> None:
    """Answers come while the shadow sleeps, and when it raises; once it is well again, its rows are logged again."""
    serve(project, champion=(1, 1.0), shadow=(4, 0.0))
    worker = start(project)
    store = PredictionStore(project)

    def shadows() -> int:
        return store.count(deployment="wine-api", shadows=True)

    feel(project, "3")
    asleep = [worker.ask("POST", PATH, ROWS[number]) for number in range(30)]
    assert [status for status, _, _ in asleep] == [200] * 30
    # It still sleeps over the first of them.
    assert shadows() == 0
    feel(project, "angry")
    angry = [worker.ask("POST", PATH, ROWS[number]) for number in range(30)]
    assert [status for status, _, _ in angry] == [200] * 30
    eventually("the shadow's failure", lambda: "a shadow of wine-api failed" in worker.log.read_text(), 20.0)
    feel(project, None)
    calm = [worker.ask("POST", PATH, ROWS[number])[1]["prediction_id"] for number in range(10)]
    eventually("the rows of a shadow that is well", lambda: set(calm) <= set(shadow_ids(store)), 20.0)
    assert worker.ask("GET", "/ready")[0] == 200
    assert len(logged(project)) == 70
    assert worker.stop() == 0


def shadow_ids(store: PredictionStore) -> list[str]:
    """Return the ids in the log of shadows."""
    table = store.table(deployment="wine-api", columns=["prediction_id"], shadows=True)
    return list(table["prediction_id"].to_pylist())


def test_a_caller_can_ask_for_a_variant(project: Project, start: Callable[..., Worker]) -> None:
    """By name or version, also one without a share, which nobody else gets; its propensity is 1."""
    right = {version: scores(project, version) for version in (1, 2, 3)}
    serve(project, champion=(1, 0.5), candidate=(2, 0.5), spare=(3, 0.0))
    worker = start(project)
    ids = []
    for wanted, name, version in (
        ("champion", "champion", 1),
        ("candidate", "candidate", 2),
        ("2", "candidate", 2),
        ("spare", "spare", 3),
        ("3", "spare", 3),
    ):
        for path in (PATH, "/predict/wine%2Dapi"):
            for row in range(5):
                status, answer, _ = worker.ask("POST", path, ROWS[row], JSON | {"x-variant": wanted})
                assert (status, answer["variant"], answer["version"]) == (200, name, version)
                assert shares(answer) == pytest.approx(right[version][row], abs=1e-9)
                ids.append(answer["prediction_id"])
    by_chance = [worker.ask("POST", PATH, ROW)[1]["variant"] for _ in range(60)]
    assert set(by_chance) == {"champion", "candidate"}
    table = PredictionStore(project).table(deployment="wine-api", columns=["prediction_id", "propensity"])
    found = dict(
        zip(table["prediction_id"].to_pylist(), table["propensity"].to_pylist(), strict=True),
    )
    assert {found.pop(one) for one in ids} == {1.0}
    assert set(found.values()) == {0.5}


def test_the_ledger_is_followed_within_about_a_second(project: Project, start: Callable[..., Worker]) -> None:
    """A change of weights, of version and of the variants' names is served soon, without a restart."""
    worker = start(project)
    pid = worker.process.pid

    def variants() -> dict[str, tuple[int, float]]:
        listed = worker.ask("GET", "/deployments/wine-api")[1]["variants"]
        return {one["name"]: (one["version"], one["weight"]) for one in listed}

    steps: tuple[dict[str, Any], ...] = (
        {"champion": (1, 0.9), "candidate": (2, 0.1)},
        {"champion": (1, 0.5), "candidate": (2, 0.5)},
        {"champion": (2, 1.0)},
        {"champion": (2, 0.5), "other": (3, 0.5)},
    )
    for wanted in steps:
        serve(project, **wanted)
        eventually(f"{wanted}", lambda wanted=wanted: variants() == wanted, 5.0)  # type: ignore[misc]
    assert (worker.process.pid, worker.process.poll()) == (pid, None)


def test_a_model_that_nobody_asks_for_is_unloaded_and_wakes_up(
    project: Project, start: Callable[..., Worker]
) -> None:
    """After `unload_after` the model is gone; the next requests, many at once, are answered all the same."""
    toml = TOML.format(durability="process").replace(
        '[deployment.idle-api]\nmodel = "wine"\nmode = "online"\n',
        '[deployment.idle-api]\nmodel = "wine"\nmode = "online"\nunload_after = "1s"\n',
    )
    (project.root / "loopwright.toml").write_text(toml)
    serve(project, "idle-api", champion=(2, 1.0))
    worker = start(project)
    right = scores(project, 2)

    def state() -> str:
        return str(worker.ask("GET", "/deployments/idle-api")[1]["state"])

    def noted() -> tuple[bool, bool]:
        ledger = Ledger.open(project)
        found = ledger.get("worker", "serving-1")
        ledger.close()
        assert found is not None
        return "idle-api" in found.value["asleep"], "idle-api" in found.value["serving"]

    for _ in range(2):
        eventually("sleep", lambda: state() == "asleep", 10.0)
        # Those who do not ask the process read it in the ledger.
        eventually("the note of its sleep", lambda: noted() == (True, False), 5.0)
        assert worker.ask("GET", "/ready")[0] == 200
        found: list[tuple[int, int, Any]] = []

        def ask(row: int, found: list[tuple[int, int, Any]] = found) -> None:
            status, answer, _ = worker.ask("POST", "/predict/idle-api", ROWS[row])
            found.append((row, status, answer))

        threads = [threading.Thread(target=ask, args=(row,)) for row in range(12)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        assert [status for _, status, _ in found] == [200] * 12
        for row, _, answer in found:
            assert shares(answer) == pytest.approx(right[row], abs=1e-9)
        assert state() == "serving"
    assert len(logged(project, "idle-api")) == 24
    # The other deployment, which has no such setting, stays.
    assert worker.ask("GET", "/deployments/wine-api")[1]["state"] == "serving"
    # What changes while it sleeps is served when it wakes.
    eventually("sleep", lambda: state() == "asleep", 10.0)
    serve(project, "idle-api", champion=(3, 1.0))
    time.sleep(0.5)
    assert worker.ask("POST", "/predict/idle-api", ROW)[1]["version"] == 3


def test_many_deployments_are_served_by_one_process(project: Project, start: Callable[..., Worker]) -> None:
    """A dozen deployments answer side by side under load, each with its own version and its own log."""
    names = [f"wine-{number}" for number in range(12)]
    extra = "".join(f'[deployment.{name}]\nmodel = "wine"\nmode = "online"\n' for name in names)
    (project.root / "loopwright.toml").write_text(TOML.format(durability="process") + extra)
    version = {name: 1 + number % 3 for number, name in enumerate(names)}
    for name in names:
        serve(project, name, champion=(version[name], 1.0))
    right = {number: scores(project, number) for number in (1, 2, 3)}
    worker = start(project)
    answers: list[tuple[str, int, int, Any]] = []

    def send(thread: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", worker.port, timeout=30)
        for turn in range(120):
            name, row = names[(thread + turn) % 12], (thread * 31 + turn) % 178
            connection.request("POST", f"/predict/{name}", json.dumps(ROWS[row]), JSON)
            answer = connection.getresponse()
            answers.append((name, row, answer.status, json.loads(answer.read())))
        connection.close()

    threads = [threading.Thread(target=send, args=(thread,)) for thread in range(6)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    ids: dict[str, list[str]] = {name: [] for name in names}
    for name, row, status, answer in answers:
        assert (status, answer["version"]) == (200, version[name])
        assert shares(answer) == pytest.approx(right[version[name]][row], abs=1e-9)
        ids[name].append(answer["prediction_id"])
    for name in names:
        assert sorted(logged(project, name)) == sorted(ids[name])
    ledger = Ledger.open(project)
    state = ledger.get("worker", "serving-1")
    ledger.close()
    assert state is not None
    assert len(state.value["serving"]) == 13
