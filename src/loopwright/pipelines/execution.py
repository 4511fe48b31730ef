"""One run of a pipeline: a Prefect flow run and an MLflow run, linked, with all that `trace` needs written down."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from loopwright import parts
from loopwright.config import Project
from loopwright.errors import InvalidInput, StepFailed, Unavailable
from loopwright.ledger import Ledger
from loopwright.lineage.context import Recorder, recorder
from loopwright.lineage.environment import Environment, capture, keep, keep_text, stored
from loopwright.pipelines import journal
from loopwright.pipelines.definition import Pipeline, Step, running
from loopwright.pipelines.entrypoints import load
from loopwright.pipelines.remote import RUN_TAG, TRIGGER_TAG
from loopwright.records import ModelVersion, PipelineRun, StepRun, now
from loopwright.tracking.active import Tracked, begin

__all__ = ["Done", "execute", "run"]

_ledgers: dict[str, Ledger] = {}
#: Starts no thread before the first pipeline runs.
_describing = ThreadPoolExecutor(4, thread_name_prefix="describe-run")


@dataclass(frozen=True, slots=True)
class Done:
    """What a pipeline returned, and the record of its run."""

    value: Any
    record: PipelineRun


def run(
    project: Project,
    entrypoint: str | Callable[..., Any],
    parameters: dict[str, Any],
    *,
    trigger: str = "manual",
) -> PipelineRun:
    """Run a pipeline here and now and return the record of the run.

    Parameters
    ----------
    entrypoint
        ``<module>:<function>`` in the project, or the pipeline itself.
    parameters
        By name; defaults apply for the rest.
    trigger
        Why it runs; kept with the run.

    Raises
    ------
    NotFound
        There is no such module or pipeline.
    InvalidInput
        What the entrypoint names is no pipeline, or the parameters do not fit it.
    StepFailed
        The pipeline's own code raised; the message names the step, and the cause is chained.
    Unavailable
        MLflow or Prefect does not answer.
    """
    pipeline = load(project, entrypoint)
    return execute(project, pipeline, pipeline.bind(parameters), trigger=trigger).record


def execute(
    project: Project,
    pipeline: Pipeline[Any, Any],
    parameters: dict[str, Any],
    *,
    trigger: str,
    flow_run_id: str = "",
) -> Done:
    """Run a pipeline with checked parameters, as a new flow run or as the scheduled one that is given."""
    parts.connect(project)
    execution = Execution(project, pipeline, parameters, trigger)
    return execution.run(flow_run_id)


class Execution:
    """One run while it lasts."""

    def __init__(
        self, project: Project, pipeline: Pipeline[Any, Any], parameters: dict[str, Any], trigger: str
    ) -> None:
        self.project = project
        self.pipeline = pipeline
        self.parameters = parameters
        self.environment = capture(project)
        self.recorder = Recorder(pipeline.entrypoint)
        self.record = _record(pipeline, parameters, trigger, self.environment)
        self.ledger = _ledger(project)
        self._steps: list[StepRun] = []
        self._failed_step = ""
        self._cause: BaseException | None = None
        self._started = time.perf_counter()
        self._tracked: Tracked | None = None
        self._described: Future[None] | None = None
        self._ended = False

    def run(self, flow_run_id: str) -> Done:
        """Run it, in Prefect and MLflow."""
        from loopwright.pipelines.engine import run_flow

        self._tracked = tracked = begin(self.project, self.pipeline.name, self._tags())
        journal.write(self.project, tracked.run_id, flow_run_id)
        self.recorder.run_id = tracked.run_id
        self.record = dataclasses.replace(self.record, run_id=tracked.run_id)
        tags = [f"{RUN_TAG}{tracked.run_id}", f"{TRIGGER_TAG}{self.record.trigger}"]
        tokens = running.set(self), recorder.set(self.recorder)
        try:
            value = run_flow(self.pipeline, self._body, self.parameters, tags, flow_run_id)
        except BaseException as error:
            self._fail(error)
            raise self._explained(error) from error
        finally:
            running.reset(tokens[0])
            recorder.reset(tokens[1])
            if self._ended:
                journal.forget(self.project, tracked.run_id)
        return Done(value, self.record)

    def _body(self, flow_run_id: str) -> Any:
        """Run the user's function inside the flow. All is written down before Prefect calls the run completed."""
        assert self._tracked is not None
        self.record = dataclasses.replace(self.record, flow_run_id=flow_run_id)
        journal.write(self.project, self._tracked.run_id, flow_run_id)
        self._save("pipeline.started")
        # MLflow takes this in while the first step works already.
        self._described = _describing.submit(self._describe, self._tracked, flow_run_id)
        try:
            value = self.pipeline.function(**self.parameters)
        except BaseException as error:
            if error is not self._cause:  # not a step's, or another one than the code has dealt with
                self._failed_step, self._cause = "", error
            self._fail(error)
            raise
        self._described.result()
        self._complete(value)
        return value

    def _describe(self, tracked: Tracked, flow_run_id: str) -> None:
        """Write parameters, the flow run's id and the environment into the MLflow run."""
        tracked.log(self.parameters, {"prefect.flow_run_id": flow_run_id})
        tracked.keep(_environment_files(self.project, self.environment))

    def call(self, step: Step[Any, Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Run a step of this pipeline as a Prefect task and write down what went in and came out."""
        from loopwright.pipelines.engine import run_step

        given = list(_tables((arguments, named)))
        inputs = tuple(filter(None, map(self._digest, given)))
        started = time.perf_counter()
        try:
            value = run_step(step, arguments, named)
        except BaseException as error:
            if error is not self._cause:
                self._failed_step, self._cause = step.name, error
            self._add(step, "failed", time.perf_counter() - started, inputs)
            raise
        seconds = time.perf_counter() - started
        changed = {id(table) for table in given}
        # A step that returns the frame it was given may have changed it in place: it is hashed again.
        outputs = [self._digest(table, again=id(table) in changed) for table in _tables(value)]
        self._add(step, "completed", seconds, inputs, tuple(filter(None, outputs)))
        return value

    def _add(
        self,
        step: Step[Any, Any],
        status: Literal["completed", "failed"],
        seconds: float,
        inputs: tuple[str, ...],
        outputs: tuple[str, ...] = (),
    ) -> None:
        self._steps.append(StepRun(step.name, step.code_digest, status, seconds, inputs, outputs))

    def _digest(self, table: Any, *, again: bool = False) -> str:
        """Return the fingerprint of a frame, or an empty text when it holds what no dataset can hold."""
        from loopwright.lineage.fingerprints import fingerprint
        from loopwright.lineage.sources import table_from

        digest = None if again else self.recorder.recall(table)
        if digest is None:
            try:
                digest = fingerprint(table_from(table))
            except InvalidInput:
                return ""
            self.recorder.remember(table, digest)
        return digest

    def _tags(self) -> dict[str, str]:
        environment = self.environment
        tags = {
            "loopwright.pipeline": self.record.pipeline,
            "loopwright.trigger": self.record.trigger,
            "loopwright.python": environment.python,
            "loopwright.lock": environment.lock_digest,
        }
        if environment.git_commit:
            tags["mlflow.source.git.commit"] = environment.git_commit
            tags["loopwright.git_dirty"] = str(environment.git_dirty).lower()
        if environment.diff_digest:
            tags["loopwright.diff"] = environment.diff_digest
        return tags

    def _save(self, event: str) -> None:
        self.ledger.put("pipeline_run", self.record.run_id, self.record)
        self.ledger.append(event, self.record.pipeline, self.record)

    def _end(self, status: Literal["completed", "failed"], error: str = "") -> None:
        self.record = dataclasses.replace(
            self.record,
            status=status,
            error=error,
            seconds=time.perf_counter() - self._started,
            steps=tuple(self._steps),
            datasets=tuple(self.recorder.datasets),
        )
        self._save(f"pipeline.{status}")

    def _complete(self, value: Any) -> None:
        assert self._tracked is not None
        if self.recorder.datasets:
            self._tracked.log_datasets(self.recorder.datasets)
            trained_on = value.training if isinstance(value, ModelVersion) else None
            dataset = trained_on or self.recorder.datasets[-1]
            self._tracked.log({}, {"loopwright.dataset": dataset.digest})
        self._tracked.end("FINISHED")
        self._end("completed")
        self._ended = True

    def _fail(self, error: BaseException) -> None:
        """End the run in MLflow and the ledger; once, however many layers the error passes."""
        if self.record.status != "running":
            return
        self._end("failed", f"{self._place()}{type(error).__name__}: {error}"[:2000])
        assert self._tracked is not None
        if self._described is not None:
            wait((self._described,))
        # When MLflow is gone too, the journal keeps the run until the runner can end it.
        with contextlib.suppress(Unavailable):
            self._tracked.end("FAILED" if isinstance(error, Exception) else "KILLED")
            self._ended = True

    def _place(self) -> str:
        return f"step {self._failed_step}: " if self._failed_step else ""

    def _explained(self, error: BaseException) -> BaseException:
        """Return the error that the caller gets for one that ended the run."""
        if not isinstance(error, Exception):
            return error
        facts = {"run_id": self.record.run_id, "flow_run_id": self.record.flow_run_id}
        if error is not self._cause:
            return Unavailable(
                f"The pipeline {self.pipeline.name!r} could not be tracked: {type(error).__name__}: {error}.",
                hint="loopwright status",
                **facts,
            )
        where = f"Step {self._failed_step!r} of the" if self._failed_step else "The"
        text = str(error).partition("\nTry: ")[0]
        return StepFailed(
            f"{where} pipeline {self.pipeline.name!r} failed: {type(error).__name__}: {text}",
            hint="loopwright pipeline list",
            step=self._failed_step,
            **facts,
        )


def _ledger(project: Project) -> Ledger:
    if project.ledger_url not in _ledgers:
        _ledgers[project.ledger_url] = Ledger.open(project, actor="pipelines")
    return _ledgers[project.ledger_url]


def _record(
    pipeline: Pipeline[Any, Any], parameters: dict[str, Any], trigger: str, environment: Environment
) -> PipelineRun:
    seed = parameters.get("seed")
    return PipelineRun(
        pipeline=pipeline.entrypoint,
        run_id="",
        flow_run_id="",
        status="running",
        started=now(),
        parameters={name: _plain(value) for name, value in parameters.items()},
        git_commit=environment.git_commit,
        git_dirty=environment.git_dirty,
        diff_digest=environment.diff_digest,
        lock_digest=environment.lock_digest,
        python=environment.python,
        seed=seed if isinstance(seed, int) and not isinstance(seed, bool) else None,
        trigger=trigger,
    )


def _plain(value: Any) -> Any:
    """Return a parameter as the ledger can keep it: JSON values as they are, anything else as text."""
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return repr(value)[:200]
    return value


def _environment_files(project: Project, environment: Environment) -> dict[str, Path]:
    """Return what is stored with each run to repeat it. Runs in the same environment share the files."""
    facts = dataclasses.asdict(environment)
    del facts["diff"], facts["lock"]
    text = json.dumps(facts, indent=1)
    path = stored(project, hashlib.sha256(text.encode()).hexdigest(), "json")
    return {"environment.json": keep_text(path, text), **keep(project, environment)}


def _tables(value: Any, depth: int = 2) -> Iterator[Any]:
    """Yield the pandas frames and Arrow tables in a value, looking into plain containers."""
    kind = type(value)
    if (kind.__name__, kind.__module__.partition(".")[0]) in {("DataFrame", "pandas"), ("Table", "pyarrow")}:
        yield value
    elif depth and isinstance(value, dict) and len(value) <= 100:
        for item in value.values():
            yield from _tables(item, depth - 1)
    elif depth and isinstance(value, (tuple, list)) and len(value) <= 100:
        for item in value:
            yield from _tables(item, depth - 1)
