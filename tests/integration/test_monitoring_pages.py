"""The monitoring pages as a person uses them: looking for what is wrong, and saying that somebody looks after it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from console_visits import Visit, console, open_browser
from watched_bikes import API, HOUR, LONG, Watched, watched

pytestmark = pytest.mark.integration
MODEL = f"/model/{API}"


@pytest.fixture(scope="module")
def bikes(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """Return a project that has been watched for days: 500 features, a hundred segments."""
    return watched(tmp_path_factory.mktemp("bikes"), extra=492, segments=100, windows=24)


@pytest.fixture(scope="module")
def url(bikes: Watched) -> Iterator[str]:
    """Return the address of its console."""
    with console(bikes.project.root) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Return a headless browser."""
    with open_browser() as opened:
        yield opened


def test_the_first_page_says_what_needs_a_look(url: str, browser: Any) -> None:
    """A card has the metric with its interval and limit, drift, KPIs, labels and alerts by severity."""
    visit = Visit(browser, url, "/")
    text = visit.text("Models at a glance")
    for said in ("limit 0.800", "KPIs met", "2 of 2", "Labels in", "2 warning", "3 info", "Last window"):
        assert said in text, said
    assert re.search(r"Drift\s+3 of 500", text)
    assert visit.overflow() <= 0
    visit.picture("glance")
    visit.close()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 400)])
def test_a_model_with_many_features_and_segments_fits(
    url: str, browser: Any, scheme: str, width: int
) -> None:
    """All panels are there; nothing is wider than the screen; figures of charts are tables as well."""
    visit = Visit(browser, url, MODEL, scheme=scheme, width=width)
    visit.text("1 to 25 of 500 features")
    visit.page.get_by_text("in 3 of the last 3 windows").first.wait_for()
    for summary in visit.page.locator("summary").all():
        summary.click()
    text = visit.text("revenue: the table fares is not there")
    for said in (
        "3 windows wait for labels; until then nobody is alarmed",
        "fired: 3 of 500 inputs",
        "target: at most 0.08 of hours",
        "target: at least 120 EUR",
        "label delay 2 h",
        "assumes that the truth given the inputs is as in training",
        "district=district 2",
        "Missing values",
        "What to do:",
        "version 4",
        "immature",
    ):
        assert said in text, said
    visit.page.wait_for_timeout(1000)
    assert visit.page.locator("canvas").count() >= 8
    assert visit.overflow() <= 0, "the page is wider than the screen"
    visit.picture(f"model-{scheme}-{width}")
    visit.close()


def test_a_feature_is_found_and_opened(url: str, browser: Any) -> None:
    """Searching narrows the heat map; pages turn; its table and a click on a cell lead to the feature."""
    visit = Visit(browser, url, MODEL)
    visit.text("1 to 25 of 500 features")
    visit.page.get_by_label("More features").click()
    visit.text("26 to 50 of 500 features")
    visit.page.get_by_label("Search features").fill("feature_49")
    visit.text("1 to 2 of 2 features")
    visit.page.get_by_label("Search features").fill("temp")
    visit.text("1 to 1 of 1 features")
    visit.page.wait_for_timeout(1000)
    chart = visit.page.get_by_label("Drift by feature and window; the table below has the same figures")
    box = chart.bounding_box()
    assert box is not None
    visit.page.mouse.click(box["x"] + box["width"] - 40, box["y"] + 30)
    visit.page.wait_for_url(f"**{MODEL}/feature/temperature")
    text = visit.text("Now is the newest window")
    for said in (
        "drifted",
        "PSI now",
        "mean 12 -> 19.2",
        "Out of range",
        "version 4",
        "one standard deviation",
    ):
        assert said in text, said
    visit.picture("feature")
    visit.close()


@pytest.mark.parametrize("width", [1280, 400])
def test_a_long_name_breaks_nothing(url: str, browser: Any, width: int) -> None:
    """A feature whose name is longer than the screen has a page that fits."""
    visit = Visit(browser, url, f"{MODEL}/feature/{quote(LONG)}", width=width)
    assert "drifted" in visit.text("Distribution")
    assert visit.overflow() <= 0
    visit.close()


