"""What holds for all tests."""

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def _own_environment() -> Iterator[None]:
    """Give each module the environment back: addresses of a server that has stopped must not reach the next one."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
