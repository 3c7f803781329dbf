"""The ceiling: an ASGI application that does nothing, for stock uvicorn with uvloop and httptools.

It reads the whole body, since any service has to, and answers every path with one fixed document that is as long as the
answer of a real model, so that both send the same number of bytes. What the runtime adds to this is the runtime's cost.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]

ANSWER = b'{"prediction":1,"probability":[0.012345678901234567,0.9876543210987654]}'
HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode())]


async def app(_scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]) -> None:
    """Answer one request; started with `--lifespan off`, so that the scope is always a request's."""
    while (await receive()).get("more_body", False):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": ANSWER})
