"""Stores elsewhere that sealed segments go to: S3, or any store that speaks its protocol, with a cache on this machine.

Segments never change, so that a cached one is right for ever; DuckDB always reads local files, also where the store is
far away or out of reach for a while.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from loopwright.errors import Denied, InvalidConfig, Unavailable

__all__ = ["Bucket", "is_bucket", "s3_settings", "sync_folder"]

_SCHEME = "s3://"
#: How many segments are fetched side by side.
_FETCHERS = 8
_CHUNK = 1 << 20


def is_bucket(address: str) -> bool:
    """Whether `[log] store` names a bucket and no folder."""
    return address.startswith(_SCHEME)


def s3_settings() -> dict[str, Any]:
    """Return what Arrow does not read from the environment itself, or only in its newest versions.

    Credentials, region and address come from where AWS's own tools take them; ``AWS_ENDPOINT_URL`` names another store
    than Amazon's.
    """
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    settings: dict[str, Any] = {"connect_timeout": 5, "request_timeout": 60}
    if region := os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"):
        settings["region"] = region
    if endpoint:
        place = urlsplit(endpoint)
        settings |= {"endpoint_override": place.netloc + place.path, "scheme": place.scheme or "https"}
        settings.setdefault("region", "us-east-1")
    return settings


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable; a no-op where folders cannot be opened."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class Bucket:
    """The objects below one prefix of a bucket, and the copies of them on this machine. Safe to share between threads.

    Parameters
    ----------
    address
        ``s3://bucket`` or ``s3://bucket/prefix``.
    cache
        The folder of the copies.
    limit
        How many bytes of copies are kept, > 0; those that were not asked for the longest go first. What one query needs
        is there for it, even where that is more.

    Raises
    ------
    InvalidConfig
        The address names no bucket.
    """

    def __init__(self, address: str, cache: Path, limit: int) -> None:
        self._prefix = address.removeprefix(_SCHEME).strip("/")
        self.address = _SCHEME + self._prefix
        if not self._prefix:
            raise InvalidConfig(
                f"[log] store = {address!r} names no bucket.", valid="s3://bucket/prefix, or a folder."
            )
        self._cache = cache
        self._limit = limit

    @cached_property
    def _store(self) -> Any:
        from pyarrow import fs

        return fs.S3FileSystem(**s3_settings())

    def cached(self, key: str) -> Path:
        """Return where the copy of an object is, or would be."""
        return self._cache / key

    def put(self, local: Path, key: str) -> Path:
        """Upload a file, then make it the object's copy, and return where that is.

        Raises
        ------
        Unavailable, Denied
            The store does not take it; the file stays where it is.
        """
        size = local.stat().st_size
        with self._said(f"{key} cannot be stored"):
            with local.open("rb") as source, self._store.open_output_stream(self._at(key)) as target:
                shutil.copyfileobj(source, target, _CHUNK)
            # A stream that failed half-way may have left an object that is too short.
            stored = self._store.get_file_info(self._at(key)).size
            if stored != size:
                raise OSError(f"the store has {stored} of {size} bytes")
        copy = self.cached(key)
        copy.parent.mkdir(parents=True, exist_ok=True)
        return local.rename(copy)

    def fetch(self, wanted: Sequence[str]) -> None:
        """Make sure that there are copies of objects.

        Raises
        ------
        Unavailable, Denied
            One is missing here and the store does not give it.
        FileNotFoundError
            One is not there any more.
        """
        missing = []
        for key in wanted:
            try:
                os.utime(self.cached(key))
            except FileNotFoundError:
                missing.append(key)
        if not missing:
            return
        with ThreadPoolExecutor(min(_FETCHERS, len(missing))) as pool:
            list(pool.map(self._download, missing))
        self._evict({self.cached(key) for key in wanted})

    def _download(self, key: str) -> None:
        copy = self.cached(key)
        copy.parent.mkdir(parents=True, exist_ok=True)
        partial = copy.with_name(f".{copy.name}.{secrets.token_hex(4)}")
        try:
            with (
                self._said(f"{key} cannot be read"),
                self._store.open_input_stream(self._at(key)) as source,
                partial.open("wb") as target,
            ):
                shutil.copyfileobj(source, target, _CHUNK)
            partial.rename(copy)
        finally:
            partial.unlink(missing_ok=True)

    def copies(self, below: str = "") -> Iterator[tuple[str, os.stat_result]]:
        """Yield the key of each copy below a prefix and what the file system knows of it."""
        for folder, _, names in os.walk(self._cache / below):
            for name in names:
                path = Path(folder, name)
                with contextlib.suppress(FileNotFoundError):
                    yield path.relative_to(self._cache).as_posix(), path.stat()

    def _evict(self, needed: set[Path]) -> None:
        found = sorted(self.copies(), key=lambda copy: copy[1].st_mtime)
        excess = sum(facts.st_size for _, facts in found) - self._limit
        for key, facts in found:
            if excess <= 0:
                return
            if (copy := self.cached(key)) not in needed:
                copy.unlink(missing_ok=True)
                excess -= facts.st_size

    def remove(self, key: str) -> None:
        """Delete an object and its copy; one that is gone already is no error. Raises as `put`."""
        with self._said(f"{key} cannot be deleted"), contextlib.suppress(FileNotFoundError):
            self._store.delete_file(self._at(key))
        self.cached(key).unlink(missing_ok=True)

    def move(self, key: str, to: str) -> None:
        """Give an object another key, and delete its copy. Raises as `put`, and `FileNotFoundError`."""
        with self._said(f"{key} cannot be moved"):
            self._store.copy_file(self._at(key), self._at(to))
            self._store.delete_file(self._at(key))
        self.cached(key).unlink(missing_ok=True)

    def listed(self, prefix: str) -> list[tuple[str, int]]:
        """Return key and bytes of each object below a prefix. Raises as `put`."""
        from pyarrow import fs

        start = len(self._prefix) + 1
        with self._said("the segments cannot be listed"):
            found = self._store.get_file_info(
                fs.FileSelector(self._at(prefix), allow_not_found=True, recursive=True)
            )
        return sorted((one.path[start:], one.size) for one in found if one.is_file)

    def _at(self, key: str) -> str:
        return f"{self._prefix}/{key}"

    @contextlib.contextmanager
    def _said(self, what: str) -> Iterator[None]:
        """Turn what Arrow raises into an error that names the store."""
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            # Arrow has one class for all answers of a store.
            words = " ".join(str(error).split())[:300]
            if isinstance(error, PermissionError) or "ACCESS_DENIED" in words or "403" in words:
                raise Denied(
                    f"The store {self.address} of the prediction log refuses: {what}: {words}",
                    hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
                ) from error
            raise Unavailable(
                f"The store {self.address} of the prediction log does not answer: {what}: {words}",
                valid="What is in it is read again when it does; appends go on meanwhile.",
                hint="check AWS_ENDPOINT_URL and AWS_DEFAULT_REGION",
                retry_after=5,
            ) from error
