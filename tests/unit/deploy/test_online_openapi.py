"""The OpenAPI document: valid, with real examples, and exactly what the decoder takes."""

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import numpy as np
import pytest
from described_deployments import COLUMNS, mixed, quantiles
from four_modes import FILTERS, wine, wine_version
from hypothesis import given, settings
from hypothesis import strategies as st

from loopwright import scoring
from loopwright.config import Project
from loopwright.deploy.online.decode import Decoder
from loopwright.deploy.online.described import described, plain_row
from loopwright.deploy.online.openapi import document
from loopwright.deploy.routing import Loaded, Route
from loopwright.errors import LoopwrightError
from loopwright.records import Deployment, Mode, Variant

pytestmark = [pytest.mark.filterwarnings(text) for text in FILTERS]
BOTH = {"churn-api": mixed(), "demand": quantiles()}
TOML = '[model.wine]\ntarget = "grower"\n[deployment.wine-api]\nmodel = "wine"\nmode = "online"\n'


@pytest.fixture(scope="module")
def wines(tmp_path_factory: pytest.TempPathFactory) -> tuple[Route, Path]:
    """Return the route of a real version, and its prepared folder."""
    root = tmp_path_factory.mktemp("described")
    (root / "loopwright.toml").write_text(TOML)
    project = Project(root)
    wine_version(project)
    folder = project.scorer("wine", 1)
    deployment = Deployment("wine-api", "wine", Mode.online, (Variant("champion", 1),), salt="s")
    return Route(deployment, {1: Loaded(scoring.load(folder))}), folder


def validator(found: dict[str, Any], pointer: str) -> jsonschema_rs.Draft202012Validator:
    """Return a validator of one schema of a document, with formats."""
    schema = {"$ref": pointer, "components": found["components"]}
    return jsonschema_rs.Draft202012Validator(schema, validate_formats=True)


def test_the_document_is_valid_openapi() -> None:
    """The document fits OpenAPI 3.1's own schema, is plain JSON, and every reference leads somewhere."""
    from schemathesis.specs.openapi.definitions import OPENAPI_31

    for deployments in ({}, BOTH, {"a b/ü": mixed(None), "a_b__": quantiles()}):
        found = json.loads(json.dumps(document("shop", deployments), allow_nan=False))
        problems = [
            error.message for error in jsonschema_rs.Draft202012Validator(OPENAPI_31).iter_errors(found)
        ]
        assert problems == []
        for reference in _references(found):
            place: Any = found
            for part in reference.removeprefix("#/").split("/"):
                place = place[part]
        operations = [one["operationId"] for path in found["paths"].values() for one in path.values()]
        assert len(set(operations)) == len(operations)


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if "$ref" in value else []
        return own + [found for one in value.values() for found in _references(one)]
    return [found for one in value for found in _references(one)] if isinstance(value, list) else []


def test_every_route_and_refusal_is_there() -> None:
    """Each protocol's routes are listed for each deployment and version, and each POST says how it can refuse."""
    paths = document("shop", BOTH)["paths"]
    assert {
        "/predict/churn-api",
        "/deployments/churn-api/invocations",
        "/v2/models/churn-api",
        "/v2/models/churn-api/ready",
        "/v2/models/churn-api/infer",
        "/v2/models/churn-api/versions/3/infer",
        "/v2/models/churn-api/versions/4/ready",
        "/predict/demand",
        *("/labels", "/deployments", "/health", "/ready", "/metrics", "/openapi.json", "/invocations"),
        *("/ping", "/version", "/v2", "/v2/health/live", "/v2/health/ready"),
    } <= set(paths)
    assert "/v2/models/churn-api/versions/5/ready" not in paths  # a shadow answers nobody
    posts = [path["post"] for path in paths.values() if "post" in path]
    for one in posts:
        assert {"400", "401", "404", "405", "408", "413", "415", "422", "429", "503", "504"} <= set(
            one["responses"]
        )
    assert {"application/json", "text/csv"} < set(paths["/predict/demand"]["post"]["requestBody"]["content"])


