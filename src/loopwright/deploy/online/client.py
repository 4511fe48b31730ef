"""For Python users: ask an online deployment, and hand in labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from loopwright import errors, parts
from loopwright.config import Project
from loopwright.errors import InvalidInput, LoopwrightError, Unavailable
from loopwright.records import Label, Scalar

__all__ = ["Client", "label"]

_BY_CODE = {
    kind.code: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, LoopwrightError)
}


class Client:
    """A connection to the serving workers of a project.

    Parameters
    ----------
    url
        Their address; by default that of the project around the working folder.
    timeout_s
        Seconds to wait for an answer.
    """

    def __init__(self, url: str | None = None, *, timeout_s: float = 30.0) -> None:
        import httpx

        self.url = url or parts.url(Project.find(), "serving")
        self._http = httpx.Client(base_url=self.url, timeout=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def predict(self, deployment: str, rows: Any, *, entity: str | None = None) -> Any:
        """Ask for the predictions of one record, a list of records, or a table.

        Parameters
        ----------
        deployment
            An online deployment.
        rows
            A mapping for one row; a list of mappings, or a pandas, polars or Arrow table, for many.
        entity
            Who the rows are about; the same entity stays with the same variant.

        Returns
        -------
        dict or list of dict
            With ``prediction_id``, ``prediction``, ``probability`` (where there is one), ``model``, ``version`` and
            ``variant``.

        Raises
        ------
        LoopwrightError
            The error the server answered with, as the class it raised there.
        """
        body = _records(rows)
        answer = self._post(f"/predict/{deployment}", body, {"x-entity": entity} if entity else {})
        return answer["predictions"] if isinstance(body, list) else answer

    def label(self, prediction_id: str, actual: Scalar) -> None:
        """Hand in what turned out to be true."""
        self._post("/labels", {"prediction_id": prediction_id, "actual": actual}, {})

    def labels(self, pairs: Sequence[tuple[str, Scalar]]) -> int:
        """Hand in many labels at once, all or none; return how many were accepted."""
        body = [{"prediction_id": one, "actual": actual} for one, actual in pairs]
        return int(self._post("/labels", body, {})["accepted"]) if body else 0

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def _post(self, path: str, body: Any, headers: dict[str, str]) -> Any:
        import httpx

        try:
            answer = self._http.post(path, json=body, headers=headers)
        except httpx.TransportError as error:
            raise Unavailable(f"{self.url} does not answer: {error}.", hint="loopwright status") from error
        found = answer.json()
        if answer.is_success:
            return found
        facts = dict(found["error"])
        kind = _BY_CODE.get(facts.pop("code"), LoopwrightError)
        raise kind(facts.pop("message"), valid=facts.pop("valid", ""), hint=facts.pop("hint", ""), **facts)


def _records(rows: Any) -> Any:
    if isinstance(rows, Mapping):
        return dict(rows)
    for name, arguments in (("to_pylist", {}), ("to_dicts", {}), ("to_dict", {"orient": "records"})):
        if hasattr(rows, name):
            return getattr(rows, name)(**arguments)
    return list(rows)


def label(prediction_id: str, actual: Scalar, *, project: Project | None = None) -> None:
    """Hand in the ground truth of one prediction, without a server: it is appended to the project's label log.

    Parameters
    ----------
    prediction_id
        The id that came with the prediction.
    actual
        What turned out to be true: a class label or a finite number. A later label corrects an earlier one.
    project
        By default the project of the current folder.

    Raises
    ------
    NotFound
        The project never gave out this id.
    InvalidInput
        The label is no finite number, text or boolean.
    """
    from loopwright.predictions import Ids, LabelLog

    project = project or Project.find()
    Ids.open(project).check(prediction_id)
    if (
        not isinstance(actual, bool | int | float | str)
        or actual in {float("inf"), float("-inf")}
        or actual != actual
    ):
        raise InvalidInput(f"The label {actual!r} is no finite number, text or boolean.")
    log = LabelLog(project)
    try:
        log.append([Label(prediction_id, actual)])
    finally:
        log.close()
