"""What every request has: its headers, its body within limits, and the refusals that only HTTP knows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from loopwright.deploy.online import tracing
from loopwright.errors import InvalidInput

__all__ = [
    "PLAIN",
    "Details",
    "Gone",
    "Receive",
    "Scope",
    "Send",
    "TooLarge",
    "TooSlow",
    "WrongMethod",
    "WrongType",
    "details_of",
    "read_body",
    "text",
    "too_large",
    "too_slow",
]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

#: Longest header value that goes into the log, in bytes.
LONGEST = 256
#: The longest time a caller can ask for, in milliseconds.
LONGEST_TIMEOUT_MS = 600_000


class WrongMethod(InvalidInput):
    """The path is right, the method is not."""

    http_status = 405


class WrongType(InvalidInput):
    """The body is of a type that is not read there."""

    http_status = 415


class TooLarge(InvalidInput):
    """The body is larger than `serving.max_body`."""

    http_status = 413


class TooSlow(InvalidInput):
    """The request did not arrive in time."""

    http_status = 408


class Gone(Exception):
    """The caller hung up before its request was complete."""


@dataclass(slots=True)
class Details:
    """What the headers of a request say about it, besides its type and length.

    `timeout_s` is how long its caller waits, None for as long as the deployment allows. `trace` is a valid
    ``traceparent``.
    """

    entity: str = ""
    request_id: str = ""
    variant: str = ""
    timeout_s: float | None = None
    trace: str = ""


#: Of a request that says nothing special: one for all, never changed.
PLAIN = Details()


def details_of(headers: Mapping[bytes, bytes]) -> Details:
    """Read the headers that matter to a prediction.

    Raises
    ------
    InvalidInput
        One is too long, or says nothing that can be understood.
    """
    found = Details()
    for name in (b"x-entity", b"x-request-id", b"x-variant"):
        value = headers.get(name)
        if value and len(value) > LONGEST:
            raise InvalidInput(
                f"The header {name.decode()} has {len(value)} bytes.", valid=f"At most {LONGEST} are kept."
            )
    if headers.get(b"x-variant") == b"":
        raise InvalidInput("The header x-variant is empty.", valid="It is the name of a variant.")
    found.entity = text(headers.get(b"x-entity", b""))
    found.request_id = text(headers.get(b"x-request-id", b""))
    found.variant = text(headers.get(b"x-variant", b""))
    timeout = headers.get(b"x-timeout-ms")
    if timeout is not None:
        found.timeout_s = timeout_s(text(timeout), "The header x-timeout-ms")
    if trace := headers.get(b"traceparent"):
        # A broken one is another system's fault and no reason to refuse.
        found.trace = tracing.parse(trace) or ""
    return found


def timeout_s(value: str, what: str) -> float:
    """Return a timeout given in milliseconds as seconds, or raise `InvalidInput` that names where it stood."""
    if not (value.isascii() and value.isdecimal()) or not 1 <= int(value[:12]) <= LONGEST_TIMEOUT_MS:
        raise InvalidInput(
            f"{what} is {value[:60]!r}.", valid=f"It is in milliseconds, from 1 to {LONGEST_TIMEOUT_MS}."
        )
    return int(value) / 1000.0


def text(value: bytes) -> str:
    """Return a header's value as text: UTF-8, which most senders mean, else Latin-1, which always works."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


async def read_body(
    receive: Receive, headers: Mapping[bytes, bytes], limit: int, seconds: float
) -> bytes | bytearray:
    """Read a body of at most `limit` bytes that arrives within so many seconds.

    Raises
    ------
    TooLarge
        It is larger; reading stops there, and the connection ends with the answer.
    TooSlow
        It did not arrive in time.
    Gone
        The caller hung up.
    """
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > limit:
        raise too_large(limit)
    try:
        async with asyncio.timeout(seconds):
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Gone
            body: bytes = message.get("body", b"")
            if message.get("more_body"):
                return await _rest(receive, bytearray(body), limit)
    except TimeoutError:
        raise too_slow(seconds) from None
    if len(body) > limit:
        raise too_large(limit)
    return body


async def _rest(receive: Receive, body: bytearray, limit: int) -> bytearray:
    while True:
        if len(body) > limit:
            raise too_large(limit)
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        body += message.get("body", b"")
        if not message.get("more_body"):
            if len(body) > limit:
                raise too_large(limit)
            return body


def too_large(limit: int) -> TooLarge:
    """Return the refusal of a body that is too large."""
    return TooLarge(
        f"The body has more than {limit} bytes.",
        valid="Send fewer records at once, or raise max_body in [serving] of loopwright.toml.",
    )


def too_slow(timeout: float) -> TooSlow:
    """Return the refusal of a request that takes too long to arrive."""
    return TooSlow(
        f"The request did not arrive within {timeout:g} s.",
        valid="Send fewer records at once, or raise body_timeout in [serving] of loopwright.toml.",
    )
