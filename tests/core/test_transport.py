"""A single request: what is sent, what is returned as an answer, and what raises which error."""

from __future__ import annotations

import asyncio
import gc
import gzip
import logging
import socket
import threading
import time
import traceback
import weakref
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial

import pytest
from scripted import answer, scripted, serving

from feedamp.api import transport as transport_module
from feedamp.api.transport import (
    Answer,
    Endpoint,
    Transport,
)
from feedamp.errors import ConfigurationError, StoreAwayError, TransientError, UnclearError

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
TOKEN = "at-very-secret"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("https://feedamp.example/api/v1", id="https"),
        pytest.param("http://localhost:8080/api/v1", id="http to localhost"),
        pytest.param("http://127.0.0.1:8080/api/v1", id="http to 127.0.0.1"),
        pytest.param("http://[::1]:8080/api/v1", id="http to the IPv6 loopback"),
    ],
)
def test_an_address_is_https_or_loopback(url):
    assert Endpoint(url).base_url == url


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://feedamp.example/api/v1", id="http to another machine"),
        pytest.param("http://127.0.0.1.feedamp.example/api/v1", id="a name that looks like loopback"),
        pytest.param("ftp://feedamp.example/api/v1", id="another protocol"),
        pytest.param("feedamp.example/api/v1", id="no protocol"),
        pytest.param("https:///api/v1", id="no host"),
        pytest.param("https://me:pw@feedamp.example/api/v1", id="a password"),
        pytest.param("https://feedamp.example/api/v1?key=1", id="a query"),
        pytest.param("https://feedamp.example/api/v1#top", id="a fragment"),
    ],
)
def test_any_other_address_is_refused_without_showing_it(url):
    with pytest.raises(ConfigurationError) as caught:
        Endpoint(url)
    assert url not in str(caught.value)


def test_allow_http_permits_http_to_another_machine():
    assert Endpoint("http://feedamp.example/api/v1", allow_http=True).allow_http


@pytest.mark.parametrize("end", ["", "/"], ids=["base URL without a slash", "base URL with a slash"])
async def test_the_path_is_sent_below_the_base_url_as_it_was_encoded(end):
    async with scripted(answer()) as script, Transport(Endpoint(script.url + end)) as transport:
        await transport.send("GET", "/orders/a%2Fb%20c?cursor=%2B%3D&mp_order_numbers=a,b")
    line = "GET /api/v1/orders/a%2Fb%20c?cursor=%2B%3D&mp_order_numbers=a,b HTTP/1.1"
    assert script.heads[0].split("\r\n")[0] == line


async def test_an_answer_of_any_status_comes_back_whole():
    async with scripted(answer(b"no such order", 404, X_Trace="7")) as script:
        async with Transport(Endpoint(script.url)) as transport:
            got = await transport.send("GET", "/orders/M-1")
    assert (got.status, got.headers["x-trace"], got.body) == (404, "7", b"no such order")


async def test_a_header_may_repeat_long_queries():
    link = ", ".join(
        f'</orders?mp_order_numbers={"M-1," * 1000}>; rel="{page}"' for page in ("self", "next", "first")
    )
    async with scripted(answer(b"[]", Link=link)) as script, Transport(Endpoint(script.url)) as transport:
        assert (await transport.send("GET", "/orders")).headers["link"] == link


async def test_an_answer_goes_with_the_last_who_holds_it():
    """Pages are large, and the garbage collector runs seldom while they are read."""
    async with scripted(answer(body="x" * 100_000), answer()) as script:
        async with Transport(Endpoint(script.url)) as transport:
            gc.collect()
            gc.disable()
            try:
                seen = weakref.ref(await transport.send("GET", "/orders"))
                await transport.send("GET", "/orders")  # what the first left in both loops is done
                assert seen() is None
            finally:
                gc.enable()


