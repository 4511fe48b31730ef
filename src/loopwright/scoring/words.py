"""What serves a version and why, in sentences for people."""

from __future__ import annotations

from itertools import pairwise

from loopwright.scoring.base import Manifest, Proof

__all__ = ["bands_in_words", "proofs_in_words"]


def bands_in_words(manifest: Manifest) -> str:
    """Say which runtime answers how many rows, such as ``onnx up to 82 rows, native above``."""
    bands = manifest.bands
    if len(bands) < 2:
        return f"{manifest.runtime} for any number of rows"
    firsts = [1, *(band.rows + 1 for band in bands[:-1] if band.rows is not None)]
    parts = [
        f"{band.runtime} up to {band.rows} rows"
        if place == 0
        else f"{band.runtime} for {low} to {high - 1} rows"
        for place, (band, (low, high)) in enumerate(zip(bands[:-1], pairwise(firsts), strict=True))
    ]
    return ", ".join([*parts, f"{bands[-1].runtime} above"])


def proofs_in_words(manifest: Manifest) -> tuple[str, ...]:
    """Say of each runtime that was tried what the replay showed and how long it takes, one sentence each."""
    return tuple(_proof(manifest, proof) for proof in manifest.proofs)


def _proof(manifest: Manifest, proof: Proof) -> str:
    text = f"{proof.runtime}: {proof.reason.removeprefix(f'{proof.runtime}: ')}"
    if proof.max_difference is not None:
        text += f"; largest difference {proof.max_difference:.2g}, {proof.label_flips} labels changed"
        text += f" (tolerance {manifest.tolerance:g})"
    times = [
        f"{_rounded(timing.microseconds)} us for {timing.rows} row{'s' if timing.rows > 1 else ''}"
        for timing in manifest.timings
        if timing.runtime == proof.runtime
    ]
    return "; ".join([text, ", ".join(times)]) if times else text


def _rounded(microseconds: float) -> str:
    return f"{microseconds:.1f}" if microseconds < 100 else f"{microseconds:.0f}"
