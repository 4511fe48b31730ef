"""Shadow variants' predictions: under the same ids, in a log of their own, and never taken for answers."""

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from prediction_rows import FLOWERS, project_in, rows

from loopwright.config import Project
from loopwright.errors import InvalidInput, NotFound
from loopwright.ledger import Ledger
from loopwright.predictions import LabelLog, PredictionLog, Predictions, PredictionStore, files, seal_orphans
from loopwright.predictions.catalogue import Catalogue
from loopwright.records import Label


class Apart(Project):
    """The project, as a writer of shadows' predictions sees it."""

    @property
    def predictions(self) -> Path:
        """The root that shadows have."""
        return files.of_deployment(Project(self.root, self.config), "any", shadow=True).root.parent


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return a new project."""
    return project_in(tmp_path)


def write(project: Project, given: Predictions, deployment: str = "api", *, sealed: bool = True) -> None:
    """Append rows to the log of a deployment and seal it, or leave its tail open."""
    log = PredictionLog(project, deployment, "iris", FLOWERS)
    log.append(given)
    if sealed:
        log.close()


def both(project: Project, n: int = 30, *, sealed: bool = True) -> tuple[Predictions, Predictions]:
    """Write n answers of version 1, and for the first 20 what version 2 said as a shadow: the next class."""
    answers = rows(project, n)
    write(project, answers, sealed=sealed)
    ids = answers.prediction_id[:20]
    shadow = rows(
        project, 20, version=2, variant=["shadow"] * 20, prediction_id=ids, prediction=(np.arange(20) + 1) % 3
    )
    write(Apart(project.root), shadow, sealed=sealed)
    return answers, shadow


@pytest.mark.parametrize("sealed", [True, False])
def test_a_shadow_is_never_among_the_predictions(project: Project, sealed: bool) -> None:
    """Every way to read predictions gives the answers alone, from segments and tails."""
    answers, _ = both(project, sealed=sealed)
    store = PredictionStore(project)
    assert store.count() == store.table().num_rows == store.count(deployment="api") == 30
    assert set(store.table()["version"].to_pylist()) == {1}
    assert store.query("select count(*) as n from predictions").to_pylist() == [{"n": 30}]
    assert sum(store.rates()["rows"].to_pylist()) == 30
    assert store.find(answers.prediction_id[0]).version == 1
    assert files.deployments(project) == files.deployments(project, shadow=True) == ["api"]
    alone = rows(project, 1)
    write(Apart(project.root), alone)
    assert store.logged(alone.prediction_id) == set()
    with pytest.raises(NotFound):
        store.find(alone.prediction_id[0])


@pytest.mark.parametrize("sealed", [True, False])
def test_shadows_are_read_as_the_predictions_are(project: Project, sealed: bool) -> None:
    """Same columns, their own rows, by deployment, time and number, oldest first."""
    _, shadow = both(project, sealed=sealed)
    store = PredictionStore(project)
    table = store.table(deployment="api", shadows=True)
    assert table.schema == store.table(deployment="api").schema
    assert table["prediction_id"].to_pylist() == shadow.prediction_id
    assert set(table["variant"].to_pylist()) == {"shadow"}
    assert store.count(shadows=True) == 20
    assert store.table(shadows=True, newest=5).num_rows == 5
    assert store.table(shadows=True, since=datetime.now(UTC) + timedelta(hours=1)).num_rows == 0


@pytest.mark.parametrize("sealed", [True, False])
def test_labels_join_to_both_by_the_same_id(project: Project, sealed: bool) -> None:
    """One label counts for the answer and for what the shadow said on the same row."""
    answers, _ = both(project, sealed=sealed)
    labels = LabelLog(project)
    labels.append([Label(one, int(row % 3)) for row, one in enumerate(answers.prediction_id)])
    labels.close()
    store = PredictionStore(project)
    [found] = store.query("""
        select count(*) as n, avg(p.prediction = p.actual) as answers, avg(s.prediction = s.actual) as shadow,
               avg(p.prediction = s.prediction) as agree
        from predictions p join Shadows s using (prediction_id)
    """).to_pylist()
    assert found == {"n": 20, "answers": 1.0, "shadow": 0.0, "agree": 0.0}
    assert store.count(shadows=True, labelled=True) == 20
    assert store.table(shadows=True, labelled=True)["actual"].to_pylist() == [row % 3 for row in range(20)]


def test_without_a_shadow_the_view_is_empty_and_typed(project: Project) -> None:
    """A query over shadows works before there was one, also before the first prediction."""
    store = PredictionStore(project)
    query = "select avg(prediction = actual) as a, count(*) as n from shadows"
    assert store.query(query).to_pylist() == [{"a": None, "n": 0}]
    write(project, rows(project, 3))
    assert store.query(query).to_pylist() == [{"a": None, "n": 0}]
    assert store.query(query, deployment="quiet").to_pylist() == [{"a": None, "n": 0}]
    last = ["prediction", "probability", "actual", "labelled_at", "actual_at"]
    assert store.table(shadows=True).schema.names[-5:] == last
    with pytest.raises(InvalidInput, match="Views: predictions, shadows, labels"):
        store.query("create table t as select * from shadows")
    with pytest.raises(NotFound):
        store.table(deployment="quite", shadows=True)


def test_only_the_deployment_that_is_asked_for(project: Project) -> None:
    """Shadows of other deployments are left out."""
    both(project)
    write(Apart(project.root), rows(project, 4), "other")
    store = PredictionStore(project)
    assert store.query("select count(*) as n from shadows", deployment="api").to_pylist() == [{"n": 20}]
    assert store.query("select count(*) as n from shadows").to_pylist() == [{"n": 24}]


def test_a_name_is_a_safe_folder_also_for_shadows(project: Project) -> None:
    """No name leads out of the root, and no deployment can be named so that it meets another's shadows."""
    for name in ("../predictions/deployment=api", "shadow", "a/b"):
        folder = files.of_deployment(project, name, shadow=True)
        assert folder.root.parent == project.state / "shadows"
        assert files.of_deployment(project, name).root.parent == project.predictions


_KILLED = """
import os, signal, sys
from pathlib import Path
from test_shadows import Apart
from prediction_rows import FLOWERS, rows
from loopwright.predictions import PredictionLog
project = Apart(Path(sys.argv[1]))
log = PredictionLog(project, "api", "iris", FLOWERS)
log.append(rows(project, 7))
print("written", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_leaves_is_sealed(project: Project) -> None:
    """Tails of shadows whose process is gone become segments, known to the ledger, and lose no row."""
    here = Path(__file__).parent
    path = os.pathsep.join(str(folder) for folder in (here, here.parents[1] / "support"))
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, str(project.root)],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout == "written\n", done.stderr
    assert done.returncode == -signal.SIGKILL
    store = PredictionStore(project)
    assert store.count(shadows=True) == 7
    end = time.monotonic() + 10
    while not seal_orphans(project) and time.monotonic() < end:
        time.sleep(0.1)
    folder = files.of_deployment(project, "api", shadow=True)
    assert folder.tails() == []
    assert [segment.rows for segment in folder.segments()] == [7]
    assert (store.count(shadows=True), store.count()) == (7, 0)
    ledger = Ledger.open(project)
    assert [entry.rows for entry in Catalogue(ledger).entries("shadows/deployment=api")] == [7]
    ledger.close()
