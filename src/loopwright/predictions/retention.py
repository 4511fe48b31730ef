"""How long the log keeps rows, and deleting those of one person before."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from loopwright.config import Project
from loopwright.errors import InvalidInput, Unavailable
from loopwright.ledger import Ledger
from loopwright.predictions import files
from loopwright.predictions.compaction import Counted, in_list, locked, mergeable, rewrite
from loopwright.predictions.files import LogFolder, Segment
from loopwright.predictions.ids import Ids
from loopwright.predictions.privacy import secret_of, stored_hash
from loopwright.predictions.schema import INPUT
from loopwright.predictions.seal import wish
from loopwright.predictions.shelves import NamedShelf
from loopwright.records import now

__all__ = ["Forgotten", "digest_of", "expire", "forget", "go_on_forgetting", "what_became"]

EXPIRED, FORGOTTEN = "predictions.expired", "predictions.forgotten"
#: With a store that other machines write to, a request stays open so long for tails that only they know of.
_OTHERS = timedelta(hours=2)
#: So many ids are named, by their hashes, in the event, for who asks later what became of one.
_MOST_IDS = 10_000
_PAUSE_S = 0.5
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def expire(project: Project, ledger: Ledger, at: datetime) -> int:
    """Delete the segments that are older than `keep` says, and return how many.

    A segment is as old as its newest row, or as its sealing where that was later: what is imported with times of long ago
    is kept as long as everything else. Labels go when those of all deployments would.
    """
    done = 0
    keeps = _keeps(project)
    for folder in files.logs(project):
        name = files.log_name(project, folder.root)
        keep = keeps.get(name, keeps[""])
        if keep is None or (not folder.root.is_dir() and folder.placed is None):
            continue
        before = at - keep
        with locked(folder) as mine:
            if not mine:
                continue
            limit_us = int(before.timestamp() * 1e6)
            old = [one for one in mergeable(folder) if max(one.last_us, one.sealed_us) < limit_us]
            size = folder.shelf.size(old) if isinstance(folder.shelf, NamedShelf) else 0
            gone = folder.shelf.expire(old) if old else []
        if gone:
            root, _, deployment = name.partition("/")
            facts = {
                "log": root,
                "segments": len(gone),
                "rows": sum(one.rows for one in gone),
                "before": before,
            }
            if size:
                facts["bytes"] = size
            ledger.append(EXPIRED, files.deployment_of(deployment) if deployment else root, facts)
            done += len(gone)
    return done


def _keeps(project: Project) -> dict[str, timedelta | None]:
    """Return how long each log is kept, None for ever; under "" what holds for labels."""
    found: dict[str, timedelta | None] = {}
    for shadow in (False, True):
        for deployment in files.deployments(project, shadow):
            configured = project.config.deployment.get(deployment)
            keep = configured.log.keep if configured and configured.log.keep else project.config.log.keep
            folder = files.of_deployment(project, deployment, shadow)
            found[files.log_name(project, folder.root)] = keep
    keeps = list(found.values()) or [project.config.log.keep]
    longest = None if None in keeps else max(keep for keep in keeps if keep is not None)
    return found | {"": longest}


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was deleted, in rows. `pending` tails were still open: their rows go as soon as they are sealed.

    `damaged` segments were set aside before and could not be searched.
    """

    predictions: int = 0
    shadows: int = 0
    labels: int = 0
    segments: int = 0
    pending: int = 0
    damaged: int = 0


class _Request(msgspec.Struct):
    """One request on its way; kept in a file of the project until it is done, as it holds what is to be forgotten."""

    entity: str
    prediction_id: str
    asked: datetime
    open: dict[str, list[str]] = {}
    checked: dict[str, list[str]] = {}
    ids: list[str] = []
    rows: dict[str, int] = {}
    segments: int = 0


def digest_of(project: Project, value: str) -> str:
    """Return what stands for an entity or id in the ledger when it was forgotten: a keyed hash of 16 digits."""
    key = hashlib.blake2s(b"forgotten", key=secret_of(project)).digest()
    return hashlib.blake2s(value.encode("utf-8", "surrogatepass"), key=key, digest_size=8).hexdigest()


