"""The console in its own process, and a real browser that looks at it."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from one_server import free_port

START_S = 60.0
#: Where the pages of MLflow and Prefect are said to be; nothing is asked there.
SERVER = "http://127.0.0.1:9"


@contextlib.contextmanager
def console(root: Path) -> Iterator[str]:
    """Run the console of a project and return its address."""
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    log = root / "console.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "loopwright.console.app", "--port", str(port)],
            env=environment
            | {"LOOPWRIGHT_PROJECT": str(root), "MLFLOW_TRACKING_URI": f"{SERVER}/mlflow"}
            | {"PREFECT_API_URL": f"{SERVER}/prefect/api"},
            stdout=out,
            stderr=out,
        )
    url = f"http://127.0.0.1:{port}"
    until = time.monotonic() + START_S
    try:
        while not _answers(url):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0, log.read_text()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=2, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


@contextlib.contextmanager
def open_browser() -> Iterator[Any]:
    """Return a headless browser; skip where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


class Visit:
    """One page in a browser, with all that went wrong on it."""

    def __init__(
        self, browser: Any, url: str, path: str, *, scheme: str = "light", width: int = 1400
    ) -> None:
        self.context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.foreign: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        self.page.on("request", self._asked)
        self._url = url
        self.status = self.page.goto(url + path).status

    def _asked(self, request: Any) -> None:
        if not request.url.startswith((self._url, "data:", "blob:")):
            self.foreign.append(request.url)

    def text(self, wait_for: str) -> str:
        """Return all that is written on the page once something is."""
        self.page.get_by_text(wait_for).first.wait_for(timeout=20_000)
        return str(self.page.inner_text("body"))

    def links(self, name: str) -> list[str]:
        """Return where the links of a labelled part of the page lead."""
        links = self.page.get_by_label(name).locator("a")
        return list(links.evaluate_all("all => all.map(one => one.href)"))

    def overflow(self) -> int:
        """Return by how many pixels the page is wider than the screen."""
        room = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        return int(self.page.evaluate(room))

    def picture(self, name: str) -> None:
        """Keep a picture of the page where LOOPWRIGHT_PICTURES says."""
        if pictures := os.environ.get("LOOPWRIGHT_PICTURES"):
            self.page.wait_for_timeout(1500)
            self.page.screenshot(path=f"{pictures}/{name}.png", full_page=True)

    def close(self) -> None:
        """Leave the page; nothing may have gone wrong on it, and nothing may have come from elsewhere."""
        self.context.close()
        assert self.errors == []
        assert self.foreign == []
