"""The project as a service of the machine: systemd's unit, or launchd's property list, so that it survives a reboot.

The service is the supervisor itself, not ``loopwright up``: it is the process that stops the others in order.
"""

from __future__ import annotations

import os
import plistlib
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from loopwright import parts
from loopwright.config import PROJECT_VARIABLE, Project
from loopwright.errors import Conflict, Denied, NotFound, Unavailable

__all__ = ["Service", "install", "service", "state", "uninstall", "verify"]

Scope = Literal["user", "system"]
_SYSTEMD = Path("/run/systemd/system")
#: Passed on when they are set where the service is installed. Keys and passwords are not: a unit can be read by all.
_PASSED_ON = ("TZ", "LOOPWRIGHT_LEDGER", "MLFLOW_TRACKING_URI", "PREFECT_API_URL")
#: In the project's state folder, for what the service's environment must hold and nobody else may read.
ENVIRONMENT = "service.env"
#: The supervisor gives its parts eight seconds.
_STOP_S = 30
_MODULE = ("-m", "loopwright.supervisor", "--all")


@dataclass(frozen=True, slots=True)
class Service:
    """A service as it is to be: its name, its file and what stands in it."""

    name: str
    scope: Scope
    kind: Literal["systemd", "launchd"]
    path: Path
    text: str

    @property
    def unit(self) -> str:
        """The name its manager knows it by."""
        return f"{self.name}.service" if self.kind == "systemd" else self.name


def service(project: Project, scope: Scope) -> Service:
    """Return the service of a project for this machine: launchd's on macOS, else systemd's."""
    slug = re.sub(r"[^A-Za-z0-9_.-]+", "-", project.name).strip("-") or "project"
    if sys.platform == "darwin":
        name = f"loopwright.{slug}"
        folder = Path.home() / "Library/LaunchAgents" if scope == "user" else Path("/Library/LaunchDaemons")
        return Service(name, scope, "launchd", folder / f"{name}.plist", _plist(project, name))
    name = f"loopwright-{slug}"
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    folder = home / "systemd/user" if scope == "user" else Path("/etc/systemd/system")
    return Service(name, scope, "systemd", folder / f"{name}.service", _unit(project, scope))


def _environment(project: Project) -> dict[str, str]:
    binaries = Path(sys.executable).parent
    path = f"{binaries}:/usr/local/bin:/usr/bin:/bin"
    given = {
        name: os.environ[name] for name in _PASSED_ON if os.environ.get(name) and "@" not in os.environ[name]
    }
    return {PROJECT_VARIABLE: str(project.root), "PATH": path, **given}


def _unit(project: Project, scope: Scope) -> str:
    root = str(project.root)
    lines = [
        "[Unit]",
        f"Description=Loopwright project {_escaped(project.name)}",
        "After=network-online.target",
        "Wants=network-online.target",
        "",
        "[Service]",
        "Type=simple",
        f"WorkingDirectory={_escaped(root)}",
        *(f"Environment={_quoted(f'{name}={value}')}" for name, value in _environment(project).items()),
        f"EnvironmentFile=-{_escaped(str(project.state / ENVIRONMENT))}",
        f"ExecStart={' '.join(_quoted(word) for word in (sys.executable, *_MODULE))}",
        "Restart=on-failure",
        "RestartSec=5",
        # The supervisor stops its parts in order; only what is left afterwards is killed.
        "KillMode=mixed",
        f"TimeoutStopSec={_STOP_S}",
        "NoNewPrivileges=yes",
    ]
    if scope == "system":
        lines += [
            f"User={_user()}",
            # Pipelines write where they like in their home and project; not into the system.
            "ProtectSystem=full",
            "ProtectKernelTunables=yes",
            "ProtectControlGroups=yes",
            "RestrictSUIDSGID=yes",
            "LockPersonality=yes",
        ]
    target = "multi-user.target" if scope == "system" else "default.target"
    return "\n".join([*lines, "", "[Install]", f"WantedBy={target}", ""])


def _plist(project: Project, name: str) -> str:
    body = {
        "Label": name,
        "ProgramArguments": [sys.executable, *_MODULE],
        "WorkingDirectory": str(project.root),
        "EnvironmentVariables": _environment(project),
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ExitTimeOut": _STOP_S,
        "StandardOutPath": str(project.run / "logs" / "supervisor.log"),
        "StandardErrorPath": str(project.run / "logs" / "supervisor.log"),
    }
    return plistlib.dumps(body).decode()


def _escaped(text: str) -> str:
    return text.replace("%", "%%")


