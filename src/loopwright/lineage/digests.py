"""SHA-256 of files and of folders: what a stored thing is checked against later."""

from __future__ import annotations

import hashlib
from pathlib import Path

__all__ = ["MLFLOW_NOTE", "digest_of", "file_digest"]

#: MLflow says in it where a model was loaded from. It writes into the store itself where that is a folder at hand.
MLFLOW_NOTE = "registered_model_meta"


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, 64 lowercase hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(folder: Path) -> str:
    r"""Return one SHA-256 over all files of a folder, 64 lowercase hex digits.

    The hash runs over one line ``<relative path>\0<SHA-256 of the file>\n`` per file, sorted by relative path with
    forward slashes. Names, contents and nesting count; times, permissions and empty folders do not, nor does the note
    that MLflow leaves at the top of a model's folder when somebody loads it as ``models:/NAME/VERSION``.
    """
    total = hashlib.sha256()
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    for name in sorted(files.keys() - {MLFLOW_NOTE}):
        total.update(f"{name}\0{file_digest(files[name])}\n".encode())
    return total.hexdigest()
