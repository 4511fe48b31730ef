"""A real serving worker with models of several kinds, for the tests that speak to it as its callers do."""

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from four_modes import add_version, diabetes_version, wine_version
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from loopwright.config import Project
from loopwright.deploy.base import publish
from loopwright.ledger import Ledger
from loopwright.records import Deployment, Mode, Variant

START_S = 90.0


def churn() -> pd.DataFrame:
    """Return a table with whole numbers, gaps, text, missing text and booleans, and the outcome as text."""
    rng = np.random.default_rng(11)
    n = 400
    city = rng.choice(["Köln", "Aachen", "Bonn"], n)
    income = np.where(rng.random(n) < 0.1, np.nan, rng.gamma(2.0, 2e4, n))
    member = rng.random(n) < 0.5
    age = rng.integers(18, 90, n)
    plan = rng.choice(np.array(["basic", "plus", None], dtype=object), n)
    leaves = rng.random(n) < 1 / (1 + np.exp(-(0.05 * (age - 50) - member + (city == "Bonn"))))
    columns = {"age": age, "income": income, "city": city, "plan": plan, "member": member}
    return pd.DataFrame(columns).assign(outcome=np.where(leaves, "leaves", "stays"))


def churn_version(project: Project) -> None:
    """Add a version of the churn model."""
    table = churn()
    rows = table.drop(columns="outcome")
    text = OneHotEncoder(handle_unknown="ignore")  # what is missing is a category of its own
    prepare = ColumnTransformer(
        [
            ("numbers", SimpleImputer(), ["age", "income"]),
            ("text", text, ["city", "plan"]),
            ("rest", "passthrough", ["member"]),
        ]
    )
    model = make_pipeline(prepare, LogisticRegression(max_iter=2000)).fit(rows, table["outcome"])
    add_version(project, model, table, "outcome", "churn")


#: What can be served: deployment -> model, its target, what makes a version, and the field of its entity.
_KINDS: dict[str, tuple[str, str, Callable[[Project], object], str | None]] = {
    "churn-api": ("churn", "outcome", churn_version, "customer"),
    "wine-api": ("wine", "grower", wine_version, None),
    "diabetes-api": ("diabetes", "target", diabetes_version, None),
}


def served_project(root: Path, *names: str, serving: str = "") -> Project:
    """Make a project that serves these deployments, each with one version."""
    text = f"[serving]\n{serving}\n" if serving else ""
    for name in names:
        model, target, _, entity = _KINDS[name]
        text += (
            f'[model.{model}]\ntarget = "{target}"\n[deployment.{name}]\nmodel = "{model}"\nmode = "online"\n'
        )
        text += f'entity = "{entity}"\n' if entity else ""
    (root / "loopwright.toml").write_text(text)
    project = Project(root)
    for name in names:
        _KINDS[name][2](project)
    ledger = Ledger.open(project, actor="test")
    for name in names:
        variants = (Variant("champion", 1),)
        publish(ledger, Deployment(name, _KINDS[name][0], Mode.online, variants, salt="s"))
    ledger.close()
    return project


@contextlib.contextmanager
def worker(project: Project) -> Iterator[int]:
    """Run a serving worker and give its port; it must still be alive at the end, and stop with 0."""
    log = project.root / "worker.log"
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener, log.open("wb") as out:
        listener.set_inheritable(True)
        process = subprocess.Popen(
            [sys.executable, "-m", "loopwright.deploy.online.worker", "--fd", str(listener.fileno())],
            env=os.environ | {"LOOPWRIGHT_PROJECT": str(project.root), "OMP_NUM_THREADS": "1"},
            pass_fds=(listener.fileno(),),
            stdout=out,
            stderr=out,
        )
        port = int(listener.getsockname()[1])
        try:
            until = time.monotonic() + START_S
            while not _ready(port):
                if process.poll() is not None or time.monotonic() > until:
                    raise AssertionError(f"The worker did not start:\n{log.read_text()[-3000:]}")
                time.sleep(0.1)
            yield port
            assert process.poll() is None, log.read_text()[-3000:]
            process.terminate()
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.wait()
    assert "Traceback" not in log.read_text()


def _ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/ready")
        return connection.getresponse().status == 200
    return False
