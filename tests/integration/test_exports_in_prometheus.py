"""The exported rules and queries in Prometheus' own tools: they parse, and the rules fire when they should."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from exported_project import exported_project

from loopwright.monitor import exports

pytestmark = pytest.mark.integration


@pytest.fixture
def promtool() -> str:
    """Return the path of Prometheus' checker."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed (Debian and Ubuntu: apt install prometheus)")
    return found


def run(*words: str) -> str:
    """Run a command that must succeed and return what it says."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_takes_the_rules(tmp_path: Path, promtool: str) -> None:
    """All of them, without a duplicate."""
    file = tmp_path / "rules.yml"
    file.write_text(exports.rules(exported_project(tmp_path)))
    assert "SUCCESS" in run(promtool, "check", "rules", str(file))


def test_prometheus_takes_each_query_of_the_dashboard(tmp_path: Path, promtool: str) -> None:
    """With Grafana's own variables filled in."""
    made = json.loads(exports.dashboard(exported_project(tmp_path)))
    queries = [target["expr"] for panel in made["panels"] for target in panel.get("targets", [])]
    assert len(queries) > 15
    rules = [
        {
            "record": f"panel:{number}",
            "expr": re.sub(r"\$__rate_interval", "5m", query).replace("$deployment", ".*"),
        }
        for number, query in enumerate(queries)
    ]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"SUCCESS: {len(queries)} rules found" in run(promtool, "check", "rules", str(file))


def _firing(name: str, at: str, fires: bool, **labels: str) -> dict[str, Any]:
    expected = [{"exp_labels": labels}] if fires else []
    return {"alertname": name, "eval_time": at, "exp_alerts": expected}


def test_rules_fire_when_something_is_wrong_and_are_quiet_when_it_is_not(
    tmp_path: Path, promtool: str
) -> None:
    """Numbers of four hours: answers fail, a KPI leaves its target, accuracy falls, an alert opens, a monitor stops."""
    file = tmp_path / "rules.yml"
    text = exports.rules(exported_project(tmp_path))
    parsed = yaml.safe_load(text)
    for group in parsed["groups"]:
        for rule in group["rules"]:
            del rule["annotations"]  # a test would have to repeat them word for word
    file.write_text(yaml.safe_dump(parsed))
    api = 'deployment="digits-api"'
    limits = f'{{{api},version="3",metric="accuracy",segment=""}}'
    series = {
        f'loopwright_requests_total{{{api},worker="serving-1",protocol="v2",status="200"}}': "0+100x240",
        f'loopwright_requests_total{{{api},worker="serving-1",protocol="v2",status="503"}}': "0x120 10+10x119",
        f"loopwright_monitor_metric{limits}": "0.9x120 0.7x120",
        f"loopwright_monitor_metric_limit{limits}": "0.85x240",
        f'loopwright_monitor_kpi{{{api},kpi="stock {{{{outs}}}}"}}': "0.05x60 0.2x60 0.05x60 0.01x60",
        f'loopwright_monitor_alerts{{{api},check="performance",severity="critical",state="open"}}': "_x150 1x90",
        f'loopwright_monitor_alerts{{{api},check="drift",severity="info",state="open"}}': "1x240",
        f'loopwright_monitor_window_age_seconds{{{api},phase="inputs"}}': "600x200 2000x40",
        'loopwright_worker_up{worker="serving-1"}': "1x220 0x20",
    }
    fails = {"severity": "critical", "deployment": "digits-api"}
    metric = fails | {"version": "3", "metric": "accuracy"}
    kpi = fails | {"kpi": "stock { {outs}}"}
    opened = fails | {"check": "performance"}
    stuck = {"severity": "warning", "deployment": "digits-api", "phase": "inputs"}
    cases = [
        _firing("LoopwrightRequestsFail", "100m", False),
        _firing("LoopwrightRequestsFail", "140m", True, **fails),
        _firing("LoopwrightPerformance", "110m", False),
        _firing("LoopwrightPerformance", "125m", False),
        _firing("LoopwrightPerformance", "140m", True, **metric),
        _firing("LoopwrightKpi", "50m", False),
        _firing("LoopwrightKpi", "110m", True, **kpi),
        _firing("LoopwrightKpi", "170m", False),
        _firing("LoopwrightKpi", "230m", True, **kpi),
        _firing("LoopwrightAlertOpen", "140m", False),
        _firing("LoopwrightAlertOpen", "160m", True, **opened),
        _firing("LoopwrightMonitoringStuck", "190m", False),
        _firing("LoopwrightMonitoringStuck", "230m", True, **stuck),
        _firing("LoopwrightWorkerGone", "210m", False),
        _firing("LoopwrightWorkerGone", "235m", True, severity="critical", worker="serving-1"),
    ]
    given = [{"series": name, "values": values} for name, values in series.items()]
    test = {
        "rule_files": [str(file)],
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": given, "alert_rule_test": cases}],
    }
    checked = tmp_path / "test.yml"
    checked.write_text(yaml.safe_dump(test))
    assert "SUCCESS" in run(promtool, "test", "rules", str(checked))
