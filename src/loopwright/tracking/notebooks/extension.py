"""``%load_ext loopwright``: tracking, datasets and the registry from inside a notebook.

Three magics. Everything else, such as ``mlflow.log_metric`` or autologging, is plain MLflow and goes into the same run::

    %load_ext loopwright
    %lw_track forest depth=6
    wine = %lw_dataset wine data/wine.csv
    ...
    %lw_register wine model table --target grower
    %lw_track --end
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from loopwright.errors import InvalidInput, LoopwrightError, listing

if TYPE_CHECKING:
    from loopwright.config import Project
    from loopwright.records import DatasetRef, ModelVersion
    from loopwright.tracking.active import Tracked

__all__ = ["Session", "load"]


def load(shell: Any) -> Session:
    """Add the magics to an IPython shell. Nothing is started and nothing heavy is imported before one is used."""
    session = Session(shell)
    for magic in (session.lw_track, session.lw_dataset, session.lw_register):
        shell.register_magic_function(magic, magic_kind="line", magic_name=magic.__name__)
    shell.events.register("pre_run_cell", session.before_cell)
    shell.events.register("post_run_cell", session.after_cell)
    atexit.register(session.close)
    return session


class Session:
    """What one notebook has open: at most one tracked run."""

    def __init__(self, shell: Any) -> None:
        from loopwright.lineage.context import Recorder

        self.shell = shell
        self.recorder = Recorder("notebook")
        self.tracked: Tracked | None = None
        self._first_cell = 0
        self._written: tuple[DatasetRef, ...] = ()
        self._outer: Path | None = None
        from loopwright.tracking.notebooks.run import RUN_VARIABLE

        if described := os.environ.get(RUN_VARIABLE):
            # The notebook as a whole is a tracked run already.
            self._outer = Path(described)
            self.recorder.run_id = json.loads(self._outer.read_text())["run_id"]

    def before_cell(self, *_info: Any) -> None:
        """Make what a cell reads and registers belong to the run."""
        from loopwright.lineage.context import recorder

        # A cell runs in a context of its own: what was set in another one is not seen there.
        recorder.set(self.recorder if self.recorder.run_id else None)

    def after_cell(self, *_result: Any) -> None:
        """Write down the datasets that a cell has read, at once: a kernel can be killed at any moment."""
        datasets = tuple(self.recorder.datasets)
        if datasets == self._written or not self.recorder.run_id:
            return
        if self._outer is not None:
            import msgspec

            (self._outer.parent / "datasets.json").write_bytes(msgspec.json.encode(datasets))
        elif self.tracked is not None:
            self.tracked.log_datasets([item for item in datasets if item not in self._written])
            self.tracked.log({}, {"loopwright.dataset": datasets[-1].digest})
        self._written = datasets

    def lw_track(self, line: str) -> None:
        """Start a tracked run, or end it.

        ``%lw_track NAME depth=6`` starts a run with parameters and ends the one before. ``%lw_track --end`` ends it,
        ``%lw_track --failed`` too, as failed. The code of the cells in between is kept as an artifact.
        """
        words = shlex.split(line)
        if words in (["--end"], ["--failed"]):
            self._end("FAILED" if words == ["--failed"] else "FINISHED")
            return
        given = [word for word in words if "=" in word]
        names = [word for word in words if word not in given]
        if len(names) > 1 or any(name.startswith("-") for name in names):
            raise InvalidInput(
                f"%lw_track {line} cannot be understood.",
                valid="%lw_track [NAME] [name=value ...], or %lw_track --end.",
            )
        parameters = dict(word.split("=", 1) for word in given)
        if self._outer is not None:
            _say(f"This notebook runs as run {self.recorder.run_id} already.")
            return
        self._end("FINISHED")
        self._begin(names[0] if names else "notebook", parameters)

    def lw_dataset(self, line: str) -> Any:
        """Read a dataset, keep a snapshot of it, and write down that the run uses it.

        ``wine = %lw_dataset wine data/wine.csv`` reads a file; ``wine = %lw_dataset wine frame`` takes a variable.
        """
        import loopwright

        words = shlex.split(line)
        if len(words) != 2:
            raise InvalidInput(
                f"%lw_dataset {line} cannot be understood.", valid="%lw_dataset NAME <file or variable>."
            )
        name, source = words
        value = self.shell.user_ns.get(source, source)
        self.before_cell()
        return loopwright.dataset(name, value, project=self._project())

    def lw_register(self, line: str) -> ModelVersion:
        """Register a fitted model with the table it was fitted on.

        ``%lw_register wine model table --target grower`` takes two variables; ``--metrics scores`` adds a dict of
        metrics. Without ``--target`` the column is the one in `loopwright.toml`.
        """
        import loopwright

        words, options = _options(shlex.split(line), ("--target", "--metrics"))
        if len(words) != 3:
            raise InvalidInput(
                f"%lw_register {line} cannot be understood.",
                valid="%lw_register NAME MODEL TABLE [--target COLUMN] [--metrics DICT].",
            )
        project = self._project()
        self._connect(project)
        self.before_cell()
        made: ModelVersion = loopwright.register(
            words[0],
            self.shell.ev(words[1]),
            self.shell.ev(words[2]),
            target=options.get("--target"),
            project=project,
            metrics=self.shell.ev(options["--metrics"]) if "--metrics" in options else None,
        )
        _say(f"Registered {made.ref}. Next: loopwright deployment start NAME --version {made.version}")
        return made

    def close(self) -> None:
        """End an open run, when the kernel ends."""
        with contextlib.suppress(LoopwrightError):
            self._end("FINISHED")

    def _project(self) -> Project:
        from loopwright.config import Project

        return Project.find()

    def _connect(self, project: Project) -> None:
        from loopwright import parts

        parts.connect(project)

    def _begin(self, name: str, parameters: dict[str, str]) -> None:
        from loopwright.lineage import capture
        from loopwright.lineage.context import Recorder
        from loopwright.lineage.environment import keep
        from loopwright.tracking import ui_url
        from loopwright.tracking.active import begin

        project = self._project()
        self._connect(project)
        environment = capture(project)
        tags = {"loopwright.notebook": name, "loopwright.python": environment.python}
        tags["loopwright.lock"] = environment.lock_digest
        if environment.git_commit:
            tags["mlflow.source.git.commit"] = environment.git_commit
            tags["loopwright.git_dirty"] = str(environment.git_dirty).lower()
        self.tracked = begin(project, name, tags)
        self.tracked.push()  # cells do not share a context, so `active` could not be left again
        self.tracked.log(parameters, {})
        self.tracked.keep(keep(project, environment))
        self.recorder = Recorder("notebook", self.tracked.run_id)
        self._written = ()
        self._first_cell = len(self.shell.user_ns.get("In", ()))
        self.before_cell()
        _say(f"Run {self.tracked.run_id}: {ui_url(project, self.tracked.run_id)}")

    def _end(self, status: Literal["FINISHED", "FAILED"]) -> None:
        tracked, self.tracked = self.tracked, None
        if tracked is None:
            return
        self.after_cell()
        cells = [str(cell) for cell in self.shell.user_ns.get("In", ())][self._first_cell :]
        self._keep_code(tracked, cells)
        tracked.pop(status)
        tracked.end(status)
        self.recorder.run_id = ""
        self.before_cell()
        _say(f"Run {tracked.run_id} ended.")

    def _keep_code(self, tracked: Tracked, cells: list[str]) -> None:
        import tempfile

        with tempfile.TemporaryDirectory(prefix="loopwright-") as folder:
            path = Path(folder) / "cells.py"
            path.write_text(
                "\n\n".join(f"# %%\n{cell}" for cell in cells if cell.strip()) + "\n", encoding="utf-8"
            )
            tracked.keep({"cells.py": path})


def _options(words: list[str], known: tuple[str, ...]) -> tuple[list[str], dict[str, str]]:
    rest: list[str] = []
    found: dict[str, str] = {}
    given = iter(words)
    for word in given:
        name, equals, value = word.partition("=")
        if name in known:
            found[name] = value if equals else next(given, "")
        elif word.startswith("--"):
            raise InvalidInput(f"There is no option {word}.", valid=f"Options: {listing(known)}.")
        else:
            rest.append(word)
    return rest, found


def _say(text: str) -> None:
    print(text)  # noqa: T201 - a magic speaks in the notebook
