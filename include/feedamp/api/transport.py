"""A connection pool to one FeedAMP endpoint; every request returns an `Answer` or raises an error of `feedamp.errors`.

Requests are made in a thread of their own (`network_thread`).
"""

from __future__ import annotations

import asyncio
import re
import ssl
import zlib
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property, lru_cache, partial
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

from yarl import URL

from feedamp.api.connections import READING, Connections, Received
from feedamp.api.network_thread import Calls, Exchange, NetworkThread
from feedamp.errors import BrokenAnswerError, ConfigurationError, TransientError, UnclearError
from feedamp.rules.origin import LOOPBACK, origin_of
from feedamp.state.request_slots import LONGEST_PAUSE_S

MAX_BODY_BYTES = 64 * 2**20
_STOOD_STILL_S = 1.0  # a timer that fires later than this was held up by the event loop
_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?")


@dataclass(frozen=True)
class Endpoint:
    """FeedAMP's base URL and how to connect to it, as configured in the Airflow connection."""

    base_url: str
    max_connections: int = 32
    timeout_s: float = 30.0
    allow_http: bool = False
    verify: bool | str = True
    cert: str | tuple[str, str] | None = field(default=None, repr=False)
    trust_env: bool = False
    proxy: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigurationError("Base URL must be a whole address, such as https://…/api/v1.")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ConfigurationError("Base URL must be a plain address without user, query or fragment.")
        if parts.scheme == "http" and parts.hostname not in LOOPBACK and not self.allow_http:
            raise ConfigurationError(
                "Base URL must be https; extra allow_http permits http in a test network."
            )
        try:
            self.origin  # noqa: B018 - reads the port
        except ValueError as error:
            raise ConfigurationError("Base URL has a port that is not a number from 0 to 65535.") from error

    @cached_property
    def origin(self) -> str:
        """Scheme, host and port: where tokens and the client secret are sent."""
        return origin_of(self.base_url)


