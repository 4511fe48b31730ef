"""Answering questions for all readers: equal questions share an answer, and one that cannot have changed is not read anew."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

from loopwright.console.monitoring.source import Question, Source

__all__ = ["Asking"]

Answer = TypeVar("Answer")
#: Seconds for which an answer is taken as it is, and after which one that nobody wants is forgotten.
FRESH_S, FORGOTTEN_S = 1.0, 30.0
#: Answers kept at most.
MOST = 200


@dataclass(slots=True)
class _Known:
    stamp: Hashable
    answer: Any
    checked: float
    asked: float


class Asking:
    """Answers to questions, shared by all readers of a process.

    Parameters
    ----------
    source
        Gives what answers are read from, at the present moment. It is called in a thread.
    """

    def __init__(self, source: Callable[[], Source]) -> None:
        self._source = source
        self._known: dict[Any, _Known] = {}
        self._going: dict[Any, asyncio.Task[Any]] = {}

    async def ask(self, question: Question[Answer]) -> Answer:
        """Return the answer to a question, no older than `FRESH_S` seconds.

        The same object is returned as long as nothing has changed. Raises as the question's `answer` does.
        """
        now = time.monotonic()
        known = self._known.get(question)
        if known is not None and now - known.checked < FRESH_S:
            known.asked = now
            answer: Answer = known.answer
            return answer
        task = self._going.get(question)
        if task is None:
            task = asyncio.create_task(asyncio.to_thread(self._read, question))
            self._going[question] = task
            task.add_done_callback(lambda done: self._ended(question, done))
        # A reader that goes away does not take the answer from the others.
        found: Answer = await asyncio.shield(task)
        return found

    def _ended(self, question: Any, task: asyncio.Task[Any]) -> None:
        if self._going.get(question) is task:
            del self._going[question]

    def expire(self) -> None:
        """Have every answer looked at anew: something was changed from here, and whoever changed it wants to see it."""
        for known in list(self._known.values()):
            known.checked = -FORGOTTEN_S
        # What is being read may have been read before the change.
        self._going.clear()

    def _read(self, question: Question[Any]) -> Any:
        source, known = self._source(), self._known.get(question)
        stamp = question.stamp(source)
        now = time.monotonic()
        if known is not None and known.stamp == stamp:
            known.checked = known.asked = now
            return known.answer
        answer = question.answer(source)
        self._known[question] = _Known(stamp, answer, time.monotonic(), now)
        self._forget(now)
        return answer

    def _forget(self, now: float) -> None:
        kept = {key: one for key, one in list(self._known.items()) if now - one.asked < FORGOTTEN_S}
        if len(kept) > MOST:
            newest = sorted(kept, key=lambda key: kept[key].asked)[-MOST:]
            kept = {key: kept[key] for key in newest}
        self._known = kept
