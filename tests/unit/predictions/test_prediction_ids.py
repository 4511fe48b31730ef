"""Prediction ids: unique, checkable, derived ones repeatable."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prediction_rows import project_in

from loopwright.errors import Damaged, NotFound
from loopwright.predictions import HOLDOUT_DIGITS, Ids

NOW_US = 1_790_000_000_123_456


def test_an_id_is_32_digits_that_tell_the_time(tmp_path: Path) -> None:
    """Ids have 32 lowercase hexadecimal digits, sort by time and give the millisecond back."""
    ids = Ids.open(project_in(tmp_path))
    early, late = ids.new(1, NOW_US)[0], ids.new(1, NOW_US + 5000)[0]
    assert len(early) == 32
    assert set(early) <= set("0123456789abcdef")
    assert early < late
    assert Ids.time_us(early) == 1_790_000_000_123_000


def test_ids_are_unique_over_threads_and_writers(tmp_path: Path) -> None:
    """Threads of one process and several openings of one project never give out the same id."""
    project = project_in(tmp_path)
    writers = [Ids.open(project) for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        batches = list(pool.map(lambda number: writers[number % 4].new(500, NOW_US), range(40)))
    every = [prediction_id for batch in batches for prediction_id in batch]
    assert len(set(every)) == len(every) == 20_000


def test_ids_differ_after_a_fork(tmp_path: Path) -> None:
    """A forked child does not repeat the ids of its parent."""
    ids = Ids.open(project_in(tmp_path))
    ids.new(1, NOW_US)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, ids.new(1, NOW_US)[0].encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(reading, 64).decode()
    os.close(reading)
    os.close(writing)
    assert theirs not in ids.new(10, NOW_US)
    ids.check(theirs)


def test_an_id_of_this_project_is_accepted_by_every_process_of_it(tmp_path: Path) -> None:
    """The key is made once, so another opening of the project knows the id; the key is for the owner only."""
    project = project_in(tmp_path)
    issued = Ids.open(project).new(3, NOW_US)
    for prediction_id in [*issued, Ids.open(project).derive("nightly", "row 7")]:
        Ids.open(project).check(prediction_id)
    assert (project.state / "project.key").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("wrong", ["", "7", "G" * 32, "A" * 32, "0" * 31, "0" * 32, "ä" * 32])
def test_what_is_no_id_is_refused(tmp_path: Path, wrong: str) -> None:
    """Malformed ids and ids without the right keyed hash are unknown."""
    with pytest.raises(NotFound, match="no prediction"):
        Ids.open(project_in(tmp_path)).check(wrong)


def test_a_tampered_id_is_refused(tmp_path: Path) -> None:
    """Changing any one digit of an id makes it unknown, and so does another project's key."""
    ids = Ids.open(project_in(tmp_path))
    issued = ids.new(1, NOW_US)[0]
    for place in range(32):
        digit = "1" if issued[place] != "1" else "2"
        with pytest.raises(NotFound):
            ids.check(issued[:place] + digit + issued[place + 1 :])
    with pytest.raises(NotFound):
        Ids(bytes(32)).check(issued)


def test_derived_ids_depend_on_each_part(tmp_path: Path) -> None:
    """The same parts give the same id; where one part ends and the next begins matters."""
    ids = Ids.open(project_in(tmp_path))
    assert ids.derive("a", "b") == ids.derive("a", "b")
    assert len({ids.derive("a", "b"), ids.derive("ab"), ids.derive("ab", ""), ids.derive("b", "a")}) == 4


def test_the_holdout_is_a_quarter_of_all_ids(tmp_path: Path) -> None:
    """The last digit is evenly spread, so one id in four belongs to the holdout."""
    issued = Ids.open(project_in(tmp_path)).new(20_000, NOW_US)
    share = sum(prediction_id[-1] in HOLDOUT_DIGITS for prediction_id in issued) / len(issued)
    assert 0.23 < share < 0.27


def test_a_damaged_key_is_reported(tmp_path: Path) -> None:
    """A key file that holds no key is called damaged instead of being replaced."""
    project = project_in(tmp_path)
    (project.state / "project.key").write_text("not a key")
    with pytest.raises(Damaged, match="does not hold a key"):
        Ids.open(project)
