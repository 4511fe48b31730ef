"""A private PostgreSQL server on a free port."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

__all__ = ["postgres"]


def _binaries() -> Path | None:
    """Return the folder of PostgreSQL's programs, or None."""
    found = shutil.which("initdb")
    if found and shutil.which("postgres"):
        return Path(found).parent
    candidates = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return candidates[-1].parent if candidates else None


def _command(*words: str) -> list[str]:
    """Return a command as PostgreSQL takes it: it refuses to run as root."""
    if os.geteuid() != 0:
        return list(words)
    return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", *words]


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """Run a server with its files in `folder` and give ``host:port``; its user ``owner`` needs no password."""
    programs = _binaries()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: no initdb")
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("PostgreSQL does not run as root, and there is no setpriv to leave root with")
    log_file = folder / "postgres.log"
    if os.geteuid() == 0:
        # The folders above a temporary one are its maker's alone.
        folder = Path(f"/tmp/loopwright-postgres-{os.getpid()}")
        folder.mkdir()
        shutil.chown(folder, "nobody", "nogroup")
    data = folder / "data"
    options = ["--auth=trust", "--username=owner", "--no-sync", "--encoding=UTF8", "--locale=C"]
    made = subprocess.run(
        _command(str(programs / "initdb"), "-D", str(data), *options),
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert made.returncode == 0, made.stderr
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    log = log_file.open("wb")
    settings = [
        "-c",
        "listen_addresses=127.0.0.1",
        "-c",
        f"unix_socket_directories={folder}",
        "-c",
        "fsync=off",
    ]
    running = subprocess.Popen(
        _command(str(programs / "postgres"), "-D", str(data), "-p", str(port), *settings),
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd="/",
    )
    url = f"127.0.0.1:{port}"
    try:
        _wait(url, running, Path(log.name))
        yield url
    finally:
        running.send_signal(signal.SIGINT)
        running.wait(30)
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


def _wait(url: str, running: subprocess.Popen[bytes], log: Path) -> None:
    engine = sa.create_engine(f"postgresql+psycopg://owner@{url}/postgres", poolclass=sa.NullPool)
    for _ in range(300):
        try:
            with engine.connect():
                return
        except sa.exc.OperationalError:
            assert running.poll() is None, log.read_text()
            time.sleep(0.1)
    pytest.fail(f"PostgreSQL did not start:\n{log.read_text()}")
