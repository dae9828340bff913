"""`FeedAmpHook.run` when something fails: which error is raised, and what neither it nor the log may hold."""

from __future__ import annotations

import gzip
import logging
import time
import traceback

import pytest
from scripted import answer, serving, token_answer

from feedamp.errors import (
    AuthorizationError,
    ConfigurationError,
    NotFoundError,
    TransientError,
    UnclearError,
)
from feedamp_airflow.hook import FeedAmpHook

SELLER = "seller-001"


@pytest.fixture
def env(airflow_env):
    airflow_env.connect(SELLER)
    return airflow_env


@pytest.fixture
def order(env):
    """An order that FeedAMP holds."""
    env.hold(SELLER, "M-1")
    return "M-1"


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        pytest.param("error_503", TransientError, id="a server error"),
        pytest.param("reset_before", UnclearError, id="a connection that breaks off"),
        pytest.param("cut_body", UnclearError, id="an answer that is cut off"),
    ],
)
def test_trouble_on_the_way_is_an_error_that_may_be_tried_again(fault, error, env, order):
    env.sandbox.fault(fault, path="/orders")
    with pytest.raises(error):
        FeedAmpHook().run(f"orders/{order}", seller=SELLER)


def test_an_answer_that_is_too_large_once_decompressed_is_not_returned(env, monkeypatch):
    monkeypatch.setattr("feedamp.api.transport.MAX_BODY_BYTES", 1000)
    with serving(token_answer(), answer(gzip.compress(bytes(1001)), Content_Encoding="gzip")) as server:
        env.set_connection(host=server.url)
        with pytest.raises(UnclearError, match="larger than 1000 bytes"):
            FeedAmpHook().run("orders", seller=SELLER)


@pytest.mark.parametrize(
    ("extra", "options"),
    [
        pytest.param({"timeout_s": 0.3}, None, id="of the connection"),
        pytest.param({}, {"timeout": 0.3}, id="of the call"),
    ],
)
def test_a_body_that_arrives_in_drips_ends_at_the_timeout(extra, options, env):
    """Each drip comes in time, so a limit on the wait for the next byte would not end it."""
    with serving(token_answer(), answer(b" " * 40)) as server:
        server.drip_s = 0.1
        env.set_connection(host=server.url, extra=extra)
        started_at = time.monotonic()
        with pytest.raises(UnclearError, match="TimeoutError"):
            FeedAmpHook().run("orders", extra_options=options, seller=SELLER)
        assert time.monotonic() - started_at < 3


def test_an_unknown_order_is_said_to_be_unknown(env):
    with pytest.raises(NotFoundError):
        FeedAmpHook().run("orders/NOBODY", seller=SELLER)


def test_a_bad_answer_is_returned_when_no_check_is_requested(env):
    response = FeedAmpHook().run("orders/NOBODY", extra_options={"check_response": False}, seller=SELLER)
    assert response.status_code == 404


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param([answer([{"code": "BAD", "message": "Robin Vale"}], status=400)], id="refused"),
        pytest.param([answer({"name": "Robin Vale"}, status=500)], id="failed"),
        pytest.param(
            [answer({"name": "Robin Vale"}, status=401), token_answer(2), answer({}, 401)], id="shut out"
        ),
        pytest.param([answer(b"Robin Vale")[:-4]], id="cut off"),
        pytest.param([b""], id="broken off"),
    ],
)
def test_neither_log_nor_exception_holds_a_token_or_a_body(answers, env, caplog):
    caplog.set_level(logging.DEBUG)
    with serving(token_answer(), *answers) as server:
        env.set_connection(host=server.url, password="the-secret")
        with pytest.raises(Exception) as failure:  # noqa: PT011 - of any kind
            FeedAmpHook().run("orders/M-1", seller=SELLER)
    error = failure.value
    shown = "".join(traceback.format_exception(error)) + caplog.text + repr(error)
    for word in ("at-1", "at-2", "rt-", "Bearer", "the-secret", "Robin"):
        assert word not in shown
    assert not hasattr(error, "request")  # where requests keeps its headers


@pytest.mark.parametrize(
    ("call", "error", "named"),
    [
        pytest.param({}, ConfigurationError, "seller=", id="no seller"),
        pytest.param({"seller": "no one"}, AuthorizationError, "not registered", id="an unknown seller"),
        pytest.param(
            {"seller": SELLER, "headers": {"authorization": "mine"}},
            ConfigurationError,
            "Authorization",
            id="a token passed by the caller",
        ),
        pytest.param(
            {"seller": SELLER, "auth": ("me", "pw")}, ConfigurationError, "Authorization", id="a login"
        ),
        *(
            pytest.param(
                {"seller": SELLER, "extra_options": option},
                ConfigurationError,
                "extra options",
                id=str(option),
            )
            for option in ({"allow_redirects": True}, {"verify": False}, {"timeout": (5, 30)}, {"timeout": 0})
        ),
    ],
)
def test_a_call_that_cannot_be_made_says_why(call, error, named, env):
    with pytest.raises(error, match=named):
        FeedAmpHook().run("orders", **call)
    assert env.asked() == []


def test_an_unknown_connection_is_named(env):
    with pytest.raises(ConfigurationError, match="no connection elsewhere"):
        FeedAmpHook("elsewhere").get_conn()
