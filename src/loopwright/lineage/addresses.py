"""Addresses of data with the secrets left out: ``${NAME}`` stands for an environment variable until it is used."""

from __future__ import annotations

import os
import re
from urllib.parse import parse_qsl, quote, urlsplit

from loopwright.errors import InvalidInput

__all__ = ["expand", "scheme_of", "without_secrets"]

_REFERENCE = re.compile(r"\$\{([A-Za-z_]\w*)\}")
_SCHEME = re.compile(r"^([a-z][a-z0-9+.-]*)://")
_USER = re.compile(r"^([a-z0-9+.-]+://)([^/?#]*)@")
_SECRET = {"password", "secret", "token", "secret_key", "access_key", "sslpassword"}


def scheme_of(text: str) -> str:
    """Return the scheme of an address without its driver, such as ``postgresql``; empty for a path."""
    found = _SCHEME.match(expand(text) if text.startswith("${") else text)
    return found[1].partition("+")[0] if found else ""


def expand(text: str) -> str:
    """Return an address with its ``${NAME}`` replaced; those in front of an ``@`` are escaped as a URL wants it.

    Raises
    ------
    InvalidInput
        A variable is not set.
    """

    def value(found: re.Match[str]) -> str:
        name = found[1]
        if name not in os.environ:
            raise InvalidInput(
                f"The address {text} takes the environment variable {name}, which is not set.",
                hint=f"export {name}=...",
            )
        return os.environ[name]

    if user := _USER.match(text):
        escaped = _REFERENCE.sub(lambda found: quote(value(found), safe=""), user[2])
        return f"{user[1]}{escaped}@{_REFERENCE.sub(value, text[user.end() :])}"
    return _REFERENCE.sub(value, text)


def without_secrets(text: str) -> str:
    """Return the address when it holds no password, for it is kept and shown.

    Raises
    ------
    InvalidInput
        It holds one. The message does not repeat it.
    """
    parts = urlsplit(text)
    named = [key for key, value in parse_qsl(parts.query) if key.lower() in _SECRET and "${" not in value]
    literal = parts.password is not None and not _REFERENCE.fullmatch(parts.password)
    if literal or named:
        where = f"{parts.scheme}://{parts.username or ''}:***@{parts.hostname or ''}{parts.path}"
        raise InvalidInput(
            f"The address {where} holds a password. Addresses are kept in the lineage, and passwords are not.",
            valid="Name an environment variable instead: "
            f"{parts.scheme}://{parts.username or 'user'}:${{DB_PASSWORD}}@{parts.hostname or 'host'}{parts.path}",
            hint="export DB_PASSWORD=...",
        )
    return text