@dataclass(frozen=True)
class Answer:
    """An HTTP answer of any status; its repr never contains headers or body.

    Of a token call it may be the beginning of an answer whose end was lost, or is not read: then it is not `is_whole`.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    is_whole: bool = True

    @property
    def server_time(self) -> datetime | None:
        """The `Date` header in UTC."""
        return _http_date(self.headers.get("Date"))

    def retry_after_s(self, now: datetime | None = None) -> float | None:
        """Seconds to wait according to `Retry-After` (seconds or a date), at most one day; None without a valid value."""
        value = self.headers.get("Retry-After", "").strip()
        if _SECONDS.fullmatch(value):
            return min(float(value), LONGEST_PAUSE_S)
        moment = _http_date(value)
        # Counted from the server's clock if it sends a `Date`, because the clocks may differ.
        since = self.server_time or now
        if moment is None or since is None:
            return None
        return min(max(0.0, (moment - since).total_seconds()), LONGEST_PAUSE_S)


@lru_cache(256)  # all answers of a second have the same
def _http_date(value: str | None) -> datetime | None:
    try:
        moment = parsedate_to_datetime(value) if value else None
        if moment is None:
            return None
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


class Transport:
    """A connection pool; use with `async with`. The semaphore `room` counts the free connections.

    `room` belongs to the event loop of the step; `send` can be called in any event loop.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        on_answer: Callable[[datetime | None], None] = lambda server_time: None,
        before_change: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_answer` is called with the `Date` of each answer, None if it has none.

        `before_change` is called before each request that is neither a read nor a token call, and raises if it must not be
        sent.
        """
        self.endpoint = endpoint
        self._before_change = before_change
        self.on_answer = on_answer
        self.room = asyncio.Semaphore(endpoint.max_connections)
        self.requests = 0
        self._pooled: Connections | None = None
        self._unpooled: Connections | None = None
        self._unpooled_as_sent: Connections | None = None
        self._is_closing = False
        self._proxy: str | None = None

    async def __aenter__(self) -> Self:
        # Not aiohttp's trust_env, which also reads a login from ~/.netrc and sends it as basic auth.
        self._proxy = _proxy(self.endpoint)
        self._context = _ssl(self.endpoint)
        self._network = NetworkThread()
        self._home = Calls(asyncio.get_running_loop())
        try:
            await self._network.start(self._open())
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_closing = True
        try:
            await self._network.start(self._close())
        finally:
            await self._network.stop()
        if kind is None:
            self._home.raise_signal()

    async def _open(self) -> None:
        self._pooled = self._connections(limit=self.endpoint.max_connections, ttl_dns_cache=300)
        self._unpooled = self._connections(limit=0, force_close=True)
        self._unpooled_as_sent = self._connections(unpacks=False, limit=0, force_close=True)

    def _connections(self, *, unpacks: bool = True, **options: Any) -> Connections:
        headers = {"User-Agent": "airflow-provider-feedamp", "Accept": "application/json"}
        if not unpacks:
            headers["Accept-Encoding"] = "gzip"
        return Connections(
            self.endpoint.base_url, headers, proxy=self._proxy, unpacks=unpacks, ssl=self._context, **options
        )

    async def _close(self) -> None:
        for connections in (self._pooled, self._unpooled, self._unpooled_as_sent):
            if connections is not None:
                await connections.close()

    async def send(
        self,
        method: str,
        path_and_query: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        before_leaving: Callable[[], None] = lambda: None,
        on_leaving: Callable[[float], None] | None = None,
        tell_at_once: Callable[[float], bool] | None = None,
        in_room: bool = False,
        max_bytes: int | None = None,
        is_token_call: bool = False,
    ) -> Answer:
        """The answer to one request, of any status; `path_and_query` must be encoded, and a mapping is sent as a form.

        `in_room`: the caller holds `room`, and a connection of the pool is used; otherwise a new one outside the pool. Token
        calls need a new one: on a connection that was kept, a call can be lost because the server is just closing it, and
        with the call a refresh token that can be used once only.

        `timeout_s` limits the time to the end of the answer; None: as the connection says. `on_leaving` is called in the
        caller's task with the `time.monotonic()` at which the request was sent, which is later if a connection must
        be opened first. If `tell_at_once` is given, it is called with that before, in a callback of the event loop; where it returns
        True, `on_leaving` is not called. `before_leaving` is called just before the request is made, in another thread, and
        raises if it must not be sent. Redirects are not followed, because a token must not be sent to another host.

        `max_bytes` bounds the body once decompressed; None: `MAX_BODY_BYTES`. Of a token call, a 2xx answer whose end was
        lost, and any that is too large, is returned with what came of its body.

        Raises:
            TransientError: nothing reached FeedAMP.
            UnclearError: the request may have reached FeedAMP, but no complete answer came back.
            BrokenAnswerError: the answer is too large.
            FeedAmpError: what `before_change` or `before_leaving` raises; nothing was sent.
        """
        if not is_token_call and method.upper() not in READING:
            self._before_change()
        self._home.raise_signal()
        pool = self._pooled if in_room else self._unpooled_as_sent if is_token_call else self._unpooled
        if pool is None or self._is_closing:
            raise RuntimeError("the transport is not open")
        loop = asyncio.get_running_loop()
        exchange = Exchange[Answer](self._home if loop is self._home.loop else Calls(loop), tell_at_once)
        sent = dict(headers or {})
        if isinstance(body, Mapping):
            sent["Content-Type"] = "application/x-www-form-urlencoded"
            body = urlencode(body).encode()
        request = pool.ask(
            method.upper(), path_and_query, headers=sent, body=body, on_leaving=exchange.now_left
        )
        within_s, allowed = timeout_s or self.endpoint.timeout_s, max_bytes or MAX_BODY_BYTES
        work = self._exchange(method, request, exchange, before_leaving, within_s, allowed, is_token_call)
        try:
            self._network.calls.add(partial(exchange.begin, work))
        except RuntimeError:
            work.close()
            raise
        try:
            # Here, not in a callback of the loop: `on_leaving` may wait for the state and raise.
            if on_leaving is not None and (left_at := await exchange.left_at) is not None:
                on_leaving(left_at)
            answer = await exchange.answer
        except BaseException:
            exchange.left_at.cancel()  # who was told that it ended must not hear later that it left
            exchange.answer.cancel()
            with suppress(RuntimeError):
                self._network.calls.add(exchange.cancel)
            raise
        self.on_answer(answer.server_time)
        return answer

    async def _exchange(
        self,
        method: str,
        request: AbstractAsyncContextManager[Received],
        leaving: Exchange[Answer],
        before_leaving: Callable[[], None],
        within_s: float,
        allowed: int,
        is_token_call: bool,
    ) -> Answer:
        """One request and its answer, in the network thread."""
        import aiohttp

        before_leaving()
        self.requests += 1
        # A header that does not fit the body must not cost the token in it, so only the body tells.
        unpacked = partial(_unpacked, allowed=allowed) if is_token_call else bytes
        chunks, size = list[bytes](), 0
        response: Received | None = None
        try:
            with _AnswerWithin(within_s):
                async with request as response:
                    while chunk := await response.content.readany():
                        chunks.append(chunk)
                        size += len(chunk)
                        if size > allowed:
                            if is_token_call:
                                break
                            raise BrokenAnswerError(
                                f"FeedAMP's answer to {method} is larger than {allowed} bytes.",
                                is_too_large=True,
                            )
                    is_whole = size <= allowed
                    return Answer(response.status, response.headers, unpacked(b"".join(chunks)), is_whole)
        except (aiohttp.ClientError, aiohttp.http.HttpProcessingError, TimeoutError, OSError) as error:
            if not leaving.has_left:
                raise TransientError(f"FeedAMP cannot be reached ({type(error).__name__}).") from None
            if is_token_call and chunks and response is not None and response.status < 400:
                return Answer(response.status, response.headers, unpacked(b"".join(chunks)), is_whole=False)
            # `from None`: aiohttp's errors contain the request headers and so the token.
            raise UnclearError(f"The answer to {method} was lost ({type(error).__name__}).") from None


def _unpacked(body: bytes, *, allowed: int) -> bytes:
    """The body, decompressed if it begins as gzip or zlib does; of one that is cut off or too large, the beginning."""
    if body[:2] == b"\x1f\x8b" or body[:1] == b"\x78":
        with suppress(zlib.error):
            return zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(body, allowed)
    return body


class _AnswerWithin:
    """Ends its task's work as `asyncio.timeout` does, but starts again if the event loop stood still when the time was over.

    It stands still while the process or its machine is paused. The answer may have arrived meanwhile; without another
    chance to read it, the request would be sent a second time.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._is_over = False

    def __enter__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._is_over and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _start(self) -> None:
        self._due_at = self._loop.time() + self._seconds
        self._timer = self._loop.call_at(self._due_at, self._end)

    def _end(self) -> None:
        if self._loop.time() - self._due_at > _STOOD_STILL_S:
            self._start()
        elif self._task is not None:
            self._is_over = True
            self._task.cancel()


def _proxy(endpoint: Endpoint) -> str | None:
    """The connection's proxy or, with `trust_env`, the one of the environment.

    Raises:
        ConfigurationError: it is not a whole address.
    """
    parts = urlsplit(endpoint.base_url)
    proxy = endpoint.proxy
    if not proxy and endpoint.trust_env and not proxy_bypass(parts.hostname or ""):
        proxies = getproxies()
        proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy:
        return None
    try:
        url = URL(proxy)
    except ValueError:
        url = URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigurationError(
            "Extra proxies, or the proxy of the environment, must be a whole http address, such as http://proxy.example:3128."
        )
    return proxy


def _ssl(endpoint: Endpoint) -> ssl.SSLContext | bool:
    """The `ssl` argument for aiohttp.

    Raises:
        ConfigurationError: the CA bundle or the certificate cannot be read.
    """
    if endpoint.verify is True and endpoint.cert is None:
        return True
    try:
        context = ssl.create_default_context(
            cafile=endpoint.verify if isinstance(endpoint.verify, str) else None
        )
        if endpoint.cert is not None:
            context.load_cert_chain(*([endpoint.cert] if isinstance(endpoint.cert, str) else endpoint.cert))
    except OSError as error:  # ssl.SSLError is one
        raise ConfigurationError(
            f"Extra verify or cert does not name a usable file ({error.strerror or type(error).__name__})."
        ) from error
    if endpoint.verify is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
