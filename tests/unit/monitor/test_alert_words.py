"""What alerts say, for each check: what moved, by how much, since when, for whom, and what to do."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from loopwright import plugins
from loopwright.monitor.words import span, tell
from loopwright.records import Judged, Signal, Window

START = datetime(2026, 1, 1, tzinfo=UTC)
WINDOW = Window(START, START + timedelta(minutes=5))
JUDGED = Judged("shop-api", "shop", "inputs", 3, WINDOW, "judged", 2000)
NAN = float("nan")


def said(check: str, subject: str, value: float, limit: float, rows: int = 500, **facts: Any) -> str:
    """Return the sentence of a signal."""
    signal = Signal(check, "shop", "shop-api", WINDOW, value, limit, rows, True, subject, 3, **facts)
    told = tell(signal, JUDGED, 2, 3)
    assert told.message.endswith("in 2 of the last 3 windows of 5 min")
    assert "shop/3 in shop-api" in told.message
    assert "loopwright " in told.advice
    return told.message


@pytest.mark.parametrize(
    ("check", "subject", "value", "limit", "facts", "words"),
    [
        ("performance", "accuracy", 0.71, 0.85, {"lower": 0.66, "upper": 0.75, "detail": {"earlier": 0.9}},
         "accuracy of shop/3 in shop-api is 0.71 (95 % interval 0.66 to 0.75, 500 labelled rows), below 0.85; it was 0.9 before"),
        ("performance", "rmse", 90.0, 80.0, {"lower": 85.0, "upper": 95.0}, "above 80"),
        ("estimated", "roc_auc", 0.7, 0.8, {"detail": {"assumption": "assumes P(y|x) unchanged"}}, "it assumes P(y|x) unchanged"),
        ("calibration", "probability", 0.08, 0.03, {"lower": 0.06, "upper": 0.1}, "off by 0.08"),
        ("calibration", "bias", -0.4, 0.1, {"lower": -0.5, "upper": -0.3}, "0.4 standard deviations too low"),
        ("drift", "age", 0.3, 0.02, {"detail": {"what": "mean 40 -> 45 (+0.5 sd)"}}, "has drifted: mean 40 -> 45 (+0.5 sd); PSI 0.3"),
        ("prediction_drift", "prediction", 0.3, 0.02, {}, "the predictions of shop/3 in shop-api have drifted"),
        ("missing", "age", 0.052, 0.013, {"detail": {"trained": 0.003}}, "no value in 5.2 % of 500 rows, in training 0.3 %"),
        ("unseen", "city", 0.1, 0.01, {"detail": {"trained": 0.0}}, "values that training never had in 10 %"),
        ("out_of_range", "age", 0.1, 0.01, {"detail": {"low": 18.0, "high": 99.0, "below": 3, "above": 47}},
         "outside 18 to 99, the range of training, in 10 % of 500 rows (3 below, 47 above)"),
        ("out_of_range", "age", 0.1, 0.01, {"detail": {"low": 0, "high": None, "declared": True}}, "0 to nothing, the range declared"),
        ("duplicates", "prediction_id", 0.1, 0.01, {}, "10 % of 500 predictions"),
        ("freshness", "newest prediction", 5400.0, 3600.0, {}, "1:30:00 old at the window's end, allowed 1 h"),
        ("volume", "rows", 10.0, 100.0, {"detail": {"mean": 210.4}}, "10 predictions, fewer than 100; usual are 210"),
        ("volume", "rows", 900.0, 100.0, {}, "more than 100"),
        ("schema", "age", 1.0, 0.0, {"detail": {"what": "vanished"}}, "'age' of shop/3 in shop-api is not in the log any more"),
        ("schema", "age", 1.0, 0.0, {"detail": {"what": "changed", "found": "text", "expected": "a number"}}, "holds text"),
        ("schema", "new", 1.0, 0.0, {"detail": {"what": "appeared", "found": "text"}}, "has appeared"),
        ("service", "latency_p99", 120.0, 100.0, {}, "99th percentile of the latency of shop/3 in shop-api is 120 ms"),
        ("service", "errors", 0.05, 0.01, {}, "5 % of 500 requests to shop/3 in shop-api failed, allowed 1 %"),
        ("labels", "unusable", 0.05, 0.01, {}, "5 % of 500 labels of shop/3 in shop-api cannot be used"),
        ("kpi", "stockouts", 0.2, 0.1, {"detail": {"unit": "share"}}, "is 0.2 share, above its target of 0.1 share"),
        ("of somebody else", "thing", 0.2, NAN, {}, "of somebody else 'thing' of shop/3 in shop-api is 0.2, its limit nan"),
    ],
)  # fmt: skip
def test_sentences(
    check: str, subject: str, value: float, limit: float, facts: dict[str, Any], words: str
) -> None:
    """Each check has its own."""
    assert words in said(check, subject, value, limit, **facts)


def test_a_segment_is_told_with_its_share() -> None:
    """For whom: the segment, and how much of the window it is."""
    assert "in shop-api where city=rome (25% of the rows) has drifted" in said(
        "drift", "age", 0.3, 0.02, segment="city=rome"
    )


def test_every_built_in_check_has_a_sentence_of_its_own() -> None:
    """None is told as somebody else's is."""
    for name in plugins.BUILT_IN["check"]:
        check = plugins.load("check", name).name
        assert not said(check, "x", 0.5, 0.1).startswith(f"{check} 'x' of"), check


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(5, "5 s"), (90, "90 s"), (300, "5 min"), (3600, "1 h"), (172_800, "2 d"), (0.5, "0.5 s")],
)
def test_spans(seconds: float, words: str) -> None:
    """As people write them."""
    assert span(timedelta(seconds=seconds)) == words
