"""The clients of other projects against a real worker: NVIDIA's for the Open Inference Protocol, MLflow's for its own."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from four_modes import FILTERS
from numpy.typing import NDArray
from served_project import churn, served_project, worker

from loopwright import scoring
from loopwright.config import Project
from loopwright.predictions import PredictionStore
from loopwright.registry import arrays_of

pytestmark = [pytest.mark.integration, *(pytest.mark.filterwarnings(text) for text in FILTERS)]
TABLE = churn().drop(columns="outcome")
DATATYPES = {"age": "INT64", "income": "FP64", "city": "BYTES", "plan": "BYTES", "member": "BOOL"}
NAME = "churn-api"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Project]]:
    """Return the address, without its scheme, of a worker with one deployment of mixed columns, and the project."""
    project = served_project(tmp_path_factory.mktemp("protocols"), NAME)
    with worker(project) as port:
        yield f"127.0.0.1:{port}", project


@pytest.fixture(scope="module")
def triton(served: tuple[str, Project]) -> Iterator[Any]:
    """Return NVIDIA's client."""
    http = pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")
    client = http.InferenceServerClient(served[0], network_timeout=30)
    yield client
    client.close()


def expected(project: Project, rows: pd.DataFrame) -> Any:
    """Return what the model answers in this process."""
    import pyarrow as pa

    scorer = scoring.load(project.scorer("churn", 1))
    return scorer.score(arrays_of(pa.Table.from_pandas(rows, preserve_index=False), scorer.signature.inputs))


def tensors(rows: pd.DataFrame, *, binary: bool) -> list[Any]:
    """Return rows as tensors of NVIDIA's client: one for each column. Missing text is left empty."""
    http = pytest.importorskip("tritonclient.http")

    made = []
    for name, datatype in DATATYPES.items():
        values: NDArray[Any] = rows[name].to_numpy()
        if datatype == "BYTES":
            values = np.array([value if isinstance(value, str) else "" for value in values], dtype=object)
        tensor = http.InferInput(name, [len(rows)], datatype)
        tensor.set_data_from_numpy(values, binary_data=binary)
        made.append(tensor)
    return made


@pytest.mark.parametrize("asked_binary", [False, True])
@pytest.mark.parametrize("answered_binary", [False, True])
def test_inference_answers_what_the_model_answers(
    served: tuple[str, Project], triton: Any, asked_binary: bool, answered_binary: bool
) -> None:
    """JSON and binary tensors, asked and answered, give the labels and shares of the model, and are logged."""
    http = pytest.importorskip("tritonclient.http")

    _, project = served
    rows = TABLE[TABLE["plan"].notna()].head(64)
    wanted = [
        http.InferRequestedOutput(name, binary_data=answered_binary)
        for name in ("prediction", "probability", "prediction_id", "version")
    ]
    result = triton.infer(NAME, tensors(rows, binary=asked_binary), outputs=wanted, request_id="r-1")
    right = expected(project, rows)
    labels = [
        one.decode() if isinstance(one, bytes) else one for one in result.as_numpy("prediction").tolist()
    ]
    assert labels == right.prediction.tolist()
    np.testing.assert_allclose(result.as_numpy("probability"), right.probability, atol=1e-9)
    assert set(result.as_numpy("version").tolist()) == {1}
    response = result.get_response()
    assert (response["id"], response["model_name"], response["model_version"]) == ("r-1", NAME, "1")
    ids = [
        one.decode() if isinstance(one, bytes) else one for one in result.as_numpy("prediction_id").tolist()
    ]
    store = PredictionStore(project)
    for place in (0, 63):
        found = store.find(ids[place])
        assert found.prediction == labels[place]
        assert found.inputs["age"] == rows["age"].iloc[place]
        assert found.inputs["city"] == rows["city"].iloc[place]


def test_the_server_and_its_models_describe_themselves(triton: Any) -> None:
    """Live, ready, the server's extensions, and a model's tensors are what NVIDIA's client looks for."""
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready(NAME)
    assert triton.is_model_ready(NAME, "1")
    assert not triton.is_model_ready("churn-ap")
    assert not triton.is_model_ready(NAME, "9")
    assert "binary_tensor_data" in triton.get_server_metadata()["extensions"]
    metadata = triton.get_model_metadata(NAME)
    assert {one["name"]: one["datatype"] for one in metadata["inputs"]} == DATATYPES
    outputs = {one["name"]: one["datatype"] for one in metadata["outputs"]}
    assert (outputs["prediction"], outputs["probability"]) == ("BYTES", "FP64")
    assert metadata["versions"] == ["1"]


def test_a_version_is_asked_by_its_number(served: tuple[str, Project], triton: Any) -> None:
    """The version in the path answers; one that is not served is refused."""
    refused = pytest.importorskip("tritonclient.utils").InferenceServerException

    rows = TABLE.head(2)
    result = triton.infer(NAME, tensors(rows, binary=True), model_version="1")
    assert result.get_response()["model_version"] == "1"
    for name, version in ((NAME, "9"), ("churn-ap", "")):
        with pytest.raises(refused) as caught:
            triton.infer(name, tensors(rows, binary=True), model_version=version)
        assert "404" in str(caught.value.status())
    assert "Did you mean 'churn-api'" in caught.value.message()


def test_tensors_that_do_not_fit_are_refused_by_name(triton: Any) -> None:
    """A wrong datatype, a missing tensor and a wrong number of rows are errors of the caller that name the tensor."""
    http = pytest.importorskip("tritonclient.http")
    refused = pytest.importorskip("tritonclient.utils").InferenceServerException

    right = tensors(TABLE.head(2), binary=True)
    text = http.InferInput("age", [2], "BYTES")
    text.set_data_from_numpy(np.array(["a", "b"], dtype=object))
    short = http.InferInput("age", [1], "INT64")
    short.set_data_from_numpy(np.array([1]))
    for inputs in ([text, *right[1:]], right[1:], [short, *right[1:]]):
        with pytest.raises(refused, match="age") as caught:
            triton.infer(NAME, inputs)
        assert str(caught.value.status()) in {"400", "422"}


def test_mlflows_client_is_answered_as_by_its_own_server(served: tuple[str, Project]) -> None:
    """Frames with gaps, text and booleans, and lists of records, give the labels of the model."""
    client_of = pytest.importorskip("mlflow.pyfunc.scoring_server.client")
    host, _, port = served[0].partition(":")
    _, project = served
    client = client_of.ScoringServerClient(host, int(port))
    client.wait_server_ready(timeout=10)
    import mlflow

    assert client.get_version() == mlflow.__version__
    right = expected(project, TABLE)
    predictions = client.invoke(TABLE)
    assert predictions.get_predictions()[0].tolist() == right.prediction.tolist()
    # The same rows by the deployment's own path.
    client.url_prefix += f"/deployments/{NAME}"
    again = client.invoke(TABLE.head(7))
    assert again.get_predictions()[0].tolist() == right.prediction[:7].tolist()


def test_mlflows_client_raises_what_does_not_fit(served: tuple[str, Project]) -> None:
    """A column that the model does not know is an error that names it."""
    client_of = pytest.importorskip("mlflow.pyfunc.scoring_server.client")
    host, _, port = served[0].partition(":")
    client = client_of.ScoringServerClient(host, int(port))
    with pytest.raises(Exception, match="agee"):
        client.invoke(TABLE.head(2).rename(columns={"age": "agee"}))
