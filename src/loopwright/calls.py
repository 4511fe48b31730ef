"""HTTP calls to the servers of a project, over connections that stay open.

A client for each call would cost more than the call itself; those kept here are shared by all threads of a process.
"""

from __future__ import annotations

import os
import threading
from typing import Any
from urllib.parse import urlsplit

import httpx

from loopwright.errors import Unavailable

__all__ = ["request"]

TIMEOUT_S = 30.0
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}

_clients: dict[tuple[int, bool, bool], httpx.Client] = {}
_lock = threading.Lock()


def request(
    method: str,
    url: str,
    *,
    what: str,
    json: Any = None,
    params: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
    auth: tuple[str, str] | None = None,
) -> httpx.Response:
    """Send one request and return the answer, whatever its status.

    Parameters
    ----------
    what
        What answers there, for the error, such as ``MLflow at http://127.0.0.1:5000``.
    auth
        User and password, where the server asks for them.

    Raises
    ------
    Unavailable
        Nothing answers within 30 s.
    """
    given: dict[str, Any] = {"headers": headers, "params": params, "json": json}
    if auth is not None:
        given["auth"] = auth
    try:
        return _client(url).request(method, url, **given)
    except httpx.TransportError as error:
        raise Unavailable(f"{what} does not answer: {error}.", hint="loopwright up") from error


def _client(url: str) -> httpx.Client:
    # Loading the certificate store takes longer than a call, and plain HTTP has no use for it. A proxy that the
    # environment names is not for this machine. A forked process must not share its parent's connections.
    secure = url.startswith("https://")
    local = urlsplit(url).hostname in _LOOPBACK
    key = (os.getpid(), secure, local)
    with _lock:
        if key not in _clients:
            _clients[key] = httpx.Client(timeout=TIMEOUT_S, verify=secure, trust_env=not local)
        return _clients[key]
