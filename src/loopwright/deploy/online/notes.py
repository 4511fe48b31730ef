"""What is kept of requests besides the predictions: access log, traces and service levels, where they are asked for."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from loopwright.config import Project, SloConfig
from loopwright.deploy.base import Answers
from loopwright.deploy.online.access import AccessLog
from loopwright.deploy.online.levels import FLUSH_S, LevelMeter, Levels
from loopwright.deploy.online.request import Request
from loopwright.deploy.online.tracing import Tracer
from loopwright.errors import LoopwrightError

__all__ = ["Notes"]

logger = logging.getLogger(__name__)
Ended = Callable[[Request, int, Answers | None, int], None]


class Notes:
    """The notes of one serving process. A project that asks for none pays for none.

    Parameters
    ----------
    project, worker
        Whose requests these are, and the process's name.
    """

    def __init__(self, project: Project, worker: str) -> None:
        self._worker = worker
        self._levels = Levels(project, worker)
        self._next_flush = 0.0
        self.access: AccessLog | None = None
        self.tracer: Tracer | None = None
        self._traced: str | None = None
        self._root: Path = project.root
        self.follow(project)

    def follow(self, project: Project) -> None:
        """Take over the configuration."""
        serving = project.config.serving
        if serving.access_log and self.access is None:
            self.access = AccessLog(project, self._worker)
        elif not serving.access_log and self.access is not None:
            self.access.close()
            self.access = None
        if serving.traces != self._traced:
            self._traced = serving.traces
            if self.tracer is not None:
                self.tracer.close()
            self.tracer = self._connect(serving.traces, project.name) if serving.traces else None

    def _connect(self, collector: str, service: str) -> Tracer | None:
        try:
            return Tracer(collector, service, self._worker)
        except LoopwrightError as error:
            # Serving goes before being seen to serve.
            logger.error("requests are not traced: %s", error)
            return None

    def of(self, deployment: str, project: Project) -> Ended | None:
        """Return what takes note of each request of a deployment that was answered; None where nothing does."""
        slo = _counted_by(project, deployment)
        level = self._levels.of(deployment, slo) if slo is not None else None
        if level is None and self.access is None and self.tracer is None:
            return None

        def ended(request: Request, status: int, answers: Answers | None, first: int) -> None:
            self._note(deployment, level, request, status, answers, first)

        return ended

    def _note(
        self,
        deployment: str,
        level: LevelMeter | None,
        request: Request,
        status: int,
        answers: Answers | None,
        first: int,
    ) -> None:
        done = time.monotonic()
        seconds = done - request.received
        if level is not None:
            level.add(seconds, status)
        details = request.details
        rows = request.asked.n if answers is not None else 0
        if self.access is not None:
            self.access.add(
                "POST",
                request.path or f"/predict/{deployment}",
                status,
                seconds,
                deployment,
                rows,
                request.size,
                request.sent,
                request.remote,
                details.request_id,
                request.key or "",
                details.trace,
            )
        if self.tracer is not None and details.trace:
            stages: list[tuple[str, float, float]] = []
            ids: list[str] = []
            variant, version = "", None
            if answers is not None:
                scored = answers.started + answers.score_s
                logged = scored + answers.log_s
                stages = [
                    ("decode", request.received, request.decoded),
                    ("queue", request.decoded, answers.started),
                    ("score", answers.started, scored),
                    ("log", scored, logged),
                    ("encode", logged, done),
                ]
                ids = answers.prediction_id[first : first + rows]
                one = answers.variants[answers.places[first] if answers.places is not None else 0]
                variant, version = one.name, one.version
            self.tracer.record(
                details.trace,
                deployment,
                request.received,
                done,
                stages,
                status,
                ids,
                variant=variant,
                version=version,
            )

    @property
    def dropped(self) -> dict[str, int]:
        """How many notes were not written, for the counters of the process."""
        found = {}
        if self.access is not None:
            found["access_dropped"] = self.access.dropped
        if self.tracer is not None:
            found["traces_dropped"] = self.tracer.dropped
        return found

    def maintain(self) -> None:
        """Write what is due; call about once a second from one thread."""
        now = time.monotonic()
        if now >= self._next_flush:
            self._next_flush = now + FLUSH_S
            self._levels.flush()

    def close(self) -> None:
        """Write what is left."""
        self._levels.close()
        if self.access is not None:
            self.access.close()
        if self.tracer is not None:
            self.tracer.close()


def _counted_by(project: Project, deployment: str) -> SloConfig | None:
    """Return by what requests are counted: what is promised, or any measure where a monitor watches their errors."""
    config = project.config.deployment[deployment]
    monitor = project.config.monitor.get(config.model)
    if config.slo is None and monitor is not None and monitor.service.errors is not None:
        return SloConfig()
    return config.slo
