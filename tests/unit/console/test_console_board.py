"""The board that all readers share: what it computes, how often, and what it says when it cannot."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from console_seed import API, make_project

from loopwright.console import refresh
from loopwright.console.refresh import Board
from loopwright.errors import NotFound
from loopwright.ledger import Ledger
from loopwright.records import Deployment, Mode, Variant


def counted(board: Board) -> list[set[str]]:
    """Return a list that grows by the wanted views with each refresh of a board."""
    compute, turns = board._compute, []

    def note(wanted: set[str]) -> None:
        turns.append(wanted)
        compute(wanted)

    vars(board)["_compute"] = note
    return turns


async def running(board: Board, seconds: float) -> None:
    """Let a board refresh for some seconds."""
    task = asyncio.create_task(board.run())
    await asyncio.sleep(seconds)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_many_readers_cost_one_refresh(tmp_path: Path) -> None:
    """Two hundred askers of a fresh view are answered from one reading of ledger and log."""
    board = Board(make_project(tmp_path))
    turns = counted(board)

    async def read() -> list[Any]:
        first = await board.story(API)
        return [first, *await asyncio.gather(*(board.story(API) for _ in range(200)))]

    stories = asyncio.run(read())
    assert turns == [{API}]
    assert all(story is stories[0] for story in stories)


def test_nobody_looking_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a reader nothing is read; a view that nobody asked for lately is given up."""
    monkeypatch.setattr(refresh, "PERIOD_S", 0.05)
    monkeypatch.setattr(refresh, "FORGOTTEN_S", 0.3)
    board = Board(make_project(tmp_path))
    turns = counted(board)
    asyncio.run(running(board, 0.4))
    assert turns == []

    async def once() -> int:
        await board.story(API)
        await asyncio.sleep(0.35)
        seen = len(turns)
        await running(board, 0.4)
        return seen

    assert asyncio.run(once()) == len(turns)


def test_an_error_is_said_and_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the ledger cannot be read the last view stays with the reason; afterwards the page is live again."""
    monkeypatch.setattr(refresh, "PERIOD_S", 0.05)
    project = make_project(tmp_path)
    board = Board(project)
    ledger = Ledger.open(project)

    async def watch() -> None:
        before = await board.story(API)
        ledger.put("deployment", API, {"name": 1})
        await running(board, 0.6)
        assert "is no Deployment" in board.error
        assert board.stories[API] is before
        served = Deployment(API, "digits", Mode.online, (Variant("champion", 7),))
        ledger.put("deployment", API, served)
        await running(board, 0.6)
        assert board.error == ""
        assert board.stories[API].card.champion == 7

    asyncio.run(watch())
    ledger.close()


def test_an_unknown_deployment_is_refused(tmp_path: Path) -> None:
    """The error names the declared ones; nothing is computed."""
    board = Board(make_project(tmp_path))
    turns = counted(board)
    with pytest.raises(NotFound, match=r"digits-apo.*Did you mean 'digits-api'"):
        asyncio.run(board.story("digits-apo"))
    assert turns == []
