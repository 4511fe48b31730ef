"""The servers that are compared: how each is started, asked and read."""

from __future__ import annotations

import functools
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving_peers.models import TARGET, Fitted
from serving_peers.process import Running, clean_environment, free_port

__all__ = ["SERVERS", "Place", "Server", "bento_python", "new_project", "ours", "start"]

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BENTO = ROOT / ".tools" / "bentoml"
BENTO_VERSION = "1.4.39"
#: What must be the same on both sides, so that the same pickle is the same model.
SHARED = ("cloudpickle", "joblib", "numpy", "pandas", "scikit-learn", "scipy")

_Row = dict[str, Any]


@dataclass
class Place:
    """Where the files of one model lie while it is measured."""

    folder: Path
    fitted: Fitted
    #: All versions; the first is `fitted`, and what is served.
    versions: list[Fitted] = field(default_factory=list)
    #: Bytes of our answer to one record, which the echoes send.
    answer_bytes: int = 200

    @property
    def name(self) -> str:
        """The model's name."""
        return self.fitted.name


@dataclass(frozen=True)
class Server:
    """One server.

    `start` starts it on a port. `one` and `many` make the bodies for a record and for several; `path_one` and
    `path_many` take ``{name}``. `read` returns the probabilities in an answer, shape (n, k), and is None where an
    answer says nothing.
    """

    name: str
    start: Callable[[Place, int], Running]
    path_one: str
    path_many: str
    one: Callable[[_Row], Any]
    many: Callable[[list[_Row]], Any]
    read: Callable[[Any], NDArray[np.float64]] | None

    def bodies(self, place: Place, *, batch: bool) -> list[bytes]:
        """Return the request bodies, each on one line."""
        if batch:
            made = [self.many(rows) for rows in place.fitted.batches]
        else:
            made = [self.one(row) for row in place.fitted.rows]
        return [json.dumps(body, separators=(",", ":")).encode() for body in made]


def python(arguments: list[str], place: Place, port: int, name: str, environment: dict[str, str]) -> Running:
    """Start a server with this Python."""
    return Running([sys.executable, *arguments], environment, port, place.folder, name)


def new_project(place: Place) -> None:
    """Write a project with the model's versions, prepared for scoring and the first in service, from files alone.

    It lies in the folder ``on``; its copy in ``off`` logs nothing. No other part of Loopwright runs.
    """
    sys.path.insert(0, str(ROOT / "tests" / "support"))
    from four_modes import add_version  # the way the tests do it

    from loopwright.config import Project
    from loopwright.deploy.base import publish
    from loopwright.ledger import Ledger
    from loopwright.records import Deployment, Mode, Variant

    folder = place.folder / "on"
    folder.mkdir()
    _configure(folder, place.name, sample=1)
    project = Project(folder)
    for fitted in place.versions:
        add_version(project, fitted.estimator, fitted.table, TARGET, place.name)
    ledger = Ledger.open(project)
    publish(ledger, Deployment(place.name, place.name, Mode.online, (Variant("champion", 1),), salt="bench"))
    ledger.close()
    shutil.copytree(folder, place.folder / "off")
    _configure(place.folder / "off", place.name, sample=0)


def _configure(folder: Path, name: str, *, sample: int) -> None:
    (folder / "loopwright.toml").write_text(
        f'[project]\nname = "bench"\n[model.{name}]\ntarget = "{TARGET}"\n'
        f'[deployment.{name}]\nmodel = "{name}"\nmode = "online"\n[deployment.{name}.log]\nsample = {sample}\n'
    )


def ours(
    place: Place,
    port: int,
    *,
    log: str = "on",
    worker: str = "serving-1",
    share: socket.socket | None = None,
) -> Running:
    """Start one serving worker, on a port of its own or on a socket that it shares."""
    environment = clean_environment(
        LOOPWRIGHT_PROJECT=str(place.folder / log), OMP_NUM_THREADS="1", PYTHONPATH=str(HERE.parent)
    )
    where = ["--port", str(port)] if share is None else ["--fd", str(share.fileno())]
    command = [sys.executable, "-m", "loopwright.deploy.online.worker", *where, "--name", worker]
    return Running(command, environment, port, place.folder, f"ours-{log}-{worker}", share)


def _peer(place: Place, **more: str) -> dict[str, str]:
    """Return the environment of a peer that loads the pickled model."""
    pickled, schema = place.folder / "model.joblib", place.folder / "schema.json"
    if not pickled.exists():
        import joblib

        joblib.dump(place.fitted.estimator, pickled)
        schema.write_text(json.dumps(place.fitted.schema))
    # For the modules of this folder, which the peers and one of the models need.
    return clean_environment(
        SERVING_MODEL=str(pickled), SERVING_SCHEMA=str(schema), PYTHONPATH=str(HERE.parent), **more
    )


def fastapi(place: Place, port: int) -> Running:
    """Start FastAPI on uvicorn, one process."""
    command = ["-m", "uvicorn", "serving_peers.fastapi_app:app", "--port", str(port)]
    command += ["--no-access-log", "--log-level", "warning"]
    return python(command, place, port, "fastapi", _peer(place))


