"""Damaged segments: told from files that are gone or cannot be read just now, and set aside.

A segment is called damaged when its bytes were read without an error of the system, twice, and are no Parquet each time
or do not match the checksums of its pages. One that could not be read, for too many open files or a failing disk, stays.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from loopwright.predictions.files import Segment, Shelf

__all__ = ["examine", "mend", "set_aside"]

#: Seconds between the two looks at a file that seems damaged.
PAUSE_S = 0.2
_CHUNK = 1 << 20

logger = logging.getLogger(__name__)


def examine(path: Path) -> str | None:
    """Return what is wrong with a segment's file, or None; every page is read.

    Raises
    ------
    OSError
        The file cannot be read, which says nothing of what is in it; `FileNotFoundError` when it is gone.
    """
    from pyarrow.parquet import ParquetFile

    with path.open("rb") as file:
        while file.read(_CHUNK):
            pass
        file.seek(0)
        try:
            parquet = ParquetFile(file, page_checksum_verification=True)
            rows = sum(len(batch) for batch in parquet.iter_batches())
        except pa.ArrowException as error:
            return _line(error)
        except (OSError, UnicodeDecodeError) as error:
            # Arrow says so of what it cannot decode, too, and then gives no number.
            if getattr(error, "errno", None) is not None:
                raise
            return _line(error)
    named = Segment.read(path)
    if named and named.rows != rows:
        return f"it has {rows} rows and not {named.rows}"
    return None


def set_aside(shelf: Shelf, segment: Segment) -> str | None:
    """Look at a segment twice and, when it is damaged, move it out of the log; return what is wrong, None for nothing.

    Raises
    ------
    OSError
        As for `examine`.
    """
    return _looked(shelf, segment)[1]


def _looked(shelf: Shelf, segment: Segment) -> tuple[bool, str | None]:
    """Return whether a segment seemed damaged, and what is wrong with it, None where it was sound the second time."""
    if examine(segment.path) is None:
        return False, None
    # A copy may be damaged and the store's own file not: look at that the second time.
    shelf.refetch(segment)
    time.sleep(PAUSE_S)
    reason = examine(segment.path)
    if reason is not None and shelf.set_aside(segment, reason):
        logger.warning(
            "%s is damaged (%s): %d rows are set aside in the log's folder 'quarantine', and queries go on without them",
            segment.path,
            reason,
            segment.rows,
        )
    return True, reason


def mend(found: Sequence[tuple[Shelf, Segment]], words: str) -> bool:
    """Return whether files that could not be read are gone, or were damaged and are set aside by now.

    Parameters
    ----------
    found
        All files of which one could not be read.
    words
        What was said about it; when it names some of the files, only those and others whose end cannot be read are
        looked at.
    """
    if any(not segment.path.exists() for _, segment in found):
        return True
    named = [(shelf, segment) for shelf, segment in found if str(segment.path) in words]
    # Where one is damaged others often are: whose end cannot be read either is not found one query at a time.
    suspects = named + [one for one in found if one not in named and not _has_end(one[1].path)]
    mended = False
    for shelf, segment in suspects if named else found:
        try:
            seemed, reason = _looked(shelf, segment)
            mended |= seemed and (reason is None or not segment.path.exists())
        except FileNotFoundError:
            mended = True
        except OSError as error:
            logger.warning("%s cannot be read: %s", segment.path, error)
    return mended


def _has_end(path: Path) -> bool:
    """Whether the end of a file, where Parquet keeps what is in it, can be read."""
    from pyarrow.parquet import read_metadata

    try:
        read_metadata(path)
    except (OSError, pa.ArrowException):
        return False
    return True


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
