"""Predictions on a stream: messages come from a topic, results go to another, and no crash loses or repeats one."""

from dataclasses import dataclass

from loopwright.config import Project
from loopwright.deploy.stream.base import Batch, Channel, Message, declared, open_channel

__all__ = ["Batch", "Channel", "Message", "Progress", "progress", "results", "source"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stream deployment is: messages waiting, results in the sink's topic, messages put aside."""

    deployment: str
    waiting: int
    answered: int
    refused: int


def source(project: Project, deployment: str) -> Channel:
    """Return the channel to publish messages for a stream deployment with; the caller closes it."""
    return open_channel(project, deployment)


def results(project: Project, deployment: str, *, group: str) -> Channel:
    """Return a channel that reads the results of a stream deployment, for a group of readers of its own.

    Each result is a JSON object with `prediction_id`, `key`, `prediction`, `probability`, `model`, `version` and
    `variant`; its key is the prediction id. Commit each batch with no outputs; the caller closes the channel.
    """
    from loopwright import plugins
    from loopwright.deploy.stream.base import parse

    address = parse(project, declared(project, deployment).sink or "")
    channel: Channel = plugins.load("channel", address.kind)(address, None, group=group)
    return channel


def progress(project: Project, deployment: str) -> Progress:
    """Return how far a stream deployment is."""
    channel = open_channel(project, deployment)
    try:
        answered, refused = channel.counts()
        return Progress(deployment, channel.lag(), answered, refused)
    finally:
        channel.close()
