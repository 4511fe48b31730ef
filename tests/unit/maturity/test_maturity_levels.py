"""The maturity level follows from what the ledger and git hold, and from nothing else."""

import dataclasses
from pathlib import Path

import pytest
from mature_project import API, git, mature_project

from loopwright.config import Project
from loopwright.ledger import Ledger
from loopwright.maturity import DIMENSIONS, Assessment, Fact, assess
from loopwright.maturity.assessment import level_of
from loopwright.maturity.observed import Repository
from loopwright.records import DecisionRecord, Deployment, Mode, Release, Variant

FACTS = [
    "L1.1",
    "L1.2",
    "L1.3",
    "L1.4",
    "L1.5",
    "L1.6",
    "L2.1",
    "L2.2",
    "L2.3",
    "L2.4",
    "L2.5",
    "L2.6",
    "L2.8",
    "L2.9",
    "L3.1",
    "L3.2",
    "L3.3",
    "L3.4",
    "L3.6",
    "L3.7",
    "L4.1",
    "L4.2",
    "L4.4",
    "L4.9",
]


def judged(project: Project) -> Assessment:
    """Assess a project."""
    ledger = Ledger.open(project)
    try:
        return assess(project, ledger)
    finally:
        ledger.close()


def fact(found: Assessment, name: str) -> Fact:
    """Return one fact of an assessment."""
    return next(one for one in found.facts if one.id == name)


def test_a_project_with_all_facts_is_at_level_4(tmp_path: Path) -> None:
    """Every fact is observed, says by what, and nothing is missing."""
    found = judged(mature_project(tmp_path / "project"))
    assert {one.id: one.evidence for one in found.facts if one.ok is not True} == {}
    assert [one.id for one in found.facts] == FACTS
    assert all(one.evidence for one in found.facts)
    assert (found.level, found.missing) == (4, ())
    assert found.dimensions == dict.fromkeys(DIMENSIONS, 4)


@pytest.mark.parametrize("name", FACTS)
def test_without_one_fact_its_level_is_not_reached(tmp_path: Path, name: str) -> None:
    """The level is the one below the missing fact, and the fact names what to do."""
    found = judged(mature_project(tmp_path / "project", without=name))
    missing = fact(found, name)
    assert missing.ok is not True
    assert missing.command
    assert found.level == missing.level - 1
    assert missing in found.missing
    assert found.dimensions[missing.dimension] == missing.level - 1


def test_a_new_project_is_at_level_0(tmp_path: Path) -> None:
    """Without git, runs and deployments nothing is granted, and each fact still has its command."""
    (tmp_path / "loopwright.toml").write_text("")
    found = judged(Project(tmp_path))
    assert found.level == 0
    assert [one.id for one in found.facts if one.ok] == []
    assert all(one.command and one.evidence for one in found.facts)


def test_a_project_in_a_folder_of_a_repository_sees_what_is_shared(tmp_path: Path) -> None:
    """Workflows and CODEOWNERS at the top of the repository count for a project below it."""
    found = judged(mature_project(tmp_path / "repository", below="models/digits"))
    assert {one.id: one.evidence for one in found.facts if one.ok is not True} == {}


def test_levels_are_climbed_one_by_one() -> None:
    """A fact of a high level counts only when all lower ones hold, and unknown counts as missing."""
    held = [Fact(f"L{level}", level, "people", "", True, "", "") for level in range(1, 5)]
    assert level_of(held) == 4
    assert level_of([]) == 4
    for at, ok in ((0, False), (1, None), (3, False)):
        facts = [*held[:at], dataclasses.replace(held[at], ok=ok), *held[at + 1 :]]
        assert level_of(facts) == at


def test_what_is_put_into_service_by_hand_is_not_released(tmp_path: Path) -> None:
    """A version that no release promoted takes the level back to 2."""
    project = mature_project(tmp_path / "project")
    ledger = Ledger.open(project)
    served = Deployment(API, "digits", Mode.online, (Variant("champion", 3),))
    ledger.put("deployment", API, served, event="deployment.changed")
    ledger.append("scorer.prepared", "digits", {"version": 3, "replay_rows": 600})
    ledger.close()
    found = judged(project)
    assert fact(found, "L3.1").evidence == "by hand, forced or without a gate: digits/3"
    assert found.level == 2


def test_a_person_who_asks_for_a_release_is_no_signal(tmp_path: Path) -> None:
    """What a person writes as the reason grants nothing: who started the release is read from its event."""
    project = mature_project(tmp_path / "project")
    ledger = Ledger.open(project, actor="ada")
    last = ledger.last("decision")
    release = ledger.get("release", API)
    assert last is not None
    assert release is not None
    asked = dataclasses.replace(release.read(Release), id="r5", trigger="performance alert")
    ledger.put("release", API, asked, event="release.started")
    record = dataclasses.replace(last.read(DecisionRecord), release="r5", trigger="performance alert")
    ledger.append("decision", API, record)
    ledger.close()
    assert fact(judged(project), "L4.4").ok is False


@pytest.mark.parametrize(
    ("rules", "owners"),
    [
        ("* @a", ("@a",)),
        ("* @a\n*.toml @b @c # settings", ("@b", "@c")),
        ("/models/ @a", ("@a",)),
        ("models/digits @a", ("@a",)),
        ("/digits/ @a", ()),
        ("docs/* @a", ()),
        ("* @a\nloopwright.toml", ()),
    ],
)
def test_owners_are_those_of_the_last_rule_that_matches(
    tmp_path: Path, rules: str, owners: tuple[str, ...]
) -> None:
    """As code hosts read CODEOWNERS: later rules win, and one without owners takes ownership away."""
    root = tmp_path / "models" / "digits"
    root.mkdir(parents=True)
    (root / "loopwright.toml").write_text("")
    (tmp_path / "CODEOWNERS").write_text(f"# who\n{rules}\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-q", "-m", "Start")
    assert Repository.of(Project(root)).owners == owners
