"""What a statement reads, binds and changes in place; and from that, what flows from step to step."""

from __future__ import annotations

import ast
import symtable
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["CHANGING", "Flow", "called", "exposed", "flow_of", "free_names", "live_before", "root_name"]

#: Methods that change the object they are called on although their value is used.
CHANGING = {
    "add", "append", "clear", "extend", "fit", "fit_predict", "fit_transform", "insert", "partial_fit", "pop", "popitem",
    "remove", "reverse", "set_params", "setdefault", "shuffle", "sort", "update",
}  # fmt: skip


#: Calls whose effect is elsewhere: what they are given stays as it is.
_WRITING = ("dump", "log_", "print", "save", "to_", "write")


@dataclass(frozen=True, slots=True)
class Flow:
    """Names in the order they are met. `maybe` are bound in a branch only; `changes` are objects changed in place."""

    uses: tuple[str, ...]
    binds: tuple[str, ...]
    maybe: tuple[str, ...]
    changes: tuple[str, ...]

    @property
    def touched(self) -> tuple[str, ...]:
        """All names that may be another value, or hold a changed object, afterwards."""
        return tuple(dict.fromkeys((*self.binds, *self.maybe, *self.changes)))


def flow_of(node: ast.stmt, functions: frozenset[str] = frozenset()) -> Flow:
    """Describe one top-level statement. Calls of the user's own `functions` may change their arguments."""
    reader = _Reader(functions)
    reader.visit(node)
    maybe = [name for name in reader.maybe if name not in reader.bound]
    return Flow(tuple(reader.uses), tuple(reader.bound), tuple(maybe), tuple(reader.changes))


def free_names(node: ast.AST) -> tuple[str, ...]:
    """Return the global names that a function, lambda or class reads when it runs."""
    top = symtable.symtable(ast.unparse(node), "<cell>", "exec")
    found: dict[str, None] = {}

    def walk(table: symtable.SymbolTable) -> None:
        for symbol in table.get_symbols():
            if symbol.is_global() and symbol.is_referenced():
                found[symbol.get_name()] = None
        for child in table.get_children():
            walk(child)

    for child in top.get_children():
        walk(child)
    found.pop(getattr(node, "name", ""), None)
    return tuple(found)


def live_before(flows: Sequence[Flow], final: Iterable[str]) -> list[set[str]]:
    """Return for each statement, and for the end, the names whose present value is still read later."""
    live = set(final)
    found = [set(live)]
    for flow in reversed(flows):
        live = set(flow.uses) | (live - set(flow.binds))
        found.append(set(live))
    return found[::-1]


def exposed(flows: Sequence[Flow]) -> tuple[str, ...]:
    """Return the names that a row of statements reads before it binds them."""
    bound: set[str] = set()
    found: dict[str, None] = {}
    for flow in flows:
        found.update(dict.fromkeys(name for name in flow.uses if name not in bound))
        bound |= set(flow.binds)
    return tuple(found)


