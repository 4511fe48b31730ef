"""What both clients share: how a call is written, when it is tried again, and how its answer is read."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlsplit

import httpx
import msgspec
import numpy as np

from loopwright import errors, parts
from loopwright.config import Project, parse_duration
from loopwright.errors import Denied, InvalidInput, LoopwrightError, Unavailable
from loopwright.records import Label, Scalar

__all__ = [
    "ARROW_ROWS",
    "KEY_VARIABLE",
    "Call",
    "Labels",
    "Settings",
    "Tries",
    "is_table",
    "label_body",
    "labelling",
    "listing",
    "pairs",
    "predicting",
]

T = TypeVar("T")
#: Many labels: pairs of a prediction id and what was true, or records, which can name an entity instead.
Labels = Sequence[tuple[str, Scalar] | Label]

#: The environment variable that holds the key of a caller.
KEY_VARIABLE = "LOOPWRIGHT_API_KEY"
#: Tables with more rows than this go as an Arrow stream; below, JSON is as quick and easier to read on the wire.
ARROW_ROWS = 100
ARROW = b"application/vnd.apache.arrow.stream"
#: Longest value of a header that a worker takes, in bytes.
LONGEST = 256
#: Idle connections are closed before the server does it (after 75 s): closing one just as it is used loses a request.
KEEP_S = 30.0
FIRST_S = 0.1
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_BY_CODE = {
    kind.code: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, LoopwrightError)
}


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request and how its answer is read. `repeatable` says that sending it twice is the same as once."""

    method: str
    path: str
    read: Callable[[Any], T]
    content: bytes | None = None
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    repeatable: bool = False
    timeout_s: float | None = None


class Settings:
    """Where a client's calls go and how: what both kinds of client are made with."""

    def __init__(self, url: str | None, timeout_s: float, api_key: str | None, retries: int) -> None:
        self.url = (url or parts.url(Project.find(), "serving")).rstrip("/")
        self.timeout_s = timeout_s
        self.retries = retries
        key = api_key if api_key is not None else os.environ.get(KEY_VARIABLE, "")
        self.headers = [_header("x-api-key", key)] if key else []

    def http(self) -> dict[str, Any]:
        """Return the arguments of the HTTP client: connections stay open and are used again."""
        # A proxy that is configured for the internet must not get what is sent to this machine; and loading the
        # certificate store takes longer than a call, which plain HTTP has no use for.
        local = urlsplit(self.url).hostname in _LOOPBACK
        return {
            "base_url": self.url,
            "timeout": self.timeout_s,
            "trust_env": not local,
            "verify": self.url.startswith("https://"),
            "limits": httpx.Limits(max_keepalive_connections=100, keepalive_expiry=KEEP_S),
        }

    def request(self, call: Call[Any]) -> dict[str, Any]:
        """Return the arguments of one request."""
        made: dict[str, Any] = {
            "method": call.method,
            "url": call.path,
            "content": call.content,
            "headers": self.headers + call.headers,
        }
        return made if call.timeout_s is None else made | {"timeout": call.timeout_s}

    def read(self, call: Call[T], answer: httpx.Response) -> T:
        """Return what a call was answered, or raise what the server raised."""
        try:
            found = msgspec.json.decode(answer.content)
        except msgspec.DecodeError:
            found = None
        if answer.is_success and found is not None:
            return call.read(found)
        raise _error(self.url, answer.status_code, found)


