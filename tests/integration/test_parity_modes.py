"""Parity: the modes give the model's own answers, and nothing of the comparison reaches the project's log."""

from collections.abc import Iterator
from dataclasses import asdict

import msgspec
import pandas as pd
import pytest
from four_modes import add_version, diabetes_version, native_version, new_project, wine, wine_version
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from loopwright.config import Project
from loopwright.deploy.parity import parity
from loopwright.ledger import Ledger
from loopwright.predictions import PredictionStore

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Return a project with some versions to compare."""
    root = tmp_path_factory.mktemp("parity")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("LOOPWRIGHT_LEDGER", raising=False)
        project = new_project(root)
        wine_version(project)
        yield project


def test_all_four_modes_give_the_models_own_answers(project: Project) -> None:
    """Online over HTTP, batch, stream and edge agree on 100 real rows; the log stays empty and the ledger is told."""
    found = parity(project, "wine", rows=100, version=1)
    assert [one.mode for one in found.modes] == ["online", "batch", "stream", "edge"]
    assert found.ok
    assert found.reference.startswith("the model itself")
    for one in found.modes:
        assert (one.rows, one.label_flips) == (100, 0), asdict(one)
        assert one.max_difference <= 1e-9
    assert "HTTP" in found.modes[0].how
    assert PredictionStore(project).count() == 0
    ledger = Ledger.open(project)
    assert ledger.states("deployment") == []
    event = ledger.last("parity.measured", "wine")
    assert event is not None
    assert event.payload["ok"] is True


def test_a_version_without_a_graph_says_that_edge_was_not_run(project: Project) -> None:
    """The other modes are compared natively."""
    version = native_version(project).version
    found = parity(project, "wine", rows=20, version=version)
    assert found.ok
    assert [one.rows for one in found.modes] == [20, 20, 20, 0]
    assert "no ONNX graph" in found.modes[3].how


def test_text_missing_values_and_numbers_survive_every_mode(project: Project) -> None:
    """A model with text, optional and whole-number inputs, and a regression, agree in all modes."""
    table = wine().assign(
        region=lambda frame: pd.cut(frame["hue"], 3, labels=["a", "b", "ü c"]).astype(str),
        year=lambda frame: frame["proline"].astype("int64"),
    )
    table.loc[::7, "region"] = None
    table = table[["region", "hue", "year", "grower"]]
    encode = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["region"]), remainder="passthrough"
    )
    model = make_pipeline(encode, LogisticRegression(max_iter=2000))
    version = add_version(project, model.fit(table.drop(columns="grower"), table["grower"]), table).version
    found = parity(project, "wine", rows=40, version=version)
    assert found.ok, found
    assert [one.rows for one in found.modes] == [40, 40, 40, 40]
    diabetes_version(project)
    config = msgspec.toml.decode((project.root / "loopwright.toml").read_bytes())
    config["model"]["diabetes"] = {"target": "target"}
    both = Project(project.root, type(project.config).model_validate(config))
    numbers = parity(both, "diabetes", rows=30, version=1)
    assert numbers.ok, numbers
    assert [one.rows for one in numbers.modes] == [30, 30, 30, 30]
