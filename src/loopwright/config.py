"""`loopwright.toml`: the loop, declared and checked; and the project folder it lives in.

Every key is typed. A wrong one is reported with the file, the line, the key and what would be right. The same objects
can be built in Python: ``Config(model={"bike": ModelConfig(pipeline="pipelines:train", target="count")})``.
"""

import os
import re
import tomllib
import typing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pydantic
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from loopwright.errors import Denied, InvalidConfig, NotFound, listing, nearest
from loopwright.records import Mode

__all__ = [
    "METRICS",
    "WATCHED",
    "AlertsConfig",
    "BudgetConfig",
    "Config",
    "DeploymentConfig",
    "DriftConfig",
    "GateConfig",
    "KpiConfig",
    "LabelSourceConfig",
    "LogConfig",
    "ModelConfig",
    "MonitorConfig",
    "PerformanceConfig",
    "Project",
    "QualityConfig",
    "ReleaseConfig",
    "RunnerConfig",
    "ScheduleConfig",
    "ServerConfig",
    "ServiceConfig",
    "ServingConfig",
    "SloConfig",
    "StoreConfig",
    "parse_duration",
    "parse_rate",
]

FILE = "loopwright.toml"
STATE = ".loopwright"
#: Points every command and every part of the system at one project folder.
PROJECT_VARIABLE = "LOOPWRIGHT_PROJECT"

_DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d|w)\s*$")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_SIZE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(B|kB|KB|MB|GB)\s*$")
_BYTES = {"B": 1, "kB": 1000, "KB": 1000, "MB": 1000**2, "GB": 1000**3}
#: Kinds of news in the ledger, and files, that a schedule can wait for.
NEWS = ("alert", "dataset", "file", "model", "pipeline")
_EXPECTATION = re.compile(r"^\s*(>=|<=|==|>|<)\s*(-?\d+(?:\.\d+)?)\s*$")
#: What a parameter of a schedule can ask for, as in "{start}" or "{start:%Y-%m-%d}".
PLACEHOLDER = re.compile(r"\{(\w+)(?::([^{}]*))?\}")
PLACEHOLDERS = ("start", "end", "time", "date", "what")
#: Metrics of one window or one gate, and which way is better.
METRICS: dict[str, Literal["higher", "lower"]] = {
    "accuracy": "higher",
    "f1": "higher",
    "log_loss": "lower",
    "mae": "lower",
    "rmse": "lower",
}
#: Metrics that only monitors know: they are no mean of a loss per row.
WATCHED: dict[str, Literal["higher", "lower"]] = METRICS | {
    "average_precision": "higher",
    "balanced_accuracy": "higher",
    "brier": "lower",
    "calibration_error": "lower",
    "mape": "lower",
    "median_absolute_error": "lower",
    "precision": "higher",
    "r2": "higher",
    "recall": "higher",
    "roc_auc": "higher",
}
#: Per-row losses a release can compare; lower is better.
LOSSES = ("error", "absolute_error", "squared_error", "log_loss")


def parse_duration(text: str | timedelta) -> timedelta:
    """Read a span such as ``"10s"``, ``"5m"``, ``"2h"`` or ``"7d"``.

    Raises
    ------
    ValueError
        The text is no positive number with one of the units ms, s, m, h, d, w.
    """
    if isinstance(text, timedelta):
        return text
    match = _DURATION.match(str(text))
    if not match or float(match[1]) <= 0:
        raise ValueError(
            f"{text!r} is no duration: write a number and a unit, such as '30s', '5m', '2h' or '7d'"
        )
    return timedelta(seconds=float(match[1]) * _SECONDS[match[2]])


def _parse_size(text: str | int) -> int:
    if isinstance(text, int):
        return text
    match = _SIZE.match(text)
    if not match:
        raise ValueError(f"{text!r} is no size: write a number and a unit, such as '500kB' or '5MB'")
    return int(float(match[1]) * _BYTES[match[2]])


def _check_cron(text: str) -> str:
    from cronsim import CronSim, CronSimError

    right = "five fields: minute 0-59, hour 0-23, day 1-31, month 1-12, weekday 0-7, such as '0 2 * * *' (02:00 each day)"
    if len(text.split()) != 5:
        raise ValueError(f"{text!r} is no cron expression: it has {len(text.split())} fields. Write {right}")
    try:
        next(CronSim(text, datetime(2024, 1, 1, tzinfo=UTC)))
    except CronSimError as error:
        what = str(error).lower().removeprefix("bad ")
        raise ValueError(f"{text!r} is no cron expression: its {what} cannot be. Write {right}") from None
    except StopIteration:
        raise ValueError(f"{text!r} never comes. Write {right}") from None
    return text


