"""What is looked at once for all facts: what serves now and where it came from, decisions, and the repository."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from loopwright.config import FILE, Project
from loopwright.ledger import Event, Ledger
from loopwright.lineage.environment import git
from loopwright.records import DecisionRecord, Deployment, ModelVersion, PipelineRun, now

__all__ = ["Live", "Observed", "Repository"]


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
    """The git repository around the project; `files` are the tracked ones below the project's folder."""

    commit: str
    commits: int
    files: frozenset[str]
    authors: frozenset[str]

    @classmethod
    def of(cls, project: Project) -> Repository:
        """Look at the repository; everything is empty outside of one."""
        commit = (git(project.root, "rev-parse", "HEAD") or "").strip()
        if not commit:
            return cls("", 0, frozenset(), frozenset())
        files = (git(project.root, "ls-files", "-z") or "").split("\0")
        above = (git(project.root, "ls-files", "-z", "--full-name", ":/.github", ":/CODEOWNERS") or "").split(
            "\0"
        )
        authors = (
            git(project.root, "log", "--format=%ae", "-n", "2000", "--", *code_of(project)) or ""
        ).split()
        count = (git(project.root, "rev-list", "--count", "HEAD") or "0").strip()
        return cls(commit, int(count), frozenset({*files, *above} - {""}), frozenset(authors))


def code_of(project: Project) -> list[str]:
    """Return the files in which the project's pipelines are written."""
    modules = {model.pipeline.partition(":")[0] for model in project.config.model.values() if model.pipeline}
    return sorted(f"{module.replace('.', '/')}.py" for module in modules)


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything the facts are judged by, read at the moment `at`."""

    project: Project
    ledger: Ledger
    at: datetime
    repository: Repository
    live: tuple[Live, ...]
    decisions: tuple[tuple[Event, DecisionRecord], ...]

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
        return cls(project, ledger, now(), Repository.of(project), live, decisions)

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
