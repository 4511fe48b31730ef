"""The frozen records that packages hand to each other and keep in the ledger.

Standard library only, so that every package may import it at no cost. Times are UTC-aware datetimes; ids are text;
nothing here knows how it is stored.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Literal

__all__ = [
    "Alert",
    "Answer",
    "Column",
    "DatasetRef",
    "DecisionRecord",
    "Deployment",
    "GateResult",
    "Judged",
    "Label",
    "Mode",
    "ModelVersion",
    "PipelineRun",
    "Prediction",
    "Release",
    "ReleaseState",
    "Signal",
    "Signature",
    "Silence",
    "StepRun",
    "Task",
    "Variant",
    "Verdict",
    "Window",
    "micros",
    "moment",
    "now",
]

#: Types a column of a signature can have: MLflow's names.
ColumnType = Literal["boolean", "integer", "long", "float", "double", "string", "datetime"]
#: One value of a class label, of a row's field, or of late ground truth.
Scalar = bool | int | float | str
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def now() -> datetime:
    """Return the present moment, UTC-aware."""
    return datetime.now(UTC)


def micros(at: datetime) -> int:
    """Return a moment in microseconds since 1970 UTC."""
    return (at - _EPOCH) // timedelta(microseconds=1)


def moment(us: int) -> datetime:
    """Return the UTC moment of microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=us)


class Mode(StrEnum):
    """How rows reach a deployment and how predictions leave it."""

    online = "online"
    batch = "batch"
    stream = "stream"
    edge = "edge"


class Task(StrEnum):
    """What a model predicts."""

    classification = "classification"
    regression = "regression"


@dataclass(frozen=True, slots=True)
class Column:
    """One input of a model. A column that is not `required` may be missing or null."""

    name: str
    type: ColumnType
    required: bool = True


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model takes and gives.

    `classes` holds the class labels in the order of the probability columns, and is empty for a regression.
    `target` is the name of the column the model predicts, as it is called in the training data. `outputs` names what
    a model with several outputs gives for each row, such as three quantiles or two targets; it is empty for all others.
    """

    inputs: tuple[Column, ...]
    task: Task
    target: str = "target"
    classes: tuple[Scalar, ...] = ()
    outputs: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The input names in the model's order."""
        return tuple(column.name for column in self.inputs)


@dataclass(frozen=True, slots=True)
class DatasetRef:
    """A dataset as it was at one moment: its content hash and where the snapshot lies.

    `digest` is the fingerprint of the content (independent of file layout); `source_digest` is the SHA-256 of the
    source file's bytes, empty when the source is not a file.
    """

    name: str
    digest: str
    rows: int
    columns: tuple[str, ...]
    source: str
    source_digest: str = ""
    snapshot: str = ""
    created: datetime = field(default_factory=now)


