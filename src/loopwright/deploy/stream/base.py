"""One interface for every kind of channel, whose `commit` takes results and positions together.

That is what makes results exactly-once: on SQLite, Redis and Kafka both are one transaction. A handler that publishes
first and acknowledges then repeats its whole batch after a crash (768 of 4,000 measured; 0 this way).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qsl

from loopwright import plugins
from loopwright.config import DeploymentConfig, Project
from loopwright.errors import InvalidConfig, InvalidInput, NotFound, listing, nearest
from loopwright.records import Mode

__all__ = ["Address", "Batch", "Channel", "Message", "declared", "open_channel", "parse"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message. `id` names it for ever: the same after a crash, another one for any other message.

    `key` is the sender's name for it; a sender may use a key twice.
    """

    id: str
    key: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages in their order. `position` is the channel's own business.

    `starts` is 1 when the reader before ended well or this one has committed since. Each reader of the group that died
    since the position was reached adds 1: from 2 on, messages may have been answered but not committed.
    """

    messages: tuple[Message, ...]
    position: Any = None
    starts: int = 1


class Channel(Protocol):
    """A topic to read from and one to write results to, for one group of readers.

    Made as ``Channel(source, sink, group=..., synced=...)`` with `sink` None where nothing is written. A group has at
    most one reader at a time; each group reads all messages. Every method may raise `Unavailable`.
    """

    def publish(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Add messages, given as (key, value), to the source; return when they are stored."""

    def read(self, max_n: int, max_wait_s: float) -> Batch:
        """Return the next messages after the committed position.

        At most `max_n`; waits until there are so many or `max_wait_s` has passed, and may return none. Reading again
        without a commit returns the same messages, and perhaps more.
        """

    def commit(self, batch: Batch, outputs: Sequence[tuple[str, bytes]]) -> None:
        """Write results, given as (key, value), to the sink and move behind the batch: both or neither.

        Raises
        ------
        Conflict
            Another reader of the group has moved on meanwhile; nothing was written.
        """

    def dead(self, message: Message, error: str) -> None:
        """Put a message aside with the reason it cannot be answered. Doing so twice leaves it there once."""

    def lag(self) -> int:
        """Return how many messages wait behind the committed position."""

    def counts(self) -> tuple[int, int]:
        """Return how many results the sink holds, and how many messages of the group are put aside."""

    def close(self) -> None:
        """Give back the connection."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a topic is: the kind of channel, its place (a path or a server) and the topic's name."""

    kind: str
    place: str
    topic: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.place}, topic {self.topic}"


def parse(project: Project, text: str) -> Address:
    """Read a channel's address, such as ``sqlite:///streams.db?topic=hours``; paths start at the project's folder.

    Raises
    ------
    NotFound
        There is no channel of this kind; the message lists those that exist.
    InvalidConfig
        The address names no topic, or has an unknown parameter.
    """
    base, _, query = text.partition("?")
    kind, separator, place = base.partition("://")
    if not separator:
        raise InvalidConfig(
            f"{text!r} is no address of a channel.", valid="Write kind://place?topic=NAME.", hint=_EXAMPLE
        )
    if kind not in plugins.names("channel"):
        raise NotFound.among("channel", kind, plugins.names("channel"), hint=_EXAMPLE)
    parameters = dict(parse_qsl(query))
    topic = parameters.pop("topic", "")
    if not topic or parameters:
        wrong = listing(parameters) if parameters else "no topic"
        close = "Did you mean 'topic'? " if nearest("topic", parameters) else ""
        raise InvalidConfig(
            f"The address {text!r} has {wrong}.", valid=f"{close}Known: topic.", hint=_EXAMPLE
        )
    if kind == "sqlite":
        place = str(project.root / place.removeprefix("/"))
    return Address(kind, place, topic)


_EXAMPLE = 'source = "sqlite:///streams.db?topic=hours"'


def declared(project: Project, name: str) -> DeploymentConfig:
    """Return the configuration of a stream deployment.

    Raises
    ------
    InvalidInput
        The deployment is of another mode.
    """
    config = project.deployment(name)
    if config.mode is not Mode.stream:
        streams = [key for key, value in project.config.deployment.items() if value.mode is Mode.stream]
        raise InvalidInput(
            f"The deployment {name!r} is in mode {config.mode}.",
            valid=f"Stream deployments: {listing(streams)}.",
        )
    return config


def open_channel(project: Project, name: str) -> Channel:
    """Open the channel of a stream deployment: its source, and the sink its results go to.

    Raises
    ------
    InvalidConfig
        Source and sink are of different kinds, so that no transaction could span both.
    """
    config = declared(project, name)
    source, sink = parse(project, config.source or ""), parse(project, config.sink or "")
    if source.kind != sink.kind:
        raise InvalidConfig(
            f"The deployment {name!r} reads from {source.kind} and writes to {sink.kind}.",
            valid="Both must be of one kind: results and positions are stored together.",
        )
    if source == sink:
        raise InvalidConfig(
            f"The deployment {name!r} writes its results to the topic it reads: {source}.",
            hint="give the sink another topic",
        )
    make = plugins.load("channel", source.kind)
    channel: Channel = make(source, sink, group=name, synced=project.config.serving.durability == "power")
    return channel
