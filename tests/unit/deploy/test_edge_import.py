"""What a device answered, from its outbox into the prediction log: nothing lost, nothing doubled, nothing wrong let in."""

import json
import shutil
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from four_modes import new_project, serve, wine, wine_version

from loopwright.cli import main
from loopwright.config import Project
from loopwright.deploy import edge
from loopwright.deploy.edge.outbox import Outbox
from loopwright.deploy.edge.predict import Predictor
from loopwright.errors import Damaged, InvalidInput, NotFound
from loopwright.ledger import Ledger
from loopwright.predictions import PredictionStore

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
NAME = "wine-edge"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a project, its version 1 and the unpacked bundle of it, to be copied."""
    root = tmp_path_factory.mktemp("edge")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("LOOPWRIGHT_LEDGER", raising=False)
        project = new_project(root)
        wine_version(project)
        serve(project, NAME, 1)
        with tarfile.open(edge.bundle(project, NAME, 1)) as packed:
            packed.extractall(root / "device", filter="data")
    return root


@pytest.fixture
def project(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return a copy of the project, with the device's folder in it."""
    monkeypatch.delenv("LOOPWRIGHT_LEDGER", raising=False)
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    return Project(tmp_path)


def measured(n: int) -> list[dict[str, Any]]:
    """Return n rows of the wine table."""
    rows = wine().drop(columns="grower").head(n).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def answered(project: Project, n: int, *, device: str = "pump-7") -> Path:
    """Let a device answer n rows, and return the file it hands over."""
    outbox = Outbox(project.root / "answers.db", device=device)
    Predictor(project.root / "device", outbox).predict(measured(n))
    path = project.root / "answers.jsonl"
    outbox.export(path)
    outbox.close()
    return path


