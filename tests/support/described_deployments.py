"""Deployments as their public pages describe them: one with columns of every type, one with several outputs."""

from datetime import UTC, datetime
from typing import Any

import numpy as np

from loopwright.deploy.online.described import Described
from loopwright.records import Column, Signature, Task, Variant
from loopwright.registry.profile import categorical_profile, numeric_profile

COLUMNS = (
    Column("age", "integer"),
    Column("visits", "long"),
    Column("height m", "float"),
    Column("income", "double", required=False),
    Column("city", "string"),
    Column("note", "string", required=False),
    Column("member", "boolean"),
    Column("since", "datetime"),
    Column("last", "datetime", required=False),
)
_NOON = np.datetime64(datetime(2026, 1, 31, 12, tzinfo=UTC).replace(tzinfo=None), "us")


def mixed(entity: str | None = "customer") -> Described:
    """Return a classification whose inputs have every type, two variants, and text that would break a page."""
    rng = np.random.default_rng(3)
    cities = np.array(["Köln", "Aachen", "</script><b>x", None], dtype=object)[rng.integers(0, 4, 500)]
    notes = np.array([f"note {number}" for number in range(500)], dtype=object)
    profiles = [
        numeric_profile("age", rng.integers(18, 90, 500)),
        numeric_profile("visits", rng.integers(0, 2**40, 500)),
        numeric_profile("height m", rng.normal(1.7, 0.1, 500).astype(np.float32)),
        numeric_profile("income", np.where(rng.random(500) < 0.2, np.nan, rng.gamma(2, 2e4, 500))),
        categorical_profile("city", cities),
        categorical_profile("note", notes),
        categorical_profile("member", rng.random(500) < 0.5),
        numeric_profile("since", _NOON + rng.integers(0, 10**13, 500).astype("timedelta64[us]")),
    ]
    rows: list[dict[str, Any]] = [
        {
            "age": 41,
            "visits": 9_007_199_254_740_993,
            "height m": 1.75,
            "income": None,
            "city": "Köln",
            "note": "likes <wine> & 'tea'",
            "member": True,
            "since": "2020-02-29T08:30:00.250000Z",
            "last": None,
        },
        {
            "age": 29,
            "visits": 3,
            "height m": 1.62,
            "income": 31_000.5,
            "city": "</script><b>x",
            "note": None,
            "member": False,
            "since": "2024-07-01T00:00:00Z",
            "last": "2026-01-31T12:00:00Z",
        },
    ]
    variants = (
        Variant("champion", 3, 0.9),
        Variant("candidate", 4, 0.1),
        Variant("next", 5, 0.0, shadow=True),
    )
    classes = ("leaves", "stays", "</script>")
    return Described(
        model="churn",
        signature=Signature(COLUMNS, Task.classification, "outcome", classes),
        entity=entity,
        examples=tuple(rows),
        real=True,
        variants=variants,
        runtime="onnx",
        classes=classes,
        seen={profile.name: profile for profile in profiles},
    )


def quantiles() -> Described:
    """Return a regression with three outputs, and nothing known besides its signature."""
    columns = (Column("hour", "long"), Column("temperature", "double"))
    signature = Signature(columns, Task.regression, "count", outputs=("p10", "p50", "p90"))
    return Described("demand", signature, variants=(Variant("champion", 1),), runtime="native")