def _check_zone(name: str) -> str:
    try:
        return ZoneInfo(name).key
    except (ValueError, OSError, ZoneInfoNotFoundError):
        raise ValueError(f"{name!r} is no time zone: write one such as 'UTC' or 'Europe/Berlin'") from None


def _check_interval(every: timedelta) -> timedelta:
    if every < timedelta(seconds=1):
        raise ValueError(f"every = {every.total_seconds():g} s is too often: at least '1s'")
    return every


def _check_news(text: str) -> str:
    kind, _, name = (part.strip() for part in text.partition(":"))
    if kind not in NEWS or not name:
        close = nearest(kind, NEWS)
        raise ValueError(
            f"{text!r} is nothing to wait for. {f'Did you mean {close!r}? ' if close else ''}"
            "Write 'dataset: <name>', 'file: <pattern>', 'model: <name>', 'alert: <model>' or 'pipeline: <module>:<function>'"
        )
    return f"{kind}: {name}"


def _check_expectation(text: str) -> str:
    if not _EXPECTATION.match(text):
        raise ValueError(f"{text!r} is no expectation: write a comparison, such as '>0' or '<=0.25'")
    return text


def _check_placeholders(value: Any) -> Any:
    # A text that is one placeholder and nothing else: braces may mean something else to the pipeline.
    found = PLACEHOLDER.fullmatch(value) if isinstance(value, str) else None
    if found and found[1] not in PLACEHOLDERS:
        close = nearest(found[1], PLACEHOLDERS)
        guess = f"Did you mean {{{close}}}? " if close else ""
        known = listing(f"{{{name}}}" for name in PLACEHOLDERS)
        raise ValueError(f"{value!r} is nothing that a run has. {guess}Known: {known}")
    return value


def _check_trigger(text: str) -> str:
    kind, _, rest = (part.strip() for part in text.partition(":"))
    if kind == "schedule":
        _check_cron(rest)
    elif kind == "labels":
        if not rest.isdigit() or int(rest) < 1:
            raise ValueError(f"{text!r}: write how many new labels start a training, such as 'labels: 5000'")
    elif kind not in {"performance", "kpi"} or rest:
        raise ValueError(
            f"{text!r} is no trigger. Valid: 'performance', 'kpi', 'schedule: <cron>', 'labels: <number>'. "
            "Drift only proposes a training and cannot be listed here"
        )
    return text


def _check_entrypoint(text: str) -> str:
    module, _, attribute = text.partition(":")
    if not module or not attribute.isidentifier():
        raise ValueError(f"{text!r} is no pipeline: write '<module>:<function>', such as 'pipelines:train'")
    return text


def parse_rate(text: str) -> tuple[int, float]:
    """Read a rate such as ``"100/s"``, ``"600/m"`` or ``"10000/h"``: how many, in how many seconds.

    Raises
    ------
    ValueError
        The text is no whole number, a slash and one of s, m, h.
    """
    match = re.match(r"^\s*(\d+)\s*/\s*(s|m|min|h)\s*$", text)
    if not match or int(match[1]) < 1:
        raise ValueError(
            f"{text!r} is no rate: write how many in a second, minute or hour, such as '100/s', '600/m'"
        )
    return int(match[1]), float(_SECONDS[match[2]])


def _check_rate(text: str) -> str:
    parse_rate(text)
    return text


