"""What MLflow finds under our schemes. Loaded by every ``import mlflow``, so it loads nothing itself.

``loopwright+http://host/mlflow``, ``loopwright+https://...``
    An MLflow server, metric points sent in batches.
``loopwright+sqlite:////path.db``, ``loopwright+postgresql://...``
    A database without a server, metric points written in batches; the SQLite file made and tuned.
``http://...``
    What MLflow has there, except for the one address that `parts.connect` chose itself: points go in batches.
"""

from __future__ import annotations

import os
from typing import Any

__all__ = ["artifact_repository", "http_store", "registry_store", "tracking_store"]


def tracking_store(store_uri: str, artifact_uri: str | None = None, **_: Any) -> Any:
    """Return the tracking store at an address with one of our schemes."""
    from loopwright import parts
    from loopwright.tracking import stores

    address = parts.plain_url(store_uri)
    if address.startswith("http"):
        return stores.BufferedRestStore(address)
    return stores.BufferedSqlStore(address, artifact_uri)


def registry_store(store_uri: str, **_: Any) -> Any:
    """Return the model registry at an address with one of our schemes."""
    from loopwright import parts
    from loopwright.tracking import stores

    address = parts.plain_url(store_uri)
    if address.startswith("http"):
        return stores.rest_registry(address)
    return stores.SqlRegistry(address)


def http_store(store_uri: str, **_: Any) -> Any:
    """Return MLflow's own store for an HTTP address, or the one that sends points in batches where we set it."""
    # Named as in `parts`, which this module would make every start of MLflow pay for.
    if store_uri == os.environ.get("LOOPWRIGHT_BUFFERED_URI"):
        return tracking_store(store_uri)
    from mlflow.tracking._tracking_service import utils

    return utils._get_rest_store(store_uri)


def artifact_repository(artifact_uri: str, tracking_uri: str | None = None, **more: Any) -> Any:
    """Return MLflow's repository behind a server's proxy, which takes no tracking address but an HTTP one."""
    import mlflow
    from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

    from loopwright import parts

    address = parts.plain_url(tracking_uri or mlflow.get_tracking_uri())
    return MlflowArtifactsRepository(artifact_uri, tracking_uri=address, **more)
