"""Reading and checking an Airflow connection, with extras as forms, environment variables and people write them."""

from __future__ import annotations

import json

import pytest
from airflow.sdk import Connection

from feedamp.errors import ConfigurationError
from feedamp_airflow.account import read_account

HOST = "https://feedamp.example/api/v1"


def account(extra=None, **fields):
    given = {"host": HOST, "login": "mkt", "password": "hush", **fields}
    text = extra if isinstance(extra, str) or extra is None else json.dumps(extra)
    return read_account(Connection(conn_id="feedamp_default", conn_type="feedamp", extra=text, **given))


def endpoint(extra=None, **fields):
    return account(extra, **fields).endpoint


EMPTY = dict.fromkeys(
    (
        "callback_url",
        "requests_per_second",
        "max_connections",
        "timeout_s",
        "allow_http",
        "verify",
        "trust_env",
        "proxies",
        "cert",
        "timeout",
    )
)


@pytest.mark.parametrize(
    "extra",
    [
        pytest.param(None, id="no extras"),
        pytest.param("", id="extras that are empty text"),
        pytest.param({}, id="an empty object"),
        pytest.param(EMPTY, id="every field of the form left empty"),
        pytest.param(dict.fromkeys(EMPTY, ""), id="every field emptied again"),
    ],
)
def test_a_connection_without_extras_has_the_defaults(extra):
    found = account(extra)
    assert (found.requests_per_second, found.callback_url) == (2.0, None)
    assert found.endpoint.base_url == HOST
    assert (found.endpoint.max_connections, found.endpoint.timeout_s) == (32, 30.0)
    assert (found.endpoint.verify, found.endpoint.cert, found.endpoint.proxy) == (True, None, None)
    assert not found.endpoint.trust_env
    assert not found.endpoint.allow_http


@pytest.mark.parametrize(
    ("extra", "field", "value"),
    [
        pytest.param({"max_connections": 4}, "max_connections", 4, id="the number of connections"),
        pytest.param({"max_connections": "4"}, "max_connections", 4, id="a number written as text"),
        pytest.param({"timeout_s": 2.5}, "timeout_s", 2.5, id="a timeout"),
        pytest.param({"timeout": "7"}, "timeout_s", 7.0, id="a timeout as the http provider calls it"),
        pytest.param({"timeout_s": 3, "timeout": 7}, "timeout_s", 3.0, id="both timeouts, `timeout_s` first"),
        pytest.param(
            {"timeout_s": None, "timeout": 7}, "timeout_s", 7.0, id="`timeout_s` empty, `timeout` given"
        ),
        pytest.param({"verify": False}, "verify", False, id="no verification"),
        pytest.param({"verify": "False"}, "verify", False, id="no verification, as text"),
        pytest.param({"verify": " true "}, "verify", True, id="verification, as text"),
        pytest.param({"verify": "/etc/ca.pem"}, "verify", "/etc/ca.pem", id="a CA bundle"),
        pytest.param({"cert": "/etc/me.pem"}, "cert", "/etc/me.pem", id="a client certificate"),
        pytest.param({"cert": ["/c.pem", "/k.pem"]}, "cert", ("/c.pem", "/k.pem"), id="certificate and key"),
        pytest.param({"trust_env": True}, "trust_env", True, id="the environment trusted"),
        pytest.param({"trust_env": "yes"}, "trust_env", True, id="the environment trusted, as text"),
        pytest.param({"trust_env": "false"}, "trust_env", False, id="the environment not trusted, as text"),
        pytest.param({"proxies": "http://proxy:3128"}, "proxy", "http://proxy:3128", id="one proxy"),
        pytest.param({"proxies": {"https": "http://p"}}, "proxy", "http://p", id="a proxy for https"),
        pytest.param({"proxies": {"all": "http://p"}}, "proxy", "http://p", id="a proxy for all"),
        pytest.param({"proxies": {"http": "http://p"}}, "proxy", None, id="a proxy for http only"),
        pytest.param({"proxies": {}}, "proxy", None, id="no proxies"),
        pytest.param({"proxies": '{"https": "http://p"}'}, "proxy", "http://p", id="proxies as JSON text"),
        pytest.param({"cert": '["/c.pem", "/k.pem"]'}, "cert", ("/c.pem", "/k.pem"), id="paths as JSON text"),
        pytest.param({"unheard_of": {"a": [1]}}, "base_url", HOST, id="an unknown extra"),
    ],
)
def test_an_extra_is_read_as_meant(extra, field, value):
    assert getattr(endpoint(extra), field) == value


