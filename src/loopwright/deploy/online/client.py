"""For Python users: ask an online deployment, and hand in labels."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlsplit

import msgspec
import numpy as np

from loopwright import errors, parts
from loopwright.config import Project
from loopwright.errors import InvalidInput, LoopwrightError, Unavailable
from loopwright.records import Label, Scalar

if TYPE_CHECKING:
    from loopwright.predictions import LabelLog

__all__ = ["Client", "label"]

_BY_CODE = {
    kind.code: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, LoopwrightError)
}
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


class Client:
    """A connection to the serving workers of a project. Safe to share between threads.

    Parameters
    ----------
    url
        Their address; by default that of the project around the working folder.
    timeout_s
        Seconds to wait for an answer.

    Raises
    ------
    Unavailable
        No address is given, and the project's serving workers are not running.

    Examples
    --------
    >>> import loopwright as lw
    >>> with lw.Client() as client:  # doctest: +SKIP
    ...     answer = client.predict("wine-api", {"alcohol": 13.2, "malic_acid": 1.8})
    ...     client.label(answer["prediction_id"], "bruno")
    """

    def __init__(self, url: str | None = None, *, timeout_s: float = 30.0) -> None:
        import httpx

        self.url = (url or parts.url(Project.find(), "serving")).rstrip("/")
        # A proxy that is configured for the internet must not get what is sent to this machine.
        local = urlsplit(self.url).hostname in _LOOPBACK
        self._http = httpx.Client(base_url=self.url, timeout=timeout_s, trust_env=not local)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def predict(self, deployment: str, rows: Any, *, entity: str | None = None) -> Any:
        """Ask for the predictions of one record, a list of records, or a table.

        Parameters
        ----------
        deployment
            An online deployment.
        rows
            A mapping for one row; a list of mappings, or a pandas, polars or Arrow table, for many. NaN, None and
            NaT are missing.
        entity
            Who the rows are about; the same entity stays with the same variant.

        Returns
        -------
        dict or list of dict
            With ``prediction_id``, ``prediction``, ``probability`` by class (where there is one), ``model``,
            ``version`` and ``variant``.

        Raises
        ------
        LoopwrightError
            The error the server answered with, as the class it has there.
        """
        body = _records(rows)
        answer = self._post(f"/predict/{quote(deployment, safe='')}", body, entity)
        return answer["predictions"] if isinstance(body, list) else answer

    def label(self, prediction_id: str, actual: Scalar) -> None:
        """Hand in what turned out to be true for one prediction."""
        self._post("/labels", {"prediction_id": prediction_id, "actual": actual})

    def labels(self, pairs: Sequence[tuple[str, Scalar]]) -> int:
        """Hand in many labels at once, all or none; return how many were accepted."""
        body = [{"prediction_id": one, "actual": actual} for one, actual in pairs]
        return int(self._post("/labels", body)["accepted"]) if body else 0

    def _post(self, path: str, body: Any, entity: str | None = None) -> Any:
        import httpx

        headers = {"content-type": "application/json"}
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        if entity:
            raw.append((b"x-entity", entity.encode()))
        try:
            content = msgspec.json.encode(body, enc_hook=_plain)
        except (TypeError, ValueError) as error:
            raise InvalidInput(
                f"The rows cannot be sent: {error}.", valid="Values are JSON values."
            ) from error
        try:
            answer = self._http.post(path, content=content, headers=raw)
        except httpx.TransportError as error:
            raise Unavailable(
                f"{self.url} does not answer: {str(error) or type(error).__name__}.", hint="loopwright up"
            ) from error
        try:
            found = msgspec.json.decode(answer.content)
        except msgspec.DecodeError:
            found = None
        if answer.is_success and found is not None:
            return found
        raise _error(self.url, answer.status_code, found)


def _error(url: str, status: int, body: Any) -> LoopwrightError:
    """Return what the server raised; whatever else answers at the address is said to do so."""
    facts = body.get("error") if isinstance(body, dict) else None
    if not isinstance(facts, dict) or "message" not in facts:
        return Unavailable(
            f"{url} answered {status}, but not as a serving worker does.", hint="loopwright status"
        )
    known = {key: value for key, value in facts.items() if key not in {"code", "message", "valid", "hint"}}
    kind = _BY_CODE.get(facts.get("code", ""), LoopwrightError)
    return kind(facts["message"], valid=facts.get("valid", ""), hint=facts.get("hint", ""), **known)


def _records(rows: Any) -> Any:
    """Return rows as a dictionary or a list of them."""
    if isinstance(rows, Mapping):
        return dict(rows)
    for name, arguments in (("to_pylist", {}), ("to_dicts", {}), ("to_dict", {"orient": "records"})):
        if hasattr(rows, name):
            return [_present(row) for row in getattr(rows, name)(**arguments)]
    return [dict(row) if isinstance(row, Mapping) else row for row in rows]


def _present(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table's row with None for what is missing: of NaN, NaT and NA, JSON knows only null."""
    return {name: None if _missing(value) else value for name, value in row.items()}


def _missing(value: Any) -> bool:
    try:
        return bool(value != value)
    except TypeError:
        # pandas.NA is neither equal nor unequal to anything.
        return True


def _plain(value: Any) -> Any:
    """Return NumPy's and pandas' values as Python's own."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if hasattr(value, "to_pydatetime"):
        return value.to_pydatetime()
    raise TypeError(f"{value!r} is a {type(value).__name__}")


_lock = threading.Lock()
#: The open label logs of this process by pid and project. One per call would leave one file per label.
_logs: dict[tuple[int, Path], LabelLog] = {}


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
    Unavailable
        The disk does not take it.
    """
    from loopwright.predictions import Ids

    project = project or Project.find()
    Ids.open(project).check(prediction_id)
    log = _log(project)
    log.append([Label(prediction_id, actual)])
    log.maintain()


def _log(project: Project) -> LabelLog:
    from loopwright.predictions import LabelLog

    with _lock:
        # A forked child must not write to its parent's file.
        key = os.getpid(), project.root
        if key not in _logs:
            _logs[key] = LabelLog(project, durability=project.config.serving.durability)
        return _logs[key]


@atexit.register
def _close_logs() -> None:
    for (pid, _), log in _logs.items():
        if pid == os.getpid():
            # The project's folder may have been deleted by now; nobody waits for an answer.
            with contextlib.suppress(LoopwrightError, OSError):
                log.close()
