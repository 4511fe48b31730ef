"""Sending what is in the outbox, beside everything else: a slow or dead mail server holds nothing up but its own mail.

At least once: a message that was sent by a process that was killed before it could say so is sent once more.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime

from loopwright.config import AlertsConfig, Project
from loopwright.errors import LoopwrightError
from loopwright.ledger import Ledger
from loopwright.monitor.alerting import channel, messages, outbox
from loopwright.monitor.alerting.addresses import Address, addresses
from loopwright.monitor.alerting.messages import Notice
from loopwright.monitor.alerting.outbox import Delivery
from loopwright.records import Alert, now

__all__ = ["Sender", "try_addresses"]

log = logging.getLogger(__name__)
#: Seconds between two looks into the outbox.
TURN_S = 0.5
#: Tries to write down that a message was sent: without it, it would be sent again.
_TRIES = 5


class Sender:
    """A thread that sends what is due, with one more thread for each address while it sends.

    Parameters
    ----------
    project
        Returns the project as it is configured now: addresses may change while it runs.
    ledger
        May be used by other threads as well.
    clock
        Returns the present moment.

    Examples
    --------
    >>> sender = Sender(lambda: project, ledger)   # doctest: +SKIP
    >>> sender.start()                             # doctest: +SKIP
    >>> sender.stop()                              # doctest: +SKIP
    """

    def __init__(
        self, project: Callable[[], Project], ledger: Ledger, clock: Callable[[], datetime] = now
    ) -> None:
        self._project = project
        self._ledger = ledger
        self._clock = clock
        self._ended = threading.Event()
        self._busy: dict[str, threading.Thread] = {}
        self._seen = AlertsConfig()
        # A server that does not answer must not keep the process from ending: what is not sent then is sent later.
        self._thread = threading.Thread(target=self._run, name="alert-sender", daemon=True)

    def start(self) -> None:
        """Start sending."""
        self._thread.start()

    def stop(self, timeout_s: float = 3.0) -> None:
        """Take no more; wait at most `timeout_s` seconds for what is being sent, which is else sent again later."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        self.wait(timeout_s)

    def wait(self, timeout_s: float = 2 * channel.DEADLINE_S) -> None:
        """Wait, at most `timeout_s` seconds, until what is being sent now is sent or has failed."""
        until = time.monotonic() + timeout_s
        for thread in list(self._busy.values()):
            thread.join(max(0.0, until - time.monotonic()))

    def turn(self) -> int:
        """Take what is due and begin to send it; return how many messages that are."""
        self._busy = {name: thread for name, thread in self._busy.items() if thread.is_alive()}
        groups = outbox.claim(self._ledger, self._clock(), self._busy)
        project = self._project()
        for name in dict.fromkeys(group[0].address for group in groups):
            mine = [group for group in groups if group[0].address == name]
            thread = threading.Thread(
                target=self._send_all, args=(project, name, mine), name="alert-send", daemon=True
            )
            self._busy[name] = thread
            thread.start()
        return len(groups)

    def _run(self) -> None:
        while not self._ended.wait(TURN_S):
            try:
                self._look_at(self._project())
                self.turn()
            except Exception:
                log.exception("looking into the outbox failed; trying again")

    def _look_at(self, project: Project) -> None:
        """Say once of a configuration what is wrong with its addresses, before the night in which they are needed."""
        config = project.config.alerts
        if config == self._seen:
            return
        self._seen = config
        for text in config.checks:
            if unknown := outbox.unknown_check(text):
                log.warning("%s", unknown)
        for address in addresses((*config.to, *config.escalate_to)).values():
            try:
                channel.check(address)
            except LoopwrightError as error:
                log.warning("%s", error)

    def _send_all(self, project: Project, name: str, groups: list[list[Delivery]]) -> None:
        config = project.config.alerts
        address = addresses((*config.to, *config.escalate_to)).get(name)
        for group in groups:
            try:
                error = self._send(project, address, group)
            except Exception as failure:
                log.exception("a message could not be made")
                error = f"{type(failure).__name__} while the message was made; see the controller's log"
            self._record(group, error)

    def _send(self, project: Project, address: Address | None, group: list[Delivery]) -> str:
        """Send one message and return what went wrong, nothing when it was taken."""
        if address is None:
            return "this address is not in [alerts] of loopwright.toml any more"
        try:
            channel.send(address, messages.compose(_notices(self._ledger, group), messages.console(project)))
        except LoopwrightError as error:
            return error.fact
        return ""

    def _record(self, group: list[Delivery], error: str) -> None:
        if error:
            log.warning("attempt %d to tell of %d alerts: %s", group[0].attempts, len(group), error)
        for attempt in range(_TRIES):
            try:
                outbox.record(self._ledger, group, self._clock(), error)
            except Exception:
                log.exception("what became of a message could not be written down")
                self._ended.wait(2**attempt)
            else:
                return


def _notices(ledger: Ledger, group: list[Delivery]) -> list[Notice]:
    payloads = outbox.payloads(ledger, (row.event for row in group))
    return [
        Notice(
            alert=_alert(payloads[row.event]),
            reason=row.reason,
            event=row.event,
            title=row.title,
            body=row.body,
            said=payloads[row.event],
        )
        for row in group
    ]


def _alert(payload: dict[str, object]) -> Alert:
    import msgspec

    return msgspec.convert(payload, Alert)


def try_addresses(texts: tuple[str, ...], project: Project) -> list[tuple[str, float, str]]:
    """Send a test message to addresses, one after the other.

    Returns
    -------
    list of (str, float, str)
        For each address its name, the seconds it took, and what went wrong; nothing when it was taken.
    """
    link = messages.console(project)
    shown = f"\n{link}" if link else ""
    text = f"Alerts of project {project.name} will arrive here. Nothing is wrong.{shown}"
    message = channel.Message(f"[test] {project.name}: a test message", text)
    rows: list[tuple[str, float, str]] = []
    for name, address in addresses(texts).items():
        error, started = "", time.monotonic()
        try:
            channel.send(address, message)
        except LoopwrightError as failure:
            error = " ".join(part for part in (failure.fact, failure.valid) if part)
        rows.append((name, time.monotonic() - started, error))
    return rows
