"""The plan of a pipeline: steps, what flows, parameters, what is left out, what is registered."""

from pathlib import Path

import pytest
from written_notebooks import WINE, write_notebook

from loopwright.errors import InvalidInput
from loopwright.tracking.notebooks.convert.cells import read
from loopwright.tracking.notebooks.convert.plan import Plan, plan
from loopwright.tracking.notebooks.convert.registering import Registration
from loopwright.tracking.notebooks.convert.source import blocks

FIT = "from sklearn.linear_model import Ridge\nimport pandas as pd"


def planned(tmp_path: Path, *cells: str) -> Plan:
    """Plan the pipeline of a notebook with these cells."""
    return plan(read(write_notebook(tmp_path / "wine.ipynb", *cells)), tmp_path)


def text_of(made: Plan) -> str:
    """Return the pipeline's source."""
    return "\n\n".join(block.text for block in blocks(made))


def test_a_usual_notebook(tmp_path: Path) -> None:
    """Cells become the five steps, with the user's names flowing between them."""
    made = planned(tmp_path, *WINE)
    flow = {step.name: (step.inputs, step.outputs) for step in made.steps}
    assert flow == {
        "load": (("data",), ("df",)),
        "clean": (("df", "weakest"), ("df",)),
        "features": (("df",), ("X", "y")),
        "train": (
            ("X", "y", "test_size", "seed", "depth"),
            ("X_train", "X_test", "y_train", "y_test", "model"),
        ),
        "evaluate": (("model", "X_test", "y_test"), ("accuracy", "f1")),
    }
    assert [item.declaration for item in made.parameters] == [
        'data: str = "data/wine.csv"',
        "test_size: float = 0.25",
        "depth: int = 3",
        "seed: int = 7",
        "weakest: float = 11.5",
    ]
    assert made.metrics == ["accuracy", "f1"]
    assert made.registration == Registration(
        "model", "X_train.assign(grower=y_train)", '"grower"', ("X_train", "model", "y_train")
    )


def test_the_source_is_the_users_own_code(tmp_path: Path) -> None:
    """Comments, functions and headings are kept; paths become inputs; imports of plots go."""
    text = text_of(planned(tmp_path, *WINE))
    assert '"""Read the wines."""\n    # one row is one wine\n    df = lw.dataset("wine", data)\n' in text
    assert '    """A safe ratio."""' in text
    assert "matplotlib" not in text
    assert "test_size: float = 0.25,  # share held out" in text
    compile(text, "pipelines.py", "exec")


def test_what_is_left_out_is_listed(tmp_path: Path) -> None:
    """Looks, plots, prints, magics and what only feeds them are named with their cell."""
    left = [(item.cell, item.text, item.why) for item in planned(tmp_path, *WINE).left_out]
    assert (3, "df.head()", "only shows") in left
    assert (1, "%matplotlib inline", "no Python") in left
    assert (6, 'counts = df.groupby("grower").size()', "only for what is left out") in left
    assert [item.harvested[0][0] for item in planned(tmp_path, *WINE).left_out if item.harvested] == ["f1"]


def test_a_comment_names_the_step(tmp_path: Path) -> None:
    """`# step: NAME` moves a cell; `# step: skip` leaves it out."""
    made = planned(
        tmp_path,
        "import pandas as pd",
        'df = pd.read_csv("a.csv")',
        "# step: enrich\ndf = df.dropna()",
        "# step: skip\ndf = df * 2",
        "# step: enrich\nout = df.sum()",
    )
    assert [(step.name, step.cells) for step in made.steps] == [("load", (2,)), ("enrich", (3, 5))]
    assert made.left_out[0].why == "its cell says so"


def test_a_skipped_cell_that_is_needed_is_refused(tmp_path: Path) -> None:
    """A name that only a skipped cell binds would be missing: both cells are named."""
    with pytest.raises(InvalidInput, match="Cell 3 reads low, which only cell 2 binds"):
        planned(
            tmp_path,
            FIT,
            "# step: skip\nlow = min([1, 2])",
            'df = pd.read_csv("a.csv").query("a > @low")[low:]',
        )


def test_a_cell_that_does_everything_is_cut(tmp_path: Path) -> None:
    """One cell can hold several steps; what tells nothing goes with what follows."""
    made = planned(
        tmp_path,
        FIT,
        'df = pd.read_csv("a.csv")\ndf = df.dropna()\nX = df[["a"]]\ny = df.b\nmodel = Ridge()\nmodel.fit(X, y)\n'
        "r2 = model.score(X, y)",
    )
    assert [step.name for step in made.steps] == ["load", "features", "train", "evaluate"]
    assert made.metrics == ["r2"]


def test_step_names_give_way_to_the_users_names(tmp_path: Path) -> None:
    """A variable called `features` would hide the step of that name."""
    made = planned(
        tmp_path,
        FIT,
        'df = pd.read_csv("a.csv")',
        'features = list(df.columns)\ndf["c"] = df[features].sum(axis=1)',
    )
    assert [step.name for step in made.steps] == ["load", "make_features"]


