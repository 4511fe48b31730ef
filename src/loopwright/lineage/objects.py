"""Datasets in S3 or any store that speaks its protocol: ``s3://bucket/key.parquet``, or a folder of part files there.

Credentials, region and address come from where AWS's own tools take them: the environment (``AWS_ENDPOINT_URL`` names
another store than Amazon's), ``~/.aws``, or the machine's role.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import pyarrow.fs as pafs

from loopwright.config import Project
from loopwright.errors import Denied, InvalidInput, NotFound, Unavailable, listing, nearest
from loopwright.lineage.addresses import expand
from loopwright.lineage.files import Found, Part, folder_parts, read_parts
from loopwright.lineage.steady import steady
from loopwright.predictions.places import s3_settings

__all__ = ["read"]


def read(_project: Project, source: str) -> Found:
    """Read an object, or the part files below a prefix.

    Raises
    ------
    NotFound
        There is no such bucket or object; the message names the nearest.
    InvalidInput
        It is no CSV or Parquet, or no address of an object.
    Denied
        The credentials are missing or do not suffice.
    Unavailable
        The store does not answer.
    Conflict
        It is being written.
    """
    address = urlsplit(expand(source))
    path = f"{address.netloc}{address.path}".rstrip("/")
    if not address.netloc or not address.path.strip("/"):
        raise InvalidInput(
            f"{source} names no object.", valid="s3://bucket/key.parquet or s3://bucket/folder/"
        )
    try:
        store = pafs.S3FileSystem(**s3_settings())
        table = steady(
            lambda: _parts(store, path, source), lambda parts: read_parts(store, parts, path), source
        )
    except FileNotFoundError as error:
        raise NotFound(f"There is no {source}: {error}.") from error
    except PermissionError as error:
        raise _denied(source, error) from error
    except OSError as error:
        # Arrow has one class for all answers of a store.
        if "ACCESS_DENIED" in str(error) or "403" in str(error):
            raise _denied(source, error) from error
        raise Unavailable(
            f"The store of {source} does not answer: {' '.join(str(error).split())[:300]}",
            hint="check AWS_ENDPOINT_URL and AWS_DEFAULT_REGION",
        ) from error
    return Found(table, source)


def _denied(source: str, error: OSError) -> Denied:
    return Denied(
        f"{source} cannot be read: {' '.join(str(error).split())[:300]}",
        hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    )


def _parts(store: pafs.S3FileSystem, path: str, source: str) -> tuple[Part, ...]:
    info = store.get_file_info(path)
    if info.type == pafs.FileType.Directory:
        return tuple(_with_etag(store, part) for part in folder_parts(store, path))
    if info.type == pafs.FileType.NotFound:
        raise _missing(store, path, source)
    return (_with_etag(store, Part(path, info.size or 0, str(info.mtime_ns))),)


def _with_etag(store: pafs.S3FileSystem, part: Part) -> Part:
    """Add the hash that the store keeps of an object: its times have whole seconds."""
    with store.open_input_stream(part.path) as stream:
        tag = (stream.metadata() or {}).get(b"ETag", b"")
    return Part(part.path, part.size, f"{part.version} {tag.decode()}")


def _missing(store: pafs.S3FileSystem, path: str, source: str) -> NotFound:
    folder, _, name = path.rpartition("/")
    try:
        infos = store.get_file_info(pafs.FileSelector(folder, allow_not_found=False))
    except OSError:
        bucket = path.partition("/")[0]
        return NotFound(
            f"There is no {source}.", valid=f"Nothing is at s3://{folder}.", hint=f"aws s3 ls s3://{bucket}"
        )
    known = sorted(info.base_name for info in infos)
    close = nearest(name, known)
    guess = f"Did you mean s3://{folder}/{close}? " if close else ""
    return NotFound(f"There is no {source}.", valid=f"{guess}Objects there: {listing(known)}.")
