"""Reading a notebook's file."""

from __future__ import annotations

from pathlib import Path

from loopwright.errors import Denied, InvalidInput, NotFound, nearest

__all__ = ["text_of"]


def text_of(path: Path) -> str:
    """Return the text of a notebook's file.

    Raises
    ------
    NotFound
        There is no such file; the message names the nearest.
    Denied
        It cannot be read.
    InvalidInput
        It is no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        folder = path.parent
        known = sorted(item.name for item in folder.glob("*.ipynb")) if folder.is_dir() else []
        close = nearest(path.name, known)
        guess = f"Did you mean {folder / close}?" if close else ""
        raise NotFound(f"There is no notebook {path}.", valid=guess, hint=f"ls {folder}/*.ipynb") from None
    except OSError as error:
        raise Denied(f"{path} cannot be read: {error.strerror}.", hint=f"ls -l {path}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is no notebook: it is no text ({error.reason}).") from None
