"""Turns of the monitors over a real log: what is judged when, what waits, what is said of what fails."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from monitored import API, HOUR, START, Shop

from loopwright.config import Project
from loopwright.ledger import Ledger
from loopwright.monitor import run
from loopwright.monitor.results import Results
from loopwright.monitor.watching import Watched
from loopwright.predictions import PredictionStore
from loopwright.records import Alert, Deployment, Judged, Label, Mode, Window

SOON = timedelta(seconds=1)
Make = Callable[..., Shop]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Return what makes watched projects."""
    made: list[Shop] = []

    def shop(**settings: Any) -> Shop:
        made.append(Shop(tmp_path, **settings))
        return made[-1]

    yield shop
    for one in made:
        one.close()


def turn(shop: Shop, now: datetime) -> list[Alert]:
    """Take one turn of the monitors."""
    return run.tick(shop.project, shop.ledger, PredictionStore(shop.project), now)


def restart() -> None:
    """Forget what a process knows."""
    run._last = None


def windows(shop: Shop, phase: Any = "inputs") -> list[Judged]:
    """Return the windows of a phase that are recorded."""
    return Results(shop.ledger).windows(API, phase, limit=1000)


def states(shop: Shop, phase: Any) -> list[str]:
    """Return the states of the windows of a phase, oldest first."""
    return [one.state for one in windows(shop, phase)]


def checks(shop: Shop) -> set[str]:
    """Return the names of the checks that had something to say."""
    return {signal.check for signal in Results(shop.ledger).signals(API, limit=10_000)}


def test_a_window_is_judged_once_when_it_is_over(make: Make) -> None:
    """Nothing before its end; then it has its rows and signals; a turn later nothing is added."""
    shop = make()
    shop.answer(START)
    turn(shop, START + timedelta(minutes=59))
    assert not windows(shop)
    turn(shop, START + HOUR + SOON)
    [window] = windows(shop)
    assert (window.state, window.rows, window.fired, window.failed) == ("judged", 400, 0, ())
    assert {"missing", "unseen", "out_of_range", "schema", "duplicates", "performance"} <= checks(shop)
    signals = Results(shop.ledger).signals(API)
    for second in range(2, 6):
        turn(shop, START + HOUR + timedelta(seconds=second))
    assert Results(shop.ledger).signals(API) == signals