class Tries:
    """How often one call is tried, and how long to wait in between.

    A call is sent again only when the server did nothing with it: no connection was made, or it refused the request
    as a whole (429 or 503, with Retry-After). What broke off on the way may have been carried out, and only a
    `repeatable` call is sent again then. Waits double from 0.1 s, or are what Retry-After says, each a little
    lengthened at random so that many clients do not come back at once; all together end with the call's time.
    """

    def __init__(self, settings: Settings, call: Call[Any]) -> None:
        self._settings = settings
        self._call = call
        self._left = settings.retries
        self._wait = FIRST_S
        allowed = settings.timeout_s if call.timeout_s is None else call.timeout_s
        self._until = time.monotonic() + allowed

    def refused(self, answer: httpx.Response) -> float | None:
        """Return the seconds to wait before the call is sent again, None when the answer stands."""
        after = answer.headers.get("retry-after")
        if answer.status_code not in {429, 503} or after is None:
            return None
        return self._next(float(after) if after.isdigit() else 0.0)

    def failed(self, error: httpx.TransportError) -> float:
        """Return the seconds to wait before the call is sent again.

        Raises
        ------
        Unavailable
            It is not sent again.
        """
        unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
        again = unsent or (self._call.repeatable and not isinstance(error, httpx.TimeoutException))
        wait = self._next(0.0) if again else None
        if wait is not None:
            return wait
        said = str(error) or type(error).__name__
        raise Unavailable(
            f"{self._settings.url} does not answer: {said}.",
            valid=""
            if unsent or self._call.repeatable
            else "Whether the request was carried out is not known.",
            hint="loopwright up" if unsent else "loopwright status",
        ) from error

    def _next(self, at_least: float) -> float | None:
        wait = max(at_least, self._wait) * random.uniform(1.0, 1.25)  # noqa: S311 - spreads callers, guards nothing
        if self._left <= 0 or time.monotonic() + wait > self._until:
            return None
        self._left -= 1
        self._wait *= 2
        return wait


def predicting(
    deployment: str,
    rows: Any,
    *,
    entity: str | None = None,
    variant: str | None = None,
    timeout_ms: int | None = None,
    request_id: str | None = None,
) -> Call[Any]:
    """Return the call that asks for the predictions of rows."""
    headers = [
        _header(name, value)
        for name, value in (("x-entity", entity), ("x-variant", variant), ("x-request-id", request_id))
        if value
    ]
    if timeout_ms is not None:
        if timeout_ms < 1:
            raise InvalidInput(f"timeout_ms is {timeout_ms}.", valid="It is at least 1.")
        headers.append((b"x-timeout-ms", b"%d" % timeout_ms))
    if is_table(rows) and len(rows) > ARROW_ROWS:
        content, kind, many = _arrow(rows), ARROW, True
    else:
        body = _records(rows)
        content, kind, many = _json(body), b"application/json", isinstance(body, list)
    return Call(
        "POST",
        f"/predict/{quote(deployment, safe='')}",
        (lambda found: found["predictions"]) if many else (lambda found: found),
        content,
        [(b"content-type", kind), *headers],
        # The server answers in time or says that it cannot; what it says still has to arrive.
        timeout_s=None if timeout_ms is None else timeout_ms / 1000 + 1.0,
    )


def labelling(body: Any) -> Call[int]:
    """Return the call that hands in one label or a list of them; it returns how many were accepted."""
    headers = [(b"content-type", b"application/json")]
    return Call("POST", "/labels", lambda found: int(found["accepted"]), _json(body), headers)


def label_body(
    prediction_id: str,
    actual: Scalar | None,
    deployment: str,
    entity: str,
    at: datetime | None,
    within: timedelta | str | None,
) -> dict[str, Any]:
    """Return one label as the server takes it; what is not given is left out."""
    if actual is None:
        raise InvalidInput("The label has no value.", valid="actual=: a number, text or boolean.")
    made: dict[str, Any] = {"prediction_id": prediction_id} if prediction_id else {}
    made |= {"actual": actual}
    made |= {"deployment": deployment} if deployment else {}
    made |= {"entity": entity} if entity else {}
    made |= {"at": at.isoformat()} if at is not None else {}
    if within is not None:
        made["within"] = seconds(within)
    return made


def seconds(within: timedelta | str) -> float:
    """Return a span of time, such as ``"2h"``, in seconds."""
    try:
        return parse_duration(within) / timedelta(seconds=1)
    except ValueError as error:
        raise InvalidInput(f"within: {error}.") from None


