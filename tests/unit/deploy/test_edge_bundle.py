"""Edge bundles: what is inside, what is refused, and which damage is found."""

import base64
import hashlib
import json
import os
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from four_modes import (
    add_version,
    diabetes,
    diabetes_version,
    native_version,
    new_project,
    serve,
    wine,
    wine_version,
)
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from loopwright.config import Project
from loopwright.deploy import edge
from loopwright.deploy.edge import archive
from loopwright.errors import Damaged, GateNotMet, InvalidInput, NotFound
from loopwright.ledger import Ledger

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
Files = dict[str, bytes]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Return a project with wine/1 in an edge deployment; commands inside find it by the environment."""
    root = tmp_path_factory.mktemp("edge")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOOPWRIGHT_PROJECT", str(root))
        patch.delenv("LOOPWRIGHT_LEDGER", raising=False)
        project = new_project(root)
        wine_version(project)
        serve(project, "wine-edge", 1)
        yield project


@pytest.fixture(scope="module")
def bundled(project: Project) -> Path:
    """Return a bundle of what the edge deployment serves."""
    return edge.bundle(project, "wine-edge")


def own_key(project: Project) -> Ed25519PrivateKey:
    """Return the project's private key."""
    key = load_pem_private_key((project.state / "edge-key").read_bytes(), password=None)
    assert isinstance(key, Ed25519PrivateKey)
    return key


def signed(files: Files, key: Ed25519PrivateKey) -> Files:
    """Return the files with hashes, signature and public key made to fit: what only the key's owner can do."""
    manifest = json.loads(files["manifest.json"])
    for name in manifest["files"]:
        manifest["files"][name] = {
            "sha256": hashlib.sha256(files[name]).hexdigest(),
            "bytes": len(files[name]),
        }
    text = json.dumps(manifest).encode()
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return files | {
        "manifest.json": text,
        "manifest.sig": base64.b64encode(key.sign(text)),
        "signer.pub": public,
    }


def changed_manifest(files: Files, **facts: Any) -> Files:
    """Return the files with other facts in the manifest."""
    return files | {"manifest.json": json.dumps(json.loads(files["manifest.json"]) | facts).encode()}


def test_a_bundle_says_where_its_model_comes_from(project: Project, bundled: Path) -> None:
    """The manifest holds the lineage, the schema and the hash of every file, and the ledger knows the bundle."""
    files = archive.read(bundled)
    manifest = json.loads(files["manifest.json"])
    assert set(files) == {
        "manifest.json",
        "manifest.sig",
        "signer.pub",
        "model.onnx",
        "golden.json",
        "outbox.py",
        "predict.py",
    }
    assert (manifest["model"], manifest["version"], manifest["run_id"]) == ("wine", 1, "run-1")
    assert (manifest["dataset"], manifest["git_commit"]) == ("d" * 64, "c" * 40)
    assert manifest["signature"]["classes"] == ["anna", "bruno", "carla"]
    assert manifest["files"]["model.onnx"]["sha256"] == hashlib.sha256(files["model.onnx"]).hexdigest()
    assert len(json.loads(files["golden.json"])["rows"]) == 16
    assert sum(map(len, files.values())) - len(files["model.onnx"]) < 26_000
    event = Ledger.open(project).last("edge.bundled", "wine-edge")
    assert event is not None
    assert event.payload["sha256"] == hashlib.sha256(bundled.read_bytes()).hexdigest()


def test_a_good_bundle_holds(project: Project, bundled: Path) -> None:
    """Signature, hashes, expiry and golden rows all hold, and the report names the version and the signer."""
    report = edge.verify(bundled)
    assert (report.model, report.version, report.rows, report.label_flips) == ("wine", 1, 16, 0)
    assert report.max_difference <= 1e-5
    assert report.pinned
    assert stat.S_IMODE((project.state / "edge-key").stat().st_mode) == 0o600


