"""Conditions and orders on runs."""

import pytest

from loopwright.errors import InvalidInput
from loopwright.tracking.where import Condition, Order, parse_order, parse_where


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("accuracy > 0.9", (Condition("metric", "accuracy", ">", 0.9),)),
        ("metrics.`val loss` <= 1e-3", (Condition("metric", "val loss", "<=", 0.001),)),
        ("depth = '6'", (Condition("param", "depth", "=", "6"),)),
        ("status='FINISHED'", (Condition("attribute", "status", "=", "FINISHED"),)),
        ("name like 'grid%'", (Condition("attribute", "run_name", "LIKE", "grid%"),)),
        ("start_time >= 17", (Condition("attribute", "start_time", ">=", 17),)),
        (
            "params.kind = \"and\" AND tags.`a.b` != 'it' and f1>.5",
            (
                Condition("param", "kind", "=", "and"),
                Condition("tag", "a.b", "!=", "it"),
                Condition("metric", "f1", ">", 0.5),
            ),
        ),
    ],
)
def test_conditions_are_read(text: str, expected: tuple[Condition, ...]) -> None:
    """Names with and without prefix and quotes, numbers and text; and what is written back is read the same."""
    assert parse_where(text) == expected
    assert parse_where(" and ".join(one.text() for one in expected)) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("accuracy >", "The condition 'accuracy >' is not understood"),
        ("accuracy > 0.9 or loss < 1", "After the condition 'accuracy > 0.9' comes 'or loss < 1'"),
        ("accuracy > 0.9 and", "comes 'and'"),
        ("accuracy > high", "accuracy is compared with high, which is no number"),
        ("metrics.accuracy LIKE '%'", "is a number: LIKE compares text"),
        ("attributes.statuss = 'FINISHED'", "no attribute 'statuss'. Did you mean 'status'"),
    ],
)
def test_what_is_wrong_is_said(text: str, message: str) -> None:
    """The part that is not understood is quoted."""
    with pytest.raises(InvalidInput, match=message.replace("(", r"\(")):
        parse_where(text)


def test_orders_are_read() -> None:
    """A bare name is a metric, highest first; times have short names."""
    assert parse_order("accuracy") == Order("metric", "accuracy", True)
    assert parse_order("metrics.loss ASC") == Order("metric", "loss", False)
    assert parse_order("started") == Order("attribute", "start_time", True)
    assert parse_order("params.depth desc").text() == "params.`depth` DESC"
    for wrong in ("", "loss up", "a b asc"):
        with pytest.raises(InvalidInput, match="is not understood"):
            parse_order(wrong)