async def test_a_body_is_sent_as_it_is_and_its_type_is_what_the_caller_says():
    async with scripted(answer()) as script, Transport(Endpoint(script.url)) as transport:
        for headers in ({"Content-Type": "application/json"}, {}):
            await transport.send("PUT", "/orders/M-1", headers=headers, body=b'{"a":1}')
    assert all(request.endswith(b'\r\n\r\n{"a":1}') for request in script.requests)
    assert ["Content-Type: application/json" in head for head in script.heads] == [True, False]
    assert "Content-Type" not in script.heads[1]


async def test_a_form_goes_out_as_a_form_with_nothing_else_in_the_headers():
    async with scripted(answer()) as script, Transport(Endpoint(script.url)) as transport:
        await transport.send("POST", "/access_token", body={"code": "a+b c"})
    assert script.requests[0].endswith(b"\r\n\r\ncode=a%2Bb+c")
    names = {line.partition(":")[0].lower() for line in script.heads[0].split("\r\n")[1:]}
    of_the_body = {"content-length", "content-type"}
    assert names == {"host", "user-agent", "accept", "accept-encoding", "connection"} | of_the_body


async def test_cookies_are_never_sent_back():
    async with scripted(answer(Set_Cookie="session=of-another-seller; Path=/")) as script:
        async with Transport(Endpoint(script.url)) as transport:
            await transport.send("GET", "/orders")
            await transport.send("GET", "/orders")
    assert "cookie:" not in script.heads[1].lower()


async def test_a_redirect_is_an_answer_and_not_followed():
    async with (
        scripted(answer()) as elsewhere,
        scripted(answer(status=307, Location=elsewhere.url)) as script,
    ):
        async with Transport(Endpoint(script.url)) as transport:
            got = await transport.send("GET", "/orders", headers=BEARER)
    assert (got.status, elsewhere.requests) == (307, [])


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://127.0.0.1:{}/api/v1", id="a refused connection"),
        pytest.param("https://feedamp.invalid/api/v1", id="an unknown host"),
    ],
)
async def test_without_a_listening_server_the_request_had_no_effect(url):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        error = await failure(url.format(unused.getsockname()[1]), "POST")
    assert type(error) is TransientError


LOST = [
    pytest.param(b"", id="closed without a byte"),
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", id="cut in the middle"),
    pytest.param(b"SMTP ready\r\n\r\n", id="no HTTP at all"),
    pytest.param(
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Encoding: gzip\r\n\r\nabc", id="wrongly compressed"
    ),
]


@pytest.mark.parametrize("lost", LOST)
async def test_an_answer_that_is_not_whole_is_unclear(lost):
    async with scripted(lost) as script:
        assert isinstance(await failure(script.url, "PUT"), UnclearError)


async def test_an_answer_that_takes_too_long_is_unclear():
    async with scripted(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n") as script:
        script.closes = False
        assert isinstance(await failure(script.url, "PUT", timeout_s=0.05), UnclearError)


async def test_an_answer_is_read_while_the_step_waits_for_its_database():
    is_read = threading.Event()

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65_536)
            size = 30 * 2**20  # more than the buffers of a connection hold
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))
            is_read.set()

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor() as threads:
        serving = threads.submit(serve, listener)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/api/v1"
        was_read: list[bool] = []
        async with Transport(Endpoint(url)) as transport:
            answered = await transport.send(
                "GET", "/orders", in_room=True, on_leaving=lambda _: was_read.append(is_read.wait(10))
            )
        serving.result()
    assert (answered.status, was_read) == (200, [True])


async def test_an_answer_is_read_although_the_process_stood_still_until_the_timeout(monkeypatch):
    monkeypatch.setattr(transport_module, "_STOOD_STILL_S", 0.1)
    async with scripted(answer(bytes(2_000_000))) as script:
        async with Transport(Endpoint(script.url, timeout_s=0.3)) as transport:
            stand_still = partial(transport._network.loop.call_soon_threadsafe, time.sleep, 0.6)
            got = await transport.send("PUT", "/orders/1", in_room=True, on_leaving=lambda _: stand_still())
        assert (len(got.body), len(script.requests)) == (2_000_000, 1)


