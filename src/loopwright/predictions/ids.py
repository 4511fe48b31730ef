"""Prediction ids: unique over processes, sortable by time, and checkable without looking anything up.

An id is 32 lowercase hexadecimal digits: 12 of time, 12 that make it unique, and 8 of a keyed hash over the first 24.
The keyed hash lets a label be refused at once when its id was never issued by this project; it is a guard against
mix-ups and typing errors, not a secret to build permissions on.

One keyed hash of 64 bytes, over the first 23 digits, holds those of sixteen ids that differ in the 24th, which chooses
four of its bytes: ids that are issued together cost a sixteenth of a hash each.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import threading

import numpy as np

from loopwright.config import Project
from loopwright.errors import Damaged, Denied, NotFound

__all__ = ["HOLDOUT_DIGITS", "Ids"]

#: A labelled row belongs to the holdout split when the last digit of its id is one of these: one row in four, the
#: same rows for ever, whoever asks. The last digit is part of the keyed hash and so evenly spread.
HOLDOUT_DIGITS = "0123"
KEY_BYTES = 32
_HEX = frozenset("0123456789abcdef")
_UNIQUE = 1 << 48
#: 2000 and 2100 in milliseconds since 1970: a derived id, which has no time, is seldom between them.
_FIRST_MS, _LAST_MS = 946_684_800_000, 4_102_444_800_000
_TIME = (1 << 48) - 1


class Ids:
    """Issues and checks the ids of one project. Safe to share between threads and to carry over a fork.

    Parameters
    ----------
    key
        The project's secret key, 16 to 32 bytes.

    Examples
    --------
    >>> ids = Ids(bytes(32))
    >>> first, second = ids.new(2, at_us=1_790_000_000_000_000)
    >>> Ids.time_us(first)
    1790000000000000
    >>> first == second
    False
    >>> ids.check(first)
    >>> ids.derive("digits-batch", "row-7") == ids.derive("digits-batch", "row-7")
    True
    """

    def __init__(self, key: bytes) -> None:
        self._mac = hashlib.blake2b(key=key, digest_size=64)
        self._lock = threading.Lock()
        self._pid = 0
        self._next = 0

    @classmethod
    def open(cls, project: Project) -> Ids:
        """Open the ids of a project; its key is created once, even when many processes ask at the same moment.

        Raises
        ------
        Damaged
            The key file does not hold a key.
        Denied
            The key file cannot be read or written.
        """
        return cls(_key(project))

    def new(self, n: int, at_us: int) -> list[str]:
        """Return `n` new ids for predictions made at `at_us`, in microseconds since 1970 UTC (>= 0)."""
        return self.issue(n, at_us)[0]

    def issue(self, n: int, at_us: int) -> tuple[list[str], bytes]:
        """Return `n` new ids as `new` does, n >= 1, and the same ids as 16 bytes each."""
        with self._lock:
            if self._pid != os.getpid():
                # Also after a fork, so that parent and child do not issue the same ids.
                self._pid, self._next = os.getpid(), secrets.randbelow(_UNIQUE)
            if self._next + n > _UNIQUE:
                self._next = 0
            first = self._next
            self._next += n
        time = at_us // 1000
        if n == 1:
            one = self._signed(f"{time:012x}{first:012x}")
            return [one], bytes.fromhex(one)
        blocks = range(first >> 4, ((first + n - 1) >> 4) + 1)
        hashes = b"".join([self._hash(f"{time:012x}{block:011x}") for block in blocks])
        counters = np.arange(first, first + n, dtype=np.uint64)
        words = np.empty((n, 2), ">u8")
        words[:, 0] = np.uint64((time & _TIME) << 16) | (counters >> np.uint64(32))
        tags = np.frombuffer(hashes, ">u4")[first & 15 :][:n]
        words[:, 1] = (counters << np.uint64(32)) | tags
        raw = words.tobytes()
        text = raw.hex()
        return [text[at : at + 32] for at in range(0, 32 * n, 32)], raw

    def derive(self, *parts: str) -> str:
        """Return the id that always belongs to these parts, such as a batch source and the key of a row.

        Computing the same row again gives the same id. Such an id carries no time.
        """
        digest = hashlib.blake2s(digest_size=12)
        for part in parts:
            raw = part.encode()
            digest.update(len(raw).to_bytes(8, "big") + raw)
        return self._signed(digest.hexdigest())

    def check(self, prediction_id: str) -> None:
        """Raise `NotFound` when this is not an id that the project issued."""
        known = len(prediction_id) == 32 and _HEX.issuperset(prediction_id)
        if not known or not hmac.compare_digest(self._signed(prediction_id[:24]), prediction_id):
            raise NotFound(
                f"There is no prediction {prediction_id[:64]!r} in this project.",
                valid="An id is the 32 hexadecimal digits that came back with the prediction.",
                hint="loopwright prediction list",
                prediction_id=prediction_id[:64],
            )

    @staticmethod
    def time_us(prediction_id: str) -> int:
        """Return when an id from `new` was issued, in microseconds since 1970 UTC, cut to the millisecond."""
        return int(prediction_id[:12], 16) * 1000

    @staticmethod
    def issued(prediction_id: str) -> bool:
        """Whether this has the form of an id, and the time it begins with is one of this century."""
        known = len(prediction_id) == 32 and _HEX.issuperset(prediction_id)
        return known and _FIRST_MS <= int(prediction_id[:12], 16) < _LAST_MS

    def _hash(self, start: str) -> bytes:
        mac = self._mac.copy()
        mac.update(start.encode("ascii"))
        return mac.digest()

    def _signed(self, body: str) -> str:
        place = 4 * int(body[23], 16)
        return body + self._hash(body[:23])[place : place + 4].hex()


def _key(project: Project) -> bytes:
    path = project.state / "project.key"
    try:
        if not path.exists():
            temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_hex(KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
            # A hard link appears whole and never replaces a key that another process made meanwhile.
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)
            temporary.unlink()
        text = path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise Denied(
            f"The key {path} cannot be read or made: {error.strerror}.", hint=f"ls -l {path.parent}"
        ) from error
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise Damaged(
            f"{path} does not hold a key.",
            valid=f"It is {2 * KEY_BYTES} hexadecimal digits; without the first key, earlier ids cannot be checked.",
            hint=f"restore {path.name} from a backup",
        )
    return key
