"""Live numbers for Prometheus and on the command line, over a ledger with windows, signals and alerts."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from prediction_rows import FLOWERS, rows
from profiled_version import add_profiled, profile_for
from prometheus_client.parser import text_string_to_metric_families

from loopwright.cli import main
from loopwright.config import Project
from loopwright.ledger import Ledger
from loopwright.monitor.live import Follower, rebuild, render, standing
from loopwright.monitor.results import Results
from loopwright.predictions import PredictionLog
from loopwright.records import Alert, Deployment, Judged, Mode, Signal, Variant, Window

NAME = 'quiet "one"\\'
NOW = datetime.now(UTC).replace(second=0, microsecond=0)
ORDER = (
    "deployment",
    "version",
    "feature",
    "metric",
    "segment",
    "kpi",
    "check",
    "severity",
    "state",
    "phase",
)
WINDOW = Window(NOW - timedelta(hours=1), NOW)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a project with one deployment that has predictions, judged windows and alerts."""
    root: Path = tmp_path_factory.mktemp("reading")
    quoted = json.dumps(NAME)
    (root / "loopwright.toml").write_text(
        f'[model.iris]\npipeline = "pipelines:train"\ntarget = "y"\n[deployment.{quoted}]\nmodel = "iris"\nmode = "online"\n'
        '[deployment.bare]\nmodel = "rose"\nmode = "online"\n[model.rose]\npipeline = "pipelines:train"\ntarget = "y"\n'
        '[monitor.iris]\nwindow = "1h"\n'
    )
    project = Project(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("LOOPWRIGHT_LEDGER", raising=False)
        fill(project, Ledger.open(project))
    return project


def fill(project: Project, ledger: Ledger) -> None:
    """Put everything there that is told."""
    add_profiled(project, ledger, "iris", 3, FLOWERS, profile_for(FLOWERS))
    for name, model in ((NAME, "iris"), ("bare", "rose")):
        deployment = Deployment(name, model, Mode.online, (Variant("champion", 3),))
        ledger.put("deployment", name, deployment)
    log = PredictionLog(project, NAME, "iris", FLOWERS)
    draw = np.random.default_rng(3)
    inputs = {
        "petal": np.where(draw.random(500) < 0.25, np.nan, draw.normal(2, 1, 500)),
        "sepal": draw.normal(0, 1, 500),
        "colour": draw.choice(np.array(["blue", "red", "white", "green", "grey"], object), 500),
    }
    log.append(rows(project, 500, at_us=time.time_ns() // 1000, version=3, inputs=inputs))
    Follower(project, ledger).turn(datetime.now(UTC))
    log.close()
    facts: dict[str, Any] = {"model": "iris", "deployment": NAME, "window": WINDOW, "version": 3, "rows": 400}
    results = Results(ledger)
    results.record(
        Judged(NAME, "iris", "inputs", 3, WINDOW, "judged", 400, 0, None, 1),
        [Signal(check="drift", subject="petal", value=0.7, limit=0.1, fired=True, **facts)],
    )
    results.record(
        Judged(NAME, "iris", "labels", 3, WINDOW, "judged", 400, 380, 0.95, 0),
        [
            Signal(check="performance", subject="accuracy", value=0.91, limit=0.8, fired=False, **facts),
            Signal(
                check="performance",
                subject="accuracy",
                value=0.88,
                limit=0.8,
                fired=False,
                segment="colour=red",
                **facts,
            ),
            Signal(check="kpi", subject="stockouts", value=0.03, limit=0.1, fired=False, **facts),
            Signal(check="kpi", subject="nothing", value=float("nan"), limit=0.1, fired=False, **facts),
        ],
    )
    states: tuple[Literal["open", "acknowledged", "resolved"], ...] = (
        "open",
        "open",
        "acknowledged",
        "resolved",
    )
    for number, state in enumerate(states):
        alert = Alert(f"a{number}", "drift", "iris", NAME, state, NOW, "moved", 0.7, 0.1, severity="info")
        ledger.put("alert", alert.id, alert)


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Return what Prometheus reads: name and label values, without the prefix."""
    found = {}
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            labels = [one.labels[name] for name in ORDER if name in one.labels]
            assert len(labels) == len(one.labels)
            found[one.name.removeprefix("loopwright_monitor_"), *labels] = one.value
    return found


def test_prometheus_reads_what_is_known(project: Project) -> None:
    """All agreed metrics are there, with labels as they are; what is not a number is left out."""
    found = samples(render(project, Ledger.open(project), datetime.now(UTC)))
    assert found["predictions_total", NAME, "3"] == 500
    assert found["psi", NAME, "3", "petal"] > 1.0
    assert found["psi", NAME, "3", "sepal"] < 0.2
    assert found["missing_share", NAME, "3", "petal"] == pytest.approx(0.25, abs=0.06)
    assert found["missing_share", NAME, "3", "sepal"] == 0.0
    assert found["metric", NAME, "3", "accuracy", ""] == 0.91
    assert found["metric", NAME, "3", "accuracy", "colour=red"] == 0.88
    assert found["metric_limit", NAME, "3", "accuracy", ""] == 0.8
    assert found["kpi", NAME, "stockouts"] == 0.03
    assert found["kpi_target", NAME, "stockouts"] == 0.1
    assert ("kpi", NAME, "nothing") not in found
    assert found["label_maturity", NAME] == 0.95
    assert found["alerts", NAME, "drift", "info", "open"] == 2
    assert found["alerts", NAME, "drift", "info", "acknowledged"] == 1
    assert not [key for key in found if "resolved" in key]
    age = (datetime.now(UTC) - NOW).total_seconds()  # the module may have been read long ago
    assert found["window_age_seconds", NAME, "labels"] == pytest.approx(age, abs=60)
    assert not [key for key in found if "bare" in key]


def test_series_are_bounded_where_a_model_has_many_inputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 250 inputs the hundred that moved most are told."""
    from loopwright.records import Column, Signature, Task

    monkeypatch.delenv("LOOPWRIGHT_LEDGER", raising=False)
    (tmp_path / "loopwright.toml").write_text(
        '[model.wide]\npipeline = "pipelines:train"\ntarget = "y"\n[deployment.wide]\nmodel = "wide"\nmode = "online"\n'
    )
    project = Project(tmp_path)
    ledger = Ledger.open(project)
    wide = Signature(
        tuple(Column(f"x{n}", "double") for n in range(250)), Task.classification, "y", (0, 1, 2)
    )
    add_profiled(project, ledger, "wide", 1, wide, profile_for(wide, rows=500))
    ledger.put("deployment", "wide", Deployment("wide", "wide", Mode.online, (Variant("champion", 1),)))
    log = PredictionLog(project, "wide", "wide", wide)
    draw = np.random.default_rng(0)
    inputs = {f"x{n}": draw.normal(3 if n == 249 else 0, 1, 300) for n in range(250)}
    log.append(rows(project, 300, inputs=inputs))
    Follower(project, ledger).turn(datetime.now(UTC))
    found = samples(render(project, ledger, datetime.now(UTC)))
    told = [key for key in found if key[0] == "psi"]
    assert len(told) == 100
    assert ("psi", "wide", "1", "x249") in told
    log.close()


@pytest.fixture
def run(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """Return what runs ``loopwright monitor`` and gives what it printed."""
    monkeypatch.delenv("LOOPWRIGHT_LEDGER", raising=False)

    def call(*words: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["monitor", *words, "--project", str(project.root)])
        out, err = capsys.readouterr()
        return f"{ended.value.code}: {err}" if ended.value.code else out

    return call


def test_status_is_one_row_for_each_deployment(project: Project, run: Callable[..., str]) -> None:
    """Traffic, the newest windows, what fired, alerts; and what is not watched at all."""
    said = run("status")
    line = next(line for line in said.splitlines() if line.startswith(NAME))
    for word in ("iris/3", "500", "400 rows", "95% of labels", "drift", "3 info"):
        assert word in line
    assert "bare: nothing is watched. Add [monitor.rose]" in said
    found = json.loads(run("status", NAME, "--json"))
    assert len(found) == 1
    assert found[0]["fired"] == ["drift"]
    assert found[0]["counted"] == 1.0
    assert run("status", "quite").startswith("1: There is no running deployment 'quite'")
    ledger = Ledger.open(project)
    assert [one.deployment for one in standing(project, ledger, datetime.now(UTC))] == ["bare", NAME]


def test_windows_and_what_was_found_in_them(run: Callable[..., str]) -> None:
    """All windows, only those that fired, and one check over time."""
    assert [one["phase"] for one in json.loads(run("windows", NAME, "--json"))] == ["inputs", "labels"]
    assert [one["phase"] for one in json.loads(run("windows", NAME, "--fired", "--json"))] == ["inputs"]
    found = json.loads(run("windows", NAME, "--check", "performance", "--json"))
    assert [one["segment"] for one in found] == ["", "colour=red"]
    assert "stockouts" in run("windows", NAME, "--check", "kpi")
    assert "No such window" in run("windows", NAME, "--until", "2020-01-01", "--since", "2019-01-01")


def test_features_are_sorted_by_how_far_they_moved(run: Callable[..., str]) -> None:
    """The farthest first, with bars; and one input in bars."""
    lines = run("features", NAME, "--since", "15m").splitlines()
    assert lines[1].startswith("petal")
    assert "█" in lines[1]
    detail = json.loads(run("features", NAME, "--name", "colour", "--json"))
    assert {bar["label"] for bar in detail["bars"]} == {
        "blue",
        "red",
        "white",
        "green",
        "grey",
        "others",
        "missing",
    }
    assert "training" in run("features", NAME, "--name", "petal")
    assert "no reference profile" in run("features", "bare", "--version", "9")


def test_rebuild_counts_without_a_controller(project: Project, run: Callable[..., str]) -> None:
    """The command counts itself where no controller runs."""
    assert "Counted 500 predictions" in run("rebuild", NAME)
    rebuild(project, Ledger.open(project), NAME)
    assert json.loads(run("rebuild", NAME, "--json"))["counted"] == {"3": 500}
    assert "'nowhere'" in run("rebuild", "nowhere")


def test_run_judges_past_windows(run: Callable[..., str]) -> None:
    """The windows of a span are judged again."""
    said = run("run", NAME, "--since", "3h")
    assert said.startswith("Judged ")