async def test_answers_of_one_moment_survive_what_a_signal_raises_among_them():
    """Airflow ends a task that takes too long by an exception that is no `Exception`; an event loop swallows it."""

    class TimeIsOverError(BaseException):
        pass

    struck: list[int] = []

    def strike() -> None:
        struck.append(len(struck))
        if len(struck) == 1:
            raise TimeIsOverError

    def wait_for_its_database(transport: Transport) -> None:
        ends_at = time.monotonic() + 5
        while len(transport._home._waiting) < 5 and time.monotonic() < ends_at:
            time.sleep(0.01)  # both requests leave, and both answers come

    swallowed: list[type[BaseException]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: swallowed.append(type(context["exception"])))
    with serving(answer()) as script:
        async with Transport(Endpoint(script.url)) as transport:
            sends = [asyncio.create_task(transport.send("GET", f"/orders/{number}")) for number in (1, 2)]
            await asyncio.sleep(0)
            transport._home.add(strike)
            wait_for_its_database(transport)
            got = await asyncio.wait_for(asyncio.gather(*sends), timeout=5)
            requests = transport.requests
            with pytest.raises(TimeIsOverError):  # the task that was to end does so before it sends more
                await transport.send("GET", "/orders/3")
            assert transport.requests == requests
    assert ([found.status for found in got], struck) == ([200, 200], [0, 1])
    assert swallowed == [TimeIsOverError]
    transport = await Transport(Endpoint(script.url)).__aenter__()
    struck.clear()
    transport._home.add(strike)
    await asyncio.sleep(0.01)
    with pytest.raises(TimeIsOverError):  # or at its end, if it sends no more
        await transport.__aexit__(None, None, None)


@pytest.mark.parametrize("is_taken", [True, False], ids=["taken in the callback", "left to the task"])
async def test_that_a_request_left_is_told_to_its_task_unless_a_callback_took_it(is_taken):
    in_callback, in_task = list[float](), list[float]()

    def take(left_at: float) -> bool:
        in_callback.append(left_at)
        return is_taken

    async with scripted(answer()) as script, Transport(Endpoint(script.url)) as transport:
        got = await transport.send("GET", "/orders", tell_at_once=take, on_leaving=in_task.append)
    assert (got.status, len(in_callback), in_task) == (200, 1, [] if is_taken else in_callback)


async def test_a_request_that_a_signal_ended_is_not_told_to_have_left():
    def wait_for_its_database(transport: Transport) -> bool:
        ends_at = time.monotonic() + 5
        while not transport._home._waiting and time.monotonic() < ends_at:
            time.sleep(0.01)  # the request leaves
        return bool(transport._home._waiting)

    told = list[float]()
    with serving(answer()) as script:
        async with Transport(Endpoint(script.url)) as transport:
            sending = transport.send("GET", "/orders", tell_at_once=told.append, on_leaving=told.append)
            sending.send(None)
            assert wait_for_its_database(transport)
            with pytest.raises(KeyboardInterrupt):
                sending.throw(KeyboardInterrupt)
            await asyncio.sleep(0.01)
    assert told == []


async def test_what_goes_wrong_when_a_request_leaves_is_raised_by_the_request():
    def fail(_left_at):
        raise StoreAwayError("the state does not answer")

    async with scripted(answer()) as script, Transport(Endpoint(script.url)) as transport:
        with pytest.raises(StoreAwayError):
            await transport.send("GET", "/orders", on_leaving=fail)


async def test_a_transport_that_was_cancelled_while_it_opened_leaves_no_thread():
    opening = asyncio.ensure_future(Transport(Endpoint("http://127.0.0.1:9/api/v1")).__aenter__())
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert [thread.name for thread in threading.enumerate() if thread.name == "feedamp-network"] == []


