"""API keys: who may ask a server that more than this machine can reach.

A key is shown once, when it is made. The ledger has its SHA-256: keys are 32 random bytes, which no list of guesses
covers, so that a slow hash would only slow down each request. A key is found by its digest; what the comparison's time
tells of a digest does not lead back to a key.
"""

from __future__ import annotations

import dataclasses
import hashlib
import ipaddress
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from loopwright.errors import Conflict, Denied, InvalidInput, NotFound, listing
from loopwright.ledger import Ledger
from loopwright.records import now

__all__ = [
    "ApiKey",
    "Keys",
    "Unauthorized",
    "create",
    "forget",
    "is_loopback",
    "is_open",
    "known",
    "revoke",
    "sent",
]

KIND = "api_key"
#: What each key begins with, so that one that leaked is found by a search.
MARK = "lw_"
#: Never an address, which begins with a digit or has a colon: limits count by either.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")
#: What answers without a key: whether a process is alive and ready says nothing about models or data.
_OPEN = frozenset({"/health", "/ping", "/ready", "/v2/health/live", "/v2/health/ready"})
_CREATE = "loopwright key create NAME"


class Unauthorized(Denied):
    """A key is needed, and none or none that is known was sent."""

    code = "unauthorized"
    http_status = 401
    #: What HTTP wants to be said with a 401.
    headers: tuple[tuple[bytes, bytes], ...] = ((b"www-authenticate", b"Bearer"),)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key as the ledger has it. `digest` is the SHA-256 of its text; `revoked` is empty while it is valid."""

    name: str
    digest: str
    created: datetime = field(default_factory=now)
    revoked: datetime | None = None


def _digest(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()


def known(ledger: Ledger) -> list[ApiKey]:
    """Return all keys by name, also those that were revoked."""
    return [state.read(ApiKey) for state in ledger.states(KIND) if state.value is not None]


def create(ledger: Ledger, name: str) -> str:
    """Make a key and return it; it cannot be read again.

    Parameters
    ----------
    ledger
        The project's.
    name
        Who it is for, as limits and the access log call it. The name of a revoked key can be given again.

    Raises
    ------
    InvalidInput
        The name is none.
    Conflict
        A valid key has this name.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"{name[:100]!r} is no name of a key.",
            valid="It begins with a letter and has up to 64 letters, digits, dots, dashes and underscores.",
        )
    state = ledger.get(KIND, name)
    if state is not None and state.value is not None and state.read(ApiKey).revoked is None:
        raise Conflict(f"There is a key {name!r} already.", hint=f"loopwright key revoke {name}")
    key = MARK + secrets.token_urlsafe(32)
    made = ApiKey(name, _digest(key.encode()))
    expect = state.revision if state else 0
    ledger.put(KIND, name, made, expect=expect, event="api_key.created", payload={"name": name})
    return key


def revoke(ledger: Ledger, name: str) -> ApiKey:
    """Make a key invalid; serving processes refuse it within a second.

    Raises
    ------
    NotFound
        There is no such key.
    Conflict
        It was revoked before.
    """
    key, revision = _read(ledger, name)
    if key.revoked is not None:
        raise Conflict(f"The key {name!r} was revoked on {key.revoked:%Y-%m-%d %H:%M} UTC.")
    done = dataclasses.replace(key, revoked=now())
    ledger.put(KIND, name, done, expect=revision, event="api_key.revoked", payload={"name": name})
    return done


def forget(ledger: Ledger, name: str) -> None:
    """Forget a revoked key. When the last is forgotten, callers on this machine need no key again.

    Raises
    ------
    NotFound
        There is no such key.
    Conflict
        It is valid.
    """
    key, revision = _read(ledger, name)
    if key.revoked is None:
        raise Conflict(f"The key {name!r} is valid.", hint=f"loopwright key revoke {name}")
    ledger.put(KIND, name, None, expect=revision, event="api_key.forgotten", payload={"name": name})


def _read(ledger: Ledger, name: str) -> tuple[ApiKey, int]:
    state = ledger.get(KIND, name)
    if state is None or state.value is None:
        names = [key.name for key in known(ledger)]
        raise NotFound.among("key", name, names, hint="loopwright key list")
    return state.read(ApiKey), state.revision


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that is bound to this host."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def is_open(path: str) -> bool:
    """Whether a path answers without a key."""
    return path in _OPEN


def sent(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """Return what a request says of its key: ``x-api-key``, else ``authorization``; names are in lower case."""
    found = None
    for name, value in headers:
        if name == b"x-api-key":
            return value
        if name == b"authorization":
            found = value
    return found


class Keys:
    """The keys of one serving process.

    A key is needed as soon as one was made, also when all are revoked since, or where others than this machine can
    reach the server: taking the last key away must not open the door.

    Parameters
    ----------
    ledger
        Where the keys are; they are read at once.
    host
        What the server is bound to.
    """

    def __init__(self, ledger: Ledger, host: str = "127.0.0.1") -> None:
        self._ledger = ledger
        self._elsewhere = not is_loopback(host)
        self._revision = -1
        # Replaced as a whole by the thread that follows the ledger.
        self._names: dict[str, str] = {}
        self._any = False
        self.refresh()

    @property
    def needed(self) -> bool:
        """Whether a request needs a key."""
        return self._any or self._elsewhere

    def refresh(self) -> None:
        """Take over what has changed in the ledger; call it twice a second, from a thread of its own.

        Costs one small query. When the ledger does not answer, the error goes on and the keys stay as they were.
        """
        revision = self._ledger.revision()
        if revision == self._revision:
            return
        keys = known(self._ledger)
        self._names = {key.digest: key.name for key in keys if key.revoked is None}
        self._any = bool(keys)
        self._revision = revision

    def require_for(self, host: str) -> None:
        """Say what the server is bound to, before it accepts connections.

        Raises
        ------
        Denied
            Others than this machine can reach it, and no key is valid.
        """
        self._elsewhere = not is_loopback(host)
        if self._elsewhere and not self._names:
            raise Denied(
                f"The server is to be bound to {host}, which others than this machine can reach, and has no API key.",
                valid='Make a key first, or leave host = "127.0.0.1" in [serving] of loopwright.toml.',
                hint=_CREATE,
                host=host,
            )

    def check(self, header: bytes | None) -> str | None:
        """Return the name of a request's key; None when no key is needed and none that is known was sent.

        Parameters
        ----------
        header
            What `sent` returned: the key, or ``Bearer`` and the key.

        Raises
        ------
        Unauthorized
            A key is needed, and this is none that is valid.
        """
        if header is None:
            if self._any or self._elsewhere:
                raise _refusal("No API key was sent.")
            return None
        key = header[7:].strip() if header[:7].lower() == b"bearer " else header
        name = self._names.get(_digest(key))
        if name is None and (self._any or self._elsewhere):
            raise _refusal("The API key that was sent is not valid.")
        return name


def _refusal(fact: str) -> Unauthorized:
    ways = listing(["x-api-key: <key>", "authorization: Bearer <key>"])
    return Unauthorized(fact, valid=f"Send one of the headers {ways}.", hint=_CREATE)
