"""The session of the README, typed by a new user in an empty folder."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

README = Path(__file__).parents[2] / "README.md"
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


class Shell:
    """Runs commands as a user does, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            k: v
            for k, v in os.environ.items()
            if not k.startswith(("LOOPWRIGHT", "MLFLOW", "PREFECT", "PYTEST"))
        }
        self.environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{self.environment['PATH']}"

    def run(self, *words: str, code: int = 0) -> str:
        """Run a command and return what it printed; fail when its exit code is another."""
        done = subprocess.run(
            words,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == code, f"{' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def parts(self) -> list[dict[str, Any]]:
        """Return what runs."""
        found: list[dict[str, Any]] = json.loads(self.run("loopwright", "status", "--json"))
        return found


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """Return a shell in a project that `init` wrote and git knows; everything is stopped at the end."""
    home = Shell(tmp_path_factory.mktemp("session"))
    home.run("loopwright", "init", "shop")
    home.folder /= "shop"
    home.run("git", "init", "-q")
    home.run("git", "add", "-A")
    home.run("git", "-c", "user.name=a", "-c", "user.email=a@localhost", "commit", "-qm", "start")
    yield home
    home.run("loopwright", "down")


def post(url: str, body: Any) -> tuple[int, Any]:
    """Send JSON and return status and answer."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def wine(shell: Shell, row: int) -> dict[str, float]:
    """Return one wine of the project's data, without its grower."""
    lines = (shell.folder / "data" / "wine.csv").read_text().splitlines()
    pairs = zip(lines[0].split(","), map(float, lines[row].split(",")), strict=True)
    return {name: value for name, value in pairs if name != "grower"}


def test_the_session_of_the_readme(shell: Shell) -> None:
    """Train, deploy, predict, label and trace work in the order in which the README names them."""
    session = README.read_text()
    for words in (
        "loopwright pipeline run pipelines:train",
        "loopwright deployment start wine-api",
        "loopwright up",
    ):
        assert words in session
    assert "completed" in shell.run("loopwright", "pipeline", "run", "pipelines:train")
    assert "wine/1" in shell.run("loopwright", "deployment", "start", "wine-api")
    shell.run("loopwright", "up", "--detach")
    assert "is running already" in shell.run("loopwright", "up")
    parts = shell.parts()
    assert {part["name"] for part in parts} >= {
        "server",
        "serving-1",
        "runner",
        "controller",
        "console",
        "stream",
    }
    assert {part["state"] for part in parts} == {"ready"}
    serving = next(part["url"] for part in parts if part["name"] == "serving-1")

    assert "predict/wine-api -d @wine.json" in session
    body = json.loads((shell.folder / "wine.json").read_text())
    status, answer = post(f"{serving}/predict/wine-api", body)
    assert status == 200, answer
    assert (answer["model"], answer["version"], answer["variant"]) == ("wine", 1, "champion")
    assert answer["prediction"] == 1

    shell.run("loopwright", "label", answer["prediction_id"], "1")
    shown = json.loads(shell.run("loopwright", "prediction", "show", answer["prediction_id"]))
    assert shown["actual"] == 1
    traced = json.loads(shell.run("loopwright", "trace", answer["prediction_id"], "--json"))
    assert all(link["ok"] for link in traced["links"]), traced["links"]
    assert [link["name"] for link in traced["links"]][-1] == "data/wine.csv"


def test_the_notebook_of_the_readme(tmp_path: Path) -> None:
    """The commands of the README's first block work as they stand, in a folder with a notebook and nothing else."""
    block = README.read_text().partition("## Start from the notebook")[2].partition("```console")[2]
    commands = [
        line.removeprefix("$ ").partition("#")[0].split()
        for line in block.partition("```")[0].splitlines()
        if line.startswith("$ ")
    ]
    assert [words[1] for words in commands] == ["notebook", "notebook", "pipeline", "reproduce"]
    shutil.copy(README.parent / "tests" / "notebooks" / "clean.ipynb", tmp_path / "wine.ipynb")
    home = Shell(tmp_path)
    home.run("git", "init", "-q")
    said = []
    try:
        for words in commands:
            said.append(home.run(*words))
            home.run("git", "add", "-A")
            home.run(
                "git",
                "-c",
                "user.name=a",
                "-c",
                "user.email=a@localhost",
                "commit",
                "-qm",
                "next",
                "--allow-empty",
            )
    finally:
        home.run("loopwright", "down")
    for text, expected in zip(
        said, ("8 of 8 cells ran", "Equal: 9 values", "completed in", "reproduced in"), strict=True
    ):
        assert expected in text


def test_batch_and_stream_deployments_of_the_same_model(shell: Shell) -> None:
    """The batch writes each row once, the stream answers each message once."""
    shell.run("loopwright", "deployment", "start", "wine-nightly")
    shell.run("loopwright", "deployment", "start", "wine-stream")
    assert "178 new predictions" in shell.run("loopwright", "deployment", "run", "wine-nightly")
    assert "0 new predictions" in shell.run("loopwright", "deployment", "run", "wine-nightly")
    lines = "\n".join(json.dumps(wine(shell, row)) for row in range(1, 21))
    (shell.folder / "wines.jsonl").write_text(lines)
    assert "Sent 20 messages" in shell.run("loopwright", "stream", "send", "wine-stream", "wines.jsonl")


def test_a_bundle_for_a_device(shell: Shell) -> None:
    """A bundle is written and verified; a damaged one is refused."""
    shell.run("loopwright", "edge", "bundle", "wine-edge", "--out", "wine.tar.gz")
    assert "ok" in shell.run("loopwright", "edge", "verify", "wine.tar.gz")
    whole = (shell.folder / "wine.tar.gz").read_bytes()
    (shell.folder / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    shell.run("loopwright", "edge", "verify", "cut.tar.gz", code=1)


NOTEBOOK = """
import mlflow
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

table = pd.read_csv("data/wine.csv")
inputs, grower = table.drop(columns="grower"), table["grower"]
mlflow.set_experiment("notebook")
with mlflow.start_run():
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(inputs, grower)
    logged = mlflow.sklearn.log_model(model, name="model", input_example=inputs.head(5))
    print(f"#/experiments/{mlflow.active_run().info.experiment_id}/models/{logged.model_id}")
"""


def test_a_model_registered_with_the_button_of_mlflows_page_is_served(shell: Shell) -> None:
    """A notebook that knows nothing of this project logs a model; one press of a button later it can be deployed."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    server = next(part["url"] for part in shell.parts() if part["name"] == "server")
    (shell.folder / "notebook.py").write_text(NOTEBOOK)
    shell.environment |= {"MLFLOW_TRACKING_URI": f"{server}/mlflow", "MLFLOW_DISABLE_TELEMETRY": "true"}
    place = re.findall(r"#/experiments/\d+/models/m-\w+", shell.run(sys.executable, "notebook.py"))[-1]
    del shell.environment["MLFLOW_TRACKING_URI"]

    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.goto(f"{server}/mlflow/{place}")
        page.get_by_role("button", name="Register model").first.click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_role("combobox").click()
        page.locator(".du-bois-light-select-item-option", has_text=re.compile("^wine$")).click()
        dialog.get_by_role("button", name="Register").click()
        sync_api.expect(page.get_by_text("wine v")).to_be_visible()
        if pictures := os.environ.get("LOOPWRIGHT_PICTURES"):
            page.screenshot(path=f"{pictures}/registered.png")
        browser.close()

    (wines,) = json.loads(shell.run("loopwright", "model", "list", "--json"))
    version = max(one["version"] for one in wines["versions"])
    assert version == 2
    shell.run("loopwright", "deployment", "start", "wine-api", "--version", str(version))
    serving = next(part["url"] for part in shell.parts() if part["name"] == "serving-1")
    eventually_served(f"{serving}/predict/wine-api", wine(shell, 1), version)


def eventually_served(url: str, row: dict[str, float], version: int) -> None:
    """Wait until a version answers."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        status, answer = post(url, row)
        assert status == 200, answer
        if answer["version"] == version:
            assert answer["prediction"] == 0
            return
        time.sleep(0.2)
    raise AssertionError(f"version {version} does not answer")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("trace", "0" * 32), 1, "0000"),
        (("label", "nonsense", "1"), 1, "nonsense"),
        (("deployment", "start", "wine-ap"), 1, "Did you mean 'wine-api'"),
        (("pipeline", "run", "pipelines:trian"), 1, "train"),
        (("pipeline", "run", "pipelines:train", "-p", "tree=5"), 2, "trees"),
        (("model", "show", "wine", "champoin"), 1, "champion"),
        (("release", "show", "nothing"), 1, "nothing"),
        (("prediction", "list", "--sql", "drop table predictions"), 2, "SELECT"),
    ],
)
def test_wrong_use_is_answered_with_what_is_right(
    shell: Shell, words: tuple[str, ...], code: int, said: str
) -> None:
    """Each mistake has an exit code and a message that names the value or what would be right, without a traceback."""
    out = shell.run("loopwright", *words, code=code)
    assert said in out
    assert "Traceback" not in out


def test_a_broken_configuration_names_its_line(shell: Shell) -> None:
    """A typo in loopwright.toml stops the command with the line and the nearest key, and stops nothing that runs."""
    path = shell.folder / "loopwright.toml"
    text = path.read_text()
    path.write_text(text.replace("performance =", "performanse ="))
    try:
        out = shell.run("loopwright", "status", code=2)
    finally:
        path.write_text(text)
    assert re.search(
        r"loopwright\.toml:\d+: unknown key 'monitor\.wine\.performanse'\. Did you mean 'performance'", out
    )
    assert "serving-1" in shell.run("loopwright", "status")
