"""The least that an ASGI application can do on uvicorn: read the body, answer with one of the given size.

    python echo_asgi.py PORT SIZE

The server is set up as the serving worker sets up its own, so that what is left over is the work of answering.
"""

import sys
from typing import Any

import uvicorn


def main() -> None:
    """Serve until terminated."""
    port, size = int(sys.argv[1]), int(sys.argv[2])
    answer = b"x" * size
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % size)]

    async def echo(scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        assert scope["type"] == "http"
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    uvicorn.run(
        echo,
        host="127.0.0.1",
        port=port,
        http="httptools",
        loop="uvloop",
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_keep_alive=75,
    )


if __name__ == "__main__":
    main()