@dataclass(frozen=True, slots=True)
class StepRun:
    """One call of a step in one pipeline run. Digests name the datasets that went in and came out.

    `status` is `cached` where a kept result was used again. `began` is in seconds since the run's start; `number` counts
    the calls from 0, and `after` has the numbers of those whose results went in. `note` says what was not as usual.
    """

    name: str
    code_digest: str
    status: Literal["completed", "cached", "failed"]
    seconds: float
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    number: int = 0
    began: float = 0.0
    after: tuple[int, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class PipelineRun:
    """One run of a pipeline: one MLflow run and one Prefect flow run, linked.

    `resumed` is the run whose kept results this one went on from.
    """

    pipeline: str
    run_id: str
    flow_run_id: str
    status: Literal["running", "completed", "failed", "cancelled"]
    started: datetime
    seconds: float = 0.0
    parameters: dict[str, Any] = field(default_factory=dict)
    steps: tuple[StepRun, ...] = ()
    datasets: tuple[DatasetRef, ...] = ()
    git_commit: str = ""
    git_dirty: bool = False
    diff_digest: str = ""
    lock_digest: str = ""
    python: str = ""
    seed: int | None = None
    trigger: str = ""
    error: str = ""
    resumed: str = ""


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A registered model version and everything needed to trace it.

    `digest` is the SHA-256 over the model's files; `uri` is where they lie; `training` is the dataset it was fitted
    on. The fields that a version registered by hand cannot know are empty.
    """

    model: str
    version: int
    run_id: str
    uri: str
    digest: str = ""
    signature: Signature | None = None
    training: DatasetRef | None = None
    replay_rows: int = 0
    created: datetime = field(default_factory=now)

    @property
    def ref(self) -> str:
        """The version as people write it, such as ``digits/3``."""
        return f"{self.model}/{self.version}"


@dataclass(frozen=True, slots=True)
class Variant:
    """One model version inside a deployment, with the share of entities it gets (0 to 1).

    A `shadow` answers nobody: it scores the same rows after the answer went out, and its predictions are logged apart
    under the same ids. Its weight is 0.
    """

    name: str
    version: int
    weight: float = 1.0
    shadow: bool = False


@dataclass(frozen=True, slots=True)
class Deployment:
    """What a deployment serves at this moment; serving processes follow it without a restart.

    `salt` fixes the sticky assignment of entities to variants; a new release takes a new salt.
    """

    name: str
    model: str
    mode: Mode
    variants: tuple[Variant, ...]
    salt: str = ""
    release: str = ""
    changed: datetime = field(default_factory=now)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a caller gets back for one row."""

    prediction_id: str
    prediction: Scalar
    probability: tuple[float, ...] | None
    model: str
    version: int
    variant: str


@dataclass(frozen=True, slots=True)
class Prediction:
    """One logged prediction, read back from the log."""

    prediction_id: str
    at: datetime
    deployment: str
    model: str
    version: int
    variant: str
    propensity: float
    entity: str
    latency_ms: float
    inputs: dict[str, Any]
    prediction: Scalar
    probability: tuple[float, ...] | None = None
    actual: Scalar | None = None
    labelled: datetime | None = None


@dataclass(frozen=True, slots=True)
class Label:
    """Ground truth for one prediction. The one received last wins.

    It names its prediction by `prediction_id`; or, where that is empty, by `deployment` and `entity`: it then belongs to
    the entity's last prediction at or before `at`, no older than `within_s` seconds. `at` is when it was true.
    """

    prediction_id: str
    actual: Scalar
    at: datetime = field(default_factory=now)
    deployment: str = ""
    entity: str = ""
    within_s: float = 86400.0


@dataclass(frozen=True, slots=True)
class Window:
    """A span of event time, start included, end excluded."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Signal:
    """The outcome of one check on one window.

    `value` is the effect (a PSI, an accuracy, an RMSE), `limit` what it was held against, `rows` the sample size, `lower`
    and `upper` the 95 % interval of the value where there is one. `subject` is what it is about: a column, a metric, a
    KPI. `segment` is the part of the rows it was computed over, such as ``region=north``; empty for all of them.
    `fired` says whether this window alone looks wrong; an alert needs more than one window.
    """

    check: str
    model: str
    deployment: str
    window: Window
    value: float
    limit: float
    rows: int
    fired: bool
    subject: str = ""
    version: int = 0
    detail: dict[str, Any] = field(default_factory=dict)
    segment: str = ""
    lower: float | None = None
    upper: float | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """One window of one deployment, as the checks of one phase found it.

    `state` is ``judged``; ``immature`` while labels are on the way; ``overdue`` when they did not come in time and the
    window was given up; ``empty`` without a row. `maturity` is the share of the labels expected in the end that has
    arrived, None where nothing is known of them.
    """

    deployment: str
    model: str
    phase: Literal["inputs", "labels"]
    version: int
    window: Window
    state: Literal["judged", "immature", "overdue", "empty"]
    rows: int = 0
    labelled: int = 0
    maturity: float | None = None
    fired: int = 0
    failed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Alert:
    """Something is wrong, for long enough to say so.

    `id` is the same for the same trouble: deployment, version, check, subject and segment. `event` is the ledger's event
    that opened it, `by` who acknowledged it, `advice` what to do next, `escalated` when it was told further because nobody
    did anything about it.
    """

    id: str
    check: str
    model: str
    deployment: str
    state: Literal["open", "acknowledged", "resolved"]
    since: datetime
    message: str
    value: float
    limit: float
    subject: str = ""
    event: int = 0
    version: int = 0
    segment: str = ""
    rows: int = 0
    severity: Literal["info", "warning", "critical"] = "warning"
    advice: str = ""
    by: str = ""
    changed: datetime | None = None
    detail: dict[str, Any] = field(default_factory=dict)
    escalated: datetime | None = None


@dataclass(frozen=True, slots=True)
class Silence:
    """No message is sent, until a moment, of alerts whose fields match. Alerts still open.

    Fields are compared as in a shell: ``drift``, ``region=*``. Empty ones match all.
    """

    id: str
    until: datetime
    by: str
    reason: str = ""
    model: str = ""
    deployment: str = ""
    check: str = ""
    subject: str = ""
    segment: str = ""
    created: datetime = field(default_factory=now)


@dataclass(frozen=True, slots=True)
class GateResult:
    """Candidate against champion on the same rows.

    `estimate` is the mean of (candidate loss - champion loss) per row with its confidence interval; the gate is met
    when `upper` is below `margin`. Without a champion the gate only asks that the candidate scores the rows.
    """

    passed: bool
    metric: str
    candidate: float
    champion: float | None
    estimate: float
    lower: float
    upper: float
    margin: float
    rows: int
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the release test says at one look. Differences are candidate minus champion, in units of loss."""

    decision: Literal["promote", "rollback", "continue"]
    method: str
    alpha: float
    margin: float
    estimate: float
    lower: float
    upper: float
    champion_rows: int
    candidate_rows: int
    looks: int
    reason: str


class ReleaseState(StrEnum):
    """Where a release is."""

    training = "training"
    evaluating = "evaluating"
    canary = "canary"
    promoted = "promoted"
    rolled_back = "rolled_back"
    rejected = "rejected"
    failed = "failed"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self in {
            ReleaseState.promoted,
            ReleaseState.rolled_back,
            ReleaseState.rejected,
            ReleaseState.failed,
        }


@dataclass(frozen=True, slots=True)
class Release:
    """One attempt to replace a champion, from its trigger to its end."""

    id: str
    model: str
    deployment: str
    state: ReleaseState
    trigger: str
    started: datetime
    changed: datetime
    trigger_event: int = 0
    flow_run_id: str = ""
    run_id: str = ""
    champion: int | None = None
    candidate: int | None = None
    step: int = 0
    steps: tuple[float, ...] = ()
    gate: GateResult | None = None
    verdict: Verdict | None = None
    forced: bool = False
    attempts: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """The one record of why a model was or was not replaced; written once, when a release ends."""

    release: str
    model: str
    deployment: str
    decision: Literal["promoted", "rolled_back", "rejected", "failed"]
    trigger: str
    trigger_event: int
    champion: int | None
    candidate: int | None
    run_id: str
    flow_run_id: str
    dataset: str
    gate: GateResult | None
    verdict: Verdict | None
    started: datetime
    ended: datetime
    forced: bool
    reason: str


def to_plain(record: Any) -> Any:
    """Return a record as plain dictionaries and lists, with times and enums left as they are."""
    return dataclasses.asdict(record)
