"""KPIs: one number in SQL or Python against its target, and whatever goes wrong stays with the KPI it goes wrong in."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pytest
from judged_window import HOUR, Judge
from monitored import API, SHOP, START, Shop

from loopwright.errors import InvalidInput
from loopwright.monitor import kpi_python
from loopwright.monitor.arrays import ArrayWindow
from loopwright.monitor.base import Incomplete, WindowData
from loopwright.monitor.blocks import Plan
from loopwright.monitor.data import LoggedWindow
from loopwright.monitor.kpi import EarlyKpiCheck, KpiCheck
from loopwright.predictions import PredictionStore
from loopwright.records import Signal, Window

ROWS = 400
FUNCTIONS = '''
"""KPIs of the tests."""
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy


def share(table):
    return numpy.float64(sum(table["input_member"].to_pylist()) / table.num_rows)

def mean_by_pandas(table):
    import pandas
    assert "pandas" in sys.modules
    return table.to_pandas()["latency_ms"].mean()

def arrow(table):
    import pyarrow.compute as pc
    return pc.max(table["version"])

def interval(table):
    return (0.5, numpy.float32(0.25), 1)

def nothing(table):
    return None

def nan(table):
    return float("nan")

def prints(table):
    print("x" * 1_000_000)
    sys.stderr.write("y" * 1_000_000)
    return table.num_rows

def raises(table):
    return table["no_such_column"]

def leaves(table):
    sys.exit(3)

def crashes(table):
    os.kill(os.getpid(), signal.SIGSEGV)

def gives_text(table):
    return "many"

def gives_infinity(table):
    return float("inf")

def gives_table(table):
    return table

def gives_truth(table):
    return numpy.bool_(True)

def never_ends(table):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path("pids").write_text(f"{os.getpid()} {child.pid}")
    while True:
        time.sleep(1)
'''


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Return a project with an hour of labelled predictions and functions for KPIs."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "shop_kpis.py").write_text(FUNCTIONS, encoding="utf-8")
    made = Shop(folder)
    made.answer(START, ROWS, accuracy=0.75)
    yield made
    made.close()


@pytest.fixture
def data(shop: Shop) -> Iterator[LoggedWindow]:
    """Return the hour, as the monitors read it."""
    with LoggedWindow(
        PredictionStore(shop.project),
        API,
        Window(START, START + HOUR),
        plan=Plan.of(shop.profile, SHOP),
        classes=(0, 1),
        labelled=True,
    ) as found:
        yield found


def judged(folder: Path, data: WindowData, early: bool = False, **kpi: Any) -> list[Signal]:
    """Give a window to the check of KPIs that need labels, or of those that do not."""
    judge = Judge(folder, kpi=kpi)
    try:
        return (EarlyKpiCheck() if early else KpiCheck()).run(judge.context(data))
    finally:
        judge.close()


RIGHT = "select avg((actual = prediction)::int) from predictions"


@pytest.mark.parametrize(
    ("target", "fired", "limit"),
    [
        ({"at_least": 0.7}, False, 0.7),
        ({"at_least": 0.9}, True, 0.9),
        ({"at_most": 0.9}, False, 0.9),
        ({"at_most": 0.5}, True, 0.5),
        ({"at_least": 0.9, "at_most": 0.95}, True, 0.9),
        ({}, False, None),
    ],
)
def test_a_number_against_its_target(
    shop: Shop, data: LoggedWindow, target: dict[str, float], fired: bool, limit: float | None
) -> None:
    """Above the most or below the least fires; without a target it is shown."""
    (found,) = judged(shop.project.root, data, right={"sql": RIGHT, "unit": "share", **target})
    assert found.value == pytest.approx(0.75, abs=0.08)
    assert found.fired is fired
    assert found.limit == pytest.approx(np.nan if limit is None else limit, nan_ok=True)
    assert (found.check, found.subject, found.version, found.rows) == ("kpi", "right", 1, ROWS)
    assert found.detail["unit"] == "share"


def test_each_kpi_in_its_phase(shop: Shop, data: LoggedWindow) -> None:
    """Those that need no labels are computed as soon as a window is over, all others when labels are there."""
    kpis: dict[str, Any] = {
        "right": {"sql": RIGHT},
        "asked": {"sql": "select count(*) from predictions", "labelled": False},
    }
    assert [one.subject for one in judged(shop.project.root, data, **kpis)] == ["right"]
    early = judged(shop.project.root, data, early=True, **kpis)
    assert [(one.check, one.subject, one.value) for one in early] == [("kpi", "asked", ROWS)]


@pytest.mark.parametrize(
    ("sql", "fired"),
    [
        ("select [avg(latency_ms), 0.5, 3.0] from predictions", False),
        ("select [avg(latency_ms), 0.95, 3.0] from predictions", True),
        ("select {'value': avg(latency_ms), 'lower': 0.95, 'upper': 3.0} from predictions", True),
    ],
)
def test_an_interval_must_miss_the_target_as_a_whole(
    shop: Shop, data: LoggedWindow, sql: str, fired: bool
) -> None:
    """A list of value, lower and upper end, or a struct of them."""
    (found,) = judged(shop.project.root, data, slow={"sql": sql, "at_most": 0.9})
    assert found.fired is fired
    assert found.upper == 3.0


@pytest.mark.parametrize("sql", ["select null", "select 'nan'::double", "select 1 where false"])
def test_no_value_is_no_signal(shop: Shop, data: LoggedWindow, sql: str) -> None:
    """Null, not a number, and no row: nothing to compare."""
    assert judged(shop.project.root, data, none={"sql": sql, "at_most": 1}) == []


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("select 'many'", r"KPI 'bad' gives 'many'"),
        ("select true", r"KPI 'bad' gives True"),
        ("select 1e308::double * 10", r"KPI 'bad' gives an infinite number"),
        ("select [1, 2]", r"KPI 'bad' gives 2 values: \[1, 2\]"),
        ("select [5, 1, 2]", r"KPI 'bad' gives \[5, 1, 2\], where the value is not inside"),
        ("select 1, 2", r"KPI 'bad': The query gives 1 rows of 2 columns"),
        ("select version from predictions", rf"KPI 'bad': The query gives {ROWS} rows"),
        ("selekt 1", r"KPI 'bad': The query does not work"),
        ("select nothing from predictions", r"KPI 'bad': .*Columns of predictions"),
        ("delete from predictions", r"KPI 'bad': The log is only read"),
        ("create table t as select 1", r"KPI 'bad': The log is only read"),
        ("select 1; select 2", r"KPI 'bad': The log is only read"),
        ("copy (select 1) to 'x.csv'", r"KPI 'bad': The log is only read"),
        ("select * from read_csv('/etc/passwd')", r"KPI 'bad': The query does not work"),
    ],
)
def test_a_kpi_that_is_wrong_names_itself_and_others_go_on(
    shop: Shop, data: LoggedWindow, sql: str, said: str
) -> None:
    """The message has the KPI and what it gave; the KPI beside it is there."""
    with pytest.raises(Incomplete, match=said) as caught:
        judged(shop.project.root, data, bad={"sql": sql}, right={"sql": RIGHT})
    assert [one.subject for one in caught.value.signals] == ["right"]
    assert "[monitor.shop] kpi" in str(caught.value)


def test_a_query_that_never_ends_is_stopped(shop: Shop, data: LoggedWindow) -> None:
    """After its timeout, and the next one works."""
    endless = "select count(*) from range(1000000) a, range(1000000) b, range(1000) c where a.range * b.range = c.range + 1"
    began = time.monotonic()
    with pytest.raises(Incomplete, match=r"KPI 'bad': The query was stopped") as caught:
        judged(shop.project.root, data, bad={"sql": endless, "timeout": "300ms"}, right={"sql": RIGHT})
    assert time.monotonic() - began < 10
    assert [one.subject for one in caught.value.signals] == ["right"]


@pytest.mark.parametrize(
    ("function", "value"),
    [("share", 0.3), ("mean_by_pandas", 1.13), ("arrow", 1.0), ("interval", 0.5), ("prints", ROWS)],
)
def test_a_function_of_the_project(shop: Shop, data: LoggedWindow, function: str, value: float) -> None:
    """It is given the rows as an Arrow table; numbers of NumPy and Arrow count; what it prints goes nowhere."""
    (found,) = judged(shop.project.root, data, it={"python": f"shop_kpis:{function}"})
    assert found.value == pytest.approx(value, abs=0.1)
    assert (found.lower, found.upper) == ((0.25, 1.0) if function == "interval" else (None, None))


@pytest.mark.parametrize("function", ["nothing", "nan"])
def test_a_function_without_a_value(shop: Shop, data: LoggedWindow, function: str) -> None:
    """None and not a number are no signal."""
    assert judged(shop.project.root, data, it={"python": f"shop_kpis:{function}"}) == []


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("raises", r"shop_kpis:raises raised KeyError: .*no_such_column"),
        ("leaves", "shop_kpis:leaves raised SystemExit: 3"),
        ("crashes", "shop_kpis:crashes was killed by SIGSEGV"),
        ("gives_text", "gives 'many', of type str"),
        ("gives_infinity", "gives an infinite number"),
        ("gives_table", "of type Table"),
        ("gives_truth", "gives True"),
        ("is_not_there", "raised AttributeError: .*is_not_there"),
    ],
)
def test_a_function_that_is_wrong(shop: Shop, data: LoggedWindow, function: str, said: str) -> None:
    """What happened is said with the KPI's name, and the KPI beside it is there."""
    with pytest.raises(Incomplete, match=said) as caught:
        judged(shop.project.root, data, bad={"python": f"shop_kpis:{function}"}, right={"sql": RIGHT})
    assert "The KPI 'bad'" in str(caught.value)
    assert [one.subject for one in caught.value.signals] == ["right"]


