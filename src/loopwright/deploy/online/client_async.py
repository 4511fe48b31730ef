"""For Python users of asyncio: the same as `Client`, awaited."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any, Self, TypeVar

import httpx

from loopwright.deploy.online import client_core as core
from loopwright.records import Scalar

__all__ = ["AsyncClient"]

T = TypeVar("T")


class AsyncClient:
    """A connection to the serving workers of a project, for one event loop. Its methods are those of `Client`.

    It takes the same arguments, and sends a request again under the same conditions: only when nothing was done
    with it.

    Examples
    --------
    >>> import loopwright as lw
    >>> async def ask():
    ...     async with lw.AsyncClient() as client:
    ...         return await client.predict("wine-api", {"alcohol": 13.2, "malic_acid": 1.8})
    """

    def __init__(
        self, url: str | None = None, *, timeout_s: float = 30.0, api_key: str | None = None, retries: int = 3
    ) -> None:
        self._settings = core.Settings(url, timeout_s, api_key, retries)
        self.url = self._settings.url
        self._http = httpx.AsyncClient(**self._settings.http())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection."""
        await self._http.aclose()

    async def predict(
        self,
        deployment: str,
        rows: Any,
        *,
        entity: str | None = None,
        variant: str | None = None,
        timeout_ms: int | None = None,
        request_id: str | None = None,
    ) -> Any:
        """Ask for the predictions of one record, a list of records, or a table; see `Client.predict`."""
        given: dict[str, Any] = {
            "entity": entity,
            "variant": variant,
            "timeout_ms": timeout_ms,
            "request_id": request_id,
        }
        if core.is_table(rows) and len(rows) > core.ARROW_ROWS:
            # Writing a large table takes a while, and the loop has others to serve.
            return await self._run(await asyncio.to_thread(core.predicting, deployment, rows, **given))
        return await self._run(core.predicting(deployment, rows, **given))

    async def label(
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
        await self._run(core.labelling(body))

    async def labels(self, labels: core.Labels) -> int:
        """Hand in many labels at once, all or none; return how many were accepted; see `Client.labels`."""
        body = core.pairs(labels)
        return await self._run(core.labelling(body)) if body else 0

    async def deployments(self) -> list[dict[str, Any]]:
        """Return what is served: name, model, state, variants with versions and weights, and the signature."""
        return await self._run(core.listing())

    async def ready(self) -> bool:
        """Whether the workers answer and everything that was started is loaded; asks once and does not wait."""
        try:
            return (await self._http.get("/ready")).is_success
        except httpx.TransportError:
            return False

    async def _run(self, call: core.Call[T]) -> T:
        tries = core.Tries(self._settings, call)
        while True:
            try:
                answer = await self._http.request(**self._settings.request(call))
            except httpx.TransportError as error:
                wait: float | None = tries.failed(error)
            else:
                wait = tries.refused(answer)
                if wait is None:
                    return self._settings.read(call, answer)
            await asyncio.sleep(wait or 0.0)