def root_name(node: ast.AST) -> str:
    """Return the name at the start of ``a.b[c].d(e)``, or an empty text."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call | ast.Starred):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def called(node: ast.AST) -> str:
    """Return the last name of what a call calls, such as ``fit`` for ``model.fit(X)``; empty for anything else."""
    if not isinstance(node, ast.Call):
        return ""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


class _Reader(ast.NodeVisitor):
    """Visits one statement in the order in which it is evaluated."""

    def __init__(self, functions: frozenset[str]) -> None:
        self.functions = functions
        self.uses: dict[str, None] = {}
        self.bound: dict[str, None] = {}
        self.maybe: dict[str, None] = {}
        self.changes: dict[str, None] = {}

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Store):
            self.bound[node.id] = None
        elif node.id not in self.bound:
            self.uses[node.id] = None

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.visit(node.value)
        self._stored(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self.visit(node.value)
        self.visit(node.slice)
        self._stored(node)

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        inplace = any(
            word.arg == "inplace" and isinstance(word.value, ast.Constant) and word.value.value
            for word in node.keywords
        )
        if isinstance(node.func, ast.Attribute) and (inplace or node.func.attr in CHANGING):
            self._change(node.func)
        if isinstance(node.func, ast.Name) and node.func.id in self.functions:
            self._arguments(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        self.visit(node.value)
        # A call whose value nobody takes is made for its effect: on its object or on what it is given.
        if isinstance(node.value, ast.Call) and not called(node.value).startswith(_WRITING):
            self._change(node.value.func)
            self._arguments(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        for target in node.targets:
            self.visit(target)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.visit(node.annotation)
        if node.value is not None:
            self.visit(node.value)
            self.visit(node.target)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.visit(node.value)
        if isinstance(node.target, ast.Name):
            self.visit(ast.Name(node.target.id, ast.Load()))
            # An array or list is changed in place, and another name may stand for the same one.
            self._change(node.target)
        self.visit(node.target)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.visit(node.value)
        self.visit(node.target)

    def visit_Delete(self, node: ast.Delete) -> None:
        for target in node.targets:
            self.visit(target)

    def visit_If(self, node: ast.If) -> None:
        self.visit(node.test)
        both = self._branch(node.body) & self._branch(node.orelse)
        self.bound.update(dict.fromkeys(sorted(both)))

    def visit_For(self, node: ast.For | ast.AsyncFor) -> None:
        self.visit(node.iter)
        self.visit(node.target)
        self._branch(node.body)
        self._branch(node.orelse)

    visit_AsyncFor = visit_For  # noqa: N815 - named by `ast`

    def visit_While(self, node: ast.While) -> None:
        self.visit(node.test)
        self._branch(node.body)
        self._branch(node.orelse)

    def visit_Try(self, node: ast.Try) -> None:
        self._branch([*node.body, *node.orelse])
        for handler in node.handlers:
            if handler.type is not None:
                self.visit(handler.type)
            name = {handler.name} if handler.name else set()
            self._branch(handler.body, local=name)
        for item in node.finalbody:
            self.visit(item)

    def visit_Match(self, node: ast.Match) -> None:
        self.visit(node.subject)
        for case in node.cases:
            names = {
                item.name
                for item in ast.walk(case.pattern)
                if isinstance(item, ast.MatchAs | ast.MatchStar) and item.name
            }
            self._branch(case.body, local=names)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for item in (*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)):
            self.visit(item)
        self._free(node)
        self.bound[node.name] = None

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815 - named by `ast`

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        inner = _Reader(self.functions)
        for item in (*node.decorator_list, *node.bases, *node.keywords, *node.body):
            inner.visit(item)
        self._use(inner.uses)
        self._free(node)
        self.bound[node.name] = None

    def visit_Lambda(self, node: ast.Lambda) -> None:
        for item in (*node.args.defaults, *filter(None, node.args.kw_defaults)):
            self.visit(item)
        self._free(node)

    def visit_ListComp(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> None:
        before = dict(self.bound)
        for generator in node.generators:
            self.visit(generator.iter)
            self.visit(generator.target)
            for condition in generator.ifs:
                self.visit(condition)
        for item in (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,):
            self.visit(item)
        self.bound = before

    visit_SetComp = visit_GeneratorExp = visit_DictComp = visit_ListComp  # noqa: N815 - named by `ast`

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        for alias in node.names:
            self.bound[alias.asname or alias.name.partition(".")[0]] = None

    visit_ImportFrom = visit_Import  # noqa: N815 - named by `ast`

    def _branch(self, nodes: Sequence[ast.stmt], local: set[str] | None = None) -> set[str]:
        """Visit statements that may not run, and return the names they bind."""
        before = dict(self.bound)
        self.bound.update(dict.fromkeys(local or ()))
        for node in nodes:
            self.visit(node)
        new = [name for name in self.bound if name not in before and name not in (local or ())]
        self.maybe.update(dict.fromkeys(new))
        self.bound = before
        return set(new)

    def _free(self, node: ast.AST) -> None:
        self._use(free_names(node))

    def _use(self, names: Iterable[str]) -> None:
        self.uses.update(dict.fromkeys(name for name in names if name not in self.bound))

    def _stored(self, node: ast.Attribute | ast.Subscript) -> None:
        if not isinstance(node.ctx, ast.Load):
            self._change(node)

    def _change(self, node: ast.AST) -> None:
        if name := root_name(node):
            self.changes[name] = None

    def _arguments(self, call: ast.Call) -> None:
        for item in (*call.args, *(word.value for word in call.keywords)):
            if isinstance(item, ast.Name):
                self.changes[item.id] = None
