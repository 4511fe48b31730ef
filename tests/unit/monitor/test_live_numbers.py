"""Live numbers: each row is counted once, in the bins of its version, and equals what is counted exactly."""

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
import sqlalchemy as sa
from prediction_rows import FLOWERS, project_in, rows
from profiled_version import add_profiled, profile_for

from loopwright.config import Project
from loopwright.errors import InvalidInput, NotFound, Unavailable
from loopwright.ledger import Ledger
from loopwright.ledger.schema import positions
from loopwright.monitor.blocks import Block, Plan
from loopwright.monitor.data import LoggedWindow
from loopwright.monitor.live import Follower, LiveNumbers, progress, rebuild, roll_up
from loopwright.monitor.live import follower as following
from loopwright.monitor.live.kept import Kept
from loopwright.monitor.live.spans import DAY_S, HOUR_S, MINUTE_S
from loopwright.predictions import PredictionLog, Predictions, PredictionStore, files, seal_orphans
from loopwright.predictions.shelves import NamedShelf
from loopwright.predictions.upkeep import maintain
from loopwright.records import Window

NAME = "quiet"
MINUTE_US = 60_000_000


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return a project with one deployment, whose version 1 has a profile and whose version 2 has none."""
    monkeypatch.delenv("LOOPWRIGHT_LEDGER", raising=False)
    return project_in(tmp_path)


@pytest.fixture
def ledger(project: Project) -> Ledger:
    """Return its ledger, with the versions."""
    ledger = Ledger.open(project)
    add_profiled(project, ledger, "iris", 1, FLOWERS, profile_for(FLOWERS))
    add_profiled(project, ledger, "iris", 2, FLOWERS, None)
    return ledger


@pytest.fixture
def follow(project: Project, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Return what follows the log to its end, with a follower that is kept or a new one."""
    monkeypatch.setattr(following, "DEPLOYMENTS_S", 0.0)
    kept: list[Follower] = []

    def run(*, new: bool = False, limit: int = 100_000) -> int:
        if new or not kept:
            kept.append(Follower(project, ledger))
        follower = kept[-1]
        done = follower.turn(datetime.now(UTC), rows=limit)
        while follower.behind:
            done += follower.turn(datetime.now(UTC), rows=limit)
        return done

    return run


def mixed(project: Project, n: int, at_us: int, seed: int, version: int = 1) -> Predictions:
    """Return rows with values of all kinds: missing, unseen, infinite, outside of the training range."""
    draw = np.random.default_rng(seed)
    petal = draw.normal(0.3, 1.5, n)
    petal[draw.random(n) < 0.1] = np.nan
    petal[draw.random(n) < 0.02] = np.inf
    colours = np.array(["blue", "red", "white", "green", "never seen", None], object)
    inputs = {"petal": petal, "sepal": draw.normal(0, 9, n), "colour": draw.choice(colours, n)}
    return rows(
        project,
        n,
        at_us=at_us,
        version=version,
        inputs=inputs,
        latency_ms=draw.lognormal(0, 1, n).astype(np.float32),
        probability=draw.dirichlet(np.ones(3), n),
    )


def exact(project: Project, version: int, since: datetime, until: datetime) -> Block:
    """Return the counts of the rows that the log itself gives for a span, counted at once."""
    plan = Plan.of(profile_for(FLOWERS) if version == 1 else None, FLOWERS)
    table = PredictionStore(project).table(deployment=NAME, since=since, until=until)
    return plan.count(table.filter(pc.equal(table.column("version"), version)))


