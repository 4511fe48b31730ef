"""What somebody does on MLflow's page reaches the project: by webhook at once, by looking without one."""

import base64
import hashlib
import hmac
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pandas as pd
import pytest
from four_modes import wine
from one_server import Server, environment, serve
from sklearn.linear_model import LogisticRegression

from loopwright import lineage, registry, scoring
from loopwright.cli import main
from loopwright.config import Project
from loopwright.deploy import base
from loopwright.ledger import Event, Ledger
from loopwright.records import ModelVersion
from loopwright.registry import rest, watch

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

SETTINGS = """
[model.wine]
target = "grower"
[deployment.cellar]
model = "wine"
mode = "batch"
source = "rows.parquet"
sink = "out"
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Project, Server]]:
    """Run a project's server, with two versions of a model of which the first is deployed."""
    root = tmp_path_factory.mktemp("project")
    (root / "loopwright.toml").write_text(SETTINGS)
    os.environ.pop("LOOPWRIGHT_LEDGER", None)
    with serve(root) as server, environment(root, server):
        project = Project(root)
        for strength in (1.0, 0.01):
            model = LogisticRegression(C=strength, max_iter=3000)
            rows = wine()
            registry.register("wine", model.fit(rows.drop(columns="grower"), rows["grower"]), rows)
        base.start(project, "cellar", 1)
        yield project, server


def by_hand(server: Server, alias: str, version: int) -> None:
    """Set an alias as MLflow's page does."""
    body = {"name": "wine", "alias": alias, "version": str(version)}
    answer = httpx.post(
        f"{server.url}/mlflow/ajax-api/2.0/mlflow/registered-models/alias", json=body, trust_env=False
    )
    assert answer.status_code == 200, answer.text


def until(found: Callable[[], Any], seconds: float = 60) -> Any:
    """Wait for something to be true and return it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := found():
            return value
        time.sleep(0.1)
    raise AssertionError("it did not happen")


def events(project: Project, kind: str, subject: str) -> list[Event]:
    """Return the ledger's events."""
    ledger = Ledger.open(project)
    try:
        return ledger.events(kind, subject)
    finally:
        ledger.close()


def test_the_secret_is_for_this_user_only(world: tuple[Project, Server]) -> None:
    """The file has mode 600, and MLflow holds one webhook of ours with no secret in sight."""
    project, server = world
    assert (project.state / "webhooks.json").stat().st_mode & 0o777 == 0o600
    listed = httpx.get(f"{server.url}/mlflow/api/2.0/mlflow/webhooks", trust_env=False).json()["webhooks"]
    assert [hook["name"] for hook in listed] == ["loopwright"]
    assert json.loads((project.state / "webhooks.json").read_text())["secret"] not in json.dumps(listed)


def called(project: Project, what: str, at_least: int = 1) -> bool:
    """Whether MLflow has called that often."""
    return (
        len([e for e in events(project, "registry.called", "wine") if e.payload["what"] == what]) >= at_least
    )


def test_what_is_done_on_the_page_is_an_event(world: tuple[Project, Server]) -> None:
    """No controller runs here: MLflow's calls come by themselves, and again after the server was restarted."""
    project, server = world
    until(lambda: called(project, "registered_model.created"))
    until(lambda: called(project, "model_version.created", 2))
    ledger = Ledger.open(project)
    watch.look(project, ledger, "wine")
    by_hand(server, "tasting", 2)
    until(lambda: called(project, "model_version_alias.created", 2))
    assert watch.look(project, ledger, "wine") == 1
    assert watch.look(project, ledger, "wine") == 0
    (event,) = [e for e in events(project, "alias.set", "wine") if e.payload["alias"] == "tasting"]
    assert (event.actor, event.payload["version"], event.payload["follow"]) == ("mlflow", 2, True)
    httpx.request(
        "DELETE",
        f"{server.url}/mlflow/api/2.0/mlflow/registered-models/alias",
        json={"name": "wine", "alias": "tasting"},
        trust_env=False,
    )
    until(lambda: called(project, "model_version_alias.deleted"))
    assert watch.look(project, ledger, "wine") == 1
    ledger.close()
    server.restart()
    by_hand(server, "again", 1)
    until(lambda: called(project, "model_version_alias.created", 3))


