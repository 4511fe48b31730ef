"""One deployment under watch: its windows are read, given to the checks, and what they say is recorded."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Literal, Self

from loopwright import plugins
from loopwright.config import MonitorConfig, Project
from loopwright.errors import LoopwrightError, NotFound
from loopwright.ledger import Ledger
from loopwright.monitor.base import Check, Context, Incomplete, Phase
from loopwright.monitor.blocks import Plan
from loopwright.monitor.data import LoggedWindow
from loopwright.monitor.declared import problems
from loopwright.monitor.failures import Failures
from loopwright.monitor.label_delay import LabelDelay
from loopwright.monitor.metrics import default_metric
from loopwright.monitor.results import Results
from loopwright.predictions import PredictionStore
from loopwright.predictions.privacy import left_out
from loopwright.records import Deployment, Judged, ModelVersion, Signal, Task, Window
from loopwright.registry.profile import Profile, read_profile

__all__ = ["Watched"]

log = logging.getLogger(__name__)
State = Literal["judged", "immature", "overdue", "empty"]


class Watched:
    """One deployment, as it is served at one moment."""

    def __init__(
        self,
        project: Project,
        ledger: Ledger,
        store: PredictionStore,
        deployment: Deployment,
        config: MonitorConfig,
        failures: Failures,
    ) -> None:
        self.store = store
        self.config = config
        self.name = deployment.name
        self.champion = deployment.variants[0].version
        self._project = project
        self._ledger = ledger
        self._deployment = deployment
        self._failures = failures
        self._results = Results(ledger)
        self._profiles: dict[int, Profile] = {}
        self._plan: Plan | None = None
        self._planned: Profile | None = None
        self._hidden = left_out(project.config.deployment[deployment.name])
        state = ledger.get("model_version", f"{deployment.model}/{self.champion}")
        self._signature = state.read(ModelVersion).signature if state else None

    @classmethod
    def open(cls, project: Project, ledger: Ledger, store: PredictionStore, name: str) -> Self:
        """Return a deployment by its name.

        Raises
        ------
        NotFound
            There is no such deployment, it was never started, or its model has no monitor.
        """
        model = project.deployment(name).model
        state = ledger.get("deployment", name)
        if state is None:
            raise NotFound(f"{name!r} was never started.", hint=f"loopwright deployment start {name}")
        if model not in project.config.monitor:
            raise NotFound(
                f"There is no [monitor.{model}].", hint=f"add [monitor.{model}] to loopwright.toml"
            )
        config = project.config.monitor[model]
        return cls(project, ledger, store, state.read(Deployment), config, Failures(ledger))

    @property
    def started(self) -> datetime:
        """When the deployment was started first."""
        started = self._ledger.events("deployment.changed", self.name, limit=1)
        return started[0].at if started else self._deployment.changed

    def inputs(self, window: Window, now: datetime) -> Judged:
        """Judge a window as soon as it is over, and record what was found."""
        failed = self._declared()
        found: list[Signal] = []
        with self._read(window, labelled=False) as data:
            rows = self._rows(data, window, failed)
            if rows is not None:
                found = self._run("inputs", data, window, now, rows, failed)
        return self._record(
            "inputs", window, "empty" if rows == 0 else "judged", rows, 0, None, found, failed
        )

    def labels(self, window: Window, delay: LabelDelay, now: datetime) -> Judged:
        """Judge a window when its labels have come; record that it waits for them, or that it was given up."""
        failed: list[str] = []
        found: list[Signal] = []
        with self._read(window, labelled=True) as data:
            rows = self._rows(data, window, failed)
            labelled = data.labels if rows else 0
            age = max(0.0, (now - window.end).total_seconds())
            maturity = delay.maturity(age, labelled, rows or 0)
            state: State = "immature"
            if rows == 0:
                state = "empty"
            elif rows and maturity.mature:
                state = "judged"
                found = self._run("labels", data, window, now, rows, failed)
            elif maturity.overdue:
                state = "overdue"
        return self._record("labels", window, state, rows, labelled, maturity.value, found, failed)

    def _record(
        self,
        phase: Phase,
        window: Window,
        state: State,
        rows: int | None,
        labelled: int,
        maturity: float | None,
        found: Sequence[Signal],
        failed: Sequence[str],
    ) -> Judged:
        judged = Judged(
            deployment=self.name,
            model=self._deployment.model,
            phase=phase,
            version=self.champion,
            window=window,
            state=state,
            rows=rows or 0,
            labelled=labelled,
            maturity=maturity,
            fired=sum(signal.fired for signal in found),
            failed=tuple(failed),
        )
        self._results.record(judged, found)
        return judged

    def _rows(self, data: LoggedWindow, window: Window, failed: list[str]) -> int | None:
        """Return how many rows a window has; None where it cannot be read, which is said and holds up no other one.

        Should it be readable later, it has more rows than were recorded and is judged again.
        """
        try:
            rows = data.rows()
        except LoopwrightError as error:
            self._failed("log", str(error), window, failed)
            return None
        self._failures.works(self.name, "log")
        return rows

    def _read(self, window: Window, *, labelled: bool) -> LoggedWindow:
        signature = self._signature
        profile = self._profile(self.champion)
        if self._plan is None or profile is not self._planned:
            self._plan, self._planned = Plan.of(profile, signature), profile
        return LoggedWindow(
            self.store,
            self.name,
            window,
            plan=self._plan,
            classes=signature.classes if signature else (),
            hidden=self._hidden,
            segments=self.config.segments,
            most_segments=self.config.most_segments,
            labelled=labelled,
        )

    def _run(
        self,
        phase: Phase,
        data: LoggedWindow,
        window: Window,
        now: datetime,
        rows: int,
        failed: list[str],
    ) -> list[Signal]:
        context = Context(
            model=self._deployment.model,
            deployment=self.name,
            mode=self._deployment.mode,
            window=window,
            config=self.config,
            champion=self.champion,
            signature=self._signature,
            metric=self._metric(),
            data=data,
            profile=self._profile,
            results=self._results,
            at=now,
            hidden=self._hidden,
            root=self._project.root,
        )
        found: list[Signal] = []
        for name in plugins.names("check"):
            try:
                check: Check = plugins.load("check", name)()
                wanted = check.phase == phase and not {name, check.name} & set(self.config.off)
                if not wanted or not (rows or getattr(check, "empty", False)):
                    continue
                found += check.run(context)
            except LoopwrightError as error:
                found += error.signals if isinstance(error, Incomplete) else ()
                self._failed(name, str(error), window, failed)
            except Exception as error:
                log.exception("check %s of %s failed", name, self.name)
                self._failed(name, repr(error), window, failed)
            else:
                self._failures.works(self.name, name)
        return found

    def _failed(self, check: str, reason: str, window: Window, failed: list[str]) -> None:
        failed.append(f"{check}: {reason}")
        self._failures.failed(self.name, check, reason, window)

    def _declared(self) -> list[str]:
        """Return what is declared and not there, and say it once."""
        said = problems(self.config, self._signature, plugins.names("check"), self._hidden)
        failed: list[str] = [f"declaration: {problem}" for problem in said]
        if said:
            self._failures.failed(self.name, "declaration", "; ".join(said), None)
        else:
            self._failures.works(self.name, "declaration")
        return failed

    def _profile(self, version: int) -> Profile | None:
        # One that is not there yet is looked for again: the scorer is prepared when a worker first loads it.
        if version not in self._profiles:
            path = self._project.scorer(self._deployment.model, version) / "profile.json"
            with contextlib.suppress(LoopwrightError, OSError):
                self._profiles[version] = read_profile(path)
        return self._profiles.get(version)

    def _metric(self) -> str:
        if self.config.performance.metric:
            return self.config.performance.metric
        return default_metric(self._signature.task if self._signature else Task.classification)
