"""Shares and shadows that a person sets, and what becomes of them when the deployment changes."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from four_modes import add_version, wine, wine_version
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from loopwright.config import Project
from loopwright.deploy import base, lifecycle
from loopwright.deploy.base import assign, current, publish
from loopwright.errors import Conflict, InvalidInput, NotFound, Unavailable
from loopwright.ledger import Ledger
from loopwright.lineage import walk
from loopwright.records import Deployment, Mode, Prediction, Variant, now
from loopwright.registry import removal

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
API = "wine-api"
TOML = """
[model.wine]
target = "grower"

[deployment.wine-api]
model = "wine"
mode = "online"

[deployment.wine-edge]
model = "wine"
mode = "edge"

[deployment.wine-stream]
model = "wine"
mode = "stream"
source = "sqlite:///streams.db?topic=wines"
sink = "sqlite:///streams.db?topic=growers"
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project with three versions of the same inputs, and a fourth that needs one more."""
    root = tmp_path_factory.mktemp("variants")
    (root / "loopwright.toml").write_text(TOML)
    project = Project(root)
    for rows in (178, 90, 120):
        wine_version(project, seed_rows=rows)
    more = wine().assign(humidity=lambda table: 1.0 + table["hue"])
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    add_version(project, model.fit(more.drop(columns="grower"), more["grower"]), more)
    return root


@pytest.fixture
def project(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return a copy of the project; MLflow is down, which none of this needs."""
    monkeypatch.delenv("LOOPWRIGHT_LEDGER", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    shutil.copytree(prepared, tmp_path / "project")
    return Project(tmp_path / "project")


@pytest.fixture
def ledger(project: Project) -> Iterator[Ledger]:
    """Return its ledger, in which version 1 is served."""
    opened = Ledger.open(project, actor="test")
    serve(opened, Variant("champion", 1))
    yield opened
    opened.close()


def serve(ledger: Ledger, *variants: Variant) -> None:
    """Put variants into service as they are."""
    publish(ledger, Deployment(API, "wine", Mode.online, variants, salt="salt"))


def served(ledger: Ledger) -> list[tuple[str, int, float, bool]]:
    """Return what is served."""
    return [(one.name, one.version, one.weight, one.shadow) for one in current(ledger, API).variants]


SHADOW = ("shadow", 2, 0.0, True)


def test_a_shadow_has_no_weight_and_is_one(project: Project, ledger: Ledger) -> None:
    """Another one takes the place of the first; stopped, nothing else has changed."""
    base.shadow(project, API, 2)
    assert served(ledger) == [("champion", 1, 1.0, False), SHADOW]
    assert current(ledger, API).salt == "salt"
    base.shadow(project, API, 3)
    assert served(ledger) == [("champion", 1, 1.0, False), ("shadow", 3, 0.0, True)]
    base.stop_shadow(project, API)
    assert served(ledger) == [("champion", 1, 1.0, False)]
    with pytest.raises(Conflict, match="has no shadow"):
        base.stop_shadow(project, API)


def test_what_cannot_be_a_shadow_is_refused(project: Project, ledger: Ledger) -> None:
    """Versions that answer, that are not there, or that need what callers do not send; modes without callers."""
    with pytest.raises(Conflict, match="wine/1 answers in 'wine-api' already, as champion"):
        base.shadow(project, API, 1)
    with pytest.raises(
        Conflict, match="wine/4 cannot stand beside version 1: it requires the input 'humidity'"
    ):
        base.shadow(project, API, 4)
    with pytest.raises((NotFound, Unavailable)):
        base.shadow(project, API, 9)
    with pytest.raises(InvalidInput, match="mode edge"):
        base.shadow(project, "wine-edge", 2)
    with pytest.raises(InvalidInput, match="mode stream"):
        base.shadow(project, "wine-stream", 2)
    with pytest.raises(NotFound, match="Did you mean 'wine-api'"):
        base.shadow(project, "wine-ap", 2)
    assert served(ledger) == [("champion", 1, 1.0, False)]
    other = Ledger.open(project)
    assert len(other.events("deployment.changed", API)) == 1
    other.close()


def test_nothing_is_published_that_cannot_be_served(ledger: Ledger) -> None:
    """Weights of those that answer sum to 1, a shadow has none, and names are different."""
    wrong: list[tuple[Variant, ...]] = [
        (Variant("champion", 1, 0.9), Variant("shadow", 2, 0.1, shadow=True)),
        (Variant("champion", 1, 1.0), Variant("shadow", 2, shadow=True)),
        (Variant("champion", 1, 0.9),),
        (Variant("champion", 1, 0.5), Variant("champion", 2, 0.5)),
        (Variant("champion", 1), Variant("champion", 2, 0.0, shadow=True)),
        (Variant("champion", 1, 1.5), Variant("candidate", 2, -0.5)),
        (Variant("champion", 1, float("nan")),),
        (Variant("shadow", 1, 0.0, shadow=True),),
        (),
    ]
    for variants in wrong:
        with pytest.raises(InvalidInput, match="cannot"):
            serve(ledger, *variants)
    assert served(ledger) == [("champion", 1, 1.0, False)]


def test_shares_by_hand(project: Project, ledger: Ledger) -> None:
    """A version is named once; later its variant is enough. Entities that had the candidate keep it, and so the salt."""
    base.split(project, API, {"candidate": (2, 0.1), "champion": (None, 0.9)})
    assert served(ledger) == [("champion", 1, 0.9, False), ("candidate", 2, 0.1, False)]
    people = [f"user-{number}" for number in range(500)]
    before = current(ledger, API)
    base.split(project, API, {"champion": (1, 0.6), "candidate": (None, 0.4)})
    after = current(ledger, API)
    assert (before.salt, after.salt) == ("salt", "salt")
    had = [who for who in people if assign(before, who)[0].name == "candidate"]
    assert had
    assert all(assign(after, who)[0].name == "candidate" for who in had)
    base.split(project, API, {"champion": (None, 1.0)})
    assert served(ledger) == [("champion", 1, 1.0, False)]


def test_shares_that_cannot_be_are_refused(project: Project, ledger: Ledger) -> None:
    """Each with what is wrong; what is served stays."""
    cases: list[tuple[dict[str, tuple[int | None, float]], type[Exception], str]] = [
        ({"champion": (None, 0.9), "candidate": (2, 0.2)}, InvalidInput, "sum to 1"),
        ({"champion": (None, 1.5), "candidate": (2, -0.5)}, InvalidInput, "cannot share entities"),
        ({"champion": (2, 1.0)}, InvalidInput, "the champion is not wine/1"),
        ({"candidate": (2, 1.0)}, InvalidInput, "the champion is not wine/1"),
        ({"champion": (None, 0.9), "other": (None, 0.1)}, NotFound, "other:<version>=0.1"),
        ({"champion": (None, 0.9), "candidate": (4, 0.1)}, Conflict, "requires the input 'humidity'"),
    ]
    for shares, kind, words in cases:
        with pytest.raises(kind, match=words):
            base.split(project, API, shares)
    with pytest.raises(InvalidInput, match="on devices"):
        base.split(project, "wine-edge", {"champion": (None, 1.0)})
    assert served(ledger) == [("champion", 1, 1.0, False)]


def test_a_shadow_stays_through_shares_starts_and_rollbacks(project: Project, ledger: Ledger) -> None:
    """Until its version is the champion itself, beside which it would say nothing."""
    base.shadow(project, API, 2)
    base.split(project, API, {"champion": (None, 0.5), "candidate": (3, 0.5)})
    assert served(ledger) == [("champion", 1, 0.5, False), ("candidate", 3, 0.5, False), SHADOW]
    with pytest.raises(Unavailable, match="serves wine/1 now, but the alias"):
        base.rollback(project, API)
    assert served(ledger) == [("champion", 1, 1.0, False), SHADOW]
    with pytest.raises(Unavailable, match="serves wine/3 now"):
        lifecycle._serve(project, API, 3)  # what `start` does when MLflow has named the version
    assert served(ledger) == [("champion", 3, 1.0, False), SHADOW]
    with pytest.raises(Unavailable, match="serves wine/1 now"):
        base.rollback(project, API)
    assert served(ledger) == [("champion", 1, 1.0, False), SHADOW]
    with pytest.raises(Unavailable, match="serves wine/2 now"):
        lifecycle._serve(project, API, 2)
    assert served(ledger) == [("champion", 2, 1.0, False)]


def test_rolling_back_gives_the_champion_all_rows_also_when_it_had_none(
    project: Project, ledger: Ledger
) -> None:
    """A candidate with every row is no champion: going back is to the champion, not to the one before it."""
    serve(ledger, Variant("champion", 3))
    base.split(project, API, {"champion": (None, 0.0), "candidate": (2, 1.0)})
    with pytest.raises(Unavailable, match="serves wine/3 now"):
        base.rollback(project, API)
    assert served(ledger) == [("champion", 3, 1.0, False)]


def test_a_change_meanwhile_is_taken_in(project: Project, ledger: Ledger) -> None:
    """While a version is being proven a release takes its next step: the shadow stands beside what serves by then."""
    proofs = 0

    def proven(given: Project, model: str, version: int) -> object:
        nonlocal proofs
        proofs += 1
        if proofs == 1:
            serve(ledger, Variant("champion", 1, 0.8), Variant("candidate", 3, 0.2))
        return own(given, model, version)

    own = lifecycle._proven
    vars(lifecycle)["_proven"] = proven
    try:
        base.shadow(project, API, 2)
    finally:
        vars(lifecycle)["_proven"] = own
    assert served(ledger) == [("champion", 1, 0.8, False), ("candidate", 3, 0.2, False), SHADOW]
    assert proofs == 2


def test_a_shadow_is_in_use_and_serves_nobody(project: Project, ledger: Ledger) -> None:
    """Its version cannot be deleted before it is stopped, and a trace does not take being a shadow for answering."""
    base.shadow(project, API, 2)
    [(reason, hint)] = removal._deployed(ledger, "wine", 2)
    assert reason == "it is a shadow in the deployment 'wine-api'"
    assert hint == "loopwright deployment shadow wine-api --stop"
    assert [why for why, _ in removal._deployed(ledger, "wine", 1)] == ["the deployment 'wine-api' serves it"]
    assert removal._deployed(ledger, "wine", 3) == []
    answer = Prediction("0" * 32, now(), API, "wine", 2, "champion", 1.0, "", 0.1, {}, "anna")
    assert walk._deployment(ledger, answer).ok is False
    serve(ledger, Variant("champion", 2))
    changed = ledger.last("deployment.changed", API)
    assert changed is not None
    assert f"first served in event {changed.id}" in walk._deployment(ledger, answer).detail
