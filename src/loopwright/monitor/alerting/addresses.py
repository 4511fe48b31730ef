"""Addresses that messages go to: what is in ``[alerts] to``, what it stands for, and what of it may be shown.

An address holds passwords and tokens. It is completed from the environment at the moment of sending and goes nowhere
but to Apprise; the ledger, logs, errors and ``--json`` have only its `Address.name`.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote, quote_plus, unquote

from loopwright.errors import InvalidConfig

__all__ = ["Address", "addresses"]

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
#: Services whose address names a server behind ``://``; with the others a token may stand there.
_WITH_HOST = frozenset(
    {"apprise", "apprises", "form", "forms", "json", "jsons", "mailto", "mailtos", "xml", "xmls"}
)
_HOST = re.compile(r"^(?:[A-Za-z0-9._-]|\$\{[A-Za-z0-9_]+\})+(?::(?:\d{1,5}|\$\{[A-Za-z0-9_]+\}))?$")
#: What separates the parts of an address; each part on its own could be a secret.
_SEPARATORS = re.compile(r"[/:@?&=#,;\s]+")
#: Parts that are shorter than this are left in error texts: they would cut holes into ordinary words.
_SHORT = 4
HIDDEN = "***"
#: Names of servers are not longer.
_LONGEST = 253


@dataclass(frozen=True, slots=True)
class Address:
    """One address as it is configured, with ``${NAME}`` for what is in the environment.

    Examples
    --------
    >>> address = Address("mailtos://watch:${SMTP_PASSWORD}@mail.example.com?to=ops@example.com")
    >>> address.name
    'mailtos://mail.example.com #83eb3e15'
    >>> address.complete({"SMTP_PASSWORD": "p@ss"})
    'mailtos://watch:p%40ss@mail.example.com?to=ops@example.com'
    >>> address.hide("535 refused: p@ss is wrong", {"SMTP_PASSWORD": "p@ss"})
    '535 refused: *** is wrong'
    """

    text: str

    @property
    def name(self) -> str:
        """What may be shown: the service, its server where that is no secret, and what tells it from another."""
        digest = hashlib.blake2b(self.text.encode(), digest_size=4).hexdigest()
        return f"{self._shown()} #{digest}"

    def _shown(self) -> str:
        scheme, found, rest = self.text.partition("://")
        whole = _VARIABLE.fullmatch(self.text)
        if whole and len(self.text) <= _LONGEST:
            return self.text
        if not found or not re.fullmatch(r"[A-Za-z0-9+.-]{1,32}", scheme):
            return HIDDEN
        host = _host(rest) if scheme.lower() in _WITH_HOST else ""
        return f"{scheme}://{host or HIDDEN}"

    def complete(self, environment: Mapping[str, str] | None = None) -> str:
        """Return the address with its variables filled in.

        A value behind ``:`` or ``=``, where passwords stand, may hold any characters and is quoted; elsewhere it is
        taken as it is, so that one variable can be a whole address.

        Raises
        ------
        InvalidConfig
            A variable is not set, or is empty.
        """
        values = os.environ if environment is None else environment
        missing = sorted({name for name in _VARIABLE.findall(self.text) if not values.get(name)})
        if missing:
            raise InvalidConfig(
                f"The address {self.name} needs {', '.join(f'${{{name}}}' for name in missing)}, "
                "which the environment of this process does not have.",
                valid="A variable is set before Loopwright is started.",
                hint=f"export {missing[0]}=...   then: loopwright down && loopwright up",
            )

        def value(match: re.Match[str]) -> str:
            before = self.text[match.start() - 1] if match.start() else ""
            return quote(values[match[1]], safe="") if before in {":", "="} else values[match[1]]

        return _VARIABLE.sub(value, self.text)

    def hide(self, text: str, environment: Mapping[str, str] | None = None) -> str:
        """Return a text, such as an error of a service, without anything that stands in this address."""
        values = os.environ if environment is None else environment
        secrets = {values.get(name, "") for name in _VARIABLE.findall(self.text)}
        try:
            whole = self.complete(environment)
        except InvalidConfig:
            whole = self.text
        shown = set(_SEPARATORS.split(self._shown())) | {"true", "false", "http", "https"}
        parts = {part for part in _SEPARATORS.split(whole) if part not in shown}
        secrets |= parts | {whole}
        spelled = {
            form for one in secrets for form in (one, unquote(one), quote(one, safe=""), quote_plus(one))
        }
        for one in sorted(spelled, key=len, reverse=True):
            if len(one) >= _SHORT:
                text = text.replace(one, HIDDEN)
        return text


def _host(rest: str) -> str:
    """Return the server, and its port, of what stands behind ``://``; nothing where it could be part of a password."""
    before, _, query = rest.partition("?")
    server, _, path = before.partition("/")
    unquoted = "@" in path or server.count("@") > 1 or ("@" in query and "=" not in query.partition("@")[0])
    host = server.rpartition("@")[2]
    return host if not unquoted and len(host) <= _LONGEST and _HOST.match(host) else ""


def addresses(texts: Iterable[str]) -> dict[str, Address]:
    """Return addresses by their names; one that is given twice is there once."""
    return {one.name: one for one in map(Address, texts)}
