"""The exported dashboard and rules: they can be read, and they name only what is exported."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from exported_project import exported_project
from prometheus_client.parser import text_string_to_metric_families
from told_people import START

from loopwright.deploy.online.levels import Objective, ServiceLevel
from loopwright.deploy.online.meters import Meters
from loopwright.deploy.online.metrics import exposition
from loopwright.ledger import Ledger
from loopwright.monitor import exports

#: What the console exports, with the labels of each.
MONITORED = {
    "loopwright_monitor_predictions_total": {"deployment", "version"},
    "loopwright_monitor_psi": {"deployment", "version", "feature"},
    "loopwright_monitor_missing_share": {"deployment", "version", "feature"},
    "loopwright_monitor_metric": {"deployment", "version", "metric", "segment"},
    "loopwright_monitor_metric_limit": {"deployment", "version", "metric", "segment"},
    "loopwright_monitor_kpi": {"deployment", "kpi"},
    "loopwright_monitor_kpi_target": {"deployment", "kpi"},
    "loopwright_monitor_label_maturity": {"deployment"},
    "loopwright_monitor_alerts": {"deployment", "check", "severity", "state"},
    "loopwright_monitor_window_age_seconds": {"deployment", "phase"},
}
_NAME = re.compile(r"loopwright_[a-z_]+")
_LABELS = re.compile(r"(loopwright_[a-z_]+)\{([^}]*)\}")
_BY = re.compile(r"by \(([a-z_, ]+)\)")


def served() -> dict[str, set[str]]:
    """Return what an online worker that has answered exports, with the labels of each."""
    mine = Meters("serving-1")
    meter = mine.of("digits-api")
    meter.request("predict", 200, 5)
    meter.refuse("queue_full")
    champion = meter.variant("champion", 3, "onnx")
    champion.rows += 9
    champion.latency.add(0.002)
    meter.serves([champion])
    quick = Objective("latency", 0.99, 100, 2, 0.98, -1.0, 2.0, 3.0, "")
    kept = Objective("availability", 0.999, 100, 0, 1.0, 1.0, 0.0, 0.0, "")
    level = ServiceLevel("digits-api", 86400.0, 0.1, START, 100, quick, kept)
    text = exposition(mine.snapshot(), [], [level]).decode()
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def expressions(project: Any) -> Iterator[str]:
    """Return all PromQL of both exports."""
    for group in yaml.safe_load(exports.rules(project))["groups"]:
        yield from (rule["expr"] for rule in group["rules"])
    made = json.loads(exports.dashboard(project))
    for panel in made["panels"]:
        yield from (target["expr"] for target in panel.get("targets", []))
    yield from (one["definition"] for one in made["templating"]["list"] if "definition" in one)


def test_every_metric_and_label_that_is_named_is_exported(tmp_path: Path) -> None:
    """By the online workers, or by the console."""
    known = served() | MONITORED
    named = set()
    for expr in expressions(exported_project(tmp_path)):
        here = _NAME.findall(expr)
        named.update(here)
        for name, labels in _LABELS.findall(re.sub(r'"(?:[^"\\]|\\.)*"', '""', expr)):
            used = {label.strip() for label in re.split(r'(?:=|!=|=~)""', labels)} - {""}
            assert {label.strip(",") for label in used} <= known[name], expr
        for by in _BY.findall(expr):
            assert all(set(by.split(", ")) <= known[name] | {"le"} for name in here), expr
    assert named <= set(known)
    assert named >= set(MONITORED)


def test_the_console_exports_what_is_agreed(tmp_path: Path) -> None:
    """All names, with nothing in the ledger yet."""
    live = pytest.importorskip("loopwright.monitor.live.prometheus", reason="the live numbers are not there")
    text = live.render(exported_project(tmp_path), Ledger(f"sqlite:///{tmp_path / 'ledger.db'}"), START)
    exported = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    assert set(MONITORED) <= exported


def test_the_dashboard_is_json_whose_panels_neither_overlap_nor_leave_the_grid(tmp_path: Path) -> None:
    """Made twice it is the same, so that it can be kept under version control."""
    project = exported_project(tmp_path)
    text = exports.dashboard(project)
    assert text == exports.dashboard(project)
    made = json.loads(text)
    cells: set[tuple[int, int]] = set()
    for panel in made["panels"]:
        place = panel["gridPos"]
        mine = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in mine) < 24
        assert not mine & cells, panel["title"]
        cells |= mine
    ids = [panel["id"] for panel in made["panels"]]
    assert len(ids) == len(set(ids))
    assert {panel["type"] for panel in made["panels"]} == {
        "row", "stat", "table", "timeseries", "status-history",
    }  # fmt: skip


def test_only_what_is_declared_is_there(tmp_path: Path) -> None:
    """Without monitors no rules of monitors, without promises no panels of promises."""

    def titles(**changes: Any) -> list[str]:
        made = json.loads(exports.dashboard(exported_project(tmp_path, **changes)))
        return [panel["title"] for panel in made["panels"] if panel["type"] == "row"]

    assert titles() == ["Health", "Answers", "Promises", "Inputs", "Performance"]
    assert titles(monitor={}) == ["Answers", "Promises"]
    assert titles(deployment={}) == ["Health", "Inputs", "Performance"]
    bare = yaml.safe_load(exports.rules(exported_project(tmp_path, monitor={}, deployment={})))
    assert bare == {"groups": []}


def test_rules_have_the_limits_of_the_configuration(tmp_path: Path) -> None:
    """Of each deployment its own."""
    groups = yaml.safe_load(exports.rules(exported_project(tmp_path)))["groups"]
    rules = {
        (rule["alert"], rule["labels"].get("deployment"), rule["labels"].get("phase")): rule
        for group in groups
        for rule in group["rules"]
    }
    assert len(rules) == sum(len(group["rules"]) for group in groups)
    assert rules["LoopwrightRequestsFail", "digits-api", None]["expr"].endswith("> 0.01")
    assert rules["LoopwrightRequestsFail", 'rides "v2"', None]["expr"].endswith("> 0.05")
    assert rules["LoopwrightSlow", "digits-api", None]["expr"].endswith("> 0.25")
    kpi = rules["LoopwrightKpi", "digits-api", None]
    assert kpi["expr"].count("stock {{outs}}") == 2
    assert "{{outs}}" not in kpi["annotations"]["summary"] + kpi["labels"]["kpi"]
    assert "at most 0.1 EUR and at least 0.02 EUR" in kpi["annotations"]["summary"]
    assert kpi["for"] == "10m"
    assert rules["LoopwrightMonitoringStuck", "digits-api", "inputs"]["expr"].endswith("> 1800")
    assert rules["LoopwrightMonitoringStuck", "digits-api", "labels"]["expr"].endswith("> 7200")
    assert "LoopwrightSlow" not in {name for name, where, _ in rules if where == 'rides "v2"'}
    assert not [
        expr for expr in expressions(exported_project(tmp_path)) if expr.count("(") != expr.count(")")
    ]
