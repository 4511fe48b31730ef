"""HTML that cannot be broken by what is put into it: every text is escaped unless it was built here."""

from __future__ import annotations

from html import escape
from typing import TypeAlias

__all__ = ["Child", "Html", "el", "join"]


class Html(str):
    """Markup that is safe to send as it is."""

    __slots__ = ()


Child: TypeAlias = "Html | str | float | None"
_EMPTY = frozenset({"br", "col"})


def el(tag: str, *children: Child, **attributes: str | float | bool | None) -> Html:
    """Return one element.

    Parameters
    ----------
    tag
        The element's name, with classes after dots: ``"div.card.wide"``.
    children
        Markup, or text that is escaped; None is left out.
    **attributes
        Underscores become hyphens, a trailing one is cut; None and False are left out.

    Examples
    --------
    >>> el("p.note", "a < b", el("b", 3), title='"x"')
    '<p class="note" title="&quot;x&quot;">a &lt; b<b>3</b></p>'
    """
    name, *classes = tag.split(".")
    given = {"class": " ".join(classes), **attributes} if classes else dict(attributes)
    text = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escape(str(value))}"')
        for key, value in given.items()
        if value is not None and value is not False
    )
    if name in _EMPTY:
        return Html(f"<{name}{text}>")
    return Html(f"<{name}{text}>{join(*children)}</{name}>")


def join(*children: Child) -> Html:
    """Return children one after the other, text escaped."""
    return Html("".join(_safe(child) for child in children if child is not None))


def _safe(child: Html | str | float) -> str:
    return child if isinstance(child, Html) else escape(str(child))
