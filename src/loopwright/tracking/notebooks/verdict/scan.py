"""What a notebook's code shows without running it: definitions, imports, unseeded randomness, use of the clock."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from functools import cached_property

__all__ = ["Scanned", "parsed"]

#: Names that give another result each time unless they are given a seed: the argument that gives it.
_SEEDED = {
    **dict.fromkeys(
        (
            "BaggingClassifier", "BaggingRegressor", "DecisionTreeClassifier", "DecisionTreeRegressor",
            "ExtraTreesClassifier", "ExtraTreesRegressor", "GaussianMixture", "GradientBoostingClassifier",
            "GradientBoostingRegressor", "IsolationForest", "KMeans", "MLPClassifier", "MLPRegressor",
            "MiniBatchKMeans", "RandomForestClassifier", "RandomForestRegressor", "RandomizedSearchCV",
            "SGDClassifier", "SGDRegressor", "ShuffleSplit", "StratifiedShuffleSplit", "TSNE", "resample",
            "train_test_split", "sample",
        ),
        "random_state",
    ),
    "default_rng": "seed",
    "Random": "x",
}  # fmt: skip
#: These shuffle only when they are told to.
_SHUFFLED = {"KFold", "StratifiedKFold", "StratifiedGroupKFold", "GroupKFold"}
#: Functions that use the state of a whole module, and the calls that seed it.
_GLOBAL = {
    "numpy": (
        {"rand", "randn", "randint", "random", "normal", "uniform", "choice", "shuffle", "permutation", "poisson"},
        "np.random.seed(0)",
    ),
    "random": (
        {"random", "randint", "choice", "choices", "shuffle", "sample", "uniform", "gauss", "randrange"},
        "random.seed(0)",
    ),
    "torch": ({"rand", "randn", "randint", "randperm", "normal"}, "torch.manual_seed(0)"),
}  # fmt: skip
_CLOCK = {"now", "today", "time", "perf_counter", "utcnow", "monotonic", "ctime"}


def parsed(source: str) -> ast.Module | None:
    """Return a cell's Python, with magics and shell commands as IPython reads them; None when it is none."""
    from IPython.core.inputtransformer2 import TransformerManager

    try:
        return ast.parse(TransformerManager().transform_cell(source))  # type: ignore[no-untyped-call]
    except (SyntaxError, ValueError):
        return None


class Scanned:
    """The code cells of a notebook, parsed; a cell that is no Python is empty here."""

    def __init__(self, sources: Sequence[str]) -> None:
        self._trees = [parsed(source) or ast.Module([], []) for source in sources]

    @cached_property
    def imports(self) -> frozenset[str]:
        """The top-level modules that the code names in imports."""
        found = set()
        for node in self._nodes():
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
        return frozenset(found)

    def _nodes(self) -> Iterator[ast.AST]:
        for tree in self._trees:
            yield from ast.walk(tree)

    def defining(self, name: str) -> list[int]:
        """Return the numbers of the cells that bind a global name, from 1."""
        return [number for number, tree in enumerate(self._trees, 1) if name in set(_bound(tree))]

    @cached_property
    def names(self) -> frozenset[str]:
        """All global names that some cell binds."""
        return frozenset(name for tree in self._trees for name in _bound(tree))

    def unseeded(self) -> dict[int, list[tuple[str, str]]]:
        """Return by cell the calls that give another result each time, each with what would seed it."""
        seeded: set[str] = set()
        found: dict[int, list[tuple[str, str]]] = {}
        for number, tree in enumerate(self._trees, 1):
            for call in _calls(tree):
                dotted = _dotted(call.func)
                name, module = dotted[-1] if dotted else "", _module(dotted)
                if name in {"seed", "manual_seed", "set_seed", "seed_everything"}:
                    seeded.add(module or "numpy")
                    continue
                if advice := _random(call, name, module, seeded):
                    text = f"{'.'.join(dotted)}(...)"
                    found.setdefault(number, []).append((text, advice))
        return found

    def clock(self) -> dict[int, list[str]]:
        """Return by cell the calls that read the clock."""
        found: dict[int, list[str]] = {}
        for number, tree in enumerate(self._trees, 1):
            for call in _calls(tree):
                dotted = _dotted(call.func)
                known = {"datetime", "date", "time", "Timestamp", "pd", "dt", "pandas"}
                if len(dotted) > 1 and dotted[-1] in _CLOCK and set(dotted[:-1]) & known:
                    found.setdefault(number, []).append(f"{'.'.join(dotted)}()")
        return found


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return iter(sorted(calls, key=lambda call: (call.lineno, call.col_offset)))


def _dotted(node: ast.expr) -> list[str]:
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    if isinstance(node, ast.Name):
        names.append(node.id)
    return names[::-1]


def _module(dotted: list[str]) -> str:
    if len(dotted) < 2:
        return ""
    if dotted[0] in {"np", "numpy"} and dotted[1] == "random":
        return "numpy"
    return {"random": "random", "torch": "torch"}.get(dotted[0], "")


def _random(call: ast.Call, name: str, module: str, seeded: set[str]) -> str:
    """Return what would seed a call that is not, or an empty text."""
    given = {keyword.arg for keyword in call.keywords}
    if None in given:
        return ""  # **options: what is in them is not known
    if module in _GLOBAL and name in _GLOBAL[module][0]:
        return "" if module in seeded else _GLOBAL[module][1]
    if name in _SHUFFLED:
        shuffles = any(
            keyword.arg == "shuffle" and getattr(keyword.value, "value", False) for keyword in call.keywords
        )
        return "random_state=0" if shuffles and "random_state" not in given and "numpy" not in seeded else ""
    if name not in _SEEDED:
        return ""
    argument = _SEEDED[name]
    if argument != "random_state":
        return "" if call.args or given else f"{name}(0)"
    # Without a state of their own, scikit-learn and pandas use NumPy's.
    return "" if "random_state" in given or "numpy" in seeded else "random_state=0"


def _bound(tree: ast.Module) -> Iterator[str]:
    """Yield the global names that a cell binds."""
    for node in tree.body:
        for item in _own_scope(node):
            if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield item.name
            elif isinstance(item, ast.Name) and isinstance(item.ctx, ast.Store):
                yield item.id
            elif isinstance(item, ast.Import | ast.ImportFrom):
                yield from (alias.asname or alias.name.partition(".")[0] for alias in item.names)


def _own_scope(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
        return
    for child in ast.iter_child_nodes(node):
        yield from _own_scope(child)
