"""The local server: MLflow and Prefect complete in one process, with their pages, clients and web sockets."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx
import psutil
import pytest
from one_server import Server, serve
from postgres import postgresql

pytestmark = pytest.mark.integration

BROWSER = {"accept": "text/html,application/xhtml+xml"}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the folder of an empty project, with its stores in files and in PostgreSQL."""
    folder = tmp_path_factory.mktemp("served")
    text = '[project]\nname = "served"\n'
    if request.param == "sqlite":
        (folder / "loopwright.toml").write_text(text)
        yield folder
        return
    with postgresql(tmp_path_factory.mktemp("postgres")) as address:
        (folder / "loopwright.toml").write_text(
            f'{text}[server]\ndatabase = "postgresql://owner@{address}/postgres"\n'
        )
        yield folder


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[Server]:
    """Run its local server."""
    with serve(root) as running:
        yield running


def get(server: Server, path: str, **options: Any) -> httpx.Response:
    """Get a page or an endpoint."""
    return httpx.get(f"{server.url}{path}", timeout=30, trust_env=False, **options)


def run_in(root: Path, server: Server, program: str, **more: str) -> str:
    """Run a program as a user of the two servers alone would, without Loopwright, and return what it prints."""
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": f"{server.url}/mlflow",
        "PREFECT_API_URL": f"{server.url}/prefect/api",
        "PREFECT_HOME": str(root / "client"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        **more,
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        cwd=root,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize(
    "path", ["/mlflow/", "/prefect/", "/prefect/v2/", "/prefect/dashboard", "/prefect/v2/runs/flow-run/1"]
)
def test_pages_and_deep_links_answer_with_their_application(server: Server, path: str) -> None:
    """Both applications' pages load, also by a deep link of Prefect's, and the scripts they name are there."""
    page = get(server, path, headers=BROWSER, follow_redirects=True)
    assert page.status_code == 200
    assert "<script" in page.text
    scripts = [part.split('"')[0] for part in page.text.split('src="')[1:]]
    for script in scripts:
        address = httpx.URL(str(page.url)).join(script)
        found = httpx.get(address, timeout=30, trust_env=False)
        assert (found.status_code, "javascript" in found.headers["content-type"]) == (200, True), address


def test_an_address_mlflow_does_not_know_leads_to_its_page(server: Server) -> None:
    """A browser that asks for /mlflow/models gets the page behind the hash; a program gets its 404."""
    page = get(server, "/mlflow/models/digits", headers=BROWSER)
    assert (page.status_code, page.headers["location"]) == (307, "/mlflow/#/models/digits")
    assert get(server, "/mlflow/models/digits").status_code == 404
    assert get(server, "/nothing").status_code == 404


def test_prefects_page_calls_the_right_api(server: Server) -> None:
    """The settings that Prefect's page reads name this server's API and nothing else."""
    settings = get(server, "/prefect/ui-settings").json()
    assert settings["api_url"] == f"{server.url}/prefect/api"
    assert get(server, "/prefect/api/health").json() is True


def test_the_register_button_of_mlflows_page_works(root: Path, server: Server) -> None:
    """What the page sends from 127.0.0.1 or localhost registers a model; another site's page is refused."""
    program = (
        "import mlflow, json\n"
        "from sklearn.linear_model import LogisticRegression\n"
        "mlflow.set_experiment('by-hand')\n"
        "with mlflow.start_run() as run:\n"
        "    mlflow.log_param('c', 1); mlflow.log_metric('accuracy', 0.9); mlflow.log_text('hello', 'note.txt')\n"
        "    model = LogisticRegression().fit([[0.0], [1.0]], [0, 1])\n"
        "    info = mlflow.sklearn.log_model(model, name='model', pip_requirements=[], serialization_format='cloudpickle')\n"
        "print(json.dumps([run.info.run_id, run.info.artifact_uri, info.model_id]))\n"
    )
    run_id, artifact_uri, model_id = json.loads(run_in(root, server, program).strip().splitlines()[-1])
    folder = Path(unquote(urlsplit(artifact_uri).path))
    assert (folder / "note.txt").read_text() == "hello", (
        "artifacts are files below the project, not behind a proxy"
    )
    assert folder.is_relative_to(root / ".loopwright" / "tracking" / "artifacts")
    note = get(server, f"/mlflow/get-artifact?path=note.txt&run_uuid={run_id}")
    assert note.text == "hello", "MLflow's page can show it"

    api = f"{server.url}/mlflow/ajax-api/2.0/mlflow"
    body = {"name": "by-hand", "source": f"models:/{model_id}", "run_id": run_id, "model_id": model_id}
    for host in ("127.0.0.1", "localhost"):
        origin = {"origin": f"http://{host}:{urlsplit(server.url).port}"}
        with httpx.Client(headers=origin, trust_env=False, timeout=30) as page:
            page.post(f"{api}/registered-models/create", json={"name": "by-hand"})
            made = page.post(f"{api}/model-versions/create", json=body)
        assert made.status_code == 200, made.text
    foreign = httpx.post(
        f"{api}/model-versions/create", json=body, headers={"origin": "http://evil.example"}, trust_env=False
    )
    assert foreign.status_code == 403
    rebound = httpx.get(f"{server.url}/mlflow/", headers={"host": "evil.example"}, trust_env=False)
    assert rebound.status_code == 403


def test_a_plain_prefect_flow_runs_and_its_events_arrive(root: Path, server: Server) -> None:
    """Flow, tasks and the events they send over web sockets are there: nothing of Prefect is missing."""
    program = (
        "from prefect import flow, task\n"
        "@task\n"
        "def add(a): return a + 1\n"
        "@flow\n"
        "def adds():\n"
        "    return [f.result() for f in add.map([1, 2, 3])] + [add(4)]\n"
        "assert adds() == [2, 3, 4, 5]\n"
    )
    run_in(root, server, program)
    api = f"{server.url}/prefect/api"
    flow_runs = httpx.post(f"{api}/flow_runs/filter", json={}, trust_env=False).json()
    assert [run["state"]["type"] for run in flow_runs] == ["COMPLETED"]
    until = time.monotonic() + 30
    tasks: list[Any] = []
    while time.monotonic() < until and len([task for task in tasks if task["state_type"] == "COMPLETED"]) < 4:
        tasks = httpx.post(f"{api}/task_runs/filter", json={}, trust_env=False).json()
        time.sleep(0.2)
    assert [task["state_type"] for task in tasks] == ["COMPLETED"] * 4


def test_two_clients_at_once_are_never_turned_away(root: Path, server: Server) -> None:
    """Flows one after the other from two processes get no 503 for a locked database, which costs two seconds each."""
    program = (
        "import httpx\n"
        "send, seen = httpx.Client.send, []\n"
        "def watched(self, request, **options):\n"
        "    answer = send(self, request, **options); seen.append(answer.status_code); return answer\n"
        "httpx.Client.send = watched\n"
        "from prefect import flow, task\n"
        "@task\n"
        "def add(a): return a + 1\n"
        "@flow\n"
        "def adds(): return [add(i) for i in range(5)]\n"
        "for _ in range(4): adds()\n"
        "assert 503 not in seen, seen\n"
    )
    environment = os.environ | {
        "PREFECT_API_URL": f"{server.url}/prefect/api",
        "PREFECT_HOME": str(root / "client"),
        "PREFECT_LOGGING_LEVEL": "ERROR",
    }
    clients = [
        subprocess.Popen([sys.executable, "-c", program], env=environment, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    for client in clients:
        _, errors = client.communicate(timeout=120)
        assert client.returncode == 0, errors.decode()[-2000:]


CLIENT = Path(__file__).with_name("mlflow_client.py")


@pytest.mark.parametrize("buffered", [True, False], ids=["as_connected", "plain_http"])
def test_mlflows_client_works_unmodified(root: Path, server: Server, buffered: bool) -> None:
    """Runs, batches, datasets, autologging, models, registry, traces, children: as MLflow documents them."""
    address = f"{server.url}/mlflow"
    more = {"LOOPWRIGHT_BUFFERED_URI": address} if buffered else {}
    said = run_in(root, server, CLIENT.read_text(), LOOPWRIGHT_PROJECT=str(root), **more)
    assert said.splitlines()[-1] == ("BufferedRestStore" if buffered else "RestStore")


def test_runs_read_by_sql_and_over_rest_are_the_same(
    root: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ways of looking at runs give the same answers, also in PostgreSQL."""
    from loopwright.config import Project
    from loopwright.tracking.reading import RestReader, best, details, find
    from loopwright.tracking.sql import SqlReader
    from loopwright.tracking.where import parse_order, parse_where

    program = (
        "import mlflow\n"
        "mlflow.set_experiment('served')\n"
        "for depth in range(3):\n"
        "    with mlflow.start_run(run_name=f'grid-{depth}') as run:\n"
        "        mlflow.log_params({'depth': depth, 'seed': 1}); mlflow.log_text('a', 'note.txt')\n"
        "        for step in range(60): mlflow.log_metric('loss', 1 / (step + depth + 1), step=step)\n"
    )
    run_in(root, server, program)
    project = Project(root)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{server.url}/mlflow")
    sql, rest = SqlReader(project.tracking_url), RestReader(project)
    for where, order in (
        ("", "started"),
        ("loss < 0.0165", "loss asc"),
        ("depth != '1' and name LIKE 'grid%'", "params.depth desc"),
    ):
        asked = parse_where(where), parse_order(order), 10, "served"
        assert sql.search(*asked) == rest.search(*asked)
    assert [run.name for run in best(sql, "loss", "name LIKE 'grid%'", lower=True)] == ["grid-2"]
    run = find(sql, "grid-1")
    assert find(rest, run.run_id[:10]) == run == find(rest, "grid-1")
    by_sql, by_rest = details(project, sql, run), details(project, rest, run)
    assert (by_sql.artifacts, by_sql.page) == (("note.txt",), by_rest.page)
    assert by_sql.histories[0].course == pytest.approx(by_rest.histories[0].course)
    assert httpx.get(by_sql.page, trust_env=False).status_code == 200


def test_one_process_carries_both_and_ends_in_time(root: Path, server: Server) -> None:
    """No child processes, less memory than MLflow's default server alone, exit within five seconds of SIGTERM."""
    process = psutil.Process(server.process.pid)
    assert process.children() == []
    with contextlib.suppress(psutil.AccessDenied):
        assert process.memory_full_info().pss < 700e6
    with serve(root) as second:  # on the same stores: they are created once and opened by both
        known = "/mlflow/api/2.0/mlflow/experiments/get-by-name?experiment_name=by-hand"
        assert get(second, known).status_code == 200
        asked = time.monotonic()
        second.process.terminate()
        assert second.process.wait(20) == 0
        assert time.monotonic() - asked < 10
