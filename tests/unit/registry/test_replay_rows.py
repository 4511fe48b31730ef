"""Which real rows are kept with a version."""

import numpy as np

from loopwright.registry.registration import REPLAY_ROWS, replay_positions


def test_a_small_table_is_kept_whole() -> None:
    """All rows of a table of up to 2000 are kept, in their order."""
    assert replay_positions({"x": np.arange(1500.0)}).tolist() == list(range(1500))


def test_rare_rows_are_kept() -> None:
    """Of a large table 2000 rows are kept, spread over it, among them those with gaps and the rarest values."""
    rows = 300_000
    rng = np.random.default_rng(3)
    numbers = rng.normal(size=rows)
    numbers[[7, 200_000]] = np.nan
    texts = np.array(["common"] * rows, dtype=object)
    texts[[11, 250_000]] = ["rare", None]
    times = np.full(rows, np.datetime64("2026-01-01", "us"))
    times[290_001] = np.datetime64("NaT")
    columns = {"x": numbers, "s": texts, "t": times, "n": np.arange(rows)}
    kept = replay_positions(columns)
    assert len(kept) == REPLAY_ROWS >= 1000
    assert (np.diff(kept) > 0).all()
    assert {7, 200_000, 11, 250_000, 290_001} <= set(kept.tolist())
    tenths = np.bincount(kept * 10 // rows, minlength=10)
    assert tenths.min() > REPLAY_ROWS / 15
    assert kept.tolist() == replay_positions(columns).tolist()


def test_rare_rows_leave_room_for_the_others() -> None:
    """Where every value of text is rare, most rows are still chosen by chance."""
    columns = {f"s{place}": np.array([str(row) for row in range(9000)], dtype=object) for place in range(40)}
    kept = replay_positions(columns)
    assert len(kept) == REPLAY_ROWS
    assert (kept >= 32).sum() >= REPLAY_ROWS * 0.7
