"""One deployment in one process: it follows the deployment's state, scores rows, and logs before it answers."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loopwright import scoring
from loopwright.config import Project
from loopwright.deploy.answers import Answers, Part, chosen, merged, widened
from loopwright.deploy.preparing import is_prepared, prepare_apart
from loopwright.deploy.routing import Loaded, Route, adapt, incompatible, leading
from loopwright.deploy.shadowing import Shadowing, Work
from loopwright.errors import Conflict, Damaged, LoopwrightError, Unavailable
from loopwright.ledger import Ledger
from loopwright.predictions import Ids, PredictionLog, Predictions
from loopwright.predictions.privacy import Privacy, secret_of
from loopwright.records import Deployment, Signature
from loopwright.registry.blocks import Blocks
from loopwright.scoring import Scorer

__all__ = ["Predictor"]

FIRST_RETRY_S = 2.0
LAST_RETRY_S = 60.0


class Predictor:
    """One deployment in one process. Rows may come from several threads; call `refresh` from one.

    Parameters
    ----------
    project, name
        The deployment.
    ledger, ids
        The project's, shared within the process.
    worker
        Who serves, for the ledger's events: the part's name.
    shadowing
        What scores the rows again for shadow variants; without, there are none.
    """

    def __init__(
        self,
        project: Project,
        name: str,
        *,
        ledger: Ledger,
        ids: Ids,
        worker: str,
        shadowing: Shadowing | None = None,
    ) -> None:
        self.project = project
        self.name = name
        self.configure(project)
        self.worker = worker
        self.refused: dict[int, str] = {}
        self._ledger = ledger
        self._ids = ids
        self._route: Route | None = None
        self._logs: dict[tuple[str, bool], PredictionLog] = {}
        self._privacy: dict[int, tuple[Signature, Privacy | None]] = {}
        self._shadowing = shadowing
        self._used = time.monotonic()
        self._asleep = self._waking = False
        #: Counted while this deployment is served: rows of shadows that were scored, and those that were dropped.
        self.shadow_rows = self.shadow_dropped = 0
        self._refreshing = threading.Lock()
        self._stop = threading.Event()
        self._revision = 0
        self._failures = 0
        self._retry_at: float | None = None

    def configure(self, project: Project) -> None:
        """Take over the configuration of the deployment."""
        self.project = project
        self.config = project.deployment(self.name)
        self._timeout_s = self.config.timeout.total_seconds()
        # Made anew for each signature: what is kept of a row may have changed.
        self._privacy = {}

    @property
    def route(self) -> Route | None:
        """What is served now; None before the first version is loaded."""
        return self._route

    @property
    def ready(self) -> bool:
        """Whether anything is served, or would be at once."""
        return self._route is not None or self._asleep

    @property
    def started(self) -> bool:
        """Whether the deployment was ever put into service, as far as `refresh` has seen."""
        return self._revision > 0

    @property
    def asleep(self) -> bool:
        """Whether the model was unloaded because nobody asked; `wake` loads it again."""
        return self._asleep

    @property
    def timeout_s(self) -> float:
        """How long a request may wait for its answer, in seconds."""
        return self._timeout_s

    @property
    def due(self) -> bool:
        """Whether `refresh` should try again although nothing has changed: a version could not be loaded before."""
        return self._retry_at is not None and time.monotonic() >= self._retry_at

    @property
    def deployment(self) -> Deployment:
        """What is served now. Raises as `predict` does when nothing is."""
        return self._serving().deployment

    @property
    def signature(self) -> Signature:
        """What rows must look like: the champion's signature. Raises as `predict` does when nothing is served."""
        return self._serving().signature

    @property
    def scorer(self) -> Scorer:
        """The champion's scorer; hold on to `route` while using it, else a swap may close it."""
        route = self._serving()
        return route.loaded[leading(route.deployment).version].scorer

    def new_ids(self, n: int) -> list[str]:
        """Return n new prediction ids of this moment."""
        return self._ids.new(n, time.time_ns() // 1000)

    def _serving(self) -> Route:
        route = self._route
        if route is None:
            raise self.absent()
        return route

    def absent(self) -> LoopwrightError:
        """Return the error that says why nothing is served."""
        start = f"loopwright deployment start {self.name}"
        if self.refused:
            reasons = "; ".join(f"version {version}: {why}" for version, why in self.refused.items())
            return Unavailable(f"The deployment {self.name!r} cannot be served. {reasons}", hint=start)
        if self._revision:
            return Unavailable(
                f"The deployment {self.name!r} is still being loaded.",
                valid="A model that is served for the first time is compiled first.",
                hint="try again in a moment",
                retry_after=1,
            )
        return Unavailable(f"The deployment {self.name!r} has not been started.", hint=start)

    def refresh(self, *, prepare: bool = True) -> bool:
        """Follow the deployment's state in the ledger.

        Versions that are not loaded yet are loaded, verified and warmed up; then the whole deployment changes over at
        once. A version that fails never serves: the ledger gets an event ``worker.refused`` and what served before
        goes on. It is tried again later. Calls under way end with what they started with.

        Parameters
        ----------
        prepare
            Whether a version that is not prepared for scoring yet is prepared now, in a process of its own, which can
            take minutes. Without, it is left for a later call.

        Returns
        -------
        bool
            Whether anything else is served now than before.
        """
        with self._refreshing:
            state = self._ledger.get("deployment", self.name)
            if state is None or (state.revision == self._revision and not self.due):
                return False
            if state.revision != self._revision:
                self._failures = 0
            self._revision, self._retry_at = state.revision, None
            return self._follow(state.read(Deployment), prepare)

    def _follow(self, deployment: Deployment, prepare: bool) -> bool:
        before = self._route
        loaded, failures = self._load_all(deployment, before, prepare)
        if self._stop.is_set():
            return False
        refused = {version: error for version, error in failures.items() if error is not None}
        if failures:
            self._failures += 1
            backoff = min(FIRST_RETRY_S * 2 ** (self._failures - 1), LAST_RETRY_S)
            self._retry_at = time.monotonic() + (backoff if refused else 0.0)
        usable = tuple(variant for variant in deployment.variants if variant.version in loaded)
        # After a restart nothing served before: better the champion alone than nothing, but no candidate alone. And a
        # shadow that fails keeps nobody else from serving.
        champion = leading(deployment)
        answering = {variant.version for variant in deployment.variants if not variant.shadow}
        lacking = answering & failures.keys()
        complete = not lacking or (before is None and champion in usable and champion.weight > 0)
        serves = complete and sum(variant.weight for variant in usable) > 0
        if serves:
            self._swap(Route(replace(deployment, variants=usable), loaded))
            self._asleep = False
        self._note(before, refused)
        return serves

    def _load_all(
        self, deployment: Deployment, before: Route | None, prepare: bool
    ) -> tuple[dict[int, Loaded], dict[int, LoopwrightError | None]]:
        """Return what is loaded by version, and what is not: with its error, or None where it must be prepared."""
        same_model = before is not None and before.deployment.model == deployment.model
        known = before.loaded if before is not None and same_model else {}
        loaded: dict[int, Loaded] = {}
        failures: dict[int, LoopwrightError | None] = {}
        for version in {variant.version: None for variant in deployment.variants}:
            try:
                if version in known:
                    loaded[version] = known[version]
                elif prepare or is_prepared(self.project, deployment.model, version):
                    loaded[version] = self._load(deployment.model, version)
                else:
                    failures[version] = None
            except LoopwrightError as error:
                failures[version] = error
        champion = leading(deployment).version
        for version in [version for version in loaded if version != champion and champion in loaded]:
            signatures = loaded[champion].scorer.signature, loaded[version].scorer.signature
            if reason := incompatible(*signatures):
                failures[version] = Conflict(
                    f"{deployment.model}/{version} cannot stand beside version {champion}: {reason}.",
                    hint=f"loopwright deployment start {self.name} --version {version}",
                )
                del loaded[version]
        return loaded, failures

    def _load(self, model: str, version: int) -> Loaded:
        if not is_prepared(self.project, model, version):
            prepare_apart(self.project, model, version, self._stop)
        try:
            scorer = scoring.load(self.project.scorer(model, version))
            scorer.verify()
        except LoopwrightError:
            raise
        except Exception as error:
            # Loading a model runs code that is not ours, which can raise anything.
            raise Damaged(f"{model}/{version} cannot be loaded: {type(error).__name__}: {error}") from error
        return Loaded(scorer)

    def _swap(self, route: Route) -> None:
        self._open_log(route, shadow=False)
        if route.shadows:
            self._open_log(route, shadow=True)
        for signature in (route.signature, *route.signatures):
            self._private(signature)
        self._route = route

    def _open_log(self, route: Route, *, shadow: bool) -> None:
        model = route.deployment.model
        if (model, shadow) not in self._logs:
            self._logs[model, shadow] = PredictionLog(
                self.project,
                self.name,
                model,
                route.signature,
                durability=self.project.config.serving.durability,
                shadow=shadow,
            )

    def _private(self, signature: Signature) -> Privacy | None:
        """Return what is to be left out of the log of rows with a signature; None when nothing is."""
        known = self._privacy.get(id(signature))
        if known is None:
            made = Privacy.of(self.config.log, signature, secret_of(self.project), self.config.entity)
            # The signature is kept with it, so that its identity stays taken.
            known = self._privacy[id(signature)] = signature, made
        return known[1]

    def unload_idle(self) -> bool:
        """Give back the models' memory where nobody has asked for as long as the configuration says."""
        after = self.config.unload_after
        if after is None or self._route is None or time.monotonic() - self._used < after.total_seconds():
            return False
        with self._refreshing:
            self._asleep, self._route = True, None
        return True

    def wake(self) -> None:
        """Load again what `unload_idle` unloaded, in a thread of its own; see `asleep`."""
        if not self._asleep or self._waking:
            return
        self._waking = True
        self._used = time.monotonic()

        def load() -> None:
            try:
                self._retry_at = 0.0
                self.refresh()
            finally:
                # What could not be loaded says why, and is tried again as after any failure.
                self._asleep = self._waking = False

        threading.Thread(target=load, name=f"waking {self.name}", daemon=True).start()

    def _note(self, before: Route | None, refused: Mapping[int, LoopwrightError]) -> None:
        """Write to the ledger what was loaded and what was refused, each once."""
        reasons = {version: str(error) for version, error in refused.items()}
        new = {version: why for version, why in reasons.items() if self.refused.get(version) != why}
        served = self._route.loaded if self._route else {}
        had = before.loaded if before else {}
        loaded = [version for version, one in served.items() if had.get(version) is not one]
        self.refused = reasons
        for version, why in new.items():
            facts = {
                "version": version,
                "worker": self.worker,
                "reason": why,
                "code": refused[version].code,
            }
            self._ledger.append("worker.refused", self.name, facts)
        for version in loaded:
            facts = {"version": version, "worker": self.worker, "runtime": served[version].scorer.runtime}
            self._ledger.append("worker.loaded", self.name, facts)

    def predict(
        self,
        columns: Mapping[str, NDArray[Any]],
        *,
        entities: Sequence[str | None] | None = None,
        ids: list[str] | None = None,
        at_us: int | NDArray[np.int64] | None = None,
        request_ids: list[str] | None = None,
        traces: list[str] | None = None,
        received: Sequence[float] | float | None = None,
        route: Route | None = None,
        places: Sequence[int | None] | None = None,
        log: bool = True,
    ) -> Answers:
        """Answer rows; they are in the prediction log when this returns.

        Parameters
        ----------
        columns
            One array of shape (n,) for each input of `signature`, as `Scorer.score` takes them.
        entities
            Who or what each row is about, which decides its variant. A row without one is its own entity.
        ids
            The prediction ids, from `Ids`; else new ones are issued.
        at_us
            When the predictions are made, in microseconds since 1970 UTC, for all rows or for each; else now.
        request_ids, traces
            The callers' own ids, and the traces their requests belong to, empty where there is none.
        received
            When the rows arrived, in seconds of `time.monotonic`, for all rows or for each; else now. The latency
            counts from there.
        route
            What to answer with, where the rows were checked against an earlier `route`; else the present one.
        places
            Which variant must answer each row, as `Route.named` gives it; None where its entity decides. The
            propensity of a row whose caller chose is 1: nothing was left to chance.
        log
            False leaves the prediction log alone: for comparisons, and for rows that are in it already; never for a
            new answer.

        Raises
        ------
        Unavailable
            Nothing is served yet, or the log cannot be written; then nothing is acknowledged.
        SchemaMismatch, InvalidInput
            A column is missing, or the model refuses the rows. Nothing is logged.
        """
        started = self._used = time.monotonic()
        route = route or self._serving()
        n = columns.rows if isinstance(columns, Blocks) else len(next(iter(columns.values())))
        moment = time.time_ns() // 1000 if at_us is None else at_us
        raw: bytes | None = None
        if ids is None:
            ids, raw = self._ids.issue(n, moment if isinstance(moment, int) else time.time_ns() // 1000)
        if len(route.split.variants) == 1 and places is None:
            answers, parts = _all_by_one(route, columns, ids)
        else:
            answers, parts = _by_several(route, columns, entities, ids, places)
        scored = time.monotonic()
        answers.started = started
        answers.score_s = scored - started
        answers.parts = answers.parts or ((0, n, scored - started),)
        if not log:
            return answers
        arrived = started if received is None else received
        latency: Any = (
            (scored - arrived) * 1000.0
            if isinstance(arrived, float)
            else (scored - np.asarray(arrived)) * 1000.0
        )
        only = answers.variants[0] if answers.places is None else None
        rows = Predictions(
            prediction_id=ids,
            at_us=moment,
            version=only.version if only else answers.version,
            variant=only.name if only else answers.variant,
            propensity=answers.propensities
            if isinstance(answers.propensities, float)
            else answers.propensity,
            entity=None if entities is None else [entity or "" for entity in entities],
            latency_ms=latency,
            inputs=columns,
            prediction=answers.prediction,
            probability=answers.probability,
            request_id=request_ids,
            trace=traces,
            raw_id=raw,
        )
        self._append(route, rows, parts)
        answers.log_s = time.monotonic() - scored
        if route.shadows and self._shadowing is not None:
            self._shadowing.add(Work(route, columns, rows, self._score_shadows, self._drop_shadows))
        return answers

    def _score_shadows(self, work: Work) -> None:
        """Score rows for each shadow and log what they say, under the ids of those that were answered."""
        route, rows = work.route, work.rows
        log = self._logs[route.deployment.model, True]
        for place in route.shadows:
            variant, own = route.variants[place], _columns(route, place, work.columns)
            started = time.monotonic()
            scores = route.scorers[place].score(own)
            seconds = time.monotonic() - started
            shadow = replace(
                rows,
                version=variant.version,
                variant=variant.name,
                propensity=1.0,
                latency_ms=seconds * 1000.0,
                inputs=own,
                prediction=scores.prediction,
                probability=scores.probability,
                request_id=None,
                trace=None,
            )
            self._write(log, shadow, route.signatures[place])
            self.shadow_rows += len(rows)

    def _drop_shadows(self, rows: int) -> None:
        self.shadow_dropped += rows

    def _write(self, log: PredictionLog, rows: Predictions, signature: Signature) -> None:
        """Append to a log what may be kept of some rows."""
        privacy = self._private(signature)
        kept = rows if privacy is None else privacy.apply(rows)
        if kept is not None:
            log.append(kept, signature)

    def _append(self, route: Route, rows: Predictions, parts: list[Part]) -> None:
        """Append the rows to the log: together, or by variant where their signatures differ."""
        if not len(rows):
            return
        log = self._logs[route.deployment.model, False]
        if len(parts) == 1 and route.same[parts[0].place]:
            self._write(log, rows, route.signature)
            return
        alike = {part.scores.probability is None for part in parts}
        if all(route.same[part.place] for part in parts) and len(alike) == 1:
            self._write(log, rows, route.signature)
            return
        for part in parts:
            self._write(log, chosen(rows, part), route.signatures[part.place])

    def maintain(self) -> None:
        """Seal the log where that is due; call it about once a second, from any thread."""
        for log in list(self._logs.values()):
            log.maintain()

    def stop(self) -> None:
        """End a `refresh` that waits for a model to be prepared; nothing is loaded afterwards."""
        self._stop.set()

    def close(self) -> None:
        """Stop serving, and close the log and the scorers."""
        self.stop()
        self._route = None
        with contextlib.suppress(Unavailable):
            for log in list(self._logs.values()):
                log.close()


def _columns(route: Route, place: int, columns: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
    """Return the columns that a variant takes, of those that callers send."""
    return columns if route.same[place] else adapt(columns, route.signatures[place].inputs)


def _all_by_one(
    route: Route, columns: Mapping[str, NDArray[Any]], ids: list[str]
) -> tuple[Answers, list[Part]]:
    """Let the only variant answer."""
    own = _columns(route, 0, columns)
    part = Part(0, None, own, route.scorers[0].score(own))
    probability = part.scores.probability if route.same[0] else widened(part.scores, route, 0)
    answers = Answers(
        route.deployment.model,
        route.classes,
        ids,
        part.scores.prediction,
        probability,
        route.variants,
        outputs=route.signature.outputs,
    )
    return answers, [part]


def _by_several(
    route: Route,
    columns: Mapping[str, NDArray[Any]],
    entities: Sequence[str | None] | None,
    ids: list[str],
    places: Sequence[int | None] | None,
) -> tuple[Answers, list[Part]]:
    """Score each variant's rows and put the answers back in the order of the rows."""
    split, n = route.split, len(ids)
    who = ids if entities is None else [entity or one for entity, one in zip(entities, ids, strict=True)]
    wanted = [None] * n if places is None else places
    index = [
        split.place(entity) if place is None else place for entity, place in zip(who, wanted, strict=True)
    ]
    at_place = np.array(index, np.intp)
    parts, times = [], []
    for place in sorted(set(index)):
        at = np.flatnonzero(at_place == place)
        taken: Mapping[str, NDArray[Any]]
        if len(at) == n:
            taken = columns
        elif isinstance(columns, Blocks):
            taken = columns.take(at)
        else:
            taken = {name: values[at] for name, values in columns.items()}
        own = _columns(route, place, taken)
        started = time.monotonic()
        parts.append(Part(place, at, own, route.scorers[place].score(own)))
        times.append((place, len(at), time.monotonic() - started))
    propensities = [
        split.propensities[place] if asked is None else 1.0
        for place, asked in zip(index, wanted, strict=True)
    ]
    answers = Answers(
        route.deployment.model,
        route.classes,
        ids,
        *merged(parts, route, n),
        route.variants,
        places=index,
        propensities=propensities,
        outputs=route.signature.outputs,
        parts=tuple(times),
    )
    return answers, parts
