"""`FeedAmpHook`: HttpHook requests with a seller's live token, and the async client."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import cached_property
from http.client import responses
from http.cookiejar import DefaultCookiePolicy
from io import BytesIO
from typing import Any, TypeVar

from airflow.providers.http.hooks.http import HttpHook
from requests import PreparedRequest, Request, Response, Session
from requests.structures import CaseInsensitiveDict
from requests.utils import get_encoding_from_headers

from feedamp.api import client as api
from feedamp.api.account import FeedAmpAccount
from feedamp.api.bad_answers import raise_for_status
from feedamp.api.clients import Clients
from feedamp.api.connections import READING
from feedamp.api.transport import Answer
from feedamp.errors import ConfigurationError, FeedAmpError, ThrottledError
from feedamp.resources import Resources
from feedamp.run import Run
from feedamp_airflow import probing
from feedamp_airflow.account import read_account
from feedamp_airflow.connections import connection_by_id
from feedamp_airflow.moments import moment
from feedamp_airflow.wiring import make_resources

_Result = TypeVar("_Result")
_OPTIONS = {"check_response", "timeout", "allow_redirects"}  # the last is only accepted as False


class FeedAmpHook(HttpHook):
    """Sends requests to FeedAMP for sellers; tokens are refreshed as needed and are never exposed.

    hook = FeedAmpHook()
    order = hook.run("orders/MKT-70031", seller="S1").json()

    They are sent by the client that the DAGs use, as the connection's address, `proxies`, `verify`, `cert`, `trust_env` and
    `timeout` say: without basic auth, and without its extras as headers. The default method is GET.
    """

    conn_name_attr = "feedamp_conn_id"
    default_conn_name = "feedamp_default"
    conn_type = "feedamp"
    hook_name = "FeedAMP"
    lock_wait_s = 10.0  # of `test_connection`, for which a person waits

    def __init__(self, feedamp_conn_id: str = default_conn_name, method: str = "GET", **kwargs: Any) -> None:
        super().__init__(method=method, http_conn_id=feedamp_conn_id, **kwargs)
        self.feedamp_conn_id = feedamp_conn_id

    def get_conn(
        self, headers: dict[Any, Any] | None = None, extra_options: dict[str, Any] | None = None
    ) -> Session:
        """A session to FeedAMP's address without any credential; `run` does not use it.

        The emergency stop holds for it: while it is on, only GET, HEAD and OPTIONS are sent; others raise a ReadOnlyError.
        """
        endpoint = self._account.endpoint
        self.base_url = endpoint.base_url
        self._base_url_initialized = True
        self.merged_extra = {"timeout": endpoint.timeout_s, "allow_redirects": False, **(extra_options or {})}
        session = _GatedSession(self._check_change)
        session.auth = lambda request: request  # keeps a .netrc from adding basic auth
        session.trust_env, session.verify, session.cert = endpoint.trust_env, endpoint.verify, endpoint.cert
        if endpoint.proxy:
            session.proxies = {"http": endpoint.proxy, "https": endpoint.proxy}
        session.headers.update(headers or {})
        return self._configure_session_from_mount_adapters(session)

    def run(
        self,
        endpoint: str | None = None,
        data: dict[str, Any] | str | None = None,
        headers: dict[str, Any] | None = None,
        extra_options: dict[str, Any] | None = None,
        *,
        seller: str | None = None,
        **request_kwargs: Any,
    ) -> Response:
        """The response to one request for a seller. After a 401 it is repeated once with a newer token.

        `extra_options`: `check_response` (default True), and `timeout`, the seconds to the end of the answer.
        `request_kwargs`, such as `json`, are those of `requests.Request`.

        Raises:
            ConfigurationError: no seller is named, the connection or an extra option cannot be used, the clock is refused,
                or the seller's grant was issued by another server than the one the connection leads to.
            AuthorizationError: the seller must authorize again.
            RejectedError, ThrottledError, TransientError: as FeedAMP answered; none holds its body.
            UnclearError: the answer was lost, or is larger than 64 MiB; whether the request took effect is unknown.
        """
        if not seller:
            raise ConfigurationError("hook.run needs seller=…: a FeedAMP token belongs to one seller.")
        options = extra_options or {}
        timeout_s = options.get("timeout")
        wrong = sorted(options.keys() - _OPTIONS)
        if timeout_s is not None and not (isinstance(timeout_s, int | float) and timeout_s > 0):
            wrong.append("timeout")
        if options.get("allow_redirects"):
            wrong.append("allow_redirects")
        if wrong or self.adapter:
            raise ConfigurationError(
                f"hook.run cannot use {', '.join(wrong) or 'an adapter'}. It takes the extra options check_response and "
                "timeout (seconds above 0) and follows no redirects; other options, such as verify, are extras of the "
                "connection."
            )
        if self.method != "HEAD":
            request_kwargs["params" if self.method == "GET" else "data"] = data
        # `requests` encodes what is below the base URL; the base URL itself is that of the connection.
        below = "http://feedamp/" + (endpoint or "").lstrip("/")
        request = Request(self.method, below, headers, **request_kwargs).prepare()
        if "Authorization" in request.headers:
            raise ConfigurationError("hook.run adds the Authorization header itself.")
        answer = _wait_for(self._exchange(seller, request, timeout_s))
        request.url = self._account.endpoint.base_url + request.path_url
        response = _response(answer, request)
        if options.get("check_response", True):
            self.check_response(response)
        return response

    def client(self) -> Clients:
        """Async clients for sellers of any connection.

        async with FeedAmpHook().client() as clients:
            order, read_at = await (await clients.for_seller("S1")).get_order("MKT-70031")
        """
        return self._clients(goes_first=False)

    def check_response(self, response: Response) -> None:
        """Raises the error of `feedamp.errors` for a bad status; FeedAMP's body goes into `reasons`, never into a log."""
        answer = Answer(response.status_code, response.headers, response.content)
        raise_for_status(answer, self.method, now=datetime.now(UTC))

    def test_connection(self) -> tuple[bool, str]:
        """Whether the connection works, and which part fails: address, TLS, token endpoint. Never spends a grant."""
        try:
            return _wait_for(probing.probe(self._account, lambda: self._looking))
        except FeedAmpError as error:
            # The button of Airflow's form tests under an id of its own making, which says nothing.
            return False, str(error).replace(f"Connection {self.feedamp_conn_id}", "This connection")
        finally:
            # The process of the button lives on, and waits for no garbage collector to give connections back.
            if opened := vars(self).pop("_looking", None):
                opened.state.close()

    async def _exchange(self, seller: str, request: PreparedRequest, timeout_s: float | None) -> Answer:
        for name in ("Content-Length", "Transfer-Encoding"):  # `_bytes` may change both
            request.headers.pop(name, None)
        headers = {
            name: value if isinstance(value, str) else value.decode("latin-1")
            for name, value in request.headers.items()
        }
        sent = api.Request(self.method, request.path_url, _bytes(request.body), headers, timeout_s)
        async with self._clients(goes_first=True) as clients:
            client = await clients.for_seller(seller, via=self.feedamp_conn_id)
            try:
                answer, _ = await client.exchange(sent)
            except ThrottledError as error:
                if not error.retry_after_s:
                    raise
                until = datetime.now(UTC) + timedelta(seconds=error.retry_after_s)
                error.args = (f"{error} The request was not carried out; the pause ends at {moment(until)}.",)
                raise
            return answer

    def _check_change(self) -> None:
        self._resources.read_only.check()

    def _clients(self, *, goes_first: bool) -> Clients:
        run = Run("hook", "hook", started_at=datetime.now(UTC))
        return self._resources.clients(run, goes_first=goes_first)

    @cached_property
    def _account(self) -> FeedAmpAccount:
        return read_account(connection_by_id(self.feedamp_conn_id))

    @cached_property
    def _looking(self) -> Resources:
        return make_resources(lock_wait_s=self.lock_wait_s, records_origins=False)

    @cached_property
    def _resources(self) -> Resources:
        return make_resources()


