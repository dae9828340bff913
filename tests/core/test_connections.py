"""On which connection a request goes out, and whose answer it takes; also while an account is opened."""

from __future__ import annotations

import asyncio
import base64
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest
from scripted import answer, scripted
from wire import CONN, KEY, journal_of, opened_state, run_from

from crashes.clock import NOON, Clock
from feedamp.api.account import FeedAmpAccount
from feedamp.api.clients import Clients
from feedamp.api.oauth import Credentials
from feedamp.api.transport import Endpoint, Transport
from feedamp.errors import ConfigurationError, TransientError, UnclearError
from feedamp.state.token_cipher import TokenCipher

KEPT = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def served(serve: Serve, **options: float) -> AsyncIterator[Transport]:
    handlers = list[asyncio.Task[None]]()

    async def until_left(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await serve(reader, writer)
        writer.close()

    server = await asyncio.start_server(
        lambda *streams: handlers.append(asyncio.create_task(until_left(*streams))), "127.0.0.1", 0
    )
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        async with Transport(Endpoint(url, **options)) as transport:  # type: ignore[arg-type]
            yield transport
        await asyncio.wait_for(asyncio.gather(*handlers), 5)


async def test_what_a_server_sends_unasked_answers_no_request() -> None:
    async def say_twice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(KEPT + b"1")
        await asyncio.sleep(0.05)
        writer.write(KEPT + b"2")
        await reader.readuntil(b"\r\n\r\n")

    async with served(say_twice) as transport:
        got = await transport.send("GET", "/orders", in_room=True)
        await asyncio.sleep(0.2)
        with pytest.raises(TransientError) as caught:
            await transport.send("PUT", "/orders/M-1", body=b"{}", in_room=True)
        again = await transport.send("GET", "/orders", in_room=True)
    assert (got.body, again.body) == (b"1", b"1")
    assert type(caught.value) is TransientError


async def test_an_answer_that_comes_too_late_is_not_the_next_ones() -> None:
    asked = 0

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        while head := await reader.readuntil(b"\r\n\r\n"):
            asked += 1
            if asked == 1:
                await asyncio.sleep(0.3)
            writer.write(KEPT + head[5:6])

    async with served(echo, max_connections=1) as transport:
        with pytest.raises(UnclearError):
            await transport.send("GET", "/a", in_room=True, timeout_s=0.1)
        assert (await transport.send("GET", "/b", in_room=True)).body == b"b"


async def test_nothing_more_is_sent_of_a_request_that_was_given_up() -> None:
    """It could take effect after one that was sent later."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor() as threads:
        listener.settimeout(5)
        accepted = threads.submit(listener.accept)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with Transport(Endpoint(url, timeout_s=0.5)) as transport:
            with pytest.raises(UnclearError):
                await transport.send("PUT", "/orders/M-1", body=bytes(40 << 20), in_room=True)
            connection, _ = accepted.result()
            with connection:
                received = await asyncio.to_thread(
                    lambda: sum(map(len, iter(partial(_read, connection), b"")))
                )
    assert received < 40 << 20


def _read(connection: socket.socket) -> bytes:
    connection.settimeout(5)
    try:
        return connection.recv(1 << 20)
    except ConnectionResetError:
        return b""


async def test_a_transport_ends_beside_a_request_that_its_server_does_not_take() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        transport = await Transport(Endpoint(f"http://127.0.0.1:{silent.getsockname()[1]}")).__aenter__()
        has_left = asyncio.Event()
        sending = asyncio.create_task(
            transport.send("PUT", "/orders/M-1", body=bytes(40 << 20), on_leaving=lambda _: has_left.set())
        )
        await asyncio.wait_for(has_left.wait(), 5)
        await asyncio.wait_for(transport.__aexit__(None, None, None), 5)
        with pytest.raises(UnclearError):
            await sending


async def test_head_is_answered_without_a_body_and_a_post_has_a_length() -> None:
    said = b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n"
    async with scripted(said, answer()) as script:
        async with Transport(Endpoint(script.url, timeout_s=5)) as transport:
            assert (await transport.send("HEAD", "/orders")).body == b""
            await transport.send("POST", "/orders")
    assert ["content-length: 0" in head.lower() for head in script.heads] == [False, True]


async def test_a_body_without_a_length_ends_with_its_connection() -> None:
    async with scripted(b"HTTP/1.1 200 OK\r\n\r\n[1]") as script:
        async with Transport(Endpoint(script.url)) as transport:
            assert (await transport.send("GET", "/orders")).body == b"[1]"


async def test_a_proxy_is_told_where_a_request_goes_and_who_asks() -> None:
    async with scripted(answer()) as proxy:
        with_login = proxy.url.removesuffix("/api/v1").replace("://", "://us%40er:pass@")
        endpoint = Endpoint("http://feedamp.invalid/api/v1", allow_http=True, proxy=with_login)
        async with Transport(endpoint) as transport:
            await transport.send("GET", "/orders?page_size=10")
    first, *headers = proxy.heads[0].split("\r\n")
    assert first == "GET http://feedamp.invalid/api/v1/orders?page_size=10 HTTP/1.1"
    assert f"Proxy-Authorization: Basic {base64.b64encode(b'us@er:pass').decode()}" in headers
    assert "Host: feedamp.invalid" in headers


async def test_a_proxy_that_refuses_a_tunnel_sees_no_request() -> None:
    async with scripted(answer(status=407)) as proxy:
        login = proxy.url.replace("://", "://me:p%40w@").removesuffix("/api/v1")
        async with Transport(Endpoint("https://localhost:9/api/v1", proxy=login)) as transport:
            with pytest.raises(TransientError) as caught:
                await transport.send(
                    "PUT", "/orders/M-1", headers={"Authorization": "Bearer at-1"}, body=b"{}"
                )
    assert type(caught.value) is TransientError
    assert proxy.heads[0].startswith("CONNECT localhost:9 HTTP/1.1\r\n")
    assert "Proxy-Authorization: Basic bWU6cEB3" in proxy.heads[0]
    assert "at-1" not in str(proxy.requests)


@pytest.mark.parametrize(
    "proxy",
    ["http://me:pw@proxy:port", "proxy.example:3128", "//me:pw@proxy.example", "socks5://proxy.example"],
)
async def test_a_proxy_that_is_no_address_is_refused_without_its_password(proxy: str) -> None:
    with pytest.raises(ConfigurationError, match="must be a whole http address") as caught:
        async with Transport(Endpoint("https://feedamp.invalid/api/v1", proxy=proxy)):
            pass
    assert "pw" not in str(caught.value)


async def test_who_waits_no_longer_for_an_account_leaves_the_others_waiting() -> None:
    may_be_found = threading.Event()

    def find(_conn_id: str) -> FeedAmpAccount:
        may_be_found.wait(10)
        return FeedAmpAccount(Endpoint("http://127.0.0.1:9/api/v1"), Credentials(CONN, "mkt", "secret"), 1.0)

    with opened_state(Clock(keeps_still=True)) as state:
        clients = Clients(
            state,
            TokenCipher(KEY),
            journal_of(state),
            find,
            run=run_from(NOON),
            sleep=asyncio.sleep,
            on_secret=lambda _secret: None,
            before_change=lambda: None,
        )
        async with clients:
            first, second = (asyncio.create_task(clients.tokens(CONN)) for _ in range(2))
            await asyncio.sleep(0.05)
            first.cancel()
            await asyncio.wait({first})
            may_be_found.set()
            assert await asyncio.wait_for(second, 5) is await clients.tokens(CONN)
