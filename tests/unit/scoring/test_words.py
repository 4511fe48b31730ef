"""What serves and why, in words."""

from loopwright.records import Column, Signature, Task
from loopwright.registry.layout import Layout
from loopwright.scoring.base import Band, Manifest, Proof, Timing
from loopwright.scoring.words import bands_in_words, proofs_in_words


def manifest(*bands: Band) -> Manifest:
    """Return the manifest of a model with these bands."""
    return Manifest(
        "m",
        1,
        bands[0].runtime,
        "",
        "",
        Signature((Column("a", "double"),), Task.regression),
        Layout("matrix", ()),
        bands=bands if len(bands) > 1 else (),
        proofs=(
            Proof("onnx", True, "agrees with the model on 2000 rows", 1.19e-7, 0),
            Proof("treelite", False, "treelite: the column 's' holds text"),
        ),
        timings=(Timing("onnx", 1, 8.06), Timing("onnx", 4096, 22026.4)),
    )


def test_bands_are_said_in_one_sentence() -> None:
    """One runtime answers all, or each its share, and the shares meet."""
    assert bands_in_words(manifest(Band("onnx"))) == "onnx for any number of rows"
    two = manifest(Band("onnx", 82), Band("native"))
    assert bands_in_words(two) == "onnx up to 82 rows, native above"
    three = manifest(Band("onnx", 82), Band("treelite", 300), Band("native"))
    assert bands_in_words(three) == "onnx up to 82 rows, treelite for 83 to 300 rows, native above"


def test_proofs_are_said_one_by_one() -> None:
    """What was proven has its difference and times, what was not has its reason alone."""
    proven, refuted = proofs_in_words(manifest(Band("onnx")))
    assert proven == (
        "onnx: agrees with the model on 2000 rows; largest difference 1.2e-07, 0 labels changed (tolerance 1e-05); "
        "8.1 us for 1 row, 22026 us for 4096 rows"
    )
    assert refuted == "treelite: the column 's' holds text"
