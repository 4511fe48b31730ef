"""What a run shows in a terminal while it goes on."""

import pytest

from loopwright.pipelines.progress import Progress


def test_each_step_leaves_a_line_and_a_mapped_one_a_count(capsys: pytest.CaptureFixture[str]) -> None:
    """With how it ended; calls for single items are counted, not listed; what a note holds is no markup."""
    with Progress(shown=True) as progress:
        with progress.step("load") as said:
            said("cached", "")
        with pytest.raises(ValueError, match="no"), progress.step("fit"):
            raise ValueError("no")
        with progress.step("clean") as said:
            said("completed", "a [bold] note")
        with progress.items("score", 3) as advance:
            for _ in range(3):
                with progress.step("score") as said:
                    said("completed", "")
                advance()
    lines = [line for line in capsys.readouterr().err.splitlines() if "s" in line]
    text = "\n".join(lines)
    assert "↺ load" in text
    assert "✗ fit" in text
    assert "✓ clean" in text
    assert "a [bold] note" in text
    assert "3 of 3" in text
    assert text.count("✓ score") == 1


def test_nothing_is_shown_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    """A log file gets no progress."""
    with (
        Progress(shown=False) as progress,
        progress.step("load") as said,
        progress.items("score", 2) as advance,
    ):
        said("completed", "")
        advance()
    assert capsys.readouterr().err == ""