def test_without_a_known_key_the_report_says_so(
    bundled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outside of a project the bundle's own key shows that it is whole, and the report does not claim more."""
    monkeypatch.delenv("LOOPWRIGHT_PROJECT")
    monkeypatch.chdir(tmp_path)
    report = edge.verify(bundled)
    assert not report.pinned
    assert "compared with no other" in str(report)


def wrong_key(files: Files, _project: Project) -> Files:
    """Sign everything anew with a key of one's own."""
    return signed(files, Ed25519PrivateKey.generate())


def expired(files: Files, project: Project) -> Files:
    """Let the owner sign a bundle that is out of date."""
    return signed(changed_manifest(files, expires="2026-01-01T00:00:00+00:00"), own_key(project))


def swapped_model(files: Files, _project: Project) -> Files:
    """Put another model below the signed manifest."""
    return files | {"model.onnx": files["model.onnx"][:-1] + b"\x00"}


def golden_mismatch(files: Files, project: Project) -> Files:
    """Let the owner sign a model with golden answers it does not give."""
    golden = json.loads(files["golden.json"])
    shares = golden["expected"][3]["probability"]
    golden["expected"][3]["probability"] = dict(zip(shares, reversed(shares.values()), strict=True))
    return signed(files | {"golden.json": json.dumps(golden).encode()}, own_key(project))


def edited_manifest(files: Files, _project: Project) -> Files:
    """Change the manifest and leave the signature."""
    return changed_manifest(files, version=7)


def missing_file(files: Files, _project: Project) -> Files:
    """Leave a file out that the manifest lists."""
    return {name: data for name, data in files.items() if name != "golden.json"}


def missing_signature(files: Files, _project: Project) -> Files:
    """Leave the signature out."""
    return {name: data for name, data in files.items() if name != "manifest.sig"}


def smuggled_file(files: Files, _project: Project) -> Files:
    """Add a file that the manifest does not list: Python would import it beside the predictor."""
    return files | {"numpy.py": b"print('mine')"}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (wrong_key, "not by the trusted key"),
        (expired, "expired on 2026-01-01"),
        (swapped_model, r"model\.onnx .* is not what was signed"),
        (golden_mismatch, "does not give its golden answers"),
        (edited_manifest, "signature does not hold"),
        (missing_file, r"has no golden\.json"),
        (missing_signature, r"has no manifest\.sig"),
        (smuggled_file, r"numpy\.py, which its manifest does not list"),
    ],
)
def test_a_bad_bundle_is_refused(
    damage: Callable[[Files, Project], Files], message: str, project: Project, bundled: Path, tmp_path: Path
) -> None:
    """Each kind of damage is found and named."""
    path = tmp_path / "bad.tar.gz"
    archive.write(path, damage(archive.read(bundled), project))
    with pytest.raises(Damaged, match=message):
        edge.verify(path)