def test_a_module_that_is_not_there(shop: Shop, data: LoggedWindow) -> None:
    """It is named."""
    with pytest.raises(Incomplete, match="ModuleNotFoundError: No module named 'nowhere'"):
        judged(shop.project.root, data, bad={"python": "nowhere:it"})


def test_a_function_that_never_ends_is_stopped_with_what_it_started(shop: Shop, data: LoggedWindow) -> None:
    """After its timeout neither its process nor the one it started is left."""
    with pytest.raises(Incomplete, match=r"shop_kpis:never_ends was stopped after 5 s"):
        judged(shop.project.root, data, bad={"python": "shop_kpis:never_ends", "timeout": "5s"})
    pids = [int(pid) for pid in (shop.project.root / "pids").read_text().split()]
    until = time.monotonic() + 5
    while any(_runs(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(_runs(pid) for pid in pids)


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_the_rows_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither an answer nor a failure leaves files, and rows of no columns or none at all are rows too."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "mine.py").write_text("def it(table):\n    return table.num_rows / (3 - table.num_rows)\n")
    for rows, gives in ((0, 0.0), (2, 2.0)):
        table = pa.table({"x": pa.array([1.0] * rows, pa.float64())})
        assert kpi_python.call("mine:it", table, root=tmp_path, timeout_s=60) == gives
    with pytest.raises(InvalidInput, match="ZeroDivisionError"):
        kpi_python.call("mine:it", pa.table({"x": [1.0] * 3}), root=tmp_path, timeout_s=60)
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_window_without_rows_has_no_kpi(tmp_path: Path) -> None:
    """Nothing is computed: not even a count."""
    empty = ArrayWindow({"x": np.empty(0)}, Plan.of(None))
    assert judged(tmp_path, empty, asked={"sql": "select count(*) from predictions"}) == []
