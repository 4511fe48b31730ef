"""The same with Loopwright, and besides: snapshot, environment, lineage, reference profile, replay rows."""

from sklearn.ensemble import RandomForestClassifier

import loopwright as lw


@lw.step
def load(path):
    return lw.dataset("wine", path)


@lw.step
def fit(table, depth):
    rows, target = table.drop(columns="target"), table["target"]
    return RandomForestClassifier(max_depth=depth, random_state=0).fit(rows, target)


@lw.pipeline
def train(depth: int = 5):
    table = load("wine.csv")
    model = fit(table, depth)
    accuracy = model.score(table.drop(columns="target"), table["target"])
    return lw.register("wine", model, table, target="target", metrics={"accuracy": accuracy})
