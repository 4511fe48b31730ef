"""Points that wait to be written together."""

import os
import subprocess
import sys
import threading
import time

import pytest

from loopwright.tracking.buffer import SIZE, NotStored, PointBuffer


class Sink:
    """Takes what a buffer writes; fails when it is told to."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[int]]] = []
        self.error: Exception | None = None

    def __call__(self, run_id: str, points: list[int]) -> None:
        """Take points of a run."""
        if self.error:
            raise self.error
        self.batches.append((run_id, points))

    def points(self, run_id: str) -> list[int]:
        """Return all points of a run in the order they were written."""
        return [point for run, points in self.batches if run == run_id for point in points]


def test_a_full_batch_is_written_at_once_and_the_rest_when_asked() -> None:
    """A hundred points are one call; fewer wait until the run is flushed; other runs are left alone."""
    sink = Sink()
    buffer = PointBuffer(sink)
    for point in range(SIZE + 5):
        buffer.add("a", [point])
    buffer.add("b", [1])
    assert [len(points) for _, points in sink.batches] == [SIZE]
    buffer.flush("a")
    assert [len(points) for _, points in sink.batches] == [SIZE, 5]
    assert sink.points("a") == list(range(SIZE + 5))
    assert sink.points("b") == []
    buffer.flush_all()
    assert sink.points("b") == [1]


def test_points_are_written_by_themselves_after_a_while() -> None:
    """Nobody asks for them, and they arrive all the same."""
    sink = Sink()
    buffer = PointBuffer(sink)
    buffer.add("a", [1, 2])
    until = time.monotonic() + 20
    while not sink.batches and time.monotonic() < until:
        time.sleep(0.02)
    assert sink.batches == [("a", [1, 2])]


def test_a_failure_is_raised_by_the_next_call_with_the_number_of_points() -> None:
    """The caller hears of it once, and what comes after is written."""
    sink = Sink()
    buffer = PointBuffer(sink)
    sink.error = OSError("no route")
    buffer.add("a", [1, 2, 3])
    with pytest.raises(NotStored, match="3 metric points of run a were not stored: no route") as caught:
        buffer.flush("a")
    assert (caught.value.count, caught.value.run_id, caught.value.cause) == (3, "a", sink.error)
    sink.error = None
    buffer.add("a", [4])
    buffer.flush("a")
    assert sink.points("a") == [4]


def test_a_failure_in_the_background_is_not_lost() -> None:
    """The run's next point raises what the background thread met."""
    sink = Sink()
    buffer = PointBuffer(sink)
    sink.error = OSError("no route")
    buffer.add("a", [1])
    until = time.monotonic() + 20
    while buffer._runs["a"].failure is None and time.monotonic() < until:
        time.sleep(0.02)
    sink.error = None
    with pytest.raises(NotStored, match="1 metric points"):
        buffer.add("a", [2])
    assert sink.points("a") == [2], "the point that was being added is not the one that failed"


def test_many_threads_lose_nothing_and_keep_each_ones_order() -> None:
    """Eight threads into one run: all points are there, each thread's in its order."""
    sink = Sink()
    buffer = PointBuffer(sink)

    def work(number: int) -> None:
        for point in range(500):
            buffer.add("a", [number * 1000 + point])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    buffer.flush("a")
    points = sink.points("a")
    assert len(points) == 4000
    for number in range(8):
        mine = [point for point in points if point // 1000 == number]
        assert mine == sorted(mine)


def _run(program: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return sorted(done.stdout.split())


_HEAD = """
import os, sys
from loopwright.tracking.buffer import PointBuffer
def write(run, points):
    os.write(1, f"{run}:{'+'.join(map(str, points))}\\n".encode())
buffer = PointBuffer(write)
"""


def test_what_waits_is_written_when_the_process_ends() -> None:
    """Also when it ends by an error, which is the usual way a training ends early."""
    assert _run(_HEAD + "buffer.add('a', [1, 2])") == ["a:1+2"]
    program = (
        _HEAD + "buffer.add('a', [1, 2])\ntry: 1 / 0\nfinally: os.dup2(os.open(os.devnull, os.O_WRONLY), 2)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "a:1+2\n")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_writes_its_own_points_and_not_its_parents() -> None:
    """The parent's point is written once; a child of multiprocessing, which runs no exit hooks, writes its own."""
    program = _HEAD + (
        "import multiprocessing\n"
        "buffer.add('parent', [1])\n"
        "def work(): buffer.add('child', [2])\n"
        "child = multiprocessing.get_context('fork').Process(target=work)\n"
        "child.start(); child.join()\n"
        "assert child.exitcode == 0\n"
    )
    assert _run(program) == ["child:2", "parent:1"]
