"""A project whose model versions are made from files alone, without an MLflow server."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pandas as pd
import pytest
import yaml  # type: ignore[import-untyped]

from loopwright.config import Config, Project
from loopwright.ledger import Ledger
from loopwright.lineage.digests import digest_of
from loopwright.records import DatasetRef, ModelVersion
from loopwright.registry.artifacts import EXTRA
from loopwright.registry.description import describe
from loopwright.registry.registration import write_extra_files

Make = Callable[..., ModelVersion]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return an empty project."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("LOOPWRIGHT_LEDGER", raising=False)
    return Project(tmp_path, Config())


@pytest.fixture
def make(project: Project) -> Make:
    """Return a function that writes a version as `register` and MLflow leave it on the disk."""

    def version(model: Any, table: pd.DataFrame, target: str = "target", name: str = "m") -> ModelVersion:
        described = describe(model, table, target)
        training = DatasetRef("t", "d" * 64, len(table), tuple(map(str, table.columns)), "")
        number = len(list((project.root / "models").glob("*"))) + 1
        folder = project.root / "models" / str(number)
        (folder / EXTRA).mkdir(parents=True)
        (folder / "model.pkl").write_bytes(cloudpickle.dumps(model))
        flavor = {"pickled_model": "model.pkl", "serialization_format": "cloudpickle"}
        (folder / "MLmodel").write_text(yaml.safe_dump({"flavors": {"sklearn": flavor}}))
        write_extra_files(folder / EXTRA, described, training, {})
        made = ModelVersion(
            name, number, "", str(folder), digest_of(folder), described.signature, training, len(table)
        )
        ledger = Ledger.open(project)
        ledger.put("model_version", made.ref, made)
        ledger.close()
        return made

    return version