def changed(path: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Change the first line of a file."""
    first, *others = path.read_text().splitlines()
    line = json.loads(first)
    instead = change(line)
    path.write_text("\n".join([instead if isinstance(instead, str) else json.dumps(line), *others]) + "\n")
    return path


def test_answers_of_a_device_are_in_the_log_as_it_gave_them(project: Project) -> None:
    """Inputs, answers, probabilities, moments and the device are those of the device."""
    before = datetime.now(UTC)
    path = answered(project, 40)
    found = edge.import_answers(project, path)
    assert (found.imported, found.known, found.refused) == (40, 0, 0)
    table = PredictionStore(project).table(deployment=NAME)
    rows = {row["entity"] for row in table.to_pylist()}
    assert rows == {"pump-7"}
    given = Predictor(project.root / "device").predict(measured(40))
    by_input = {row["input_alcohol"] * 1e6 + row["input_malic_acid"]: row for row in table.to_pylist()}
    for row, answer in zip(measured(40), given, strict=True):
        logged = by_input[row["alcohol"] * 1e6 + row["malic_acid"]]
        assert logged["prediction"] == answer["prediction"]
        assert logged["probability"] == list(answer["probability"].values())
        assert (logged["version"], logged["variant"]) == (1, "champion")
        assert logged["latency_ms"] > 0
        assert before - timedelta(seconds=1) < logged["at"] < datetime.now(UTC)
    event = Ledger.open(project).last("edge.imported", NAME)
    assert event is not None
    assert event.payload["rows"] == 40


def test_importing_again_adds_nothing_and_more_adds_what_is_new(project: Project) -> None:
    """Also a copy of the outbox itself, another device with the same numbers, and lines twice in one file."""
    path = answered(project, 10)
    assert edge.import_answers(project, path).imported == 10
    again = edge.import_answers(project, path)
    assert (again.imported, again.known) == (0, 10)
    path = answered(project, 5)
    path.write_text(path.read_text() * 2)
    more = edge.import_answers(project, path)
    assert (more.imported, more.known) == (5, 25)
    stored = edge.import_answers(project, project.root / "answers.db")
    assert (stored.imported, stored.known) == (0, 15)
    (project.root / "answers.db").unlink()
    other = edge.import_answers(project, answered(project, 3, device="pump-8"))
    assert (other.imported, other.known) == (3, 0)
    assert PredictionStore(project).count(deployment=NAME) == 18


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda line: line.update(at="2026-11-01T10:00:00"), "has no time zone"),
        (lambda line: line.update(at="yesterday"), "is no moment"),
        (lambda line: line.update(at=(datetime.now(UTC) + timedelta(days=2)).isoformat()), "in the future"),
        (lambda line: line.update(version=7), "no version 7"),
        (lambda line: line.update(digest="f" * 64), "which is not this project's wine/1"),
        (lambda line: line.update(model="beer"), "which is not this project's wine/1"),
        (lambda line: line.update(deployment="nowhere"), "'nowhere'"),
        (lambda line: line.update(deployment="wine-batch"), "is in mode batch"),
        (lambda line: line["inputs"].update(alcohol=None), "'alcohol' is missing"),
        (lambda line: line["inputs"].update(alcohol="strong"), "'strong', which is no double"),
        (lambda line: line["inputs"].pop("hue"), "'hue' is missing"),
        (lambda line: line.update(prediction="dora"), "'dora' is no class"),
        (lambda line: line.update(probability={"anna": 1.0}), "not those of the version's classes"),
        (lambda line: line.pop("seq"), "no answer of a device"),
        (lambda line: json.dumps(line)[:-20], "no answer of a device"),
        (lambda line: "[" * 100_000, "no answer of a device"),
        (lambda line: "\x00\ufffd", "no answer of a device"),
    ],
)
def test_a_wrong_line_is_named_and_the_others_are_taken(
    project: Project, change: Callable[[dict[str, Any]], Any], why: str
) -> None:
    """Nothing that does not fit its version or its time gets into the log."""
    found = edge.import_answers(project, changed(answered(project, 6), change))
    assert (found.imported, found.refused) == (5, 1)
    assert found.reasons[0][0] == 1
    assert why in found.reasons[0][1]
    assert PredictionStore(project).count(deployment=NAME) == 5


def test_missing_and_infinite_numbers_come_over(project: Project, tmp_path: Path) -> None:
    """A device's JSON has words for them, and an import understands these."""
    path = answered(project, 2)
    changed(path, lambda line: line["inputs"].update(alcohol=float("inf"), hue=np.pi))
    assert edge.import_answers(project, path).imported == 2
    table = PredictionStore(project).table(deployment=NAME, columns=["input_alcohol"])
    assert float("inf") in table.column(0).to_pylist()


def test_what_is_no_file_of_a_device_is_said(project: Project) -> None:
    """A missing file, a database that is no outbox, a deployment that is no edge deployment."""
    with pytest.raises(NotFound, match="There is no file"):
        edge.import_answers(project, project.root / "nothing.jsonl")
    other = project.root / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("create table t (x)")
    connection.close()
    with pytest.raises(Damaged, match="no outbox"):
        edge.import_answers(project, other)
    path = answered(project, 1)
    with pytest.raises(InvalidInput, match="in mode batch"):
        edge.import_answers(project, path, deployment="wine-batch")
    with pytest.raises(NotFound, match="nowhere"):
        edge.import_answers(project, path, deployment="nowhere")


def test_fields_that_are_not_logged_are_left_out(project: Project) -> None:
    """`[deployment.*.log]` holds for devices as well."""
    toml = project.root / "loopwright.toml"
    toml.write_text(toml.read_text() + '[deployment.wine-edge.log]\nsample = 0.5\ndrop = ["hue"]\n')
    found = edge.import_answers(Project(project.root), answered(project, 100))
    assert found.imported + found.left_out == 100
    assert 20 < found.left_out < 80
    table = PredictionStore(Project(project.root)).table(deployment=NAME, columns=["input_hue"])
    assert set(table.column(0).to_pylist()) == {None}


def test_an_outbox_is_bounded_and_drops_what_has_arrived(tmp_path: Path) -> None:
    """The oldest go first and are counted; what was handed over is dropped and nothing that came since."""
    outbox = Outbox(tmp_path / "answers.db", device="d", most=5)
    bundle = {"model": "m", "version": 1, "digest": "x", "deployment": "e"}
    for number in range(8):
        outbox.add(bundle, [{"x": np.float32(number), "n": np.int64(3)}], [{"prediction": number}])
    assert (len(outbox), outbox.dropped) == (5, 3)
    assert outbox.export(tmp_path / "out.jsonl") == 5
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["prediction"] for line in lines] == [3, 4, 5, 6, 7]
    assert lines[0]["inputs"] == {"x": 3.0, "n": 3}
    outbox.add(bundle, [{"x": 9.0}], [{"prediction": 9}])
    outbox.close()
    again = Outbox(tmp_path / "answers.db", most=5)
    assert again.drop(tmp_path / "out.jsonl") == 4
    assert len(again) == 1
    with pytest.raises(ValueError, match="argument 2"):
        again.add(bundle, [{"x": 1.0}, {"x": 2.0}], [{"prediction": 1}])
    assert len(again) == 1
    again.close()


