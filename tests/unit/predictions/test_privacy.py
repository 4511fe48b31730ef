"""What the log keeps of a row: which rows, which fields, and hashes that only this project can compute."""

import math
from pathlib import Path

import numpy as np
import pytest
from prediction_rows import FLOWERS, project_in, rows

from loopwright.config import DeploymentConfig, LogConfig, Project
from loopwright.errors import InvalidConfig
from loopwright.predictions import HOLDOUT_DIGITS, Ids, LabelLog, PredictionLog, Predictions, PredictionStore
from loopwright.predictions.privacy import Privacy, left_out, secret_of
from loopwright.records import Column, Label, Mode, Signature, Task
from loopwright.registry.blocks import blocks_of

SECRET = bytes(range(32))
SHOPS = Signature(
    (
        Column("user", "string", required=False),
        Column("number", "long"),
        Column("age", "double"),
        Column("member", "boolean"),
        Column("city", "string", required=False),
    ),
    Task.regression,
)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return a new project."""
    return project_in(tmp_path)


def shop_rows(project: Project, n: int = 4, *, blocks: bool = False) -> Predictions:
    """Return rows for `SHOPS`, every second of one user, one of nobody."""
    user = np.array([("ann@example.org", None, "bob@example.org", "")[row % 4] for row in range(n)], object)
    columns = {
        "user": user,
        "number": np.arange(n, dtype=np.int64),
        "age": np.arange(n) + 0.5,
        "member": np.arange(n) % 2 == 0,
        "city": np.array(["Köln"] * n, object),
    }
    return Predictions(
        prediction_id=Ids.open(project).new(n, 1_790_000_000_000_000),
        at_us=np.full(n, 1_790_000_000_000_000),
        version=np.ones(n, np.int32),
        variant=["champion"] * n,
        propensity=np.ones(n),
        entity=[value or "" for value in user.tolist()],
        latency_ms=np.ones(n, np.float32),
        inputs=blocks_of(columns, SHOPS.inputs, n) if blocks else columns,
        prediction=np.arange(n, dtype=np.float64),
        request_id=[f"r{row}" for row in range(n)],
    )


def applied(privacy: Privacy, given: Predictions) -> Predictions:
    """Return what is kept, which is something."""
    kept = privacy.apply(given)
    assert kept is not None
    return kept


def test_nothing_configured_is_nothing_to_do() -> None:
    """Without settings there is no object, so that the log pays nothing for it."""
    assert Privacy.of(LogConfig(), FLOWERS, SECRET) is None
    assert Privacy.of(LogConfig(sample=0.5), FLOWERS, SECRET) is not None


def test_a_sample_is_a_share_of_the_ids_whoever_asks(project: Project) -> None:
    """The share is kept, the same rows in any batch and process, smaller samples inside larger ones."""
    given = rows(project, 20_000)
    half, tenth = (Privacy(LogConfig(sample=share), FLOWERS, SECRET) for share in (0.5, 0.1))
    kept, fewer = applied(half, given).prediction_id, applied(tenth, given).prediction_id
    assert abs(len(kept) - 10_000) < 5 * math.sqrt(20_000 * 0.25)
    assert abs(len(fewer) - 2000) < 5 * math.sqrt(20_000 * 0.09)
    assert set(fewer) < set(kept)
    other = Privacy(LogConfig(sample=0.5), SHOPS, bytes(32))
    single = [one for one in given.prediction_id[:500] if other.apply(rows(project, 1, prediction_id=[one]))]
    assert single == [one for one in given.prediction_id[:500] if one in set(kept)]


@pytest.mark.parametrize("sample", [0.25, 1 / 64])
def test_the_sample_says_nothing_of_the_holdout(project: Project, sample: float) -> None:
    """One row in four of a sample is held out, as of all rows."""
    given = rows(project, 20_000)
    kept = applied(Privacy(LogConfig(sample=sample), FLOWERS, SECRET), given).prediction_id
    share = sum(one[-1] in HOLDOUT_DIGITS for one in kept) / len(kept)
    assert abs(share - 0.25) < 5 * math.sqrt(0.25 * 0.75 / len(kept))


@pytest.mark.parametrize("blocks", [False, True])
def test_a_row_of_a_sample_keeps_all_that_is_its_own(project: Project, blocks: bool) -> None:
    """Each kept row has its own id, entity, inputs, prediction and request id, in their order."""
    given = shop_rows(project, 400, blocks=blocks)
    kept = applied(Privacy(LogConfig(sample=0.3), SHOPS, SECRET), given)
    index = [given.prediction_id.index(one) for one in kept.prediction_id]
    assert index == sorted(index)
    assert 0 < len(index) < 400
    assert kept.prediction.tolist() == kept.inputs["number"].tolist() == index
    assert kept.request_id == [f"r{row}" for row in index]
    assert given.entity is not None
    assert kept.entity == [given.entity[row] for row in index]
    assert kept.inputs["user"].tolist() == [given.inputs["user"][row] for row in index]
    assert kept.probability is None
    assert [np.size(one) for one in (kept.at_us, kept.version, kept.latency_ms)] == [len(index)] * 3


def test_all_and_nothing(project: Project) -> None:
    """A sample of 0 keeps nothing; rows that are all kept are handed on as they are."""
    given = rows(project, 50)
    assert Privacy(LogConfig(sample=0), FLOWERS, SECRET).apply(given) is None
    assert Privacy(LogConfig(sample=1.0), FLOWERS, SECRET).apply(given) is given


@pytest.mark.parametrize("blocks", [False, True])
def test_dropped_fields_are_missing_in_the_log(project: Project, blocks: bool) -> None:
    """Of every type: nulls in the log, empty for the entity, and the rows that were scored stay whole."""
    given = shop_rows(project, blocks=blocks)
    log = LogConfig(drop=("user", "number", "member", "age", "entity"))
    kept = applied(Privacy(log, SHOPS, SECRET), given)
    writer = PredictionLog(project, "api", "shops", SHOPS)
    writer.append(kept)
    table = PredictionStore(project).table(deployment="api")
    for name in ("user", "number", "member", "age"):
        assert table[f"input_{name}"].null_count == 4
    # Whoever it was about is gone: each row is about itself.
    assert table["entity"].to_pylist() == table["prediction_id"].to_pylist()
    assert table["input_city"].to_pylist() == ["Köln"] * 4
    assert given.inputs["user"][0] == "ann@example.org"
    assert given.entity is not None
    assert given.entity[0] == "ann@example.org"
    writer.close()


@pytest.mark.parametrize("blocks", [False, True])
def test_hashes_are_equal_for_equal_values_and_need_the_key(project: Project, blocks: bool) -> None:
    """Sixteen digits for text, the same in field and entity and each time; missing stays missing."""
    given = shop_rows(project, 8, blocks=blocks)
    log = LogConfig(hash=("user", "entity"))
    kept = applied(Privacy(log, SHOPS, SECRET), given)
    again = applied(Privacy(log, SHOPS, SECRET), shop_rows(project, 8, blocks=blocks))
    users = kept.inputs["user"].tolist()
    assert users == again.inputs["user"].tolist()
    assert users[0] == users[4] != users[2]
    assert (users[1], users[3]) == (None, "")
    assert kept.entity == [value or "" for value in users]
    assert len(users[0]) == 16
    int(users[0], 16)
    other = applied(Privacy(log, SHOPS, bytes(32)), given)
    assert other.inputs["user"][0] != users[0]
    assert kept.inputs["city"].tolist() == ["Köln"] * 8


def test_no_file_of_the_log_has_what_was_hashed_or_dropped(project: Project) -> None:
    """The value is in no byte of tails and segments."""
    kept = applied(
        Privacy(LogConfig(hash=("user",), drop=("city",)), SHOPS, SECRET, "user"), shop_rows(project)
    )
    writer = PredictionLog(project, "api", "shops", SHOPS)
    writer.append(kept)
    tails = [path.read_bytes() for path in project.predictions.rglob("*") if path.is_file()]
    writer.close()
    table = PredictionStore(project).table(deployment="api")
    for value in ("ann@example.org", "Köln"):
        assert tails
        assert not any(value.encode() in data for data in tails)
        assert value not in str(table.to_pydict())


def test_the_entity_and_its_input_are_one_thing(project: Project) -> None:
    """Saying it of the input hides the entity's column too, and the other way round, also where it is a number."""
    given = shop_rows(project)
    for name in ("user", "entity"):
        kept = applied(Privacy(LogConfig(drop=(name,)), SHOPS, SECRET, "user"), given)
        assert "user" not in kept.inputs
        assert kept.entity is None
        kept = applied(Privacy(LogConfig(hash=(name,)), SHOPS, SECRET, "user"), given)
        assert kept.entity is not None
        assert kept.inputs["user"][0] == kept.entity[0] != "ann@example.org"
    numbered = applied(Privacy(LogConfig(hash=("number",)), SHOPS, SECRET, "number"), given)
    assert "number" not in numbered.inputs
    assert numbered.entity is not None
    assert len(numbered.entity[0]) == 16
    # A device that is named beside the inputs can be named by its own name.
    beside = applied(Privacy(LogConfig(hash=("device",)), SHOPS, SECRET, "device"), given)
    assert beside.entity is not None
    assert len(beside.entity[0]) == 16