def test_turns_in_between_ask_nothing_of_the_log(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn in which nothing is due does not open the log."""
    shop = make()
    shop.answer(START)
    turn(shop, START + HOUR + SOON)
    opened: list[int] = []
    view = PredictionStore.view

    def counted(*given: Any, **named: Any) -> Any:
        opened.append(1)
        return view(*given, **named)

    monkeypatch.setattr(PredictionStore, "view", counted)
    for second in range(2, 25):
        turn(shop, START + HOUR + timedelta(seconds=second))
    assert not opened


def test_windows_wait_for_their_labels_and_never_alarm_before(make: Make) -> None:
    """With a third of the labels, all of them wrong, a window is immature; it is judged when the others have come."""
    shop = make(monitor='performance = { label_delay = "30m" }')
    late: list[list[str]] = []
    for number in range(3):
        late.append(shop.answer(START + number * HOUR, accuracy=0.0, labelled=0.3))
        assert turn(shop, START + (number + 1) * HOUR + SOON) == []
    assert states(shop, "labels") == ["immature"] * 3
    assert windows(shop, "labels")[0].labelled == 120
    assert "performance" not in checks(shop)
    for ids in late:
        shop.labels.append([Label(one, 1) for one in ids])
    opened = turn(shop, START + 3 * HOUR + timedelta(minutes=31))
    assert states(shop, "labels") == ["judged"] * 3
    assert {alert.check for alert in opened} == {"performance", "calibration"}


def test_a_window_whose_labels_never_come_is_given_up(make: Make) -> None:
    """It is overdue in the end, opens nothing, and is not looked at again."""
    shop = make(monitor='performance = { label_delay = "10m", overdue = "3h" }')
    shop.answer(START, labelled=0.2, accuracy=0.0)
    for minutes in range(61, 60 * 5, 10):
        turn(shop, START + timedelta(minutes=minutes))
    assert states(shop, "labels")[0] == "overdue"
    assert not shop.ledger.events("alert.opened")


def test_many_waiting_windows_cost_little_each_turn(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels that take days: at most twenty windows are looked at in a turn, the oldest first, none again for minutes."""
    shop = make(monitor='performance = { label_delay = "14d" }')
    for number in range(60):
        window = Window(START + number * HOUR, START + (number + 1) * HOUR)
        for phase, state in (("inputs", "empty"), ("labels", "immature")):
            Results(shop.ledger).record(Judged(API, "shop", phase, 1, window, state, 20), [])  # type: ignore[arg-type]
    looked: list[Any] = []
    labels = Watched.labels

    def counted(self: Any, window: Window, *more: Any) -> Judged:
        looked.append(window)
        return labels(self, window, *more)

    monkeypatch.setattr(Watched, "labels", counted)
    shop.answer(START, 60, within=60 * HOUR, labelled=0.0)
    for second in range(1, 11):
        turn(shop, START + 60 * HOUR + timedelta(seconds=second))
    # Their labels are not due: the newest are shown, and none is looked at twice.
    assert len(looked) == len(set(looked)) == 20
    later = START + timedelta(days=17)
    Results(shop.ledger).record(Judged(API, "shop", "labels", 1, Window(later - HOUR, later), "empty"), [])
    Results(shop.ledger).record(Judged(API, "shop", "inputs", 1, Window(later - HOUR, later), "empty"), [])
    looked.clear()
    for minute in range(1, 6):
        before = len(looked)
        turn(shop, later + timedelta(minutes=minute))
        assert len(looked) - before <= 20
    assert len(looked) == len(set(looked)) == 60
    assert looked == sorted(looked, key=lambda window: window.start)


def test_after_a_pause_the_newest_twenty_windows_are_judged(make: Make) -> None:
    """A controller that was off for four days."""
    shop = make()
    for number in range(0, 96, 6):
        shop.answer(START + number * HOUR, 50)
    turn(shop, START + 96 * HOUR + SOON)
    assert len(windows(shop)) == 20
    assert windows(shop)[-1].window.end == START + 96 * HOUR


def test_a_killed_process_goes_on_where_it_stopped(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after a window was recorded and before its alerts: the next process opens them, once."""
    shop = make()
    half: dict[str, Any] = {"spent": lambda values: values * float("nan")}
    shop.answer(START, **half)
    turn(shop, START + HOUR + SOON)
    shop.answer(START + HOUR, **half)

    class Killed(BaseException):
        pass

    def killed(*_: Any) -> list[Alert]:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(run, "judge", killed)
        with pytest.raises(Killed):
            turn(shop, START + 2 * HOUR + SOON)
    assert len(windows(shop)) == 2
    assert not shop.ledger.events("alert.opened")
    restart()
    opened = turn(shop, START + 2 * HOUR + 2 * SOON)
    assert "missing" in {alert.check for alert in opened}
    restart()
    assert turn(shop, START + 2 * HOUR + 3 * SOON) == []
    assert len(windows(shop)) == 2


def test_a_clock_that_is_set_back_judges_nothing_twice(make: Make) -> None:
    """And one that was years ahead for a while does not stop the monitors until then."""
    shop = make()
    shop.answer(START)
    shop.answer(START + HOUR)
    turn(shop, START + 2 * HOUR + SOON)
    signals = Results(shop.ledger).signals(API, limit=10_000)
    for back in (timedelta(seconds=2), timedelta(minutes=30), timedelta(hours=1)):
        turn(shop, START + 2 * HOUR + SOON - back)
    assert len(windows(shop)) == 2
    assert Results(shop.ledger).signals(API, limit=10_000) == signals

    turn(shop, START.replace(year=2096))
    shop.answer(START + 2 * HOUR)
    turn(shop, START + 3 * HOUR + SOON)
    [window] = [one for one in windows(shop) if one.window.start == START + 2 * HOUR]
    assert window.rows == 400


def test_predictions_of_the_future_wait_for_their_window(make: Make) -> None:
    """A device whose clock is a day ahead neither stops nor spoils the windows of now."""
    shop = make(monitor='quality = { freshness = "2h" }')
    shop.answer(START + 24 * HOUR, 50)
    shop.answer(START)
    turn(shop, START + HOUR + SOON)
    [window] = windows(shop)
    assert (window.rows, window.failed) == (400, ())
    turn(shop, START + 4 * HOUR + SOON)
    stale = Results(shop.ledger).signals(API, check="freshness")
    assert [signal.fired for signal in stale] == [False, False, True, True]


def test_rows_that_come_late_are_judged_with_their_window(make: Make) -> None:
    """From a device that was offline: the window is judged again, with all its rows, and found missing."""
    shop = make()
    turn(shop, START + HOUR + SOON)
    assert windows(shop)[0].state == "empty"
    shop.answer(START, spent=lambda values: values * float("nan"))
    turn(shop, START + HOUR + timedelta(minutes=31))
    [window] = windows(shop)
    assert (window.state, window.rows) == ("judged", 400)
    assert window.fired > 0
    assert states(shop, "labels") == ["judged"]


def test_a_check_that_fails_is_said_once_and_stops_no_other(make: Make) -> None:
    """Its reason is kept with each window; the event is written once, and again when the reason is another one."""
    shop = make(
        monitor="""
[monitor.shop.kpi.odd]
sql = "select nothing from predictions"
labelled = false
[monitor.shop.kpi.good]
sql = "select avg(input_spent) from predictions"
at_most = 1000
labelled = false
"""
    )
    for number in range(3):
        shop.answer(START + number * HOUR)
        turn(shop, START + (number + 1) * HOUR + SOON)
    for window in windows(shop):
        assert len(window.failed) == 1
        assert "'odd'" in window.failed[0]
    assert len(shop.ledger.events("monitor.failed")) == 1
    assert {"kpi", "missing"} <= checks(shop)


def test_what_is_declared_and_not_there_is_said_once(make: Make) -> None:
    """Segments, ranges and switched-off checks with a wrong name; those that are right are followed."""
    shop = make(
        monitor="""
segments = ["citty", "member"]
off = ["mising", "volume"]
quality = { ranges = { city = [0, 1], aeg = [0, 100], age = [0, 100] } }
"""
    )
    for number in range(3):
        shop.answer(START + number * HOUR)
        turn(shop, START + (number + 1) * HOUR + SOON)
    [event] = shop.ledger.events("monitor.failed")
    reason = event.payload["reason"]
    for words in (
        "segments names 'citty', which is no column. Did you mean 'city'?",
        "off names 'mising', which is no check. Did you mean 'missing'?",
        "'city', which is no number",
        "Did you mean 'age'?",
    ):
        assert words in reason
    assert windows(shop)[0].failed
    assert "volume" not in checks(shop)
    assert Results(shop.ledger).signals(API, check="missing", segment="member=True")


@pytest.mark.parametrize("mode", [Mode.batch, Mode.stream, Mode.edge])
def test_every_mode_is_judged_by_the_same_checks(make: Make, mode: Mode) -> None:
    """Batch, stream and edge predictions lie in the same log."""
    needs = 'source = "rows.parquet"\nsink = "sqlite:///out.db?table=p"'
    shop = make(mode=mode.value, deployment=needs if mode is not Mode.edge else "")
    shop.answer(START, spent=lambda values: values * float("nan"))
    turn(shop, START + HOUR + SOON)
    [window] = windows(shop)
    assert window.fired > 0


def test_a_version_that_is_not_registered_is_watched_as_far_as_it_goes(make: Make) -> None:
    """Without signature and profile there is no reference; volume and labels are there all the same."""
    shop = make()
    shop.serve(7)
    shop.answer(START, version=7)
    turn(shop, START + HOUR + SOON)
    [window] = windows(shop)
    assert (window.rows, window.failed) == (400, ())
    assert "volume" in checks(shop)
    assert "missing" not in checks(shop)


def test_a_deployment_without_variants_or_monitor_is_left_alone(make: Make) -> None:
    """And the others are watched as ever."""
    shop = make()
    shop.ledger.put("deployment", "another", Deployment("another", "shop", Mode.online, ()))
    shop.ledger.put("deployment", "foreign", Deployment("foreign", "nobody", Mode.online, ()))
    shop.answer(START)
    turn(shop, START + HOUR + SOON)
    assert len(windows(shop)) == 1


def test_a_log_that_cannot_be_read_holds_up_nothing(make: Make) -> None:
    """The window is recorded with the reason; when it is readable again, it is judged again."""
    shop = make()
    shop.answer(START)
    shop.close()
    segment = next(shop.project.predictions.rglob("*.parquet"), None)
    tail = next(shop.project.predictions.rglob("*.arrows"), None)
    if segment is None:
        from loopwright.predictions import seal_orphans

        seal_orphans(shop.project)
        segment = next(shop.project.predictions.rglob("*.parquet"), None)
    assert segment is not None, tail
    kept = segment.read_bytes()
    segment.write_bytes(b"PAR1" + bytes(len(kept) - 8) + b"PAR1")
    ledger = Ledger.open(shop.project, actor="test")
    store = PredictionStore(shop.project)
    run.tick(shop.project, ledger, store, START + HOUR + SOON)
    [window] = Results(ledger).windows(API, "inputs")
    assert window.failed
    run.tick(shop.project, ledger, store, START + 2 * HOUR + SOON)
    assert len(Results(ledger).windows(API, "inputs")) == 2
    segment.write_bytes(kept)
    run.tick(shop.project, ledger, store, START + 3 * HOUR + SOON)
    first = Results(ledger).windows(API, "inputs")[0]
    assert (first.rows, first.failed) == (400, ())
    ledger.close()


def test_a_promotion_starts_the_new_champion_without_a_past(make: Make) -> None:
    """Alerts of the old one are resolved; the new one is judged against its own profile."""
    shop = make(versions=2)
    for number in range(2):
        shop.answer(START + number * HOUR, spent=lambda values: values * float("nan"))
        turn(shop, START + (number + 1) * HOUR + SOON)
    assert shop.ledger.events("alert.opened")
    shop.serve(2)
    shop.answer(START + 2 * HOUR, version=2)
    turn(shop, START + 3 * HOUR + SOON)
    assert {state.value["state"] for state in shop.ledger.states("alert")} == {"resolved"}
    assert windows(shop)[-1].version == 2


def test_a_span_can_be_judged_again_by_hand(make: Make) -> None:
    """Rows that were brought in after days, farther back than late rows are looked for."""
    shop = make()
    turn(shop, START + 72 * HOUR + SOON)
    shop.answer(START + 5 * HOUR)
    turn(shop, START + 73 * HOUR + SOON)
    found = run.judge_span(
        shop.project,
        shop.ledger,
        PredictionStore(shop.project),
        API,
        START + 4 * HOUR,
        START + 7 * HOUR,
        START + 73 * HOUR,
    )
    inputs = [one for one in found if one.phase == "inputs"]
    assert [one.rows for one in inputs] == [0, 400, 0]
    assert [one.state for one in inputs] == ["empty", "judged", "empty"]


def test_old_windows_are_deleted(make: Make) -> None:
    """Those of more than 400 days ago."""
    shop = make()
    shop.answer(START)
    turn(shop, START + HOUR + SOON)
    turn(shop, START + timedelta(days=402))
    assert START not in [one.window.start for one in windows(shop)]
    assert not Results(shop.ledger).signals(API, until=START + HOUR)


def test_a_changed_declaration_counts_from_the_next_turn(make: Make) -> None:
    """Who edits the file need not wait for a restart."""
    shop = make()
    shop.answer(START)
    turn(shop, START + HOUR + SOON)
    file = shop.project.root / "loopwright.toml"
    file.write_text(file.read_text().replace('window = "1h"', 'window = "30m"'))
    again = Project(shop.project.root)
    run.tick(again, shop.ledger, PredictionStore(again), START + HOUR + timedelta(minutes=31))
    assert windows(shop)[-1].window.end - windows(shop)[-1].window.start == timedelta(minutes=30)
