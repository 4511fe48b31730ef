"""A bundle answers on a device: a process of its own, no network, and only onnxruntime and numpy."""

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from four_modes import new_project, wine, wine_version

from loopwright.deploy import edge
from loopwright.scoring import load

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
#: Runs beside the bundle's files: any use of the network ends it, and what it has loaded is printed.
DEVICE = """
import json, pathlib, sys

def hook(event, arguments):
    if event.startswith("socket."):
        raise RuntimeError(f"{event}{arguments}: the device is offline")

sys.addaudithook(hook)
sys.path.insert(0, sys.argv[1])
from predict import Predictor

rows = json.loads(pathlib.Path(sys.argv[2]).read_text())
answers = Predictor(sys.argv[1]).predict(rows)
roots = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps({"answers": answers, "loaded": roots}))
"""


def test_a_device_answers_offline_with_two_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The unpacked bundle gives the prepared scorer's answers and loads nothing of the project's own stack."""
    monkeypatch.delenv("LOOPWRIGHT_LEDGER", raising=False)
    project = new_project(tmp_path)
    wine_version(project)
    device = tmp_path / "device"
    with tarfile.open(edge.bundle(project, "wine-edge", 1)) as bundle:
        bundle.extractall(device, filter="data")
    table = wine().drop(columns="grower")
    (tmp_path / "rows.json").write_text(table.to_json(orient="records", double_precision=15))
    done = subprocess.run(
        [sys.executable, "-I", "-c", DEVICE, str(device), str(tmp_path / "rows.json")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert {"numpy", "onnxruntime"} <= set(report["loaded"])
    assert not {"loopwright", "mlflow", "pandas", "pyarrow", "sklearn", "scipy", "pydantic"} & set(
        report["loaded"]
    )
    expected = load(project.scorer("wine", 1)).score({str(name): table[name].to_numpy() for name in table})
    assert expected.probability is not None
    assert [answer["prediction"] for answer in report["answers"]] == expected.prediction.tolist()
    worst = max(
        abs(one - other)
        for answer, row in zip(report["answers"], expected.probability.tolist(), strict=True)
        for one, other in zip(answer["probability"].values(), row, strict=True)
    )
    assert worst < 1e-9
