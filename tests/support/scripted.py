"""A bare server on a real socket that says what a test wrote down, byte by byte."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Script:
    """A bare server: gives the scripted answers in turn, then the last one forever, and keeps what it was sent.

    `closes`: whether a connection ends with its answer; else it stays open for one more request. `drip_s`: seconds between
    the bytes of a body; a token is not sent in drips.
    """

    answers: Sequence[bytes]
    requests: list[bytes] = field(default_factory=list)
    url: str = ""
    closes: bool = True
    drip_s: float = 0
    handlers: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def heads(self) -> list[str]:
        return [request.partition(b"\r\n\r\n")[0].decode() for request in self.requests]

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.handlers.append(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):  # the client has left
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?i)\r\ncontent-length: *([0-9]+)", head)
                self.requests.append(head + await reader.readexactly(int(length[1]) if length else 0))
                said = self.answers[min(len(self.requests), len(self.answers)) - 1]
                is_whole = not self.drip_s or b"access_token" in said
                drips = b"" if is_whole else said.partition(b"\r\n\r\n")[2]
                writer.write(said[: len(said) - len(drips)])
                for byte in drips:
                    await asyncio.sleep(self.drip_s)
                    writer.write(bytes([byte]))
                    await writer.drain()
                await writer.drain()
                if self.closes:
                    break
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def answer(body: Any = None, status: int = 200, **headers: str) -> bytes:
    """The bytes of an answer; a body that is no bytes goes out as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(content)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


@asynccontextmanager
async def scripted(*answers: bytes) -> AsyncIterator[Script]:
    script = Script(answers)
    server = await asyncio.start_server(script.accept, "127.0.0.1", 0)
    script.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/api/v1"
    async with server:
        yield script
        await asyncio.wait_for(asyncio.gather(*script.handlers), 5)


def token_answer(number: int = 1, expires_in: int = 3600) -> bytes:
    return answer(
        {
            "access_token": f"at-{number}",
            "token_type": "Bearer",
            "refresh_token": f"rt-{number}",
            "expires_in": expires_in,
        }
    )


@contextmanager
def serving(*answers: bytes, tls: ssl.SSLContext | None = None) -> Iterator[Script]:
    """The same in a thread of its own, for a client that waits; with a context it speaks TLS."""
    script = Script(answers)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="scripted", daemon=True)
    thread.start()

    async def start() -> asyncio.Server:
        return await asyncio.start_server(script.accept, "127.0.0.1", 0, ssl=tls)

    async def stop(server: asyncio.Server) -> None:
        server.close()
        await server.wait_closed()
        await asyncio.wait(script.handlers or [asyncio.create_task(asyncio.sleep(0))], timeout=5)

    server = asyncio.run_coroutine_threadsafe(start(), loop).result(5)
    port = server.sockets[0].getsockname()[1]
    script.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}/api/v1"
    try:
        yield script
    finally:
        asyncio.run_coroutine_threadsafe(stop(server), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()
