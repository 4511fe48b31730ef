"""The fifteen usual scikit-learn estimators, fitted, with the rows they were fitted on."""

import warnings
from typing import Any


def fitted() -> tuple[list[Any], Any]:
    """Return the estimators and a table of 150 rows."""
    import numpy as np
    from sklearn.cluster import KMeans
    from sklearn.compose import ColumnTransformer
    from sklearn.datasets import load_iris
    from sklearn.ensemble import (
        ExtraTreesClassifier,
        GradientBoostingClassifier,
        HistGradientBoostingClassifier,
        IsolationForest,
        RandomForestClassifier,
    )
    from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler
    from sklearn.svm import SVC
    from sklearn.tree import DecisionTreeClassifier

    table, target = load_iris(return_X_y=True, as_frame=True)
    columns = list(table.columns)
    prepare = ColumnTransformer(
        [("log", FunctionTransformer(np.log1p), columns[:2]), ("scale", StandardScaler(), columns[2:])]
    )
    models = [
        LogisticRegression(max_iter=1000),
        Ridge(),
        SGDClassifier(random_state=1),
        SVC(),
        GaussianNB(),
        KMeans(3, random_state=1),
        DecisionTreeClassifier(random_state=1),
        RandomForestClassifier(random_state=1),
        ExtraTreesClassifier(random_state=1),
        GradientBoostingClassifier(random_state=1),
        HistGradientBoostingClassifier(random_state=1),
        IsolationForest(random_state=1),
        KNeighborsClassifier(),
        MLPClassifier(max_iter=50, random_state=1),
        make_pipeline(prepare, LogisticRegression(max_iter=1000)),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a net that has not converged stores as well as one that has
        for model in models:
            model.fit(table, target)
    return models, table
