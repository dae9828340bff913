"""A connection pool to one FeedAMP endpoint; every request returns an `Answer` or raises an error of `feedamp.errors`."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from feedamp.errors import ConfigurationError, TransientError, UnclearError
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
            raise ConfigurationError("Host must be the whole base URL, such as https://…/api/v1.")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ConfigurationError("Host must be a plain base URL without user, query or fragment.")
        if parts.scheme == "http" and parts.hostname not in LOOPBACK and not self.allow_http:
            raise ConfigurationError("Host must be https; extra allow_http permits http in a test network.")
        try:
            self.origin  # noqa: B018 - reads the port
        except ValueError as error:
            raise ConfigurationError("Host has a port that is not a number from 0 to 65535.") from error

    @property
    def origin(self) -> str:
        """Scheme, host and port: where tokens and the client secret are sent."""
        return origin_of(self.base_url)


@dataclass(frozen=True)
class Answer:
    """An HTTP answer of any status; its repr never contains headers or body."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

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


def _http_date(value: str | None) -> datetime | None:
    try:
        moment = parsedate_to_datetime(value) if value else None
        if moment is None:
            return None
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


@dataclass
class _Leaving:
    """Whether a request has been sent, and the callback for that moment."""

    on_leaving: Callable[[], None] | None
    has_left: bool = False


class Transport:
    """A connection pool; use with `async with`. The semaphore `room` counts the free connections."""

    def __init__(
        self, endpoint: Endpoint, *, on_answer: Callable[[datetime | None], None] = lambda server_time: None
    ) -> None:
        """`on_answer` is called with the `Date` of each answer, None if it has none."""
        self.endpoint = endpoint
        self.on_answer = on_answer
        self.room = asyncio.Semaphore(endpoint.max_connections)
        self.requests = 0
        self._session: aiohttp.ClientSession | None = None
        self._proxy: str | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(
            limit=self.endpoint.max_connections, ssl=_ssl(self.endpoint), ttl_dns_cache=300
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None),  # `_answer_within` limits the time
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "airflow-provider-feedamp", "Accept": "application/json"},
            trace_configs=[_tell_when_leaving()],
        )
        # Not aiohttp's trust_env, which also reads a login from ~/.netrc and sends it as basic auth.
        self._proxy = _proxy(self.endpoint)
        # aiohttp would immediately repeat a GET or PUT on a dropped connection, without a request slot and uncounted. It
        # has no public option to prevent that; its own test client sets the same attribute.
        self._session._retry_connection = False  # noqa: SLF001
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def send(
        self,
        method: str,
        path_and_query: str,
        *,
        headers: Mapping[str, str] | None = None,
        json_body: bytes | None = None,
        form: Mapping[str, str] | None = None,
    ) -> Answer:
        """Waits for a free connection, then sends as `send_in_room` does."""
        async with self.room:
            return await self.send_in_room(
                method, path_and_query, headers=headers, json_body=json_body, form=form
            )

    async def send_in_room(
        self,
        method: str,
        path_and_query: str,
        *,
        headers: Mapping[str, str] | None = None,
        json_body: bytes | None = None,
        form: Mapping[str, str] | None = None,
        on_leaving: Callable[[], None] | None = None,
    ) -> Answer:
        """The answer to one request, of any status. The caller holds `room`; `path_and_query` must be encoded.

        `on_leaving` is called when the request is sent, which is later if a connection must be opened first. Redirects
        are not followed, because a token must not be sent to another host.

        Raises:
            TransientError: nothing reached FeedAMP.
            UnclearError: the request may have reached FeedAMP; no complete answer came back.
        """
        if self._session is None:
            raise RuntimeError("the transport is not open")
        url = URL(self.endpoint.base_url.rstrip("/") + path_and_query, encoded=True)
        all_headers = dict(headers or {})
        if json_body is not None:
            all_headers["Content-Type"] = "application/json"
        self.requests += 1
        leaving = _Leaving(on_leaving)
        try:
            async with (
                _answer_within(self.endpoint.timeout_s),
                self._session.request(
                    method,
                    url,
                    headers=all_headers,
                    data=json_body if json_body is not None else form,
                    allow_redirects=False,
                    proxy=self._proxy,
                    trace_request_ctx=leaving,
                ) as response,
            ):
                body = bytearray()
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > MAX_BODY_BYTES:
                        raise UnclearError(
                            f"FeedAMP's answer to {method} is larger than {MAX_BODY_BYTES} bytes."
                        )
                answer = Answer(response.status, response.headers, bytes(body))
                self.on_answer(answer.server_time)
                return answer
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if not leaving.has_left:
                raise TransientError(f"FeedAMP cannot be reached ({type(error).__name__}).") from None
            # `from None`: aiohttp's errors contain the request headers and so the token.
            raise UnclearError(f"The answer to {method} was lost ({type(error).__name__}).") from None


@asynccontextmanager
async def _answer_within(seconds: float) -> AsyncIterator[None]:
    """As `asyncio.timeout`, but starts again if the event loop stood still when the time was over.

    The loop stands still while a step waits for the state database. The answer may have arrived meanwhile; without
    another chance to read it, the request would be sent a second time.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as deadline:
        timers: list[asyncio.TimerHandle] = []

        def start() -> None:
            due_at = loop.time() + seconds
            timers[:] = [loop.call_at(due_at, end, due_at)]

        def end(due_at: float) -> None:
            if loop.time() - due_at > _STOOD_STILL_S:
                start()
            else:
                deadline.reschedule(loop.time())

        start()
        try:
            yield
        finally:
            timers[0].cancel()


def _proxy(endpoint: Endpoint) -> str | None:
    """The connection's proxy or, with `trust_env`, the one of the environment."""
    if endpoint.proxy or not endpoint.trust_env:
        return endpoint.proxy
    parts = urlsplit(endpoint.base_url)
    if proxy_bypass(parts.hostname or ""):
        return None
    proxies = getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")


def _tell_when_leaving() -> aiohttp.TraceConfig:
    async def leaving(_session: aiohttp.ClientSession, context: Any, _params: Any) -> None:
        context.trace_request_ctx.has_left = True
        if context.trace_request_ctx.on_leaving is not None:
            context.trace_request_ctx.on_leaving()

    config = aiohttp.TraceConfig()
    config.on_request_headers_sent.append(leaving)
    return config


def _ssl(endpoint: Endpoint) -> ssl.SSLContext | bool:
    """The `ssl` argument for aiohttp.

    Raises:
        ConfigurationError: the CA bundle or the certificate cannot be read.
    """
    try:
        return _context(endpoint)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigurationError(
            f"Extra verify or cert does not name a usable file ({error.strerror or type(error).__name__})."
        ) from error


def _context(endpoint: Endpoint) -> ssl.SSLContext | bool:
    if endpoint.verify is False:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif isinstance(endpoint.verify, str):
        context = ssl.create_default_context(cafile=endpoint.verify)
    elif endpoint.cert is None:
        return True
    else:
        context = ssl.create_default_context()
    if isinstance(endpoint.cert, str):
        context.load_cert_chain(endpoint.cert)
    elif endpoint.cert is not None:
        context.load_cert_chain(*endpoint.cert)
    return context
