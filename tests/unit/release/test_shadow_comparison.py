"""A shadow against the champion, over logs whose numbers are known."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from prediction_rows import FLOWERS, project_in, rows
from scipy import stats

from loopwright.config import Project
from loopwright.deploy.base import publish
from loopwright.errors import Conflict, NotFound
from loopwright.ledger import Ledger
from loopwright.predictions import LabelLog, PredictionLog, files
from loopwright.records import Column, Deployment, Label, Mode, ModelVersion, Scalar, Signature, Task, Variant
from loopwright.release.shadows import compare

NUMBERS = Signature((Column("petal", "double"), Column("sepal", "double")), Task.regression)
API = "quiet"


class Apart(Project):
    """The project, as a writer of shadows' predictions sees it."""

    @property
    def predictions(self) -> Path:
        """The root that shadows have."""
        return files.of_deployment(Project(self.root, self.config), "any", shadow=True).root.parent


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return a project whose deployment serves version 1, with version 2 as shadow."""
    made = project_in(tmp_path)
    ledger = Ledger.open(made)
    variants = (Variant("champion", 1), Variant("shadow", 2, 0.0, shadow=True))
    publish(ledger, Deployment(API, "iris", Mode.online, variants, salt="s"))
    ledger.close()
    return made


def write(
    project: Project, signature: Signature, mine: object, theirs: object, labels: Sequence[Scalar]
) -> None:
    """Log what both say on the same rows, rows that only one of them has, and labels for the first rows."""
    ledger = Ledger.open(project)
    for version in (1, 2):
        made = ModelVersion("iris", version, "run", "uri", signature=signature)
        ledger.put("model_version", made.ref, made)
    ledger.close()
    n = len(np.asarray(mine))
    answers = rows(project, n, prediction=np.asarray(mine), probability=None)
    beside = rows(
        project,
        n,
        version=2,
        prediction=np.asarray(theirs),
        prediction_id=answers.prediction_id,
        probability=None,
    )
    writer, apart = (PredictionLog(one, API, "iris", signature) for one in (project, Apart(project.root)))
    writer.append(answers)
    apart.append(beside)
    # Of another champion, without a shadow, of another shadow, and of a row that was not answered.
    other = np.asarray(mine)[:2]
    before = rows(project, 2, version=7, prediction=other, probability=None)
    writer.append(before)
    writer.append(rows(project, 2, prediction=other, probability=None))
    for version, ids in ((2, before.prediction_id), (3, answers.prediction_id[:2])):
        apart.append(rows(project, 2, version=version, prediction=other, prediction_id=ids, probability=None))
    apart.append(rows(project, 2, version=2, prediction=other, probability=None))
    writer.close()
    apart.close()
    log = LabelLog(project)
    log.append([Label(one, label) for one, label in zip(answers.prediction_id, labels, strict=False)])
    log.close()


def test_labels_agree_or_not_and_the_loss_is_paired(project: Project) -> None:
    """n, agreement and both errors are those of the rows both have; the interval is that of the paired differences."""
    random = np.random.default_rng(0)
    actual = random.integers(0, 3, 400)
    mine = np.where(random.random(400) < 0.8, actual, (actual + 1) % 3)
    theirs = np.where(random.random(400) < 0.9, actual, (actual + 2) % 3)
    write(project, FLOWERS, mine, theirs, actual[:300].tolist())
    found = compare(project, API)
    assert (found.champion, found.shadow, found.rows, found.labelled) == (1, 2, 400, 300)
    assert found.agreement == pytest.approx((mine == theirs).mean())
    assert found.difference is None
    wrong = [(one[:300] != actual[:300]).astype(float) for one in (mine, theirs)]
    assert found.loss == "error"
    assert found.champion_loss == pytest.approx(wrong[0].mean())
    assert found.shadow_loss == pytest.approx(wrong[1].mean())
    assert found.loss_difference is not None
    paired = wrong[1] - wrong[0]
    expected = stats.norm.interval(0.95, paired.mean(), stats.sem(paired))
    assert (found.loss_difference.lower, found.loss_difference.upper) == pytest.approx(expected)
    assert found.loss_difference.upper is not None
    assert found.loss_difference.upper < 0


def test_numbers_differ_by_a_mean(project: Project) -> None:
    """Shadow minus champion, and the absolute error where labels are there."""
    mine = np.linspace(0, 10, 100)
    write(project, NUMBERS, mine, mine + 0.5, (mine[:40]).tolist())
    found = compare(project, API)
    assert found.agreement is None
    assert found.difference is not None
    assert found.difference.estimate == pytest.approx(0.5)
    assert (found.labelled, found.loss) == (40, "absolute_error")
    assert found.champion_loss == pytest.approx(0.0)
    assert found.shadow_loss == pytest.approx(0.5)


def test_few_labels_give_no_interval_and_none_no_loss(project: Project) -> None:
    """Below 30 labelled rows there is an estimate alone; before the first label and the first row nothing is claimed."""
    empty = compare(project, API)
    assert (empty.rows, empty.agreement, empty.labelled, empty.loss_difference) == (0, None, 0, None)
    write(project, FLOWERS, np.arange(60) % 3, np.arange(60) % 3, (np.arange(29) % 3).tolist())
    found = compare(project, API)
    assert (found.rows, found.agreement, found.labelled) == (60, 1.0, 29)
    assert found.loss_difference is not None
    assert (found.loss_difference.estimate, found.loss_difference.lower) == (0.0, None)


def test_equal_predictions_are_no_proof_of_equality(project: Project) -> None:
    """Where no row differs the interval is that of the rule of three, not a point."""
    write(project, FLOWERS, np.arange(60) % 3, np.arange(60) % 3, (np.arange(60) % 3).tolist())
    found = compare(project, API).loss_difference
    assert found is not None
    assert found.lower == pytest.approx(-0.05)
    assert found.upper == pytest.approx(0.05)


def test_a_version_that_was_a_shadow_can_be_named(project: Project) -> None:
    """Without a shadow now one has to be named, and what it said is still there."""
    write(project, FLOWERS, np.arange(40) % 3, np.arange(40) % 3, [])
    assert compare(project, API, 3).rows == 2
    ledger = Ledger.open(project)
    publish(ledger, Deployment(API, "iris", Mode.online, (Variant("champion", 1),)))
    ledger.close()
    with pytest.raises(Conflict, match="has no shadow"):
        compare(project, API)
    assert compare(project, API, 2).rows == 40
    with pytest.raises(NotFound, match="Did you mean 'quiet'"):
        compare(project, "quite")
