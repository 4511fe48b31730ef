"""Parity without a server: what cannot be compared. The comparison itself is an integration test."""

from pathlib import Path

import msgspec
import pytest
from four_modes import new_project, wine_version

from loopwright.deploy.parity import parity
from loopwright.errors import InvalidInput

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def test_without_kept_rows_there_is_nothing_to_compare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version registered by hand has no rows, and the error says so."""
    monkeypatch.delenv("LOOPWRIGHT_LEDGER", raising=False)
    project = new_project(tmp_path)
    wine_version(project)
    (project.scorer("wine", 1) / "replay.parquet").rename(tmp_path / "moved.parquet")
    manifest = project.scorer("wine", 1) / "scorer.json"
    facts = msgspec.json.decode(manifest.read_bytes())
    del facts["files"]["replay.parquet"]
    manifest.write_bytes(msgspec.json.encode(facts))
    with pytest.raises(InvalidInput, match="No rows are kept with wine/1"):
        parity(project, "wine", version=1)
