"""Comparing the output that a cell gives with the one that is stored: what a reader would call the same is the same.

Numbers within a tolerance, tables cell by cell, pictures by their look. Addresses of objects, times that magics
print, progress bars, colours, warnings and how a stream was split do not count.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
import re
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from typing import Any

__all__ = ["difference", "is_empty"]

_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}\b")
_NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][-+]?\d+)?")
#: Lines that tell how long something took, or how far it is.
_TRANSIENT = re.compile(r"(CPU times:|Wall time:|per loop \(mean|\d+%\|.*\||it/s\]|s/it\]|━|/step\b)")
#: Pictures are made small and compared: the mean difference of a colour channel, of 255, that still looks the same.
_SAME_LOOK = 5.0
_THUMBNAIL = (64, 64)
_LONGEST = 80


def is_empty(outputs: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a cell shows nothing that is compared."""
    return not _text(outputs) and not _shown(outputs)


def difference(
    stored: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]], tolerance: float
) -> str:
    """Say where two outputs differ first; empty when they are the same.

    Parameters
    ----------
    stored, found
        Lists of outputs as a notebook stores them.
    tolerance
        The relative difference of two numbers that counts as none; below 1 the same absolutely.
    """
    if text := _texts_differ(_text(stored), _text(found), tolerance):
        return text
    left, right = _shown(stored), _shown(found)
    if len(left) != len(right):
        return f"{len(left)} results and pictures are stored, {len(right)} were given"
    for one, other in zip(left, right, strict=True):
        if text := _data_differ(one, other, tolerance):
            return text
    return ""


def _text(outputs: Sequence[Mapping[str, Any]]) -> str:
    """Return what was printed, in one piece, without what is gone again on a terminal."""
    whole = "".join(
        _joined(output.get("text", ""))
        for output in outputs
        if output.get("output_type") == "stream" and output.get("name", "stdout") == "stdout"
    )
    lines = [
        line.rpartition("\r")[2].rstrip() for line in _ANSI.sub("", whole).replace("\r\n", "\n").split("\n")
    ]
    return "\n".join(line for line in lines if not _TRANSIENT.search(line)).strip()


def _joined(text: Any) -> str:
    return "".join(text) if isinstance(text, list) else str(text)


def _shown(outputs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    kinds = {"execute_result", "display_data"}
    data = [output.get("data", {}) for output in outputs if output.get("output_type") in kinds]
    return [item for item in data if not any("widget" in mime for mime in item)]


def _data_differ(stored: Mapping[str, Any], found: Mapping[str, Any], tolerance: float) -> str:
    image = next((mime for mime in ("image/png", "image/jpeg") if mime in stored), "")
    if image:
        return _images_differ(_joined(stored[image]), _joined(found.get(image, "")))
    page, other = _joined(stored.get("text/html", "")), _joined(found.get("text/html", ""))
    if "<table" in page and "<table" in other:
        return _tables_differ(_table(page), _table(other), tolerance)
    return _texts_differ(
        _joined(stored.get("text/plain", "")), _joined(found.get("text/plain", "")), tolerance
    )


def _texts_differ(stored: str, found: str, tolerance: float) -> str:
    left, right = (_ADDRESS.sub("0x0", text).strip().split("\n") for text in (stored, found))
    for number, (one, other) in enumerate(zip(left, right, strict=False), 1):
        if not _same_line(one, other, tolerance):
            return f"line {number}: {_short(one)!r} is stored, {_short(other)!r} was given"
    if len(left) != len(right):
        return f"{len(left)} lines are stored, {len(right)} were given"
    return ""


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _same_line(one: str, other: str, tolerance: float) -> bool:
    if one == other:
        return True
    # The words must be the same; how numbers are aligned may depend on their length.
    if " ".join(_NUMBER.sub("#", one).split()) != " ".join(_NUMBER.sub("#", other).split()):
        return False
    pairs = zip(_NUMBER.findall(one), _NUMBER.findall(other), strict=True)
    return all(math.isclose(float(a), float(b), rel_tol=tolerance, abs_tol=tolerance) for a, b in pairs)


class _Table(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in {"td", "th"} and self.rows:
            self._inside = True
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in {"td", "th"}:
            self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.rows[-1][-1] += data.strip()


def _table(page: str) -> list[list[str]]:
    parser = _Table()
    parser.feed(page)
    return parser.rows


def _tables_differ(stored: list[list[str]], found: list[list[str]], tolerance: float) -> str:
    shapes = [(len(rows), max(map(len, rows), default=0)) for rows in (stored, found)]
    if shapes[0] != shapes[1]:
        (rows, columns), (more_rows, more_columns) = shapes
        return f"a table of {rows} x {columns} cells is stored, one of {more_rows} x {more_columns} was given"
    head = stored[0] if stored else []
    for number, (one, other) in enumerate(zip(stored, found, strict=True)):
        for place, (a, b) in enumerate(zip(one, other, strict=False)):
            if not _same_line(a, b, tolerance):
                column = head[place] if place < len(head) and head[place] else str(place)
                return (
                    f"table, row {number}, column {column}: {_short(a)!r} is stored, {_short(b)!r} was given"
                )
    return ""


def _images_differ(stored: str, found: str) -> str:
    if not found:
        return "a picture is stored, none was given"
    if "".join(stored.split()) == "".join(found.split()):
        return ""
    from PIL import Image, ImageChops, ImageStat, UnidentifiedImageError

    try:
        one, other = (
            Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB").resize(_THUMBNAIL)
            for text in (stored, found)
        )
    except (UnidentifiedImageError, binascii.Error, OSError) as error:
        return f"a picture cannot be read: {error}"
    mean = max(ImageStat.Stat(ImageChops.difference(one, other)).mean)
    return f"the picture looks different (mean difference {mean:.1f} of 255)" if mean > _SAME_LOOK else ""
