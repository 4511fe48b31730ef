"""Receivers of messages for the tests beside this file: a webhook, a mail server, and alerts to tell of."""

import contextlib
import email.policy
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from loopwright.config import AlertsConfig, Config, Project
from loopwright.ledger import Event, Ledger
from loopwright.ledger.schema import events
from loopwright.records import Alert

START = datetime(2026, 11, 26, 12, tzinfo=UTC)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self, at: datetime = START) -> None:
        self.at = at

    def __call__(self) -> datetime:
        """Return the moment."""
        return self.at

    def pass_(self, seconds: float) -> datetime:
        """Move it on and return the new moment."""
        self.at += timedelta(seconds=seconds)
        return self.at


class Webhook:
    """What a webhook got. `status` is what it answers, `wait_s` how long it takes to."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.port = int(server.server_address[1])
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.status = 200
        self.wait_s = 0.0

    @property
    def titles(self) -> list[str]:
        """The titles of what came."""
        return [body["title"] for body in self.bodies]


@contextlib.contextmanager
def webhook(port: int = 0) -> Iterator[Webhook]:
    """Run a webhook on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """Keep the body and answer."""
            body = self.rfile.read(int(self.headers["content-length"]))
            got.paths.append(self.path)
            got.bodies.append(json.loads(body))
            time.sleep(got.wait_s)
            with contextlib.suppress(OSError):
                self.send_response(got.status)
                self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    got = Webhook(server)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield got
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Inbox:
    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        mail = message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(mail, EmailMessage)
        self.mails.append(mail)
        return "250 OK"


@contextlib.contextmanager
def mail_server(port: int) -> Iterator[list[EmailMessage]]:
    """Run an SMTP server on a port of this machine and give the mails it gets."""
    inbox = _Inbox()

    def log_in(_server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
        return AuthResult(success=bool(data.password))

    server = Controller(inbox, hostname="127.0.0.1", port=port, authenticator=log_in, auth_require_tls=False)
    server.start()
    try:
        yield inbox.mails
    finally:
        server.stop()


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def told_project(folder: Path, **alerts: Any) -> Project:
    """Return a project that tells of alerts."""
    return Project(folder, Config(alerts=AlertsConfig(**alerts)))


def open_alert(ledger: Ledger, subject: str = "accuracy", *, at: datetime = START, **fields: Any) -> Alert:
    """Open an alert as the monitors do, in one transaction, at a moment."""
    given: dict[str, Any] = {
        "check": "performance",
        "model": "digits",
        "deployment": "digits-api",
        "version": 3,
        "severity": "critical",
        "value": 0.71,
        "limit": 0.85,
        "rows": 1234,
        "advice": "Look at the newest labels, then: loopwright release start digits-api",
        "message": f"{subject} of digits/3 in digits-api is 0.71, below 0.85 in 2 of the last 3 windows of 1 h",
    } | fields
    alert = Alert(
        id=f"{given['deployment']}/{given['version']}/{given['check']}/{subject}",
        subject=subject,
        state="open",
        since=at - timedelta(hours=2),
        changed=at,
        **given,
    )
    before = ledger.get("alert", alert.id)
    ledger.put(
        "alert",
        alert.id,
        alert,
        expect=before.revision if before else 0,
        event="alert.opened",
        subject=alert.model,
        numbered="event",
    )
    state = ledger.get("alert", alert.id)
    assert state is not None
    opened = state.read(Alert)
    # The ledger goes by the machine's clock, the test by its own.
    with ledger.writing() as connection:
        connection.execute(sa.update(events).where(events.c.id == opened.event).values(at=at))
    return opened


def kinds(found: list[Event]) -> list[str]:
    """Return the kinds of events, in their order."""
    return [event.kind for event in found]


def within(seconds: float, condition: Callable[[], Any]) -> bool:
    """Whether a condition comes to hold within some seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())
