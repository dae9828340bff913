"""`FeedAmpHook.run`: what is sent, byte by byte, and what is returned."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pickle

import pytest
from airflow_env import CONN_ID, open_airflow_env
from order_samples import example_order
from scripted import answer, serving, token_answer

from feedamp.errors import (
    AuthorizationError,
    NotFoundError,
    ReadOnlyError,
    RejectedError,
    ThrottledError,
    TransientError,
)
from feedamp_airflow.hook import FeedAmpHook

SELLER = "seller-001"
HEADERS = {"Host", "User-Agent", "Accept-Encoding", "Accept"}
EXTRAS = {
    "requests_per_second": 900,
    "callback_url": "https://market.example/leaked",
    "X-Leaked": "leaked",
    "a_number": 5,
    "a_flag": True,
    "a_list": ["leaked"],
    "an_object": {"leaked": None},
    "nothing": None,
}


@pytest.fixture
def env(airflow_env):
    airflow_env.connect(SELLER)
    return airflow_env


@pytest.fixture
def order(env):
    """An order that FeedAMP holds."""
    env.hold(SELLER, "M-1")
    return "M-1"


def netrc_in(folder):
    """A file that gives a login for this machine."""
    file = folder / "netrc"
    file.write_text("machine 127.0.0.1 login someone password else\n")
    return file


def header_lines(head):
    return dict(line.split(": ", 1) for line in head.split("\r\n")[1:])


# What a request looks like


def test_a_request_carries_the_sellers_token_and_no_other_credential(env, monkeypatch, tmp_path):
    monkeypatch.setenv("NETRC", str(netrc_in(tmp_path)))
    with serving(token_answer(), answer({"mp_order_number": "M-1"})) as server:
        extras = EXTRAS | {"trust_env": True}
        env.set_connection(host=server.url, login="the-client", password="the-secret", extra=extras)
        response = FeedAmpHook().run("orders/M-1", seller=SELLER)
    assert response.json() == {"mp_order_number": "M-1"}
    token_call, request = server.requests
    assert request.startswith(b"GET /api/v1/orders/M-1 HTTP/1.1\r\n")
    headers = header_lines(request.partition(b"\r\n\r\n")[0].decode())
    assert headers["Authorization"] == "Bearer at-1"
    assert set(headers) == HEADERS | {"Authorization"}
    for word in (b"the-client", b"the-secret", b"leaked", b"Basic"):
        assert word not in request
    assert b"Authorization" not in token_call
    assert b"leaked" not in token_call


def test_a_bare_session_carries_no_credential(env, monkeypatch, tmp_path):
    monkeypatch.setenv("NETRC", str(netrc_in(tmp_path)))
    with serving(answer({})) as server:
        env.set_connection(host=server.url, extra=EXTRAS | {"trust_env": True})
        with FeedAmpHook().get_conn() as session:
            session.get(f"{server.url}/orders")
    assert set(header_lines(server.heads[0])) == HEADERS | {"Connection"}


def test_a_bare_session_follows_no_redirect_and_keeps_no_cookie(env):
    with (
        serving(answer({})) as elsewhere,
        serving(
            answer(status=302, Location=elsewhere.url, Set_Cookie="session=of-S1; Path=/"), answer({})
        ) as server,
    ):
        env.set_connection(host=server.url)
        with FeedAmpHook().get_conn({"Authorization": "Bearer of-S1"}) as session:
            moved = session.get(f"{server.url}/orders")
            session.get(f"{server.url}/orders", allow_redirects=True)
    assert (moved.status_code, moved.history, elsewhere.requests) == (302, [], [])
    assert "cookie" not in server.heads[1].lower()


def test_a_bare_session_sends_nothing_but_reads_while_read_only_is_on(env):
    moved = answer(status=307, Location="/api/v1/orders")
    with serving(answer({}), moved, answer({})) as server:
        env.set_connection(host=server.url)
        env.set_options(read_only="true")
        with FeedAmpHook().get_conn() as session:
            session.get(f"{server.url}/orders")
            for method in ("PUT", "post", "DELETE"):
                with pytest.raises(ReadOnlyError):
                    session.request(method, f"{server.url}/orders", allow_redirects=False)
        env.set_options(read_only="false")
        with FeedAmpHook().get_conn() as session:
            session.put(f"{server.url}/orders")
    assert [head.partition(" ")[0] for head in server.heads] == ["GET", "PUT"]


@pytest.mark.parametrize(
    ("trusted", "asked"),
    [pytest.param(True, True, id="trusted"), pytest.param(False, False, id="not trusted, as by default")],
)
def test_a_proxy_of_the_environment_is_used_where_it_is_trusted(trusted, asked, env, monkeypatch):
    monkeypatch.setenv("no_proxy", "")
    with serving(answer(status=502)) as proxy, serving(token_answer(), answer({})) as server:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/api/v1"))
        env.set_connection(host=server.url, extra={"trust_env": trusted})
        with contextlib.suppress(TransientError):
            FeedAmpHook().run("orders", seller=SELLER)
    assert bool(proxy.requests) == asked
    assert bool(server.requests) != asked


def test_a_put_carries_its_body_and_the_headers_it_was_given(env):
    with serving(token_answer(), answer({})) as server:
        env.set_connection(host=server.url)
        body = json.dumps(example_order("M-1"), default=float)
        hook = FeedAmpHook(method="PUT")
        hook.run("orders/M-1", data=body, headers={"Content-Type": "application/json"}, seller=SELLER)
    head, _, sent = server.requests[1].partition(b"\r\n\r\n")
    assert json.loads(sent) == example_order("M-1")
    assert header_lines(head.decode())["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    ("given", "sent", "content_type"),
    [
        pytest.param({"data": "Zoë"}, "Zoë".encode(), None, id="text"),
        pytest.param({"data": {"a": "b c"}}, b"a=b+c", "application/x-www-form-urlencoded", id="a form"),
        pytest.param({"json": {"a": 1}}, b'{"a": 1}', "application/json", id="JSON"),
        pytest.param({"data": (b"ab", b"cd")}, b"abcd", None, id="pieces"),
    ],
)
def test_any_body_that_requests_accepts_is_sent_and_after_a_401_once_more(given, sent, content_type, env):
    if isinstance(given.get("data"), tuple):
        given = {"data": iter(given["data"])}
    with serving(token_answer(), answer(status=401), token_answer(2), answer({})) as server:
        env.set_connection(host=server.url)
        FeedAmpHook(method="POST").run("orders", seller=SELLER, **given)
    for request in server.requests[1::2]:
        head, _, body = request.partition(b"\r\n\r\n")
        assert body == sent
        assert header_lines(head.decode()).get("Content-Type") == content_type


def test_the_response_is_one_of_requests_and_has_no_token(env):
    words = b"at-1 is no token of Zo\xc3\xab, nor is Bearer of-S2"
    said = answer(words, 403, Content_Type="text/plain; charset=utf-8", X_Debug="Bearer at-1")
    with serving(token_answer(), said) as server:
        env.set_connection(host=server.url)
        response = FeedAmpHook().run(
            "/orders",
            {"page_size": 10},
            {"X-Trace": "7"},
            {"check_response": False, "timeout": 5, "allow_redirects": False},
            seller=SELLER,
        )
    assert (response.ok, response.status_code, response.reason) == (False, 403, "Forbidden")
    assert response.headers["content-length"] == str(len(words))
    assert response.text == "*** is no token of Zoë, nor is Bearer ***"
    assert response.headers["x-debug"] == "Bearer ***"
    assert response.url == response.request.url == f"{server.url}/orders?page_size=10"
    assert response.request.headers == {"X-Trace": "7"}
    assert list(response.iter_lines()) == [response.content]
    assert b"at-1" not in pickle.dumps(response)
    with pytest.raises(RejectedError, match="403 to GET"):
        FeedAmpHook().check_response(response)


def test_a_request_goes_through_the_connection_of_the_hook(env, monkeypatch):
    with serving(answer({"orders": []})) as server:  # all ports of a machine are one server
        env.set_connection(host=server.url)
        monkeypatch.setenv("AIRFLOW_CONN_SECOND", os.environ[f"AIRFLOW_CONN_{CONN_ID.upper()}"])
        env.set_connection()
        assert FeedAmpHook("second").run("orders", seller=SELLER).json() == {"orders": []}
    assert [head.split()[1] for head in server.heads] == ["/api/v1/orders"]
    assert env.asked() == []


def test_query_parameters_of_a_get_go_into_the_url(env):
    with serving(token_answer(), answer({"orders": []})) as server:
        env.set_connection(host=server.url)
        FeedAmpHook().run("orders", data={"page_size": 10}, seller=SELLER)
    assert server.heads[1].startswith("GET /api/v1/orders?page_size=10 HTTP/1.1")


def test_a_redirect_is_not_followed(env):
    with (
        serving(answer({})) as elsewhere,
        serving(token_answer(), answer(status=302, Location=elsewhere.url)) as server,
    ):
        env.set_connection(host=server.url)
        with pytest.raises(RejectedError) as refusal:
            FeedAmpHook().run("orders/M-1", seller=SELLER)
    assert refusal.value.status == 302
    assert elsewhere.requests == []


# Tokens and pace


def test_a_401_is_answered_with_a_newer_token(env, order):
    FeedAmpHook().run(f"orders/{order}", seller=SELLER)
    env.sandbox.expire_access_tokens(SELLER)
    assert FeedAmpHook().run(f"orders/{order}", seller=SELLER).json()["mp_order_number"] == order
    assert [r.status for r in env.asked()] == [200, 401, 200]
    assert env.sandbox.broken_rules == []


def test_a_second_401_is_an_authorization_error_and_the_end(env, order):
    env.sandbox.fault("refuse_token", path="/orders", times=None)
    with pytest.raises(AuthorizationError):
        FeedAmpHook().run(f"orders/{order}", seller=SELLER)
    assert [r.status for r in env.asked()] == [401, 401]


def test_requests_keep_to_the_rate_of_the_connection(airflow_home, tmp_path, monkeypatch):
    limits = {"requests_per_second": 5.0, "burst": 2}  # one extra for a slow machine
    with open_airflow_env(tmp_path, monkeypatch, **limits) as env:
        env.connect(SELLER)
        env.set_connection(extra={"requests_per_second": 5})
        for _ in range(4):
            FeedAmpHook().run("orders", seller=SELLER)
        assert env.sandbox.broken_rules == []


def test_retry_after_holds_for_all_who_send_for_the_seller(env, order):
    env.sandbox.fault("throttle", path="/orders", seconds=1)
    with pytest.raises(ThrottledError) as throttled:
        FeedAmpHook().run(f"orders/{order}", seller=SELLER)
    assert throttled.value.retry_after_s == 1
    assert FeedAmpHook().run(f"orders/{order}", seller=SELLER).status_code == 200
    first, second = env.asked()
    assert (second.at - first.at).total_seconds() >= 0.9


def test_a_request_during_a_pause_says_when_that_ends(env):
    env.sandbox.fault("throttle", path="/orders", seconds=90)
    with pytest.raises(ThrottledError):
        FeedAmpHook().run("orders", seller=SELLER)
    with pytest.raises(ThrottledError, match=r"asked for a pause.*was not carried out.*ends at 20\d\d-.*Z"):
        FeedAmpHook().run("orders", seller=SELLER)
    assert len(env.asked()) == 1


def test_a_date_as_retry_after_is_understood(env):
    date = {"Date": "Mon, 02 Mar 2026 10:00:00 GMT", "Retry_After": "Mon, 02 Mar 2026 10:00:30 GMT"}
    with serving(token_answer(), answer(status=429, **date)) as server:
        env.set_connection(host=server.url)
        with pytest.raises(ThrottledError) as throttled:
            FeedAmpHook().run("orders", seller=SELLER)
    assert throttled.value.retry_after_s == 30


# Event loops


async def test_run_works_where_an_event_loop_runs_already(env, order):
    assert FeedAmpHook().run(f"orders/{order}", seller=SELLER).status_code == 200


async def test_an_error_reaches_the_caller_where_an_event_loop_runs_already(env):
    env.sandbox.revoke(SELLER)
    with pytest.raises(AuthorizationError):
        FeedAmpHook().run("orders", seller=SELLER)


async def test_the_async_client_serves_several_sellers_at_once(env, order):
    env.connect("seller-002")
    async with FeedAmpHook(CONN_ID).client() as clients:
        first, second = [await clients.for_seller(seller) for seller in (SELLER, "seller-002")]
        (found, read_at), other = await asyncio.gather(
            first.get_order(order), second.get_order(order), return_exceptions=True
        )
    assert (found.mp_order_number, read_at.utcoffset().total_seconds()) == (order, 0)
    assert isinstance(other, NotFoundError)
