"""Errors as HTTP answers, in the form each protocol has for them."""

from __future__ import annotations

import msgspec

from loopwright.deploy.online import wire
from loopwright.deploy.online.codecs.base import Reply
from loopwright.errors import LoopwrightError

__all__ = ["refusal"]

_encode = msgspec.json.Encoder().encode


def refusal(error: LoopwrightError, protocol: str = "records") -> Reply:
    """Return the body that says what is wrong, and the headers that go with it."""
    if protocol == "v2":
        from loopwright.deploy.online.codecs.v2 import refused

        body = _encode(refused(error))
    elif protocol == "invocations":
        from loopwright.deploy.online.codecs.invocations import refused

        body = _encode(refused(error))
    else:
        body = _encode(error.to_dict())
    return Reply(body, headers=_headers(error))


def _headers(error: LoopwrightError) -> list[tuple[bytes, bytes]]:
    found: list[tuple[bytes, bytes]] = list(getattr(error, "headers", ()))
    if isinstance(error, wire.WrongMethod):
        found.append((b"allow", str(error.attrs["allow"]).encode()))
    if isinstance(error, wire.TooLarge | wire.TooSlow):
        # What is left of the body must not be taken for the next request.
        found.append((b"connection", b"close"))
    if (retry := error.attrs.get("retry_after")) is not None:
        found.append((b"retry-after", b"%d" % retry))
    return found