class _GatedSession(Session):
    """A session that asks before it sends what is no read, whatever adapter sends it.

    It follows no redirect and keeps no cookie: whatever it was given for FeedAMP or for one seller goes nowhere else.
    """

    def __init__(self, before_change: Callable[[], None]) -> None:
        super().__init__()
        self._before_change = before_change
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))

    def send(self, request: PreparedRequest, **kwargs: Any) -> Response:
        """Sends a request, or raises what forbids it."""
        if (request.method or "").upper() not in READING:
            self._before_change()
        return super().send(request, **{**kwargs, "allow_redirects": False})


def _bytes(body: Any) -> bytes | None:
    """The body of a prepared request, which may also be text, a file or an iterator."""
    if isinstance(body, str):
        return body.encode()
    return None if body is None else bytes(body) if isinstance(body, bytes | bytearray) else b"".join(body)


def _response(answer: Answer, request: PreparedRequest) -> Response:
    """What `requests` would have returned. `request` has no token."""
    response = Response()
    response.status_code = answer.status
    response.reason = responses.get(answer.status, "")
    response.headers = CaseInsensitiveDict(answer.headers)
    response.encoding = get_encoding_from_headers(response.headers)
    response.raw = BytesIO(answer.body)
    response.request, response.url = request, request.url or ""
    return response


def _wait_for(work: Coroutine[Any, Any, _Result]) -> _Result:
    """The result of a coroutine; it runs in a separate thread if an event loop is already running."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()
