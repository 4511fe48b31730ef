"""The demo on anybody's table: its rows arrive in their own order of time, and only time changes them."""

import csv
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from loopwright.demo.scenario import Row
from loopwright.errors import InvalidInput, NotFound, listing
from loopwright.records import Scalar
from loopwright.templates import write

__all__ = ["Table"]

#: The first share of the rows, in order of time, is what the first models learn from.
HISTORY = 0.45
#: Seconds of traffic that the rest of the rows is spread over.
TRAFFIC_S = 300.0
FORMATS = (
    "%Y-%m-%d",
    "%Y-%m-%d %H:%M:%S",
    "%m/%d/%y",
    "%d/%m/%y",
    "%m/%d/%Y",
    "%d/%m/%Y",
    "%Y/%m/%d",
    "%d.%m.%Y",
)


class Table:
    """A table's own story.

    Parameters
    ----------
    path
        A CSV file with a header.
    target
        The column to predict.
    time_column
        The column that orders the rows; else the first one whose values are all dates; else the file's own order.
    drop
        Columns that are left out.

    Raises
    ------
    NotFound
        There is no such file, or no such column.
    InvalidInput
        The file is too small, or the target is not filled.
    """

    model = "table"
    deployment = "table-api"
    baseline_s = 20.0
    runs: tuple[dict[str, Any], ...] = ({"kind": "linear", "recent": 0}, {"kind": "forest", "recent": 0})

    def __init__(self, path: Path, target: str, time_column: str | None, drop: tuple[str, ...]) -> None:
        rows, columns = _read(path)
        for name in (target, *drop, *([time_column] if time_column else [])):
            if name not in columns:
                raise NotFound.among(f"column of {path.name}", name, columns)
        rows = [row for row in rows if row[target] not in ("", None)]
        if len(rows) < 1000:
            raise InvalidInput(
                f"{path.name} has {len(rows)} rows with a {target!r}; the story needs at least 1000.",
                valid="It needs rows to learn from, to arrive, and to retrain on.",
            )
        time_column, rows = _in_order(rows, columns, time_column)
        self.order = f"by {time_column}" if time_column else "in the file's order"
        self._target = target
        self._inputs = [name for name in columns if name not in {target, time_column, *drop}]
        if not self._inputs:
            raise InvalidInput(
                f"No column is left to predict {target!r} from.", valid=f"Columns: {listing(columns)}."
            )
        self._types = {name: _type_of([row[name] for row in rows]) for name in (*self._inputs, target)}
        classes = {row[target] for row in rows}
        self._regression = self._types[target] is not str and len(classes) > 20
        self.metric, self.higher = ("mae", False) if self._regression else ("accuracy", True)
        split = int(len(rows) * HISTORY)
        self._history, self._arriving = rows[:split], rows[split:]
        self.rate = min(80.0, max(10.0, len(self._arriving) / TRAFFIC_S))

    def write(self, root: Path) -> None:
        """Write the project, the rows it starts with, and limits measured on the newest of those rows."""
        path = root / "data" / "table.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as out:
            writer = csv.DictWriter(out, [*self._inputs, self._target], extrasaction="ignore")
            writer.writeheader()
            writer.writerows(self._history)
        kind = "Regressor" if self._regression else "Classifier"
        values = {
            "target": self._target,
            "metric": self.metric,
            "loss": "absolute_error" if self._regression else "error",
            "forest": f"RandomForest{kind}",
            "linear": "Ridge" if self._regression else "LogisticRegression",
            "scoring": "neg_mean_absolute_error" if self._regression else "accuracy",
            "limit": "0.0",
            "margin": "0.02",
        }
        write("table", root, values)
        measured = _measure(root)
        limit = measured * 1.25 if self._regression else measured - 0.05
        margin = measured * 0.1 if self._regression else 0.02
        write("table", root, values | {"limit": f"{limit:.4g}", "margin": f"{margin:.4g}"})

    def rows(self) -> Iterator[Row]:
        """Yield the rows in order of time; when they are used up, the last fifth again."""
        position = 0
        while True:
            row = self._arriving[position]
            fields = {name: self._value(row, name) for name in self._inputs}
            actual = self._value(row, self._target)
            assert actual is not None
            yield Row(fields, actual, f"row-{position}")
            position += 1
            if position == len(self._arriving):
                position = int(len(self._arriving) * 0.8)

    def _value(self, row: dict[str, str], name: str) -> Any:
        text = row[name]
        if text == "":
            return None
        return self._types[name](text)

    def shift(self) -> str:
        """Let time pass: nothing is changed by hand."""
        return "time passes: the rows that arrive now are newer than all the model has seen"

    def fresh(self) -> None:
        """Rows arrive in order of time, so none that is to come can have been trained on."""

    def score(self, answers: list[tuple[Scalar, Scalar]]) -> float:
        """Return the mean absolute error, or the accuracy."""
        if self._regression:
            errors = [abs(float(prediction) - float(actual)) for prediction, actual in answers]
            return sum(errors) / max(1, len(errors))
        return sum(str(prediction) == str(actual) for prediction, actual in answers) / max(1, len(answers))

    def recovered(
        self, root: Path, before: float, after: float, rows: list[tuple[Row, Scalar]]
    ) -> tuple[bool, str]:
        """Ask that the new champion is better than the old one would have been on the very same rows."""
        import numpy as np

        from loopwright import scoring
        from loopwright.config import Project

        scorer = scoring.load(
            Project(root).scorer(self.model, 1 if len(rows) == 0 else self._first_champion(root))
        )
        columns = {}
        for column in scorer.signature.inputs:
            values = [row.fields[column.name] for row, _ in rows]
            kind = {"string": object, "long": np.int64}.get(column.type, float)
            gap = None if kind is object else math.nan
            columns[column.name] = np.array([gap if value is None else value for value in values], dtype=kind)
        old = self.score(
            list(zip(scorer.score(columns).prediction.tolist(), [r.actual for r, _ in rows], strict=True))
        )
        scorer.close()
        better = after > old if self.higher else after < old
        return (
            better,
            f"{self.metric} {after:.4g}; the old champion would have had {old:.4g} on the same rows",
        )

    def _first_champion(self, root: Path) -> int:
        from loopwright.config import Project
        from loopwright.ledger import Ledger
        from loopwright.records import Deployment

        first = Ledger.open(Project(root)).events("deployment.changed", self.deployment, limit=1)[0]
        return first.read(Deployment).variants[0].version