async def test_a_request_that_never_left_is_not_unclear():
    """The operating system accepts the connection, but the TLS handshake is never answered."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/api/v1"
        error = await failure(url, "POST", timeout_s=0.2)
    assert type(error) is TransientError


async def test_requests_beyond_the_pool_wait_without_their_time_running():
    async def ask(transport):
        async with transport.room:
            return await transport.send("GET", "/orders", in_room=True)

    slow = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
    async with scripted(slow, answer()) as script:
        script.closes = False
        address = Endpoint(script.url, max_connections=1, timeout_s=0.3)
        async with Transport(address) as transport:
            first, second = await asyncio.gather(ask(transport), ask(transport), return_exceptions=True)
    assert isinstance(first, UnclearError)
    assert isinstance(second, Answer)


@pytest.mark.parametrize(
    "large",
    [
        pytest.param(answer(b"x" * 1001), id="as it is sent"),
        pytest.param(answer(gzip.compress(b"x" * 1001), Content_Encoding="gzip"), id="once decompressed"),
    ],
)
async def test_an_answer_beyond_all_bounds_is_not_read_to_its_end(large, monkeypatch):
    monkeypatch.setattr("feedamp.api.transport.MAX_BODY_BYTES", 1000)
    async with scripted(large) as script:
        error = await failure(script.url, "GET")
    assert isinstance(error, UnclearError)
    assert "larger than 1000 bytes" in str(error)


async def test_a_post_is_sent_once_even_where_a_kept_connection_was_dropped():
    # Keeping alive invites aiohttp to repeat; for a POST that would be a second report.
    kept = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    async with scripted(kept, b"") as script, Transport(Endpoint(script.url)) as transport:
        script.closes = False
        await transport.send("GET", "/orders", in_room=True)
        script.closes = True
        with pytest.raises(UnclearError):
            await transport.send("POST", "/orders/M-1/errors", body=b"[]", in_room=True)
    assert [head.split()[0] for head in script.heads] == ["GET", "POST"]


async def test_each_token_call_has_a_new_connection():
    """A kept connection may be closed by the server at that moment, and the token be spent without an answer."""
    kept = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    async with scripted(kept) as script, Transport(Endpoint(script.url)) as transport:
        script.closes = False
        for _ in range(2):
            await transport.send("POST", "/access_token", body={"refresh_token": "r"})
        assert len(script.handlers) == 2


@pytest.mark.parametrize("lost", LOST)
async def test_no_error_or_log_holds_a_token(lost, caplog):
    caplog.set_level(logging.DEBUG)
    async with scripted(lost) as script:
        error = await failure(script.url, "PUT")
    assert TOKEN not in "".join(traceback.format_exception(error)) + repr(error) + caplog.text


def test_no_repr_holds_a_secret():
    address = Endpoint("https://feedamp.example", cert="/etc/key.pem", proxy="http://me:pw@proxy.example")
    got = Answer(200, {"Set-Cookie": TOKEN}, TOKEN.encode())
    assert TOKEN not in repr(got)
    assert "key.pem" not in repr(address)
    assert "me:pw" not in repr(address)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        pytest.param({"Retry-After": "7"}, 7, id="whole seconds"),
        pytest.param({"Retry-After": " 1.5 "}, 1.5, id="a fraction"),
        pytest.param({"Retry-After": "0"}, 0, id="at once"),
        pytest.param({"Retry-After": "Wed, 01 Jul 2026 12:00:09 GMT"}, 9, id="a date, by our clock"),
        pytest.param(
            {"Retry-After": "Wed, 01 Jul 2026 12:00:09 GMT", "Date": "Wed, 01 Jul 2026 12:00:04 GMT"},
            5,
            id="a date, by the server's clock where it tells it",
        ),
        pytest.param({"Retry-After": "Wed, 01 Jul 2026 11:00:00 GMT"}, 0, id="a date gone by"),
        pytest.param({"Retry-After": "9" * 400}, 86_400, id="forever is a day"),
        pytest.param({"Retry-After": "Fri, 01 Jan 2106 00:00:00 GMT"}, 86_400, id="a far date is a day"),
        pytest.param({}, None, id="absent"),
        pytest.param({"Retry-After": "soon"}, None, id="a word"),
        pytest.param({"Retry-After": "²"}, None, id="a digit that is no number"),
        pytest.param({"Retry-After": "-3"}, None, id="below zero"),
        pytest.param(
            {"Retry-After": f"Wed, 01 Jan {'9' * 15} 12:00:00 GMT"}, None, id="a date beyond all bounds"
        ),
    ],
)
def test_retry_after_is_read_in_seconds_and_as_a_date(headers, seconds):
    assert Answer(429, headers, b"").retry_after_s(NOW) == seconds


def test_a_retry_after_date_without_any_clock_says_nothing():
    assert Answer(429, {"Retry-After": "Wed, 01 Jul 2026 12:00:09 GMT"}, b"").retry_after_s() is None


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        pytest.param("Wed, 01 Jul 2026 12:00:00 GMT", NOW, id="to the letter"),
        pytest.param("Wed, 01 Jul 2026 14:00:00 +0200", NOW, id="of another zone"),
        pytest.param("Wed, 01 Jul 2026 12:00:00 -0000", NOW, id="without a zone"),
        pytest.param("yesterday", None, id="a word"),
        pytest.param("", None, id="empty"),
    ],
)
def test_the_servers_time_is_utc_or_unknown(value, moment):
    assert Answer(200, {"Date": value}, b"").server_time == moment


async def failure(url: str, method: str, **options: float) -> Exception:
    """The error raised by a request with a token."""
    async with Transport(Endpoint(url, **{"timeout_s": 5, **options})) as transport:
        with pytest.raises(TransientError) as caught:
            await transport.send(method, "/orders/M-1", headers=BEARER)
    return caught.value


@pytest.mark.parametrize(
    "name", ["connector.BaseConnector.connect", "client_proto.ResponseHandler.set_response_params"]
)
async def test_nothing_is_opened_where_aiohttp_has_other_names(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delattr(f"aiohttp.{name}")
    with pytest.raises(AttributeError, match=name.rpartition(".")[2]):
        async with Transport(Endpoint("http://127.0.0.1:9")):
            pass


@pytest.mark.parametrize(
    "headers", [{"X-Note": "a\r\nX-Other: b"}, {"X-No\nte": "a"}], ids=["in a value", "in a name"]
)
async def test_no_header_begins_another_one(headers: dict[str, str]) -> None:
    async with scripted(answer()) as script, Transport(Endpoint(script.url)) as transport:
        with pytest.raises(ValueError, match="control character"):
            await transport.send("GET", "/orders", headers=headers)
        await transport.send("GET", "/orders")
    assert len(script.requests) == 1


async def test_what_a_server_says_before_its_answer_is_passed_over() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    async with scripted(early + answer(b"{}")) as script, Transport(Endpoint(script.url)) as transport:
        got = await transport.send("GET", "/orders", in_room=True)
    assert (got.status, got.body) == (200, b"{}")


@pytest.mark.parametrize("size", [20 << 20, 100_000], ids=["not all sent", "sent, but not all read"])
async def test_a_connection_that_has_not_taken_a_whole_request_gets_no_other(size: int) -> None:
    connections, is_over = list[asyncio.StreamWriter](), asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        await reader.readuntil(b"\r\n\r\n")  # and no more
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await is_over.wait()
        writer.close()
        ended.release()

    ended = asyncio.Semaphore(0)
    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, Transport(Endpoint(url, timeout_s=10)) as transport:
        for _ in range(2):
            got = await transport.send("PUT", "/orders/M-1", body=bytes(size), in_room=True)
            assert got.status == 413
        is_over.set()
    for _ in connections:
        await ended.acquire()
    assert len(connections) == 2
