"""Which runtime answers how many rows: each proven one is timed once, on the machine that prepares the version."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from loopwright import plugins
from loopwright.config import Project
from loopwright.registry.blocks import Blocks, blocks_of
from loopwright.scoring.base import Band, Manifest, Runtime, Timing
from loopwright.scoring.native import NativeRuntime

__all__ = ["CLEARLY", "SIZES", "bands_of", "calibrated"]

#: Batches that are timed, in rows.
SIZES = (1, 16, 256, 4096)
#: A runtime that costs more to load takes a size over only where it is this many times as quick.
CLEARLY = 1.3
#: Each size is called until this much time has gone by, and at least three times.
BUDGET_S = 0.02
CALLS = 3
#: So many different batches of each size are made of the replay rows.
VARIED = 256
#: Calls of one size end after this much time. A size whose calls would each take twice as long is not tried: what it
#: would show is known by then.
LONGEST_S = 0.5
#: From the one that costs least to load to the one that costs most.
_LIGHTEST_FIRST = ("onnx", "treelite", "native")
_PACKAGES = ("onnxruntime", "treelite", "scikit-learn", "xgboost", "lightgbm", "numpy", "pandas")


def calibrated(
    project: Project,
    folder: Path,
    manifest: Manifest,
    native: NativeRuntime,
    rows: Mapping[str, NDArray[Any]],
) -> Manifest:
    """Time what was proven, unless this model was timed here before, and return the manifest with timings and bands.

    Parameters
    ----------
    folder
        The folder being prepared, with the files of the compiled runtimes.
    native
        The model itself.
    rows
        The replay rows by column; they are repeated to make the larger batches.
    """
    names = _order({proof.runtime for proof in manifest.proofs if proof.proven} | {"native"})
    path = _kept_at(project, manifest, names)
    timings = _read(path)
    if timings is None:
        timings = _timed(folder, manifest, names, native, rows)
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, timings)
    bands = bands_of(timings, names)
    if not bands:
        return replace(manifest, timings=timings)
    first = bands[0].runtime
    proof = next((one for one in manifest.proofs if one.runtime == first), None)
    manifest = replace(manifest, runtime=first, timings=timings, bands=bands if len(bands) > 1 else ())
    if proof is not None and first != "native":
        manifest = replace(
            manifest, reason=proof.reason, max_difference=proof.max_difference, label_flips=proof.label_flips
        )
    elif len(names) > 1:
        manifest = replace(manifest, reason="the model itself is quicker than what it compiles to")
    return manifest


def _order(names: set[str]) -> tuple[str, ...]:
    known = [name for name in _LIGHTEST_FIRST if name in names]
    return (*known, *sorted(names - set(known)))


def bands_of(timings: Sequence[Timing], names: Sequence[str]) -> tuple[Band, ...]:
    """Choose a runtime for each number of rows.

    Parameters
    ----------
    timings
        What was measured; a size that a runtime was not timed at counts as in proportion to its largest one.
    names
        The runtimes, the one that costs least to load first. It answers all sizes at which no other is clearly
        quicker.

    Returns
    -------
    tuple[Band, ...]
        Rising, the last without an end; empty where nothing was measured. Between two sizes with different winners
        the time is taken to grow evenly, and the band ends where the second becomes clearly quicker.
    """
    cost = {name: _costs(timings, name) for name in names}
    names = [name for name in names if cost[name]]
    if not names:
        return ()
    base = _quickest(names, names[0], {name: cost[name][0] for name in names})
    winners = [
        _quickest(names, base, {name: cost[name][place] for name in names}) for place in range(len(SIZES))
    ]
    bands: list[Band] = []
    for place, (now, after) in enumerate(pairwise(winners)):
        if now != after:
            ends = _crossing(cost, now, after, place, base)
            bands.append(Band(now, ends))
    return (*bands, Band(winners[-1]))


def _costs(timings: Sequence[Timing], name: str) -> list[float]:
    own = {timing.rows: timing.microseconds for timing in timings if timing.runtime == name}
    if not own:
        return []
    largest = max(own)
    return [own.get(size, own[largest] * size / largest) for size in SIZES]


def _quickest(names: Sequence[str], base: str, cost: Mapping[str, float]) -> str:
    """Return the quickest of those that are clearly quicker than `base`, else `base`."""
    better = [name for name in names if cost[base] > CLEARLY * cost[name]]
    return min(better, key=lambda name: cost[name], default=base)


def _crossing(cost: Mapping[str, list[float]], now: str, after: str, place: int, base: str) -> int:
    low, high = SIZES[place], SIZES[place + 1]
    # Going back to the lighter runtime needs no lead; leaving it does.
    lead = CLEARLY if now == base else 1.0 / CLEARLY if after == base else 1.0
    left = cost[now][place] - lead * cost[after][place]
    right = cost[now][place + 1] - lead * cost[after][place + 1]
    if right <= left:
        return low
    return int(np.clip(low + (high - low) * -left / (right - left), low, high - 1))


def _kept_at(project: Project, manifest: Manifest, names: Sequence[str]) -> Path:
    """Return where the timings of this model on this machine are kept."""
    forms = [manifest.inputs, manifest.precision, str(manifest.direct), *names]
    facts = "\n".join([manifest.digest, *forms, *_machine()])
    return project.state / "calibrations" / f"{hashlib.sha256(facts.encode()).hexdigest()[:32]}.json"


def _machine() -> list[str]:
    found = [str(os.cpu_count()), *os.uname()[3:]]
    for package in _PACKAGES:
        try:
            found.append(f"{package} {package_version(package)}")
        except PackageNotFoundError:
            found.append(f"no {package}")
    return found


def _read(path: Path) -> tuple[Timing, ...] | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=tuple[Timing, ...])
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _write(path: Path, timings: tuple[Timing, ...]) -> None:
    # Two processes may have timed the same model; a rename lets the reader see one whole file.
    own = path.with_name(f".{path.name}-{os.getpid()}")
    own.write_bytes(msgspec.json.encode(timings))
    own.rename(path)


def _timed(
    folder: Path,
    manifest: Manifest,
    names: Sequence[str],
    native: NativeRuntime,
    rows: Mapping[str, NDArray[Any]],
) -> tuple[Timing, ...]:
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    inputs = manifest.signature.inputs
    whole = blocks_of(rows, inputs, len(next(iter(rows.values()))))
    batches = [_batches(whole, size) for size in SIZES]
    timings: list[Timing] = []
    for name in names:
        # One request is one thread: see the runtimes. What a library would take for itself is no fair comparison.
        runtime: Runtime = native if name == "native" else plugins.load("runtime", name)(folder, manifest)
        with threadpool_limits(1):
            timings.extend(_one(name, runtime, batches))
        if runtime is not native:
            runtime.close()
    return tuple(timings)


def _batches(whole: Blocks, size: int) -> list[Blocks]:
    """Return batches of different rows.

    Asked for the same few rows again and again, a processor learns which way they go through the trees: that shows a
    third of what rows cost that it has not met before.
    """
    return [
        whole.take((start + np.arange(size)) % whole.rows)
        for start in range(0, min(whole.rows, VARIED * size), size)
    ]


def _one(name: str, runtime: Runtime, batches: Sequence[Sequence[Blocks]]) -> list[Timing]:
    timings: list[Timing] = []
    for size, varied in zip(SIZES, batches, strict=True):
        if timings and timings[-1].microseconds * size / timings[-1].rows > 2e6 * LONGEST_S:
            break
        # The first call allocates.
        runtime.score(varied[-1], size)
        taken: list[float] = []
        began = started = time.perf_counter()
        while (len(taken) < CALLS or started - began < BUDGET_S) and started - began < LONGEST_S:
            runtime.score(varied[len(taken) % len(varied)], size)
            ended = time.perf_counter()
            taken.append(ended - started)
            started = ended
        timings.append(Timing(name, size, round(float(np.median(taken)) * 1e6, 2)))
    return timings
