"""Compiling a model in every form that may carry it, and proving each on the replay rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loopwright.errors import Damaged, Unavailable
from loopwright.scoring import convert, trees
from loopwright.scoring.base import MODEL, TREES, Manifest, Proof, Runtime, Scores
from loopwright.scoring.native import NativeRuntime, PyfuncModel
from loopwright.scoring.onnx import OnnxRuntime
from loopwright.scoring.replay import WANTED, Agreement, replay
from loopwright.scoring.treelite import TreeliteRuntime

__all__ = ["Plan", "compiled"]


@dataclass(frozen=True)
class Plan:
    """What a compiled runtime is held against.

    The manifest of the native runtime, that runtime, the replay rows by column with its answers, and the edge rows.
    """

    manifest: Manifest
    runtime: NativeRuntime
    rows: Mapping[str, NDArray[Any]]
    answers: Scores
    edges: Mapping[str, NDArray[Any]]


def compiled(made: Path, plan: Plan, model: Any) -> Manifest:
    """Compile a model into the folder `made` and return the manifest with the proofs.

    Its `runtime` is the first that was proven, else the native one with the reasons why.
    """
    if isinstance(model, PyfuncModel) and model.network is None:
        why = "a pyfunc model can only be called as it is: nothing says what it computes"
        return replace(plan.manifest, reason=why, proofs=(Proof("native", True, why),))
    manifest, graph = _graph(made, plan, model)
    manifest, forest = _forest(made, manifest, plan, model)
    proofs = (graph, *([forest] if forest else []))
    proven = [proof for proof in proofs if proof.proven]
    if proven:
        best = proven[0]
        return replace(
            manifest,
            runtime=best.runtime,
            reason=best.reason,
            proofs=(*proofs, Proof("native", True, "the model itself")),
            max_difference=best.max_difference,
            label_flips=best.label_flips,
        )
    reason = "; ".join(proof.reason for proof in proofs)
    closest = next((proof for proof in proofs if proof.label_flips is not None), None)
    return replace(
        manifest,
        reason=reason,
        proofs=(*proofs, Proof("native", True, reason)),
        max_difference=closest.max_difference if closest else None,
        label_flips=closest.label_flips if closest else None,
    )


def _graph(made: Path, plan: Plan, model: Any) -> tuple[Manifest, Proof]:
    """Write the first ONNX graph that is proven."""
    manifest, signature = plan.manifest, plan.manifest.signature
    if why := convert.refusal(model, signature):
        return manifest, Proof("onnx", False, why)
    reasons: list[str] = []
    closest: Agreement | None = None
    for graph in convert.candidates(model, signature, manifest.layout):
        if isinstance(graph, str):
            reasons.append(graph)
            continue
        (made / MODEL).write_bytes(graph.data)
        candidate = replace(
            manifest,
            runtime="onnx",
            inputs=graph.inputs,
            precision=graph.precision,
            missing_text=graph.missing_text,
            unused=graph.unused,
        )
        agreement = _try(OnnxRuntime, made, candidate, plan)
        if isinstance(agreement, str):
            reasons.append(f"{graph.precision}: {agreement}")
        elif agreement.problem:
            reasons.append(f"{graph.precision}: {agreement.problem}")
            closest = closest or agreement
        else:
            return candidate, _proven("onnx", agreement)
    (made / MODEL).unlink(missing_ok=True)
    # The same words twice say no more: an estimator without a converter has none in any precision.
    words = "; ".join(_distinct(reasons))
    return manifest, _refuted("onnx", words if closest else f"it does not convert to ONNX ({words})", closest)


def _forest(made: Path, manifest: Manifest, plan: Plan, model: Any) -> tuple[Manifest, Proof | None]:
    """Write the trees as a checkpoint of treelite, where the model is made of trees and they are proven."""
    if not convert.is_trees(model) or trees.alone(model) is None:
        return manifest, None
    found = trees.checkpoint(model, manifest.signature, manifest.layout)
    if isinstance(found, str):
        return manifest, Proof("treelite", False, found)
    if manifest.probability and not manifest.labels_from_probability:
        return manifest, Proof("treelite", False, "treelite: labels are not the most probable class")
    (made / TREES).write_bytes(found.data)
    candidate = replace(manifest, trees=found.inputs)
    agreement = _try(TreeliteRuntime, made, candidate, plan)
    if isinstance(agreement, str) or agreement.problem:
        (made / TREES).unlink()
        problem = agreement if isinstance(agreement, str) else agreement.problem
        closest = None if isinstance(agreement, str) else agreement
        return manifest, _refuted("treelite", f"treelite: {problem}", closest)
    return candidate, _proven("treelite", agreement)


def _proven(runtime: str, agreement: Agreement) -> Proof:
    few = f" (fewer than {WANTED:,}: the training table has no more)" if agreement.rows < WANTED else ""
    reason = f"agrees with the model on {agreement.rows} rows{few}"
    return Proof(runtime, True, reason, agreement.max_difference, 0)


def _refuted(runtime: str, reason: str, closest: Agreement | None) -> Proof:
    difference = closest.max_difference if closest and np.isfinite(closest.max_difference) else None
    return Proof(runtime, False, reason, difference, closest.label_flips if closest else None)


def _distinct(reasons: list[str]) -> list[str]:
    """Drop reasons that say in another precision what was said already."""
    seen: dict[str, str] = {}
    for reason in reasons:
        seen.setdefault(reason.partition(": ")[2] or reason, reason)
    return list(seen.values())


def _try(
    kind: type[OnnxRuntime | TreeliteRuntime], made: Path, candidate: Manifest, plan: Plan
) -> Agreement | str:
    try:
        runtime: Runtime = kind(made, candidate)
    except (Damaged, Unavailable) as error:
        text = " ".join(str(error.__cause__ or error).split())
        # ONNX Runtime says first where the file lies, which is a folder that is gone by then.
        return f"it does not load: {text.rpartition(' failed:')[2][:160]}"
    try:
        return replay(
            plan.runtime,
            runtime,
            plan.rows,
            candidate.signature,
            edges=plan.edges,
            expected=plan.answers,
            tolerance=candidate.tolerance,
        )
    finally:
        runtime.close()
