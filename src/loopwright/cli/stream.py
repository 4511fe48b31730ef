"""``loopwright stream``: messages in and out of stream deployments."""

import sys
from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import Parameter

from loopwright.cli.output import COMMON, Common, console, emit
from loopwright.errors import InvalidInput

__all__ = ["app"]

app = cyclopts.App(name="stream", help="Send to and read from the channels of stream deployments.")


@app.command
def send(
    deployment: str,
    file: Annotated[Path | None, Parameter(help="JSON lines; standard input when left out.")] = None,
    /,
    *,
    key: Annotated[
        str | None, Parameter(help="The field that names a message; else its line number.")
    ] = None,
    common: Common = COMMON,
) -> None:
    """Send one message per JSON line to the source of a stream deployment.

    For example:

        loopwright stream send demand-stream rows.jsonl --key id
    """
    import msgspec

    from loopwright.deploy import stream

    lines = (file.read_text() if file else sys.stdin.read()).splitlines()
    messages: list[tuple[str, bytes]] = []
    for number, line in enumerate(filter(str.strip, lines), 1):
        try:
            row = msgspec.json.decode(line)
        except msgspec.DecodeError as error:
            raise InvalidInput(
                f"Line {number} is not JSON: {error}.", hint="one JSON object per line"
            ) from error
        messages.append(
            (str(row.get(key, number)) if key and isinstance(row, dict) else str(number), line.encode())
        )
    project = common.open()
    channel = stream.source(project, deployment)
    channel.publish(messages)
    channel.close()
    console.print(f"Sent {len(messages)} messages to {deployment}.")


@app.command
def show(deployment: str, /, *, common: Common = COMMON) -> None:
    """Show how far a stream deployment is: messages waiting, answered and refused.

    For example:

        loopwright stream show demand-stream
    """
    from loopwright.deploy import stream

    emit(stream.progress(common.open(), deployment))
