"""Writing the pipeline again without losing what the user has changed in it.

At its end the file remembers a digest of each piece as it was written. A piece that still has its digest is replaced;
one that has another was changed by the user and is kept. Formatting does not count, comments do.
"""

from __future__ import annotations

import ast
import hashlib
import io
import re
import tokenize
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from loopwright.errors import Conflict, InvalidInput
from loopwright.tracking.notebooks.convert.source import Block

__all__ = ["Change", "Merged", "digest", "merge"]

_MARK = "# ---- loopwright notebook convert: kept up to date below this line"
_DIGESTS = re.compile(r"^# loopwright: (.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Change:
    """What became of one piece: ``new``, ``same``, ``updated``, ``kept``, ``removed`` or ``yours``.

    `conflict` is True when the user has changed it and the notebook would now give something else too.
    """

    name: str
    what: str
    conflict: bool = False


@dataclass(frozen=True, slots=True)
class Merged:
    """The file's new text, and what became of each piece."""

    text: str
    changes: tuple[Change, ...]


def digest(text: str) -> str:
    """Return a short digest of code and comments that is the same after reformatting."""
    tree = ast.parse(text)
    comments = [
        token.string.strip()
        for token in tokenize.generate_tokens(io.StringIO(text + "\n").readline)
        if token.type == tokenize.COMMENT
    ]
    return hashlib.sha256(repr((_shape(tree), comments)).encode()).hexdigest()[:10]


def _shape(node: object) -> object:
    """Return a syntax tree as plain tuples, without what differs from one Python to the next."""
    if isinstance(node, ast.AST):
        fields = [
            (name, _shape(value)) for name, value in ast.iter_fields(node) if name not in {"ctx", "kind"}
        ]
        return (type(node).__name__, *((name, value) for name, value in fields if value not in (None, ())))
    if isinstance(node, list):
        return tuple(_shape(item) for item in node)
    return node if node is None else repr(node)


def merge(
    current: str, fresh: Sequence[Block], notebook: str, left_out: Sequence[str], take: Collection[str] = ()
) -> Merged:
    """Merge newly written pieces into a file.

    Parameters
    ----------
    current
        The file's text; empty when there is none yet.
    notebook
        The notebook's name: a file that another notebook was converted to, or that a person wrote, is not touched.
    left_out
        Comment lines for the end of the file.
    take
        Names of pieces that are replaced although the user has changed them.

    Raises
    ------
    Conflict
        The file does not come from this notebook.
    InvalidInput
        The file is no Python.
    """
    body, _, tail = current.partition(_MARK)
    recorded, origin = _recorded(tail)
    if current.strip() and origin != notebook:
        raise Conflict(
            f"The file is there already and {f'comes from {origin}' if origin else 'was not written by convert'}.",
            valid="It is left as it is.",
            hint="loopwright notebook convert <notebook> --out <another file>.py",
        )
    there = _split(body)
    texts = {block.name: block.text for block in there}
    changes: list[Change] = []
    chosen: dict[str, str] = {}
    for block in fresh:
        text, change = _choose(block, texts.get(block.name), recorded.get(block.name), block.name in take)
        chosen[block.name] = text
        changes.append(change)
    order = [block.name for block in fresh]
    previous = ""
    for block in there:
        if block.name not in chosen:
            known = recorded.get(block.name)
            if known is not None and known == digest(block.text):
                changes.append(Change(block.name, "removed"))
                continue
            changes.append(Change(block.name, "yours" if known is None else "kept"))
            chosen[block.name] = block.text
            order.insert(order.index(previous) + 1 if previous in order else len(order), block.name)
        previous = block.name
    chosen["(imports)"] = _with_users_imports(chosen, texts.get("(imports)", ""), order)
    digests = {block.name: digest(block.text) for block in fresh}
    text = _joined([Block(name, chosen[name]) for name in order])
    return Merged(
        text + "\n\n\n" + "\n".join([_MARK, *left_out, *_footer(notebook, digests)]) + "\n", tuple(changes)
    )


def _choose(block: Block, current: str | None, recorded: str | None, take: bool) -> tuple[str, Change]:
    if current is None:
        return block.text, Change(block.name, "new")
    now, wanted = digest(current), digest(block.text)
    if now == wanted:
        return current, Change(block.name, "same")
    if block.name == "(imports)" or now == recorded or take:
        return block.text, Change(block.name, "updated")
    return current, Change(block.name, "kept", conflict=recorded != wanted)


def _recorded(tail: str) -> tuple[dict[str, str], str]:
    words = [word for line in _DIGESTS.findall(tail) for word in line.split()]
    pairs = dict(word.rpartition("=")[::2] for word in words if "=" in word)
    return pairs, pairs.pop("notebook", "").replace("%20", " ")


def _footer(notebook: str, digests: dict[str, str]) -> list[str]:
    words = [
        f"notebook={notebook.replace(' ', '%20')}",
        *(f"{name}={value}" for name, value in digests.items()),
    ]
    lines = [""]
    for word in words:
        if len(lines[-1]) + len(word) > 95:
            lines.append("")
        lines[-1] += f" {word}"
    return [f"# loopwright:{line}" for line in lines]


def _split(text: str) -> list[Block]:
    """Cut a module at its top-level statements; what stands above one belongs to it."""
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise InvalidInput(
            f"The file cannot be merged: it is no Python (line {error.lineno}: {error.msg}).",
            hint="mend it, or write to another file with --out",
        ) from None
    lines = text.splitlines()
    found: list[Block] = []
    above = 0
    for index, node in enumerate(tree.body):
        end = node.end_lineno or node.lineno
        piece = "\n".join(lines[above:end]).strip("\n")
        above = end
        name = _name(node, first=index == 0)
        if name == "(imports)" and found and found[-1].name == name:
            found[-1] = Block(name, f"{found[-1].text}\n{piece}")
        elif name == "(imports)" and any(block.name == name for block in found):
            found = [Block(b.name, f"{b.text}\n{piece}") if b.name == name else b for b in found]
        else:
            found.append(Block(name, piece))
    rest = "\n".join(lines[above:]).strip("\n")
    if rest.strip() and found:
        found[-1] = Block(found[-1].name, f"{found[-1].text}\n{rest}")
    return found


def _name(node: ast.stmt, *, first: bool) -> str:
    if isinstance(node, ast.Import | ast.ImportFrom):
        return "(imports)"
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return node.name
    if first and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return "(docstring)"
    target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
    return target.id if isinstance(target, ast.Name) else ast.unparse(node)


def _with_users_imports(chosen: dict[str, str], current: str, order: Sequence[str]) -> str:
    """Add the imports of the file that the notebook does not have and that its code still needs."""
    fresh = chosen["(imports)"]
    have = {_import_key(node, alias) for node, alias in _aliases(fresh)}
    used = {
        item.id
        for name in order
        if name not in {"(imports)", "(docstring)"}
        for item in ast.walk(ast.parse(chosen[name]))
        if isinstance(item, ast.Name)
    }
    own = []
    for node, alias in _aliases(current):
        bound = alias.asname or alias.name.partition(".")[0]
        if _import_key(node, alias) not in have and bound in used:
            own.append(_import_key(node, alias))
    if not own:
        return fresh
    mine = "import loopwright as lw"
    return fresh.replace(mine, "\n".join([*dict.fromkeys(own), "", mine]))


def _aliases(text: str) -> list[tuple[ast.Import | ast.ImportFrom, ast.alias]]:
    nodes = [node for node in ast.parse(text).body if isinstance(node, ast.Import | ast.ImportFrom)]
    return [(node, alias) for node in nodes for alias in node.names]


def _import_key(node: ast.Import | ast.ImportFrom, alias: ast.alias) -> str:
    name = f"{alias.name} as {alias.asname}" if alias.asname else alias.name
    if isinstance(node, ast.ImportFrom):
        return f"from {'.' * node.level}{node.module or ''} import {name}"
    return f"import {name}"


def _joined(pieces: Sequence[Block]) -> str:
    """Put the pieces into one text: two empty lines around functions and classes, one between the rest."""
    text = ""
    before = ""
    for piece in pieces:
        own = piece.text.strip("\n")
        tall = bool(re.search(r"^(@|def |class |async def )", own, re.MULTILINE))
        gap = (
            "" if not text else "\n\n\n" if tall or before == "tall" else "\n" if before == "flat" else "\n\n"
        )
        text += gap + own
        before = "tall" if tall else "head" if piece.name.startswith("(") else "flat"
    return text
