"""Who may change something: a program on this machine, or a page that this console itself served.

The console listens on 127.0.0.1 only, but a browser on this machine also shows pages of others. Such a page can send
requests here; it must not be able to acknowledge an alert or read predictions by them.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from loopwright.errors import Denied, InvalidInput

__all__ = ["check_host", "check_same_origin"]

#: Names of this machine. Any other means that a foreign name was made to point here.
_LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})


def check_host(request: HTTPConnection) -> None:
    """Refuse a request that was addressed to another name than this machine's own.

    Raises
    ------
    Denied
        Its `Host` is not this machine: the name of a foreign page may have been pointed here.
    """
    host = request.headers.get("host", "")
    if _name(host) not in _LOCAL:
        raise Denied(
            f"This was asked of the host {host[:80]!r}, which is not this machine.",
            valid="Open the console as http://127.0.0.1:PORT or http://localhost:PORT.",
        )


def check_same_origin(request: HTTPConnection) -> None:
    """Refuse a change that a foreign page may have asked for.

    A browser says where a request comes from by `Sec-Fetch-Site` and `Origin`, and asks beforehand before it sends JSON
    to another site. Programs send neither and are let through.

    Raises
    ------
    Denied
        It comes from another site, or was addressed to another host.
    InvalidInput
        It is not JSON.
    """
    check_host(request)
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
    foreign = site is not None and site not in {"same-origin", "none"}
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        foreign = True
    if foreign:
        raise Denied(
            f"This was asked by a page of {origin or 'another site'}.",
            valid="Only pages of this console and programs on this machine may change something.",
        )
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise InvalidInput(
            f"The body is {kind or 'of no type'}.",
            valid="Send JSON, with the header Content-Type: application/json.",
        )


def _name(host: str) -> str:
    """Return the name in a `Host` header, without its port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""