def test_the_rate_is_a_number_per_seller():
    assert account({"requests_per_second": "0.5"}).requests_per_second == 0.5


def test_the_callback_url_is_kept():
    assert account({"callback_url": "https://market.example/cb"}).callback_url == "https://market.example/cb"


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        pytest.param({"max_connections": "many"}, "max_connections", id="connections in words"),
        pytest.param({"max_connections": 0}, "max_connections", id="no connections"),
        pytest.param({"max_connections": [3]}, "max_connections", id="connections as a list"),
        pytest.param({"timeout_s": -1}, "timeout_s", id="a negative timeout"),
        pytest.param({"timeout": "soon"}, "timeout", id="a timeout in words"),
        pytest.param({"requests_per_second": 0}, "requests_per_second", id="no requests"),
        pytest.param({"requests_per_second": "nan"}, "requests_per_second", id="a rate that is not a number"),
        pytest.param({"requests_per_second": "inf"}, "requests_per_second", id="an infinite rate"),
        pytest.param({"requests_per_second": {"n": 2}}, "requests_per_second", id="a rate as an object"),
        pytest.param({"cert": 5}, "cert", id="a certificate that is a number"),
        pytest.param({"cert": ["/one", "/two", "/three"]}, "cert", id="three certificates"),
        pytest.param({"proxies": 3128}, "proxies", id="a proxy that is a number"),
        pytest.param({"proxies": ["http://p"]}, "proxies", id="proxies as a list"),
    ],
)
def test_an_extra_that_cannot_be_used_is_named_with_its_connection(extra, named):
    with pytest.raises(ConfigurationError, match=rf"^Connection feedamp_default: extra {named}\b"):
        account(extra)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        pytest.param({"schema": "https"}, "Schema must stay empty", id="a schema"),
        pytest.param({"port": 8443}, "Port must stay empty", id="a port"),
        pytest.param({"host": None}, "Base URL is missing", id="no host"),
        pytest.param({"host": ""}, "Base URL is missing", id="an empty host"),
        pytest.param({"login": None}, "Client ID is missing", id="no client id"),
        pytest.param({"password": ""}, "Client secret is missing", id="no client secret"),
        pytest.param({"host": "feedamp.example/api/v1"}, "whole address", id="a host without https"),
        pytest.param({"host": "ftp://feedamp.example"}, "whole address", id="another protocol"),
        pytest.param({"host": f"{HOST}?key=1"}, "plain address", id="a query"),
        pytest.param({"host": "https://u:p@feedamp.example"}, "plain address", id="a user in the address"),
        pytest.param({"host": "http://feedamp.example/api/v1"}, "allow_http", id="http beyond this machine"),
    ],
)
def test_a_field_that_cannot_be_used_is_named_with_its_connection(fields, named):
    with pytest.raises(ConfigurationError, match=f"feedamp_default.*{named}"):
        account(**fields)


@pytest.mark.parametrize(
    ("host", "extra"),
    [
        pytest.param("http://127.0.0.1:8080/api/v1", None, id="on this machine"),
        pytest.param("http://localhost:8080/api/v1", None, id="on localhost"),
        pytest.param("http://test.example/api/v1", {"allow_http": "true"}, id="in a test network"),
    ],
)
def test_http_is_for_this_machine_and_where_it_is_permitted(host, extra):
    assert endpoint(extra, host=host).base_url == host


def test_blanks_and_a_slash_around_the_address_do_no_harm():
    found = endpoint({"proxies": {"https": "http://p"}}, host=f"  {HOST}/ ")
    assert (found.base_url, found.proxy) == (HOST, "http://p")


def test_blanks_and_line_ends_around_credentials_do_no_harm():
    found = account({"callback_url": " https://market.example/cb\n"}, login=" mkt", password="hush\r\n")
    assert (found.credentials.client_id, found.credentials.client_secret) == ("mkt", "hush")
    assert found.callback_url == "https://market.example/cb"
    with pytest.raises(ConfigurationError, match="Client secret is missing"):
        account(password="\n")


def test_a_number_that_cannot_be_used_names_its_connection_once():
    with pytest.raises(ConfigurationError) as caught:
        account({"max_connections": "32.5"})
    assert str(caught.value) == "Connection feedamp_default: extra max_connections must be a number."


def test_an_account_shows_neither_secret_nor_proxy_password():
    text = repr(account({"proxies": "http://user:word@proxy"}, password="very-secret"))
    assert "very-secret" not in text
    assert "word" not in text