def test_the_bundled_files_do_it_on_the_command_line(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    """A device needs nothing but the bundle; `loopwright edge import` says what came over, and ends with 1 for a wrong line."""
    device = project.root / "device"
    rows = project.root / "rows.json"
    rows.write_text(json.dumps(measured(4)))

    def on_device(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-I", *words], cwd=project.root, capture_output=True, text=True, check=False
        )

    assert on_device(str(device / "predict.py"), "rows.json", "a.db").returncode == 0
    done = on_device(str(device / "outbox.py"), "export", "a.db", "a.jsonl")
    assert (done.returncode, done.stdout.strip()) == (0, "4 answers written to a.jsonl")
    path = changed(project.root / "a.jsonl", lambda line: line.update(at="never"))
    with pytest.raises(SystemExit) as ended:
        main(["edge", "import", str(path), "--project", str(project.root)])
    assert ended.value.code == 1
    said = capsys.readouterr().out
    assert "3 answers taken in, 0 were known, 1 refused" in said
    assert "line 1: at = 'never' is no moment." in said
    assert (
        on_device(str(device / "outbox.py"), "drop", "a.db", "a.jsonl").stdout.strip() == "4 answers dropped"
    )
    assert on_device(str(device / "outbox.py"), "drop", "nothing.db", "a.jsonl").returncode == 1
    assert on_device(str(device / "outbox.py"), "send").returncode == 2


_WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from outbox import Outbox
outbox = Outbox(sys.argv[2], device="d")
number = 0
while True:
    rows = [{"x": float(number + place)} for place in range(3)]
    answers = [{"prediction": number + place} for place in range(3)]
    outbox.add({"model": "m", "version": 1, "digest": "x", "deployment": "e"}, rows, answers)
    number += 3
    print(number, flush=True)
"""


def test_a_device_that_is_killed_loses_no_answer_it_gave(tmp_path: Path) -> None:
    """Kill -9 five times: what was acknowledged is there, in whole groups."""
    here = str(Path(edge.__file__).parent)
    acknowledged = total = 0
    for _ in range(5):
        writer = subprocess.Popen(
            [sys.executable, "-I", "-c", _WRITER, here, str(tmp_path / "a.db")],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert writer.stdout is not None
        for _ in range(20):
            said = int(writer.stdout.readline())
        writer.kill()
        rest = writer.stdout.read().split()
        writer.wait()
        writer.stdout.close()
        acknowledged += max([said, *map(int, rest[:-1])])
        outbox = Outbox(tmp_path / "a.db")
        total = len(outbox)
        outbox.close()
        assert total % 3 == 0
        assert acknowledged <= total <= acknowledged + 2 * 3 * 5
    assert total >= 5 * 60
