"""Which runtime answers how many rows, and what is loaded for that."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from four_modes import with_bands
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from loopwright import scoring
from loopwright.config import Project
from loopwright.errors import SchemaMismatch
from loopwright.records import Column, ModelVersion
from loopwright.registry import arrays_of
from loopwright.registry.blocks import Blocks, blocks_of
from loopwright.scoring.base import Band, Timing
from loopwright.scoring.calibration import SIZES, _batches, bands_of
from loopwright.scoring.golden import read_rows

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

Make = Callable[..., ModelVersion]


@pytest.fixture(scope="module")
def cancer() -> pd.DataFrame:
    """Return the breast cancer table with a category, which only treelite carries."""
    frame: pd.DataFrame = load_breast_cancer(as_frame=True).frame
    return frame.assign(grade=pd.Categorical(np.arange(len(frame)) % 3 + frame["target"]))


def timings(**runtimes: list[float]) -> list[Timing]:
    """Return timings at the usual sizes, as many as are given."""
    return [
        Timing(name, rows, cost)
        for name, costs in runtimes.items()
        for rows, cost in zip(SIZES, costs, strict=False)
    ]


def test_the_lightest_runtime_answers_unless_another_is_clearly_quicker() -> None:
    """A runtime that costs more to load takes a size over only at 1.3 times the speed."""
    names = ("onnx", "treelite", "native")
    alike = timings(onnx=[10, 100, 1000, 10_000], treelite=[8, 80, 800, 8_000], native=[900, 900, 900, 9_000])
    assert bands_of(alike, names) == (Band("onnx"),)
    quicker = timings(
        onnx=[10, 100, 1000, 10_000], treelite=[7, 70, 700, 7_000], native=[900, 900, 900, 9_000]
    )
    assert bands_of(quicker, names) == (Band("treelite"),)
    assert bands_of([], names) == ()


def test_bands_end_where_the_next_runtime_becomes_clearly_quicker() -> None:
    """Between two timed sizes the time is taken to grow evenly: the band ends just before the other one is ahead."""
    bands = bands_of(timings(onnx=[8, 31, 1300, 22_000], native=[160, 200, 550, 6_400]), ("onnx", "native"))
    assert [band.runtime for band in bands] == ["onnx", "native"]
    assert bands[1].rows is None
    end = bands[0].rows
    assert end is not None
    share = (end - 16) / (256 - 16)
    onnx, native = 31 + share * (1300 - 31), 200 + share * (550 - 200)
    assert onnx <= 1.3 * native
    assert onnx + (1300 - 31) / 240 > 1.3 * (native + (550 - 200) / 240)


def test_sizes_that_took_too_long_count_in_proportion() -> None:
    """A runtime so slow that its largest sizes were left out does not answer them."""
    bands = bands_of(timings(onnx=[10, 1e6], native=[5e4, 6e4, 7e4, 8e4]), ("onnx", "native"))
    assert bands[-1] == Band("native")
    assert bands[0].runtime == "onnx"


def test_each_call_that_is_timed_gets_other_rows() -> None:
    """Batches are of the size asked for, go through all rows before one comes again, and wrap around at the end."""
    whole = blocks_of({"a": np.arange(100.0)}, (Column("a", "double"),), 100)
    singles = _batches(whole, 1)
    assert [batch["a"].tolist() for batch in singles] == [[float(row)] for row in range(100)]
    sixteens = _batches(whole, 16)
    assert {batch.rows for batch in sixteens} == {16}
    assert np.concatenate([batch["a"] for batch in sixteens])[:100].tolist() == list(range(100))
    [large] = _batches(whole, 256)
    assert np.bincount(large["a"].astype(int)).tolist() == [3] * 56 + [2] * 44


def prepared(project: Project, make: Make, frame: pd.DataFrame, model: Any = None) -> Path:
    """Return the folder of a prepared model."""
    model = model or HistGradientBoostingClassifier(max_iter=5, categorical_features="from_dtype")
    model.fit(frame.drop(columns="target"), frame["target"])
    return scoring.prepare(project, "m", make(model, frame).version)


def columns_of(scorer: scoring.Scorer, rows: int) -> Blocks:
    """Return rows as the server hands them over."""
    columns = arrays_of(read_rows(scorer.folder / "replay.parquet"), scorer.signature.inputs)
    return blocks_of(
        {name: values[np.arange(rows) % len(values)] for name, values in columns.items()},
        scorer.signature.inputs,
        rows,
    )


def test_what_was_timed_is_in_the_manifest_and_not_timed_again(
    project: Project, make: Make, cancer: pd.DataFrame
) -> None:
    """Each proven runtime has its times at four sizes; preparing again takes them from the state folder."""
    folder = prepared(project, make, cancer)
    manifest = scoring.read_manifest(folder)
    assert {timing.runtime for timing in manifest.timings} == {"treelite", "native"}
    assert [timing.rows for timing in manifest.timings if timing.runtime == "treelite"] == list(SIZES)
    assert all(timing.microseconds > 0 for timing in manifest.timings)
    [kept] = (project.state / "calibrations").iterdir()
    facts = json.loads(kept.read_text())
    # Nobody could measure this: where it turns up again, nothing was timed.
    for fact in facts:
        fact["microseconds"] = {"treelite": 5.0, "native": 5.0 if fact["rows"] > 1 else 50.0}[fact["runtime"]]
    facts[-1]["microseconds"] = 2.0
    kept.write_text(json.dumps(facts))
    again = scoring.read_manifest(scoring.prepare(project, "m", 1, force=True))
    assert [band.runtime for band in again.bands] == ["treelite", "native"]
    assert again.timings[-1] == Timing("native", 4096, 2.0)
    assert (folder / "native" / "MLmodel").is_file()
    kept.write_text("torn")
    assert scoring.read_manifest(scoring.prepare(project, "m", 1, force=True)).timings[-1].microseconds > 2.0


def test_the_number_of_rows_picks_the_runtime(project: Project, make: Make, cancer: pd.DataFrame) -> None:
    """The first large batch is answered by the runtime at hand, later ones by the one for their size; all agree."""
    folder = prepared(project, make, cancer)
    with_bands(folder, Band("treelite", 20), Band("native"), native=project.root / "models" / "1")
    scorer = scoring.load(folder)
    scorer.verify()
    assert scorer.loaded == ("treelite",)
    small, large = columns_of(scorer, 20), columns_of(scorer, 300)
    before = scorer.score(small)
    assert scorer.loaded == ("treelite",)
    first = scorer.score(large)
    assert scorer.load_for(300) == "native"
    assert "native" in scorer.loaded
    later = scorer.score(large)
    np.testing.assert_allclose(np.asarray(first.probability), np.asarray(later.probability), atol=1e-12)
    assert first.prediction.tolist() == later.prediction.tolist()
    np.testing.assert_array_equal(np.asarray(before.probability), np.asarray(scorer.score(small).probability))
    assert scorer.load_for(20) == "treelite"
    scorer.close()
    assert scorer.loaded == ("treelite",)


def test_a_runtime_that_cannot_be_loaded_does_not_answer(
    project: Project, make: Make, cancer: pd.DataFrame
) -> None:
    """Where the runtime for large batches is damaged, the one at hand goes on answering, and the scorer says why."""
    folder = prepared(project, make, cancer)
    with_bands(folder, Band("treelite", 20), Band("native"), native=project.root / "models" / "1")
    (folder / "native" / "model.pkl").write_bytes(b"torn")
    scorer = scoring.load(folder)
    assert scorer.load_for(300) == "treelite"
    assert "not what was prepared" in scorer.problems["native"]
    assert scorer.score(columns_of(scorer, 300)).prediction.shape == (300,)
    assert scorer.loaded == ("treelite",)


def test_a_worker_without_large_batches_loads_nothing_heavy(
    project: Project, make: Make, cancer: pd.DataFrame
) -> None:
    """Small batches in treelite import neither the model's libraries nor SciPy; a large one brings them in."""
    folder = prepared(project, make, cancer)
    with_bands(folder, Band("treelite", 20), Band("native"), native=project.root / "models" / "1")
    code = (
        "import sys\n"
        "import numpy as np\n"
        "from loopwright import scoring\n"
        "from loopwright.registry.blocks import blocks_of\n"
        f"scorer = scoring.load({str(folder)!r})\n"
        "scorer.verify()\n"
        "heavy = {'mlflow', 'pandas', 'sklearn', 'scipy', 'treelite', 'onnxruntime', 'prefect', 'duckdb'}\n"
        "def rows(n):\n"
        "    columns = {name: np.ones(n) for name in scorer.signature.names}\n"
        "    return blocks_of(columns, scorer.signature.inputs, n)\n"
        "scorer.score(rows(20))\n"
        "print(scorer.runtime, sorted(heavy & set(sys.modules)))\n"
        "scorer.score(rows(21))\n"
        "scorer.load_for(21)\n"
        "print(scorer.problems, sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    first, second = done.stdout.splitlines()
    assert first == "treelite []", done.stderr
    assert second.startswith("{}"), done.stdout
    assert "'sklearn'" in second


def test_blocks_of_another_signature_are_completed_or_refused(
    project: Project, make: Make, cancer: pd.DataFrame
) -> None:
    """Blocks that lack a column that may be missing are scored as if it were; a required one is named."""
    frame = cancer.copy()
    first, second = frame.columns[:2]
    frame[first] = frame[first].where(frame.index % 3 > 0)
    scorer = scoring.load(prepared(project, make, frame))
    whole = columns_of(scorer, 5)
    rest = scorer.signature.inputs[1:]
    without = blocks_of({name: whole[name] for name in scorer.signature.names[1:]}, rest, 5)
    gaps = blocks_of({**whole, first: np.full(5, np.nan)}, scorer.signature.inputs, 5)
    np.testing.assert_array_equal(
        np.asarray(scorer.score(without).probability), np.asarray(scorer.score(gaps).probability)
    )
    lacking = blocks_of({name: whole[name] for name in scorer.signature.names[2:]}, rest[1:], 5)
    with pytest.raises(SchemaMismatch, match="is missing") as caught:
        scorer.score(lacking)
    assert caught.value.attrs["field"] == second
    assert scorer.score(whole.take(slice(0, 0))).prediction.shape == (0,)


def test_a_model_that_only_runs_natively_is_timed_too(
    project: Project, make: Make, cancer: pd.DataFrame
) -> None:
    """What cannot be compiled has its times in the manifest, and no bands."""
    model = make_pipeline(FunctionTransformer(np.log1p), Ridge())
    manifest = scoring.read_manifest(prepared(project, make, cancer.drop(columns="grade"), model))
    assert (manifest.runtime, manifest.bands, manifest.runtimes) == ("native", (), ("native",))
    assert {timing.runtime for timing in manifest.timings} == {"native"}
