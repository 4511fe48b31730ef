"""What is left when there is no server framework either: one protocol on httptools and uvloop, one fixed answer.

    python echo_bare.py PORT SIZE

No limits, no timeouts, no errors: nothing that could go into service. It is the floor below which no Python server
can get, since parsing a request and writing an answer is all it does.
"""

import asyncio
import sys
from typing import Any

import httptools
import uvloop


class Echo(asyncio.Protocol):
    """Answers each whole request of a connection with the same bytes."""

    answer = b""

    def connection_made(self, transport: Any) -> None:
        """Keep the connection."""
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)
        self.body = b""

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body."""
        self.body += body

    def on_message_complete(self) -> None:
        """Answer."""
        self.body = b""
        self.transport.write(self.answer)


async def serve(port: int) -> None:
    """Serve until terminated."""
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", port)
    await server.serve_forever()


def main() -> None:
    """Serve until terminated."""
    port, size = int(sys.argv[1]), int(sys.argv[2])
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % size
    Echo.answer = head + b"x" * size
    uvloop.run(serve(port))


if __name__ == "__main__":
    main()
