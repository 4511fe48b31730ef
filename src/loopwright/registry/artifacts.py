"""The files of a model version: what is stored beside the model, and where it all lies on this machine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from loopwright import parts
from loopwright.config import Project
from loopwright.errors import Unavailable
from loopwright.lineage.digests import MLFLOW_NOTE
from loopwright.records import Signature
from loopwright.registry.layout import Layout

__all__ = ["EXTRA", "LAYOUT", "PROFILE", "REPLAY", "Shape", "download", "local_folder"]

#: The folder inside an MLflow model where extra files lie, and ours among them.
EXTRA = "extra_files"
LAYOUT = "loopwright.json"
PROFILE = "profile.json"
REPLAY = "replay.parquet"


@dataclass(frozen=True, slots=True)
class Shape:
    """The content of `loopwright.json`: the signature and the layout of the model's inputs."""

    signature: Signature
    layout: Layout


def local_folder(project: Project, uri: str) -> Path | None:
    """Return the folder an artifact URI means on this machine, or None when it is elsewhere.

    The project's own server keeps what it proxies as ``mlflow-artifacts:/<path>`` in `Project.artifacts`.
    """
    address = urlsplit(uri)
    if address.scheme == "mlflow-artifacts":
        folder: Path | None = project.artifacts / unquote(address.path).lstrip("/")
    else:
        folder = parts.local_path(uri)
    return folder if folder and (folder / "MLmodel").is_file() else None


def download(project: Project, uri: str, into: Path) -> Path:
    """Return a local folder with a version's files: where they lie, or a copy fetched below `into`.

    Raises
    ------
    Unavailable
        The store that holds the files does not answer.
    """
    if folder := local_folder(project, uri):
        return folder
    os.environ.setdefault("MLFLOW_TRACKING_URI", parts.mlflow_url(project))
    import mlflow.artifacts
    from mlflow.exceptions import MlflowException

    into.mkdir(parents=True, exist_ok=True)
    try:
        folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(into)))
    except (MlflowException, OSError) as error:
        raise Unavailable(
            f"The model files at {uri} cannot be fetched: {error}.", hint="loopwright status"
        ) from error
    # MLflow adds a note of where the files came from; it is no part of what was registered.
    (folder / MLFLOW_NOTE).unlink(missing_ok=True)
    return folder
