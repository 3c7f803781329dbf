"""Our HTTP protocol and the front together, on a real socket in this process."""

import asyncio
import gc

import uvicorn

from runtime.protocol import Protocol
from tests.http.application import Application, made, serving

REQUEST = (
    b'POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 23\r\n\r\n{"instances": [[1, 2]]}'
)


def test_answered_requests_leave_nothing_to_the_collector() -> None:
    """What it has to find would cost every request, and stall all of them now and then."""

    async def talk(application: Application) -> None:
        config = uvicorn.Config(application.front, http=Protocol, interface="asgi3", lifespan="off", log_config=None)
        config.load()
        state, loop = uvicorn.Server(config).server_state, asyncio.get_running_loop()
        server = await loop.create_server(lambda: Protocol(config, state, {}, loop), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())

        async def ask(times: int) -> None:
            for _ in range(times):
                writer.write(REQUEST)
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200 ")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                await reader.readexactly(length)

        await ask(5)
        gc.collect()
        gc.disable()
        try:
            await ask(100)
            assert gc.collect() < 100
        finally:
            gc.enable()
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    serving(made(), talk)
