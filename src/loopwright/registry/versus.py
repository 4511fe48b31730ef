"""Two versions side by side: what their runs, signatures, datasets and environments differ in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from loopwright.config import Project
from loopwright.errors import LoopwrightError
from loopwright.records import ModelVersion
from loopwright.registry import rest

__all__ = ["Difference", "differences"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing in which two versions differ, or a metric they share; None where one of them has it not."""

    kind: str
    name: str
    before: str | float | None
    after: str | float | None


def differences(project: Project, before: ModelVersion, after: ModelVersion) -> list[Difference]:
    """Return the metrics of both, and what else differs: parameters, inputs, dataset, packages."""
    runs = [_run(project, version) for version in (before, after)]
    found = [
        Difference("metric", name, runs[0][0].get(name), runs[1][0].get(name))
        for name in sorted({*runs[0][0], *runs[1][0]})
    ]
    for kind, one, other in (
        ("parameter", runs[0][1], runs[1][1]),
        ("signature", _signature(before), _signature(after)),
        ("dataset", _dataset(before), _dataset(after)),
        ("package", _packages(before), _packages(after)),
    ):
        found += [
            Difference(kind, name, one.get(name), other.get(name))
            for name in sorted({*one, *other})
            if one.get(name) != other.get(name)
        ]
    return found


def _run(project: Project, version: ModelVersion) -> tuple[dict[str, float], dict[str, str]]:
    if not version.run_id:
        return {}, {}
    try:
        data = rest.get_run(project, version.run_id).get("data", {})
    except LoopwrightError:
        return {}, {}
    metrics = {item["key"]: float(item["value"]) for item in data.get("metrics", [])}
    return metrics, {item["key"]: item["value"] for item in data.get("params", [])}


def _signature(version: ModelVersion) -> dict[str, str]:
    if version.signature is None:
        return {}
    facts = {
        column.name: column.type + ("" if column.required else ", may be missing")
        for column in version.signature.inputs
    }
    return facts | {
        "(task)": str(version.signature.task),
        "(target)": version.signature.target,
        "(classes)": ", ".join(map(str, version.signature.classes)),
    }


def _dataset(version: ModelVersion) -> dict[str, str]:
    if version.training is None:
        return {}
    ref = version.training
    return {"name": ref.name, "fingerprint": ref.digest[:16], "rows": str(ref.rows), "source": ref.source}


def _packages(version: ModelVersion) -> dict[str, str]:
    """Return the packages a model says it needs, and its Python."""
    pairs = [line.partition("==") for line in _lines(version, "requirements.txt") if line.strip()]
    found = {name.strip(): number.strip() or "any" for name, _, number in pairs}
    for line in _lines(version, "python_env.yaml"):
        if line.startswith("python:"):
            found["python"] = line.removeprefix("python:").strip()
    return found


def _lines(version: ModelVersion, name: str) -> list[str]:
    try:
        return Path(version.uri, name).read_text().splitlines()
    except OSError:
        return []