def pairs(labels: Labels) -> list[dict[str, Any]]:
    """Return labels as the server takes them."""
    return [_body(label) for label in labels]


def _body(label: tuple[str, Scalar] | Label) -> dict[str, Any]:
    if not isinstance(label, Label):
        return {"prediction_id": label[0], "actual": label[1]}
    made: dict[str, Any] = {"actual": label.actual, "at": label.at.isoformat()}
    if label.prediction_id:
        return made | {"prediction_id": label.prediction_id}
    return made | {"deployment": label.deployment, "entity": label.entity, "within": label.within_s}


def listing() -> Call[list[dict[str, Any]]]:
    """Return the call that asks what is served."""
    return Call("GET", "/deployments", lambda found: list(found), repeatable=True)


def is_table(rows: Any) -> bool:
    """Whether rows are a pandas, polars or Arrow table."""
    return hasattr(rows, "columns") and any(
        hasattr(rows, name) for name in ("to_pylist", "to_dicts", "to_dict")
    )


def _header(name: str, value: str) -> tuple[bytes, bytes]:
    raw = value.encode(errors="backslashreplace")
    if len(raw) > LONGEST or any(byte < 32 or byte == 127 for byte in raw):
        raise InvalidInput(
            f"{value[:40]!r} cannot be sent as {name}.",
            valid=f"It has at most {LONGEST} bytes and no control characters.",
        )
    return name.encode(), raw


def _json(body: Any) -> bytes:
    try:
        return msgspec.json.encode(body, enc_hook=_plain)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"The rows cannot be sent: {error}.", valid="Values are JSON values.") from error


def _arrow(rows: Any) -> bytes:
    """Return a table as an Arrow stream."""
    import pyarrow as pa

    try:
        if isinstance(rows, pa.Table):
            table = rows
        elif hasattr(rows, "to_arrow"):
            table = rows.to_arrow()
        else:
            table = pa.Table.from_pandas(rows, preserve_index=False)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InvalidInput(f"The rows cannot be sent: {error}.", valid="A column has one type.") from error
    return bytes(sink.getvalue())


def _records(rows: Any) -> Any:
    """Return rows as a dictionary or a list of them."""
    if isinstance(rows, Mapping):
        return dict(rows)
    for name, arguments in (("to_pylist", {}), ("to_dicts", {}), ("to_dict", {"orient": "records"})):
        if hasattr(rows, name):
            return [_present(row) for row in getattr(rows, name)(**arguments)]
    return [dict(row) if isinstance(row, Mapping) else row for row in rows]


def _present(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table's row with None for what is missing: of NaN, NaT and NA, JSON knows only null."""
    return {name: None if _missing(value) else value for name, value in row.items()}


def _missing(value: Any) -> bool:
    try:
        return bool(value != value)
    except TypeError:
        # pandas.NA is neither equal nor unequal to anything.
        return True


def _plain(value: Any) -> Any:
    """Return NumPy's and pandas' values as Python's own."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if hasattr(value, "to_pydatetime"):
        return value.to_pydatetime()
    raise TypeError(f"{value!r} is a {type(value).__name__}")


def _error(url: str, status: int, body: Any) -> LoopwrightError:
    """Return what the server raised; whatever else answers at the address is said to do so."""
    facts = body.get("error") if isinstance(body, dict) else None
    if not isinstance(facts, dict) or "message" not in facts:
        return Unavailable(
            f"{url} answered {status}, but not as a serving worker does.", hint="loopwright status"
        )
    known = {key: value for key, value in facts.items() if key not in {"code", "message", "valid", "hint"}}
    kind = _BY_CODE.get(facts.get("code", "")) or _by_status(status)
    return kind(facts["message"], valid=facts.get("valid", ""), hint=facts.get("hint", ""), **known)


def _by_status(status: int) -> type[LoopwrightError]:
    if status in {503, 504}:
        return Unavailable
    if status in {401, 403}:
        return Denied
    return InvalidInput if status < 500 else LoopwrightError
