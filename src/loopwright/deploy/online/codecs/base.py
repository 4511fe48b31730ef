"""What every protocol is: a body becomes rows, answers become a body."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from loopwright.deploy.answers import Answers
from loopwright.records import Signature
from loopwright.registry.blocks import Blocks

__all__ = ["Asked", "Codec", "Reply", "Row"]

#: The values of one row: the inputs in the signature's order, and what names its entity where that is no input.
Row = tuple[Any, ...]


@dataclass(slots=True)
class Asked:
    """What one request asks. Either `rows` or `columns` holds the n rows, as they came.

    `single` says that one record was sent and no list. `entities` says who each row is about, None where a row does
    not say. `notes` is what the codec needs again to write the reply, such as the outputs that were asked for.
    """

    n: int
    rows: list[Row] | None = None
    columns: Blocks | None = None
    single: bool = False
    entities: list[str | None] | None = None
    notes: Any = None


@dataclass(slots=True)
class Reply:
    """A body that answers a request, and the headers it needs besides its length."""

    body: bytes
    content_type: bytes = b"application/json"
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)


class Codec(Protocol):
    """One protocol for one signature. Called from several threads."""

    def __init__(self, signature: Signature, entity: str | None = None) -> None: ...

    def decode(self, body: bytes | bytearray, headers: Mapping[bytes, bytes]) -> Asked:
        """Return what a body asks.

        Parameters
        ----------
        body
            Whole, and no larger than the limit.
        headers
            The request's, with names in lower case.

        Raises
        ------
        InvalidInput
            The body is no such document, or holds no rows.
        SchemaMismatch
            A row does not fit the signature; the message names row and field.
        """
        ...

    def encode(self, answers: Answers, at: int, asked: Asked) -> Reply:
        """Return the reply to one request: its rows are ``at`` to ``at + asked.n`` of `answers`."""
        ...