def mlflow(place: Place, port: int) -> Running:
    """Start `mlflow models serve` with one worker in this environment."""
    folder = place.folder / "mlflow"
    environment = _peer(place, MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="1")
    if not folder.exists():
        code = (
            "import joblib, json, sys, mlflow.sklearn, pandas as pd\n"
            "from mlflow.models import infer_signature\n"
            "model = joblib.load(sys.argv[1]); rows = pd.DataFrame(json.loads(sys.argv[3]))\n"
            "mlflow.sklearn.save_model(model, sys.argv[2], serialization_format='cloudpickle', "
            "pyfunc_predict_fn='predict_proba', pip_requirements=[], "
            "signature=infer_signature(rows, model.predict_proba(rows)))\n"
        )
        rows = json.dumps(place.fitted.rows[:5])
        done = subprocess.run(
            [sys.executable, "-c", code, environment["SERVING_MODEL"], str(folder), rows],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"MLflow did not save the model: {done.stderr[-800:]}")
    command = ["-m", "mlflow", "models", "serve", "-m", str(folder), "--env-manager", "local"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    bin_first = {"PATH": f"{Path(sys.executable).parent}:{environment.get('PATH', '')}"}
    return python(command, place, port, "mlflow", environment | bin_first)


@functools.cache
def bento_python() -> Path | None:
    """Return the Python of an environment with BentoML, made when it is missing; None where that cannot be."""
    made = BENTO / "bin" / "python"
    if made.exists():
        return made
    import importlib.metadata

    import uv

    tool = uv.find_uv_bin()
    pins = [f"{name}=={importlib.metadata.version(name)}" for name in SHARED]
    for name in ("xgboost-cpu", "xgboost"):
        try:
            pins.append(f"{name}=={importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
        break
    print(f"installing BentoML {BENTO_VERSION} into {BENTO} ...", file=sys.stderr)
    install = [tool, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(made)]
    commands = (
        [tool, "venv", "--quiet", "--python", sys.executable, str(BENTO)],
        [*install, f"bentoml=={BENTO_VERSION}", *pins],
    )
    for command in commands:
        if subprocess.run(command, check=False).returncode:
            shutil.rmtree(BENTO, ignore_errors=True)
            return None
    return made


def bentoml(place: Place, port: int) -> Running:
    """Start BentoML with adaptive batching, one worker."""
    interpreter = bento_python()
    if interpreter is None:
        raise RuntimeError("BentoML could not be installed")
    home = place.folder / "bentoml-home"
    environment = _peer(place, BENTOML_HOME=str(home), BENTOML_DO_NOT_TRACK="True")
    command = [str(interpreter), "-m", "bentoml", "serve", "serving_peers.bento_service:Model"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--working-dir", str(HERE.parent)]
    return Running(command, environment, port, place.folder, "bentoml")


def _echo(script: str, name: str) -> Callable[[Place, int], Running]:
    def start(place: Place, port: int) -> Running:
        arguments = [str(HERE / script), str(port), str(place.answer_bytes)]
        return python(arguments, place, port, name, clean_environment())

    return start


def _same(value: Any) -> Any:
    return value


def _listed(answer: Any) -> list[Any]:
    if isinstance(answer, dict) and "predictions" in answer:
        return list(answer["predictions"])
    return answer if isinstance(answer, list) else [answer]


def _named(answer: Any) -> NDArray[np.float64]:
    """Read answers whose probabilities are by class."""
    return np.array([list(one["probability"].values()) for one in _listed(answer)])


def _plain(answer: Any) -> NDArray[np.float64]:
    """Read answers that are the probabilities."""
    return np.array(_listed(answer))


SERVERS: dict[str, Server] = {
    server.name: server
    for server in (
        Server("ours", ours, "/predict/{name}", "/predict/{name}", _same, _same, _named),
        Server(
            "ours-off",
            functools.partial(ours, log="off"),
            "/predict/{name}",
            "/predict/{name}",
            _same,
            _same,
            _named,
        ),
        Server("fastapi", fastapi, "/predict", "/predict_many", _same, _same, _named),
        Server(
            "mlflow",
            mlflow,
            "/invocations",
            "/invocations",
            lambda row: {"dataframe_records": [row]},
            lambda rows: {"dataframe_records": rows},
            _plain,
        ),
        Server(
            "bentoml",
            bentoml,
            "/predict",
            "/predict",
            lambda row: {"rows": [row]},
            lambda rows: {"rows": rows},
            _named,
        ),
        Server("echo", _echo("echo_asgi.py", "echo"), "/predict", "/predict", _same, _same, None),
        Server("bare", _echo("echo_bare.py", "bare"), "/predict", "/predict", _same, _same, None),
    )
}


def start(server: Server, place: Place) -> tuple[Running, float]:
    """Start a server and return it with the seconds to its first 200, which is a prediction.

    Raises
    ------
    RuntimeError
        It did not come up.
    """
    running = server.start(place, free_port())
    try:
        first = server.bodies(place, batch=False)[0]
        return running, running.wait(server.path_one.format(name=place.name), first)
    except BaseException:
        running.stop()
        raise
