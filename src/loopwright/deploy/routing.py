"""Which variant answers a row, and which versions may stand side by side.

An entity keeps its variant for as long as the deployment keeps its salt, in every process and every mode, because the
choice is a hash and not a draw.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loopwright.errors import InvalidInput, NotFound, listing, nearest
from loopwright.records import Column, Deployment, Scalar, Signature, Variant
from loopwright.registry.columns import DTYPES
from loopwright.scoring import Scorer

__all__ = ["Loaded", "Route", "Split", "adapt", "assign", "incompatible"]

_BITS = 53
#: Types whose values all fit another type.
_WIDER = {("integer", "long"), ("integer", "double"), ("long", "double"), ("float", "double")}


def _uniform(salt: str, entity: str) -> float:
    """Return the entity's place, evenly spread over [0, 1)."""
    text = f"{salt}\0{entity}".encode("utf-8", "backslashreplace")
    number = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
    return float((number >> (64 - _BITS)) / (1 << _BITS))


class Split:
    """The variants of a deployment that get rows, and how they share the entities.

    They share by name, not by their order in the record, and the first one's share starts at 0: when a candidate's
    weight rises, the entities it had stay with it.

    Raises
    ------
    InvalidInput
        No variant has a weight above 0, or a weight is negative or not finite.
    """

    def __init__(self, deployment: Deployment) -> None:
        wrong = [variant for variant in deployment.variants if not 0 <= variant.weight < float("inf")]
        answering = (variant for variant in deployment.variants if variant.weight > 0 and not variant.shadow)
        self.variants: tuple[Variant, ...] = tuple(sorted(answering, key=lambda v: v.name))
        if wrong or not self.variants:
            weights = listing(f"{variant.name}={variant.weight}" for variant in deployment.variants)
            raise InvalidInput(
                f"The variants of deployment {deployment.name!r} cannot share entities: {weights}.",
                valid="Weights are 0 or more, and at least one is above 0.",
            )
        total = sum(variant.weight for variant in self.variants)
        self.propensities = tuple(variant.weight / total for variant in self.variants)
        self._salt = deployment.salt
        self._ends = np.cumsum(self.propensities)[:-1].tolist()

    def place(self, entity: str) -> int:
        """Return the index in `variants` of the one that answers an entity."""
        if not self._ends:
            return 0
        at = _uniform(self._salt, entity)
        for index, end in enumerate(self._ends):
            if at < end:
                return index
        return len(self._ends)


def assign(deployment: Deployment, entity: str) -> tuple[Variant, float]:
    """Return the variant that answers an entity, and how probable that was.

    Parameters
    ----------
    deployment
        What serves; its salt and weights decide.
    entity
        Who or what the row is about.

    Returns
    -------
    tuple[Variant, float]
        The variant and its propensity: its weight as a share of all weights, above 0 and up to 1.

    Examples
    --------
    >>> from loopwright.records import Mode
    >>> both = (Variant("champion", 1, 0.75), Variant("candidate", 2, 0.25))
    >>> deployment = Deployment("api", "digits", Mode.online, both, salt="a")
    >>> variant, propensity = assign(deployment, "user-1")
    >>> (variant, propensity) == assign(deployment, "user-1")
    True
    """
    split = Split(deployment)
    place = split.place(entity)
    return split.variants[place], split.propensities[place]


class Loaded:
    """A scorer in use. It is closed when the last route and the last call that use it have let go of it."""

    __slots__ = ("__weakref__", "scorer")

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer
        weakref.finalize(self, scorer.close).atexit = False


