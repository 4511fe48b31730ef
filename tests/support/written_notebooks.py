"""Notebooks for tests, written from the text of their cells."""

import json
from pathlib import Path

from sklearn.datasets import load_wine

SPLIT = """X = df.drop(columns="grower")
y = df["grower"]
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=test_size, random_state=seed)
model = DecisionTreeClassifier(max_depth=depth, random_state=seed)
model.fit(X_train, y_train)"""

RATIO = '''def ratio(a, b):
    """A safe ratio."""
    return a / b.where(b != 0, np.nan)


df["phenol_ratio"] = ratio(df["total_phenols"], df["flavanoids"])'''

SCORES = """pred = model.predict(X_test)
accuracy = accuracy_score(y_test, pred)
print("F1", f1_score(y_test, pred, average="macro"))"""

#: A usual notebook: settings, a file, cleaning, a new column, plots, a tree, metrics of which one is only printed.
WINE = (
    "# Wine growers",
    """%matplotlib inline
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import train_test_split
from sklearn.tree import DecisionTreeClassifier""",
    "test_size = 0.25  # share held out\ndepth = 3\nseed = 7\nweakest = 11.5",
    "# ## Read the wines",
    '# one row is one wine\ndf = pd.read_csv("data/wine.csv")\ndf.head()',
    "df.describe()\ndf.sample(3)",
    '# weak wines are mistakes\ndf = df.drop_duplicates().dropna()\ndf = df[df["alcohol"] > weakest]',
    'counts = df.groupby("grower").size()\ncounts.plot.bar()\nplt.show()',
    RATIO,
    SPLIT,
    SCORES,
)


def write_notebook(path: Path, *cells: str, tags: dict[int, list[str]] | None = None) -> Path:
    """Write a notebook; a cell of one line that starts with ``# `` and a capital or ``##`` is text.

    `tags` go by the cell's place, from 0.
    """
    made: list[dict[str, object]] = []
    for place, source in enumerate(cells):
        text = "\n" not in source and source.startswith("# ") and (source[2] == "#" or source[2].isupper())
        cell: dict[str, object] = {
            "id": f"cell-{place}",
            "cell_type": "markdown" if text else "code",
            "metadata": {"tags": tags[place]} if tags and place in tags else {},
            "source": (source[2:] if text and source[2] == "#" else source).splitlines(keepends=True),
        }
        made.append(cell if text else cell | {"outputs": [], "execution_count": None})
    path.parent.mkdir(parents=True, exist_ok=True)
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path.write_text(
        json.dumps({"cells": made, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5})
    )
    return path


def write_wines(folder: Path) -> Path:
    """Write scikit-learn's wine data to ``data/wine.csv`` below a folder."""
    frame = load_wine(as_frame=True).frame.rename(columns={"target": "grower"})
    path = folder / "data" / "wine.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(path, index=False)
    return path
