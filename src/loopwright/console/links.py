"""Addresses of the pages of MLflow 3.17 and Prefect 3.8 about the same thing."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from loopwright import parts
from loopwright.config import Project
from loopwright.console.views import Link
from loopwright.errors import Unavailable

__all__ = ["Links"]


@dataclass(frozen=True, slots=True)
class Links:
    """Builds links; an empty base makes links without an address.

    Parameters
    ----------
    mlflow, prefect
        Addresses of the two servers' pages without a slash at the end, such as ``http://127.0.0.1:8420/mlflow``.

    Examples
    --------
    >>> Links("http://localhost/mlflow", "http://localhost/prefect").version("digits", 3).url
    'http://localhost/mlflow/#/models/digits/versions/3'
    """

    mlflow: str = ""
    prefect: str = ""

    @classmethod
    def of(cls, project: Project) -> Links:
        """Return the links of a project: to its local server, or to the team's servers where these are set."""
        try:
            mlflow = parts.mlflow_url(project).rstrip("/")
            prefect = parts.prefect_url(project).rstrip("/").removesuffix("/api")
        except Unavailable:
            return cls()
        # A tracking store that is a database or a folder has no pages.
        return cls(mlflow if mlflow.startswith("http") else "", prefect if prefect.startswith("http") else "")

    def model(self, model: str) -> Link:
        """Link a registered model."""
        return self._mlflow("Model in MLflow", f"models/{quote(model, safe='')}")

    def version(self, model: str, version: int) -> Link:
        """Link a model version."""
        return self._mlflow(
            f"Version {version} in MLflow", f"models/{quote(model, safe='')}/versions/{version}"
        )

    def run(self, run_id: str) -> Link:
        """Link an MLflow run; MLflow finds its experiment by itself."""
        return self._mlflow("Run in MLflow", f"runs/{quote(run_id, safe='')}")

    def flow_run(self, flow_run_id: str) -> Link:
        """Link a Prefect flow run."""
        url = f"{self.prefect}/runs/flow-run/{quote(flow_run_id, safe='')}" if self.prefect else ""
        return Link("Run in Prefect", url)

    def _mlflow(self, text: str, page: str) -> Link:
        return Link(text, f"{self.mlflow}/#/{page}" if self.mlflow else "")