def test_an_alert_is_acknowledged_silenced_and_resolved_in_the_page(url: str, browser: Any) -> None:
    """The buttons of a model's page do it, the alert's own page has the history, and the list follows."""
    visit = Visit(browser, url, MODEL)
    card = visit.page.locator("article.alert", has_text=re.compile("^.*Input drift · temperature")).first
    card.wait_for(timeout=20_000)
    short = card.get_attribute("data-alert")
    card.get_by_role("button", name="Acknowledge the alert on temperature").click()
    visit.page.locator(f"article[data-alert='{short}'][data-state=acknowledged]").wait_for(timeout=5_000)
    state = httpx.get(f"{url}/api/monitoring/alerts/{short}", trust_env=False).json()["alert"]["state"]
    assert state == "acknowledged"
    card = visit.page.locator(f"article[data-alert='{short}']").first
    assert card.get_by_role("button", name="Acknowledge").count() == 0
    card.get_by_role("button", name="Silence for an hour the alert on temperature").click()
    visit.page.locator(f"article[data-alert='{short}']", has_text="silent until").first.wait_for()
    visit.close()
    visit = Visit(browser, url, f"/alerts/{short}")
    text = visit.text("History")
    assert re.search(r"acknowledged\s+by \w+", text)
    assert "Nobody was told." in text
    visit.page.get_by_role("button", name="Resolve the alert on temperature").click()
    visit.page.locator("article[data-state=resolved]").wait_for(timeout=5_000)
    visit.picture("alert")
    visit.close()
    visit = Visit(browser, url, "/alerts")
    visit.text("4 open")
    assert visit.page.locator(f"article[data-alert='{short}']").count() == 0
    visit.page.get_by_role("link", name="all", exact=True).click()
    visit.page.locator(f"article[data-alert='{short}'][data-state=resolved]").wait_for(timeout=10_000)
    assert "the sensor is being replaced" in visit.text("Silences")
    visit.page.get_by_role("button", name=re.compile("End the silence of .*humidity")).click()
    visit.page.get_by_text("the sensor is being replaced").wait_for(state="detached", timeout=5_000)
    visit.picture("alerts")
    visit.close()


def test_a_page_of_another_site_cannot_acknowledge(url: str, browser: Any, tmp_path: Path) -> None:
    """A foreign page that posts to the console is refused by it, whatever it sends."""
    short = httpx.get(f"{url}/api/monitoring/alerts", trust_env=False).json()["alerts"][0]["short"]
    foreign = tmp_path / "foreign.html"
    address = f"{url}/api/monitoring/alerts/{short}/resolve"
    foreign.write_text(
        f'<form method="post" action="{address}" enctype="text/plain"><input name="{{}}" value=""></form>'
        f"<script>fetch('{address}', {{method: 'POST', mode: 'no-cors', body: '{{}}'}})"
        ".finally(() => document.forms[0].submit())</script>"
    )
    page = browser.new_page()
    page.goto(foreign.as_uri())
    page.wait_for_url(f"{url}/**", timeout=10_000)
    assert '"code":"denied"' in page.content()
    page.close()
    after = httpx.get(f"{url}/api/monitoring/alerts/{short}", trust_env=False).json()["alert"]["state"]
    assert after != "resolved"


def test_a_window_has_a_page_of_its_own(url: str, browser: Any, bikes: Watched) -> None:
    """What fired comes first, neighbours are linked, and a window that was never there is a 404."""
    start = bikes.end - 4 * HOUR
    visit = Visit(browser, url, f"{MODEL}/window/{quote(start.isoformat())}")
    text = visit.text("What was found")
    for said in ("fired", "Input drift", "temperature", "of 1", "labels", "judged"):
        assert said in text, said
    visit.page.get_by_text("← earlier").click()
    visit.page.wait_for_url(f"**/window/{quote((start - HOUR).isoformat(), safe='')}")
    assert visit.overflow() <= 0
    visit.picture("window")
    visit.close()
    visit = Visit(browser, url, f"{MODEL}/window/2020-01-01T00:00:00+00:00")
    assert visit.status == 404
    assert "The newest starts at" in visit.text("has no window that starts at")
    visit.errors.clear()  # the browser itself reports the 404
    visit.close()


def test_sql_over_the_log(url: str, browser: Any, tmp_path: Path) -> None:
    """A question is answered with a table and a chart; a wrong one is told what is wrong; CSV can be saved."""
    visit = Visit(browser, url, "/sql")
    visit.page.get_by_role("button", name="Run").click()
    assert "predictions" in visit.text("3 rows in")
    visit.page.locator("canvas").first.wait_for(state="visible")
    visit.picture("sql")
    field = visit.page.get_by_label("SQL", exact=True)
    field.fill("select version, count(*) as n from predictions group by version")
    field.press("Control+Enter")
    visit.text("1 row in")
    with visit.page.expect_download() as saved:
        visit.page.get_by_role("button", name="Save as CSV").click()
    saved.value.save_as(tmp_path / "answer.csv")
    assert (tmp_path / "answer.csv").read_text().splitlines()[0] == "version,n"
    field.fill("select nothing from predictions")
    field.press("Control+Enter")
    assert "Columns of predictions: " in visit.text("The query does not work")
    field.fill("delete from predictions")
    field.press("Control+Enter")
    visit.text("The log is only read, with one SELECT; this is DELETE")
    visit.close()


def test_alerts_can_be_reached_by_the_keyboard(url: str, browser: Any) -> None:
    """Tab comes to the buttons of an alert, and what has the focus is outlined."""
    visit = Visit(browser, url, "/alerts")
    visit.text("What to do:")
    for _ in range(60):
        visit.page.keyboard.press("Tab")
        if visit.page.evaluate("document.activeElement?.dataset?.act || ''"):
            break
    assert "/api/monitoring/alerts/" in visit.page.evaluate("document.activeElement.dataset.act")
    assert visit.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    visit.close()
