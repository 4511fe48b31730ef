"""What all protocols have in common."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from codec_rows import (
    MIXED,
    NUMBERS,
    answers,
    as_csv,
    as_file,
    as_json,
    as_parquet,
    as_stream,
    as_table,
    by_records,
    clean,
    columns_of,
    same,
)

from loopwright.deploy.online.codecs.base import Codec
from loopwright.deploy.online.codecs.invocations import Invocations
from loopwright.deploy.online.codecs.tables import Tables
from loopwright.deploy.online.codecs.v2 import Inference

ROWS: list[dict[str, Any]] = [{"a": 1.5, "b": None, "c": 2}, {"a": -1, "b": 0.25, "c": 3}]
_TENSOR = {"name": "X", "shape": [2, 3], "datatype": "FP64", "data": [1.5, None, 2, -1, 0.25, 3]}
CODECS: list[tuple[type[Codec], bytes, bytes]] = [
    (Tables, b"text/csv", b"a,b,c\n1.5,,2\n-1,0.25,3\n"),
    (Inference, b"application/json", as_json({"inputs": [_TENSOR]})),
    (Invocations, b"application/json", as_json({"dataframe_records": ROWS})),
]


@pytest.mark.parametrize(("kind", "content_type", "body"), CODECS)
@pytest.mark.parametrize("make", [bytes, bytearray])
def test_every_protocol_reads_and_answers(
    kind: type[Codec], content_type: bytes, body: bytes, make: type[bytes] | type[bytearray]
) -> None:
    """The same rows give the same columns, and the reply has the answers from where it is told."""
    codec = kind(NUMBERS)
    asked = codec.decode(make(body), {b"content-type": content_type})
    assert (asked.n, asked.single, asked.entities) == (2, False, None)
    same(columns_of(asked, NUMBERS), by_records(ROWS, NUMBERS))
    reply = codec.encode(answers(NUMBERS), 1, asked)
    assert reply.content_type == b"application/json"
    text = json.dumps(json.loads(reply.body))
    assert "id-1" in text
    assert "id-2" in text
    assert "id-0" not in text


@pytest.mark.parametrize("pair", [(b"[", b"]"), (b'{"a":', b"}")])
def test_nesting_of_any_depth_is_refused(pair: tuple[bytes, bytes]) -> None:
    """What is just not too deep to be read must not be too deep for the message about it either."""
    places = [
        (Invocations, b'{"inputs": %s}'),
        (Invocations, b'{"inputs": [[1, 2, %s]]}'),
        (Invocations, b'{"inputs": {"a": [1], "c": [%s]}}'),
        (Invocations, b'{"inputs": {"a": [1], "c": %s}}'),
        (Invocations, b'{"inputs": [[1, 2, 3]], "params": {"entity": %s}}'),
        (Invocations, b'{"dataframe_records": [{"a": 1, "c": %s}]}'),
        (Invocations, b'{"dataframe_split": {"columns": %s, "data": [[1]]}}'),
        (Inference, b'{"inputs": [], "parameters": {"entity": %s}}'),
        (Inference, b'{"inputs": [{"name": "X", "shape": [1, 3], "datatype": "FP64", "data": %s}]}'),
        (
            Inference,
            b'{"inputs": [{"name": "X", "shape": [1], "datatype": "FP64", "parameters": {"binary_data_size": %s}}]}',
        ),
    ]
    # pytest has frames of its own, so that the depth that is just too much is somewhat below Python's limit.
    for depth in (5, *range(800, 1010)):
        for kind, document in places:
            body = document % (depth * pair[0] + b"1" + depth * pair[1])
            clean(
                lambda kind=kind, body=body: kind(NUMBERS).decode(
                    body, {b"content-type": b"application/json"}
                )
            )


def test_no_heavy_library_is_imported() -> None:
    """Decoding and encoding import neither pandas nor MLflow nor scikit-learn, which a slim worker does without."""
    row = {
        "petal length (cm)": 1.5,
        "b.c": 2,
        "class": True,
        "town": "x",
        "at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    table = as_table([row, row | {"s`$[0]": "y", "flag": True}, row], MIXED)
    bodies = [as_csv(table), as_stream(table), as_file(table), as_parquet(table)]
    # The bodies are made here: pyarrow keeps pandas once it has it, and would not import it a second time.
    code = """
import sys
from codec_rows import MIXED, NUMBERS, answers
from loopwright.deploy.online.codecs import invocations, tables, v2
from test_codec_base import CODECS
heavy = {"pandas", "mlflow", "sklearn"}
assert not heavy & set(sys.modules)
for kind, content_type, body in CODECS:
    codec = kind(NUMBERS)
    codec.encode(answers(NUMBERS), 0, codec.decode(body, {b"content-type": content_type}))
for kind, body in zip(tables.CONTENT_TYPES, sys.stdin, strict=True):
    for accept in (b"", *tables.CONTENT_TYPES):
        codec = tables.Tables(MIXED)
        asked = codec.decode(bytes.fromhex(body), {b"content-type": kind, b"accept": accept})
        codec.encode(answers(MIXED), 0, asked)
invocations.version(), v2.metadata("d", MIXED, [1])
print(sorted(heavy & set(sys.modules)))
"""
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", code],
        input="\n".join(body.hex() for body in bodies),
        env=os.environ | {"PYTHONPATH": f"{here}:{here.parents[1] / 'support'}"},
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