def _quoted(text: str) -> str:
    text = _escaped(text).replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return f'"{text}"' if re.search(r"[\s\"'\\;]", text) else text


def _user() -> str:
    return os.environ.get("SUDO_USER") or Path.home().owner()


def verify(found: Service) -> str:
    """Return what ``systemd-analyze verify`` says against a unit; empty when it is fine or the tool is not there."""
    tool = shutil.which("systemd-analyze")
    if found.kind != "systemd" or tool is None:
        return ""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / found.unit
        path.write_text(found.text)
        words = [tool, "verify", "--man=no", *(["--user"] if found.scope == "user" else []), str(path)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    # It also speaks of other units of the machine.
    lines = [line for line in done.stderr.splitlines() if found.unit in line]
    return "\n".join(lines)


def install(project: Project, found: Service) -> None:
    """Write the service's file and have it started now and with the machine.

    Raises
    ------
    Conflict
        The project runs already, started by hand.
    Unavailable
        The machine has no manager that could start it; the message says how to do without.
    Denied
        The file cannot be written.
    """
    if not _managed(found):
        raise Unavailable(
            f"No {found.kind} runs here, as in most containers: nothing would start the service.",
            valid=f"Where one runs, {found.path} would be:\n\n{found.text}",
            hint=f"cron does it too; crontab -e, and add:\n  {cron_line(project)}",
        )
    if parts.supervisor(project) and not _running(found):
        raise Conflict(
            f"Project {project.name} runs already, started by hand.", hint="loopwright down, then again"
        )
    try:
        found.path.parent.mkdir(parents=True, exist_ok=True)
        found.path.write_text(found.text)
    except OSError as error:
        raise Denied(
            f"{found.path} cannot be written: {error.strerror}.",
            valid="A service of the system is installed by root, one of yours by you.",
            hint="sudo loopwright service install --system   or   loopwright service install --user",
        ) from error
    if found.kind == "launchd":
        _do(["launchctl", "bootstrap", _domain(found), str(found.path)])
        return
    _do(_systemctl(found, "daemon-reload"))
    _do(_systemctl(found, "enable", "--now", found.unit))


def uninstall(found: Service) -> None:
    """Stop the service and delete its file.

    Raises
    ------
    NotFound
        It is not installed.
    """
    if not found.path.exists():
        raise NotFound(f"{found.path} is not there.", hint=f"loopwright service install --{found.scope}")
    if _managed(found):
        if found.kind == "launchd":
            _do(["launchctl", "bootout", f"{_domain(found)}/{found.name}"])
        else:
            _do(_systemctl(found, "disable", "--now", found.unit))
    try:
        found.path.unlink()
    except OSError as error:
        raise Denied(f"{found.path} cannot be deleted: {error.strerror}.", hint="sudo ...") from error
    if _managed(found) and found.kind == "systemd":
        _do(_systemctl(found, "daemon-reload"))


def state(found: Service) -> str:
    """Return how a service is: ``not installed``, ``installed``, or what its manager says, such as ``active``."""
    if not found.path.exists():
        return "not installed"
    if not _managed(found):
        return "installed"
    if found.kind == "launchd":
        return "active" if _running(found) else "inactive"
    words = _systemctl(found, "is-active", found.unit)
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def cron_line(project: Project) -> str:
    """Return the line of a crontab that starts the project with the machine."""
    python = sys.executable
    return f"@reboot cd '{project.root}' && '{python}' -m loopwright up --detach >> .loopwright/run/logs/cron.log 2>&1"


def lingers() -> bool:
    """Whether services of this user run also while the user is not logged in."""
    return (Path("/var/lib/systemd/linger") / _user()).exists()


def _managed(found: Service) -> bool:
    if found.kind == "launchd":
        return shutil.which("launchctl") is not None
    return _SYSTEMD.is_dir() and shutil.which("systemctl") is not None


def _running(found: Service) -> bool:
    words = (
        ["launchctl", "print", f"{_domain(found)}/{found.name}"]
        if found.kind == "launchd"
        else _systemctl(found, "is-active", "--quiet", found.unit)
    )
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def _domain(found: Service) -> str:
    return f"gui/{os.getuid()}" if found.scope == "user" else "system"


def _systemctl(found: Service, *words: str) -> list[str]:
    return ["systemctl", *(["--user"] if found.scope == "user" else []), *words]


def _do(words: list[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Unavailable(
            f"{' '.join(words)} failed: {(done.stderr or done.stdout).strip()}.", hint=f"{' '.join(words)}"
        )
