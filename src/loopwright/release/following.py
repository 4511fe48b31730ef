"""Following the registry: a version that somebody made champion is served, and one made by hand is described.

Runs beside the controller's turns, because preparing a version takes seconds or minutes.
"""

from __future__ import annotations

import logging
import threading
import time

from loopwright import registry
from loopwright.config import Project
from loopwright.deploy import base
from loopwright.deploy.preparing import is_prepared, prepare_apart
from loopwright.errors import LoopwrightError, Unavailable
from loopwright.ledger import Event, Ledger
from loopwright.records import Deployment, ModelVersion
from loopwright.registry import watch, webhooks

__all__ = ["Following"]

log = logging.getLogger(__name__)
#: Seconds between two looks at the ledger, and between two at MLflow itself, for webhooks that did not come.
LOOK_S, POLL_S = 0.25, 5.0
CHAMPION = "champion"
_CURSOR = "following"


class Following:
    """Follows the registry of one project until told to stop."""

    def __init__(self, project: Project, ledger: Ledger, stop: threading.Event) -> None:
        self.project, self.ledger, self.stop = project, ledger, stop
        self._polled = float("-inf")
        self._complaint = ""

    def run(self) -> None:
        """Work until `stop` is set; what fails is logged once and tried again."""
        while not self.stop.wait(LOOK_S):
            try:
                self.turn()
                self._complaint = ""
            except Exception as error:
                if repr(error) != self._complaint:
                    log.exception("following the registry failed; trying again")
                self._complaint = repr(error)

    def turn(self) -> None:
        """Look at MLflow when that is due, and do what new events ask for."""
        if time.monotonic() - self._polled > POLL_S:
            self._polled = time.monotonic()
            for model in self.project.config.model:
                try:
                    watch.look(self.project, self.ledger, model)
                except Unavailable:
                    break  # MLflow is being restarted
        for event in self._news():
            if event.kind == webhooks.CALLED:
                watch.look(self.project, self.ledger, event.subject)
            elif event.kind == watch.FOUND:
                self._describe(event)
            elif event.payload.get("follow") and event.payload["alias"] == CHAMPION:
                self._follow(event)
            if self.stop.is_set():
                return
            self.ledger.put(_CURSOR, "registry", {"event": event.id})

    def _news(self) -> list[Event]:
        state = self.ledger.get(_CURSOR, "registry")
        after = state.value["event"] if state else 0
        kinds = (webhooks.CALLED, watch.FOUND, "alias.set")
        events = (event for kind in kinds for event in self.ledger.events(kind, after=after))
        return sorted(events, key=lambda event: event.id)

    def _describe(self, event: Event) -> None:
        """Fill in what can be known of a version that was registered by hand, unless it was deleted meanwhile."""
        model, version = event.subject, int(event.payload["version"])
        state = self.ledger.get("model_version", f"{model}/{version}")
        if state is not None and state.read(ModelVersion).digest:
            return
        try:
            prepare_apart(self.project, model, version, self.stop)
        except LoopwrightError as error:
            if not self.stop.is_set():
                facts = {"version": version, "reason": error.fact}
                self.ledger.append("model.incomplete", model, facts, cause=event.id)

    def _follow(self, event: Event) -> None:
        """Serve the version that was made champion, in each deployment of the model that runs."""
        model, version = event.subject, int(event.payload["version"])
        try:
            if registry.aliases(self.project, model).get(CHAMPION) != version:
                return  # it has been moved again, and that is an event of its own
        except Unavailable:
            log.info("MLflow does not answer; %s/%s is taken as champion", model, version)
        for state in self.ledger.states("deployment"):
            served = state.read(Deployment)
            mine = served.model == model and served.name in self.project.config.deployment
            if not mine or base.champion_of(served).version == version:
                continue
            facts = {"alias": CHAMPION, "model": model, "version": version}
            try:
                if not is_prepared(self.project, model, version):
                    prepare_apart(self.project, model, version, self.stop)
                base.start(self.project, served.name, version)
            except LoopwrightError as error:
                if not self.stop.is_set():
                    self.ledger.append(
                        "deployment.refused", served.name, facts | {"reason": error.fact}, cause=event.id
                    )
                continue
            self.ledger.append("deployment.followed", served.name, facts, cause=event.id)
            log.info("%s serves %s/%s: it was made champion", served.name, model, version)
