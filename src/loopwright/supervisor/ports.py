"""The ports of a project: chosen free once, remembered, and kept as long as nobody else takes them."""

import json
import socket

import psutil

from loopwright.config import Project
from loopwright.errors import Conflict

__all__ = ["listen", "port_for"]


def port_for(project: Project, name: str, configured: int = 0, host: str = "127.0.0.1") -> int:
    """Return the port of a part: the configured one, else the remembered one if it is free, else a free one.

    Raises
    ------
    Conflict
        The configured port is taken; the message says by whom where the system tells.
    """
    if configured:
        if not _free(host, configured):
            raise Conflict(
                f"Port {configured} for {name} is taken{_owner(configured)}.",
                valid="Port 0 takes a free one.",
                hint=f"choose another port in loopwright.toml, or stop what uses port {configured}",
            )
        return configured
    path = project.run / "ports.json"
    known = json.loads(path.read_text()) if path.is_file() else {}
    port = int(known.get(name, 0))
    if not port or not _free(host, port):
        port = _any_free(host, taken=set(known.values()))
    known[name] = port
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(known))
    return port


def listen(host: str, port: int, backlog: int = 2048) -> socket.socket:
    """Return a listening socket that child processes can inherit.

    The supervisor keeps it open: while a serving worker is being restarted, new connections wait in its backlog
    instead of being refused.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(backlog)
    listener.set_inheritable(True)
    return listener


def _free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        # A port whose last connections are still in TIME_WAIT is ours to take again.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _any_free(host: str, taken: set[int]) -> int:
    while True:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind((host, 0))
            port = int(probe.getsockname()[1])
        if port not in taken:
            return port


def _owner(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            if (
                connection.status == psutil.CONN_LISTEN
                and connection.laddr[1:2] == (port,)
                and connection.pid
            ):
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        pass  # not allowed to see other users' sockets: the fact alone must do
    return ""