def test_what_we_set_ourselves_is_no_news(world: tuple[Project, Server]) -> None:
    """Our own alias is one event, by the user, which no deployment follows."""
    project, _ = world
    registry.set_alias(project, "wine", "mine", 2)
    ledger = Ledger.open(project)
    watch.look(project, ledger, "wine")
    ledger.close()
    mine = [e for e in events(project, "alias.set", "wine") if e.payload["alias"] == "mine"]
    assert [("follow" in e.payload, e.actor == "mlflow") for e in mine] == [(False, False)]


def test_calls_that_are_not_mlflows_are_refused(world: tuple[Project, Server]) -> None:
    """A wrong signature, an old time, none at all, another method, and a signed call without sense."""
    project, server = world
    secret = json.loads((project.state / "webhooks.json").read_text())["secret"]

    def call(body: bytes, *, key: str = secret, age: float = 0, more: dict[str, str] | None = None) -> int:
        when = str(int(time.time() - age))
        digest = hmac.new(key.encode(), b"d1." + when.encode() + b"." + body, hashlib.sha256).digest()
        headers = {
            "X-MLflow-Timestamp": when,
            "X-MLflow-Delivery-Id": "d1",
            "X-MLflow-Signature": "v1," + base64.b64encode(digest).decode(),
        }
        answer = httpx.post(
            f"{server.url}/webhooks/mlflow", content=body, headers=headers | (more or {}), trust_env=False
        )
        return answer.status_code

    good = json.dumps({"entity": "e", "action": "a", "data": {"name": "wine"}}).encode()
    assert call(good) == 202
    assert call(good, key="guess") == 403
    assert call(good, age=600) == 403
    assert call(good, age=-600) == 403
    assert call(good, more={"X-MLflow-Signature": ""}) == 403
    assert call(good, more={"X-MLflow-Timestamp": "soon"}) == 403
    assert call(b"{}") == 400
    assert call(b"[" * 2_000_000) == 400
    assert httpx.get(f"{server.url}/webhooks/mlflow", trust_env=False).status_code == 405


@pytest.fixture
def controller(world: tuple[Project, Server]) -> Iterator["subprocess.Popen[bytes]"]:
    """Run the project's controller."""
    project, _ = world
    with (project.root / "controller.log").open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "loopwright.release.controller"], stdout=out, stderr=out
        )
    yield process
    process.terminate()
    assert process.wait(20) == 0, (project.root / "controller.log").read_text()[-3000:]


def served(project: Project) -> int:
    """Return the version that the deployment serves."""
    ledger = Ledger.open(project)
    try:
        return base.champion_of(base.current(ledger, "cellar")).version
    finally:
        ledger.close()


def test_deployments_follow_what_was_done_by_hand(
    world: tuple[Project, Server], controller: "subprocess.Popen[bytes]", tmp_path: Path
) -> None:
    """A champion set on the page serves; one that cannot serve is refused and said; a version by button is described."""
    import mlflow
    import mlflow.sklearn

    project, server = world
    by_hand(server, "champion", 2)
    until(lambda: served(project) == 2)
    (followed,) = until(lambda: events(project, "deployment.followed", "cellar"))
    assert followed.payload == {"alias": "champion", "model": "wine", "version": 2}
    rows = wine()
    features = rows.drop(columns="grower")
    model = LogisticRegression(max_iter=3000).fit(features, rows["grower"])
    with mlflow.start_run():
        mlflow.log_input(mlflow.data.from_pandas(rows, targets="grower"))
        info = mlflow.sklearn.log_model(
            model,
            name="model",
            serialization_format="cloudpickle",
            signature=mlflow.models.infer_signature(features, model.predict(features)),
            pip_requirements=["scikit-learn"],
        )
    mlflow.register_model(info.model_uri, "wine")

    def described() -> ModelVersion | None:
        version = registry.version(project, "wine", 3)
        return version if version.digest else None

    made = until(described)
    assert made.training is not None
    assert made.training.name == "wine-training"
    assert made.replay_rows == 178
    # A version whose file is broken: it can be registered, and not be described or served.
    _, uri = logged(project)
    folder = rest.get_logged_model(project, uri.removeprefix("models:/"))["artifact_uri"]
    Path(urlsplit(folder).path, "model.pkl").write_bytes(b"no model")
    mlflow.register_model(uri, "wine")
    by_hand(server, "champion", 4)
    (refused,) = until(lambda: events(project, "deployment.refused", "cellar"))
    assert refused.payload["version"] == 4
    assert "could not be prepared" in refused.payload["reason"]
    (incomplete,) = until(lambda: events(project, "model.incomplete", "wine"))
    assert incomplete.payload["version"] == 4
    assert served(project) == 2


