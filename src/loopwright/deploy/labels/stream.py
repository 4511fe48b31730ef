"""Labels in a topic of a channel: JSON objects whose fields are the columns of a label source."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from loopwright import plugins
from loopwright.config import Project
from loopwright.deploy.labels.rows import Rows
from loopwright.deploy.stream.base import Batch, Channel, parse
from loopwright.records import Label

__all__ = ["is_topic", "take_topic"]

#: Messages of one transaction, and how many of them one turn takes at most: others have their turn too.
_BATCH, _BATCHES = 1000, 100
_decoder = msgspec.json.Decoder()


def is_topic(source: str) -> bool:
    """Whether the address of a label source is a channel's."""
    return "topic=" in source.partition("?")[2]


def take_topic(
    project: Project, name: str, source: str, rows: Rows, append: Callable[[list[Label], bool], None]
) -> None:
    """Take the messages that wait; those that are no labels are put aside with the reason.

    Parameters
    ----------
    name
        Of the label source: its position in the topic belongs to it.
    append
        Given labels, and whether they may have been appended before: the process died between that and the commit.

    Raises
    ------
    LoopwrightError
        The channel, or the disk, does not answer; what was committed stays.
    """
    address = parse(project, source)
    make = plugins.load("channel", address.kind)
    channel: Channel = make(
        address, None, group=f"labels/{name}", synced=project.config.serving.durability == "power"
    )
    try:
        for _ in range(_BATCHES):
            batch = channel.read(_BATCH, 0.0)
            if not batch.messages:
                break
            append(_labels(channel, batch, rows), batch.starts > 1)
            channel.commit(batch, ())
    finally:
        channel.close()


def _labels(channel: Channel, batch: Batch, rows: Rows) -> list[Label]:
    labels = []
    for message in batch.messages:
        before = len(rows.refused)
        labels += rows.read([[value] for value in _fields(message.value, rows.names)])
        if len(rows.refused) > before:
            channel.dead(message, rows.refused.last)
    return labels


def _fields(body: bytes, names: list[str]) -> list[Any]:
    """Return some fields of a message, None for what it lacks; of what is no object all are missing."""
    try:
        value = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeError):
        value = None
    return [value.get(name) for name in names] if isinstance(value, dict) else [None] * len(names)
