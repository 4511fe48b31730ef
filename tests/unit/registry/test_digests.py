"""Hashes of files and folders."""

import hashlib
from pathlib import Path

from loopwright.lineage.digests import digest_of, file_digest


def test_file_digest_is_sha256(tmp_path: Path) -> None:
    """A file's digest is the SHA-256 of its bytes."""
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    assert file_digest(tmp_path / "a") == hashlib.sha256(b"x" * 3_000_000).hexdigest()


def test_folder_digest_sees_names_contents_and_nesting(tmp_path: Path) -> None:
    """A folder's digest changes with a name, a content or a place, and with nothing else."""
    for name in ("one", "two"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "b").write_text("b")
        (tmp_path / name / "a").write_text("a")
    (tmp_path / "two" / "empty").mkdir()
    first = digest_of(tmp_path / "one")
    assert digest_of(tmp_path / "two") == first
    (tmp_path / "two" / "a").write_text("c")
    changed = digest_of(tmp_path / "two")
    (tmp_path / "two" / "a").write_text("a")
    (tmp_path / "two" / "a").rename(tmp_path / "two" / "z")
    renamed = digest_of(tmp_path / "two")
    (tmp_path / "two" / "z").rename(tmp_path / "two" / "deep" / "a")
    moved = digest_of(tmp_path / "two")
    assert len({first, changed, renamed, moved}) == 4


def test_the_note_of_mlflow_does_not_count(tmp_path: Path) -> None:
    """Loading a registered model with MLflow leaves a note in its folder, which is no change of the model."""
    (tmp_path / "MLmodel").write_text("flavors: {}")
    before = digest_of(tmp_path)
    (tmp_path / "registered_model_meta").write_text("model_name: m")
    assert digest_of(tmp_path) == before
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "registered_model_meta").write_text("one of the user's own")
    assert digest_of(tmp_path) != before
