"""The demo's own story: a reader of handwritten digits whose scanner tilts."""

import gzip
import importlib.util
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loopwright.demo.scenario import Row
from loopwright.records import Scalar
from loopwright.templates import write

__all__ = ["Digits"]

#: 1,797 real images of 8 x 8 pixels, split once into parts that never mix: what the first models learn from, what
#: arrives before the retraining, and what arrives after it. So no accuracy of the report is measured on an image that a
#: model was trained on, tilted or not. The gate's is: its rows are new scans of images that came before, too.
PARTS = {"history": slice(0, 600), "first": slice(600, 1200), "fresh": slice(1200, 1797)}
TILT_DEGREES = 28.0
BLUR_PIXELS = 0.5


class Digits:
    """Images arrive as requests; then the scanner tilts, and they arrive rotated and blurred."""

    model = "digits"
    deployment = "digits-api"
    metric = "accuracy"
    higher = True
    rate = 60.0
    baseline_s = 20.0
    runs: tuple[dict[str, Any], ...] = (
        {"kind": "logistic", "recent": 0},
        {"kind": "trees", "recent": 0},
        {"kind": "svc", "recent": 0},
    )

    def __init__(self, seed: int = 7) -> None:
        self._random = np.random.default_rng(seed)
        self._images, self._digits = _load()
        order = self._random.permutation(len(self._images))
        self._parts = {name: order[part] for name, part in PARTS.items()}
        self._arriving = "first"
        self._tilted = False

    def write(self, root: Path) -> None:
        """Write the project and the scans it starts with."""
        write("digits", root, {})
        path = root / "data" / "scans.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        names = [*_names(), "digit"]
        history = self._parts["history"]
        scans = np.stack([self._scan(image).ravel() for image in self._images[history]])
        table = np.column_stack([scans, self._digits[history]])
        np.savetxt(
            path, table, fmt=["%.1f"] * 64 + ["%d"], delimiter=",", header=",".join(names), comments=""
        )

    def rows(self) -> Iterator[Row]:
        """Yield scans of the images that may arrive now, each a little different from all others.

        All of them arrive before any arrives again: an accuracy is then of the images, not of which happened to come.
        """
        names = _names()
        part = ""
        waiting: list[int] = []
        while True:
            if part != self._arriving or not waiting:
                part = self._arriving
                waiting = self._random.permutation(self._parts[part]).tolist()
            index = waiting.pop()
            pixels = self._scan(self._images[index]).ravel()
            writer = f"writer-{int(self._random.integers(5000))}"
            yield Row(dict(zip(names, pixels.tolist(), strict=True)), int(self._digits[index]), writer)

    def _scan(self, image: NDArray[np.float64]) -> NDArray[np.float64]:
        from scipy import ndimage

        angle = float(self._random.normal(TILT_DEGREES if self._tilted else 0.0, 2.0))
        scanned = ndimage.rotate(image, angle, reshape=False, order=1)
        if self._tilted:
            scanned = ndimage.gaussian_filter(scanned, BLUR_PIXELS)
        noisy = scanned + self._random.normal(0.0, 0.3, scanned.shape)
        return np.asarray(np.clip(np.round(noisy, 1), 0.0, 16.0))

    def shift(self) -> str:
        """Tilt the scanner."""
        self._tilted = True
        return f"the scanner tilts by {TILT_DEGREES:.0f} degrees and blurs"

    def fresh(self) -> None:
        """Send only images that no training has seen in any form."""
        self._arriving = "fresh"

    def score(self, answers: list[tuple[Scalar, Scalar]]) -> float:
        """Return the accuracy."""
        return sum(prediction == actual for prediction, actual in answers) / max(1, len(answers))

    def recovered(
        self, root: Path, before: float, after: float, rows: list[tuple[Row, Scalar]]
    ) -> tuple[bool, str]:
        """Ask that the accuracy is back within 3 points of what it was."""
        return (
            after >= before - 0.03,
            f"accuracy {after:.1%} on images nobody trained on; it was {before:.1%}",
        )


def _load() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Read the images that scikit-learn ships, without importing scikit-learn into this process."""
    spec = importlib.util.find_spec("sklearn")
    assert spec is not None
    assert spec.origin is not None
    packed = (Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz").read_bytes()
    table = np.loadtxt(io.BytesIO(gzip.decompress(packed)), delimiter=",")
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(np.int64)


def _names() -> list[str]:
    return [f"pixel_{row}_{column}" for row in range(8) for column in range(8)]
