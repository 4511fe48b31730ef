"""The stages of a release: each takes it one step further, in one ledger transaction, and can be repeated after a kill."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from datetime import datetime
from typing import Any

from loopwright import pipelines, registry
from loopwright.config import PROJECT_VARIABLE, Project, ReleaseConfig
from loopwright.deploy import base
from loopwright.errors import LoopwrightError
from loopwright.ledger import Ledger, State
from loopwright.predictions import PredictionStore
from loopwright.records import (
    DecisionRecord,
    Deployment,
    ModelVersion,
    Release,
    ReleaseState,
    Task,
    Variant,
    Verdict,
    now,
)
from loopwright.release.held import canary_rows
from loopwright.release.sequential import decide

__all__ = ["Stages"]

#: A training that crashed (not one that failed by its own code) is tried so many times.
TRIES = 2
#: Seconds between two looks at a canary, and between two questions after a flow run.
LOOK_S = 1.0


class Stages:
    """Advances the releases of a project. Holds only what can be lost: a child process and times."""

    def __init__(self, project: Project, ledger: Ledger, store: PredictionStore) -> None:
        self.project, self.ledger, self.store = project, ledger, store
        self._evaluations: dict[str, subprocess.Popen[bytes]] = {}
        self._looked: dict[str, tuple[int, int]] = {}
        self._asked: dict[str, datetime] = {}

    def advance(self, seen: State) -> None:
        """Take one release one step further, if it is time."""
        release = seen.read(Release)
        steps = {
            ReleaseState.training: self._training,
            ReleaseState.evaluating: self._evaluating,
            ReleaseState.canary: self._canary,
        }
        step = steps.get(release.state)
        if step is not None:
            try:
                step(seen, release)
            except LoopwrightError as error:
                if error.code in {"unavailable", "conflict"}:
                    return  # a server that is being restarted, or a change in between: the next turn sees it
                self._end(seen, release, ReleaseState.failed, str(error))
        elif self.ledger.last("decision", release.deployment) is None or not self._decided(release):
            self._decide(release)

    # Training.

    def _training(self, seen: State, release: Release) -> None:
        if not release.flow_run_id:
            entrypoint = self.project.model(release.model).pipeline
            if entrypoint is None:
                self._end(
                    seen,
                    release,
                    ReleaseState.failed,
                    f"[model.{release.model}] names no pipeline to train with",
                )
                return
            flow_run_id = pipelines.submit(
                self.project, entrypoint, {}, trigger=f"{release.trigger} ({release.id})"
            )
            self._put(
                seen, release, "release.training", flow_run_id=flow_run_id, attempts=release.attempts + 1
            )
            return
        if not self._due(release.id):
            return
        flow = pipelines.flow_run(self.project, release.flow_run_id)
        if flow.state == "completed":
            made = self._registered_by(release.model, flow.run_id)
            if made is None:
                reason = f"the run {flow.run_id or flow.id} registered no version of {release.model}"
                self._end(seen, release, ReleaseState.failed, reason)
                return
            self._put(
                seen,
                release,
                "release.evaluating",
                state=ReleaseState.evaluating,
                run_id=made.run_id,
                candidate=made.version,
            )
        elif flow.state == "crashed" and release.attempts < TRIES:
            self._put(seen, release, "release.retried", flow_run_id="", reason=flow.message)
        elif flow.state in {"failed", "crashed", "cancelled"}:
            self._end(seen, release, ReleaseState.failed, f"the training {flow.state}: {flow.message}")

    def _due(self, key: str) -> bool:
        last = self._asked.get(key)
        if last is not None and (now() - last).total_seconds() < LOOK_S:
            return False
        self._asked[key] = now()
        return True

    def _registered_by(self, model: str, run_id: str) -> ModelVersion | None:
        for event in reversed(self.ledger.events("model.registered", model, newest=True, limit=50)):
            version = event.read(ModelVersion)
            if run_id and version.run_id == run_id:
                return version
        return None

    # Gate.

    def _evaluating(self, seen: State, release: Release) -> None:
        if release.gate is None:
            self._evaluate(seen, release)
        elif not release.gate.passed and not release.forced:
            self._end(seen, release, ReleaseState.rejected, "; ".join(release.gate.reasons))
        else:
            self._to_step(seen, release, 0, state=ReleaseState.canary)

    def _evaluate(self, seen: State, release: Release) -> None:
        """Start the evaluation, or see how it went; a result is found in the release itself."""
        process = self._evaluations.get(release.id)
        if process is None:
            log = self.project.run / "logs" / "evaluate.log"
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as out:
                self._evaluations[release.id] = subprocess.Popen(
                    [sys.executable, "-m", "loopwright.release.evaluate", release.deployment, release.id],
                    cwd=self.project.root,
                    env=os.environ | {PROJECT_VARIABLE: str(self.project.root)},
                    stdout=out,
                    stderr=subprocess.STDOUT,
                )
            return
        code = process.poll()
        if code is None:
            return
        del self._evaluations[release.id]
        if code == 0:
            return  # the release has its gate now; this turn has read it before
        if release.attempts < TRIES + 1:
            self._put(seen, release, "release.retried", attempts=release.attempts + 1)
            return
        reason = f"the evaluation ended with code {code}; see {self.project.run / 'logs' / 'evaluate.log'}"
        self._end(seen, release, ReleaseState.failed, reason)

    # Canary.

    def _to_step(self, seen: State, release: Release, step: int, **changes: Any) -> None:
        """Give the candidate the share of a step, then say so. A repetition publishes the same again."""
        assert release.candidate is not None
        state = self.ledger.get("deployment", release.deployment)
        if state is not None and (theirs := self._changed_by_hand(release, state.read(Deployment))):
            self._end(seen, release, ReleaseState.rolled_back, theirs)
            return
        share = release.steps[step] / 100
        variants: tuple[Variant, ...] = (Variant("candidate", release.candidate, share),)
        if release.champion is not None:
            variants = (Variant("champion", release.champion, 1 - share), *variants)
        # A shadow was set by a person, and is not the release's to take away.
        variants += base.shadows_beside(state.read(Deployment) if state else None, release.model)
        base.publish(
            self.ledger,
            self._deployment(release, variants, salt=release.id),
            cause=release.trigger_event or None,
            expect=state.revision if state else 0,
        )
        self._put(seen, release, "release.step", step=step, **changes)

    def _deployment(self, release: Release, variants: tuple[Variant, ...], salt: str = "") -> Deployment:
        mode = self.project.deployment(release.deployment).mode
        return Deployment(release.deployment, release.model, mode, variants, salt, release.id)

    def _canary(self, seen: State, release: Release) -> None:
        config = self.project.deployment(release.deployment).release
        served = self.ledger.get("deployment", release.deployment)
        assert served is not None
        if theirs := self._changed_by_hand(release, served.read(Deployment)):
            self._end(seen, release, ReleaseState.rolled_back, theirs, release.verdict)
            return
        if refused := self._refused(release):
            self._back(seen, served, release, f"no worker can serve the candidate: {refused}")
            return
        if now() - release.started > config.max_age:
            reason = f"no verdict within {config.max_age}: no evidence is not success"
            self._back(seen, served, release, reason)
            return
        if not self._due(release.id):
            return
        since = self._canary_since(release)
        rows = canary_rows(self.store, release, since, self._loss(release, config))
        before, looks = self._looked.get(release.id) or (0, self._looks(release))
        if len(rows) == before:
            return
        looks += 1
        self._looked[release.id] = (len(rows), looks)
        verdict = decide(rows, margin=config.margin, alpha=config.alpha, looks=looks)
        self.ledger.append("release.look", release.deployment, verdict)
        if verdict.decision == "promote":
            self._promote(seen, served, release, verdict)
        elif verdict.decision == "rollback":
            self._back(seen, served, release, verdict.reason, verdict)
        elif release.step + 1 < len(release.steps) and self._enough(release, config):
            self._to_step(seen, release, release.step + 1, verdict=verdict)

    def _refused(self, release: Release) -> str:
        """Return why a worker cannot serve the candidate; what passes by itself is no reason."""
        events = self.ledger.events("worker.refused", release.deployment, since=release.started, limit=100)
        final = (e.payload for e in events if e.payload.get("code") != "unavailable")
        return next((facts["reason"] for facts in final if facts["version"] == release.candidate), "")

    def _changed_by_hand(self, release: Release, served: Deployment) -> str:
        """Return what somebody else has put into service meanwhile; "" while the release has the deployment."""
        answering = [variant for variant in served.variants if not variant.shadow]
        alone = len(answering) == 1 and answering[0].version == release.champion
        if served.release == release.id or (release.state is ReleaseState.evaluating and alone):
            return ""
        serving = ", ".join(f"{v.name} {release.model}/{v.version}" for v in answering)
        return f"the deployment was changed by hand: it serves {serving}"

    def _canary_since(self, release: Release) -> datetime:
        for event in self.ledger.events(
            "deployment.changed", release.deployment, since=release.started, limit=1000
        ):
            if event.payload["release"] == release.id:
                return event.at
        return release.changed

    def _looks(self, release: Release) -> int:
        return len(
            self.ledger.events("release.look", release.deployment, since=release.started, limit=100_000)
        )

    def _loss(self, release: Release, config: ReleaseConfig) -> str:
        if config.metric:
            return config.metric
        state = self.ledger.get("model_version", f"{release.model}/{release.candidate}")
        signature = state.read(ModelVersion).signature if state else None
        return "absolute_error" if signature and signature.task == Task.regression else "error"

    def _enough(self, release: Release, config: ReleaseConfig) -> bool:
        """Whether the candidate has answered enough labelled rows in this step to take the next."""
        here = canary_rows(self.store, release, release.changed, self._loss(release, config))
        return int(here.candidate.sum()) >= config.step_rows

    # Ends.

    def _promote(self, seen: State, served: State, release: Release, verdict: Verdict) -> None:
        assert release.candidate is not None
        registry.set_alias(self.project, release.model, "champion", release.candidate)
        self._serve_alone(served, release, release.candidate)
        self._end(seen, release, ReleaseState.promoted, verdict.reason, verdict)

    def _back(
        self, seen: State, served: State, release: Release, reason: str, verdict: Verdict | None = None
    ) -> None:
        if release.champion is not None:
            self._serve_alone(served, release, release.champion)
        self._end(seen, release, ReleaseState.rolled_back, reason, verdict or release.verdict)

    def _serve_alone(self, served: State, release: Release, version: int) -> None:
        """Give one version all rows; a change by hand since `served` was read is a `Conflict` and stays."""
        beside = base.shadows_beside(served.read(Deployment), release.model, version)
        alone = self._deployment(release, (Variant("champion", version), *beside))
        base.publish(self.ledger, alone, expect=served.revision)

    def _end(
        self, seen: State, release: Release, ended: ReleaseState, reason: str, verdict: Verdict | None = None
    ) -> None:
        done = self._put(seen, release, "release.ended", state=ended, reason=reason, verdict=verdict)
        self._decide(done)

    def _put(self, seen: State, release: Release, event: str, **changes: Any) -> Release:
        changed = dataclasses.replace(release, changed=now(), **changes)
        cause = release.trigger_event or None
        self.ledger.put(
            "release", release.deployment, changed, expect=seen.revision, event=event, cause=cause
        )
        return changed

    def _decided(self, release: Release) -> bool:
        events = self.ledger.events("decision", release.deployment, newest=True, limit=20)
        return any(event.payload["release"] == release.id for event in events)

    def _decide(self, release: Release) -> None:
        """Write the one record of why; a kill between the end and this is mended by the next turn."""
        if self._decided(release):
            return
        state = self.ledger.get("model_version", f"{release.model}/{release.candidate}")
        version = state.read(ModelVersion) if state else None
        self.ledger.append(
            "decision",
            release.deployment,
            DecisionRecord(
                release=release.id,
                model=release.model,
                deployment=release.deployment,
                decision=release.state.value,  # type: ignore[arg-type]
                trigger=release.trigger,
                trigger_event=release.trigger_event,
                champion=release.champion,
                candidate=release.candidate,
                run_id=release.run_id,
                flow_run_id=release.flow_run_id,
                dataset=version.training.digest if version and version.training else "",
                gate=release.gate,
                verdict=release.verdict,
                started=release.started,
                ended=release.changed,
                forced=release.forced,
                reason=release.reason,
            ),
            cause=release.trigger_event or None,
        )