def test_live_equals_exact_for_several_writers_seals_and_new_followers(
    project: Project, ledger: Ledger, follow: Callable[..., int]
) -> None:
    """Whatever was sealed, and by whoever it was counted so far, blocks equal what counting all rows at once gives."""
    order = random.Random(5)
    now_us = time.time_ns() // 1000
    numbers = LiveNumbers(ledger, project)
    logs = [PredictionLog(project, NAME, "iris", FLOWERS, seal_rows=700) for _ in range(3)]
    written = 0
    for step in range(120):
        n = order.randint(1, 90)
        at_us = now_us + order.randint(-200, 5) * MINUTE_US
        order.choice(logs).append(mixed(project, n, at_us, step, version=order.choice([1, 1, 2])))
        written += n
        if order.random() < 0.2:
            order.choice(logs).maintain()
        if order.random() < 0.3:
            follow(new=order.random() < 0.3, limit=order.choice([10, 300, 100_000]))
    for log in logs[:2]:
        log.close()
    follow()
    since, until = (datetime.fromtimestamp(now_us / 1e6, UTC) + timedelta(minutes=m) for m in (-300, 30))
    since, until = since.replace(second=0, microsecond=0), until.replace(second=0, microsecond=0)
    total = 0
    for version in (1, 2):
        live = numbers.block(NAME, version, since, until)
        one = exact(project, version, since, until)
        assert np.array_equal(live.counts, one.counts)
        assert np.array_equal(live.ends, one.ends)
        assert np.allclose(live.sums, one.sums, rtol=1e-9, atol=1e-9)
        total += live.rows
    assert total == written == sum(numbers.totals().values())
    # What the checks of a window are given is the same.
    with LoggedWindow(
        PredictionStore(project), NAME, Window(since, until), plan=Plan.of(profile_for(FLOWERS), FLOWERS)
    ) as window:
        counts = window.counts(1)
    assert np.array_equal(numbers.block(NAME, 1, since, until).counts, counts.counts)
    # A part of the span, which is put together from other blocks.
    since, until = until - timedelta(minutes=157), until - timedelta(minutes=41)
    assert np.array_equal(
        numbers.block(NAME, 1, since, until).counts,
        exact(project, 1, since, until).counts,
    )


