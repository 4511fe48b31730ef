"""What the commands about deployments and keys print and refuse."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from four_modes import wine, wine_version

from loopwright.cli import main
from loopwright.config import Project
from loopwright.deploy.base import publish
from loopwright.deploy.online.meters import Meters
from loopwright.ledger import Ledger
from loopwright.predictions import Ids, LabelLog, PredictionLog, Predictions, files
from loopwright.records import Deployment, Label, Mode, ModelVersion, Variant

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
API = "wine-api"
TOML = """
[serving]
rate_limit = "100/s"

[model.wine]
target = "grower"

[deployment.wine-api]
model = "wine"
mode = "online"
entity = "user"
log = { sample = 0.5, drop = ["hue"], hash = ["entity"] }
slo = { latency = "20ms" }

[deployment.wine-edge]
model = "wine"
mode = "edge"
"""
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project with two versions, the first of them served."""
    root = tmp_path_factory.mktemp("commands")
    (root / "loopwright.toml").write_text(TOML)
    project = Project(root)
    wine_version(project)
    wine_version(project, seed_rows=90)
    ledger = Ledger.open(project)
    publish(ledger, Deployment(API, "wine", Mode.online, (Variant("champion", 1),), salt="s"))
    ledger.close()
    return root


@pytest.fixture
def project(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return a copy of the project in the working folder; the servers are elsewhere, and down."""
    monkeypatch.delenv("LOOPWRIGHT_LEDGER", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    shutil.copytree(prepared, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return Project(tmp_path / "project")


@pytest.fixture
def run(project: Project, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return what runs a command and gives back its lines, or with --json its value, or the error and its code."""

    def ran(*words: str) -> Any:
        try:
            main([*words])
        except SystemExit as end:
            if end.code:
                return end.code, capsys.readouterr().err
        text = capsys.readouterr().out
        return json.loads(text) if "--json" in words else text

    return ran


def test_a_deployment_is_shown_with_what_serves_and_why(project: Project, run: Run) -> None:
    """Runtime and its reason, what a worker refused, the log, the limits, the key, and where to ask."""
    ledger = Ledger.open(project)
    refused = {API: {"9": "wine/9 is damaged."}, "other": {"1": "no"}}
    ledger.put("worker", "serving-1", {"pid": 1, "generation": 1, "serving": {}, "refused": refused})
    ledger.close()
    text = run("deployment", "show", API)
    for words in (
        "wine-api (online), model wine: serving since",
        "agrees with the model on 178 rows (fewer than 1,000: the training table has no more)",
        "refused version 9: wine/9 is damaged.",
        "wine/1 onnx: agrees with the model on",
        "largest difference",
        "us for 4096 rows",
        "wine/1 native: the model itself",
        "50 % of the rows, without hue, entity hashed",
        "100/s for each caller",
        "99 % of requests within 20 ms: no request yet.",
        "99.9 % of requests without an error: no request yet.",
        "not needed from this machine",
        "none runs: loopwright up",
    ):
        assert words in text
    facts = run("deployment", "show", API, "--json")
    [variant] = facts["variants"]
    proofs = variant.pop("proofs")
    assert variant == {
        "name": "champion",
        "version": 1,
        "weight": 1.0,
        "shadow": False,
        "runtime": "onnx",
        "reason": "agrees with the model on 178 rows (fewer than 1,000: the training table has no more)",
        "bands": "onnx for any number of rows",
    }
    assert [proof.partition(":")[0] for proof in proofs] == ["onnx", "native"]
    assert all(f"{proof}\n" in text for proof in proofs)
    assert facts["level"]["availability"]["target"] == 0.999
    assert len(facts["level_words"]) == 2
    assert facts["refused"] == {"9": "wine/9 is damaged."}
    assert facts["log"] == {"sample": 0.5, "drop": ["hue"], "hash": ["entity"], "keep": None}
    assert facts["slo"]["latency"] == 0.02
    assert facts["limits"]["queue_rows"] == 50_000
    assert (facts["entity"], facts["key_needed"], facts["ask"]) == ("user", False, {})
    edge = run("deployment", "show", "wine-edge")
    assert "not started" in edge
    assert "loopwright deployment start wine-edge" in edge
    code, error = run("deployment", "show", "wine-ap")
    assert code == 1
    assert "Did you mean 'wine-api'" in error


def test_a_running_server_is_named_where_it_listens(project: Project, run: Run) -> None:
    """The addresses are those of the serving part while it is alive, and a key is asked for once one was made."""
    import psutil

    from loopwright import parts

    me = psutil.Process(os.getpid())
    part = parts.Part("serving-1", me.pid, me.create_time(), "http://127.0.0.1:8420")
    parts.write(project, {"serving-1": part})
    assert (
        run("deployment", "show", API, "--json")["ask"]["predict"] == "http://127.0.0.1:8420/predict/wine-api"
    )
    run("key", "create", "shop")
    assert run("deployment", "show", API, "--json")["key_needed"] is True


def test_each_living_worker_says_what_it_does(project: Project, run: Run) -> None:
    """Serving, asleep, refusing or loading; what a process that is gone said does not count, and no worker is told."""
    me = os.getpid()
    ledger = Ledger.open(project)
    for name, told in {
        "serving-1": {"pid": me, "serving": {API: {"champion": 1}}, "refused": {}},
        "serving-2": {"pid": me, "serving": {}, "refused": {}, "asleep": [API]},
        "serving-3": {"pid": me, "serving": {}, "refused": {API: {"1": "wine/1 is damaged."}}},
        "serving-4": {"pid": me + 1, "serving": {API: {"champion": 1}}, "refused": {}},
        "serving-5": {"pid": me, "serving": {API: {"champion": 1}}, "refused": {}},
    }.items():
        ledger.put("worker", name, told)
        if name != "serving-5":
            Meters(name).save(project)
    ledger.close()
    gone = Meters("serving-6").save(project)
    gone.pid = 2**22 + 1  # above what Linux gives out
    (project.run / "meters" / "serving-6.json").write_bytes(msgspec.json.encode(gone))
    said = "serving-1 serving, serving-2 asleep, serving-3 refusing, serving-4 loading"
    assert f"workers  {said}\n" in run("deployment", "show", API)
    workers = run("deployment", "show", API, "--json")["workers"]
    assert [f"{one['name']} {one['state']}" for one in workers] == said.split(", ")


def test_the_list_says_what_computes_each(run: Run) -> None:
    """What serves has its runtime, what was never started has none."""
    listed = {one["deployment"]: one["runtime"] for one in run("deployment", "list", "--json")}
    assert listed == {API: "onnx", "wine-edge": None}


def test_shares_and_shadow_are_set_and_shown(run: Run) -> None:
    """Each command says what serves afterwards; the list shows a shadow as one."""
    assert "serves wine/2 as candidate to 10%" in run(
        "deployment", "split", API, "champion=0.9", "candidate:2=0.1"
    )
    run("deployment", "split", API, "champion=1")
    assert "wine/2, which answers nobody" in run("deployment", "shadow", API, "--version", "2")
    assert "champion=1 (100%), shadow=2 (shadow)" in run("deployment", "list")
    shown = run("deployment", "show", API, "--json")["variants"]
    assert [(one["name"], one["shadow"]) for one in shown] == [("champion", False), ("shadow", True)]
    assert run("deployment", "shadow", API, "--stop", "--json")["variants"][1:] == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("split", API, "champion"), "'champion' is no share"),
        (("split", API, "champion=0.5", "champion=0.5"), "named twice"),
        (("split", API, "champion=a"), "is no share"),
        (("split", API, "champion:x=1"), "is no share"),
        (("split", API, "champion=1e999"), "sum to 1"),
        (("split", API), "No share is given"),
        (("split", API, "other:2=1"), "the champion is not wine/1"),
        (("split", API, "champion=0.5", "other:2=0.1"), "which is 0.6 in all"),
        (("shadow", API), "either --version or --stop"),
        (("shadow", API, "--version", "2", "--stop"), "either --version or --stop"),
    ],
)
def test_wrong_use_is_said(run: Run, words: tuple[str, ...], said: str) -> None:
    """The exit code is 2, and the words that are wrong are in the message."""
    code, error = run("deployment", *words)
    assert code == 2
    assert said in error