def _read(path: Path) -> tuple[list[dict[str, str]], list[str]]:
    if not path.is_file():
        raise NotFound(f"There is no file {path}.", hint="loopwright demo --data FILE.csv --target COLUMN")
    try:
        with path.open(newline="", encoding="utf-8-sig") as source:
            reader = csv.DictReader(source)
            return list(reader), list(reader.fieldnames or [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidInput(f"{path} is no CSV text: {error}.", valid="UTF-8, with a header line.") from error


def _type_of(values: list[str]) -> type[int] | type[float] | type[str]:
    """Return how a column is read, as pandas would: whole numbers with a gap are floats."""
    kinds: tuple[type[int | float], ...] = (float,) if "" in values else (int, float)
    for kind in kinds:
        try:
            for value in values:
                if value != "":
                    kind(value)
        except ValueError:
            continue
        return kind
    return str


def _in_order(
    rows: list[dict[str, str]], columns: list[str], time_column: str | None
) -> tuple[str | None, list[dict[str, str]]]:
    """Sort the rows by time; rows of one moment keep the file's order."""
    for name in [time_column] if time_column else columns:
        for form in FORMATS:
            try:
                moments = [datetime.strptime(row[name], form) for row in rows]  # noqa: DTZ007
            except (ValueError, TypeError):
                continue
            order = sorted(range(len(rows)), key=moments.__getitem__)
            return name, [rows[index] for index in order]
    if time_column is None:
        return None, rows
    if _type_of([row[time_column] for row in rows]) is not str:
        return time_column, sorted(rows, key=lambda row: float(row[time_column]))
    raise InvalidInput(
        f"The values of {time_column!r} are no dates: the first is {rows[0][time_column]!r}.",
        valid=f"Formats: {listing(FORMATS)}, or numbers.",
    )


def _measure(root: Path) -> float:
    """Return the metric of the first forest on the newest tenth of the history, in a process of its own."""
    program = (
        "import json, pandas as pd, pipelines as p\n"
        "from sklearn.metrics import accuracy_score, mean_absolute_error\n"
        "t = pd.read_csv('data/table.csv'); cut = int(len(t) * 0.9)\n"
        "m = p.MODELS['forest'](0).fit(t.iloc[:cut].drop(columns=p.TARGET), t[p.TARGET].iloc[:cut])\n"
        "s = mean_absolute_error if hasattr(m, 'predict') and not hasattr(m, 'classes_') else accuracy_score\n"
        "print(json.dumps(float(s(t[p.TARGET].iloc[cut:], m.predict(t.iloc[cut:].drop(columns=p.TARGET))))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise InvalidInput(f"No model could be fitted on this table: {done.stderr.strip().splitlines()[-1]}")
    return float(json.loads(done.stdout.strip().splitlines()[-1]))
