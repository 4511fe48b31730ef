"""The words of a message."""

import math
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from told_people import START

from loopwright.monitor.alerting import bars, headline, shares, short_id
from loopwright.monitor.alerting.messages import Notice, Reason, body, compose, title
from loopwright.records import Alert

ALERT = Alert(
    id="digits-api/3/performance/accuracy",
    check="performance",
    model="digits",
    deployment="digits-api",
    state="open",
    since=START - timedelta(hours=2),
    message="accuracy of digits/3 in digits-api is 0.71",
    value=0.71,
    limit=0.85,
    subject="accuracy",
    version=3,
    severity="critical",
    advice="Look at the newest labels.",
)


def notice(alert: Alert, reason: Reason = "opened") -> Notice:
    """Return an alert to be told of."""
    return Notice(alert, reason, 7, title(alert, reason), body(alert, reason, {}, START))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "digits-api: accuracy 0.71, limit 0.85"),
        ({"segment": "region=north"}, "digits-api: accuracy (region=north) 0.71, limit 0.85"),
        ({"check": "drift", "subject": "temp"}, "digits-api: drift of temp 0.71, limit 0.85"),
        ({"check": "volume", "subject": ""}, "digits-api: volume 0.71, limit 0.85"),
        ({"value": math.nan}, "digits-api: accuracy unknown, limit 0.85"),
        (
            {"check": "schedule never ran", "subject": "nightly", "deployment": "", "model": ""},
            "schedules: nightly never ran",
        ),
    ],
)
def test_a_headline_says_where_and_what_and_by_how_much(changes: dict[str, Any], said: str) -> None:
    """In one line that fits the subject of a mail."""
    assert headline(replace(ALERT, **changes)) == said


def test_a_message_links_to_the_console_and_one_about_several_alerts_to_its_start() -> None:
    """Where it runs."""
    assert (
        f"http://127.0.0.1:8420/alerts/{short_id(ALERT)}"
        in compose([notice(ALERT)], "http://127.0.0.1:8420/").body
    )
    other = replace(ALERT, id="rides/1/kpi/x", deployment="rides", severity="warning")
    both = compose([notice(other), notice(ALERT)], "http://127.0.0.1:8420")
    assert both.title == "[critical] 2 alerts: digits-api, rides"
    assert both.body.endswith("\n\nhttp://127.0.0.1:8420")
    assert "http" not in compose([notice(ALERT)]).body


def test_an_escalation_says_for_how_long_nobody_did_anything() -> None:
    """And how to end it."""
    told = notice(ALERT, "escalated")
    assert told.title == "[critical] still open: digits-api: accuracy 0.71, limit 0.85"
    assert "nobody has acknowledged it for 2 h" in told.body
    assert f"loopwright alert ack {short_id(ALERT)}" in told.body


def test_what_is_over_asks_for_nothing() -> None:
    """No advice, nothing to acknowledge."""
    told = body(ALERT, "resolved", {"reason": "the last windows are fine again"}, START)
    assert "Resolved: the last windows are fine again" in told
    assert "What to do" not in told
    assert "alert ack" not in told


def test_of_many_bins_those_are_drawn_that_moved_most() -> None:
    """In their own order, with long names cut."""
    labels = [f"category number {number:02} with a long name" for number in range(30)]
    now = [1.0] * 28 + [10.0, 5.0]
    drawn = bars({"bins": {"labels": labels, "reference": [1.0] * 30, "current": now}}).splitlines()
    assert len(drawn) == 1 + 2 * 12 + 1
    assert drawn[-1] == "(18 more bins moved less)"
    assert [line for line in drawn if "#" * 20 in line]
    assert max(map(len, drawn)) <= 80


_NUMBER = st.one_of(st.floats(), st.integers(), st.none(), st.text(max_size=3))


@settings(deadline=None)
@given(
    st.one_of(
        _NUMBER,
        st.lists(st.dictionaries(st.sampled_from(["bin", "reference", "current"]), _NUMBER), max_size=4),
        st.fixed_dictionaries(
            {
                name: st.one_of(_NUMBER, st.lists(_NUMBER, max_size=4))
                for name in ("labels", "reference", "current")
            }
        ),
    )
)
def test_whatever_a_check_leaves_a_message_can_be_made_of_it(raw: Any) -> None:
    """A plot that cannot be drawn must not hold back the alert."""
    found = shares({"bins": raw})
    assert isinstance(bars({"bins": raw}), str)
    if found:
        assert sum(one[1] for one in found) == pytest.approx(1)
        assert sum(one[2] for one in found) == pytest.approx(1)
