"""A project with one real model, prepared for scoring from files alone, for the tests of the deployment modes."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cloudpickle
import msgspec
import numpy as np
import pandas as pd
import yaml  # type: ignore[import-untyped]
from sklearn.datasets import load_diabetes, load_wine
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from loopwright.config import Project
from loopwright.ledger import Ledger
from loopwright.lineage.digests import digest_of
from loopwright.records import DatasetRef, Deployment, Mode, ModelVersion, PipelineRun, Variant, now
from loopwright.registry.artifacts import EXTRA
from loopwright.registry.description import describe
from loopwright.registry.registration import write_extra_files
from loopwright.scoring import prepare
from loopwright.scoring.base import Band, Manifest
from loopwright.scoring.preparation import _hashes

#: Warnings of third parties that these tests cannot avoid.
FILTERS = ("ignore::DeprecationWarning", "ignore::FutureWarning")
_TOML = """
[model.wine]
target = "grower"

[deployment.wine-batch]
model = "wine"
mode = "batch"
source = "{source}"
sink = "{sink}"
{key}

[deployment.wine-stream]
model = "wine"
mode = "stream"
source = "sqlite:///streams.db?topic=wines"
sink = "sqlite:///streams.db?topic=growers"

[deployment.wine-edge]
model = "wine"
mode = "edge"
"""


def wine() -> pd.DataFrame:
    """Return the wine table with 13 measurements and the grower as text."""
    bunch = load_wine(as_frame=True)
    table: pd.DataFrame = bunch.data.rename(columns={"od280/od315_of_diluted_wines": "od ratio"})
    return table.assign(grower=[("anna", "bruno", "carla")[label] for label in bunch.target])


def diabetes() -> pd.DataFrame:
    """Return the diabetes table, whose target is a number."""
    table: pd.DataFrame = load_diabetes(as_frame=True).frame
    return table


def new_project(
    root: Path, *, source: str = "rows.parquet", sink: str = "sqlite:///out.db?table=p", key: str = ""
) -> Project:
    """Write a project's configuration with one deployment per mode and open it."""
    line = f'key = "{key}"' if key else ""
    (root / "loopwright.toml").write_text(_TOML.format(source=source, sink=sink, key=line))
    return Project(root)


def add_version(
    project: Project, model: Any, table: pd.DataFrame, target: str = "grower", name: str = "wine"
) -> ModelVersion:
    """Write a version as `register` leaves it on the disk, and prepare it for scoring."""
    described = describe(model, table, target)
    training = DatasetRef("wine", "d" * 64, len(table), tuple(map(str, table.columns)), "")
    number = len(list((project.root / "models" / name).glob("*"))) + 1
    folder = project.root / "models" / name / str(number)
    (folder / EXTRA).mkdir(parents=True)
    (folder / "model.pkl").write_bytes(cloudpickle.dumps(model))
    flavor = {"pickled_model": "model.pkl", "serialization_format": "cloudpickle"}
    (folder / "MLmodel").write_text(yaml.safe_dump({"flavors": {"sklearn": flavor}}))
    write_extra_files(folder / EXTRA, described, training, {})
    made = ModelVersion(
        name,
        number,
        f"run-{number}",
        str(folder),
        digest_of(folder),
        described.signature,
        training,
        len(table),
    )
    ledger = Ledger.open(project)
    ledger.put("model_version", made.ref, made)
    run = PipelineRun("train", made.run_id, "flow", "completed", now(), git_commit="c" * 40)
    ledger.put("pipeline_run", made.run_id, run)
    ledger.close()
    prepare(project, name, number)
    return made


def wine_version(project: Project, *, seed_rows: int = 178) -> ModelVersion:
    """Add a version of the wine model, a scaler and a logistic regression, fitted on the first rows."""
    table = wine().sample(frac=1, random_state=7).head(seed_rows)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    return add_version(project, model.fit(table.drop(columns="grower"), table["grower"]), table)


def native_version(project: Project) -> ModelVersion:
    """Add a version that has no converter to ONNX."""
    table = wine()
    model = make_pipeline(FunctionTransformer(np.log1p), LogisticRegression(max_iter=500))
    return add_version(project, model.fit(table.drop(columns="grower"), table["grower"]), table)


def diabetes_version(project: Project) -> ModelVersion:
    """Add a version of a regression, under the model name ``diabetes``."""
    table = diabetes()
    model = LinearRegression().fit(table.drop(columns="target"), table["target"])
    return add_version(project, model, table, "target", "diabetes")


def serve(project: Project, name: str, version: int, model: str = "wine") -> Deployment:
    """Put a version into service, as `deployment start` does after it has prepared it."""
    deployment = Deployment(
        name, model, Mode(project.deployment(name).mode), (Variant("champion", version),), salt="s"
    )
    ledger = Ledger.open(project)
    ledger.put("deployment", name, deployment)
    ledger.close()
    return deployment


def with_bands(folder: Path, *bands: Band, native: Path | None = None) -> Path:
    """Rewrite a prepared folder as if its calibration had come out like this."""
    if native is not None and not (folder / "native").exists():
        shutil.copytree(native, folder / "native")
    manifest = msgspec.json.decode((folder / "scorer.json").read_bytes(), type=Manifest)
    (folder / "scorer.json").unlink()
    manifest = replace(manifest, runtime=bands[0].runtime, bands=bands, files=_hashes(folder))
    (folder / "scorer.json").write_bytes(msgspec.json.encode(manifest))
    return folder