class Route:
    """What one process serves for a deployment at one moment. Never changed: a new state is a new route.

    Parameters
    ----------
    deployment
        The state that is served.
    loaded
        The scorers by version, one for each variant.

    Attributes
    ----------
    variants
        All variants: first those that share the rows, in the order of `split`, then those that get rows only when a
        caller asks for them by name, then the shadows. A variant's index here is its *place*.
    shadows
        The places of the shadows.
    """

    def __init__(self, deployment: Deployment, loaded: Mapping[int, Loaded]) -> None:
        self.deployment = deployment
        self.loaded = dict(loaded)
        self.split = Split(deployment)
        shadows = tuple(variant for variant in deployment.variants if variant.shadow)
        others = (v for v in deployment.variants if v.weight <= 0 and not v.shadow)
        self.variants = (*self.split.variants, *others, *shadows)
        self.shadows = tuple(range(len(self.variants) - len(shadows), len(self.variants)))
        self.scorers = tuple(self.loaded[variant.version].scorer for variant in self.variants)
        self.signature = self.loaded[leading(deployment).version].scorer.signature
        self.signatures = tuple(scorer.signature for scorer in self.scorers)
        #: Whether a variant takes exactly what callers send, by place.
        self.same = tuple(signature == self.signature for signature in self.signatures)
        self.classes = _union(self.signature, *self.signatures)

    @property
    def served(self) -> dict[str, int]:
        """The version of each variant."""
        return {variant.name: variant.version for variant in self.deployment.variants}

    def load_for(self, rows: int) -> None:
        """Load now what answers batches of so many rows, each variant's share of them, instead of behind the first.

        For processes whose batches are large: which runtime answers a row then depends on its batch alone, not on how
        far loading has come.
        """
        for propensity, scorer in zip(self.split.propensities, self.scorers, strict=False):
            scorer.load_for(max(1, round(rows * propensity)))

    def named(self, variant: str) -> int:
        """Return the place of the variant that a caller asks for: its name, or the number of its version.

        Raises
        ------
        NotFound
            The deployment has no such variant that answers.
        """
        answering = self.variants[: len(self.variants) - len(self.shadows)]
        for place, one in enumerate(answering):
            if variant in (one.name, str(one.version)):
                return place
        known = [f"{one.name} (version {one.version})" for one in answering]
        close = nearest(variant, [one.name for one in answering])
        raise NotFound(
            f"The deployment {self.deployment.name!r} has no variant {variant[:64]!r}.",
            valid=f"{f'Did you mean {close!r}? ' if close else ''}Known: {listing(known)}.",
            hint=f"loopwright deployment show {self.deployment.name}",
        )


def leading(deployment: Deployment) -> Variant:
    """Return the variant called champion, else the one with the largest weight."""
    answering = [variant for variant in deployment.variants if not variant.shadow]
    named = [variant for variant in answering if variant.name == "champion"]
    return named[0] if named else max(answering, key=lambda variant: variant.weight)


def _union(*signatures: Signature) -> tuple[Scalar, ...]:
    # Keyed by type as well: True equals 1 in Python, and they are different labels.
    found = {(type(label), label): label for signature in signatures for label in signature.classes}
    return tuple(found.values())


def incompatible(champion: Signature, other: Signature) -> str:
    """Say why a version cannot answer every row that the champion can; empty when it can.

    Callers send what the champion takes. A candidate that needs more would fail for its share of them.
    """
    if champion.task is not other.task:
        return f"it is a {other.task}, the champion is a {champion.task}"
    if len(champion.outputs) != len(other.outputs):
        return f"it gives {len(other.outputs) or 1} outputs a row, the champion {len(champion.outputs) or 1}"
    known = {column.name: column for column in champion.inputs}
    for column in other.inputs:
        own = known.get(column.name)
        if own is None:
            if column.required:
                return f"it requires the input {column.name!r}, which the champion does not take"
        elif own.type != column.type and (own.type, column.type) not in _WIDER:
            return f"its input {column.name!r} is of type {column.type}, the champion's is {own.type}"
        elif column.required and not own.required:
            return f"it requires the input {column.name!r}, which may be missing for the champion"
    return ""


def adapt(columns: Mapping[str, NDArray[Any]], inputs: Sequence[Column]) -> dict[str, NDArray[Any]]:
    """Return the columns that a version takes, made of those that the champion takes."""
    made = {}
    for column in inputs:
        values = columns.get(column.name)
        if values is not None:
            wanted = DTYPES[column.type]
            widen = values.dtype != wanted and values.dtype.kind in "iuf" and wanted.kind in "iuf"
            # A whole number that is missing is NaN in a column of decimals: that column stays as it is.
            made[column.name] = values.astype(wanted) if widen and wanted.kind == "f" else values
    return made