def command(*words: str) -> object:
    """Run a command and return its exit code."""
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    return ended.value.code


def logged(project: Project, *, dataset: str = "", example: bool = False) -> tuple[str, str]:
    """Log a model with MLflow alone; return the run and the model's address."""
    import mlflow
    import mlflow.sklearn

    rows = wine()
    features = rows.drop(columns="grower")
    model = LogisticRegression(C=0.001, max_iter=3000).fit(features, rows["grower"])
    with mlflow.start_run() as run:
        mlflow.log_metric("accuracy", 0.5)
        mlflow.log_param("C", 0.001)
        if dataset:
            mlflow.set_tag("loopwright.dataset", dataset)
        info = mlflow.sklearn.log_model(
            model,
            name="classifier",
            serialization_format="cloudpickle",
            signature=mlflow.models.infer_signature(features, model.predict(features)),
            input_example=features.head(4) if example else None,
            pip_requirements=["scikit-learn"],
        )
    return run.info.run_id, info.model_uri


def test_versions_are_registered_both_ways(
    world: tuple[Project, Server], capsys: pytest.CaptureFixture[str]
) -> None:
    """By run, by the name of its model, by the model's address; what is missing is said, given, and then there."""
    project, _ = world
    run, uri = logged(project)
    assert command("model", "register", "Weiß & rot", "--run", run, "--artifact", "classifier") == 0
    said = capsys.readouterr().out
    assert "Registered Weiß & rot/1" in said
    assert "missing dataset" in said
    assert "loopwright model complete 'Weiß & rot' 1 --dataset NAME" in said
    assert command("model", "register", "Weiß & rot", uri) == 0
    assert command("model", "complete", "Weiß & rot", "2", "--dataset", "wine-training") == 0
    said = capsys.readouterr().out
    assert "has     profile" in said
    assert "has     replay rows  178 rows" in said
    version = registry.version(project, "Weiß & rot", 2)
    assert version.training is not None
    # A second version of this run is found by the tag that completing has set.
    assert command("model", "register", "Weiß & rot", run, "--json") == 0
    assert json.loads(capsys.readouterr().out)["training"]["name"] == "wine-training"
    assert command("model", "show", "Weiß & rot", "1", "--json") == 0
    have = {item["name"]: item["there"] for item in json.loads(capsys.readouterr().out)["completeness"]}
    assert have == {
        "signature": True,
        "files": True,
        "dataset": False,
        "replay rows": False,
        "profile": False,
    }


def test_an_input_example_is_replayed_and_proves_nothing(
    world: tuple[Project, Server], capsys: pytest.CaptureFixture[str]
) -> None:
    """Four rows: the model answers them, and is not compiled on their word."""
    project, _ = world
    assert command("model", "register", "example", logged(project, example=True)[1]) == 0
    scorer = scoring.load(project.scorer("example", 1))
    assert (scorer.runtime, scorer.manifest.replay_rows) == ("native", 4)
    assert scorer.manifest.reason == "only the 4 rows of the input example to replay"
    scorer.close()
    assert "missing profile" in capsys.readouterr().out


