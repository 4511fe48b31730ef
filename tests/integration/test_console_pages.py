"""The console as a person sees it: its own process, a real browser, a project that has a story."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from console_seed import answering, make_project, seed
from console_visits import SERVER, Visit, console, open_browser

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a console whose project has promoted version 4, and whose serving process lives."""
    project = make_project(tmp_path_factory.mktemp("console"))
    seed(project, state="promoted")
    counted, ended = answering(project), threading.Event()

    def write() -> None:
        while not ended.wait(1.0):
            counted.save(project)

    writing = threading.Thread(target=write)
    writing.start()
    try:
        with console(project.root) as address:
            yield address
    finally:
        ended.set()
        writing.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Return a headless browser."""
    with open_browser() as opened:
        yield opened


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 420])
def test_the_page_tells_the_story(url: str, browser: Any, scheme: str, width: int) -> None:
    """Figures, release, alerts and what happened are there in both themes and on a narrow screen."""
    visit = Visit(browser, url, "/model/digits-api", scheme=scheme, width=width)
    text = visit.text("What happened")
    for said in (
        "Version 4 was promoted in place of version 3.",
        "Gate met: accuracy 0.931 against 0.744 on 400 rows.",
        "Alert opened: accuracy of digits/3 in digits-api is 0.744",
        "Canary step 3 of 3: version 4 gets 50 %.",
        "fired: 0 of 18 inputs",
        "p99",
        "version 4, ",
        "/api/deployments/digits-api",
        "pixel_2_5",
        # How it answers.
        "Latency by stage",
        "54.9 % left",
        "99.9 % of requests without an error: 99.95 % were",
        "18,240",
        "queue full 12",
        "onnx: agrees with the model on 1,797 rows; largest difference 2.2e\u201116",
        "onnx up to 82 rows, native above",
        "24.1 ms",
        "50,000 rows may wait in 1 worker",
        "its answers to 3 of 200 golden rows differ",
    ):
        assert said in text
    assert visit.page.locator("[data-stage]").count() == 5
    run = f"{SERVER}/mlflow/#/runs/{'2e' * 16}"
    flow = f"{SERVER}/prefect/runs/flow-run/9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d"
    assert visit.links("Pages about this model") == [
        f"{SERVER}/mlflow/#/models/digits",
        f"{SERVER}/mlflow/#/models/digits/versions/4",
        run,
        flow,
    ]
    rate = float(visit.page.locator("[data-field=per_s]").inner_text())
    assert 0 <= rate < 25
    finished = visit.page.locator("li", has_text="Pipeline train finished").first
    assert finished.locator("a").evaluate_all("all => all.map(one => one.href)") == [run, flow]
    visit.page.wait_for_timeout(1500)
    assert visit.page.locator("canvas, .chart svg").count() >= 6
    assert visit.overflow() <= 0, "the page is wider than the screen"
    visit.picture(f"console-{scheme}-{width}")
    visit.close()


def test_the_first_page_shows_all_deployments_and_the_maturity(url: str, browser: Any) -> None:
    """Each mode has its card, with what to do where nothing has happened yet."""
    visit = Visit(browser, url, "/")
    text = visit.text("Models at a glance")
    for said in (
        "digits-api",
        "digits-batch",
        "digits-stream",
        "loopwright edge bundle digits-edge",
        "Maturity",
        "level 0 of 4",
        "git init && git add -A",
    ):
        assert said in text
    visit.page.get_by_text("digits-api").first.click()
    visit.page.wait_for_url("**/model/digits-api")
    visit.close()


def test_a_page_that_does_not_exist_names_those_that_do(url: str, browser: Any) -> None:
    """A typo in the address is answered with 404 and the deployments that there are."""
    visit = Visit(browser, url, "/model/digits-apo")
    assert visit.status == 404
    assert "digits-api" in visit.text("digits-apo")
    visit.errors.clear()  # the browser itself reports the 404
    visit.close()


def test_what_the_page_shows_is_there_as_json(url: str) -> None:
    """The JSON interface has the same figures; an unknown name is a 404 with the valid ones."""
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
        names = [card["name"] for card in client.get("/api/deployments").json()["deployments"]]
        assert names == ["digits-api", "digits-batch", "digits-stream", "digits-edge"]
        story = client.get("/api/deployments/digits-api").json()
        assert story["card"]["release"]["candidate"] == 4
        assert story["card"]["variants"] == [{"variant": "champion", "version": 4, "weight": 1.0}]
        assert story["serving"]["runs"][0]["runtime"] == "onnx"
        assert [one["name"] for one in story["serving"]["stages"]] == [
            "decode",
            "queue",
            "score",
            "log",
            "encode",
        ]
        assert story["serving"]["level"]["availability"]["missed"] == 86
        assert client.get("/api/maturity").json()["level"] == 0
        unknown = client.get("/api/deployments/nothing")
        assert unknown.status_code == 404
        assert "digits-api" in unknown.text


def test_the_theme_can_be_chosen(url: str, browser: Any) -> None:
    """The button turns the page dark against the system's wish, and the next visit remembers it."""
    visit = Visit(browser, url, "/model/digits-api")
    visit.text("What happened")
    theme = "document.documentElement.dataset.theme"
    assert visit.page.evaluate(theme) == "light"
    visit.page.get_by_label("Switch between light and dark").click()
    assert visit.page.evaluate(theme) == "dark"
    visit.page.reload()
    visit.text("What happened")
    assert visit.page.evaluate(theme) == "dark"
    visit.close()


def test_news_reach_an_open_page(tmp_path: Path, browser: Any) -> None:
    """A project without any history gets its story while somebody looks, without a reload."""
    project = make_project(tmp_path)
    with console(tmp_path) as url:
        visit = Visit(browser, url, "/model/digits-api")
        assert "loopwright pipeline run digits" in visit.text("Not in service yet.")
        seed(project, state="quiet")
        assert "version 3" in visit.text("Pipeline train finished in 4 steps after 8.4 s.")
        visit.close()


def test_the_console_stays_small(url: str) -> None:
    """Its process holds neither MLflow nor Prefect, pandas or scikit-learn, also after it has read and shown things."""
    for path in ("/api/deployments/digits-api", "/model/digits-api", "/api/maturity"):
        assert httpx.get(f"{url}{path}", timeout=30, trust_env=False).status_code == 200
    here = [one for one in psutil.Process().children() if "loopwright.console.app" in one.cmdline()]
    mapped = {found.path for one in here for found in one.memory_maps()}
    assert any("/pyarrow/" in path for path in mapped)
    assert [path for path in mapped if "/pandas/" in path or "/sklearn/" in path] == []
    code = (
        "import sys, loopwright.console.app, loopwright.console.refresh; "
        "print([name for name in ('mlflow', 'prefect', 'pandas', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
