"""Preparing a version for scoring in a process of its own.

Compiling loads scikit-learn, the converters and sometimes MLflow; a serving process starts a transient process for it
and so never carries them.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading

import psutil

from loopwright.config import PROJECT_VARIABLE, Project
from loopwright.errors import LoopwrightError, Unavailable
from loopwright.scoring import read_manifest

__all__ = ["is_prepared", "prepare_apart"]

#: Lower priority than serving: compiling a large forest takes a core for minutes.
NICE = 10


def is_prepared(project: Project, model: str, version: int) -> bool:
    """Whether a scorer of this version lies ready to be loaded."""
    try:
        read_manifest(project.scorer(model, version))
    except LoopwrightError:
        return False
    return True


def prepare_apart(project: Project, model: str, version: int, stop: threading.Event) -> None:
    """Prepare a version in a process of its own and wait for it.

    Raises
    ------
    Unavailable
        It failed, with what it said; or `stop` was set, and the process was ended.
    """
    command = [sys.executable, "-m", "loopwright.scoring.prepare", model, str(version)]
    with subprocess.Popen(
        command,
        cwd=project.root,
        env=os.environ | {PROJECT_VARIABLE: str(project.root)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        with contextlib.suppress(psutil.Error):
            psutil.Process(process.pid).nice(NICE)
        errors = _wait(process, stop)
    hint = f"python -m loopwright.scoring.prepare {model} {version}"
    if stop.is_set():
        raise Unavailable(f"{model}/{version} was not prepared: this process is stopping.", hint=hint)
    if process.returncode:
        said = "\n".join(errors.strip().splitlines()[-5:]) or f"exit code {process.returncode}"
        raise Unavailable(f"{model}/{version} could not be prepared for scoring: {said}", hint=hint)


def _wait(process: subprocess.Popen[str], stop: threading.Event) -> str:
    while True:
        try:
            return process.communicate(timeout=0.2)[1]
        except subprocess.TimeoutExpired:
            if stop.is_set():
                process.kill()
