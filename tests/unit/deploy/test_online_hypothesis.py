"""Whatever is sent: no failure of the server's own, errors that name row and field, and a log that is what was scored."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from codec_rows import Row, as_csv, as_json, as_parquet, as_stream, as_table, mutated, rows_of
from four_modes import add_version, wine_version
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from loopwright.config import Project
from loopwright.deploy.base import publish
from loopwright.deploy.online import wire
from loopwright.deploy.online.app import App
from loopwright.deploy.online.codecs.base import Reply
from loopwright.deploy.online.follower import Follower, online
from loopwright.deploy.online.request import Request
from loopwright.errors import LoopwrightError
from loopwright.ledger import Ledger
from loopwright.predictions import Ids, LabelLog, PredictionStore
from loopwright.records import Deployment, Mode, Signature, Variant

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
TOML = """
[model.mixed]
target = "y"
[model.wine]
target = "grower"
[deployment.mixed-api]
model = "mixed"
mode = "online"
entity = "who"
[deployment.wine-api]
model = "wine"
mode = "online"
"""
MIXED, WINE = "mixed-api", "wine-api"
JSON_KIND = "application/json"


def in_numbers(rows: Any) -> Any:
    """Return mixed rows as numbers; a model of its own kind, which no compiler knows."""
    import numpy as np
    import pandas as pd

    town = rows["town"].map(lambda one: len(one) if isinstance(one, str) else -1.0)
    numbers = [rows[name].astype("float64") for name in ("size", "count")]
    flags = [rows[name].map(lambda one: -1.0 if pd.isna(one) else float(one)) for name in ("flag", "maybe")]
    day = pd.to_datetime(rows["day"]).dt.month.fillna(0).astype("float64")
    found = np.column_stack([*numbers, *flags, town, day]).astype("float64")
    return np.tanh(np.nan_to_num(found, nan=-1.0, posinf=1.0, neginf=-1.0))


def mixed_table() -> pd.DataFrame:
    """Return a table with a column of each type, some with missing values."""
    n, chance = 60, np.random.default_rng(3)
    flags = chance.random(n) > 0.5
    return pd.DataFrame(
        {
            "size": np.where(np.arange(n) % 7 == 0, np.nan, chance.normal(size=n)),
            "count": chance.integers(0, 9, n),
            "flag": flags,
            "maybe": pd.array([None if at % 5 == 0 else not flags[at] for at in range(n)], dtype="boolean"),
            "town": [None if at % 6 == 0 else ["Bern", "Ulm", "Wien"][at % 3] for at in range(n)],
            "day": pd.date_range("2026-01-01", periods=n, freq="D"),
            "y": np.where(flags, "yes", "no"),
        }
    )


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """Return an application with a compiled model of numbers and a native one of all types."""
    root = tmp_path_factory.mktemp("hypothesis")
    (root / "loopwright.toml").write_text(TOML)
    project = Project(root)
    table = mixed_table()
    model = make_pipeline(FunctionTransformer(in_numbers), LogisticRegression())
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("LOOPWRIGHT_LEDGER", raising=False)
        patch.setattr(in_numbers, "__module__", "__main__")  # pickled by value, as a notebook's function is
        add_version(project, model.fit(table.drop(columns="y"), table["y"]), table, "y", "mixed")
        wine_version(project)
        ledger, ids, log = Ledger.open(project), Ids.open(project), LabelLog(project)
        for name, model_name in ((MIXED, "mixed"), (WINE, "wine")):
            publish(ledger, Deployment(name, model_name, Mode.online, (Variant("champion", 1),), salt="s"))
        made = App(project, online(project, ledger, ids, "serving-1"), log, ids)
        Follower(project, ledger, ids, "serving-1", made).turn()
        yield made
        made.close()
        for predictor in made.predictors.values():
            predictor.close()
        log.close()
        ledger.close()


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    """Return one event loop for all requests."""
    with asyncio.Runner() as runner:
        yield runner


async def asked(
    app: App, path: str, body: bytes, headers: Mapping[bytes, bytes], method: str = "POST"
) -> tuple[int, bytes]:
    """Send one request to the ASGI application."""
    scope = {"type": "http", "method": method, "path": path, "headers": list(headers.items())}
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], sent[1]["body"]


class Held(Request):
    """A request without HTTP, as the short way hands it to a deployment."""

    def __init__(self) -> None:
        super().__init__()
        self.outcome: asyncio.Future[Reply | LoopwrightError] = asyncio.get_running_loop().create_future()

    def reply(self, reply: Reply) -> None:
        """Keep the answer."""
        self.outcome.set_result(reply)

    def fail(self, error: LoopwrightError) -> None:
        """Keep the error."""
        self.outcome.set_result(error)


async def taken(app: App, deployment: str, body: bytes) -> tuple[int, Any]:
    """Hand a body to a deployment, and return status and answer."""
    held = Held()
    app.short[f"/predict/{deployment}".encode()].take(held, body, {})
    outcome = await asyncio.wait_for(held.outcome, 20)
    if isinstance(outcome, LoopwrightError):
        return outcome.http_status, outcome.to_dict()
    return 200, json.loads(outcome.body)


def signature_of(app: App, deployment: str) -> Signature:
    """Return what a deployment takes."""
    return app.predictors[deployment].signature


def bytes_logged(app: App, deployment: str) -> int:
    """Return how long the log is; nothing of it is sealed while the tests run."""
    folder = app.predictors[deployment].project.predictions / f"deployment={deployment}" / "open"
    return sum(path.stat().st_size for path in folder.glob("*"))


def understood(status: int, body: bytes) -> None:
    """Check that an answer is one, or a refusal that its sender can act on."""
    assert status < 500, body
    if status == 200:
        return
    found = json.loads(body)
    if isinstance(found.get("error"), dict):
        assert found["error"]["message"]
        assert found["error"].get("valid") or found["error"].get("hint"), found
    else:
        assert found.get("error") or found.get("message"), found


def good_rows(app: App, deployment: str) -> st.SearchStrategy[list[Row]]:
    """Return a strategy of rows that a deployment takes; a long one stays below what is taken for missing."""
    return rows_of(signature_of(app, deployment))


def bodies_of(signature: Signature) -> dict[tuple[str, str], list[bytes]]:
    """Return right bodies by path and content type, to be spoilt."""
    rows = [
        [example_row(signature, number) for number in range(n)]
        for n in (1, 3)
    ]  # fmt: skip
    name = MIXED if len(signature.inputs) == 6 else WINE
    names = list(signature.names)
    tables = [as_table(one, signature) for one in rows]
    split = [
        as_json({"dataframe_split": {"columns": names, "data": [[row[key] for key in names] for row in one]}})
        for one in rows
    ]
    records = [as_json({"dataframe_records": one}) for one in rows]
    inputs = [as_json({"inputs": {key: [row[key] for row in one] for key in names}}) for one in rows]
    kinds = {"double": "FP64", "long": "INT64", "boolean": "BOOL"}
    tensors = [
        as_json(
            {
                "id": "7",
                "inputs": [
                    {
                        "name": column.name,
                        "shape": [len(one)],
                        "datatype": kinds.get(column.type, "BYTES"),
                        "data": [row[column.name] for row in one],
                    }
                    for column in signature.inputs
                ],
                "outputs": [{"name": "prediction"}],
            }
        )
        for one in rows
    ]
    plain = f"/predict/{name}"
    return {
        (plain, JSON_KIND): [as_json(rows[0][0]), *map(as_json, rows)],
        (plain, "text/csv"): list(map(as_csv, tables)),
        (plain, "application/vnd.apache.arrow.stream"): list(map(as_stream, tables)),
        (plain, "application/vnd.apache.parquet"): list(map(as_parquet, tables)),
        (f"/deployments/{name}/invocations", JSON_KIND): [*split, *records, *inputs],
        (f"/v2/models/{name}/infer", JSON_KIND): tensors,
    }


def example_row(signature: Signature, number: int) -> Row:
    """Return a row that fits a signature."""
    values: dict[str, Any] = {
        "double": 0.5 + number,
        "long": 2**40 + number,
        "boolean": number % 2 == 0,
        "string": "Ulm",
        "datetime": datetime(2026, 1, 31, tzinfo=UTC),
    }
    return {column.name: values[column.type] for column in signature.inputs}


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@st.composite
def bent(draw: st.DrawFn, documents: list[bytes]) -> bytes:
    """Draw a right document in which one place holds something else, is left out, or is there twice."""
    document = json.loads(draw(st.sampled_from(documents)))
    for _ in range(draw(st.integers(1, 2))):
        places = list(places_of(document))
        if not places:
            break
        holder, key = draw(st.sampled_from(places))
        what = draw(st.sampled_from(["replace", "replace", "drop", "twice", "rename"]))
        if what == "replace":
            holder[key] = draw(JSON_VALUES)
        elif what == "drop":
            del holder[key]
        elif what == "twice" and isinstance(holder, list):
            holder.insert(key, holder[key])
        elif isinstance(holder, dict):
            holder[draw(st.text(max_size=8))] = holder.pop(key)
    return json.dumps(document).encode()


def places_of(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each place of a document: what holds it, and the key or index there."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from places_of(value[key])


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_no_body_makes_the_server_fail(app: App, loop: asyncio.Runner, data: st.DataObject) -> None:
    """Random bytes, spoilt bodies and bent documents in every protocol: answered, or refused with a reason."""
    deployment = data.draw(st.sampled_from([MIXED, WINE]))
    bodies = bodies_of(signature_of(app, deployment))
    path, kind = data.draw(st.sampled_from(list(bodies)))
    right = bodies[path, kind]
    ways = [st.binary(max_size=60), mutated(right), JSON_VALUES.map(lambda one: json.dumps(one).encode())]
    if kind == JSON_KIND:
        ways += [bent(right)] * 3
    body = data.draw(st.one_of(ways))
    headers = {b"content-type": kind.encode()}
    if path.startswith("/v2") and data.draw(st.integers(0, 5)) == 0:
        length = data.draw(st.integers(-5, len(body) + 5) | st.sampled_from(["x", "", "9" * 30]))
        headers[b"inference-header-content-length"] = str(length).encode()
    before = bytes_logged(app, deployment)
    status, answer = loop.run(asked(app, path, body, headers))
    understood(status, answer)
    if status != 200:
        assert bytes_logged(app, deployment) == before


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_the_short_way_refuses_what_the_long_way_refuses(
    app: App, loop: asyncio.Runner, data: st.DataObject
) -> None:
    """A body that goes straight to its deployment has the same status and the same error as through ASGI."""
    deployment = data.draw(st.sampled_from([MIXED, WINE]))
    right = bodies_of(signature_of(app, deployment))[f"/predict/{deployment}", JSON_KIND]
    body = data.draw(mutated(right) | bent(right) | st.binary(max_size=30))
    status, answer = loop.run(taken(app, deployment, body))
    other, written = loop.run(
        asked(app, f"/predict/{deployment}", body, {b"content-type": b"application/json"})
    )
    assert status == other < 500
    if status != 200:
        assert answer == json.loads(written)


DEEP = b"[" * 100_000
LITERALS: list[tuple[int, bytes]] = [
    (400, b""),
    (400, b" \r\n\t"),
    (400, b"[]"),
    (400, b"[ ]"),
    (400, DEEP),
    (400, DEEP + b"]" * 100_000),
    (400, b'{"size":' * 20_000),
    (400, b"\xef\xbb\xbf{}"),
    (400, "{}".encode("utf-16")),
    (400, b"nul"),
    (400, b"{} {}"),
    (400, b"[{}]]"),
    (400, b"'{}'"),
    (400, b'{"size": NaN}'),
    (400, b'{"size": Infinity}'),
    (400, b'{"size": -Infinity}'),
    (400, b'{"size": 0x10}'),
    (400, b'{"size": 01}'),
    (400, b'{"size": 1.}'),
    (400, b'{"town": "\xff"}'),
    (400, b'{"town": "a\nb"}'),
    (400, b'{"town": "\\x"}'),
    (400, b'{"town": "'),
    (422, b"null"),
    (422, b"true"),
    (422, b'"row"'),
    (422, b"1e999"),
    (422, b"[null]"),
    (422, b"[[]]"),
    (422, b"{}"),
    (422, b"[{}, {}]"),
    (422, b'{"": 1}'),
    (422, b'{"__class__": 1}'),
]


@pytest.mark.parametrize("case", LITERALS, ids=[str(body[:24]) for _, body in LITERALS])
def test_what_is_no_row_is_refused_with_its_status(
    app: App, loop: asyncio.Runner, case: tuple[int, bytes]
) -> None:
    """No JSON is 400, JSON that is no row is 422, on both ways."""
    wanted, body = case
    status, answer = loop.run(taken(app, MIXED, body))
    assert status == wanted, answer
    assert answer["error"]["message"]
    assert answer["error"].get("valid") or answer["error"].get("hint")


#: Values that no column of a type takes, as JSON.
WRONG: dict[str, list[bytes]] = {
    "double": [b'"1"', b"true", b"[1]", b"{}", b"1e999", b"-1e999", b"1" + b"0" * 400],
    "long": [b'"1"', b"1.5", b"true", b"9223372036854775808", b"-9223372036854775809", b"1e30", b"1" * 100],
    "boolean": [b"0", b"1", b'"true"', b"[]", b"1.0"],
    "string": [b"1", b"true", b"[]", b"{}", b"1.5"],
    "datetime": [b"1", b'"yesterday"', b'"2026-13-01T00:00:00"', b'"2026-02-30T00:00:00Z"', b'""', b"true"],
}


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_an_error_names_the_row_and_the_field(app: App, loop: asyncio.Runner, data: st.DataObject) -> None:
    """One wrong value, missing field or unknown name among right rows is found, whatever stands around it."""
    signature = signature_of(app, MIXED)
    rows = data.draw(good_rows(app, MIXED))
    at = data.draw(st.integers(0, len(rows) - 1))
    column = data.draw(st.sampled_from(signature.inputs))
    texts = [{name: as_json(value) for name, value in row.items()} for row in rows]
    what = data.draw(st.sampled_from(["value", "null", "missing", "unknown"]))
    field = column.name
    if what == "value":
        texts[at][field] = data.draw(st.sampled_from(WRONG[column.type]))
    elif what == "null" and column.required:
        texts[at][field] = b"null"
    elif what == "missing" and column.required:
        del texts[at][field]
    else:
        field = field + "s"
        texts[at][field] = b"1"
    body = b"[%b]" % b",".join(
        b"{%b}" % b",".join(b'"%b":%b' % (name.encode(), text) for name, text in row.items()) for row in texts
    )
    status, answer = loop.run(taken(app, MIXED, body))
    assert status == 422, body
    assert (answer["error"]["row"], answer["error"]["field"]) == (at, field), (body, answer)
    if field == column.name + "s":
        assert f"Did you mean {column.name!r}" in answer["error"]["valid"]


def as_logged(value: Any, kind: str) -> Any:
    """Return a value of a row as the log gives it back."""
    if value is None:
        return None
    if kind == "datetime":
        return value.astimezone(UTC).replace(tzinfo=None)
    return float(value) if kind == "double" else value


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_right_rows_are_answered_and_logged_exactly_as_scored(
    app: App, loop: asyncio.Runner, data: st.DataObject
) -> None:
    """Several requests at once: each gets a 200, and the log holds its inputs, its label and its probabilities."""
    deployment = data.draw(st.sampled_from([MIXED, WINE]))
    signature = signature_of(app, deployment)
    requests = data.draw(st.lists(good_rows(app, deployment), min_size=1, max_size=4))

    async def together() -> list[tuple[int, Any]]:
        return await asyncio.gather(*(taken(app, deployment, as_json(rows)) for rows in requests))

    with np.errstate(all="ignore"):
        answers = loop.run(together())
    assert [status for status, _ in answers] == [200] * len(requests), answers
    found = [one for _, answer in answers for one in answer["predictions"]]
    sent = [row for rows in requests for row in rows]
    assert len(found) == len(sent)
    names = [f"input_{name}" for name in signature.names]
    ids = ", ".join(f"'{one['prediction_id']}'" for one in found)
    table = PredictionStore(app.predictors[deployment].project).query(
        f"select * from predictions where prediction_id in ({ids})", deployment=deployment
    )
    logged = {row["prediction_id"]: row for row in table.to_pylist()}
    scorer = app.predictors[deployment].scorer
    service = app.short[f"/predict/{deployment}".encode()]
    route = app.predictors[deployment].route
    assert route is not None
    decoder: Any = service.codec("records", route)
    for row, one in zip(sent, found, strict=True):
        kept = logged[one["prediction_id"]]
        assert [kept[name] for name in names] == [
            as_logged(row[column.name], column.type) for column in signature.inputs
        ]
        assert kept["prediction"] == one["prediction"]
        # A number that is none, as one beyond all numbers times another gives, is left out of the answer.
        if "probability" in one:
            assert list(one["probability"].values()) == kept["probability"]
        else:
            assert not np.isfinite(kept["probability"]).all()
        alone = scorer.score(decoder.decoder.columns(decoder.decode(as_json([row]), {}).rows))
        assert alone.probability is not None
        np.testing.assert_allclose(kept["probability"], alone.probability[0], rtol=1e-9, atol=1e-12)


def test_odd_but_right_rows(app: App, loop: asyncio.Runner) -> None:
    """Half characters, extreme numbers, a name that is there twice, spaces and escapes are read as JSON says."""
    row = {one: value for one, value in example_row(signature_of(app, MIXED), 1).items() if one != "town"}
    text = as_json(row)[1:-1]
    store = PredictionStore(app.predictors[MIXED].project)
    for town, kept in (
        (b'"\\ud800"', "?"),
        (b'"\\udc00\\ud800x"', "??x"),
        (b'"\\ud83d\\ude00"', "😀"),
        (b'"\\u0000"', "\0"),
        (b'"\\u001f"', "\x1f"),
        (b'"\x7f\xe2\x80\xa8"', "\x7f\u2028"),
        (b'"' + b"x" * 50_000 + b'"', "x" * 50_000),
        (b'"first", "town": "second"', "second"),
        (b'""', ""),
        (b"null", None),
    ):
        body = b' \n{%b , "town" :\t%b } ' % (text, town)
        status, answer = loop.run(taken(app, MIXED, body))
        assert status in (200, 400), (town, answer)
        if status == 400:
            # Half a character is no text.
            assert b"\\ud800" in town, answer
            continue
        found = store.query(
            f"select input_town from predictions where prediction_id = '{answer['prediction_id']}'"
        )
        assert found.to_pylist() == [{"input_town": kept}]
    numbers = {
        "size": [b"-0.0", b"1e-400", b"1.7976931348623157e308", b"5e-324", b"1E5", b"12345678901234567890"],
        "count": [b"-9223372036854775807", b"9223372036854775807", b"-0"],
    }
    for name, values in numbers.items():
        for value in values:
            body = as_json(row | {name: None}).replace(
                f'"{name}":null'.encode(), b'"%b":%b' % (name.encode(), value)
            )
            with np.errstate(all="ignore"):
                status, answer = loop.run(taken(app, MIXED, body))
            assert status == 200, (name, value, answer)


HEADERS = [
    b"x-entity",
    b"x-request-id",
    b"x-variant",
    b"x-timeout-ms",
    b"traceparent",
    b"accept",
    b"x-deployment",
]
VALUES = st.binary(max_size=20) | st.sampled_from(
    [b"a" * 300, "müller".encode(), b"\xff", b"1", b"champion", b"99999999999999999999", b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01"]
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(st.sampled_from(HEADERS), VALUES), st.sampled_from(["/predict/wine-api", "/invocations"])
)
@example({b"x-timeout-ms": "²".encode()}, "/predict/wine-api")
@example({b"x-entity": b"a" * 256}, "/predict/wine-api")
def test_no_header_makes_the_server_fail(
    app: App, loop: asyncio.Runner, headers: dict[bytes, bytes], path: str
) -> None:
    """Any values of the headers that mean something are understood or refused; what is kept of them is what was sent."""
    row = example_row(signature_of(app, WINE), 1)
    body = as_json(row if path.startswith("/predict") else {"dataframe_records": [row]})
    status, answer = loop.run(asked(app, path, body, headers | {b"content-type": b"application/json"}))
    understood(status, answer)
    if status == 200 and path.startswith("/predict"):
        one = json.loads(answer)["prediction_id"]
        kept = PredictionStore(app.predictors[WINE].project).query(
            f"select entity, request_id, trace from predictions where prediction_id = '{one}'"
        )
        [found] = kept.to_pylist()
        assert found["entity"] == (wire.text(headers.get(b"x-entity", b"")) or one)
        wanted = wire.text(headers.get(b"x-request-id", b"")).replace("\x1f", "?")
        assert (found["request_id"] or "") == wanted


def test_what_a_refusal_shows_of_a_body_is_json_itself(
    app: App, loop: asyncio.Runner, tmp_path: Path
) -> None:
    """Names and values that are shown in an error are cut, and never break the answer."""
    for name in ("\ud800", "a" * 100_000, "\0", '"', "%s{}"):
        body = json.dumps({name: 1}).encode()
        for path in (f"/predict/{MIXED}", f"/v2/models/{MIXED}/infer", f"/deployments/{MIXED}/invocations"):
            status, answer = loop.run(asked(app, path, body, {b"content-type": b"application/json"}))
            assert 400 <= status < 500
            assert len(answer) < 4000
            msgspec.json.decode(answer)
