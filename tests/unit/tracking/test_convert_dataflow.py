"""What statements read, bind and change, and what flows from one row of them to the next."""

import ast

import pytest

from loopwright.tracking.notebooks.convert.dataflow import Flow, exposed, flow_of, free_names, live_before


def flow(code: str, *functions: str) -> Flow:
    """Describe one statement."""
    return flow_of(ast.parse(code).body[0], frozenset(functions))


@pytest.mark.parametrize(
    ("code", "uses", "binds"),
    [
        ("x = a + b", "a b", "x"),
        ("x = x + 1", "x", "x"),
        ("x += y", "y x", "x"),
        ("a, (b, *c) = f(d)", "f d", "a b c"),
        ("x = [i * k for i in rows if i > low]", "rows low k", "x"),
        ("x = {k: v for k, v in pairs.items()}", "pairs", "x"),
        ("x = (n := g(1)) + n", "g", "n x"),
        ("x = lambda i: i + offset", "offset", "x"),
        ("import numpy as np, os.path", "", "np os"),
        ("from a import b as c", "", "c"),
        ("def f(a, b=default):\n    c = a\n    return c + helper(f)", "default helper", "f"),
        ("class A(Base):\n    size = small\n    def g(self):\n        return wide", "Base small wide", "A"),
        ("with open(p) as f:\n    text = f.read()", "open p", "f text"),
        ("for i in rows:\n    total = total + i", "rows total", "i"),
        ("if a:\n    x = 1\nelse:\n    x = b", "a b", "x"),
        ("x: int = y", "int y", "x"),
    ],
)
def test_uses_and_binds(code: str, uses: str, binds: str) -> None:
    """Names are read and bound as Python does it, with the scopes of functions and comprehensions."""
    found = flow(code)
    assert (" ".join(found.uses), " ".join(found.binds)) == (uses, binds)


@pytest.mark.parametrize(
    ("code", "changed"),
    [
        ('df["a"] = 1', "df"),
        ('df.loc[rows, "a"] = 0', "df"),
        ("df.drop(columns='a', inplace=True)", "df"),
        ("model.fit(X, y)", "model X y"),
        ("Z = scaler.fit_transform(X)", "scaler"),
        ("items.append(x)", "items x"),
        ("del df['a']", "df"),
        ("loss = train_epoch(net, rows)", "net rows"),
        ("y = df.mean()", ""),
        ("joblib.dump(model, path)", ""),
        ('df.to_csv("a.csv")', ""),
    ],
)
def test_changes_in_place(code: str, changed: str) -> None:
    """What a statement changes without binding it is noticed: stores into it, methods with effects, calls for effect."""
    assert " ".join(flow(code, "train_epoch").changes) == changed


def test_names_bound_in_a_branch_may_be_bound() -> None:
    """A name that only one branch binds keeps its old value in the other."""
    found = flow("if a:\n    x = 1\n    y = 2\nelse:\n    y = 3")
    assert found.maybe == ("x",)
    assert found.binds == ("y",)


def test_liveness_stops_at_a_new_binding() -> None:
    """A value that is bound anew before it is read need not be passed on."""
    flows = [flow(line) for line in ("a = 1", "b = a", "a = 2", "c = a + b")]
    assert live_before(flows, {"c"}) == [set(), {"a"}, {"b"}, {"a", "b"}, {"c"}]


def test_exposed_names_are_read_before_they_are_bound() -> None:
    """What a row of statements needs from outside."""
    assert exposed([flow("a = b"), flow("c = a + d"), flow("b = c")]) == ("b", "d")


def test_free_names_of_nested_functions() -> None:
    """A function needs what its inner functions read from the module."""
    code = "def f(a):\n    def g(b):\n        return a + b + scale\n    return g(len(rows))"
    assert set(free_names(ast.parse(code).body[0])) == {"scale", "rows", "len"}