def test_what_is_wrong_is_said(world: tuple[Project, Server], capsys: pytest.CaptureFixture[str]) -> None:
    """Names that do not exist or cannot be, things that cannot be registered, a dataset of something else."""
    project, _ = world
    run, _uri = logged(project)
    lineage.dataset("cellar", pd.DataFrame({"bottles": [1, 2]}), project=project)
    for words, text in (
        (("register", "wine", "--run", "nope"), "no run 'nope'"),
        (("register", "wine", "--run", run, "--artifact", "clasifier"), "Did you mean 'classifier'"),
        (("register", "wine", "models:/m-nope"), "no logged model 'm-nope'"),
        (("register", "wine", "models:/wine/1"), "is no logged model"),
        (("register", "wine"), "one thing to register"),
        (("register", "red/white", "--run", run), "Names hold no '/'"),
        (("show", "wne"), "Did you mean 'wine'"),
        (("list", "wne"), "Did you mean 'wine'"),
        (("show", "wine", "champoin"), "Did you mean 'champion'"),
        (("show", "wine", "99"), "Known: 1"),
        (("show", "wine", "²"), "no alias"),
        (("alias", "wine", "champion"), "version to name, or --delete"),
        (("alias", "wine", "tastin", "--delete"), "no alias"),
        (("alias", "wine", "v1", "1"), "alias"),
        (("complete", "wine", "1", "--dataset", "celar"), "Did you mean 'cellar'"),
        (("complete", "wine", "1", "--dataset", "cellar"), "did not learn from cellar"),
        (("delete", "wine", "99", "--yes"), "Known: 1"),
        (("compare", "wine/1", "wne/1"), "Did you mean 'wine'"),
    ):
        assert command("model", *words) in {1, 2}, words
        said = capsys.readouterr().err
        assert text in said, (words, said)
        assert "Traceback" not in said


def test_versions_are_compared(world: tuple[Project, Server], capsys: pytest.CaptureFixture[str]) -> None:
    """Metrics and parameters of the runs, the signature, and how many answers differ on the same rows."""
    project, _ = world
    run, _ = logged(project, dataset=registry.version(project, "wine", 1).training.digest)  # type: ignore[union-attr]
    assert command("model", "register", "weak", "--run", run) == 0
    capsys.readouterr()
    assert command("model", "compare", "wine/1", "weak/1", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    named = {(item["kind"], item["name"]): (item["before"], item["after"]) for item in found["differences"]}
    assert named["metric", "accuracy"] == (None, 0.5)
    assert named["parameter", "C"] == (None, "0.001")
    assert not any(kind == "dataset" for kind, _ in named)
    rows = wine()
    features = rows.drop(columns="grower")
    both = [
        LogisticRegression(C=strength, max_iter=3000).fit(features, rows["grower"]).predict(features)
        for strength in (1.0, 0.001)
    ]
    assert (found["answers"]["rows"], found["answers"]["differ"]) == (178, int((both[0] != both[1]).sum()))
    assert found["answers"]["differ"] > 0
    assert command("model", "compare", "wine/1", "2") == 0
    assert "answers on 178 real rows" in capsys.readouterr().out


def test_a_version_in_use_is_not_deleted(
    world: tuple[Project, Server], capsys: pytest.CaptureFixture[str]
) -> None:
    """An alias and a deployment protect it and are named with the way to lift them; a free one goes when told to."""
    project, _ = world
    _, uri = logged(project)
    number = registry.register_logged(project, "wine", uri).version
    registry.set_alias(project, "wine", "keep", number)
    assert command("model", "delete", "wine", str(number), "--yes") == 1
    assert "loopwright model alias wine keep --delete" in capsys.readouterr().err
    assert command("model", "alias", "wine", "keep", "--delete") == 0
    in_service = served(project)
    assert command("model", "delete", "wine", str(in_service), "--yes") == 1
    assert "the deployment 'cellar' serves it" in capsys.readouterr().err
    assert command("model", "delete", "wine", str(number)) == 2
    assert "--yes" in capsys.readouterr().err
    assert command("model", "delete", "wine", str(number), "--yes") == 0
    assert number not in [version.version for version in registry.versions(project, "wine")]