def test_a_truncated_bundle_is_refused(bundled: Path, tmp_path: Path) -> None:
    """A bundle cut anywhere is refused, as is a file that is no bundle and one that is not there."""
    data = bundled.read_bytes()
    path = tmp_path / "short.tar.gz"
    for length in (0, 10, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(Damaged, match=r"truncated|no bundle|has no"):
            edge.verify(path)
    with pytest.raises(NotFound, match="There is no bundle"):
        edge.verify(tmp_path / "none.tar.gz")


def test_names_that_leave_the_folder_are_refused(tmp_path: Path) -> None:
    """A bundle is never unpacked to a place that it chooses."""
    path = tmp_path / "evil.tar.gz"
    with tarfile.open(path, "w:gz") as made:
        (tmp_path / "x").write_text("x")
        made.add(tmp_path / "x", arcname="../x")
    with pytest.raises(Damaged, match=r"\.\./x"):
        edge.verify(path)


def test_a_model_without_a_graph_is_refused_with_the_reason(project: Project) -> None:
    """A version that only runs natively is not bundled, and the message says why it does."""
    version = native_version(project).version
    with pytest.raises(
        InvalidInput, match=r"no ONNX graph \(it does not convert to ONNX \(float64: .*FunctionTransformer"
    ):
        edge.bundle(project, "wine", version)


def test_a_bundle_over_its_budget_is_refused(project: Project, tmp_path: Path) -> None:
    """The budget's size is held against all files together; nothing is written."""
    config = msgspec.toml.decode((project.root / "loopwright.toml").read_bytes())
    config["deployment"]["wine-edge"]["budget"] = {"size": "2kB"}
    small = Project(project.root, type(project.config).model_validate(config))
    out = tmp_path / "b.tar.gz"
    with pytest.raises(GateNotMet, match="more than its budget of 2000"):
        edge.bundle(small, "wine-edge", out=out)
    assert not out.exists()


def test_only_edge_deployments_and_models_are_bundled(project: Project) -> None:
    """A deployment of another mode and an unknown name say what can be bundled."""
    with pytest.raises(InvalidInput, match="mode batch"):
        edge.bundle(project, "wine-batch")
    with pytest.raises(NotFound, match="Did you mean 'wine-edge'"):
        edge.bundle(project, "wine-egde")


def test_a_regression_is_bundled_with_its_numbers(project: Project, tmp_path: Path) -> None:
    """Golden rows of a regression compare numbers; an expiry can be chosen."""
    diabetes_version(project)
    config = msgspec.toml.decode((project.root / "loopwright.toml").read_bytes())
    config["model"]["diabetes"] = {"target": "target"}
    both = Project(project.root, type(project.config).model_validate(config))
    path = edge.bundle(both, "diabetes", 1, tmp_path / "d.tar.gz", valid_for=timedelta(days=1))
    report = edge.verify(path)
    assert (report.rows, report.label_flips) == (16, 0)


def test_several_outputs_are_bundled(project: Project, tmp_path: Path) -> None:
    """A model with two targets answers each row with a list of two numbers on the device too."""
    table = diabetes().assign(twice=lambda frame: frame["target"] * 2)
    model = LinearRegression().fit(table.drop(columns=["target", "twice"]), table[["target", "twice"]])
    add_version(project, model, table, "target,twice", "both")
    config = msgspec.toml.decode((project.root / "loopwright.toml").read_bytes())
    config["model"]["both"] = {"target": "target,twice"}
    own = Project(project.root, type(project.config).model_validate(config))
    path = edge.bundle(own, "both", 1, tmp_path / "b.tar.gz")
    rows = json.loads(archive.read(path)["golden.json"])["expected"]
    assert [len(row["prediction"]) for row in rows] == [2] * 16
    assert edge.verify(path).rows == 16


def test_text_and_missing_values_reach_the_graph(project: Project, tmp_path: Path) -> None:
    """The bundled predictor feeds text and optional columns as the prepared scorer does."""
    table = wine().assign(region=lambda frame: pd.cut(frame["hue"], 3, labels=["a", "b", "c"]).astype(str))
    table.loc[::7, "region"] = None
    table = table[["region", "hue", "proline", "grower"]]
    encode = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["region"]), remainder="passthrough"
    )
    model = make_pipeline(encode, RandomForestClassifier(10, random_state=1))
    version = add_version(project, model.fit(table.drop(columns="grower"), table["grower"]), table).version
    assert edge.verify(edge.bundle(project, "wine", version, tmp_path / "t.tar.gz")).label_flips == 0


def test_the_bundled_predictor_says_what_is_wrong_with_a_row(bundled: Path, tmp_path: Path) -> None:
    """On the command line a wrong row ends with code 1 and the column's name, a good one with its answer."""
    for name, data in archive.read(bundled).items():
        (tmp_path / name).write_bytes(data)
    row = json.loads((tmp_path / "golden.json").read_text())["rows"][0]

    def call(body: Any) -> subprocess.CompletedProcess[str]:
        (tmp_path / "row.json").write_text(json.dumps(body))
        return subprocess.run(
            [sys.executable, "predict.py", "row.json"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": os.environ["PATH"]},
        )

    good = call(row)
    assert (good.returncode, json.loads(good.stdout)["prediction"]) in {
        (0, "anna"),
        (0, "bruno"),
        (0, "carla"),
    }
    missing = call({key: value for key, value in row.items() if key != "hue"})
    assert (missing.returncode, missing.stderr.strip()) == (1, "row 0: the column 'hue' is missing")
    wrong = call([row | {"hue": "red"}])
    assert "'red', which is no double" in wrong.stderr
