"""Which steps a pipeline calls, read from its source, and as a run has called them."""

from typing import Any

from loopwright.pipelines import pipeline, step
from loopwright.pipelines.graph import drawn, graph_of, graph_of_run
from loopwright.records import PipelineRun, StepRun, now


@step
def load(name: str) -> list[int]:
    """Give numbers."""
    return [len(name)]


@step
def clean(raw: list[int]) -> list[int]:
    """Give them back."""
    return raw


@step
def fit(table: Any, other: Any = None) -> float:
    """Give a number."""
    return 1.0


def helper(value: Any) -> Any:
    """Do what is no step."""
    return value


@pipeline
def train(flag: bool = True) -> float:
    """Use what people write: names, tuples, helpers, branches, loops, keywords, comprehensions."""
    a, b = load("a"), load("b")
    table = helper(clean(a))
    if flag:
        table = clean(table)
    for row in table:
        fit(row)
    parts = clean.map([helper(x) for x in b])
    return fit(table, other=parts)


def test_results_are_followed_by_their_names() -> None:
    """Through assignments, calls of plain functions, branches and loops."""
    found = graph_of(train)
    assert [(node.name, node.after, node.many) for node in found.nodes] == [
        ("load", (), False),
        ("load", (), False),
        ("clean", (0, 1), False),
        ("clean", (2,), False),
        ("fit", (3,), False),
        ("clean", (0, 1), True),
        ("fit", (3, 5), False),
    ]


def test_it_is_drawn_as_a_tree_and_as_a_flowchart() -> None:
    """A node with several sources stands below the last and names the others."""
    lines = drawn(graph_of(train))
    assert lines[0].endswith(":train")
    assert any(line.endswith("fit  (and from clean)") for line in lines)
    mermaid = graph_of(train).mermaid()
    assert mermaid.startswith("flowchart TD")
    assert 'n5[["clean"]]' in mermaid
    assert "n3 --> n6" in mermaid


def test_a_run_has_its_own_graph() -> None:
    """Calls of one step with the same sources are one node, which has failed when one of them has."""
    steps = (
        StepRun("load", "c", "cached", 0.5, number=0),
        StepRun("fit", "c", "completed", 1.0, number=1, after=(0,)),
        StepRun("fit", "c", "failed", 2.0, number=2, after=(0,)),
        StepRun("clean", "c", "completed", 2.0, number=3, after=(1, 2)),
    )
    run = PipelineRun("m:train", "r", "f", "failed", now(), steps=steps)
    load_node, fit_node, clean_node = graph_of_run(run).nodes
    assert (load_node.status, load_node.calls) == ("cached", 1)
    assert (fit_node.calls, fit_node.status, fit_node.seconds, fit_node.after) == (2, "failed", 3.0, (0,))
    assert clean_node.after == (1,)


def test_a_function_without_source_has_no_graph() -> None:
    """It is drawn with a sentence instead."""
    space: dict[str, Any] = {"__name__": "made"}
    exec("def made():\n    return 1\n", space)
    assert drawn(graph_of(pipeline(space["made"]))) == ["made:made calls no steps that its source shows."]