def test_a_field_that_only_a_candidate_takes_is_hidden_all_the_same(project: Project) -> None:
    """Rows of a version with other inputs meet the settings by name, whatever signature they were checked with."""
    fewer = Signature(SHOPS.inputs[:1], Task.regression)
    kept = applied(Privacy(LogConfig(drop=("user",)), fewer, SECRET), shop_rows(project))
    assert set(kept.inputs) == {"number", "age", "member", "city"}
    hashed = Privacy(LogConfig(hash=("entity",)), fewer, SECRET, "city")
    assert "Köln" not in applied(hashed, shop_rows(project)).inputs["city"].tolist()


def test_what_is_not_in_the_log_is_known_to_those_who_read_it() -> None:
    """Monitors and gates learn which inputs they must do without."""

    def out(entity: str | None, **log: tuple[str, ...]) -> set[str]:
        config = DeploymentConfig(model="m", mode=Mode.online, entity=entity, log=LogConfig(**log))
        return set(left_out(config))

    assert out(None) == set()
    assert out(None, drop=("age",), hash=("user",)) == {"age", "user"}
    assert out("user", hash=("entity",)) >= {"user"}
    assert out("user", drop=("age",)) == {"age"}
    assert "user" not in out(None, hash=("entity",))


def test_wrong_settings_are_refused_with_what_would_be_right() -> None:
    """An unknown field names the nearest, a hashed number says why not, and both ways at once are none."""
    with pytest.raises(InvalidConfig, match=r"log.drop names the field 'usr'.*Did you mean 'user'"):
        Privacy(LogConfig(drop=("usr",)), SHOPS, SECRET)
    with pytest.raises(InvalidConfig, match=r"log.hash names age \(double\)"):
        Privacy(LogConfig(hash=("age",)), SHOPS, SECRET)
    with pytest.raises(InvalidConfig, match="both name user"):
        Privacy(LogConfig(drop=("user",), hash=("user",)), SHOPS, SECRET)
    with pytest.raises(InvalidConfig, match="both name entity, user"):
        Privacy(LogConfig(drop=("user",), hash=("entity",)), SHOPS, SECRET, "user")


def test_a_label_for_a_row_that_was_not_logged_counts_nowhere(project: Project) -> None:
    """It is taken, because its id is right, and joins nothing."""
    given = rows(project, 40)
    kept = applied(Privacy(LogConfig(sample=0.5), FLOWERS, SECRET), given)
    writer = PredictionLog(project, "api", "iris", FLOWERS)
    writer.append(kept)
    labels = LabelLog(project)
    for one in given.prediction_id:
        Ids.open(project).check(one)
    labels.append([Label(one, 1) for one in given.prediction_id])
    store = PredictionStore(project)
    assert store.count() == store.count(labelled=True) == len(kept) < 40
    assert store.query("select count(*) as n from labels").to_pylist() == [{"n": 40}]
    writer.close()
    labels.close()


def test_the_secret_is_the_key_of_the_project(project: Project, tmp_path: Path) -> None:
    """It is made once, 32 bytes, the same for all who ask."""
    assert secret_of(project) == secret_of(Project(tmp_path))
    assert len(secret_of(project)) == 32
