"""Live numbers against kill -9, on every ledger and store: each row that is in the log is counted once."""

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from postgres import postgresql
from prediction_rows import FLOWERS, project_in, rows
from profiled_version import add_profiled, profile_for

from loopwright.config import Project
from loopwright.ledger import Ledger
from loopwright.monitor.blocks import Plan
from loopwright.monitor.live import Follower, LiveNumbers, rebuild
from loopwright.predictions import PredictionLog, PredictionStore, files, maintain
from loopwright.records import Column, Signature, Task

pytestmark = pytest.mark.integration

HERE = Path(__file__).parent
KILLS = 20
#: What `prediction_writer.py` writes.
SIGNATURE = Signature(
    tuple(Column(f"pixel_{number}", "double") for number in range(16)),
    Task.classification,
    "digit",
    tuple(range(10)),
)


def _catch_up(project: Project, ledger: Ledger) -> None:
    follower = Follower(project, ledger)
    while follower.behind:
        follower.turn(datetime.now(UTC))


def test_a_follower_that_is_killed_twenty_times_counts_each_row_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While two writers append and seal, and segments are merged: all blocks equal an exact count in the end."""
    monkeypatch.delenv("LOOPWRIGHT_LEDGER", raising=False)
    (tmp_path / "loopwright.toml").write_text(
        '[model.digits]\npipeline = "pipelines:train"\ntarget = "digit"\n[deployment.digits-api]\nmodel = "digits"\nmode = "online"\n'
    )
    project = Project(tmp_path)
    ledger = Ledger.open(project)
    profile = profile_for(SIGNATURE)
    add_profiled(project, ledger, "digits", 1, SIGNATURE, profile)
    moments = random.Random(20261126)
    writers = [
        subprocess.Popen(
            [sys.executable, str(HERE / "prediction_writer.py"), str(tmp_path), seal],
            stdout=subprocess.DEVNULL,
        )
        for seal in ("60", "500")
    ]
    try:
        for _ in range(KILLS):
            follower = subprocess.Popen(
                [sys.executable, str(HERE / "live_follower.py"), str(tmp_path)], stdout=subprocess.PIPE
            )
            assert follower.stdout is not None
            assert follower.stdout.readline(), "the follower counted nothing"
            time.sleep(moments.uniform(0, 0.5))
            follower.kill()
            follower.wait()
            follower.stdout.close()
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
    _catch_up(project, ledger)
    maintain(project, ledger, few=2, grace_s=0)
    _catch_up(project, ledger)
    table = PredictionStore(project).table(deployment="digits-api")
    assert table.num_rows > 1000
    ids = Counter(table.column("prediction_id").to_pylist())
    assert max(ids.values()) == 1
    numbers = LiveNumbers(ledger, project)
    assert numbers.totals() == {("digits-api", 1): table.num_rows}
    until = datetime.now(UTC) + timedelta(minutes=1)
    live = numbers.block("digits-api", 1, until - timedelta(hours=1), until)
    assert np.array_equal(live.counts, Plan.of(profile, SIGNATURE).count(table).counts)
    folder = files.of_deployment(project, "digits-api")
    merged = sum(segment.merged for segment in folder.segments())
    assert merged, "nothing was merged meanwhile"
    print(f"{KILLS} kills, {table.num_rows} rows, {merged} merged segments: 0 rows lost, 0 doubled")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a PostgreSQL server."""
    with postgresql(tmp_path_factory.mktemp("postgres")) as address:
        yield address


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """Return the address of a bucket in an S3 server of its own."""
    boto3 = pytest.importorskip("boto3")
    server_module = pytest.importorskip("moto.server")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        boto3.client("s3").create_bucket(Bucket="live")
        yield "s3://live/log"
    server.stop()


@pytest.mark.parametrize(
    ("ledgers", "stores"), [("postgresql", "local"), ("sqlite", "s3"), ("postgresql", "s3")]
)
def test_every_ledger_and_store_gives_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, ledgers: str, stores: str
) -> None:
    """Tails, seals, merges, new followers and a rebuild on PostgreSQL and with the segments in a bucket."""
    monkeypatch.delenv("LOOPWRIGHT_LEDGER", raising=False)
    if ledgers == "postgresql":
        import sqlalchemy as sa

        address = request.getfixturevalue("database")
        admin = sa.create_engine(
            f"postgresql+psycopg://owner@{address}/postgres",
            isolation_level="AUTOCOMMIT",
            poolclass=sa.NullPool,
        )
        with admin.connect() as connection:
            connection.execute(sa.text(f"create database live_{stores}"))
        monkeypatch.setenv("LOOPWRIGHT_LEDGER", f"postgresql+psycopg://owner@{address}/live_{stores}")
    project = project_in(tmp_path)
    if stores == "s3":
        path = project.root / "loopwright.toml"
        path.write_text(
            path.read_text() + f'[log]\nstore = "{request.getfixturevalue("bucket")}-{ledgers}"\n'
        )
        project = Project(tmp_path)
    ledger = Ledger.open(project)
    add_profiled(project, ledger, "iris", 1, FLOWERS, profile_for(FLOWERS))
    log = PredictionLog(project, "quiet", "iris", FLOWERS, seal_rows=50)
    follower = Follower(project, ledger)
    for _ in range(4):
        log.append(rows(project, 30))
        follower.turn(datetime.now(UTC))
        log.append(rows(project, 30))
        log.maintain()
    log.append(rows(project, 7))
    _catch_up(project, ledger)
    numbers = LiveNumbers(ledger, project)
    assert numbers.totals() == {("quiet", 1): 247}
    assert maintain(project, ledger, few=2, grace_s=0).made == 1
    _catch_up(project, ledger)
    assert numbers.totals() == {("quiet", 1): 247}
    assert rebuild(project, ledger, "quiet") == 240
    assert numbers.totals() == {}
    _catch_up(project, ledger)
    until = datetime.now(UTC) + timedelta(minutes=1)
    live = numbers.block("quiet", 1, until - timedelta(hours=1), until)
    table = PredictionStore(project).table(deployment="quiet")
    assert np.array_equal(live.counts, Plan.of(profile_for(FLOWERS), FLOWERS).count(table).counts)
    log.close()
    ledger.close()
    assert os.environ.get("LOOPWRIGHT_LEDGER", "").startswith("postgresql") == (ledgers == "postgresql")