def forget(
    project: Project,
    ledger: Ledger,
    *,
    entity: str | None = None,
    prediction_id: str | None = None,
    wait_s: float = 15.0,
) -> Forgotten:
    """Delete all rows of one entity, or one prediction, with their shadows and labels, from the log.

    Segments that hold such rows are written anew without them. Open tails are sealed by the processes they belong to, for
    which `wait_s` seconds are waited; what is then still open is deleted by `maintain` later. An event says what was
    done, with a hash in the place of the value. Datasets and models that were made of the rows are not changed.

    Raises
    ------
    InvalidInput
        Not exactly one of `entity` and `prediction_id` is given.
    Unavailable
        The store, or the lock of a log, cannot be had now; `maintain` goes on with the request.
    """
    if bool(entity) == bool(prediction_id):
        raise InvalidInput(
            "What is to be forgotten is not said.", valid="Name either an entity or the id of one prediction."
        )
    request = _Request(entity or "", prediction_id or "", now())
    for folder in files.logs(project):
        tails = folder.tails()
        request.open[files.log_name(project, folder.root)] = [tail.stem for tail in tails]
        for tail in tails:
            wish(tail)
    path = project.state / "forget" / digest_of(project, entity or prediction_id or "")
    _save(path, request)
    until = time.monotonic() + wait_s
    while True:
        pending = _pass(project, ledger, request)
        _save(path, request)
        if not pending or time.monotonic() >= until:
            break
        time.sleep(_PAUSE_S)
    return _finish(project, ledger, path, request, pending)


def go_on_forgetting(project: Project, ledger: Ledger) -> None:
    """Go on with requests that waited for open tails."""
    for path, request in _open_requests(project).items():
        pending = _pass(project, ledger, request)
        _save(path, request)
        _finish(project, ledger, path, request, pending)


def _open_requests(project: Project) -> dict[Path, _Request]:
    """Return the requests on their way, by their files."""
    folder = project.state / "forget"
    found: dict[Path, _Request] = {}
    with contextlib.suppress(FileNotFoundError):
        for path in sorted(folder.iterdir()):
            # Another process may finish one meanwhile.
            with contextlib.suppress(FileNotFoundError):
                if path.suffix != ".new":
                    found[path] = msgspec.json.decode(path.read_bytes(), type=_Request)
    return found


def what_became(project: Project, prediction_id: str) -> str:
    """Return a sentence about an id that is not in the log, where it is known what became of it; empty otherwise."""
    for request in _open_requests(project).values():
        if prediction_id in {request.prediction_id, *request.ids}:
            return f"It was deleted on request on {request.asked:%Y-%m-%d %H:%M} UTC."
    ledger = Ledger.open(project)
    try:
        for event in reversed(ledger.events(FORGOTTEN, newest=True)):
            if digest_of(project, prediction_id) in event.payload.get("ids", ()):
                return f"It was deleted on request on {event.at:%Y-%m-%d %H:%M} UTC."
        expired = ledger.last(EXPIRED)
    finally:
        ledger.close()
    made_us = Ids.time_us(prediction_id) if Ids.issued(prediction_id) else None
    if expired and made_us is not None:
        before = datetime.fromisoformat(expired.payload["before"])
        if _EPOCH + timedelta(microseconds=made_us) < before:
            return f"Predictions made before {before:%Y-%m-%d %H:%M} UTC were deleted, as [log] keep says."
    return ""


def _finish(project: Project, ledger: Ledger, path: Path, request: _Request, pending: int) -> Forgotten:
    damaged = sum(folder.shelf.damaged() for folder in files.logs(project))
    others = bool(project.config.log.store) and now() - request.asked < _OTHERS
    if not pending and not others:
        ids = sorted({*request.ids, *filter(None, [request.prediction_id])})
        facts: dict[str, Any] = {
            "what": "entity" if request.entity else "prediction",
            "hash": path.name,
            "segments": request.segments,
            "ids": [digest_of(project, one) for one in ids[:_MOST_IDS]],
        }
        ledger.append(FORGOTTEN, facts["what"], facts | request.rows)
        path.unlink(missing_ok=True)
    rows = request.rows
    return Forgotten(
        rows.get("predictions", 0),
        rows.get("shadows", 0),
        rows.get("labels", 0) + rows.get("labels-by-entity", 0),
        request.segments,
        pending,
        damaged,
    )


