"""The forms in which rows arrive over HTTP and answers leave: one file for each protocol.

A codec is made for one signature and turns a body into an `Asked` and answers into a `Reply`. It knows nothing of
scoring, variants or the log.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from loopwright.deploy.online.codecs.base import Codec

__all__ = ["load"]

#: Protocol -> "module:class", imported with the first request that needs it.
_HOMES = {
    "records": "records:Records",
    "tables": "tables:Tables",
    "v2": "v2:Inference",
    "invocations": "invocations:Invocations",
}


def load(protocol: str) -> type[Codec]:
    """Return the codec of a protocol."""
    module, _, name = _HOMES[protocol].partition(":")
    return cast("type[Codec]", getattr(importlib.import_module(f"{__name__}.{module}"), name))
