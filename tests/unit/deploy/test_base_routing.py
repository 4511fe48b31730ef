"""Which variant answers which row."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from loopwright.deploy.base import assign
from loopwright.deploy.routing import Split, adapt, incompatible
from loopwright.errors import InvalidInput
from loopwright.records import Column, Deployment, Mode, Signature, Task, Variant

ENTITIES = [f"user-{number}" for number in range(20_000)]


def deployment(*, salt: str = "salt", **weights: float) -> Deployment:
    """Return a deployment with these variants; the champion is version 1."""
    variants = tuple(
        Variant(name, 1 if name == "champion" else 2, weight) for name, weight in weights.items()
    )
    return Deployment("api", "wine", Mode.online, variants, salt=salt)


def candidates(served: Deployment) -> set[str]:
    """Return the entities that the candidate answers."""
    return {entity for entity in ENTITIES if assign(served, entity)[0].name == "candidate"}


def signature(*columns: Column, task: Task = Task.regression) -> Signature:
    """Return a signature with these inputs."""
    return Signature(columns, task)


@pytest.mark.parametrize("share", [0.01, 0.25, 0.5])
def test_entities_are_shared_by_weight(share: float) -> None:
    """Each variant gets its share of the entities, within three standard errors."""
    got = len(candidates(deployment(champion=1 - share, candidate=share))) / len(ENTITIES)
    assert abs(got - share) < 3 * (share * (1 - share) / len(ENTITIES)) ** 0.5


def test_an_entity_keeps_its_variant() -> None:
    """The same entity gets the same variant again, whatever the order of the variants in the record."""
    one = deployment(champion=0.7, candidate=0.3)
    other = deployment(candidate=0.3, champion=0.7)
    assert [assign(one, entity) for entity in ENTITIES[:500]] == [
        assign(other, entity) for entity in ENTITIES[:500]
    ]


def test_a_growing_candidate_keeps_its_entities() -> None:
    """When a candidate's weight rises, those it had stay with it."""
    steps = [candidates(deployment(champion=1 - share, candidate=share)) for share in (0.01, 0.05, 0.25, 0.5)]
    assert all(before < after for before, after in pairwise(steps))


def test_another_salt_shares_anew() -> None:
    """Two releases split independently: a quarter and a quarter share a sixteenth."""
    first = candidates(deployment(salt="a", champion=0.75, candidate=0.25))
    second = candidates(deployment(salt="b", champion=0.75, candidate=0.25))
    assert abs(len(first & second) / len(ENTITIES) - 1 / 16) < 0.01


def test_the_propensity_is_the_share() -> None:
    """The propensity of an assignment is the weight of the variant that was chosen."""
    served = deployment(champion=0.9, candidate=0.1)
    assert {assign(served, entity)[1] for entity in ENTITIES[:200]} == {0.9, 0.1}
    assert assign(deployment(champion=1.0), "anybody") == (Variant("champion", 1, 1.0), 1.0)


def test_a_variant_without_weight_gets_nothing() -> None:
    """Weight 0 means no entity at all."""
    served = deployment(champion=1.0, candidate=0.0)
    assert Counter(assign(served, entity)[0].name for entity in ENTITIES) == {"champion": len(ENTITIES)}


@pytest.mark.parametrize("weights", [{"champion": 0.0}, {"champion": -0.5, "candidate": 1.5}, {}])
def test_impossible_weights_are_refused(weights: dict[str, float]) -> None:
    """Weights that share nothing out, or less than nothing, are named."""
    with pytest.raises(InvalidInput, match="cannot share entities"):
        Split(deployment(salt="salt", **weights))


def test_odd_entities_are_assigned() -> None:
    """Any text can be an entity, also empty and unpaired surrogates."""
    served = deployment(champion=0.5, candidate=0.5)
    for entity in ("", "é", "\ud800", "x" * 10_000):
        assert assign(served, entity) == assign(served, entity)


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (signature(Column("a", "double"), Column("b", "long")), ""),
        (signature(Column("a", "double")), ""),
        (signature(Column("a", "double"), Column("b", "double")), ""),
        (signature(Column("a", "double"), Column("c", "double", required=False)), ""),
        (signature(Column("a", "double"), Column("c", "double")), "requires the input 'c'"),
        (signature(Column("a", "long")), "'a' is of type long, the champion's is double"),
        (signature(Column("o", "double")), "'o', which may be missing for the champion"),
        (signature(Column("a", "double"), task=Task.classification), "is a classification"),
    ],
)
def test_a_candidate_must_take_what_the_champion_takes(candidate: Signature, reason: str) -> None:
    """A version that would refuse rows which callers send today cannot stand beside the champion."""
    champion = signature(Column("a", "double"), Column("b", "long"), Column("o", "double", required=False))
    found = incompatible(champion, candidate)
    assert reason in found
    assert bool(found) is bool(reason)


def test_columns_are_widened_for_a_candidate() -> None:
    """Whole numbers become decimals where the candidate takes decimals; what it does not take is left out."""
    columns = {"a": np.array([1, 2]), "b": np.array([0.5, 1.5]), "t": np.array(["x", None], dtype=object)}
    made = adapt(columns, (Column("a", "double"), Column("t", "string"), Column("new", "double", False)))
    assert list(made) == ["a", "t"]
    assert made["a"].dtype == np.float64
    assert made["t"] is columns["t"]
