"""One stream deployment at work: read, answer, and commit results and position together."""

from __future__ import annotations

import logging

from loopwright.deploy.base import Predictor
from loopwright.deploy.stream.answering import Answering, Decoded, Outputs
from loopwright.deploy.stream.base import Batch, Channel, Message
from loopwright.errors import LoopwrightError, Unavailable
from loopwright.ledger import Ledger
from loopwright.predictions import Ids

__all__ = ["Consumer"]

logger = logging.getLogger(__name__)

#: Messages that are answered together: 3.6 to 81 times the rate of one by one (measured).
BATCH = 256
#: Seconds a message waits at most for others to fill its batch.
WAIT_S = 0.02
#: Times that a message is tried alone before it is put aside.
TRIES = 3
#: `Batch.starts` of a reader whose predecessor died here: once may be anybody's fault.
DIED = 2


class Consumer:
    """The reader of one stream deployment.

    A batch is logged first and committed then. The position never runs ahead of the log, so a kill loses no logged
    prediction; and the messages that a killed reader had logged but not committed are the first ones its successor
    reads, so the successor asks the log once which of those it has. Results and position move in one transaction:
    the sink's topic holds each result once. One case is left: when another version goes into service between the kill
    and the restart, the log keeps the predictions of the old one that never went out, beside those of the new one.

    Parameters
    ----------
    predictor
        The deployment.
    channel
        Its channel.
    ids, ledger
        Of the project.
    """

    def __init__(self, predictor: Predictor, channel: Channel, *, ids: Ids, ledger: Ledger) -> None:
        self.name = predictor.name
        self.predictor = predictor
        self.channel = channel
        self._ids = ids
        self._ledger = ledger
        self._entity = predictor.project.deployment(predictor.name).entity
        self._answering: Answering | None = None
        self._logged: set[str] = set()
        self._suspect = False
        self._alone = 0
        self._refused: list[dict[str, str]] = []

    def step(self) -> int:
        """Answer the next batch and return how many messages it had; waits up to 20 ms for them.

        Raises
        ------
        Unavailable
            Nothing is served yet, or the channel or the log does not answer; nothing was committed.
        """
        answering = self._current()
        batch = self.channel.read(1 if self._alone else BATCH, WAIT_S)
        if not batch.messages:
            return 0
        try:
            if batch.starts > 1 or self._suspect:
                self._ask_log(answering)
            if batch.starts > DIED and not self._alone:
                # Readers died here more than once. One message may be the reason, so they go one by one now.
                self._alone = BATCH
                batch = self.channel.read(1, 0)
            self.channel.commit(batch, self._answer(answering, batch))
        except BaseException:
            # Some rows may be logged by now, and the next attempt must find out which.
            self._suspect, self._refused = True, []
            raise
        self._alone = max(0, self._alone - len(batch.messages))
        self._tell()
        return len(batch.messages)

    def _current(self) -> Answering:
        route = self.predictor.route
        if route is None:
            raise self.predictor.absent()
        if self._answering is None or self._answering.route is not route:
            self._answering = Answering(self.predictor, route, self._ids, self._entity)
        return self._answering

    def _ask_log(self, answering: Answering) -> None:
        """Find out which of the next messages are logged. A full batch of them, also when they go one by one."""
        waiting, _ = answering.decode(self.channel.read(BATCH, 0).messages)
        self._logged, self._suspect = answering.logged(waiting), False

    def _answer(self, answering: Answering, batch: Batch) -> Outputs:
        """Return the results for those messages that fit; the others are put aside and do not hold them up."""
        if batch.starts > DIED + TRIES:
            self._refuse(
                batch.messages[0], f"the process died {TRIES} times while it answered this message alone"
            )
            return []
        good, bad = answering.decode(batch.messages)
        for message, reason in bad:
            # The same bytes will never fit: trying them again would only be slower.
            self._refuse(message, reason)
        if not good.messages:
            return []
        try:
            return answering.predict(good, self._logged)
        except Unavailable:
            raise
        except Exception as error:  # noqa: BLE001  (whatever one row made the model do, the others get their answer)
            logger.warning("a batch of %s failed, its messages are tried one by one: %s", self.name, error)
        self._ask_log(answering)
        numbers = range(len(good.messages))
        return [output for number in numbers for output in self._try_alone(answering, good.only(number))]

    def _try_alone(self, answering: Answering, one: Decoded) -> Outputs:
        reason = ""
        for _ in range(TRIES):
            try:
                return answering.predict(one, self._logged)
            except Unavailable:
                raise
            except Exception as error:  # noqa: BLE001  (the reason is kept with the message)
                reason = (
                    str(error) if isinstance(error, LoopwrightError) else f"{type(error).__name__}: {error}"
                )
        self._refuse(one.messages[0], reason)
        return []

    def _refuse(self, message: Message, reason: str) -> None:
        self.channel.dead(message, reason)
        self._refused.append({"message": message.id, "key": message.key, "error": reason[:500]})

    def _tell(self) -> None:
        """Note the messages put aside with the last batch, as one event however many there were."""
        if self._refused:
            facts = {"messages": len(self._refused), "first": self._refused[:5]}
            self._ledger.append("stream.dead", self.name, facts)
            logger.warning(
                "%d messages of %s were put aside: %s", len(self._refused), self.name, self._refused[0]
            )
            self._refused = []
