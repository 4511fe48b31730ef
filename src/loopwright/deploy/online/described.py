"""What the public pages of a deployment tell: its signature, real example rows, and what its training data held."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopwright.errors import LoopwrightError
from loopwright.records import Column, Scalar, Signature, Variant
from loopwright.registry.profile import ColumnProfile, read_profile

if TYPE_CHECKING:
    from loopwright.deploy.routing import Route

__all__ = ["PROFILE", "Described", "described"]

#: Example rows of a deployment, at most.
EXAMPLES = 8
PROFILE = "profile.json"
#: What stands for a value where no real row may be shown.
_PLAIN: dict[str, Any] = {
    "boolean": True,
    "integer": 0,
    "long": 0,
    "float": 0.0,
    "double": 0.0,
    "string": "text",
    "datetime": "2026-01-31T12:00:00Z",
}


@dataclass(frozen=True, slots=True)
class Described:
    """One deployment as callers see it.

    `examples` are rows as JSON values, at least one: real ones that were kept with the version, where it has any
    (`real`). `seen` holds the distribution of inputs in the training data, by name. `classes` are those of all variants.
    `entity` names the field that says who a row is about; it may come in addition to the inputs. `hidden` are inputs
    of which the examples hold made-up values.
    """

    model: str
    signature: Signature
    entity: str | None = None
    examples: tuple[dict[str, Any], ...] = ()
    real: bool = False
    variants: tuple[Variant, ...] = ()
    runtime: str = ""
    classes: tuple[Scalar, ...] = ()
    seen: Mapping[str, ColumnProfile] = field(default_factory=dict)
    hidden: tuple[str, ...] = ()

    @property
    def extra(self) -> str | None:
        """The name of the entity's field where it is none of the inputs."""
        return self.entity if self.entity is not None and self.entity not in self.signature.names else None

    @property
    def example(self) -> dict[str, Any]:
        """The first example row."""
        return self.examples[0] if self.examples else plain_row(self.signature)

    @property
    def versions(self) -> tuple[int, ...]:
        """The versions that answer, each once."""
        return tuple(dict.fromkeys(one.version for one in self.variants if not one.shadow))


def described(
    route: Route, folder: Path, entity: str | None = None, *, hidden: Collection[str] = ()
) -> Described:
    """Describe what a deployment serves now.

    Parameters
    ----------
    route
        What it serves.
    folder
        The prepared folder of the leading version: ``project.scorer(model, version)``.
    entity
        The field that names a row's entity.
    hidden
        Inputs whose real values are nobody's business, such as those that the log drops or hashes: examples hold
        made-up values there, and nothing is said of the training data.

    Returns
    -------
    Described
        A version without golden rows or profile is described without them. Reads two files; takes milliseconds.
    """
    signature = route.signature
    rows = _golden_rows(folder, signature)
    plain = plain_row(signature)
    masked = {name: plain[name] for name in signature.names if name in hidden}
    leading = next(
        (one for one in route.loaded.values() if one.scorer.signature is signature),
        next(iter(route.loaded.values())),
    )
    return Described(
        model=route.deployment.model,
        signature=signature,
        entity=entity,
        examples=tuple(row | masked for row in rows) or (plain,),
        real=bool(rows),
        variants=route.deployment.variants,
        runtime=leading.scorer.runtime,
        classes=route.classes,
        seen={name: column for name, column in _profiles(folder).items() if name not in hidden},
        hidden=tuple(masked),
    )


def plain_row(signature: Signature) -> dict[str, Any]:
    """Return a made-up row that fits a signature."""
    return {column.name: _PLAIN[column.type] for column in signature.inputs}


def _golden_rows(folder: Path, signature: Signature) -> list[dict[str, Any]]:
    # Parquet and what it needs are loaded only when somebody looks.
    from loopwright.scoring import golden
    from loopwright.scoring.base import GOLDEN

    path = folder / GOLDEN
    if not path.is_file():
        return []
    table = golden.read_rows(path).slice(0, EXAMPLES)
    prefix = "input_"
    columns = {
        column.name: table[prefix + column.name].to_pylist()
        for column in signature.inputs
        if prefix + column.name in table.column_names
    }
    return [
        {
            column.name: as_json(column, columns[column.name][row] if column.name in columns else None)
            for column in signature.inputs
        }
        for row in range(table.num_rows)
    ]


def as_json(column: Column, value: Any) -> Any:
    """Return a column's value as JSON has it: None for what is missing, a time as RFC 3339 in UTC."""
    if isinstance(value, datetime):
        return value.isoformat().removesuffix("+00:00") + "Z"
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        # Nine digits say exactly which number of 32 bits it is.
        return float(f"{value:.9g}") if column.type == "float" else value
    return value


def _profiles(folder: Path) -> dict[str, ColumnProfile]:
    try:
        return {column.name: column for column in read_profile(folder / PROFILE).columns}
    except (OSError, LoopwrightError):
        return {}
