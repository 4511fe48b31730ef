"""What Schemathesis sends where a body is no JSON: real tables and tensors, damaged ones, and plain noise.

Loaded by Schemathesis in its own process; the folder in LOOPWRIGHT_BODIES holds the real bodies, named by their kind.
"""

import os
from pathlib import Path

import schemathesis
from hypothesis import strategies as st

TYPES = {
    "csv": "text/csv",
    "arrow": "application/vnd.apache.arrow.stream",
    "arrow_file": "application/vnd.apache.arrow.file",
    "parquet": "application/vnd.apache.parquet",
    "tensors": "application/octet-stream",
}


def damaged(body: bytes) -> st.SearchStrategy[bytes]:
    """Return bodies that are cut short, or have a few bytes changed."""
    places = st.integers(0, len(body) - 1)
    cut = places.map(lambda at: body[:at])

    def changed(changes: list[tuple[int, int]]) -> bytes:
        made = bytearray(body)
        for at, byte in changes:
            made[at] = byte
        return bytes(made)

    return cut | st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=4).map(changed)


def register() -> None:
    """Tell Schemathesis what to send for each type."""
    folder = Path(os.environ["LOOPWRIGHT_BODIES"])
    for kind, media_type in TYPES.items():
        real = [path.read_bytes() for path in sorted(folder.glob(f"*.{kind}"))]
        strategy: st.SearchStrategy[bytes] = st.binary(max_size=200)
        for body in real:
            strategy |= st.just(body) | damaged(body)
        schemathesis.openapi.media_type(media_type, strategy)


register()