def test_the_examples_are_real_rows(wines: tuple[Route, Path]) -> None:
    """The example is a row that was kept with the version, it fits the schema, and the model answers it."""
    route, folder = wines
    one = described(route, folder)
    found = document("wines", {"wine-api": one})
    example = found["paths"]["/predict/wine-api"]["post"]["requestBody"]["content"]["application/json"]
    row = example["examples"]["one"]["value"]
    table = wine().drop(columns="grower").to_dict("records")
    assert one.real
    assert row in table
    validator(found, "#/components/schemas/wine-api.Record").validate(row)
    rows, _ = Decoder(one.signature).decode(json.dumps(row).encode())
    assert rows == [tuple(row.values())]
    record = found["components"]["schemas"]["wine-api.Record"]
    assert record["properties"]["alcohol"]["description"].startswith("In the training data: 11.03 to 14.83")
    assert found["components"]["schemas"]["wine-api.Answer"]["properties"]["prediction"]["enum"] == [
        "anna",
        "bruno",
        "carla",
    ]


def test_hidden_inputs_show_nothing_of_the_training_data(wines: tuple[Route, Path]) -> None:
    """What the log drops or hashes is made up in examples, and its distribution is not told."""
    one = described(*wines, hidden=("alcohol",))
    assert {row["alcohol"] for row in one.examples} == {0.0}
    assert len({row["hue"] for row in one.examples}) > 1
    assert "alcohol" not in one.seen
    assert (
        "description"
        not in document("w", {"a": one})["components"]["schemas"]["a.Record"]["properties"]["alcohol"]
    )


def test_a_version_without_rows_is_described_by_its_signature(
    wines: tuple[Route, Path], tmp_path: Path
) -> None:
    """Where no golden rows and no profile lie, the example is made up and says so."""
    one = described(wines[0], tmp_path)
    assert not one.real
    assert one.seen == {}
    assert one.examples == (plain_row(one.signature),)


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "age": st.integers(-(2**32), 2**32),
    "visits": st.integers(-(2**64), 2**64),
    "height m": st.floats(allow_nan=False, allow_infinity=False),
    "income": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70),
    "city": st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    "note": st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    "member": st.booleans(),
    "since": st.just("2026-01-31T12:00:00Z"),
    "last": st.just("2026-01-31T12:00:00.25+01:00"),
    "customer": st.text(max_size=3) | st.integers(-5, 5),
    "else": st.none(),
}
ODD: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.just("x") | st.just([]) | st.just({})
)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_the_schema_and_the_decoder_agree(data: st.DataObject) -> None:
    """A row fits the document if and only if the decoder takes it."""
    one = mixed()
    found = document("shop", {"churn-api": one})
    row = {column.name: data.draw(VALUES[column.name]) for column in COLUMNS}
    for name in data.draw(st.lists(st.sampled_from(sorted(VALUES)), max_size=3)):
        match data.draw(st.sampled_from(["leave", "odd", "own"])):
            case "leave":
                row.pop(name, None)
            case "odd":
                row[name] = data.draw(ODD)
            case _:
                row[name] = data.draw(VALUES[name])
    body = json.dumps(row).encode()
    try:
        Decoder(one.signature, one.entity).decode(body)
        taken = True
    except LoopwrightError:
        taken = False
    checked = validator(found, "#/components/schemas/churn-api.Record")
    assert checked.is_valid(json.loads(body)) == taken, row


def test_answers_fit_their_schema() -> None:
    """What an answer can be fits: shares by class, none, several outputs; an unknown class or field does not."""
    found = document("shop", BOTH)
    churn = validator(found, "#/components/schemas/churn-api.Answer")
    base = {"prediction_id": "p", "model": "churn", "version": 3, "variant": "champion"}
    shares = {"leaves": 0.25, "stays": 0.75, "</script>": 0.0}
    assert churn.is_valid(base | {"prediction": "stays", "probability": shares})
    assert churn.is_valid(base | {"prediction": "stays", "probability": None})
    assert not churn.is_valid(base | {"prediction": "maybe", "probability": shares})
    assert not churn.is_valid(base | {"prediction": "stays", "probability": shares, "else": 1})
    demand = validator(found, "#/components/schemas/demand.Answer")
    assert demand.is_valid(base | {"prediction": [1.0, 2.0, None]})
    assert not demand.is_valid(base | {"prediction": [1.0, 2.0]})
    error = validator(found, "#/components/schemas/Error")
    assert error.is_valid(LoopwrightError("x", valid="y", row=3, other=[1]).to_dict())
    assert np.all([not error.is_valid(wrong) for wrong in ({}, {"error": "x"}, {"error": {"code": "x"}})])
