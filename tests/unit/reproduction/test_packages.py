"""The packages of a run: built from its lock, once, and taken from where they are when nothing has changed."""

import hashlib
import subprocess
from pathlib import Path

import pytest

from loopwright.config import Project
from loopwright.errors import Unavailable
from loopwright.lineage import capture
from loopwright.lineage.environment import keep, keep_text, stored
from loopwright.records import PipelineRun, now
from loopwright.reproduction.packages import Packages, build, present
from loopwright.reproduction.sources import Sources
from loopwright.reproduction.subject import Subject


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return a project without a lock file."""
    (tmp_path / "loopwright.toml").write_text("")
    return Project(tmp_path)


def sources(project: Project) -> Sources:
    """Return the project's own files as the sources."""
    return Sources(project.root, project.root, project.root, "the present files")


def subject(project: Project, lock: str = "", *, python: str = "", source: str = "") -> Subject:
    """Return a run with a lock, by default that of today."""
    here = capture(project)
    keep(project, here)
    digest = hashlib.sha256(lock.encode()).hexdigest() if lock else here.lock_digest
    if lock:
        keep_text(stored(project, digest, "lock"), lock)
    run = PipelineRun(
        "pipelines:train", "5" * 32, "", "completed", now(), lock_digest=digest, python=python or here.python
    )
    local = {} if lock else here.local
    return Subject(run, (), {}, {"lock_source": source or "installed distributions", "local": local})


def built(project: Project, run: Subject) -> tuple[Packages, list[str]]:
    """Build an environment and return it with what was said meanwhile, or skip where nothing can be fetched."""
    said: list[str] = []
    try:
        return build(project, run, sources(project), said.append), said
    except Unavailable as error:
        if any(word in str(error) for word in ("connect", "dns error", "network", "timed out")):
            pytest.skip("packages cannot be fetched: no network")
        raise


def test_the_same_lock_and_python_are_the_present_environment(project: Project) -> None:
    """Another lock or Python is not, unless it is asked for, and then both differences are named."""
    found = present(project, subject(project), sources(project), asked=False)
    assert found is not None
    assert (found.differences, found.text) == ((), "the present ones, with the same lock")
    other = subject(project, "six==1.16.0\n", python="3.8.1")
    assert present(project, other, sources(project), asked=False) is None
    found = present(project, other, sources(project), asked=True)
    assert found is not None
    assert len(found.differences) == 2
    assert "it was 3.8.1" in found.differences[1]


def test_an_environment_is_built_once(project: Project) -> None:
    """With exactly the packages of the list and the Loopwright that is at hand; a Python that is not here is replaced."""
    run = subject(project, "idna==3.10\nsix==1.16.0\n")
    found, said = built(project, run)
    assert found.differences == ()
    code = "import six, idna, loopwright; print(six.__version__, idna.__version__, loopwright.__version__)"
    done = subprocess.run([found.python, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[:2] == ["1.16.0", "3.10"]
    assert said == [f"building 3 packages for Python {run.run.python}"]
    again, said = built(project, run)
    assert again == found
    assert said == [f"packages built before, {found.python.parent.parent.relative_to(project.root)}"]


def test_what_cannot_be_built_shows_the_words_of_uv(project: Project) -> None:
    """A version that does not exist; the way out is named."""
    with pytest.raises(Unavailable, match=r"six==0\.0\.99") as caught:
        built(project, subject(project, "six==0.0.99\n"))
    assert "--same-environment" in caught.value.hint
