"""The demo's scans: what arrives, and that what arrives later was never trained on."""

from collections import Counter
from itertools import islice

import numpy as np

from loopwright.demo.digits import PARTS, Digits


def test_every_image_arrives_before_any_arrives_again() -> None:
    """Two passes hold the same digits as often, in another order; so do two passes over the images kept for later."""
    digits = Digits()
    arriving = digits.rows()
    for part in ("first", "fresh"):
        if part == "fresh":
            next(arriving)  # the switch comes in the middle of a pass
            digits.fresh()
        size = PARTS[part].stop - PARTS[part].start
        one, two = ([row.actual for row in islice(arriving, size)] for _ in range(2))
        assert Counter(one) == Counter(two)
        assert one != two


def test_a_tilted_scanner_changes_the_pixels_and_not_the_range() -> None:
    """Pixels stay from 0 to 16, as the signature was learned; the tilt and the blur move many of them."""
    digits = Digits()
    arriving = digits.rows()
    straight = np.array([list(row.fields.values()) for row in islice(arriving, 600)])
    assert digits.shift() == "the scanner tilts by 28 degrees and blurs"
    tilted = np.array([list(row.fields.values()) for row in islice(arriving, 600)])
    for scans in (straight, tilted):
        assert scans.shape == (600, 64)
        assert scans.min() >= 0.0
        assert scans.max() <= 16.0
    assert np.abs(straight.mean(axis=0) - tilted.mean(axis=0)).max() > 2.0