def test_a_shadow_is_compared(project: Project, run: Run) -> None:
    """Rows, agreement and the difference of the losses, in words and as JSON."""
    code, error = run("deployment", "compare", API)
    assert code == 1
    assert "has no shadow" in error
    run("deployment", "shadow", API, "--version", "2")
    assert "Nothing was scored by both yet" in run("deployment", "compare", API)
    table = wine().head(100)
    ids = Ids.open(project).new(100, 1_790_000_000_000_000)
    actual = table["grower"].to_numpy(object)
    ledger = Ledger.open(project)
    state = ledger.get("model_version", "wine/1")
    ledger.close()
    assert state is not None
    signature = state.read(ModelVersion).signature
    assert signature is not None

    class Apart(Project):
        @property
        def predictions(self) -> Path:
            return files.of_deployment(project, API, shadow=True).root.parent

    wrong = np.where(np.arange(100) < 20, "carla", actual).astype(object)
    for version, given, where in ((1, wrong, project), (2, actual, Apart(project.root))):
        log = PredictionLog(where, API, "wine", signature)
        log.append(
            Predictions(
                prediction_id=ids,
                at_us=np.full(100, 1_790_000_000_000_000),
                version=np.full(100, version, np.int32),
                variant=["x"] * 100,
                propensity=np.ones(100),
                entity=[""] * 100,
                latency_ms=np.ones(100, np.float32),
                inputs={name: table[name].to_numpy() for name in signature.names},
                prediction=given,
            )
        )
        log.close()
    assert "No label has arrived yet" in run("deployment", "compare", API)
    labels = LabelLog(project)
    labels.append([Label(one, str(label)) for one, label in zip(ids, actual.tolist(), strict=True)])
    labels.close()
    text = run("deployment", "compare", API)
    assert "same label: 80.00%" in text
    assert "error on 100 labelled rows: shadow 0, champion 0.2; shadow minus champion -0.2 (95 %:" in text
    found = run("deployment", "compare", API, "--json")
    assert (found["rows"], found["agreement"], found["loss_difference"]["estimate"]) == (100, 0.8, -0.2)
    assert found["loss_difference"]["upper"] < 0


def test_a_key_is_printed_once(run: Run, project: Project) -> None:
    """The first line is the key; the list never has it; revoked it is said what that means."""
    key = run("key", "create", "shop").splitlines()[0]
    assert key.startswith("lw_")
    assert len(key) > 40
    assert key not in run("key", "list") + json.dumps(run("key", "list", "--json"))
    assert run("key", "create", "app", "--json")["key"].startswith("lw_")
    assert "No valid key is left" not in run("key", "revoke", "app")
    assert "No valid key is left" in run("key", "revoke", "shop")
    assert [one["revoked"] is None for one in run("key", "list", "--json")] == [False, False]
    run("key", "forget", "shop")
    assert [one["name"] for one in run("key", "list", "--json")] == ["app"]
    code, error = run("key", "revoke", "shp")
    assert code == 1
    assert "There is no key 'shp'" in error
