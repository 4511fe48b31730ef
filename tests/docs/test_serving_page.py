"""The page on online serving is run as it stands: each call against a real worker, each setting through the real check."""

import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from four_modes import FILTERS, add_version
from sklearn.ensemble import ExtraTreesClassifier

from loopwright.config import Project
from loopwright.deploy.base import publish
from loopwright.ledger import Ledger
from loopwright.predictions import PredictionStore
from loopwright.records import Deployment, Mode, Variant
from loopwright.templates import DATA

pytestmark = [pytest.mark.integration, *(pytest.mark.filterwarnings(text) for text in FILTERS)]
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8321"


def blocks(kind: str) -> list[str]:
    """Return the page's blocks of one language, in their order."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Project]]:
    """Return the address of a worker that serves the page's project, and the project."""
    root = tmp_path_factory.mktemp("serving-page")
    # As `init` and the first run of its pipeline leave it.
    DATA["starter"](root)
    (root / "loopwright.toml").write_text(blocks("toml")[0])
    project = Project(root)
    table = pd.read_csv(root / "data" / "wine.csv")
    model = ExtraTreesClassifier(100, random_state=0).fit(table.drop(columns="grower"), table["grower"])
    add_version(project, model, table)
    ledger = Ledger.open(project, actor="test")
    publish(ledger, Deployment("wine-api", "wine", Mode.online, (Variant("champion", 1),), salt="s"))
    ledger.close()
    with (
        socket.create_server(("127.0.0.1", 0), backlog=256) as listener,
        (root / "worker.log").open("wb") as log,
    ):
        listener.set_inheritable(True)
        process = subprocess.Popen(
            [sys.executable, "-m", "loopwright.deploy.online.worker", "--fd", str(listener.fileno())],
            env=os.environ | {"LOOPWRIGHT_PROJECT": str(root), "OMP_NUM_THREADS": "1"},
            pass_fds=(listener.fileno(),),
            stdout=log,
            stderr=log,
        )
        port = listener.getsockname()[1]
        until = time.monotonic() + 60
        while not ready(port):
            if process.poll() is not None or time.monotonic() > until:
                process.kill()
                pytest.fail(f"The worker did not start:\n{(root / 'worker.log').read_text()[-3000:]}")
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}", project
        process.terminate()
        assert process.wait(20) == 0


def ready(port: int) -> bool:
    """Whether a worker answers that it is ready."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/ready")
        return connection.getresponse().status == 200
    return False


def run(command: str, address: str) -> str:
    """Run a command of the page and return what it prints."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed: apt-get install curl")
    done = subprocess.run(
        ["bash", "-c", command.replace(ADDRESS, address)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


def test_the_calls_with_curl_are_answered_as_the_page_says(served: tuple[str, Project]) -> None:
    """One record, CSV, MLflow's protocol and the Open Inference Protocol say the same of the same row; the typo is named."""
    address, _ = served
    record, table, mlflow, inference, typo = (run(one, address) for one in blocks("bash"))
    one = json.loads(record)
    assert set(one) == {"prediction_id", "prediction", "probability", "model", "version", "variant"}
    assert (one["prediction"], one["model"], one["version"], one["variant"]) == (
        0,
        "wine",
        1,
        "champion",
    )
    header, first, second = table.splitlines()
    assert header.split(",")[1].strip('"') == "prediction"
    assert [line.split(",")[1].strip('"') for line in (first, second)] == ["0", "1"]
    assert json.loads(mlflow)["predictions"] == [0]
    outputs = {output["name"]: output["data"] for output in json.loads(inference)["outputs"]}
    assert outputs["prediction"] == [0]
    assert outputs["probability"] == pytest.approx(list(one["probability"].values()), abs=1e-9)
    shown = json.loads(blocks("json")[1].replace(", ...", ""))["error"]
    found = json.loads(typo)["error"]
    assert found["valid"].startswith(shown.pop("valid").rstrip("."))
    assert {name: found[name] for name in shown} == shown


def test_the_programs_run(served: tuple[str, Project]) -> None:
    """Both clients answer, keep the entity and hand in the label."""
    address, project = served
    space: dict[str, Any] = {}
    for program in blocks("python"):
        exec(program.replace(ADDRESS, address), space)
    found = PredictionStore(project).find(space["answer"]["prediction_id"])
    assert (found.entity, found.actual) == ("bottle-7", 0)
    assert len(space["many"]) == 2
    assert len({one["prediction_id"] for one in space["answers"]}) == 50


@pytest.mark.parametrize("settings", blocks("toml"))
def test_the_settings_are_valid(settings: str, tmp_path: Path) -> None:
    """Each block of settings is taken, together with a deployment where it has none of its own."""
    needed = {
        "model": '[model.wine]\ntarget = "grower"\n',
        "deployment": '[deployment.wine-api]\nmodel = "wine"\nmode = "online"\n',
    }
    given = "".join(
        text
        for kind, text in needed.items()
        if not re.search(rf"^\[{kind}\.[\w-]+\]$", settings, re.MULTILINE)
    )
    (tmp_path / "loopwright.toml").write_text(given + settings)
    assert "wine-api" in Project(tmp_path).config.deployment


def test_the_commands_exist() -> None:
    """Each command of the page is on the page of commands."""
    known = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    commands = re.findall(r"^\$ loopwright ([a-z]+(?: [a-z]+)?)", PAGE, re.MULTILINE)
    assert commands
    for command in commands:
        assert f"## loopwright {command}\n" in known or f"## loopwright {command.split()[0]}\n" in known, (
            command
        )


def test_the_query_of_shadows_is_answered(served: tuple[str, Project]) -> None:
    """The query runs; without a shadow it compares nothing."""
    _, project = served
    (query,) = blocks("sql")
    assert PredictionStore(project).query(query).num_rows == 1
