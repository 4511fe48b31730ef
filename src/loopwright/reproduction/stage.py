"""Where a run is repeated: a project folder with throw-away stores and a server of its own, which ends with it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from loopwright.config import PROJECT_VARIABLE, STATE
from loopwright.errors import Damaged, NotFound, Unavailable
from loopwright.lineage.environment import VARIABLES
from loopwright.lineage.restored import VARIABLE
from loopwright.parts import PARENT_VARIABLE, PART_VARIABLE
from loopwright.records import DatasetRef
from loopwright.reproduction.packages import Packages
from loopwright.reproduction.sources import Sources

__all__ = ["Stage", "open_stage"]

#: What would lead a repetition to the user's own servers, stores and interpreter.
_FOREIGN = (
    "LOOPWRIGHT_",
    "MLFLOW_",
    "_MLFLOW_",
    "PREFECT_",
    "PYTHONPATH",
    "PYTHONHOME",
    "VIRTUAL_ENV",
    "GIT_",
)
_LINES_SHOWN = 15
_POLL_S = 0.1
#: The two stores of a server. Empty ones are kept: making their tables takes longer than all the rest.
_STORES = (Path("tracking") / "mlflow.db", Path("prefect") / "prefect.db")


@dataclass(frozen=True)
class Stage:
    """A project folder and a server, ready to repeat a run in."""

    root: Path
    python: Path
    variables: Mapping[str, str]
    log: Path
    timeout_s: float

    def replay(
        self, order: Mapping[str, Any], say: Callable[[str], None], *, hash_seed: str | None = None
    ) -> dict[str, Any]:
        """Carry out one repetition in a process of its own and return what it wrote: see `replay.main`.

        `say` is called with each step when it begins.

        Raises
        ------
        Unavailable
            It took too long.
        Damaged
            It ended without a result.
        """
        paths = [self.root / STATE / name for name in ("order.json", "result.json", "steps.txt")]
        paths[0].write_bytes(msgspec.json.encode(order, enc_hook=str))
        paths[1].unlink(missing_ok=True)
        paths[2].write_text("")
        seed = {} if hash_seed is None else {"PYTHONHASHSEED": hash_seed}
        arguments = ["-m", "loopwright.reproduction.replay", *map(str, paths)]
        with _process(self, arguments, seed) as process:
            self._follow(process, paths[2], say)
        try:
            result: dict[str, Any] = msgspec.json.decode(paths[1].read_bytes())
        except (OSError, msgspec.DecodeError):
            raise self._without_result(process.returncode) from None
        return result

    def _follow(self, process: subprocess.Popen[bytes], steps: Path, say: Callable[[str], None]) -> None:
        """Wait until a repetition ends, and pass on the names of its steps as they begin."""
        until, said = time.monotonic() + self.timeout_s, 0
        while process.poll() is None:
            if time.monotonic() > until:
                raise Unavailable(
                    f"The run was not through after {self.timeout_s:.0f} s.\n{self.tail()}",
                    hint="give it more time: --timeout 2h",
                )
            names = steps.read_text().splitlines()
            for name in names[said:]:
                say(f"step {name}")
            said = len(names)
            time.sleep(_POLL_S)

    def _without_result(self, code: int) -> Exception:
        if "No module named loopwright" in self.tail():
            return NotFound(
                "The loopwright in the packages of the run cannot repeat runs: it is older than this command.",
                hint="--same-environment takes the present packages and says so in the verdict",
            )
        return Damaged(
            f"The process that repeats the run ended with {code}.\n{self.tail()}", hint=f"less {self.log}"
        )

    def tail(self) -> str:
        """Return the last lines of what was printed."""
        lines = self.log.read_bytes()[-20_000:].decode(errors="replace").splitlines()
        return "\n".join([f"The last lines of {self.log}:", *lines[-_LINES_SHOWN:]])


@contextlib.contextmanager
def open_stage(
    sources: Sources,
    packages: Packages,
    *,
    datasets: list[tuple[DatasetRef, Path]],
    surroundings: Mapping[str, Any],
    stores: Path,
    log: Path,
    timeout_s: float,
) -> Iterator[Stage]:
    """Make the stores, put the recorded datasets there and start the server; stop it and end all processes after.

    Parameters
    ----------
    datasets
        Each dataset that the run had read with the file of its snapshot.
    surroundings
        The content of the run's `environment.json`.
    stores
        A folder where empty stores are kept for the next time.
    log
        Where everything that is printed goes.
    timeout_s
        How long one repetition may take.
    """
    state = sources.root / STATE
    state.mkdir(exist_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("")
    for ref, path in datasets:
        target = state / "datasets" / ref.digest[:2] / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.symlink_to(path)
    recorded = state / "recorded.json"
    recorded.write_bytes(msgspec.json.encode([ref for ref, _ in datasets]))
    port = _free_port()
    variables = _variables(sources, packages, surroundings, port) | {VARIABLE: str(recorded)}
    stage = Stage(sources.root, packages.python, variables, log, timeout_s)
    fresh = not _copy_stores(stores, state)
    arguments = ["-m", "loopwright.supervisor.server", "--port", str(port)]
    follow = {PART_VARIABLE: "server", PARENT_VARIABLE: str(os.getpid())}
    with _process(stage, arguments, follow) as server:
        if fresh:
            _wait_for(server, port, stage)
            _keep_stores(state, stores)
        yield stage


def _variables(
    sources: Sources, packages: Packages, surroundings: Mapping[str, Any], port: int
) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_FOREIGN) and name not in VARIABLES
    }
    base = f"http://127.0.0.1:{port}"
    return {
        **kept,
        "PYTHONHASHSEED": "0",
        **{name: str(value) for name, value in surroundings.get("variables", {}).items()},
        PROJECT_VARIABLE: str(sources.root),
        "PYTHONPATH": os.pathsep.join(map(str, packages.paths)),
        "PYTHONUNBUFFERED": "1",
        "PATH": os.pathsep.join([str(packages.python.parent), kept.get("PATH", os.defpath)]),
        "MLFLOW_TRACKING_URI": f"{base}/mlflow",
        "MLFLOW_REGISTRY_URI": f"{base}/mlflow",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "PREFECT_API_URL": f"{base}/prefect/api",
        "PREFECT_HOME": str(sources.root / STATE / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }


@contextlib.contextmanager
def _process(
    stage: Stage, arguments: list[str], variables: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a Python in the stage; when the block is left, it and all that it has started are ended."""
    with stage.log.open("ab") as out:
        process = subprocess.Popen(
            [str(stage.python), *arguments],
            cwd=stage.root,
            env={**stage.variables, **variables},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    # Nothing of the stage is kept: no need to let anybody finish.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(server: subprocess.Popen[bytes], port: int, stage: Stage) -> None:
    until = time.monotonic() + 180
    while not _listens(port):
        if server.poll() is not None or time.monotonic() > until:
            raise Unavailable(
                f"The server of the repetition did not start.\n{stage.tail()}", hint=f"less {stage.log}"
            )
        time.sleep(_POLL_S)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _copy_stores(stores: Path, state: Path) -> bool:
    """Copy the empty stores that were kept; False when there are none."""
    if not all((stores / path.name).is_file() for path in _STORES):
        return False
    for path in _STORES:
        (state / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(stores / path.name, state / path)
    return True


def _keep_stores(state: Path, stores: Path) -> None:
    stores.mkdir(parents=True, exist_ok=True)
    for path in _STORES:
        if not (state / path).is_file():  # another version of the server keeps them elsewhere
            return
        temporary = stores / f".{path.name}.{os.getpid()}"
        with (
            contextlib.closing(sqlite3.connect(state / path)) as old,
            contextlib.closing(sqlite3.connect(temporary)) as new,
        ):
            old.backup(new)
        temporary.replace(stores / path.name)
