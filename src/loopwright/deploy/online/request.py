"""A request between its decoding and its answer, however it came."""

from __future__ import annotations

from loopwright.deploy.base import Route
from loopwright.deploy.online.codecs.base import Asked, Codec, Reply
from loopwright.deploy.online.decode import Decoder
from loopwright.deploy.online.wire import PLAIN, Details
from loopwright.errors import LoopwrightError

__all__ = ["Request"]


class Request:
    """One request for predictions. Who receives it says how it is answered.

    Attributes
    ----------
    received, decoded
        When it was complete, and when its rows were read, in seconds of `time.monotonic`.
    deadline
        When its caller stops waiting, in the same seconds.
    size
        Bytes of its body.
    asked, codec, decoder, route
        Its rows, what writes the reply, what makes columns of rows, and what they were checked against.
    place
        Which variant its caller asked for, as `Route.named` gives it; None where entities decide.
    protocol
        The form it came in, for the counters.
    key, path, remote
        The name of its API key, where it was sent, and its caller's address; empty on the short way.
    sent
        Bytes of the answer.
    ended
        Whether it was answered.
    """

    __slots__ = (
        "asked",
        "codec",
        "deadline",
        "decoded",
        "decoder",
        "details",
        "ended",
        "key",
        "path",
        "place",
        "protocol",
        "received",
        "remote",
        "route",
        "sent",
        "size",
    )

    asked: Asked
    codec: Codec
    decoder: Decoder
    route: Route

    def __init__(self) -> None:
        self.received = self.decoded = 0.0
        self.deadline = float("inf")
        self.size = 0
        self.place: int | None = None
        self.details: Details = PLAIN
        self.key: str | None = None
        self.protocol = "records"
        self.path = self.remote = ""
        self.sent = 0
        self.ended = False

    def reply(self, reply: Reply) -> None:
        """Send the answer."""
        raise NotImplementedError

    def fail(self, error: LoopwrightError) -> None:
        """Send an error instead."""
        raise NotImplementedError
