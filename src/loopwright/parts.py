"""Where the running parts of a project are, and how a command gets those it needs.

A part is one process of the system: the local server, the runner, a serving worker, the controller, the console. The
supervisor starts and watches them and writes what runs where to ``.loopwright/run/parts.json``; everybody else only
reads it, here.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import psutil

from loopwright.config import PROJECT_VARIABLE, Project
from loopwright.errors import Unavailable, listing

__all__ = [
    "ALL",
    "Part",
    "alive",
    "ask",
    "beat",
    "claim",
    "connect",
    "ensure",
    "follow_supervisor",
    "local_path",
    "mlflow_login",
    "mlflow_url",
    "plain_url",
    "prefect_url",
    "read",
    "ready",
    "supervisor",
    "tail",
    "unclaim",
    "url",
    "wanted",
    "write",
]

#: Every kind of part, in the order in which they are started. `stream` runs only where a stream is declared.
ALL = ("server", "serving", "runner", "stream", "controller", "console")
#: Set for a part's process by the supervisor: the part's own name.
PART_VARIABLE = "LOOPWRIGHT_PART"
#: Set beside it: the pid of the process that started this one.
PARENT_VARIABLE = "LOOPWRIGHT_PARENT"

#: The MLflow address that `connect` chose itself: MLflow's clients send metric points to it in batches.
BUFFERED_VARIABLE = "LOOPWRIGHT_BUFFERED_URI"
#: Before an address of an MLflow store: what is behind it, with metric points written in batches.
BUFFERED_SCHEME = "loopwright+"

_started: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True, slots=True)
class Part:
    """One running part. `created` is the process's start time, which tells a reused pid from the real one."""

    name: str
    pid: int
    created: float
    url: str = ""
    state: str = "starting"
    restarts: int = 0


def _write_json(project: Project, name: str, body: Any) -> None:
    project.run.mkdir(parents=True, exist_ok=True)
    temporary = project.run / f".{name}.{os.getpid()}"
    temporary.write_text(json.dumps(body, indent=1))
    temporary.replace(project.run / name)


