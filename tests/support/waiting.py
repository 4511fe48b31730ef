"""Waiting for what other processes do, for the tests beside this file."""

import time
from collections.abc import Callable
from typing import Any


def eventually(what: str, condition: Callable[[], Any], seconds: float) -> Any:
    """Wait until a condition holds and return what it gives."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError(f"{what} did not happen within {seconds:.0f} s")
