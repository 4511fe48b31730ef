"""The key pair that signs a project's bundles, ed25519."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from loopwright.config import Project
from loopwright.errors import Damaged, Denied, NotFound

__all__ = ["PUBLIC", "Signer", "check", "fingerprint", "read_public"]

PRIVATE = "edge-key"
PUBLIC = "edge-key.pub"


class Signer:
    """The project's own key, made on first use and readable by its owner alone."""

    def __init__(self, project: Project) -> None:
        path = project.state / PRIVATE
        if not path.exists():
            _create(path)
        try:
            key = load_pem_private_key(path.read_bytes(), password=None)
        except PermissionError as error:
            raise Denied(f"The key {path} cannot be read: no permission.", hint=f"ls -l {path}") from error
        except ValueError as error:
            raise Damaged(
                f"{path} is no private key: {error}.", hint="restore it; devices trust only bundles it signed"
            ) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise Damaged(f"{path} is a key of another kind than ed25519.", hint="restore it")
        self._key = key
        self.public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        public = project.state / PUBLIC
        if not public.exists() or public.read_bytes() != self.public:
            public.write_bytes(self.public)

    def sign(self, data: bytes) -> bytes:
        """Return the signature of `data` as one line of base64."""
        return base64.b64encode(self._key.sign(data)) + b"\n"


def _create(path: Path) -> None:
    """Write a new key as a whole under the final name; the first of several processes wins."""
    text = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    with contextlib.suppress(FileExistsError):
        os.link(temporary, path)
    temporary.unlink()


def check(public: bytes, data: bytes, signature: bytes) -> None:
    """Check that the owner of a public key (PEM) signed `data`.

    Raises
    ------
    Damaged
        The key or the signature cannot be read, or the signature is of other data or by another key.
    """
    try:
        key = load_pem_public_key(public)
        if not isinstance(key, Ed25519PublicKey):
            raise Damaged("The public key is of another kind than ed25519.")
        key.verify(base64.b64decode(signature.strip(), validate=True), data)
    except (ValueError, binascii.Error) as error:
        raise Damaged(f"The public key or the signature cannot be read: {error}.") from error
    except InvalidSignature:
        raise Damaged(
            f"The signature does not hold: the manifest was changed, or signed by another key than {fingerprint(public)}.",
            hint="bundle it again: loopwright edge bundle NAME",
        ) from None


def fingerprint(public: bytes) -> str:
    """Return a short name of a public key: the first 16 hex digits of its SHA-256."""
    return hashlib.sha256(public).hexdigest()[:16]


def read_public(path: Path) -> bytes:
    """Read a public key's file.

    Raises
    ------
    NotFound
        There is none.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise NotFound(
            f"There is no public key {path}.", valid=f"A project keeps its own in .loopwright/{PUBLIC}."
        ) from None
