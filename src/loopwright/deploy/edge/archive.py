"""A bundle as a file: a .tar.gz of a few plain files, read with suspicion."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from loopwright.errors import Damaged, Denied, NotFound

__all__ = ["GOLDEN", "MANIFEST", "MODEL", "OUTBOX", "PREDICT", "SIGNATURE", "SIGNER", "read", "write"]

MODEL = "model.onnx"
MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"
SIGNER = "signer.pub"
GOLDEN = "golden.json"
PREDICT = "predict.py"
OUTBOX = "outbox.py"
#: More than any bundle holds: a small archive must not be able to fill the memory.
MOST_BYTES = 2 * 1000**3


def write(path: Path, files: Mapping[str, bytes]) -> None:
    """Write a bundle as a whole: under another name first, then renamed. The same files give the same bytes."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            temporary.open("wb") as raw,
            gzip.GzipFile("", "wb", mtime=0, fileobj=raw) as packed,
            tarfile.open(fileobj=packed, mode="w") as archive,
        ):
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size, info.mode = len(data), 0o644
                archive.addfile(info, io.BytesIO(data))
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise Denied(f"The bundle {path} cannot be written: {error.strerror}.") from error


def read(path: Path) -> dict[str, bytes]:
    """Read a bundle's files into memory.

    Raises
    ------
    NotFound
        There is no such file.
    Damaged
        It is truncated, no bundle, or holds folders, links or names that no bundle has.
    """
    files: dict[str, bytes] = {}
    try:
        with gzip.open(path) as packed:
            # To the end, whose checksum a reader of the archive alone would not look at.
            data = packed.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise Damaged(f"{path} holds more than {MOST_BYTES} bytes.", hint=_AGAIN)
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for member in archive:
                if not member.isfile() or Path(member.name).name != member.name or member.name in files:
                    raise Damaged(f"{path} holds {member.name!r}, which no bundle does.", hint=_AGAIN)
                opened = archive.extractfile(member)
                assert opened is not None
                files[member.name] = opened.read()
    except FileNotFoundError:
        raise NotFound(f"There is no bundle {path}.", hint="loopwright edge bundle NAME") from None
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Damaged(f"{path} is truncated or no bundle: {error}.", hint=_AGAIN) from error
    except OSError as error:
        raise Denied(f"The bundle {path} cannot be read: {error.strerror}.") from error
    return files


_AGAIN = "copy or bundle it again: loopwright edge bundle NAME"
