"""Results of steps on disk."""

import threading
import time
from pathlib import Path

import pandas as pd
import pytest

from loopwright.config import Project
from loopwright.errors import Damaged
from loopwright.pipelines import kept, limits
from loopwright.records import DatasetRef


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return an empty project."""
    (tmp_path / "loopwright.toml").write_text("")
    return Project(tmp_path)


ENTRY = kept.Entry(
    step="load",
    run_id="r",
    seconds=1.5,
    outputs=("f",),
    datasets=(DatasetRef("wine", "d", 3, ("a",), "wine.csv", "s"),),
    sources=((10, 20),),
    metrics={"rows": 3.0},
    params={"depth": "6"},
)


def test_what_is_kept_is_read_back(project: Project) -> None:
    """Value and description, from all folders it was written to; on disk it is there once."""
    frame = pd.DataFrame({"a": [1, 2]}, index=[5, 6])
    folders = [kept.of_run(project, "r", "k", 0), kept.cached(project, "k")]
    kept.write(folders, frame, ENTRY)
    for folder in folders:
        found = kept.read(folder)
        assert found is not None
        entry, value = found
        pd.testing.assert_frame_equal(value, frame)
        assert (entry.datasets, entry.metrics, entry.params) == (
            ENTRY.datasets,
            {"rows": 3.0},
            {"depth": "6"},
        )
        assert (folder / "value.pickle").stat().st_nlink == 2
    kept.drop(project, "r")
    assert kept.read(folders[0]) is None
    assert kept.read(folders[1]) is not None


def test_the_first_that_is_kept_stays(project: Project) -> None:
    """Two runs that compute the same at the same time do not disturb each other."""
    folder = kept.cached(project, "k")
    kept.write([folder], 1, ENTRY)
    kept.write([folder], 2, ENTRY)
    found = kept.read(folder)
    assert found is not None
    assert found[1] == 1


@pytest.mark.parametrize("what", ["flipped", "cut", "value missing", "description torn"])
def test_damage_is_found_and_removed(project: Project, what: str) -> None:
    """Whatever was damaged, the next read finds nothing."""
    folder = kept.cached(project, "k")
    kept.write([folder], list(range(100)), ENTRY)
    value, about = folder / "value.pickle", folder / "about.json"
    data = bytearray(value.read_bytes())
    if what == "flipped":
        data[50] ^= 1
        value.write_bytes(data)
    elif what == "cut":
        value.write_bytes(data[:-3])
    elif what == "value missing":
        value.unlink()
    else:
        about.write_bytes(about.read_bytes()[:20])
    with pytest.raises(Damaged, match="is damaged"):
        kept.read(folder)
    assert kept.read(folder) is None


def test_what_cannot_be_pickled_leaves_nothing(project: Project) -> None:
    """The reason names the type."""
    with pytest.raises(kept.Unkeepable, match="a lock cannot be pickled"):
        kept.write([kept.cached(project, "k")], threading.Lock(), ENTRY)
    assert list((project.state / "steps").rglob("*.pickle")) == []
    assert list((project.state / "steps" / "cache").iterdir()) == []


def test_what_nobody_uses_is_removed_after_a_month(project: Project) -> None:
    """A result that was read lately stays."""
    import os

    old, used = kept.cached(project, "old"), kept.cached(project, "used")
    for folder in (old, used):
        kept.write([folder], 1, ENTRY)
        os.utime(folder, (time.time() - 40 * 86400,) * 2)
    kept.read(used)
    kept.tidy(project)
    assert (old.exists(), used.exists()) == (False, True)


def test_slots_are_limited_over_threads_and_given_back(project: Project) -> None:
    """Never more than so many at a time; a slot is free again after an error."""
    going, most, lock = 0, 0, threading.Lock()

    def work() -> None:
        nonlocal going, most
        with limits.slot(project, "gpu", 2):
            with lock:
                going += 1
                most = max(most, going)
            time.sleep(0.05)
            with lock:
                going -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 2
    with pytest.raises(ValueError, match="no"), limits.slot(project, "one", 1):
        raise ValueError("no")
    with limits.slot(project, "one", 1), limits.slot(project, "any", None):
        pass
