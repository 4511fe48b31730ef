"""`loopwright.toml`: typed, with errors that say where, what and what would be right."""

from datetime import timedelta
from pathlib import Path

import pytest

from loopwright.config import Config, ModelConfig, Project, parse_duration
from loopwright.errors import Denied, InvalidConfig, NotFound

GOOD = """
[model.bike]
pipeline = "pipelines:train"
target = "count"
gate = { metric = "rmse", better = "lower", slices = ["season"] }

[deployment.demand-api]
model = "bike"
mode = "online"
release = { strategy = "canary", steps = [1, 5, 25, 50], metric = "absolute_error", margin = 0.02 }

[deployment.demand-nightly]
model = "bike"
mode = "batch"
source = "sqlite:///warehouse.db?table=hours"
sink = "postgresql://db/predictions?table=demand"
schedule = "0 2 * * *"

[deployment.demand-edge]
model = "bike"
mode = "edge"
target = "onnx"
budget = { size = "5MB", accuracy_drop = 0.005 }

[monitor.bike]
window = "1h"
performance = { metric = "rmse", worse_than = 80, label_delay = "2h" }
kpi.stockouts = { sql = "select avg(actual > prediction * 1.3) from predictions", at_most = 0.1 }
retrain_on = ["performance", "kpi", "schedule: 0 3 * * 0", "labels: 5000"]
"""


def read(folder: Path, text: str) -> Config:
    """Write and read a configuration."""
    (folder / "loopwright.toml").write_text(text)
    return Config.read(folder / "loopwright.toml")


def test_the_example_of_the_documentation_is_read(tmp_path: Path) -> None:
    """Durations, sizes, lists and nested tables get their types."""
    config = read(tmp_path, GOOD)
    assert config.monitor["bike"].window == timedelta(hours=1)
    assert config.monitor["bike"].performance.label_delay == timedelta(hours=2)
    assert config.deployment["demand-edge"].budget.size == 5_000_000
    assert config.monitor["bike"].kpi["stockouts"].at_most == 0.1


@pytest.mark.parametrize(
    ("wrong", "line", "words"),
    [
        (
            '[model.bike]\npipelin = "pipelines:train"\ntarget = "count"',
            2,
            ["'model.bike.pipelin'", "'pipeline'"],
        ),
        ("[model.bike]\ntarget = 3", 2, ["model.bike.target", "3", "string"]),
        ('[model.bike]\ntarget = "c"\n\ngate = { metric = "rmsee" }', 4, ["'rmsee'", "rmse"]),
        (
            '[model.bike]\ntarget = "c"\n[deployment.x]\nmodel = "bike"\nmode = "onlin"',
            5,
            ["'onlin'", "'online'"],
        ),
        ('[model.bike]\ntarget = "c"\n[monitor.bike]\nwindow = "1 hour"', 4, ["'1 hour'", "'2h'"]),
        ('[model.bike]\ntarget = "c"\n[monitor.bike]\nretrain_on = ["drift"]', 4, ["'drift'", "performance"]),
        ('[model.bike]\ntarget = "c"\npipeline = "pipelines.py"', 3, ["'pipelines.py'", "pipelines:train"]),
        ('[models.bike]\ntarget = "c"', 1, ["'models'", "'model'"]),
        ("[serving]\nport = 99999", 2, ["99999", "65535"]),
        ("[runner]\nslots = 0", 2, ["0", "1"]),
        ('[schedule.x]\npipeline = "p:t"\ncron = "0 25 * * *"', 3, ["'0 25 * * *'", "its hour", "hour 0-23"]),
        ('[schedule.x]\npipeline = "p:t"\ncron = "0 2 * *"', 3, ["has 4 fields", "'0 2 * * *'"]),
        ('[schedule.x]\npipeline = "p:t"\ncron = "0 0 31 2 *"', 3, ["its day-of-month"]),
        ('[schedule.x]\npipeline = "p:t"\nevery = "6 hours"', 3, ["'6 hours'", "'2h'"]),
        ('[schedule.x]\npipeline = "p:t"\nevery = "10ms"', 3, ["too often", "'1s'"]),
        (
            '[schedule.x]\npipeline = "p:t"\nevery = "6h"\ncron = "0 2 * * *"',
            1,
            ["cron, every", "exactly one"],
        ),
        ('[schedule.x]\npipeline = "p:t"', 1, ["(none)", "exactly one"]),
        ('[schedule.x]\nevery = "6h"', 1, ["either pipeline or deployment"]),
        ('[schedule.x]\npipeline = "p:t"\non = "datset: a"', 3, ["'datset: a'", "'dataset'"]),
        ('[schedule.x]\npipeline = "p:t"\non = "pipeline: p:t"', 1, ["start itself for ever"]),
        (
            '[schedule.x]\npipeline = "p:t"\ncron = "0 2 * * *"\ntimezone = "Berlin"',
            4,
            ["'Berlin'", "Europe/Berlin"],
        ),
        ('[schedule.x]\npipeline = "p:t"\nevery = "6h"\nexpect = { rows = "many" }', 4, ["'many'", "'>0'"]),
        (
            '[schedule.x]\npipeline = "p:t"\nevery = "6h"\nparameters = { a = "{strat}" }',
            4,
            ["'{strat}'", "{start}"],
        ),
        (
            '[model.bike]\ntarget = "c"\npipeline = "p:t"\n[schedule.x]\npipeline = "bikes"\nevery = "6h"',
            4,
            ["'bikes'", "'bike'"],
        ),
        ('[schedule.x]\ndeployment = "n"\nevery = "6h"', 1, ["'n'", "not there"]),
        ('[schedule.batch-x]\npipeline = "p:t"\nevery = "6h"', 1, ["batch-x", "[deployment.*]"]),
    ],
)
def test_a_wrong_key_or_value_names_line_value_and_what_is_valid(
    tmp_path: Path, wrong: str, line: int, words: list[str]
) -> None:
    """The message has the file, the line, the wrong value and the right form."""
    with pytest.raises(InvalidConfig) as caught:
        read(tmp_path, wrong)
    assert f"loopwright.toml:{line}:" in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_all_problems_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    """Two mistakes are two lines of one message."""
    with pytest.raises(InvalidConfig) as caught:
        read(tmp_path, '[model.a]\ntarget = 1\n[model.b]\ntargt = "x"')
    assert len(caught.value.fact.splitlines()) >= 2


