"""What is looked at once for all facts: what serves now and where it came from, decisions, and the repository."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase

from loopwright.config import FILE, Project
from loopwright.ledger import Event, Ledger
from loopwright.lineage.environment import git
from loopwright.pipelines.entrypoints import source_file
from loopwright.records import DecisionRecord, Deployment, ModelVersion, PipelineRun, now

__all__ = ["CODEOWNERS", "Live", "Observed", "Repository"]

#: Who is written beside the events of the part that starts releases by itself.
CONTROLLER = "controller"
#: Where a file of code owners can be, from the top of the repository.
CODEOWNERS = ("CODEOWNERS", ".github/CODEOWNERS", "docs/CODEOWNERS")
#: Files of a repository that count wherever in it the project is.
_SHARED = (
    *CODEOWNERS,
    ".github/workflows",
    ".gitlab-ci.yml",
    ".circleci",
    "Jenkinsfile",
    "azure-pipelines.yml",
)


@dataclass(frozen=True, slots=True)
class Live:
    """A version that serves, as champion of a deployment, with its registration and its run where they are known."""

    deployment: Deployment
    number: int
    version: ModelVersion | None
    run: PipelineRun | None

    @property
    def ref(self) -> str:
        """The version as people write it, such as ``digits/3``."""
        return f"{self.deployment.model}/{self.number}"


@dataclass(frozen=True, slots=True)
class Repository:
    """The git repository around the project.

    `files` are the committed ones below the project's folder, and those at the top that count for all projects in it;
    `folder` is the project's place in the repository, such as ``models/digits/``, empty at its top. `authors` wrote
    the pipelines, `deciders` wrote `loopwright.toml`; `owners` are named for it in CODEOWNERS.
    """

    commit: str
    commits: int
    folder: str
    files: frozenset[str]
    authors: frozenset[str]
    deciders: frozenset[str]
    owners: tuple[str, ...]

    @classmethod
    def of(cls, project: Project) -> Repository:
        """Look at the repository; everything is empty outside of one."""
        commit = (git(project.root, "rev-parse", "HEAD") or "").strip()
        if not commit:
            return cls("", 0, "", frozenset(), frozenset(), frozenset(), ())
        folder = (git(project.root, "rev-parse", "--show-prefix") or "").strip()
        # What the commit holds, not the index: a file that is only staged is in nobody else's copy.
        tree = ("ls-tree", "-r", "-z", "--name-only")
        files = (git(project.root, *tree, "HEAD") or "").split("\0")
        above = (git(project.root, *tree, "--full-tree", "HEAD", *_SHARED) or "").split("\0")
        count = (git(project.root, "rev-list", "--count", "HEAD") or "0").strip()
        return cls(
            commit=commit,
            commits=int(count),
            folder=folder,
            files=frozenset({*files, *above} - {""}),
            authors=_authors(project, code_of(project)),
            deciders=_authors(project, [FILE]),
            owners=_owners(project, f"{folder}{FILE}"),
        )


def _authors(project: Project, files: list[str]) -> frozenset[str]:
    if not files:
        return frozenset()
    return frozenset((git(project.root, "log", "--format=%ae", "-n", "2000", "--", *files) or "").split())


def _owners(project: Project, path: str) -> tuple[str, ...]:
    """Return who owns a file by the committed CODEOWNERS: the last pattern that matches it decides."""
    found: tuple[str, ...] = ()
    texts = (git(project.root, "show", f"HEAD:{place}") for place in CODEOWNERS)
    for line in next((text for text in texts if text is not None), "").splitlines():
        pattern, *owners = line.partition("#")[0].split() or [""]
        if pattern and _matches(pattern, path):
            found = tuple(owners)
    return found


def _matches(pattern: str, path: str) -> bool:
    """Whether a pattern of CODEOWNERS, in gitignore's language, covers a file or a folder above it."""
    parts = path.split("/")
    if "/" not in pattern.rstrip("/"):
        return any(fnmatchcase(part, pattern.rstrip("/")) for part in parts)
    above = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
    return any(fnmatchcase(one, pattern.strip("/")) for one in above)


def code_of(project: Project) -> list[str]:
    """Return the files in which the project's pipelines are written."""
    entrypoints = {model.pipeline for model in project.config.model.values() if model.pipeline}
    files = {source_file(project, entrypoint) for entrypoint in entrypoints}
    return sorted(file.relative_to(project.root).as_posix() for file in files)


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything the facts are judged by, read at the moment `at`. `automatic` are the releases that nobody asked for."""

    project: Project
    ledger: Ledger
    at: datetime
    repository: Repository
    live: tuple[Live, ...]
    decisions: tuple[tuple[Event, DecisionRecord], ...]
    automatic: frozenset[str]

    @classmethod
    def of(cls, project: Project, ledger: Ledger) -> Observed:
        """Read the ledger and the repository."""
        live = tuple(
            _live(ledger, state.read(Deployment))
            for state in ledger.states("deployment")
            if state.key in project.config.deployment
        )
        events = ledger.events("decision", newest=True, limit=200)
        decisions = tuple((event, event.read(DecisionRecord)) for event in events)
        started = ledger.events("release.started", newest=True, limit=1000)
        automatic = frozenset(event.payload["id"] for event in started if event.actor == CONTROLLER)
        return cls(project, ledger, now(), Repository.of(project), live, decisions, automatic)

    @property
    def example(self) -> str:
        """A deployment to name in a command: one that serves, else a declared one."""
        names = [live.deployment.name for live in self.live] or list(self.project.config.deployment)
        return names[0] if names else "DEPLOYMENT"

    @property
    def model(self) -> str:
        """A model to name in a command."""
        return next(iter(self.project.config.model), "MODEL")

    @property
    def code(self) -> list[str]:
        """The files that make the project: its pipelines and `loopwright.toml`."""
        return [FILE, *code_of(self.project)]

    def by_system(self, run: PipelineRun) -> bool:
        """Whether a schedule or a release that started by itself asked for a run. A release names itself at the end."""
        release = re.search(r"\(([^()]+)\)$", run.trigger)
        return run.trigger.startswith("schedule") or (release is not None and release[1] in self.automatic)

    def promoted(self) -> list[DecisionRecord]:
        """Return the promotions, oldest first."""
        return [record for _, record in self.decisions if record.decision == "promoted"]


def _live(ledger: Ledger, deployment: Deployment) -> Live:
    named = [one for one in deployment.variants if one.name == "champion"]
    number = (named or list(deployment.variants))[0].version
    state = ledger.get("model_version", f"{deployment.model}/{number}")
    version = state.read(ModelVersion) if state else None
    run = ledger.get("pipeline_run", version.run_id) if version and version.run_id else None
    return Live(deployment, number, version, run.read(PipelineRun) if run else None)
