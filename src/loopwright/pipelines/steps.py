"""The steps of one run: each call is a task in Prefect, is written down with what went in and came out, and its result is kept.

A kept result is used again instead of a call when the call's key is the same: in a later run for steps with
``cache=True``, and for all steps when a failed run is resumed.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import inspect
import itertools
import math
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Literal

from loopwright.config import Project
from loopwright.errors import Damaged, InvalidInput
from loopwright.lineage.context import Recorder, recorder
from loopwright.lineage.digests import file_digest
from loopwright.pipelines import kept, limits
from loopwright.pipelines.definition import Step, resolved
from loopwright.pipelines.engine import time_limit
from loopwright.pipelines.flows import Flow, Task
from loopwright.pipelines.keys import argument_digest, code_of, key_of
from loopwright.pipelines.parallel import Parallel
from loopwright.pipelines.progress import Progress
from loopwright.records import DatasetRef, StepRun
from loopwright.tracking.active import Tracked

__all__ = ["Steps", "Watch"]

#: Told of each call: "began" or "ended", the step's name, and what it returned; from the thread that carries it out.
Watch = Callable[[Literal["began", "ended"], str, Any], None]

_SCALARS = (bool, int, float, complex, str, bytes, type(None))


class Steps:
    """The calls of steps in one run.

    Parameters
    ----------
    recorder
        What the run reads.
    resume
        The run whose kept results are used again; empty for none.
    remote
        Carries a step's function out elsewhere; None for this process.
    """

    def __init__(
        self,
        project: Project,
        flow: Flow,
        tracked: Tracked,
        run_recorder: Recorder,
        progress: Progress,
        *,
        resume: str = "",
        remote: Callable[..., Any] | None = None,
        watch: Watch = lambda _what, _step, _value: None,
    ) -> None:
        self.project = project
        self.recorder = run_recorder
        #: The step that raised what went through the pipeline's code last, and what it raised.
        self.failed_step = ""
        self.cause: BaseException | None = None
        self._flow = flow
        self._tracked = tracked
        self._progress = progress
        self._resume = resume
        self._remote = remote
        self._watch = watch
        self._parallel = Parallel(tracked, flow, project.config.pipelines.workers)
        self._started = time.perf_counter()
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._runs: dict[int, StepRun] = {}
        self._tasks: dict[int, Task] = {}
        self._origins: dict[int, tuple[Any, int]] = {}
        self._occurrences: collections.Counter[str] = collections.Counter()
        self._logged: set[str] = set()

    def done(self) -> tuple[StepRun, ...]:
        """Return the calls that have ended so far, in the order of their begin."""
        with self._lock:
            return tuple(self._runs[number] for number in sorted(self._runs))

    def close(self) -> None:
        """Wait for calls that still go on beside the pipeline; those that have not begun do not."""
        self._parallel.close()

    def submit(self, step: Step[Any, Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> Future[Any]:
        """Start a call beside what goes on."""
        return self._parallel.submit(lambda: self.call(step, arguments, named))

    def map(self, step: Step[Any, Any], items: list[Any], named: dict[str, Any]) -> list[Any]:
        """Call a step for each item, several at a time; the first that fails stops those that have not begun."""
        items = resolved(items)
        with self._progress.items(step.name, len(items)) as advance:
            calls: list[Callable[[], Any]] = [
                functools.partial(self.call, step, (item,), named) for item in items
            ]
            values = self._parallel.all(calls, advance)
        self._tracked.ensure()
        return values

    def call(self, step: Step[Any, Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Carry out one call, or give its kept result."""
        arguments, named = resolved(arguments), resolved(named)
        self._tracked.ensure()
        call = _Call(self, step, arguments, named)
        self._watch("began", step.name, None)
        with self._progress.step(step.name) as said:
            try:
                value = call.carry_out()
            except BaseException as error:
                with self._lock:
                    if error is not self.cause:
                        self.failed_step, self.cause = step.name, error
                raise
            said(call.status, call.note)
        self._watch("ended", step.name, value)
        return value

    # What the calls share.

    def number(self) -> int:
        """Return the number of the next call."""
        return next(self._numbers)

    def task(self, name: str, number: int, upstream: dict[str, list[int]]) -> Task:
        """Return the Prefect task of a call."""
        known = {argument: [self._tasks[each] for each in numbers] for argument, numbers in upstream.items()}
        task = self._tasks[number] = self._flow.task(name, number, known)
        return task

    def add(self, run: StepRun) -> None:
        """Write down a call that has ended."""
        with self._lock:
            self._runs[run.number] = run

    def note(self, step: str, text: str) -> None:
        """Say what was not as usual, on the flow run's page."""
        self._flow.log(f"Step {step}: {text}", level=30)

    def came_from(self, value: Any) -> list[int]:
        """Return the numbers of the calls whose results are in a value."""
        found = []
        for item in _leaves(value):
            known = self._origins.get(id(item))
            if known is not None and _same(known[0], item):
                found.append(known[1])
        return sorted(set(found))

    def comes_from(self, value: Any, number: int) -> None:
        """Remember which call has made a value."""
        for item in _leaves(value):
            try:
                reference: Any = weakref.ref(item)
            except TypeError:  # dicts of numbers, records with slots: small, and held until the run ends
                reference = item
            self._origins[id(item)] = (reference, number)

    def digest(self, table: Any, *, again: bool = False) -> str:
        """Return the fingerprint of a frame, or an empty text when it holds what no dataset can hold."""
        from loopwright.lineage.fingerprints import fingerprint
        from loopwright.lineage.sources import table_from

        found = None if again else self.recorder.recall(table)
        if found is None:
            try:
                found = fingerprint(table_from(table))
            except InvalidInput:
                return ""
            self.recorder.remember(table, found)
        return found

    def folders(self, step: Step[Any, Any], key: str) -> tuple[list[Path], list[Path]]:
        """Return where a call's result may lie, and where it is to be kept."""
        with self._lock:
            occurrence = self._occurrences[key]
            self._occurrences[key] += 1
        lie = [kept.of_run(self.project, self._resume, key, occurrence)] if self._resume else []
        keep = [kept.of_run(self.project, self.recorder.run_id, key, occurrence)] if step.options.keep else []
        if step.options.cache:
            cached = kept.cached(self.project, key)
            lie.append(cached)
            keep.append(cached)
        return lie, keep

    def logged(self) -> tuple[dict[str, float], dict[str, str]]:
        """Return the metrics and parameters that the run has got since this was asked last."""
        metrics, params = self._tracked.logged()
        fresh = (
            {name: value for name, value in metrics.items() if name not in self._logged},
            {name: value for name, value in params.items() if name not in self._logged},
        )
        self._logged |= set(metrics) | set(params)
        return fresh

    def log_again(self, entry: kept.Entry) -> None:
        """Give the run what a call logged whose result is used again."""
        for dataset in entry.datasets:
            self.recorder.add(dataset)
        if entry.metrics or entry.params:
            self._tracked.log(entry.params, {}, list(entry.metrics.items()))

    def carry_out(self, step: Step[Any, Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Call the function, here or where the steps are carried out."""
        if self._remote is not None:
            return self._remote(step, arguments, named, recorder.get())
        with time_limit(step.options.timeout_s):
            return step.function(*arguments, **named)

    def seconds(self) -> float:
        """Return the seconds since the run's start."""
        return time.perf_counter() - self._started


class _Call:
    """One call of a step while it lasts."""

    def __init__(
        self, steps: Steps, step: Step[Any, Any], arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> None:
        self.steps = steps
        self.step = step
        self.arguments = arguments
        self.named = named
        self.status: Literal["completed", "cached", "failed"] = "failed"
        self.note = ""
        self.number = steps.number()
        self.began = steps.seconds()
        self.given = list(_tables((arguments, named)))
        bound = _bound(step, arguments, named)
        upstream = {name: numbers for name, value in bound.items() if (numbers := steps.came_from(value))}
        self.after = tuple(sorted({number for numbers in upstream.values() for number in numbers}))
        self.task = steps.task(step.name, self.number, upstream)
        self.inputs = tuple(filter(None, map(steps.digest, self.given)))
        self.key = self._key(bound)

    def _key(self, bound: dict[str, Any]) -> str:
        options = self.step.options
        if not (options.cache or options.keep):
            return ""
        digests = {name: argument_digest(value, self._known) for name, value in bound.items()}
        lacking = [name for name, digest in digests.items() if digest is None]
        if lacking:
            self._say(f"its result is not kept: the argument {lacking[0]!r} cannot be pickled")
            return ""
        code = code_of(self.step.function, self.steps.project.root)
        return key_of(code, {name: digest for name, digest in digests.items() if digest is not None})

    def _known(self, value: Any) -> str | None:
        return self.steps.digest(value) or None if _is_table(value) else None

    def _say(self, text: str) -> None:
        self.note = f"{self.note}; {text}" if self.note else text
        self.steps.note(self.step.name, text)

    def carry_out(self) -> Any:
        """Give the kept result, or call the function and keep its result."""
        lie, keep = self.steps.folders(self.step, self.key) if self.key else ([], [])
        found = self._kept(lie)
        if found is not None:
            return self._use(*found, keep)
        inner = self.steps.recorder.inner()
        if keep and self.step.options.cache:
            self.steps.logged()
        try:
            value = self._tried(inner)
        except BaseException as error:
            self._write_down("failed", ())
            if not isinstance(error, Exception):
                self.task.move("Crashed", type(error).__name__)
            raise
        outputs = self._outputs(value)
        self._write_down("completed", outputs)
        self._keep(keep, value, outputs, inner.datasets)
        self.task.move("Completed", self.note)
        return value

    def _kept(self, folders: list[Path]) -> tuple[kept.Entry, Any] | None:
        for folder in folders:
            try:
                found = kept.read(folder)
            except Damaged as error:
                self._say(f"a kept result was damaged and is computed anew ({error.fact})")
                continue
            if found and (not self.step.options.cache or self._fresh(found[0])):
                return found
        return None

    def _fresh(self, entry: kept.Entry) -> bool:
        """Whether the files that were read for a result are as they were then."""
        return all(
            _unchanged(self.steps.project, dataset, source)
            for dataset, source in zip(entry.datasets, entry.sources, strict=True)
        )

    def _use(self, entry: kept.Entry, value: Any, keep: list[Path]) -> Any:
        for table, digest in zip(_tables(value), entry.outputs, strict=False):
            self.steps.recorder.remember(table, digest)
        self.steps.log_again(entry)
        with contextlib.suppress(kept.Unkeepable):
            kept.write(keep, value, entry)
        self._write_down("cached", entry.outputs)
        self.task.move("Cached", f"the result of run {entry.run_id} is used again")
        self.steps.comes_from(value, self.number)
        return value

    def _tried(self, inner: Recorder) -> Any:
        """Call the function until it succeeds or has been tried often enough."""
        options = self.step.options
        token = recorder.set(inner)
        try:
            with limits.slot(self.steps.project, self.step.name, options.concurrency):
                for attempt in range(options.retries + 1):
                    self.task.move("Retrying" if attempt else "Running")
                    try:
                        return self.steps.carry_out(self.step, self.arguments, self.named)
                    except Exception as error:
                        message = f"{type(error).__name__}: {error}"
                        if attempt == options.retries:
                            late = isinstance(error, TimeoutError) and options.timeout_s is not None
                            self.task.move("TimedOut" if late else "Failed", message)
                            raise
                        self._say(f"try {attempt + 1} of {options.retries + 1} failed: {message}")
                        self.task.move("AwaitingRetry", message)
                        time.sleep(options.retry_delay_s)
        finally:
            recorder.reset(token)
        raise AssertionError("the last try returns or raises")

    def _outputs(self, value: Any) -> tuple[str, ...]:
        # A step that returns the frame it was given may have changed it in place: it is hashed again.
        changed = {id(table) for table in self.given}
        found = [self.steps.digest(table, again=id(table) in changed) for table in _tables(value)]
        self.steps.comes_from(value, self.number)
        return tuple(filter(None, found))

    def _write_down(self, status: Literal["completed", "cached", "failed"], outputs: tuple[str, ...]) -> None:
        self.status = status
        seconds = self.steps.seconds() - self.began
        code = self.step.code_digest
        self._run = StepRun(
            self.step.name,
            code,
            status,
            seconds,
            self.inputs,
            outputs,
            self.number,
            self.began,
            self.after,
            self.note,
        )
        self.steps.add(self._run)

    def _keep(
        self, folders: list[Path], value: Any, outputs: tuple[str, ...], datasets: list[DatasetRef]
    ) -> None:
        if not folders:
            return
        sources = tuple(_source(self.steps.project, dataset) for dataset in datasets)
        metrics, params = self.steps.logged() if self.step.options.cache else ({}, {})
        entry = kept.Entry(
            step=self.step.name,
            run_id=self.steps.recorder.run_id,
            seconds=self._run.seconds,
            outputs=outputs,
            datasets=tuple(datasets),
            sources=sources,
            metrics={name: number for name, number in metrics.items() if math.isfinite(number)},
            params=params,
        )
        try:
            kept.write(folders, value, entry)
        except kept.Unkeepable as error:
            self._say(f"its result is not kept: {error}")
            self._write_down("completed", outputs)


def _bound(step: Step[Any, Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments by name, so that a call has one key however it is written."""
    try:
        return dict(inspect.signature(step.function).bind(*arguments, **named).arguments)
    except (TypeError, ValueError):  # the call itself says what is wrong with it
        return {str(position): value for position, value in enumerate(arguments)} | named


def _source(project: Project, dataset: DatasetRef) -> tuple[int, int]:
    """Return the size in bytes and the modification time in ns of a dataset's file; zeros where there is none."""
    if dataset.source_digest:
        with contextlib.suppress(OSError):
            found = (project.root / dataset.source).stat()
            return found.st_size, found.st_mtime_ns
    return 0, 0


def _unchanged(project: Project, dataset: DatasetRef, source: tuple[int, int]) -> bool:
    if not dataset.source_digest:
        # A table that was made in the step itself; of a query it cannot be known whether it would give the same.
        return not dataset.source
    if source != (0, 0) and _source(project, dataset) == source:
        return True
    try:
        return file_digest(project.root / dataset.source) == dataset.source_digest
    except OSError:
        return False


def _same(reference: Any, item: Any) -> bool:
    return (reference() if isinstance(reference, weakref.ref) else reference) is item


def _leaves(value: Any, depth: int = 2) -> Iterator[Any]:
    """Yield what a value is made of, looking into tuples, lists and dicts; no numbers and texts."""
    if isinstance(value, _SCALARS):
        return
    items: Any = ()
    if type(value) is dict and depth and len(value) <= 100:
        items = value.values()
    elif type(value) in {tuple, list} and depth and len(value) <= 100:
        items = value
    elif not isinstance(value, (dict, tuple, list)):
        yield value
        return
    found = False
    for item in items:
        for leaf in _leaves(item, depth - 1):
            found = True
            yield leaf
    if not found:
        yield value  # a container of numbers


def _is_table(value: Any) -> bool:
    kind = type(value)
    return (kind.__name__, kind.__module__.partition(".")[0]) in {
        ("DataFrame", "pandas"),
        ("Table", "pyarrow"),
    }


def _tables(value: Any) -> Iterator[Any]:
    """Yield the pandas frames and Arrow tables in a value, looking into plain containers."""
    return (leaf for leaf in _leaves(value) if _is_table(leaf))
