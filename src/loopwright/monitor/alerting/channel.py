"""Sending one message to one address with Apprise, and why it did not arrive.

Apprise is the only thing here that reaches out, and only to the address it is given.
"""

from __future__ import annotations

import html
import logging
import re
import threading
import warnings
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, Self

from loopwright.errors import InvalidConfig, LoopwrightError, Unavailable, nearest
from loopwright.monitor.alerting.addresses import Address

if TYPE_CHECKING:
    from apprise import AppriseAsset

__all__ = ["DEADLINE_S", "Message", "check", "send"]

#: A service that has not taken a message by then has not taken it.
DEADLINE_S = 30.0
#: How a block of a text begins whose columns must line up.
BARS = "share of rows:"
EXAMPLES = (
    "Such as mailtos://USER:${SMTP_PASSWORD}@mail.example.com?to=ops@example.com, "
    "slack://${SLACK_TOKENS}/#alerts, or json://host:8080/path for a webhook; all services: "
    "https://appriseit.com/services/"
)
#: Lines of Apprise that say nothing about why.
_NOISE = (
    "Loaded ",
    "Sent ",
    "JSON POST URL",
    "JSON Payload",
    "Connecting to ",
    "Securing ",
    "Login ",
    "Applying ",
)
#: What of a connection's error is for people.
_ERRNO = re.compile(r"\[Errno -?\d+\] [\w ]+")
Look = Literal["info", "success", "warning", "failure"]
#: The thread that last sent to an address, by the address as it is configured.
_sending: dict[str, threading.Thread] = {}


@dataclass(frozen=True, slots=True)
class Message:
    """What is said: a title, a plain text, the same text shortened, and for webhooks what it is about as data."""

    title: str
    body: str
    short: str = ""
    look: Look = "info"
    alerts: list[dict[str, Any]] = field(default_factory=list)


def check(address: Address) -> None:
    """Do all that sending does but send.

    Raises
    ------
    InvalidConfig
        A variable is missing, or Apprise knows no such address.
    """
    with _Listening() as said:
        _service(address, said)


def send(address: Address, message: Message) -> None:
    """Send a message.

    Raises
    ------
    InvalidConfig
        See `check`.
    Unavailable
        The service did not take it within `DEADLINE_S`; nothing of the address is in the reason.
    """
    if (before := _sending.get(address.text)) and before.is_alive():
        raise _refused(address, "it has not let go of the message before this one")
    failures: list[LoopwrightError] = []

    def work() -> None:
        try:
            _send(address, message)
        except LoopwrightError as error:
            failures.append(error)
        except Exception as error:  # noqa: BLE001 - a service's plug-in may raise anything
            failures.append(_refused(address, f"{type(error).__name__}: {error}"))

    # A server that answers a byte a minute outlives every timeout of a socket.
    worker = threading.Thread(target=work, name=f"send {address.name}", daemon=True)
    _sending[address.text] = worker
    worker.start()
    worker.join(DEADLINE_S)
    if worker.is_alive():
        raise _refused(address, f"no answer within {DEADLINE_S:.0f} s")
    if failures:
        raise failures[0]


def _send(address: Address, message: Message) -> None:
    with _Listening() as said:
        service = _service(address, said)
        from apprise.common import NotifyFormat, NotifyType

        if hasattr(service, "payload_extras") and type(service).__name__ == "NotifyJSON":
            service.payload_extras["alerts"] = message.alerts
        body = message.body
        if len(body) > service.body_maxlen:
            body = (message.short or body)[: service.body_maxlen]
        as_html = service.notify_format == NotifyFormat.HTML
        # Not the service's own `notify`, which takes any text for what the service wants.
        sender = _apprise()(asset=_asset())
        sender.add(service)
        sent = sender.notify(
            title=message.title[: service.title_maxlen or None],
            body=_html(body) if as_html else body,
            notify_type=NotifyType(message.look),
            body_format=NotifyFormat.HTML if as_html else NotifyFormat.TEXT,
        )
        if not sent:
            raise _refused(address, said.reason() or "the service did not take the message")


