"""What every request has: its headers, its body within limits, and the refusals that only HTTP knows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from loopwright.errors import InvalidInput

__all__ = [
    "Gone",
    "Headers",
    "Receive",
    "Scope",
    "Send",
    "TooLarge",
    "TooSlow",
    "WrongMethod",
    "WrongType",
    "read_body",
    "text",
]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

#: Seconds for a whole body that comes in pieces; a sender that trickles must not hold a connection for ever.
BODY_S = 60.0
#: Longest header value that goes into the log, in bytes.
LONGEST = 256


class WrongMethod(InvalidInput):
    """The path is right, the method is not."""

    http_status = 405


class WrongType(InvalidInput):
    """The body is not declared as JSON."""

    http_status = 415


class TooLarge(InvalidInput):
    """The body is larger than `serving.max_body`."""

    http_status = 413


class TooSlow(InvalidInput):
    """The body did not arrive in time."""

    http_status = 408


class Gone(Exception):
    """The caller hung up before its request was complete."""


@dataclass(slots=True)
class Headers:
    """The headers that matter here. `length` is -1 where none is declared."""

    content_type: bytes = b""
    length: int = -1
    entity: bytes = b""
    request_id: bytes = b""
    expects: bool = False

    @classmethod
    def of(cls, scope: Scope) -> Headers:
        """Return those of a request."""
        found = cls()
        for name, value in scope["headers"]:
            if name == b"content-type":
                found.content_type = value
            elif name == b"content-length":
                found.length = int(value) if value.isdigit() else -1
            elif name == b"x-entity":
                found.entity = value
            elif name == b"x-request-id":
                found.request_id = value
            elif name == b"expect":
                found.expects = True
        return found

    def check(self) -> None:
        """Check what does not depend on the body.

        Raises
        ------
        WrongType
            The body is not declared as JSON. A page of another site cannot send that type unasked.
        InvalidInput
            The entity or the request id is too long.
        """
        kind = self.content_type.partition(b";")[0].strip().lower()
        if kind != b"application/json":
            raise WrongType(
                f"The content type {kind.decode('latin-1')!r} is not read here.",
                valid="Send content-type: application/json.",
                hint="curl -H 'content-type: application/json' ...",
            )
        for name, value in (("x-entity", self.entity), ("x-request-id", self.request_id)):
            if len(value) > LONGEST:
                raise InvalidInput(
                    f"The header {name} has {len(value)} bytes.", valid=f"At most {LONGEST} are kept."
                )


def text(value: bytes) -> str:
    """Return a header's value as text: UTF-8, which most senders mean, else Latin-1, which always works."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


async def read_body(receive: Receive, headers: Headers, limit: int) -> bytes | bytearray:
    """Read a body of at most `limit` bytes.

    Raises
    ------
    TooLarge
        It is larger; reading stops there.
    TooSlow
        It did not arrive within a minute.
    Gone
        The caller hung up.
    """
    if headers.length > limit:
        if not headers.expects:
            await _drain(receive, limit)
        raise _too_large(limit)
    message = await receive()
    if message["type"] == "http.disconnect":
        raise Gone
    body: bytes = message.get("body", b"")
    if not message.get("more_body"):
        if len(body) > limit:
            raise _too_large(limit)
        return body
    try:
        async with asyncio.timeout(BODY_S):
            return await _rest(receive, bytearray(body), limit)
    except TimeoutError:
        raise TooSlow(
            f"The body did not arrive within {BODY_S:.0f} s.", valid="Send fewer records at once."
        ) from None


async def _rest(receive: Receive, body: bytearray, limit: int) -> bytearray:
    while True:
        if len(body) > limit:
            await _drain(receive, limit)
            raise _too_large(limit)
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        body += message.get("body", b"")
        if not message.get("more_body"):
            if len(body) > limit:
                raise _too_large(limit)
            return body


async def _drain(receive: Receive, most: int) -> None:
    """Read on and forget, up to `most` bytes and a few seconds.

    Closing a connection on which more is arriving resets it, and the sender never sees the answer.
    """
    try:
        async with asyncio.timeout(5.0):
            while most > 0:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Gone
                most -= len(message.get("body", b""))
                if not message.get("more_body"):
                    return
    except TimeoutError:
        return


def _too_large(limit: int) -> TooLarge:
    return TooLarge(
        f"The body has more than {limit} bytes.",
        valid="Send fewer records at once, or raise max_body in [serving] of loopwright.toml.",
    )