def _check_database(text: str) -> str:
    if text and not re.match(r"^postgres(ql)?://[^/]*/[^/?]+", text):
        raise ValueError(
            f"{text!r} is no PostgreSQL database: write 'postgresql://user:password@host:5432/name'"
        )
    return text.replace("postgres://", "postgresql://", 1)


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
Size = Annotated[int, BeforeValidator(_parse_size)]
Cron = Annotated[str, AfterValidator(_check_cron)]
Zone = Annotated[str, AfterValidator(_check_zone)]
Interval = Annotated[Duration, AfterValidator(_check_interval)]
News = Annotated[str, AfterValidator(_check_news)]
Expectation = Annotated[str, AfterValidator(_check_expectation)]
RunParameter = Annotated[Any, AfterValidator(_check_placeholders)]
Trigger = Annotated[str, AfterValidator(_check_trigger)]
Entrypoint = Annotated[str, AfterValidator(_check_entrypoint)]
Rate = Annotated[str, AfterValidator(_check_rate)]
Share = Annotated[float, Field(gt=0, le=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class ProjectConfig(_Section):
    """`[project]`: what the project is called."""

    name: str = ""


class ServingConfig(_Section):
    """`[serving]`: the processes behind all online deployments.

    `port` 0 takes a free one, once, and keeps it. `durability` says what an acknowledged prediction survives:
    `process` a killed process, `power` a power cut (each group is synced to the disk before the answer).

    What cannot be taken is refused at once: `queue_rows` and `queue_bytes` bound what waits in one worker, `max_body`
    one body, `body_timeout` how long it may take to arrive, `rate_limit` (such as ``"100/s"``) the requests of one key,
    or of one address where no key is sent. `access_log` writes one JSON line for each request; `traces` is the address
    of an OpenTelemetry collector, such as ``http://127.0.0.1:4318``.
    """

    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65535)
    workers: int = Field(default=1, ge=1, le=64)
    durability: Literal["process", "power"] = "process"
    max_body: Size = 16 * 1000**2
    body_timeout: Duration = timedelta(seconds=60)
    queue_rows: int = Field(default=50_000, ge=1)
    queue_bytes: Size = 64 * 1000**2
    rate_limit: Rate | None = None
    access_log: bool = False
    traces: str | None = None


class PipelinesConfig(_Section):
    """`[pipelines]`: where the steps of all pipelines are carried out.

    `run_on` is `threads`, this process, or `dask`: a Dask cluster at `address`, or one of this machine that is started
    for each run. `workers` is how many steps go on beside each other; by default the number of cores, at least 4.
    """

    run_on: Literal["threads", "dask"] = "threads"
    address: str | None = None
    workers: int | None = Field(default=None, ge=1, le=1024)


class ServerConfig(_Section):
    """`[server]`: where the local server keeps MLflow's and Prefect's stores.

    `database` is a PostgreSQL address, ``postgresql://user@host/name``; each store gets a schema of its own in it.
    Without, both are SQLite files in the project folder.
    """

    database: Annotated[str, AfterValidator(_check_database)] = ""


class GateConfig(_Section):
    """`gate`: what a candidate must show before it may be released.

    The candidate's loss may exceed the champion's by at most `margin` (upper 95 % bound, on the same rows); `slices`
    are columns within whose values it may not be clearly worse either.
    """

    metric: str = ""
    better: Literal["higher", "lower"] | None = None
    margin: float = Field(default=0.02, ge=0)
    slices: tuple[str, ...] = ()
    rows: int = Field(default=2000, ge=10)

    @pydantic.field_validator("metric")
    @classmethod
    def _known_metric(cls, value: str) -> str:
        if value and value not in METRICS:
            raise ValueError(f"{value!r} is no metric. Valid: {listing(METRICS)}")
        return value


class ModelConfig(_Section):
    """`[model.<name>]`: which pipeline trains it and what it predicts.

    `tolerance` is how far the answers of a compiled runtime may lie from the model's own: absolute for probabilities,
    a share of the value or of the spread for numbers. A label never differs.
    """

    pipeline: Entrypoint | None = None
    target: str
    gate: GateConfig = GateConfig()
    tolerance: float = Field(default=1e-5, gt=0, le=0.01)


class ReleaseConfig(_Section):
    """`release`: how a candidate replaces the champion of a deployment.

    `steps` are percentages of entities. `metric` is the loss per row; `margin` is in its unit.
    """

    strategy: Literal["canary"] = "canary"
    steps: tuple[Annotated[float, Field(gt=0, le=50)], ...] = (1, 5, 25, 50)
    metric: str = ""
    margin: float = Field(default=0.02, gt=0)
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    step_rows: int = Field(default=50, ge=1)
    max_age: Duration = timedelta(days=7)

    @pydantic.field_validator("metric")
    @classmethod
    def _known_loss(cls, value: str) -> str:
        if value and value not in LOSSES:
            raise ValueError(f"{value!r} is no loss per row. Valid: {listing(LOSSES)}")
        return value

    @pydantic.field_validator("steps")
    @classmethod
    def _rising(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value or list(value) != sorted(set(value)):
            raise ValueError(f"steps must rise, such as [1, 5, 25, 50]; got {list(value)}")
        return value


class BudgetConfig(_Section):
    """`budget`: what an edge bundle may cost."""

    size: Size = 50 * 1000**2
    accuracy_drop: float = Field(default=0.005, ge=0)


class LogConfig(_Section):
    """`log`: what the prediction log keeps of each row of a deployment.

    `sample` is the share of predictions that are logged, chosen by their ids. Fields in `drop` are not kept; of those
    in `hash` only a keyed hash is, which is equal for equal values. `entity` can be named in both.
    `keep`, where given, goes before that of `[log]`.
    """

    sample: float = Field(default=1.0, ge=0, le=1)
    drop: tuple[str, ...] = ()
    hash: tuple[str, ...] = ()
    keep: Duration | None = None


class SloConfig(_Section):
    """`slo`: what an online deployment promises its callers, over a sliding `window`.

    At least a share `share` of the requests is answered within `latency`, and at least a share `availability` without
    an error of the server (a status of 500 or above). What may be missed of each is its error budget.
    """

    latency: Duration = timedelta(milliseconds=100)
    share: float = Field(default=0.99, gt=0, lt=1)
    availability: float = Field(default=0.999, gt=0, lt=1)
    window: Duration = timedelta(days=28)


class DeploymentConfig(_Section):
    """`[deployment.<name>]`: one model, deployed in one mode.

    `entity` names the input field that identifies a user or device, for the sticky assignment to variants; without
    it each request is its own entity. `key` names the column that identifies a row of a batch source or a message.
    Online: a request waits at most `timeout` for its answer, and a model that nobody asked for `unload_after` gives
    back its memory until the next request.
    """

    model: str
    mode: Mode
    source: str | None = None
    sink: str | None = None
    schedule: Cron | None = None
    release: ReleaseConfig = ReleaseConfig()
    entity: str | None = None
    key: str | None = None
    target: Literal["onnx", "web", "litert"] = "onnx"
    budget: BudgetConfig = BudgetConfig()
    log: LogConfig = LogConfig()
    slo: SloConfig | None = None
    timeout: Duration = timedelta(seconds=30)
    unload_after: Duration | None = None

    @pydantic.model_validator(mode="after")
    def _complete(self) -> Self:
        needed = {Mode.batch: ("source", "sink"), Mode.stream: ("source", "sink")}.get(self.mode, ())
        missing = [key for key in needed if getattr(self, key) is None]
        if missing:
            raise ValueError(f"a {self.mode} deployment needs {listing(missing)}")
        if self.mode is Mode.edge and self.target != "onnx":
            raise ValueError(f"the edge target {self.target!r} is not built yet. Valid today: 'onnx'")
        return self


def _check_watched(value: str) -> str:
    if value and value not in WATCHED:
        close = nearest(value, WATCHED)
        guess = f"Did you mean {close!r}? " if close else ""
        raise ValueError(f"{value!r} is no metric. {guess}Valid: {listing(WATCHED, most=20)}")
    return value


Watched = Annotated[str, AfterValidator(_check_watched)]


class PerformanceConfig(_Section):
    """`performance`: the metric over labelled predictions, and when it is too bad.

    Without `worse_than` the limit is the value at training time, worsened by `margin` (a share of it). `also` names
    metrics that are computed beside it and never alarm. A window is judged when it is mature: it is at least
    `label_delay` old, and the share of its labels that has arrived is at least the part `maturity` of the share that
    earlier windows had in the end. `overdue` after its end a window that never became mature is given up, and said so.
    `positive` is the class that precision, recall and the like are of; by default the second of two.
    """

    metric: Watched = ""
    also: tuple[Watched, ...] = ()
    worse_than: float | None = None
    margin: float = Field(default=0.1, gt=0)
    label_delay: Duration = timedelta(seconds=0.001)
    maturity: float = Field(default=0.9, gt=0, le=1)
    overdue: Duration | None = None
    min_rows: int = Field(default=30, ge=5)
    positive: bool | int | str | None = None
    estimated: bool = True


class DriftConfig(_Section):
    """`drift`: which inputs are compared with the reference window, and from which effect on.

    An input fires when its effect is at or above `floor` (PSI, unitless), above what chance makes of it at this number of
    rows, and significant among all that were tested at a false discovery rate of `fdr`. `predictions` watches the
    model's answers in the same way, from `prediction_floor` on: what they are compared with are answers on rows that the
    model may have learned from, and those it fits better than all others. Times are only compared when `columns` names
    them.
    """

    floor: float = Field(default=0.02, gt=0)
    fdr: float = Field(default=0.05, gt=0, lt=0.5)
    columns: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    predictions: bool = True
    prediction_floor: float = Field(default=0.1, gt=0)
    min_rows: int = Field(default=100, ge=20)


class QualityConfig(_Section):
    """`quality`: what the inputs of a window must be like, whatever the model makes of them.

    Shares are of the rows of a window and in addition to what the training data had: `missing` values, `unseen`
    categories, values `out_of_range` of those in training. `ranges` declares what a number may be, `unique` names columns
    no two rows of a window may share the values of, `freshness` how old the newest prediction may get, and
    `rows_at_least` and `rows_at_most` how many rows a window has.
    """

    missing: Share = 0.01
    unseen: Share = 0.01
    out_of_range: Share = 0.01
    ranges: dict[str, tuple[float, float]] = {}
    unique: tuple[str, ...] = ()
    duplicates: Share = 0.01
    freshness: Duration | None = None
    rows_at_least: int | None = Field(default=None, ge=0)
    rows_at_most: int | None = Field(default=None, ge=1)


class ServiceConfig(_Section):
    """`service`: how a deployment answers. `latency` is the 99th percentile, `errors` the share of requests that failed."""

    latency: Duration | None = None
    errors: Share | None = None


class KpiConfig(_Section):
    """`kpi.<name>`: one number of the product and its target.

    Either `sql`, one SELECT over `predictions`, or `python`, ``"<module>:<function>"``, which is given the window's
    predictions as a pyarrow Table. It gives a number, or nothing when there is none. `labelled` says whether it needs
    labels and so waits until the window is mature. After `timeout` it is stopped.
    """

    sql: str = ""
    python: Entrypoint | None = None
    at_most: float | None = None
    at_least: float | None = None
    unit: str = ""
    labelled: bool = True
    timeout: Duration = timedelta(seconds=30)

    @pydantic.model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.sql) == bool(self.python):
            raise ValueError("write either sql or python: what gives the number")
        return self


class MonitorConfig(_Section):
    """`[monitor.<model>]`: what is watched, in which windows, and what starts a training.

    `segments` are columns whose values are watched apart as well, the `most_segments` most frequent of each. An alert
    needs `needed` of the last `windows` to have fired.
    """

    window: Duration = timedelta(hours=1)
    segments: tuple[str, ...] = ()
    most_segments: int = Field(default=10, ge=1, le=100)
    windows: int = Field(default=3, ge=1, le=100)
    needed: int = Field(default=2, ge=1, le=100)
    performance: PerformanceConfig = PerformanceConfig()
    drift: DriftConfig = DriftConfig()
    quality: QualityConfig = QualityConfig()
    service: ServiceConfig = ServiceConfig()
    kpi: dict[str, KpiConfig] = {}
    off: tuple[str, ...] = ()
    retrain_on: tuple[Trigger, ...] = ()
    cooldown: Duration = timedelta(hours=1)

    @pydantic.model_validator(mode="after")
    def _possible(self) -> Self:
        if self.needed > self.windows:
            raise ValueError(f"needed = {self.needed} of windows = {self.windows} can never be reached")
        return self


class LabelSourceConfig(_Section):
    """`[labels.<name>]`: a table, a query, a file or a stream topic that labels come from by themselves.

    `source` is what a dataset's address may be, or a channel's (``sqlite:///events.db?topic=outcomes``). The column `id`
    holds prediction ids; or `entity` and `at` say whom and when a label is about: it then belongs to the entity's last
    prediction of `deployment` at or before that moment, no older than `within`. `value` is the column of the truth. It is
    read each `every`, and only what is new or corrected is taken.
    """

    source: str
    deployment: str = ""
    id: str = ""
    entity: str = ""
    at: str = ""
    value: str
    within: Duration = timedelta(days=1)
    every: Interval = timedelta(minutes=5)

    @pydantic.model_validator(mode="after")
    def _whose(self) -> Self:
        if bool(self.id) == bool(self.entity):
            raise ValueError("write either id, the column of prediction ids, or entity and at")
        if self.entity and not (self.at and self.deployment):
            raise ValueError(
                "entity needs at, the column of the moment, and deployment, whose predictions are meant"
            )
        return self


def _check_store(value: str) -> str:
    scheme, found, rest = value.partition("://")
    if found and (scheme != "s3" or not rest.strip("/")):
        raise ValueError(f"{value!r} is no store: write a folder, or 's3://bucket/prefix'")
    return value


class StoreConfig(_Section):
    """`[log]`: where sealed segments of the prediction log lie, and for how long.

    `store` is a folder or ``s3://bucket/prefix``; empty, the project's own state. `cache` bounds what is kept on this
    machine of a store elsewhere. `keep` is the age at which segments are deleted; without, never.
    """

    store: Annotated[str, AfterValidator(_check_store)] = ""
    cache: Size = 10 * 1000**3
    keep: Duration | None = None


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


#: One address or a list of them. One alone is taken as well: an error would print what may hold a password.
Addresses = Annotated[tuple[str, ...], BeforeValidator(_several)]


class AlertsConfig(_Section):
    """`[alerts]`: who is told.

    `to` are Apprise addresses, such as ``"mailto://..."``, ``"slack://..."`` or ``"json://host/path"``; ``${NAME}`` in one
    is taken from the environment, so that no secret is in the file. `checks`, where given, are all that is told of, and
    `severity` is the least that is. An alert that is neither acknowledged nor resolved after `escalate_after` is told to
    `escalate_to`, once.
    """

    to: Addresses = ()
    checks: tuple[str, ...] = ()
    severity: Literal["info", "warning", "critical"] = "warning"
    resolved: bool = True
    escalate_after: Duration | None = None
    escalate_to: Addresses = ()

    @pydantic.model_validator(mode="after")
    def _both(self) -> Self:
        if bool(self.escalate_to) != (self.escalate_after is not None):
            raise ValueError(
                "escalate_after and escalate_to belong together: after how long, and to whom, such as "
                "escalate_after = '2h', escalate_to = ['mailto://...']"
            )
        return self


class RunnerConfig(_Section):
    """`[runner]`: the part that carries out scheduled and requested runs, at most `slots` at a time."""

    slots: int = Field(default=2, ge=1, le=64)


class ScheduleConfig(_Section):
    """`[schedule.<name>]`: when a pipeline, or a batch deployment, runs by itself, and what its runs must show.

    `pipeline` is an entrypoint or the name of a model. Exactly one of `cron`, `every` and `on` says when. A run that
    could not start within `max_late` of its time is missed, and `catch_up` says which of those are made up for.
    `concurrency` counts the runs of the pipeline that go on at a time; `overlap` says what becomes of one too many.
    `expect` compares what a run gave: `rows`, `new_rows` of a batch, `seconds`, or a metric it logged.
    """

    pipeline: str = ""
    deployment: str = ""
    cron: Cron | None = None
    every: Interval | None = None
    on: News | None = None
    timezone: Zone | None = None
    parameters: dict[str, RunParameter] = {}
    catch_up: Literal["last", "all", "none"] = "last"
    max_late: Duration = timedelta(minutes=1)
    expect: dict[str, Expectation] = {}
    timeout: Duration | None = None
    concurrency: int = Field(default=1, ge=1, le=64)
    overlap: Literal["wait", "skip"] = "wait"
    paused: bool = False

    @pydantic.model_validator(mode="after")
    def _one_of_each(self) -> Self:
        if bool(self.pipeline) == bool(self.deployment):
            raise ValueError("write either pipeline or deployment: what is to run")
        if ":" in self.pipeline:
            _check_entrypoint(self.pipeline)
        given = [key for key in ("cron", "every", "on") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(
                f"it has {listing(given)}; write exactly one of cron = '0 2 * * *', every = '6h', on = 'dataset: orders'"
            )
        if self.timezone and not self.cron:
            raise ValueError("timezone belongs to cron; 'every' counts from midnight UTC")
        if self.deployment and self.parameters:
            raise ValueError("a batch deployment takes no parameters")
        if self.on and self.on == f"pipeline: {self.pipeline}":
            raise ValueError(f"{self.pipeline!r} would start itself for ever")
        return self


class Config(_Section):
    """All of `loopwright.toml`."""

    project: ProjectConfig = ProjectConfig()
    server: ServerConfig = ServerConfig()
    serving: ServingConfig = ServingConfig()
    pipelines: PipelinesConfig = PipelinesConfig()
    model: dict[str, ModelConfig] = {}
    deployment: dict[str, DeploymentConfig] = {}
    monitor: dict[str, MonitorConfig] = {}
    labels: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")], LabelSourceConfig] = {}
    log: StoreConfig = StoreConfig()
    alerts: AlertsConfig = AlertsConfig()
    runner: RunnerConfig = RunnerConfig()
    schedule: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")], ScheduleConfig] = {}

    @pydantic.model_validator(mode="after")
    def _linked(self) -> Self:
        for name, deployment in self.deployment.items():
            if deployment.model not in self.model:
                raise ValueError(
                    f"[deployment.{name}] names the model {deployment.model!r}, which has no [model.{deployment.model}]. "
                    f"Known models: {listing(self.model)}"
                )
        for name in self.monitor:
            if name not in self.model:
                raise ValueError(
                    f"[monitor.{name}] watches a model that has no [model.{name}]. Known models: {listing(self.model)}"
                )
        for name, labels in self.labels.items():
            if labels.deployment and labels.deployment not in self.deployment:
                raise ValueError(
                    f"[labels.{name}] names the deployment {labels.deployment!r}, which is not there. "
                    f"Known: {listing(self.deployment)}"
                )
        for name, schedule in self.schedule.items():
            self._check_schedule(name, schedule)
        return self

    def _check_schedule(self, name: str, schedule: ScheduleConfig) -> None:
        batches = [key for key, one in self.deployment.items() if one.mode is Mode.batch]
        if schedule.deployment and schedule.deployment not in batches:
            close = nearest(schedule.deployment, batches)
            guess = f"Did you mean {close!r}? " if close else ""
            raise ValueError(
                f"[schedule.{name}] names the batch deployment {schedule.deployment!r}, which is not there. "
                f"{guess}Known: {listing(batches)}"
            )
        trained = [key for key, model in self.model.items() if model.pipeline]
        if schedule.pipeline and ":" not in schedule.pipeline and schedule.pipeline not in trained:
            close = nearest(schedule.pipeline, trained)
            guess = f"Did you mean {close!r}? " if close else ""
            raise ValueError(
                f"[schedule.{name}] names the pipeline {schedule.pipeline!r}: write '<module>:<function>', such as "
                f"'pipelines:train', or a model that has a pipeline. {guess}Models: {listing(trained)}"
            )
        if name.startswith(("retrain-", "batch-")):
            raise ValueError(
                f"[schedule.{name}]: names that begin with 'retrain-' and 'batch-' are those of [monitor.*] retrain_on and "
                "[deployment.*] schedule"
            )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read and check a `loopwright.toml`.

        Raises
        ------
        InvalidConfig
            Not TOML, an unknown key, or a value of the wrong type or range; all problems of the file in one message.
        NotFound
            There is no such file.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise NotFound(
                f"There is no {path}.",
                hint=f"loopwright init {path.parent}   (or change into a project folder)",
            ) from None
        except (PermissionError, UnicodeDecodeError) as error:
            raise Denied(f"{path} cannot be read: {error}.") from error
        try:
            return cls.model_validate(tomllib.loads(text))
        except tomllib.TOMLDecodeError as error:
            raise InvalidConfig(f"{path} is not valid TOML: {error}.") from error
        except pydantic.ValidationError as error:
            problems = [_describe(problem, text, path.name) for problem in error.errors()]
            raise InvalidConfig(
                "\n".join(problems), hint=f"edit {path}, then: loopwright status", file=str(path)
            ) from error


def _line_of(text: str, location: tuple[str | int, ...]) -> int | None:
    """Find the line of a key: below its table's header, or inside the line that starts its inline table."""
    keys = [str(key) for key in location]
    table: list[str] = []
    best: tuple[int, int] | None = None
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        header = re.match(r"^\[+\s*([^\]]+?)\s*\]+", line)
        if header:
            table = [part.strip().strip("\"'") for part in header[1].split(".")]
            shared = min(len(table), len(keys))
            depth = shared if keys[:shared] == table[:shared] else 0
        else:
            name = re.match(r"^([A-Za-z0-9_.\"'-]+)\s*=", line)
            path = table + ([part.strip("\"'") for part in name[1].split(".")] if name else [])
            depth = len(path) if name and keys[: len(path)] == path else 0
        if depth and (best is None or depth > best[0]):
            best = (depth, number)
    return best[1] if best else None


def _fields_at(location: tuple[str | int, ...]) -> list[str]:
    """Return the keys that are valid at a place of the configuration."""
    kind: Any = Config
    for key in location:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            field = kind.model_fields.get(str(key))
            kind = field.annotation if field else None
        elif typing.get_origin(kind) is dict:
            kind = typing.get_args(kind)[1]
    return sorted(kind.model_fields) if isinstance(kind, type) and issubclass(kind, BaseModel) else []


def _describe(problem: Any, text: str, file: str) -> str:
    location = tuple(problem["loc"])
    # What does not fit together names its table itself.
    named = re.match(r"Value error, \[([^\]]+)\]", problem["msg"])
    line = _line_of(text, location or tuple(named[1].split(".") if named else ()))
    place = f"{file}:{line}" if line else file
    key = ".".join(str(part) for part in location)
    if problem["type"] == "extra_forbidden":
        known = _fields_at(location[:-1])
        close = nearest(str(location[-1]), known)
        guess = f"Did you mean {close!r}? " if close else ""
        return f"{place}: unknown key {key!r}. {guess}Known here: {listing(known, most=20)}."
    if problem["type"] == "missing":
        return f"{place}: the key {key!r} is missing."
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"{place}: {key}: {message}." if key else f"{place}: {message}."
    return f"{place}: {key} = {problem['input']!r}: {message}."


class Project:
    """A project folder: its configuration and the places of its state.

    Parameters
    ----------
    root
        The folder that holds `loopwright.toml`.
    config
        The configuration, when it is built in Python instead of read from the file.
    """

    def __init__(self, root: Path | str, config: Config | None = None) -> None:
        self.root = Path(root).resolve()
        self.config = config if config is not None else Config.read(self.root / FILE)

    def __repr__(self) -> str:
        return f"Project({str(self.root)!r})"

    @classmethod
    def find(cls, start: Path | str | None = None) -> Self:
        """Find the project: `LOOPWRIGHT_PROJECT`, else the nearest folder upwards with a `loopwright.toml`.

        Raises
        ------
        NotFound
            No folder from `start` up to the root of the file system is a project.
        """
        given = os.environ.get(PROJECT_VARIABLE)
        if start is None and given:
            return cls(given)
        here = Path(start or Path.cwd()).resolve()
        for folder in (here, *here.parents):
            if (folder / FILE).is_file():
                return cls(folder)
        raise NotFound(
            f"There is no {FILE} in {here} or above it.",
            hint="loopwright init   (makes this folder a project; loopwright init NAME a new one that runs)",
        )

    @property
    def name(self) -> str:
        """The project's name: `[project] name`, else the folder's."""
        return self.config.project.name or self.root.name

    @property
    def state(self) -> Path:
        """The folder of the embedded state, made on first use.

        Raises
        ------
        Denied
            The project folder cannot be written to.
        """
        path = self.root / STATE
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Denied(
                f"{path} cannot be made: {error.strerror}.",
                valid="The project folder must be writable by this user.",
                hint=f"ls -ld {self.root}",
            ) from error
        return path

    @property
    def ledger_url(self) -> str:
        """The SQLAlchemy URL of the ledger; the environment variable `LOOPWRIGHT_LEDGER` goes first."""
        return os.environ.get("LOOPWRIGHT_LEDGER") or f"sqlite:///{self.state / 'ledger.db'}"

    @property
    def database(self) -> str:
        """The PostgreSQL database of the tracking and pipeline stores, without a driver; empty for SQLite.

        The environment variable `LOOPWRIGHT_DATABASE` goes before `[server] database`.
        """
        try:
            return _check_database(os.environ.get("LOOPWRIGHT_DATABASE", "")) or self.config.server.database
        except ValueError as error:
            raise InvalidConfig(f"LOOPWRIGHT_DATABASE: {error}.") from error

    @property
    def tracking_url(self) -> str:
        """The SQLAlchemy URL of the project's own MLflow store."""
        if self.database:
            mark = "&" if "?" in self.database else "?"
            address = self.database.replace("postgresql:", "postgresql+psycopg:", 1)
            return f"{address}{mark}options=-csearch_path%3Dmlflow"
        return f"sqlite:///{self.state / 'tracking' / 'mlflow.db'}"

    @property
    def predictions(self) -> Path:
        """The root of the prediction log."""
        return self.state / "predictions"

    @property
    def labels(self) -> Path:
        """The root of the label log."""
        return self.state / "labels"

    @property
    def datasets(self) -> Path:
        """The root of the dataset snapshots, addressed by digest."""
        return self.state / "datasets"

    @property
    def artifacts(self) -> Path:
        """The root of the MLflow artifacts."""
        return self.state / "tracking" / "artifacts"

    @property
    def run(self) -> Path:
        """Pids, ports and logs of the running parts."""
        return self.state / "run"

    def scorer(self, model: str, version: int) -> Path:
        """Return the folder of one version's prepared scorer."""
        return self.state / "scorers" / model / str(version)

    def model(self, name: str) -> ModelConfig:
        """Return the configuration of one model, or raise `NotFound` with the known names."""
        if name not in self.config.model:
            raise NotFound.among("model", name, self.config.model, hint=f"add [model.{name}] to {FILE}")
        return self.config.model[name]

    def deployment(self, name: str) -> DeploymentConfig:
        """Return the configuration of one deployment, or raise `NotFound` with the known names."""
        if name not in self.config.deployment:
            raise NotFound.among(
                "deployment", name, self.config.deployment, hint=f"add [deployment.{name}] to {FILE}"
            )
        return self.config.deployment[name]
