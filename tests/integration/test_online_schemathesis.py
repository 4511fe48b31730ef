"""Schemathesis against a real worker: what the OpenAPI document says is what the server does, whatever is sent."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from four_modes import FILTERS, wine
from served_project import churn, served_project, worker

from loopwright.predictions import PredictionStore

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(900),
    *(pytest.mark.filterwarnings(text) for text in FILTERS),
]
SUPPORT = Path(__file__).parents[1] / "support"
#: A deadline that has passed is the caller's wish, and the answer to it is documented.
CONFIG = """
[generation]
allow-extra-parameters = false  # a server must not mind headers that it does not know
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 504]
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Any]]:
    """Return the address of a worker with a mixed classification, a numeric one and a regression, and the project."""
    pytest.importorskip("schemathesis")
    project = served_project(tmp_path_factory.mktemp("fuzzed"), "churn-api", "wine-api", "diabetes-api")
    with worker(project) as port:
        yield f"http://127.0.0.1:{port}", project


def run(document: Path, url: str, folder: Path, *more: str, examples: int) -> tuple[int, str]:
    """Run Schemathesis and return how many cases it sent, and all that it said; a failure fails the test."""
    config = folder / "schemathesis.toml"
    config.write_text(CONFIG)
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run", str(document)]
    given = [
        "--url",
        url,
        "--phases",
        "examples,coverage,fuzzing",
        "--max-examples",
        str(examples),
        "--seed",
        "7",
    ]
    done = subprocess.run(
        [*command, *given, "--continue-on-failure", "--warnings", "off", "--no-color", *more],
        env=os.environ | {"PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}{os.pathsep}{SUPPORT}"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=800,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-6000:]
    found = re.search(r"(\d+) generated", said)
    assert found, said[-3000:]
    return int(found[1]), said


def test_records_are_taken_and_refused_exactly_as_the_document_says(
    served: tuple[str, Any], tmp_path: Path, capsys: Any
) -> None:
    """Every record that fits is answered and every other refused, and all answers are as they are described."""
    url, project = served
    document = httpx.get(f"{url}/openapi.json").json()
    plain = {
        path: operations
        for path, operations in document["paths"].items()
        if not path.startswith(("/v2", "/invocations")) and not path.endswith("/invocations")
    }
    for operations in plain.values():
        for operation in operations.values():
            if "requestBody" in operation:
                content = operation["requestBody"]["content"]
                operation["requestBody"]["content"] = {"application/json": content["application/json"]}
    file = tmp_path / "records.json"
    file.write_text(json.dumps(document | {"paths": plain}))
    before = PredictionStore(project).count()
    cases, _ = run(file, url, tmp_path, examples=200)
    assert PredictionStore(project).count() > before
    with capsys.disabled():
        print(f"\nschemathesis, records: {cases} cases, 0 failures")
    assert cases >= 1000


def test_no_body_of_any_protocol_is_a_server_error(
    served: tuple[str, Any], tmp_path: Path, capsys: Any
) -> None:
    """Whatever is sent to any route, the status, the headers and the body are documented; the worker lives on.

    What a tensor or a table holds cannot be said in a schema, so what fits the schema may be refused, and MLflow's
    protocol takes more than it promises: those two checks are left out here.
    """
    url, _ = served
    file = tmp_path / "whole.json"
    document = httpx.get(f"{url}/openapi.json").json()
    for operation in (one for path in document["paths"].values() for one in path.values()):
        for kind, content in operation.get("requestBody", {}).get("content", {}).items():
            if kind != "application/json":
                content.pop(
                    "example", None
                )  # Schemathesis wants bytes here; the real bodies below stand for it
    file.write_text(json.dumps(document))
    bodies = tmp_path / "bodies"
    write_bodies(bodies)
    config = os.environ | {}
    os.environ["LOOPWRIGHT_BODIES"] = str(bodies)
    os.environ["SCHEMATHESIS_HOOKS"] = "schemathesis_media"
    try:
        left_out = "positive_data_acceptance,negative_data_rejection"
        cases, _ = run(file, url, tmp_path, "--exclude-checks", left_out, examples=60)
    finally:
        os.environ.clear()
        os.environ.update(config)
    with capsys.disabled():
        print(f"\nschemathesis, all protocols: {cases} cases, 0 server errors")
    assert cases >= 1000


def write_bodies(folder: Path) -> None:
    """Write real bodies of each kind for two of the models."""
    folder.mkdir()
    tables = {"wine": wine().drop(columns="grower").head(3), "churn": churn().drop(columns="outcome").head(3)}
    for name, frame in tables.items():
        table = pa.Table.from_pandas(frame, preserve_index=False)
        (folder / f"{name}.csv").write_bytes(frame.to_csv(index=False).encode())
        pq.write_table(table, folder / f"{name}.parquet")
        for kind, open_ in (("arrow", pa.ipc.new_stream), ("arrow_file", pa.ipc.new_file)):
            sink = pa.BufferOutputStream()
            with open_(sink, table.schema) as writer:
                writer.write_table(table)
            (folder / f"{name}.{kind}").write_bytes(bytes(sink.getvalue()))
    (folder / "wine.tensors").write_bytes(tensors(tables["wine"]))


def tensors(frame: pd.DataFrame) -> bytes:
    """Return rows as binary tensors behind their JSON; without the header that parts them it is no JSON."""
    values = np.ascontiguousarray(frame.to_numpy(np.float64))
    one = {"name": "rows", "shape": list(values.shape), "datatype": "FP64"}
    head = {"inputs": [one | {"parameters": {"binary_data_size": values.nbytes}}]}
    return json.dumps(head).encode() + values.tobytes()
