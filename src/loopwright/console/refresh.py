"""One refresher for all readers: what the pages and the JSON interface show is computed once per period.

Nobody looking costs nothing: only views that were asked for lately are computed.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from loopwright import maturity
from loopwright.config import Project
from loopwright.console import snapshot
from loopwright.console.asking import Asking
from loopwright.console.links import Links
from loopwright.console.monitoring import sql
from loopwright.console.monitoring.source import Question, Source
from loopwright.console.monitoring.sql import Answered
from loopwright.console.views import Glance, Story
from loopwright.errors import LoopwrightError
from loopwright.ledger import Ledger
from loopwright.maturity import Assessment
from loopwright.monitor.live import LiveNumbers, render
from loopwright.predictions import PredictionStore

__all__ = ["Board"]

Answer = TypeVar("Answer")
Changed = TypeVar("Changed")
log = logging.getLogger(__name__)
#: Seconds between two refreshes; on a busy machine at most a quarter of the time is spent on them.
PERIOD_S, SHARE = 2.0, 0.25
#: A view that nobody asked for in so many seconds is not computed.
FORGOTTEN_S = 12.0
#: Facts of maturity change slowly and ask git.
MATURITY_S = 60.0
#: Queries in SQL that are answered at the same time; others wait.
QUERIES = 2


class Board:
    """The newest views of a project, shared by all readers. `error` says why they are not fresh."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.error = ""
        self.turn = 0
        self.glance: Glance | None = None
        self.stories: dict[str, Story] = {}
        self.maturity: Assessment | None = None
        self._store = PredictionStore(project)
        self._ledger: Ledger | None = None
        self._live: LiveNumbers | None = None
        self._opening = threading.Lock()
        self._asking = Asking(self._source)
        self._querying = asyncio.Semaphore(QUERIES)
        self._asked: dict[str, float] = {}
        self._judged = -MATURITY_S
        self._refreshed = -PERIOD_S
        self._busy = asyncio.Lock()

    def watch(self, name: str = "") -> None:
        """Keep a view fresh for a while: a deployment's story, or without a name the glance over all."""
        self._asked[name] = time.monotonic()

    async def ask(self, question: Question[Answer]) -> Answer:
        """Return the answer to a question about what the monitors found. Raises as the question's `answer` does."""
        return await self._asking.ask(question)

    async def change(self, action: Callable[[Ledger], Changed]) -> Changed:
        """Carry out a change of the ledger, in the name of the user that this process runs as."""
        changed = await asyncio.to_thread(lambda: action(self.ledger()))
        self._asking.expire()
        return changed

    async def query(
        self, text: str, *, deployment: str | None, since: datetime | None, until: datetime | None
    ) -> Answered:
        """Answer one SELECT over the prediction log; at most `QUERIES` at a time.

        Raises
        ------
        InvalidInput
            It is not one SELECT, does not work, or took too long.
        """
        async with self._querying:
            return await asyncio.to_thread(sql.ask, self._source(), text, deployment, since, until)

    async def metrics(self) -> str:
        """Return what the monitors found in Prometheus's format."""
        return await asyncio.to_thread(render, self.project, self.ledger(), datetime.now(UTC))

    def ledger(self) -> Ledger:
        """Return the ledger, opening it the first time."""
        with self._opening:
            self._ledger = self._ledger or Ledger.open(self.project)
        return self._ledger

    def _source(self) -> Source:
        ledger = self.ledger()
        self._live = self._live or LiveNumbers(ledger, self.project)
        return Source(self.project, ledger, self._store, datetime.now(UTC), self._live)

    async def overview(self) -> Glance:
        """Return all deployments at a glance, computing them when they are not fresh."""
        known = self.glance
        if not self._fresh("", known):
            await self._refresh("")
            known = self.glance
        assert known is not None
        return known

    async def story(self, name: str) -> Story:
        """Return the story of a deployment, computing it when it is not fresh.

        Raises
        ------
        NotFound
            No deployment of this name is declared.
        """
        self.project.deployment(name)
        known = self.stories.get(name)
        if not self._fresh(name, known):
            await self._refresh(name)
            known = self.stories[name]
        assert known is not None
        return known

    async def assessment(self) -> Assessment:
        """Return the maturity of the project."""
        await self.overview()
        assert self.maturity is not None
        return self.maturity

    async def run(self) -> None:
        """Refresh for ever what is being looked at."""
        while True:
            started = time.monotonic()
            if wanted := self._wanted():
                try:
                    await self._refresh(*wanted)
                except Exception as error:  # noqa: BLE001 (the page says what is wrong and the next turn tries again)
                    self._failed(error)
            spent = time.monotonic() - started
            await asyncio.sleep(max(PERIOD_S - spent, spent * (1 / SHARE - 1), 0.1))

    def _fresh(self, name: str, known: Glance | Story | None) -> bool:
        """Ask for a view, and say whether what is known of it will do."""
        self.watch(name)
        return known is not None and time.monotonic() - self._refreshed <= 2 * PERIOD_S

    async def _refresh(self, *names: str) -> None:
        """Compute these views and all others that are wanted."""
        async with self._busy:
            await asyncio.to_thread(self._compute, {*names, *self._wanted()})
            self._refreshed = time.monotonic()
            self.turn += 1
            self.error = ""

    def _wanted(self) -> set[str]:
        now = time.monotonic()
        return {name for name, asked in self._asked.items() if now - asked < FORGOTTEN_S}

    def _compute(self, wanted: set[str]) -> None:
        """Compute all wanted views from one reading of the log. Runs in a thread, one at a time."""
        moment = snapshot.Moment.read(self._source())
        links = Links.of(self.project)
        self.stories = {name: snapshot.story(moment, name, links) for name in wanted if name}
        if "" not in wanted:
            return
        self.glance = snapshot.glance(moment)
        if time.monotonic() - self._judged >= MATURITY_S:
            self.maturity = maturity.assess(self.project, self.ledger())
            self._judged = time.monotonic()

    def _failed(self, error: Exception) -> None:
        text = error.fact if isinstance(error, LoopwrightError) else f"{type(error).__name__}: {error}"
        if text != self.error:
            log.error("The views were not refreshed: %s", text, exc_info=error)
        self.error = text
        self.turn += 1
