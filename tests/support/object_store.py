"""An S3 server of its own for tests, and an environment that points at it."""

import contextlib
from collections.abc import Iterator

import pyarrow.fs as pafs
import pytest
from one_server import free_port


@contextlib.contextmanager
def object_store(bucket: str) -> Iterator[pafs.S3FileSystem]:
    """Run an S3 server with one bucket."""
    from moto.server import ThreadedMotoServer

    port = free_port()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            ("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}"),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ):
            patch.setenv(name, value)
        patch.delenv("AWS_PROFILE", raising=False)
        made = pafs.S3FileSystem(
            endpoint_override=f"127.0.0.1:{port}",
            scheme="http",
            region="us-east-1",
            allow_bucket_creation=True,
        )
        made.create_dir(bucket)
        yield made
    server.stop()
