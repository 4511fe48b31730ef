"""What a schedule that waits for news finds: datasets, model versions, alerts and runs in the ledger, and files.

How far it has looked is kept with the schedule's standing. When it is first seen, what is there already is no news.
"""

from __future__ import annotations

import glob
import hashlib
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from loopwright.config import Project
from loopwright.ledger import Event, Ledger
from loopwright.records import DatasetRef

__all__ = ["News", "find", "own"]

_EVENTS = {"alert": "alert.opened", "model": "model.registered", "pipeline": "pipeline.completed"}
#: A file that was written so recently may still be being written.
SETTLE_S = 2.0
#: Runs of the schedule itself whose traces in the ledger are no news to it.
_OWN = 20


@dataclass(frozen=True, slots=True)
class News:
    """One thing that happened. `key` is the same whenever it is found again."""

    key: str
    what: str
    at: datetime


def find(
    project: Project, ledger: Ledger, on: str, seen: dict[str, Any]
) -> tuple[list[News], dict[str, Any]]:
    """Return the news since `seen`, oldest first, and what is seen afterwards."""
    kind, _, name = on.partition(": ")
    # Another subject starts anew.
    before = seen if seen.get("on") == on else {}
    if kind == "file":
        found, after = _files(project, name, before)
    elif kind == "dataset":
        found, after = _datasets(ledger, name, before)
    else:
        found, after = _events(ledger, _EVENTS[kind], name, before)
    return found, {**before, **after, "on": on}


def own(seen: dict[str, Any], run_id: str, digests: list[str]) -> dict[str, Any]:
    """Return `seen` with what a run of the schedule itself has left in the ledger, so that it does not start itself."""
    after = dict(seen)
    if run_id:
        after["own"] = [*seen.get("own", []), run_id][-_OWN:]
    if "digests" in seen:
        after["digests"] = sorted({*seen["digests"], *(digest[:16] for digest in digests)})
    return after


def _events(
    ledger: Ledger, kind: str, subject: str, seen: dict[str, Any]
) -> tuple[list[News], dict[str, Any]]:
    if "event" not in seen:
        newest = ledger.events(limit=1, newest=True)
        return [], {"event": newest[0].id if newest else 0}
    events = ledger.events(kind, subject, after=seen["event"])
    mine = seen.get("own", [])
    found = [
        News(f"event {event.id}", _what(event), event.at)
        for event in events
        if event.payload.get("run_id") not in mine
    ]
    return found, {"event": events[-1].id if events else seen["event"]}


def _what(event: Event) -> str:
    if event.kind == "model.registered":
        return f"{event.subject}/{event.payload.get('version')}"
    return str(event.payload.get("id") or event.payload.get("run_id") or event.subject)


def _datasets(ledger: Ledger, name: str, seen: dict[str, Any]) -> tuple[list[News], dict[str, Any]]:
    there = {
        state.key: state.read(DatasetRef) for state in ledger.states("dataset") if state.value["name"] == name
    }
    known = set(seen.get("digests", ()))
    new = [ref for digest, ref in there.items() if digest[:16] not in known]
    new.sort(key=lambda ref: ref.created)
    after = {"digests": sorted(known | {digest[:16] for digest in there})}
    if "digests" not in seen:
        return [], after
    return [News(f"dataset {ref.digest[:16]}", ref.digest, ref.created) for ref in new], after


def _files(project: Project, pattern: str, seen: dict[str, Any]) -> tuple[list[News], dict[str, Any]]:
    before: dict[str, str] = seen.get("files", {})
    now: dict[str, str] = {}
    changed: dict[str, float] = {}
    for path in sorted(glob.glob(pattern, root_dir=project.root, recursive=True)):  # noqa: PTH207 - also absolute ones
        try:
            facts = (project.root / path).stat()
        except OSError:  # gone meanwhile
            continue
        mark = f"{facts.st_mtime_ns} {facts.st_size}"
        if "files" in seen and before.get(path) != mark:
            if time.time() - facts.st_mtime < SETTLE_S:
                now |= {path: before[path]} if path in before else {}
                continue
            changed[path] = facts.st_mtime
        now[path] = mark
    if not changed:
        return [], {"files": now}
    newest = max(changed, key=lambda path: changed[path])
    key = hashlib.sha256("\n".join(f"{path} {now[path]}" for path in changed).encode()).hexdigest()[:16]
    return [News(f"files {key}", newest, datetime.fromtimestamp(changed[newest], UTC))], {"files": now}
