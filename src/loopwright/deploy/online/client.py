"""For Python users: ask an online deployment, and hand in labels."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import httpx

from loopwright.config import Project
from loopwright.deploy.online import client_core as core
from loopwright.errors import InvalidInput, LoopwrightError
from loopwright.records import Label, Scalar, now

if TYPE_CHECKING:
    from loopwright.predictions import LabelLog

__all__ = ["Client", "label", "labels"]

T = TypeVar("T")


class Client:
    """A connection to the serving workers of a project. Safe to share between threads.

    Connections stay open and are used again, so make one client and keep it. `AsyncClient` is the same for asyncio.

    A prediction is never made twice unseen. A request is sent again only when nothing was done with it: no
    connection could be made, or the server refused it with 429 or 503 and said by Retry-After when to come back.
    A connection that breaks after the request went out is an error, because the prediction may have been made.

    Parameters
    ----------
    url
        Their address; by default that of the project around the working folder.
    timeout_s
        Seconds to wait for an answer, repeated tries included.
    api_key
        Who asks, for the server's rate limit; by default the environment's ``LOOPWRIGHT_API_KEY``.
    retries
        How often a request that was refused is sent again, at most; 0 for never.

    Raises
    ------
    Unavailable
        No address is given, and the project's serving workers are not running.
    InvalidInput
        The key cannot be sent as a header.

    Examples
    --------
    >>> import loopwright as lw
    >>> with lw.Client() as client:  # doctest: +SKIP
    ...     answer = client.predict("wine-api", {"alcohol": 13.2, "malic_acid": 1.8})
    ...     client.label(answer["prediction_id"], "bruno")
    """

    def __init__(
        self, url: str | None = None, *, timeout_s: float = 30.0, api_key: str | None = None, retries: int = 3
    ) -> None:
        self._settings = core.Settings(url, timeout_s, api_key, retries)
        self.url = self._settings.url
        self._http = httpx.Client(**self._settings.http())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def predict(
        self,
        deployment: str,
        rows: Any,
        *,
        entity: str | None = None,
        variant: str | None = None,
        timeout_ms: int | None = None,
        request_id: str | None = None,
    ) -> Any:
        """Ask for the predictions of one record, a list of records, or a table.

        Parameters
        ----------
        deployment
            An online deployment.
        rows
            A mapping for one row; a list of mappings, or a pandas, polars or Arrow table, for many. NaN, None and
            NaT are missing. A table of more than 100 rows is sent as an Arrow stream, all else as JSON.
        entity
            Who the rows are about; the same entity stays with the same variant.
        variant
            Ask this variant, whoever the entity is: for tests.
        timeout_ms
            Milliseconds after which the answer is of no use, 1 or more; by default the deployment's `timeout`.
        request_id
            The caller's own id, at most 256 bytes; it is logged with the predictions.

        Returns
        -------
        dict or list of dict
            With ``prediction_id``, ``prediction``, ``probability`` by class (where there is one), ``model``,
            ``version`` and ``variant``.

        Raises
        ------
        LoopwrightError
            The error the server answered with, as the class it has there.
        Unavailable
            Nothing answers, or not in time.
        InvalidInput
            The rows or a header cannot be sent as they are.
        """
        return self._run(
            core.predicting(
                deployment, rows, entity=entity, variant=variant, timeout_ms=timeout_ms, request_id=request_id
            )
        )

    def label(
        self,
        prediction_id: str = "",
        actual: Scalar | None = None,
        *,
        deployment: str = "",
        entity: str = "",
        at: datetime | None = None,
        within: timedelta | str | None = None,
    ) -> None:
        """Hand in what turned out to be true for one prediction; parameters as for `loopwright.label`."""
        body = core.label_body(prediction_id, actual, deployment, entity, at, within)
        self._run(core.labelling(body))

    def labels(self, labels: core.Labels) -> int:
        """Hand in many labels at once, all or none; return how many were accepted.

        Each is a pair of a prediction id and what was true, or a `loopwright.Label`, which can name an entity instead.
        """
        body = core.pairs(labels)
        return self._run(core.labelling(body)) if body else 0

    def deployments(self) -> list[dict[str, Any]]:
        """Return what is served: name, model, state, variants with versions and weights, and the signature."""
        return self._run(core.listing())

    def ready(self) -> bool:
        """Whether the workers answer and everything that was started is loaded; asks once and does not wait."""
        try:
            return self._http.get("/ready").is_success
        except httpx.TransportError:
            return False

    def _run(self, call: core.Call[T]) -> T:
        tries = core.Tries(self._settings, call)
        while True:
            try:
                answer = self._http.request(**self._settings.request(call))
            except httpx.TransportError as error:
                wait: float | None = tries.failed(error)
            else:
                wait = tries.refused(answer)
                if wait is None:
                    return self._settings.read(call, answer)
            time.sleep(wait or 0.0)


_lock = threading.Lock()
#: The open label logs of this process by pid and project. One per call would leave one file per label.
_logs: dict[tuple[int, Path], LabelLog] = {}


def label(
    prediction_id: str = "",
    actual: Scalar | None = None,
    *,
    deployment: str = "",
    entity: str = "",
    at: datetime | None = None,
    within: timedelta | str | None = None,
    project: Project | None = None,
) -> None:
    """Hand in the ground truth of one prediction, without a server: it is appended to the project's label log.

    It is named by its id; or by `deployment`, `entity` and `at`, and is then the entity's last prediction at or before
    that moment, where that is no older than `within`.

    Parameters
    ----------
    prediction_id
        The id that came with the prediction.
    actual
        What turned out to be true: a class label or a finite number. A later label corrects an earlier one.
    deployment, entity
        Whose prediction it is of, where its id is not known.
    at
        When it was true, with a time zone; by default now.
    within
        How much older the prediction may be, such as ``"2h"``; by default a day.
    project
        By default the project of the current folder.

    Raises
    ------
    NotFound
        The project never gave out this id, or has no such deployment.
    InvalidInput
        The label is no finite number, text or boolean, or names no prediction; the time has no zone or is to come.
    Unavailable
        The disk does not take it.

    Examples
    --------
    >>> import loopwright as lw
    >>> lw.label("0192f3a4...", 7)  # doctest: +SKIP
    >>> lw.label(actual=7, deployment="demand-api", entity="shop-12", at=closing_time)  # doctest: +SKIP
    """
    if actual is None:
        raise InvalidInput("The label None cannot be used.", valid="actual=: a number, text or boolean.")
    spans = {} if within is None else {"within_s": core.seconds(within)}
    labels([Label(prediction_id, actual, at or now(), deployment, entity, **spans)], project=project)


def labels(labels: core.Labels, *, project: Project | None = None) -> int:
    """Hand in many labels without a server, all of them or none, and return how many; see `label`.

    Each is a pair of a prediction id and what was true, or a `loopwright.Label`, which can name an entity instead.
    """
    from loopwright.predictions import Ids

    project = project or Project.find()
    ids = Ids.open(project)
    given = [one if isinstance(one, Label) else Label(*one) for one in labels]
    log = _log(project)
    for one in given:
        if one.prediction_id:
            ids.check(one.prediction_id)
        log.check(one)
    log.append(given)
    log.maintain()
    return len(given)


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
