"""JSON that other programs write: typed decoding with errors that say where, and NaN as they write it."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from loopwright.deploy.online import faults
from loopwright.errors import InvalidInput, NotFound

__all__ = ["ABSENT", "decoded", "is_absent", "without_nan"]

#: What a field that is decoded later holds where it is not there.
ABSENT = msgspec.Raw()

#: A string as a whole (also one that never ends), or NaN. Nothing is tried twice, however the body is made.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.?)*+(?:"|\Z)|\bNaN\b', re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)


def is_absent(raw: msgspec.Raw) -> bool:
    """Return whether a field that is decoded later is not there, or null."""
    return bytes(raw) in {b"", b"null"}


def without_nan(body: bytes | bytearray) -> bytes:
    """Return a body with null for each NaN outside of text.

    JSON has no NaN, but Python's and NVIDIA's encoders write it for what is missing.
    """
    return _TOKEN.sub(lambda found: b"null" if found[0] == b"NaN" else found[0], bytes(body))


def decoded(body: bytes | bytearray, decoder: msgspec.json.Decoder[Any], valid: str, fields: Any = ()) -> Any:
    """Return a body, decoded.

    Parameters
    ----------
    body
        What was sent.
    decoder
        Of the document's type.
    valid
        What the document should be, for messages.
    fields
        The names it may have at its top.

    Raises
    ------
    InvalidInput
        It is no JSON, with the byte where it ends being it; or no such document, with the place where it is not.
    """
    try:
        return _tried(body, decoder)
    except msgspec.ValidationError as error:
        fact = str(error)
        unknown = _UNKNOWN.search(fact)
        if unknown and fields and " - at " not in fact:
            valid = NotFound.among("field", unknown[1][:100], fields).valid
        raise InvalidInput(f"The body does not fit: {fact[:300]}.", valid=valid) from None
    except (ValueError, RecursionError) as error:
        found = faults.not_json(body, error)
        found.valid = valid
        raise found from None


def _tried(body: bytes | bytearray, decoder: msgspec.json.Decoder[Any]) -> Any:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        if b"NaN" not in body:
            raise
    return decoder.decode(without_nan(body))