def test_links_between_sections_are_checked(tmp_path: Path) -> None:
    """A deployment or monitor of a model that is not declared is refused, naming the known ones."""
    with pytest.raises(InvalidConfig, match=r"no \[model.bik\]\. Known models: bike"):
        read(tmp_path, '[model.bike]\ntarget = "c"\n[deployment.x]\nmodel = "bik"\nmode = "online"')


def test_a_batch_deployment_needs_source_and_sink(tmp_path: Path) -> None:
    """A mode's own needs are part of the check."""
    with pytest.raises(InvalidConfig, match="a batch deployment needs source, sink"):
        read(tmp_path, '[model.bike]\ntarget = "c"\n[deployment.x]\nmodel = "bike"\nmode = "batch"')


def test_not_toml(tmp_path: Path) -> None:
    """Broken TOML is told with the parser's own place."""
    with pytest.raises(InvalidConfig, match="not valid TOML"):
        read(tmp_path, "[model")


def test_the_same_objects_can_be_built_in_python(tmp_path: Path) -> None:
    """A project needs no file when its configuration is given."""
    config = Config(model={"bike": ModelConfig(pipeline="pipelines:train", target="count")})
    assert Project(tmp_path, config).model("bike").target == "count"


def test_project_is_found_upwards_and_its_absence_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nearest folder upwards with the file is the project; without one the next command is named."""
    monkeypatch.delenv("LOOPWRIGHT_PROJECT", raising=False)
    (tmp_path / "loopwright.toml").write_text("")
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert Project.find(tmp_path / "a" / "b").root == tmp_path
    with pytest.raises(NotFound, match="loopwright init"):
        Project.find("/")


def test_unknown_names_are_answered_with_the_known(tmp_path: Path) -> None:
    """Asking for a model or deployment that is not declared names the nearest."""
    project = Project(tmp_path, read(tmp_path, GOOD))
    with pytest.raises(NotFound, match="'demand-api'"):
        project.deployment("demand-ap")


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """A project below something that is no folder is refused with the reason."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(Denied, match="cannot be made"):
        _ = Project(blocked, Config()).state


@pytest.mark.parametrize("text", ["", "5", "-5s", "0s", "5 fortnights"])
def test_wrong_durations(text: str) -> None:
    """A span needs a positive number and a unit."""
    with pytest.raises(ValueError, match="no duration"):
        parse_duration(text)


def test_a_database_for_the_servers_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the file or the environment, which goes first; each store's own driver; anything else is refused."""
    monkeypatch.delenv("LOOPWRIGHT_DATABASE", raising=False)
    (tmp_path / "loopwright.toml").touch()
    assert Project(tmp_path).tracking_url == f"sqlite:///{tmp_path}/.loopwright/tracking/mlflow.db"
    (tmp_path / "loopwright.toml").write_text('[server]\ndatabase = "postgres://me@db/loop"\n')
    assert Project(tmp_path).database == "postgresql://me@db/loop"
    monkeypatch.setenv("LOOPWRIGHT_DATABASE", "postgresql://you@db/other?sslmode=require")
    expected = "postgresql+psycopg://you@db/other?sslmode=require&options=-csearch_path%3Dmlflow"
    assert Project(tmp_path).tracking_url == expected
    monkeypatch.setenv("LOOPWRIGHT_DATABASE", "mysql://db/loop")
    with pytest.raises(InvalidConfig, match="'mysql://db/loop' is no PostgreSQL database"):
        _ = Project(tmp_path).database
    (tmp_path / "loopwright.toml").write_text('[server]\ndatabase = "loop.db"\n')
    with pytest.raises(
        InvalidConfig, match=r"loopwright.toml:2: server.database: 'loop.db' is no PostgreSQL"
    ):
        Project(tmp_path)