def test_constants_of_functions_stay(tmp_path: Path) -> None:
    """A literal that a function reads cannot be a parameter; the note says so."""
    made = planned(
        tmp_path,
        FIT,
        "LIMIT = 3\ndef cut(frame):\n    return frame[frame.a > LIMIT]",
        'df = cut(pd.read_csv("a.csv"))',
        "df = df.dropna()",
    )
    assert [item.text for item in made.constants] == ["LIMIT = 3"]
    assert any("LIMIT stays a constant" in note for note in made.notes)


def test_functions_that_read_variables_stand_in_their_step(tmp_path: Path) -> None:
    """A function over a variable of the notebook moves into the steps that call it."""
    made = planned(
        tmp_path,
        FIT,
        'df = pd.read_csv("a.csv")',
        "def share(name):\n    return df[name] / df[name].sum()",
        'df = df.assign(s=share("a"))',
    )
    assert made.functions == []
    assert made.steps[1].locals[0].text.startswith("def share")
    assert "def share" in text_of(made).partition("def features")[2]


def test_texts_over_several_lines_keep_their_lines(tmp_path: Path) -> None:
    """Code inside a step is indented; the inside of a long text is not."""
    made = planned(
        tmp_path,
        "import sqlite3",
        'sql = """\nselect *\n  from t"""\nrows = sqlite3.connect("t.db").execute(sql)',
    )
    assert 'sql = """\nselect *\n  from t"""' in text_of(made)


def test_names_used_too_early_are_refused(tmp_path: Path) -> None:
    """Cells out of order cannot be a pipeline: the cells are named."""
    with pytest.raises(InvalidInput, match=r"Cell 1 reads df.*Cell 2 binds it"):
        planned(tmp_path, "df2 = df.dropna()", "df = 1")
    with pytest.raises(InvalidInput, match="deleted"):
        planned(tmp_path, "df2 = df.dropna()")


def test_a_notebook_of_plots_is_refused(tmp_path: Path) -> None:
    """Nothing is left to make a step of."""
    with pytest.raises(InvalidInput, match="only shows things"):
        planned(tmp_path, "import matplotlib.pyplot as plt", "plt.plot([1, 2])\nplt.show()")


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        (("model = Ridge()\nfor a in [1, 2]:\n    model.fit(df, df.b)",), "inside a loop"),
        (
            ("X = np.asarray(df)\nmodel = Ridge().fit(X, df.b)\ns = model.score(X, df.b)",),
            "not known to be a table",
        ),
        (("total = df.a.sum()",), "No model is fitted"),
        (
            ('model = Ridge().fit(df[["a"]], df.b)', 'df = df.dropna()\ns = model.score(df[["a"]], df.b)'),
            "df changes",
        ),
    ],
)
def test_what_cannot_be_registered_says_why(tmp_path: Path, cells: tuple[str, ...], says: str) -> None:
    """Where model, table or target are not known, a sentence says what is missing, also in the source."""
    made = planned(tmp_path, f"{FIT}\nimport numpy as np", 'df = pd.read_csv("a.csv", sep=";")', *cells)
    assert isinstance(made.registration, str)
    assert says in made.registration
    assert "No model is registered" in text_of(made)


def test_a_target_in_a_parameter_stays_one(tmp_path: Path) -> None:
    """The column that a parameter names is registered under the parameter's value."""
    made = planned(
        tmp_path, FIT, 'TARGET = "b"', 'df = pd.read_csv("a.csv")', "X = df.drop(columns=TARGET)\ny = df[TARGET]",
        "model = Ridge().fit(X, y)",
    )  # fmt: skip
    assert isinstance(made.registration, Registration)
    assert (made.registration.table, made.registration.target) == ("X.assign(**{TARGET: y})", "TARGET")


def test_a_function_over_metrics_gives_a_result(tmp_path: Path) -> None:
    """What the user's own function returns of metrics is kept and compared, although it was only shown."""
    made = planned(
        tmp_path,
        FIT,
        'df = pd.read_csv("a.csv")\nX = df[["a"]]\nmodel = Ridge().fit(X, df.b)',
        "def report(m, X, y):\n    return {'r2': m.score(X, y)}\n\nscores = report(model, X, df.b)\nscores",
    )
    assert "scores" in made.steps[-1].outputs


def test_unseeded_draws_are_noted(tmp_path: Path) -> None:
    """A model that draws without a seed cannot be repeated: the note names the cell."""
    made = planned(
        tmp_path,
        "from sklearn.ensemble import RandomForestRegressor\nimport pandas as pd",
        'df = pd.read_csv("a.csv")',
        "m = RandomForestRegressor().fit(df[['a']], df.b)",
    )
    assert any("RandomForestRegressor (cell 3)" in note for note in made.notes)


def test_paths_are_written_from_the_pipelines_folder(tmp_path: Path) -> None:
    """A notebook in a folder of its own reads `../data`; the pipeline, above it, `data`."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_text("a,b\n1,2\n")
    path = write_notebook(
        tmp_path / "notebooks" / "n.ipynb",
        "import pandas as pd",
        'df = pd.read_csv("../data/a.csv")',
        "df = df.dropna()",
    )
    assert plan(read(path), tmp_path).parameters[0].default == "data/a.csv"
