"""`FeedAmpHook`: HttpHook requests with a seller's live token, and the async client."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, TypeVar

import requests
from airflow.providers.http.hooks.http import HttpHook
from requests import PreparedRequest, Response, Session
from requests.auth import AuthBase
from urllib3.exceptions import NewConnectionError

from feedamp.api.account import FeedAmpAccount
from feedamp.api.clients import Clients
from feedamp.api.error_bodies import refusal_reasons
from feedamp.api.tokens import Token
from feedamp.api.transport import Answer
from feedamp.errors import (
    AuthorizationError,
    ConfigurationError,
    FeedAmpError,
    NotFoundError,
    RejectedError,
    ThrottledError,
    TransientError,
    UnclearError,
)
from feedamp.resources import Resources
from feedamp.run import Run
from feedamp.state import request_slots
from feedamp_airflow import probing
from feedamp_airflow.account import read_account
from feedamp_airflow.wiring import connection_by_id, make_resources

_Result = TypeVar("_Result")


class FeedAmpHook(HttpHook):
    """Sends requests to FeedAMP for sellers; tokens are refreshed as needed and are never exposed.

    hook = FeedAmpHook()
    order = hook.run("orders/MKT-70031", seller="S1").json()

    Of the Airflow connection only the address and `proxies`, `verify`, `cert`, `trust_env`, `timeout` reach the
    session: no basic auth, no extras as headers. The default method is GET.
    """

    conn_name_attr = "feedamp_conn_id"
    default_conn_name = "feedamp_default"
    conn_type = "feedamp"
    hook_name = "FeedAMP"

    def __init__(self, feedamp_conn_id: str = default_conn_name, method: str = "GET", **kwargs: Any) -> None:
        super().__init__(method=method, http_conn_id=feedamp_conn_id, **kwargs)
        self.feedamp_conn_id = feedamp_conn_id
        self._resources_made: Resources | None = None
        self._account_read: FeedAmpAccount | None = None

    def get_conn(
        self, headers: dict[Any, Any] | None = None, extra_options: dict[str, Any] | None = None
    ) -> Session:
        """A session to FeedAMP's address without any credential; `run` adds the seller's token."""
        account = self._account()
        endpoint = account.endpoint
        self.base_url = endpoint.base_url
        self._base_url_initialized = True
        options = dict(extra_options or {})
        options.setdefault("timeout", endpoint.timeout_s)
        options.setdefault("allow_redirects", False)  # a token must not travel to another host
        self.merged_extra = options
        session = Session()
        session.auth = _Bearer(None)  # also keeps a .netrc from adding basic auth
        session.trust_env = endpoint.trust_env
        session.verify = endpoint.verify
        session.cert = endpoint.cert
        if endpoint.proxy:
            session.proxies = {"http": endpoint.proxy, "https": endpoint.proxy}
        session = self._configure_session_from_mount_adapters(session)
        if headers:
            session.headers.update(headers)
        return session

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

        Raises:
            ConfigurationError: no seller is named, the connection cannot be used, or the seller's grant was issued by
                another server than the one it leads to.
            AuthorizationError: the seller must authorize again.
            RejectedError, ThrottledError, TransientError: as FeedAMP answered; none holds its body.
            UnclearError: the answer was lost; whether the request took effect is unknown.
        """
        if not seller:
            raise ConfigurationError("hook.run needs seller=…: a FeedAMP token belongs to one seller.")
        if headers and any(name.lower() == "authorization" for name in headers):
            raise ConfigurationError("hook.run adds the Authorization header itself.")
        options = {**(extra_options or {})}
        checks = options.pop("check_response", True)
        origin = self._account().endpoint.origin
        token = self._with_clients(lambda clients: clients.token_and_turn(seller, origin=origin))
        response = self._send(endpoint, data, headers, options, token, request_kwargs)
        if response.status_code == 401:
            stale = token
            token = self._with_clients(
                lambda clients: clients.token_and_turn(seller, origin=origin, stale=stale)
            )
            response = self._send(endpoint, data, headers, options, token, request_kwargs)
        if response.status_code == 429 or "Retry-After" in response.headers:
            self._postpone(seller, response)
        if checks:
            self.check_response(response)
        return response

    def client(self) -> Clients:
        """Async clients for sellers of any connection.

        async with FeedAmpHook().client() as clients:
            order, read_at = await (await clients.for_seller("S1")).get_order("MKT-70031")
        """
        return self._resources().clients(Run("hook", "hook", started_at=datetime.now(UTC)))

    def check_response(self, response: Response) -> None:
        """Raises the error of `feedamp.errors` for a bad status; FeedAMP's body goes into `reasons`, never into a log.

        Raises:
            RejectedError, AuthorizationError, ThrottledError, TransientError: by status.
        """
        status = response.status_code
        if 200 <= status < 300:
            return
        message = f"FeedAMP answered {self.method} with {status}."
        if status == 401:
            raise AuthorizationError(message)
        if status == 429:
            raise ThrottledError(message, retry_after_s=_retry_after_s(response), status=status)
        if status >= 500 or status == 408:
            raise UnclearError(message, retry_after_s=_retry_after_s(response), status=status)
        kind = NotFoundError if status == 404 else RejectedError
        raise kind(message, status=status, reasons=refusal_reasons(response.content))

    def test_connection(self) -> tuple[bool, str]:
        """Whether the connection works, and which part fails: address, TLS, token endpoint. Never spends a grant."""
        try:
            return _wait_for(probing.probe(self._account(), self._resources))
        except FeedAmpError as error:
            return False, str(error)

    def _send(
        self,
        endpoint: str | None,
        data: Any,
        headers: dict[str, Any] | None,
        options: dict[str, Any],
        token: Token,
        request_kwargs: dict[str, Any],
    ) -> Response:
        options = {**options, "check_response": False}
        try:
            response: Response = super().run(
                endpoint, data, headers, options, auth=_Bearer(token.value), **request_kwargs
            )
        except (
            requests.ConnectionError,
            requests.Timeout,
            requests.exceptions.ChunkedEncodingError,
        ) as error:
            # `from None`: their errors hold the request, and with it the token.
            name = type(error).__name__
            if _never_left(error):
                raise TransientError(f"FeedAMP cannot be reached ({name}).") from None
            raise UnclearError(f"The answer to {self.method} was lost ({name}).") from None
        return response

    def _postpone(self, seller: str, response: Response) -> None:
        """Applies Retry-After to every process that sends for the seller (promise 10)."""
        wait_s = _retry_after_s(response)
        if wait_s is not None:
            state = self._resources().state
            with state.begin() as connection:
                request_slots.postpone(connection, seller, now=state.now(), seconds=wait_s)

    def _with_clients(self, work: Callable[[Clients], Coroutine[Any, Any, _Result]]) -> _Result:
        async def run() -> _Result:
            async with self.client() as clients:
                return await work(clients)

        return _wait_for(run())

    def _account(self) -> FeedAmpAccount:
        if self._account_read is None:
            self._account_read = read_account(connection_by_id(self.feedamp_conn_id))
        return self._account_read

    def _resources(self) -> Resources:
        if self._resources_made is None:
            self._resources_made = make_resources()
        return self._resources_made


class _Bearer(AuthBase):
    """Adds the token when the request is sent, so that it is in no session and no log."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        if self._token is not None:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _retry_after_s(response: Response) -> float | None:
    return Answer(response.status_code, response.headers, b"").retry_after_s(datetime.now(UTC))


def _never_left(error: requests.RequestException) -> bool:
    """Whether the request failed before a connection was established."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    early = (requests.ConnectTimeout, requests.exceptions.SSLError, requests.exceptions.ProxyError)
    return isinstance(error, early) or isinstance(reason, NewConnectionError)


def _wait_for(work: Coroutine[Any, Any, _Result]) -> _Result:
    """The result of a coroutine; it runs in a separate thread if an event loop is already running."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    outcome: list[_Result] = []
    failure: list[BaseException] = []

    def target() -> None:
        try:
            outcome.append(asyncio.run(work))
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread
            failure.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]