def _html(text: str) -> str:
    """Return a text as HTML: Apprise's own has no line that breaks, and bars that do not line up."""
    blocks = []
    for block in text.split("\n\n"):
        tag = "pre" if block.startswith(BARS) else "p"
        lines = "<br/>".join(html.escape(line, quote=False) for line in block.splitlines())
        blocks.append(f"<{tag}>{lines}</{tag}>")
    return "".join(blocks)


def _refused(address: Address, reason: str) -> Unavailable:
    return Unavailable(
        f"{address.name}: {address.hide(reason).rstrip('.')}.",
        hint="loopwright alert test   (sends a message to each address and says what went wrong)",
    )


def _service(address: Address, said: _Listening) -> Any:
    """Return Apprise's object for an address."""
    text = address.complete()
    service = _apprise().instantiate(text, asset=_asset())
    if service is not None:
        return service
    scheme = text.partition("://")[0].lower()
    known = _schemes()
    if scheme not in known:
        close = nearest(scheme, known)
        guess = f" Did you mean {close}://?" if close else ""
        # Without a scheme the whole text may be a secret.
        named = f" Apprise knows no service {scheme!r}." if "://" in address.text else ""
        raise InvalidConfig(
            f"[alerts]: {address.name} is no address.{named}{guess}",
            valid=EXAMPLES,
            hint="loopwright alert test",
        )
    raise InvalidConfig(
        f"[alerts]: {address.name} is no complete address of {scheme}: {address.hide(said.reason())}.",
        valid=f"{EXAMPLES}{scheme}/",
        hint="loopwright alert test",
    )


@cache
def _apprise() -> Any:
    with warnings.catch_warnings():
        # Apprise looks for a module that Python 3.13 has dropped, and Python 3.11 warns of that.
        warnings.simplefilter("ignore", DeprecationWarning)
        from apprise import Apprise

        # Which services there are is found out now, by importing them.
        Apprise.instantiate("json://localhost")
    return Apprise


@cache
def _schemes() -> frozenset[str]:
    from apprise.manager_plugins import NotificationManager

    manager: Any = NotificationManager
    return frozenset(manager().schemas())


@cache
def _asset() -> AppriseAsset:
    """Return who we are. Without pictures: they would be fetched from elsewhere by whoever reads the message."""
    from apprise import AppriseAsset

    return AppriseAsset(
        app_id="Loopwright",
        app_desc="Loopwright",
        app_url="",
        image_url_mask=None,
        image_url_logo=None,
        async_mode=False,
        pgp_autogen=False,
        pem_autogen=False,
        storage_mode="memory",
    )


class _Listening:
    """What Apprise logs in this thread while the context lasts: the only place where it says why.

    What is said here goes nowhere else: at the level that tells most there are passwords in it.
    """

    def __init__(self) -> None:
        self.lines: list[tuple[int, str]] = []

    def __enter__(self) -> Self:
        _diverted().here.listening = self
        return self

    def __exit__(self, *_: object) -> None:
        _diverted().here.listening = None

    def reason(self) -> str:
        """Return the warnings, and behind them what the connection said."""
        warned = [text for level, text in self.lines if level >= logging.WARNING]
        excepted = [text for level, text in self.lines if level < logging.WARNING and "Exception: " in text]
        detail = [found[0] if (found := _ERRNO.search(text)) else text for text in excepted]
        return " ".join(dict.fromkeys(text.strip() for text in (*warned, *detail) if text.strip()))


class _Diverted(logging.Filter):
    """Gives records of a listening thread to it alone, and lets the others pass as they would have."""

    def __init__(self, level: int) -> None:
        super().__init__()
        self.here = threading.local()
        self._level = level

    def filter(self, record: logging.LogRecord) -> bool:
        listening: _Listening | None = getattr(self.here, "listening", None)
        if listening is None:
            return record.levelno >= self._level
        listening.lines.append((record.levelno, record.getMessage()))
        return False


@cache
def _diverted() -> _Diverted:
    log = logging.getLogger("apprise")
    diverted = _Diverted(log.getEffectiveLevel())
    log.setLevel(logging.DEBUG)
    log.addFilter(diverted)
    return diverted
