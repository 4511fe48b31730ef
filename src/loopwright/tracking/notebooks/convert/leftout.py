"""What a pipeline has no use for: plots, looks at a table, prints. And the metrics that hide in them."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from loopwright.tracking.notebooks.convert.dataflow import CHANGING, called, root_name

__all__ = ["REPORTS", "is_metric", "only_shows", "plotting_modules", "scalar_metric", "shown_values"]

_PLOT_PACKAGES = {
    "altair", "bokeh", "cufflinks", "folium", "ipywidgets", "matplotlib", "missingno", "plotly", "plotnine", "pylab",
    "seaborn", "wordcloud", "yellowbrick",
}  # fmt: skip
#: Functions of plotting packages that fetch data.
_NO_PLOT = {"load_dataset", "get_dataset_names", "color_palette"}
_PLOT_METHODS = {"plot", "hist", "boxplot", "scatter", "bar", "barh", "pie", "heatmap", "show", "plot_tree"}
_SHOWING = {
    "print",
    "display",
    "help",
    "dir",
    "type",
    "len",
    "pprint",
    "plot_tree",
    "list",
    "set",
    "id",
    "repr",
    "str",
}
#: Methods whose value is looked at; called alone they change nothing, unless `inplace=True` says so.
_LOOKING = {
    "agg", "aggregate", "all", "any", "assign", "astype", "copy", "corr", "count", "cov", "crosstab", "describe", "drop",
    "drop_duplicates", "dropna", "duplicated", "equals", "fillna", "first", "get_params", "group", "groupby", "head",
    "idxmax", "idxmin", "info", "isna", "isnull", "items", "keys", "last", "max", "mean", "median", "melt", "memory_usage",
    "merge", "min", "mode", "nlargest", "notna", "notnull", "nsmallest", "nunique", "pivot", "pivot_table", "predict",
    "predict_proba", "quantile", "query", "rename", "reset_index", "round", "sample", "score", "set_index", "size", "skew",
    "sort_index", "sort_values", "std", "style", "sum", "summary", "tail", "to_frame", "to_markdown", "to_string",
    "tolist", "transform", "transpose", "unique", "value_counts", "values", "var",
}  # fmt: skip
#: Settings of how things look or what is warned of, by the call's last two names.
_SETTINGS = {
    "filterwarnings", "simplefilter", "set_option", "set_printoptions", "option_context", "basicConfig", "set_config",
}  # fmt: skip

#: Metrics of one number. Other functions count when their name ends in `_score`.
_METRICS = {
    "accuracy_score": "accuracy", "balanced_accuracy_score": "balanced_accuracy", "f1_score": "f1", "log_loss": "loss",
    "max_error": "largest_error", "mean_absolute_error": "mae", "mean_absolute_percentage_error": "mape",
    "mean_squared_error": "mse", "mean_squared_log_error": "msle", "median_absolute_error": "median_error",
    "brier_score_loss": "brier", "hamming_loss": "hamming", "hinge_loss": "hinge", "zero_one_loss": "error_rate",
    "matthews_corrcoef": "mcc", "precision_score": "precision", "r2_score": "r2", "recall_score": "recall",
    "roc_auc_score": "roc_auc", "root_mean_squared_error": "rmse", "score": "score", "auc": "area",
}  # fmt: skip
#: What is printed of an evaluation and is no number: kept as a value, compared, and not logged.
REPORTS = {"classification_report": "report", "confusion_matrix": "confusion"}
_ARITHMETIC = {"abs", "float", "round", "sqrt", "mean", "std", "max", "min", "item", "exp", "log"}


def plotting_modules(nodes: Iterator[ast.stmt]) -> set[str]:
    """Return the names that imports bind to something of a plotting package."""
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {
                alias.asname or alias.name.partition(".")[0]
                for alias in node.names
                if alias.name.partition(".")[0] in _PLOT_PACKAGES
            }
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in _PLOT_PACKAGES:
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {
                alias.asname or alias.name
                for alias in node.names
                if alias.name.endswith("Display") or alias.name.startswith("plot_")
            }
    return found


def only_shows(node: ast.stmt, plots: set[str]) -> bool:
    """Return whether a statement draws, prints, shows a value or sets how things look, and does nothing else.

    `plots` are the names of plotting modules, of the user's plotting functions, and of figures and axes.
    """
    if isinstance(node, ast.Expr):
        return _shows(node.value, plots)
    if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign) and node.value is not None:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        drawn = isinstance(node.value, ast.Call) and _draws(node.value, plots)
        return drawn or all(
            not isinstance(target, ast.Name) and root_name(target) in plots for target in targets
        )
    if isinstance(node, ast.Pass):
        return True
    if isinstance(node, ast.For | ast.If | ast.With | ast.While):
        body = [*node.body, *(node.orelse if not isinstance(node, ast.With) else [])]
        return all(isinstance(item, ast.Break | ast.Continue) or only_shows(item, plots) for item in body)
    return False


def _draws(call: ast.Call, plots: set[str]) -> bool:
    name = root_name(call)
    last = call.func.attr if isinstance(call.func, ast.Attribute) else name
    return last not in _NO_PLOT and (name in plots or "plot" in _chain(call) or last in {"hist", "boxplot"})


def _chain(node: ast.AST) -> set[str]:
    """Return the attribute names along ``a.b.c(d).e``."""
    found = set()
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        node = node.func if isinstance(node, ast.Call) else node.value
    return found


def _shows(value: ast.expr, plots: set[str]) -> bool:
    if isinstance(value, ast.Await | ast.Yield | ast.YieldFrom | ast.NamedExpr):
        return False
    if isinstance(value, ast.Call):
        return _shows_call(value, plots)
    # `df`, `df.shape`, `(a, b)`: a look, provided that no call with an effect is inside.
    calls = [item for item in ast.walk(value) if isinstance(item, ast.Call)]
    return all(_shows_call(call, plots) for call in calls)


def _shows_call(call: ast.Call, plots: set[str]) -> bool:
    if any(word.arg == "inplace" for word in call.keywords):
        return False
    if any(isinstance(item, ast.Call) and called(item) in CHANGING for item in ast.walk(call)):
        return False
    if isinstance(call.func, ast.Name):
        name = call.func.id
        return name in _SHOWING or name in plots or is_metric(call) or name in REPORTS
    if not isinstance(call.func, ast.Attribute):
        return False
    last = call.func.attr
    if last in {"savefig", "write_html", "write_image"}:
        return root_name(call) in plots
    return (
        _draws(call, plots)
        or last in _LOOKING | _SETTINGS | _PLOT_METHODS
        or is_metric(call)
        or last in REPORTS
        or (last == "close" and root_name(call) in plots)
    )


def is_metric(node: ast.AST) -> bool:
    """Return whether an expression is a call of a metric that gives one number."""
    if not isinstance(node, ast.Call):
        return False
    name = called(node)
    several = any(
        word.arg == "average" and isinstance(word.value, ast.Constant) and word.value.value is None
        for word in node.keywords
    ) or any(
        word.arg == "multioutput"
        and isinstance(word.value, ast.Constant)
        and word.value.value == "raw_values"
        for word in node.keywords
    )
    if name.startswith(("cross_val", "make_")) or several:
        return False
    return name in _METRICS or name.endswith("_score")


def scalar_metric(node: ast.AST, known: set[str], samples: set[str]) -> bool:
    """Return whether an expression is a number made of metrics.

    `known` are names of such numbers; `samples` are names of arrays of them, such as those of `cross_val_score`.
    """
    if is_metric(node):
        return True
    if isinstance(node, ast.Name):
        return node.id in known
    if isinstance(node, ast.UnaryOp):
        return scalar_metric(node.operand, known, samples)
    if isinstance(node, ast.BinOp):
        sides = (node.left, node.right)
        return any(scalar_metric(side, known, samples) for side in sides) and all(
            isinstance(side, ast.Constant) or scalar_metric(side, known, samples) for side in sides
        )
    if isinstance(node, ast.Call) and called(node) in _ARITHMETIC:
        given = [*node.args[:1], *([node.func.value] if isinstance(node.func, ast.Attribute) else [])]
        sampled = called(node) in {"mean", "std", "max", "min"} and any(
            (isinstance(item, ast.Name) and item.id in samples) or _is_sample(item)
            for item in map(_positive, given)
        )
        return sampled or any(scalar_metric(item, known, samples) for item in given)
    return False


def _positive(node: ast.expr) -> ast.expr:
    return node.operand if isinstance(node, ast.UnaryOp) else node


def _is_sample(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and called(node) == "cross_val_score"


def shown_values(node: ast.stmt, samples: set[str]) -> list[tuple[str, ast.expr]]:
    """Return the metrics that a statement computes only to show them, with a name for each.

    `print("accuracy", accuracy_score(y, p))` gives ``accuracy``; `model.score(X_test, y_test)` gives ``test_score``.
    `samples` are names of arrays of metrics, whose printed mean is a metric too.
    """
    if not isinstance(node, ast.Expr):
        return []
    found: list[tuple[str, ast.expr]] = []

    def walk(item: ast.AST) -> None:
        if isinstance(item, ast.Lambda | ast.ListComp | ast.GeneratorExp | ast.DictComp | ast.SetComp):
            return
        if isinstance(item, ast.Call):
            name = called(item)
            if name in REPORTS:
                found.append((REPORTS[name], item))
                return
            # The innermost one: of `round(accuracy_score(y, p), 3)` the metric, not the rounded text.
            inside = any(map(is_metric, ast.walk(item)))
            if is_metric(item) or (not inside and scalar_metric(item, set(), samples)):
                found.append((_metric_name(item), item))
                return
        for child in ast.iter_child_nodes(item):
            walk(child)

    walk(node.value)
    return found


def _metric_name(call: ast.Call) -> str:
    name = called(call)
    if not is_metric(call):
        sample = root_name(call.args[0] if call.args else call)
        return f"{'cross_val' if sample == 'cross_val_score' else sample}_{name}"
    base = _METRICS.get(name, name.removesuffix("_score"))
    ending = root_name(call.args[0]).rpartition("_")[2] if name == "score" and call.args else ""
    return f"{ending}_{base}" if ending in {"train", "test", "val", "valid"} else base
