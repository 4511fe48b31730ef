"""One run of a pipeline: a Prefect flow run and an MLflow run, linked, with all that `trace` needs written down."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from loopwright import parts
from loopwright.config import Project
from loopwright.errors import LoopwrightError, StepFailed, Unavailable
from loopwright.ledger import Ledger
from loopwright.lineage.context import Recorder, recorder
from loopwright.lineage.environment import Environment, capture, keep, keep_text, stored
from loopwright.pipelines import journal, kept
from loopwright.pipelines.cluster import cluster
from loopwright.pipelines.definition import Pipeline, running
from loopwright.pipelines.engine import prefect_context
from loopwright.pipelines.entrypoints import load
from loopwright.pipelines.flows import Flow
from loopwright.pipelines.progress import Progress
from loopwright.pipelines.remote import RUN_TAG, TRIGGER_TAG
from loopwright.pipelines.steps import Steps, Watch
from loopwright.records import ModelVersion, PipelineRun, now
from loopwright.tracking import client
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
    resume: str = "",
) -> Done:
    """Run a pipeline with checked parameters, as a new flow run or as the scheduled one that is given.

    `resume` is a run that failed: what its steps have computed is used again where nothing has changed.
    """
    parts.connect(project)
    return Execution(project, pipeline, parameters, trigger, resume).run(flow_run_id)


class Execution:
    """One run while it lasts."""

    def __init__(
        self,
        project: Project,
        pipeline: Pipeline[Any, Any],
        parameters: dict[str, Any],
        trigger: str,
        resume: str = "",
        watch: Watch = lambda _what, _step, _value: None,
    ) -> None:
        self.project = project
        self.pipeline = pipeline
        self.parameters = parameters
        self.resume = resume
        self.watch = watch
        self.environment = capture(project)
        self.recorder = Recorder(pipeline.entrypoint)
        self.record = _record(pipeline, parameters, trigger, resume, self.environment)
        self.ledger = _ledger(project)
        self.flow = Flow(project)
        self.tracked: Tracked
        self.steps: Steps
        self._started = time.perf_counter()
        self._described: Future[None] | None = None
        self._ended = False

    def run(self, flow_run_id: str) -> Done:
        """Run it, in Prefect and MLflow."""
        self.tracked = begin(self.project, self.pipeline.name, self._tags())
        run_id = self.recorder.run_id = self.tracked.run_id
        journal.write(self.project, run_id, flow_run_id)
        tags = [f"{RUN_TAG}{run_id}", f"{TRIGGER_TAG}{self.record.trigger}"]
        try:
            self.record = dataclasses.replace(self.record, run_id=run_id, flow_run_id=flow_run_id)
            self.flow.start(self.pipeline.name, _shown(self.parameters), tags, flow_run_id)
            value = self._body()
        except BaseException as error:
            self._fail(error)
            raise self._explained(error) from error
        finally:
            if self._ended:
                journal.forget(self.project, run_id)
        return Done(value, self.record)

    def _body(self) -> Any:
        """Run the user's function inside the run, and end the run. All is written down before Prefect calls it completed."""
        self.record = dataclasses.replace(self.record, flow_run_id=self.flow.id)
        journal.write(self.project, self.record.run_id, self.flow.id)
        self._save("pipeline.started")
        # MLflow takes this in while the first step works already.
        self._described = _describing.submit(self._describe)
        with contextlib.ExitStack() as around:
            progress = around.enter_context(Progress.in_terminal())
            remote = around.enter_context(cluster(self.project, self.tracked))
            self.steps = Steps(
                self.project,
                self.flow,
                self.tracked,
                self.recorder,
                progress,
                resume=self.resume,
                remote=remote,
                watch=self.watch,
            )
            around.callback(self.steps.close)
            around.enter_context(_set(running, self.steps))
            around.enter_context(_set(recorder, self.recorder))
            around.enter_context(prefect_context(self.flow))
            around.enter_context(self.tracked.active())
            try:
                value = self.pipeline.function(**self.parameters)
            except BaseException as error:
                if error is not self.steps.cause:  # not a step's, or another one than the code has dealt with
                    self.steps.failed_step, self.steps.cause = "", error
                raise
        self._described.result()
        self._complete(value)
        return value

    def _describe(self) -> None:
        """Write parameters, the flow run's id and the environment into the MLflow run."""
        self.tracked.log(self.parameters, {"prefect.flow_run_id": self.flow.id})
        self.tracked.keep(_environment_files(self.project, self.environment))
        if self.resume:
            metrics, params = client.logged(self.project, self.resume)
            # The steps whose results are used again have logged these; those that are called log them anew.
            self.tracked.log(params, {}, list(metrics.items()))
        kept.tidy(self.project)

    def _tags(self) -> dict[str, str]:
        environment = self.environment
        tags = {
            "mlflow.source.name": self.record.pipeline,
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
        if self.resume:
            tags["loopwright.resumed"] = self.resume
        return tags

    def _save(self, event: str) -> None:
        self.ledger.put("pipeline_run", self.record.run_id, self.record)
        self.ledger.append(event, self.record.pipeline, self.record)

    def _end(self, status: Literal["completed", "failed", "cancelled"], error: str = "") -> None:
        self.record = dataclasses.replace(
            self.record,
            status=status,
            error=error,
            seconds=time.perf_counter() - self._started,
            steps=self.steps.done() if hasattr(self, "steps") else (),
            datasets=tuple(self.recorder.datasets),
        )
        self._save(f"pipeline.{status}")

    def _complete(self, value: Any) -> None:
        if self.recorder.datasets:
            self.tracked.log_datasets(self.recorder.datasets)
            trained_on = value.training if isinstance(value, ModelVersion) else None
            dataset = trained_on or self.recorder.datasets[-1]
            self.tracked.log({}, {"loopwright.dataset": dataset.digest})
        self.tracked.end("FINISHED")
        self._end("completed")
        self.flow.end("COMPLETED")
        self._ended = True
        for run_id in filter(None, (self.record.run_id, self.resume)):
            kept.drop(self.project, run_id)

    def _fail(self, error: BaseException) -> None:
        """End the run in MLflow, Prefect and the ledger, unless it has ended."""
        if self.record.status != "running":
            return
        cancelled = journal.asked_to_stop(self.project, self.record.run_id)
        self._end("cancelled" if cancelled else "failed", f"{self._place()}{_text(error)}"[:2000])
        if self._described is not None:
            wait((self._described,))
        # When a server is gone, the journal keeps the run until the runner can end it.
        with contextlib.suppress(LoopwrightError):
            self.tracked.end("FAILED" if isinstance(error, Exception) else "KILLED")
            if self.flow.id:
                self.flow.end(*_state(error, self.record.error, cancelled))
            self._ended = True

    def _place(self) -> str:
        step = self.steps.failed_step if hasattr(self, "steps") else ""
        return f"step {step}: " if step else ""

    def _explained(self, error: BaseException) -> BaseException:
        """Return the error that the caller gets for one that ended the run."""
        if not isinstance(error, Exception):
            return error
        facts = {"run_id": self.record.run_id, "flow_run_id": self.record.flow_run_id}
        if not hasattr(self, "steps") or error is not self.steps.cause:
            if isinstance(error, StepFailed):
                return error
            return Unavailable(
                f"The pipeline {self.pipeline.name!r} could not be tracked: {_text(error)}.",
                hint="loopwright status",
                **facts,
            )
        step = self.steps.failed_step
        where = f"Step {step!r} of the" if step else "The"
        text = str(error).partition("\nTry: ")[0]
        return StepFailed(
            f"{where} pipeline {self.pipeline.name!r} failed: {type(error).__name__}: {text}",
            hint=f"loopwright pipeline resume {self.record.run_id[:8]}   (goes on at this step, once it is mended)"
            if step
            else f"loopwright pipeline show {self.record.run_id[:8]}",
            step=step,
            **facts,
        )


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _state(error: BaseException, message: str, cancelled: bool) -> tuple[str, str]:
    """Return the type and the message of the state in which Prefect is told that a run has ended."""
    if cancelled:
        return "CANCELLED", "Cancelled."
    return ("FAILED", message) if isinstance(error, Exception) else ("CRASHED", f"Crashed: {message}")


@contextlib.contextmanager
def _set(variable: ContextVar[Any], value: Any) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def _shown(parameters: dict[str, Any]) -> dict[str, Any]:
    return {name: _plain(value) for name, value in parameters.items()}


def _ledger(project: Project) -> Ledger:
    if project.ledger_url not in _ledgers:
        _ledgers[project.ledger_url] = Ledger.open(project, actor="pipelines")
    return _ledgers[project.ledger_url]


def _record(
    pipeline: Pipeline[Any, Any],
    parameters: dict[str, Any],
    trigger: str,
    resume: str,
    environment: Environment,
) -> PipelineRun:
    seed = parameters.get("seed")
    return PipelineRun(
        pipeline=pipeline.entrypoint,
        run_id="",
        flow_run_id="",
        status="running",
        started=now(),
        parameters=_shown(parameters),
        git_commit=environment.git_commit,
        git_dirty=environment.git_dirty,
        diff_digest=environment.diff_digest,
        lock_digest=environment.lock_digest,
        python=environment.python,
        seed=seed if isinstance(seed, int) and not isinstance(seed, bool) else None,
        trigger=trigger,
        resumed=resume,
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
