"""Deciding whether a bundle may be used: the signature first, and nothing from inside runs before it holds."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from loopwright.config import Project
from loopwright.deploy.edge import archive
from loopwright.deploy.edge.bundling import FORMAT
from loopwright.deploy.edge.signing import PUBLIC, check, fingerprint, read_public
from loopwright.errors import Damaged, NotFound, listing
from loopwright.records import now

__all__ = ["Verified", "answer", "verify"]

#: Seconds that the bundled predictor may take for the golden rows; a start of Python takes most of one.
PATIENCE_S = 120


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found to hold. `pinned` says whether the signer was compared with a key known from elsewhere."""

    model: str
    version: int
    run_id: str
    expires: datetime
    signer: str
    pinned: bool
    rows: int
    max_difference: float
    label_flips: int

    def __str__(self) -> str:
        trust = "a trusted key" if self.pinned else "the key inside the bundle, compared with no other"
        return (
            f"{self.model}/{self.version}, signed by {self.signer} ({trust}), accepted until {self.expires:%Y-%m-%d}, "
            f"{self.rows} golden rows within {self.max_difference:.1g}, {self.label_flips} labels changed"
        )


def verify(bundle: Path, *, key: Path | None = None) -> Verified:
    """Check a bundle: signature, hashes, expiry, and the golden rows, scored by the bundled predictor.

    Parameters
    ----------
    bundle
        The `.tar.gz`.
    key
        The public key to trust. Without one it is the key of the project around the working folder; outside of a
        project the bundle's own key is used, which shows that the bundle is whole but not who made it.

    Raises
    ------
    Damaged
        The first thing that does not hold.
    NotFound
        There is no such file.
    """
    files = archive.read(bundle)
    for name in (archive.MANIFEST, archive.SIGNATURE, archive.SIGNER):
        if name not in files:
            raise Damaged(f"{bundle} has no {name}.", hint=_AGAIN, file=name)
    trusted = _trusted(key)
    signer = files[archive.SIGNER]
    if trusted is not None and trusted != signer:
        raise Damaged(
            f"{bundle} is signed by the key {fingerprint(signer)}, not by the trusted key {fingerprint(trusted)}.",
            hint="take the bundle from the project that the device belongs to, or name its key",
        )
    check(signer, files[archive.MANIFEST], files[archive.SIGNATURE])
    manifest = _manifest(bundle, files)
    _check_files(bundle, manifest["files"], files)
    expires = datetime.fromisoformat(manifest["expires"])
    if now() >= expires:
        raise Damaged(f"{bundle} expired on {expires:%Y-%m-%d %H:%M} UTC.", hint=_AGAIN)
    rows, difference, flips = _golden(bundle, manifest, files)
    return Verified(
        manifest["model"],
        manifest["version"],
        manifest["run_id"],
        expires,
        fingerprint(signer),
        trusted is not None,
        rows,
        difference,
        flips,
    )


def _trusted(key: Path | None) -> bytes | None:
    if key is not None:
        return read_public(key)
    try:
        project = Project.find()
    except NotFound:
        return None
    path = project.state / PUBLIC
    return path.read_bytes() if path.is_file() else None


def _manifest(bundle: Path, files: dict[str, bytes]) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads(files[archive.MANIFEST])
    if manifest.get("format") != FORMAT:
        raise Damaged(
            f"{bundle} has the format {manifest.get('format')}, and this release reads {FORMAT}.", hint=_AGAIN
        )
    return manifest


def _check_files(bundle: Path, listed: dict[str, dict[str, Any]], files: dict[str, bytes]) -> None:
    for name, facts in listed.items():
        if name not in files:
            raise Damaged(f"{bundle} has no {name}, which its manifest lists.", hint=_AGAIN, file=name)
        found = hashlib.sha256(files[name]).hexdigest()
        if found != facts["sha256"] or len(files[name]) != facts["bytes"]:
            raise Damaged(
                f"{name} in {bundle} is not what was signed: its SHA-256 is {found}, not {facts['sha256']}.",
                hint=_AGAIN,
                file=name,
            )
    extra = files.keys() - listed.keys() - {archive.MANIFEST, archive.SIGNATURE, archive.SIGNER}
    if extra:
        raise Damaged(
            f"{bundle} holds {listing(sorted(extra))}, which its manifest does not list.", hint=_AGAIN
        )


def _golden(bundle: Path, manifest: dict[str, Any], files: dict[str, bytes]) -> tuple[int, float, int]:
    golden = json.loads(files[archive.GOLDEN])
    with tempfile.TemporaryDirectory(prefix="loopwright-edge-") as folder:
        for name, data in files.items():
            (Path(folder) / name).write_bytes(data)
        found = answer(Path(folder), golden["rows"])
    difference, flips = _compare(golden["expected"], found)
    if flips or not difference <= manifest["tolerance"]:
        raise Damaged(
            f"{bundle} does not give its golden answers: they differ by up to {difference:.3g}, with {flips} of "
            f"{len(found)} labels changed.",
            valid=f"The tolerance is {manifest['tolerance']:g}.",
            hint=_AGAIN,
        )
    return len(found), difference, flips


def answer(folder: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Answer rows with the predictor of an unpacked bundle, in a process of its own that sees nothing of this one.

    Raises
    ------
    Damaged
        The predictor fails.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump(rows, file)
        file.flush()
        try:
            done = subprocess.run(
                [sys.executable, "-I", str(folder / archive.PREDICT), file.name],
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise Damaged(f"The bundled predictor gave no answer in {PATIENCE_S} s.", hint=_AGAIN) from error
    if done.returncode:
        raise Damaged(f"The bundled predictor fails: {done.stderr.strip()[-500:]}", hint=_AGAIN)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    if len(answers) != len(rows):
        raise Damaged(f"The bundled predictor gave {len(answers)} answers for {len(rows)} rows.", hint=_AGAIN)
    return answers


def _compare(expected: list[dict[str, Any]], found: list[dict[str, Any]]) -> tuple[float, int]:
    """Return the largest difference, absolute or relative, whichever is smaller, and how many labels differ."""
    worst, flips = 0.0, 0
    for want, got in zip(expected, found, strict=True):
        if "probability" in want:
            found_for = got["probability"]
            pairs = [
                (share, found_for.get(name, float("nan"))) for name, share in want["probability"].items()
            ]
        elif isinstance(want["prediction"], float):
            pairs = [(want["prediction"], got["prediction"])]
        elif isinstance(want["prediction"], list) and isinstance(want["prediction"][0], float):
            pairs = list(zip(want["prediction"], got["prediction"], strict=True))
        else:
            pairs = []
        if "probability" in want or not pairs:
            flips += want["prediction"] != got["prediction"]
        for one, other in pairs:
            difference = abs(one - other) / max(1.0, abs(one))
            worst = max(worst, difference if difference == difference else float("inf"))
    return worst, flips


_AGAIN = "copy or bundle it again: loopwright edge bundle NAME"