def _read_json(project: Project, name: str) -> Any:
    try:
        return json.loads((project.run / name).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def read(project: Project) -> dict[str, Part]:
    """Return the parts as the supervisor last wrote them, by name; a part may have died since: see `alive`."""
    return {name: Part(**facts) for name, facts in (_read_json(project, "parts.json") or {}).items()}


def write(project: Project, parts: dict[str, Part]) -> None:
    """Replace the table of parts. Only the supervisor calls this."""
    _write_json(project, "parts.json", {name: asdict(part) for name, part in parts.items()})


def alive(part: Part) -> bool:
    """Whether the part's process still runs and is the same process."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(part.pid)
        return abs(process.create_time() - part.created) < 1 and process.status() != psutil.STATUS_ZOMBIE
    return False


def supervisor(project: Project) -> Part | None:
    """Return the project's running supervisor, or None."""
    facts = _read_json(project, "supervisor.json")
    part = Part(**facts) if facts else None
    return part if part and alive(part) else None


def claim(project: Project) -> Part:
    """Write down this process as the project's supervisor, which `supervisor` then returns. Only the supervisor calls this."""
    me = psutil.Process()
    part = Part("supervisor", me.pid, me.create_time(), state="ready")
    _write_json(project, "supervisor.json", asdict(part))
    return part


def unclaim(project: Project) -> None:
    """Take back what `claim` wrote."""
    (project.run / "supervisor.json").unlink(missing_ok=True)


def wanted(project: Project) -> tuple[str, ...]:
    """Return which kinds of part the supervisor is asked to keep running."""
    names = _read_json(project, "wanted.json") or []
    return tuple(name for name in ALL if name in names)


def ask(project: Project, names: tuple[str, ...]) -> None:
    """Ask the supervisor, running or about to start, to keep these kinds of part running."""
    _write_json(project, "wanted.json", list(names))


def ready(project: Project, *names: str) -> bool:
    """Whether at least one part of each kind is up, and all of that kind that are known are ready."""
    parts = read(project)
    for name in names:
        mine = [part for part in parts.values() if part.name == name or part.name.startswith(f"{name}-")]
        if not mine or not all(part.state == "ready" and alive(part) for part in mine):
            return False
    return True


def start(project: Project, *names: str) -> None:
    """Make sure that a supervisor runs in the background and is asked for these parts; do not wait for them."""
    running = supervisor(project)
    already = wanted(project) if running else ()
    ask(project, tuple(dict.fromkeys((*already, *names))))
    if running:
        return
    log = project.run / "logs" / "supervisor.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        # Kept, so that the interpreter does not complain that it is still running when it is meant to.
        _started.append(
            subprocess.Popen(
                [sys.executable, "-m", "loopwright.supervisor"],
                cwd=project.root,
                env=os.environ | {PROJECT_VARIABLE: str(project.root)},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in the terminal that happened to start it must not stop it
            )
        )


def ensure(project: Project, *names: str, wait_s: float = 120.0) -> None:
    """Have these parts running, starting them in the background when they are not, and wait until they are ready.

    Raises
    ------
    Unavailable
        A part did not become ready within `wait_s` seconds, or its supervisor gave up; the message ends with the
        last lines of its log.
    """
    if supervisor(project) and ready(project, *names):
        return
    print(f"Starting {listing(names)} of project {project.name} in the background ...", file=sys.stderr)  # noqa: T201
    start(project, *names)
    until = time.monotonic() + wait_s
    started = time.monotonic()
    while not ready(project, *names):
        running = supervisor(project)
        # Without a supervisor the table still shows how an earlier one ended.
        failed = [part.name for part in read(project).values() if running and part.state == "failed"]
        gone = running is None and time.monotonic() - started > 10
        if failed or gone or time.monotonic() > until:
            name = failed[0] if failed else ("supervisor" if gone else names[0])
            raise Unavailable(
                f"{name} did not become ready within {time.monotonic() - started:.0f} s.\n{tail(project, name)}",
                # What could not even be started is not tried again: the supervisor read the configuration once.
                hint="loopwright status"
                if _had_process(project, name)
                else "loopwright down && loopwright up",
                part=name,
            )
        time.sleep(0.1)


def _had_process(project: Project, name: str) -> bool:
    part = read(project).get(name)
    return part is None or part.pid > 0


def tail(project: Project, name: str, lines: int = 15) -> str:
    """Return the last lines of a part's log; of a kind with several, of the one that was written to last."""
    candidates = [*(project.run / "logs").glob(f"{name}.log"), *(project.run / "logs").glob(f"{name}-*.log")]
    if not candidates:
        return ""
    newest = max(candidates, key=lambda path: path.stat().st_mtime_ns)
    text = newest.read_bytes()[-20_000:].decode(errors="replace")
    return f"The last lines of {newest}:\n" + "\n".join(text.splitlines()[-lines:])


def url(project: Project, name: str) -> str:
    """Return the address of a part, such as ``http://127.0.0.1:8420``.

    Raises
    ------
    Unavailable
        The part is not running.
    """
    parts = read(project)
    for part in parts.values():
        if (part.name == name or part.name.startswith(f"{name}-")) and part.url and alive(part):
            return part.url
    raise Unavailable(f"The part {name!r} of project {project.name} is not running.", hint="loopwright up")


def mlflow_url(project: Project) -> str:
    """Return the MLflow tracking URI: ``MLFLOW_TRACKING_URI`` where it is set, else the local server's.

    Without the ``loopwright+`` that it may start with for MLflow's own clients.
    """
    return plain_url(os.environ.get("MLFLOW_TRACKING_URI", "")) or f"{url(project, 'server')}/mlflow"


def local_path(uri: str) -> Path | None:
    """Return the path on this machine that an artifact URI means, or None when it names another place."""
    address = urlsplit(uri)
    return Path(unquote(address.path)) if address.scheme in {"", "file"} else None


def plain_url(address: str) -> str:
    """Return the address behind one of ours, such as ``http://host/mlflow`` for ``loopwright+http://host/mlflow``."""
    return address.removeprefix(BUFFERED_SCHEME)


def mlflow_login() -> tuple[dict[str, str], tuple[str, str] | None]:
    """Return the headers, and user and password, that MLflow's own variables give for a team's server."""
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return {"Authorization": f"Bearer {token}"}, None
    user = os.environ.get("MLFLOW_TRACKING_USERNAME")
    return {}, (user, os.environ.get("MLFLOW_TRACKING_PASSWORD", "")) if user else None


def prefect_url(project: Project) -> str:
    """Return the Prefect API URL: ``PREFECT_API_URL`` where it is set, else the local server's."""
    return os.environ.get("PREFECT_API_URL") or f"{url(project, 'server')}/prefect/api"


def connect(project: Project) -> None:
    """Point MLflow and Prefect in this process at the project's servers, starting the local one when needed.

    Must run before either is imported. Variables that are set already win, so that a team's own servers are used.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # --json output stays JSON
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("PREFECT_HOME", str(project.state / "prefect"))
    os.environ.setdefault("PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW", "ignore")
    if not (os.environ.get("MLFLOW_TRACKING_URI") and os.environ.get("PREFECT_API_URL")):
        ensure(project, "server")
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        # The plain address, not one with a scheme of ours: what reads it, or links to it, may know HTTP only.
        os.environ["MLFLOW_TRACKING_URI"] = os.environ[BUFFERED_VARIABLE] = mlflow_url(project)
    os.environ.setdefault("MLFLOW_REGISTRY_URI", os.environ["MLFLOW_TRACKING_URI"])
    os.environ.setdefault("PREFECT_API_URL", prefect_url(project))


def beat(project: Project, name: str) -> None:
    """Say that a part without an HTTP interface is alive and working."""
    project.run.mkdir(parents=True, exist_ok=True)
    (project.run / f"{name}.beat").touch()


def follow_supervisor() -> None:
    """Stop this process when its supervisor dies, so that no part is left behind alone.

    Works by watching the parent's pid: a part is a direct child of its supervisor, and is given to another parent
    when that one is gone. Does nothing in a process that no supervisor started.
    """
    if PART_VARIABLE not in os.environ:
        return
    # Asked for here, it could be the next one already.
    parent = int(os.environ.get(PARENT_VARIABLE) or os.getppid())

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="follow-supervisor", daemon=True).start()