def _pass(project: Project, ledger: Ledger, request: _Request) -> int:
    """Delete what can be deleted now, and return how many tails are still to be sealed."""
    from loopwright.predictions.upkeep import agree, counted_of

    pending = 0
    for folder in files.logs(project):
        name = files.log_name(project, folder.root)
        if not folder.root.is_dir() and folder.placed is None:
            continue
        tails = {tail.stem for tail in folder.tails()}
        pending += len(tails.intersection(request.open.get(name, ())))
        with _held(folder):
            _clean(project, folder, name, request, counted_of(ledger, name))
            folder.shelf.settle(0)
            agree(ledger, folder, name)
    return pending


def _clean(
    project: Project, folder: LogFolder, name: str, request: _Request, counted: Counted | None
) -> None:
    root = name.partition("/")[0]
    # Labels are found by the ids of the predictions: those that were found since the last time call for another look.
    key = name if root in {"predictions", "shadows"} else f"{name} {len(request.ids)}"
    checked = set(request.checked.get(key, ()))
    found = [one for one in mergeable(folder) if one.stem not in checked]
    folder.shelf.fetch(found)
    column = _entity_column(project, name)
    for segment in found:
        where = _condition(segment, request, column, stored_hash(project, request.entity))
        ids, rows = _hits(segment, where) if where else ([], 0)
        if rows:
            # What the live numbers have not counted whole of it yet, they count of the new segment.
            carried = counted if counted and counted.among([segment]) else None
            made = rewrite(folder, [segment], f"not coalesce({where}, false)", carried)
            checked.add(made.stem)
            request.rows[root] = request.rows.get(root, 0) + rows
            request.segments += 1
            if root == "predictions":
                request.ids = sorted({*request.ids, *ids})
        checked.add(segment.stem)
    request.checked[key] = sorted(checked)


def _entity_column(project: Project, name: str) -> str | None:
    """Return the input that identifies the entity of a log's rows, where one does."""
    root, _, folder = name.partition("/")
    configured = project.config.deployment.get(files.deployment_of(folder))
    return INPUT + configured.entity if root != "labels" and configured and configured.entity else None


def _condition(segment: Segment, request: _Request, column: str | None, hashed: str) -> str:
    """Return the SQL condition of the rows of a segment that are to go; empty where none can be."""
    from pyarrow.parquet import read_schema

    names = set(read_schema(segment.path).names)
    parts = []
    if "prediction_id" in names and (ids := {*request.ids, *filter(None, [request.prediction_id])}):
        parts.append(f"prediction_id in ({in_list(sorted(ids))})")
    if request.entity:
        values = in_list([request.entity, hashed])
        parts += [f"entity in ({values})"] if "entity" in names else []
        parts += [f'"{column}"::varchar in ({values})'] if column and column in names else []
    return f"({' or '.join(parts)})" if parts else ""


def _hits(segment: Segment, where: str) -> tuple[list[str], int]:
    """Return the prediction ids of the rows for which a condition holds, and how many rows those are."""
    import duckdb

    path = str(segment.path).replace("'", "''")
    with duckdb.connect(":memory:", config={"threads": 1}) as connection:
        found = connection.execute(
            f"select {_ids_of(segment)} from read_parquet('{path}', hive_partitioning = false) where {where}"
        ).fetchall()
    return sorted({one for (one,) in found if one}), len(found)


def _ids_of(segment: Segment) -> str:
    from pyarrow.parquet import read_schema

    return "prediction_id" if "prediction_id" in read_schema(segment.path).names else "null"


@contextlib.contextmanager
def _held(folder: LogFolder, tries: Sequence[float] = (0.5,) * 60) -> Iterator[None]:
    """Hold a log's lock, and wait for it where another process has it."""
    for pause in (*tries, 0.0):
        with locked(folder) as mine:
            if mine:
                yield
                return
        time.sleep(pause)
    raise Unavailable(
        f"{folder.root} is being merged by another process.",
        valid="The request is kept and goes on with the next upkeep.",
        hint="loopwright status",
    )


def _save(path: Path, request: _Request) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    temporary = path.with_name(f"{path.name}.new")
    temporary.touch(mode=0o600)
    temporary.write_bytes(msgspec.json.encode(request))
    temporary.rename(path)