def test_a_tail_that_is_sealed_while_it_is_half_counted_goes_on(
    project: Project, ledger: Ledger, follow: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of a stem are counted by their number, in the tail and then in the segment."""
    log = PredictionLog(project, NAME, "iris", FLOWERS)
    log.append(rows(project, 100))
    assert follow() == 100
    log.append(rows(project, 50))
    log.close()
    assert follow() == 50
    assert follow(new=True) == 0
    assert LiveNumbers(ledger, project).totals() == {(NAME, 1): 150}


def test_nothing_is_lost_or_doubled_when_the_process_dies_before_it_has_written(
    project: Project, ledger: Ledger, follow: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks and positions are one transaction: one that fails leaves neither."""
    log = PredictionLog(project, NAME, "iris", FLOWERS)
    log.append(rows(project, 100))
    follow()
    log.append(rows(project, 11))

    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("loopwright.monitor.live.kept._insert_positions", die)
        with pytest.raises(Killed):
            follow()
    assert sum(LiveNumbers(ledger, project).totals().values()) == 100
    assert follow(new=True) == 11
    assert sum(LiveNumbers(ledger, project).totals().values()) == 111


def test_two_followers_at_once_count_each_row_once(project: Project, ledger: Ledger) -> None:
    """The one that finds that another was quicker begins again from what the ledger says."""
    log = PredictionLog(project, NAME, "iris", FLOWERS)
    one, other = Follower(project, ledger), Follower(project, Ledger.open(project))
    for n in (40, 3, 77, 1):
        log.append(rows(project, n))
        for _ in range(2):
            one.turn(datetime.now(UTC))
            other.turn(datetime.now(UTC))
    assert LiveNumbers(ledger, project).totals() == {(NAME, 1): 121}


def test_a_long_past_does_not_keep_another_deployment_from_its_present(
    project: Project, ledger: Ledger
) -> None:
    """A turn with little time counts some rows of each."""
    log = PredictionLog(project, NAME, "iris", FLOWERS, seal_rows=1000)
    for _ in range(30):
        log.append(rows(project, 1000))
        log.maintain()
    log.close()
    other = PredictionLog(project, "busy", "iris", FLOWERS)
    other.append(rows(project, 5))
    follower = Follower(project, ledger)
    follower.turn(datetime.now(UTC), rows=2000)
    assert follower.behind
    found = LiveNumbers(ledger, project).totals()
    assert found["busy", 1] == 5
    assert 1000 <= found[NAME, 1] <= 4000
    other.close()


def test_past_and_future_rows_are_counted_where_they_belong(
    project: Project, ledger: Ledger, follow: Callable[..., int]
) -> None:
    """A row of last year has an hour and no minute; one of tomorrow has both."""
    now = datetime.now(UTC)
    log = PredictionLog(project, NAME, "iris", FLOWERS)
    last_year, tomorrow = now - timedelta(days=365), now + timedelta(days=1)
    for at, n in ((last_year, 7), (now, 5), (tomorrow, 3)):
        log.append(rows(project, n, at_us=int(at.timestamp()) * 1_000_000))
    assert follow() == 15
    kept = Kept(ledger)
    assert [sum(kept.totals(span).values()) for span in (MINUTE_S, HOUR_S, DAY_S)] == [8, 15, 15]
    numbers = LiveNumbers(ledger, project)
    hour = timedelta(hours=1)
    for at, n in ((last_year, 7), (now, 5), (tomorrow, 3)):
        assert numbers.rows(NAME, at - hour, at + hour) == {1: n}
    points = numbers.series(NAME, last_year, now + timedelta(days=2))
    assert [point.rows for point in points] == [7, 5, 3]
    log.close()


def test_minutes_go_and_hours_and_days_stay(
    project: Project, ledger: Ledger, follow: Callable[..., int]
) -> None:
    """After two days the same question has the same answer, from hours."""
    now = datetime.now(UTC)
    log = PredictionLog(project, NAME, "iris", FLOWERS)
    start = now - timedelta(hours=30)
    for minute in range(120):
        log.append(mixed(project, 3, int(start.timestamp() * 1e6) + minute * MINUTE_US, minute))
    follow()
    hour = start.replace(minute=0, second=0, microsecond=0)
    numbers = LiveNumbers(ledger, project)
    before = numbers.block(NAME, 1, hour, hour + timedelta(hours=3)).counts
    assert roll_up(project, ledger, now) == 0
    dropped = roll_up(project, ledger, now + timedelta(days=2))
    assert dropped == 120
    assert Kept(ledger).totals(MINUTE_S) == {}
    assert np.array_equal(numbers.block(NAME, 1, hour, hour + timedelta(hours=3)).counts, before)
    assert before[0] == 360
    log.close()


def test_blocks_go_with_the_predictions_they_count(
    project: Project, ledger: Ledger, follow: Callable[..., int]
) -> None:
    """`[log] keep` is for both; without it nothing is ever deleted."""
    now = datetime.now(UTC)
    log = PredictionLog(project, NAME, "iris", FLOWERS)
    log.append(rows(project, 4, at_us=int((now - timedelta(days=40)).timestamp()) * 1_000_000))
    log.append(rows(project, 2))
    follow()
    roll_up(project, ledger, now)
    assert Kept(ledger).totals(DAY_S) == {(NAME, 1): 6}
    (project.root / "loopwright.toml").write_text(
        (project.root / "loopwright.toml").read_text() + '[log]\nkeep = "30d"\n'
    )
    roll_up(Project(project.root), ledger, now)
    assert Kept(ledger).totals(DAY_S) == Kept(ledger).totals(HOUR_S) == {(NAME, 1): 2}
    log.close()


def test_an_older_log_is_counted_by_itself_and_anew_when_asked(
    project: Project, ledger: Ledger, follow: Callable[..., int]
) -> None:
    """Without positions everything there is is counted; `rebuild` begins again, and a running follower notices."""
    log = PredictionLog(project, NAME, "iris", FLOWERS, seal_rows=100)
    for _ in range(5):
        log.append(rows(project, 100))
        log.maintain()
    log.append(rows(project, 9))
    assert follow() == 509
    assert progress(project, ledger, NAME) == (500, 500)
    assert rebuild(project, ledger, NAME) == 500
    assert LiveNumbers(ledger, project).totals() == {}
    assert progress(project, ledger, NAME) == (0, 500)
    assert follow() == 509
    assert LiveNumbers(ledger, project).totals() == {(NAME, 1): 509}
    log.close()


def test_other_bins_make_the_count_begin_again_once(
    project: Project, ledger: Ledger, follow: Callable[..., int]
) -> None:
    """A version whose profile comes after it was counted without one is counted anew, with its inputs."""
    log = PredictionLog(project, NAME, "iris", FLOWERS)
    log.append(mixed(project, 200, time.time_ns() // 1000, 3, version=2))
    follow()
    numbers = LiveNumbers(ledger, project)
    now = datetime.now(UTC)
    span = (now - timedelta(minutes=5), now + timedelta(minutes=5))
    assert numbers.block(NAME, 2, *span).column("petal") is None
    assert numbers.features(NAME, 2, *span) == []
    (project.scorer("iris", 1)).rename(project.scorer("iris", 2))
    assert follow(new=True) == 200
    petal = numbers.block(NAME, 2, *span).column("petal")
    assert petal is not None
    assert petal.rows == 200
    assert [feature.name for feature in LiveNumbers(ledger, project).features(NAME, 2, *span)]
    log.close()


def test_a_damaged_segment_is_said_and_passed_over(
    project: Project, ledger: Ledger, follow: Callable[..., int], caplog: pytest.LogCaptureFixture
) -> None:
    """The others are counted, and so is what comes after."""
    log = PredictionLog(project, NAME, "iris", FLOWERS, seal_rows=10)
    for _ in range(3):
        log.append(rows(project, 10))
        log.maintain()
    worst = files.of_deployment(project, NAME).segments()[1]
    worst.path.write_bytes(b"PAR1" + bytes(100))
    assert follow() == 20
    assert caplog.text.count("cannot be read and is not counted") == 1
    log.append(rows(project, 10))
    assert follow() == 10
    log.close()


def test_the_tail_of_a_dead_writer_is_followed_and_then_sealed(
    project: Project, ledger: Ledger, follow: Callable[..., int]
) -> None:
    """A torn batch at its end is no row, and its sealing changes nothing."""
    log = PredictionLog(project, NAME, "iris", FLOWERS)
    log.append(rows(project, 20))
    tail = files.of_deployment(project, NAME).tails()[0]
    whole = tail.read_bytes()
    log.append(rows(project, 20))
    for owned in log._log._tails.values():  # as after kill -9: the lock is free, and nobody seals
        owned.close()
    with tail.open("r+b") as file:
        file.truncate(len(whole) + 100)
    tail.rename(tail.with_name(tail.name.replace("-p", "-p99999999", 1)))
    assert follow() == 20
    assert follow() == 0
    assert seal_orphans(project) == 1
    assert follow() == 0
    assert LiveNumbers(ledger, project).totals() == {(NAME, 1): 20}


def test_rows_that_the_disk_took_back_are_not_counted(
    project: Project, ledger: Ledger, follow: Callable[..., int]
) -> None:
    """A tail that was cut behind the reader is counted anew."""
    log = PredictionLog(project, NAME, "iris", FLOWERS)
    log.append(rows(project, 20))
    tail = files.of_deployment(project, NAME).tails()[0]
    whole = tail.stat().st_size
    log.append(rows(project, 5))
    assert follow() == 25
    with tail.open("r+b") as file:
        file.truncate(whole)
    following_anew = following.ANEW_S
    try:
        following.ANEW_S = 0.0
        assert follow() == 20
    finally:
        following.ANEW_S = following_anew
    assert LiveNumbers(ledger, project).totals() == {(NAME, 1): 20}
    log.close()


def test_inputs_that_are_not_logged_as_they_came_are_not_counted(
    project: Project, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hashed text would be unseen in every row."""
    path = project.root / "loopwright.toml"
    path.write_text(path.read_text() + '[deployment.quiet.log]\nhash = ["colour"]\n')
    hidden = Project(project.root)
    log = PredictionLog(hidden, NAME, "iris", FLOWERS)
    log.append(rows(hidden, 30))
    Follower(hidden, ledger).turn(datetime.now(UTC))
    now = datetime.now(UTC)
    block = LiveNumbers(ledger, hidden).block(NAME, 1, now - timedelta(minutes=2), now + timedelta(minutes=1))
    colour, petal = block.column("colour"), block.column("petal")
    assert colour is not None
    assert petal is not None
    assert (colour.rows, petal.rows) == (0, 30)
    log.close()


def test_series_features_and_one_feature(
    project: Project, ledger: Ledger, follow: Callable[..., int]
) -> None:
    """Pages get traffic with latency, inputs by how far they moved, and one input as bars and over time."""
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    log = PredictionLog(project, NAME, "iris", FLOWERS)
    for minute in range(10):
        at_us = int((now - timedelta(minutes=10 - minute)).timestamp() * 1e6)
        log.append(mixed(project, 60, at_us, minute))
    follow()
    numbers = LiveNumbers(ledger, project)
    since = now - timedelta(minutes=10)
    points = numbers.series(NAME, since, now)
    assert [point.start for point in points] == [since + timedelta(minutes=m) for m in range(10)]
    assert {point.rows for point in points} == {60}
    assert all(point.per_s == 1.0 for point in points)
    latencies = np.sort(
        np.asarray(
            PredictionStore(project)
            .table(deployment=NAME, since=since, until=since + timedelta(minutes=1))
            .column("latency_ms")
            .to_pylist()
        )
    )
    assert points[0].p50_ms == pytest.approx(float(np.quantile(latencies, 0.5)), rel=0.15)
    assert points[0].p50_ms < points[0].p95_ms < points[0].p99_ms  # type: ignore[operator]
    assert numbers.per_second(NAME, now) == 1.0
    assert numbers.rows(NAME, since, now) == {1: 600}
    five = numbers.series(NAME, since, now, step_s=300)
    assert sum(point.rows for point in five) == 600
    features = numbers.features(NAME, 1, since, now)
    moved = [feature.psi or 0.0 for feature in features]
    assert moved == sorted(moved, reverse=True)
    assert min(moved) > 0.02
    by_name = {feature.name: feature for feature in features}
    assert by_name["colour"].unseen == pytest.approx(1 / 6, abs=0.05)
    assert by_name["petal"].missing == pytest.approx(0.1, abs=0.04)
    assert by_name["sepal"].outside > 0.5
    assert all(
        feature.psi is not None and feature.chance is not None and feature.psi > feature.chance
        for feature in features
    )
    detail = numbers.feature(NAME, 1, "colour", since, now)
    assert [bar.label for bar in detail.bars[-2:]] == ["others", "missing"]
    for side in ("before", "now"):
        assert sum(getattr(bar, side) for bar in detail.bars) == pytest.approx(1.0)
    assert [point.rows for point in detail.points] == [60] * 10
    wide = numbers.feature(NAME, 1, "sepal", since, now)
    assert (wide.bars[0].low, wide.bars[-2].high) == (None, None)
    assert numbers.feature(NAME, 1, "score", since, now).feature.rows == 600
    with pytest.raises(NotFound, match="'petall'"):
        numbers.feature(NAME, 1, "petall", since, now)
    with pytest.raises(InvalidInput, match="no time zone"):
        numbers.rows(NAME, datetime(2026, 1, 1), now)  # noqa: DTZ001
    with pytest.raises(InvalidInput, match="multiple of 60"):
        numbers.series(NAME, since, now, step_s=90)
    log.close()


def test_merging_segments_changes_no_number(
    project: Project, ledger: Ledger, follow: Callable[..., int]
) -> None:
    """Only what is counted is merged, merged segments are not counted again, and a rebuild counts them."""
    log = PredictionLog(project, NAME, "iris", FLOWERS, seal_rows=20)

    def fill(segments: int) -> None:
        for _ in range(segments):
            log.append(rows(project, 20))
            log.maintain()

    fill(4)
    assert follow() == 80
    fill(3)
    done = maintain(project, ledger, few=2, grace_s=0)
    assert (done.merged, done.made) == (4, 1)
    assert follow() == 60
    assert follow(new=True) == 0
    assert maintain(project, ledger, few=2, grace_s=0).made == 1
    assert follow() == 0
    assert follow(new=True) == 0
    before = LiveNumbers(ledger, project).totals()
    assert before == {(NAME, 1): 140}
    assert rebuild(project, ledger, NAME) == 140
    assert maintain(project, ledger, few=2).made == 0
    fill(1)
    assert follow() == 160
    log.close()


def test_segments_in_a_folder_elsewhere_are_followed(
    project: Project, ledger: Ledger, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """`[log] store` changes where segments lie, and no number."""
    path = project.root / "loopwright.toml"
    path.write_text(path.read_text() + f'[log]\nstore = "{tmp_path_factory.mktemp("store")}"\n')
    elsewhere = Project(project.root)
    log = PredictionLog(elsewhere, NAME, "iris", FLOWERS, seal_rows=20)
    follower = Follower(elsewhere, ledger)
    for _ in range(3):
        log.append(rows(elsewhere, 20))
        log.maintain()
        follower.turn(datetime.now(UTC))
    log.append(rows(elsewhere, 4))
    follower.turn(datetime.now(UTC))
    assert LiveNumbers(ledger, elsewhere).totals() == {(NAME, 1): 64}
    assert maintain(elsewhere, ledger, few=2, grace_s=0).made == 1
    Follower(elsewhere, ledger).turn(datetime.now(UTC))
    assert LiveNumbers(ledger, elsewhere).totals() == {(NAME, 1): 64}
    log.close()


def test_a_ledger_that_takes_nothing_for_a_while_costs_nothing(
    project: Project, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a full disk: it is logged, tried again later, and no row is lost or doubled."""
    log = PredictionLog(project, NAME, "iris", FLOWERS)
    log.append(rows(project, 10))
    follower = Follower(project, ledger)

    def full(*_: object) -> None:
        raise sa.exc.OperationalError("insert", {}, Exception("database or disk is full"))

    with monkeypatch.context() as patch:
        patch.setattr(Kept, "commit", full)
        assert follower.turn(datetime.now(UTC)) == 0
        assert follower.turn(datetime.now(UTC)) == 0
    assert caplog.text.count("database or disk is full") >= 1
    assert caplog.text.count("could not be counted") == 1
    assert follower.turn(datetime.now(UTC)) == 0
    monkeypatch.setattr("time.monotonic", lambda later=time.monotonic: later() + 60)
    assert follower.turn(datetime.now(UTC)) == 10
    assert LiveNumbers(ledger, project).totals() == {(NAME, 1): 10}
    log.close()


def test_a_clock_that_moves_back_and_a_configuration_that_changes(project: Project, ledger: Ledger) -> None:
    """Rows go on being counted, each in its own minute, and by what is declared now."""
    log = PredictionLog(project, NAME, "iris", FLOWERS)
    now = datetime.now(UTC)
    follower = Follower(project, ledger)
    log.append(rows(project, 3))
    assert follower.turn(now + timedelta(days=30)) == 3
    log.append(rows(project, 2))
    assert follower.turn(now) == 2
    assert Kept(ledger).totals(HOUR_S) == {(NAME, 1): 5}
    # What came while the clock was a month ahead was too old for a minute, and has its hour.
    assert Kept(ledger).totals(MINUTE_S) == {(NAME, 1): 2}
    path = project.root / "loopwright.toml"
    path.write_text(path.read_text() + '[deployment.quiet.log]\ndrop = ["petal"]\n')
    follower.configure(Project(project.root))
    log.append(rows(project, 4))
    assert follower.turn(now) == 4
    span = (now - timedelta(hours=1), now + timedelta(hours=1))
    block = LiveNumbers(ledger, project).block(NAME, 1, *span)
    petal, sepal = block.column("petal"), block.column("sepal")
    assert petal is not None
    assert sepal is not None
    assert (petal.rows, sepal.rows) == (5, 9)
    log.close()


def test_a_model_that_took_the_name_of_another_starts_anew(
    project: Project, ledger: Ledger, follow: Callable[..., int]
) -> None:
    """Rows of the deployment's earlier model have other versions under the same numbers, and are not mixed in."""
    for model, n in (("tulip", 30), ("iris", 20)):
        log = PredictionLog(project, NAME, model, FLOWERS)
        log.append(rows(project, n))
        log.close()
    assert follow() == 20
    assert LiveNumbers(ledger, project).totals() == {(NAME, 1): 20}


def test_a_store_that_does_not_answer_keeps_no_tail_from_being_counted(
    project: Project, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Segments wait until it is back; what is written now is counted now."""
    log = PredictionLog(project, NAME, "iris", FLOWERS, seal_rows=10)
    log.append(rows(project, 10))
    log.maintain()
    log.append(rows(project, 3))
    follower = Follower(project, ledger)

    def absent(*_: object) -> None:
        raise Unavailable("The store s3://elsewhere does not answer.")

    with monkeypatch.context() as patch:
        patch.setattr(NamedShelf, "fetch", absent)
        assert follower.turn(datetime.now(UTC)) == 3
        assert follower.turn(datetime.now(UTC)) == 0
        waits = follower.behind
    assert caplog.text.count("does not answer") == 1
    monkeypatch.setattr("time.monotonic", lambda later=time.monotonic: later() + 60)
    assert follower.turn(datetime.now(UTC)) == 10
    assert (waits, follower.behind) == (True, False)
    assert LiveNumbers(ledger, project).totals() == {(NAME, 1): 13}
    log.close()


def test_positions_of_files_that_are_long_gone_are_forgotten(
    project: Project, ledger: Ledger, follow: Callable[..., int]
) -> None:
    """Those that went a moment ago are kept, should they turn up again; the numbers stay."""
    log = PredictionLog(project, NAME, "iris", FLOWERS, seal_rows=10)
    for _ in range(3):
        log.append(rows(project, 10))
        log.maintain()
    follow()
    first, second, _ = files.of_deployment(project, NAME).segments()
    for segment in (first, second):
        segment.path.unlink()
    with ledger.writing() as connection:
        old = datetime.now(UTC) - timedelta(days=8)
        connection.execute(sa.update(positions).where(positions.c.stem == first.stem).values(changed=old))
    assert follow(new=True) == 0
    known = Kept(ledger).known(NAME).rows
    assert first.stem not in known
    assert known[second.stem] == 10
    assert LiveNumbers(ledger, project).totals() == {(NAME, 1): 30}
    log.close()
