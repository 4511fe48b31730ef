"""What a check of a notebook decides, on recorded outputs and code: no kernel is started here."""

import base64
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from loopwright.tracking.notebooks.verdict import causes
from loopwright.tracking.notebooks.verdict.findings import Cause, CellFinding, Verdict
from loopwright.tracking.notebooks.verdict.outputs import difference, is_empty
from loopwright.tracking.notebooks.verdict.report import page
from loopwright.tracking.notebooks.verdict.scan import Scanned


def printed(text: str, name: str = "stdout") -> dict[str, Any]:
    """Return an output as a notebook stores what was printed."""
    return {"output_type": "stream", "name": name, "text": text}


def shown(**data: str) -> dict[str, Any]:
    """Return a result, by MIME type with an underscore for the slash."""
    return {
        "output_type": "execute_result",
        "data": {mime.replace("_", "/"): text for mime, text in data.items()},
    }


def picture(*points: int, size: int = 200) -> str:
    """Return a PNG with lines, as a notebook stores it."""
    image = Image.new("RGB", (size, size), "white")
    ImageDraw.Draw(image).line(points, fill="blue", width=size // 10)
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


TABLE = (
    "<div><table><tr><th></th><th>mean</th></tr><tr><th>a</th><td>{}</td></tr></table></div><style>{}</style>"
)


@pytest.mark.parametrize(
    ("stored", "found"),
    [
        ([printed("a\n"), printed("b\n")], [printed("a\nb\n")]),
        ([printed("accuracy 0.93\n")], [printed("accuracy 0.93000001\n")]),
        ([printed("[1.  2.5]")], [printed("[1.   2.50000001]")]),
        ([shown(text_plain="<A at 0x7f12ab34cd56>")], [shown(text_plain="<A at 0x7f99ab34cd56>")]),
        ([printed("10%|#  |\r100%|###|\ndone")], [printed("done")]),
        ([printed("Wall time: 3 ms\n1")], [printed("Wall time: 9 ms\n1")]),
        ([printed("\x1b[31mred\x1b[0m")], [printed("red")]),
        ([printed("1"), printed("old warning", "stderr")], [printed("1"), printed("new warning", "stderr")]),
        ([shown(text_html=TABLE.format("1.0", "a"))], [shown(text_html=TABLE.format("1.00", "b"))]),
        ([shown(image_png=picture(0, 0, 200, 200))], [shown(image_png=picture(0, 0, 401, 400, size=400))]),
    ],
)
def test_what_a_reader_would_call_the_same_is_the_same(stored: Any, found: Any) -> None:
    """Streams, numbers, addresses, progress bars, times, colours, warnings, tables, pictures."""
    assert difference(stored, found, 1e-6) == ""


@pytest.mark.parametrize(
    ("stored", "found", "text"),
    [
        ([printed("accuracy 0.93")], [printed("accuracy 0.92")], "line 1: 'accuracy 0.93' is stored"),
        ([printed("a")], [printed("b")], "'b' was given"),
        ([printed("a\nb")], [printed("a")], "2 lines are stored, 1 were given"),
        ([printed("version 2")], [printed("versions 2")], "line 1"),
        (
            [shown(text_html=TABLE.format("1.0", ""))],
            [shown(text_html=TABLE.format("1.5", ""))],
            "table, row 1, column mean: '1.0' is stored, '1.5' was given",
        ),
        (
            [shown(image_png=picture(0, 0, 200, 200))],
            [shown(image_png=picture(0, 200, 200, 200, 200, 0))],
            "the picture looks different",
        ),
        ([shown(image_png=picture(0, 0, 9, 9))], [shown(text_plain="1")], "none was given"),
        ([shown(text_plain="1")], [], "1 results and pictures are stored, 0 were given"),
    ],
)
def test_what_differs_is_said_with_its_place(stored: Any, found: Any, text: str) -> None:
    """The line, the cell of a table, the picture."""
    assert text in difference(stored, found, 1e-6)


def test_only_what_is_compared_counts_as_output() -> None:
    """Warnings and progress bars alone are none."""
    assert is_empty([printed("warned", "stderr"), printed("50%|##  | 1/2\r")])
    assert not is_empty([printed("1")])


@pytest.mark.parametrize(
    ("error", "message", "kind", "text"),
    [
        (
            "FileNotFoundError",
            "[Errno 2] No such file or directory: 'data/train.csv'",
            "missing file",
            "nearest: data/",
        ),
        (
            "FileNotFoundError",
            "[Errno 2] No such file or directory: '/home/me/train.csv'",
            "missing file",
            "/home/me",
        ),
        ("ModuleNotFoundError", "No module named 'cv2'", "missing module", "cv2 is not installed"),
        ("NameError", "name 'late' is not defined", "name from a later cell", "defined in cell 3"),
        ("NameError", "name 'modle' is not defined", "name that no cell defines", "nearest: model"),
        ("StdinNotImplementedError", "raw_input was called", "needs input", "nobody is there"),
        ("URLError", "<urlopen error [Errno -2]>", "network", "URLError"),
        ("ConnectionError", "refused", "network", "refused"),
        ("ValueError", "bad\nmore", "error", "ValueError: bad"),
    ],
)
def test_the_cause_of_an_error_is_named(
    tmp_path: Path, error: str, message: str, kind: str, text: str
) -> None:
    """With what to do about it, where that can be known."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "training.csv").write_text("a\n")
    scanned = Scanned(["model = 1", "print(late)", "late = 2"])
    cause = causes.of_error(error, message, 2, scanned, tmp_path)
    assert cause.kind == kind
    assert text in cause.text
    assert cause.advice or kind == "error"


def test_a_module_beside_the_folder_is_found(tmp_path: Path) -> None:
    """Notebooks in a folder of their own often import from the folder above."""
    (tmp_path / "helpers.py").write_text("")
    cause = causes.of_error(
        "ModuleNotFoundError", "No module named 'helpers'", 1, Scanned(["1"]), tmp_path / "nb"
    )
    assert f"run Jupyter in {tmp_path}" in cause.advice


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ([1, 2, 3], ""),
        ([None, 4, 5], ""),
        ([1, 5, 4], "cell 2 was run after cell 3"),
        ([1, 3], "one run of cells are missing"),
        ([], ""),
    ],
)
def test_the_order_of_the_stored_counts(counts: list[int | None], text: str) -> None:
    """Falling counts show that cells were run in another order, gaps that some are gone."""
    found = causes.order_of(counts)
    assert text in found
    assert bool(found) == bool(text)


def test_calls_without_a_seed_are_found() -> None:
    """Not those with a seed of their own or of their module; clocks apart."""
    scanned = Scanned(
        [
            "import numpy as np\nfrom sklearn.model_selection import KFold, train_test_split",
            "a = np.random.normal()\nrng = np.random.default_rng()\nok = np.random.default_rng(3)",
            "train_test_split(a, random_state=1)\ntrain_test_split(a)\nKFold(5)\nKFold(5, shuffle=True)",
            "import random, time\nrandom.seed(1)\nrandom.random()\nstarted = time.time()",
            "%matplotlib inline\nnp.random.seed(1)\nnp.random.rand(2)\ntrain_test_split(a)\n!ls",
        ]
    )
    found = {cell: [call for call, _ in calls] for cell, calls in scanned.unseeded().items()}
    assert found == {
        2: ["np.random.normal(...)", "np.random.default_rng(...)"],
        3: ["train_test_split(...)", "KFold(...)"],
    }
    assert scanned.clock() == {4: ["time.time()"]}
    assert {"numpy", "random", "sklearn", "time"} == scanned.imports


def test_why_an_output_differs() -> None:
    """Chance, time, or something that has changed: a second run tells them apart."""
    random, clock = Scanned(["import random\nrandom.random()"]), Scanned(["import time\ntime.time()"])
    assert causes.of_difference(1, "x", False, random, "").kind == "unseeded randomness"
    assert causes.of_difference(1, "x", False, clock, "").kind == "time-dependent"
    assert causes.of_difference(1, "x", True, random, "").kind == "other output"
    assert "the order" in causes.of_difference(1, "x", True, random, "The order").text
    assert causes.of_difference(1, "x", False, Scanned(["a()"]), "").kind == "unseeded randomness"
    assert causes.of_difference(1, "x", None, Scanned(["a()"]), "").kind == "other output"


def verdict(*cells: CellFinding) -> Verdict:
    """Return a verdict on these cells."""
    return Verdict(
        "n.ipynb", "3.11", cells, lock=("numpy==2",), written=("/etc/<x>",), hosts=("example.org",)
    )


RAN = CellFinding(1, "a", "ran", 0.1, "equal")


@pytest.mark.parametrize(
    ("found", "sentence", "reproduces"),
    [
        (verdict(RAN), "1 of 1 cells ran, 1 outputs as stored.", True),
        (verdict(CellFinding(1, "a", "ran", 0.1, "none")), "it stores no output to compare with", True),
        (
            verdict(RAN, CellFinding(2, "b", "ran", 0.1, "different", "d", Cause("other output", "why"))),
            "2 of 2 cells ran, but cell 2 gave another output than stored: why.",
            False,
        ),
        (
            verdict(
                RAN,
                CellFinding(2, "b", "failed", cause=Cause("error", "boom")),
                CellFinding(3, "c", "not reached"),
            ),
            "1 of 3 cells ran; cell 2 failed: boom.",
            False,
        ),
    ],
)
def test_the_verdict_is_one_sentence(found: Verdict, sentence: str, reproduces: bool) -> None:
    """It is at the top of the page, with every cell below; what a notebook holds cannot become part of the page."""
    assert sentence in found.sentence
    assert found.reproduces is reproduces
    text = page(found)
    assert text.count("<article") == len(found.cells)
    assert "<code>/etc/&lt;x&gt;</code>" in text
    assert "<x>" not in text
