"""Releases: from a trigger over training, gate and canary to a verdict, with one decision record."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loopwright.release.triggers import request

__all__ = ["request"]


def __getattr__(name: str) -> Any:
    if name == "request":
        from loopwright.release.triggers import request

        return request
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
