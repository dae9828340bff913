"""POST /access_token: what is sent, and what each answer means."""

from __future__ import annotations

import gzip
import json
import zlib
from datetime import timedelta
from email.utils import format_datetime as http_date
from urllib.parse import parse_qs

import pytest
from scripted import answer, scripted, token_answer
from wire import CONN, S1, wired

from crashes.clock import NOON
from feedamp.api.oauth import (
    ASSUMED_LIFE_S,
    LONGEST_LIFE_S,
    Credentials,
    TokenEndpoint,
)
from feedamp.api.transport import Endpoint, Transport
from feedamp.errors import (
    AuthorizationError,
    ClientRefusedError,
    RejectedError,
    ThrottledError,
    UnclearError,
)

GOOD = {"access_token": "at-1", "token_type": "Bearer", "refresh_token": "rt-1", "expires_in": 3600}


async def asked(*answers, grant="refresh", secret="rt-0"):
    async with scripted(*answers) as script, Transport(Endpoint(script.url, timeout_s=5)) as transport:
        endpoint = TokenEndpoint(transport, Credentials(CONN, "mkt", "hush"))
        return await getattr(endpoint, grant)(secret), script


@pytest.mark.parametrize(
    ("grant", "fields"),
    [
        ("refresh", {"grant_type": "refresh_token", "refresh_token": "a+b/c="}),
        ("exchange", {"grant_type": "authorization_code", "code": "a+b/c="}),
    ],
)
async def test_a_grant_goes_out_as_a_form_without_any_authorization(grant, fields):
    pair, script = await asked(token_answer(), grant=grant, secret="a+b/c=")
    head, _, body = script.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /api/v1/access_token HTTP/1.1\r\n")
    assert b"\r\nauthorization:" not in head.lower()
    sent = {name: value for name, (value,) in parse_qs(body.decode()).items()}
    assert sent == {**fields, "client_id": "mkt", "client_secret": "hush"}
    assert (pair.access_token, pair.refresh_token, pair.expires_in_s) == ("at-1", "rt-1", 3600)


async def test_a_code_is_exchanged_for_a_grant():
    async with wired() as wire:
        code = wire.sandbox.world.grants.issue_code(S1)
        pair = await TokenEndpoint(wire.transport, wire.credentials).exchange(code)
        assert pair.refresh_token == wire.sandbox.refresh_token(S1)
        with pytest.raises(AuthorizationError):
            await TokenEndpoint(wire.transport, wire.credentials).exchange("of-yesterday")


@pytest.mark.parametrize(
    ("life", "seconds"),
    [
        pytest.param(1800, 1800, id="whole seconds"),
        pytest.param("1800", 1800, id="text"),
        pytest.param(1799.5, 1799, id="a fraction"),
        pytest.param(None, ASSUMED_LIFE_S, id="nothing"),
        pytest.param("soon", ASSUMED_LIFE_S, id="a word"),
        pytest.param("NaN", ASSUMED_LIFE_S, id="no number"),
        pytest.param(True, ASSUMED_LIFE_S, id="a flag"),
        pytest.param([], ASSUMED_LIFE_S, id="a list"),
        pytest.param(0, ASSUMED_LIFE_S, id="no life at all"),
        pytest.param(-1, ASSUMED_LIFE_S, id="a life gone by"),
        pytest.param("1e999999", LONGEST_LIFE_S, id="forever"),
    ],
)
async def test_a_rotated_token_is_never_lost_over_the_life_of_its_access_token(life, seconds):
    pair, _ = await asked(answer({**GOOD, "expires_in": life}))
    assert (pair.refresh_token, pair.expires_in_s) == ("rt-1", seconds)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"<html></html>", id="HTML"),
        pytest.param(b'{"access_token":"at-', id="cut JSON"),
        pytest.param([], id="a list"),
        pytest.param({"token_type": "Bearer"}, id="no token"),
        pytest.param({"message": "refresh_token: expired, get a new one"}, id="words about a token"),
        pytest.param({"access_token": "", "refresh_token": "rt-0"}, id="only the token that was sent"),
        pytest.param(
            b'{"access_token":"at-1","expires_in":3600,"refresh_tok', id="cut before the refresh token"
        ),
        pytest.param(
            b'{"request":{"refresh_token":"rt-0"},"access_token":"at-1",', id="cut behind the request"
        ),
        pytest.param(
            b'{"access_token":"at-1","scope":"' + b"x" * 70_000 + b'"},,', id="too long to be read to its end"
        ),
    ],
)
async def test_a_2xx_that_is_no_pair_is_unclear_for_the_token_may_be_spent(body):
    with pytest.raises(UnclearError):
        await asked(answer(body))


@pytest.mark.usefixtures("without_collection")
async def test_a_pair_beside_what_is_nested_too_deep_is_not_lost():
    beside = b'"note":"\\u0000","debug":' + b"[" * 900 + b"]" * 900
    pair, _ = await asked(answer(b'{"access_token":"at-1","refresh_token":"rt-1",' + beside + b"}"))
    assert (pair.access_token, pair.refresh_token) == ("at-1", "rt-1")


@pytest.mark.parametrize("missing", [None, "", " ", False, [], {}, 0, "false"])
async def test_a_token_that_is_not_rotated_stays(missing):
    pair, _ = await asked(answer({**GOOD, "refresh_token": missing}))
    assert (pair.access_token, pair.refresh_token) == ("at-1", "rt-0")
    with pytest.raises(UnclearError):
        await asked(answer({**GOOD, "refresh_token": missing}), grant="exchange")


JSON = json.dumps(GOOD).encode()


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"\xef\xbb\xbf" + JSON, id="a byte order mark"),
        pytest.param(b"\xef\xbb\xbf\xef\xbb\xbf" + JSON + b"\0\n", id="two, and a NUL behind"),
        pytest.param(json.dumps(GOOD).encode("utf-16"), id="UTF-16"),
        pytest.param(JSON[:-1] + b', "scope": "M\xfcller"}', id="a latin-1 byte"),
        pytest.param(JSON[:-1] + b', "limit": NaN}', id="NaN"),
        pytest.param([GOOD], id="in a list"),
        pytest.param({"status": "ok", "data": {"token": GOOD}}, id="below other members"),
        pytest.param(json.dumps(json.dumps(GOOD)).encode(), id="JSON as text in JSON"),
        pytest.param(b"<b>Notice</b>: undefined index in x.php\n" + JSON, id="a warning in front"),
        pytest.param(JSON + b"\n<!-- 12 ms -->", id="a comment behind"),
        pytest.param(JSON[:-1] + b', "scope": "cut o', id="cut off behind the tokens"),
        pytest.param(JSON.replace(b'"', b"'"), id="single quotes"),
        pytest.param(JSON[:-1] + b",}", id="a comma too many"),
        pytest.param(JSON.replace(b"rt-1", b"rt\\u002d1")[:-1] + b",}", id="an escape, and a comma too many"),
        pytest.param(b"callback(" + JSON + b");", id="JSONP"),
        pytest.param(b"access_token: at-1\nexpires_in: 3600\nrefresh_token: rt-1\n", id="YAML"),
        pytest.param(
            {"request": {"refresh_token": "rt-0"}, "response": GOOD}, id="below the request that it repeats"
        ),
        pytest.param(
            JSON[:-1] + b',"request":{"refresh_token":"rt-0"},}', id="before it, and a comma too many"
        ),
        pytest.param(
            b"access_token=at-1&expires_in=3600&refresh_token=rt-1&refresh_token=rt-0",
            id="a form that repeats it",
        ),
        pytest.param(
            {"access": {"access_token": "at-1", "expires_in": 3600}, "refresh": {"refresh-token": ["rt-1"]}},
            id="each token in an object of its own",
        ),
        pytest.param(
            {**GOOD, "access_token": {"value": "at-1"}, "refresh_token": {"token": "rt-1"}},
            id="tokens as objects",
        ),
        pytest.param(b"access_token=at-1&expires_in=3600&refresh_token=rt-1&token_type=bearer", id="a form"),
        pytest.param(
            b"<r><access_token>at-1</access_token><refresh_token>rt-1</refresh_token>"
            b"<expires_in>3600</expires_in></r>",
            id="XML",
        ),
        pytest.param({**GOOD, "access_token": "bearer at-1"}, id="the scheme in front of the token"),
        pytest.param(
            {"accessToken": "at-1", "refreshToken": " rt-1\n", "expiresIn": "3600"}, id="camel case"
        ),
    ],
)
async def test_a_rotated_token_is_not_lost_over_the_form_of_its_answer(body):
    pair, _ = await asked(answer(body))
    assert (pair.access_token, pair.refresh_token, pair.expires_in_s) == ("at-1", "rt-1", 3600)


@pytest.mark.parametrize(
    ("body", "access"),
    [
        pytest.param(JSON + b" ", "at-1", id="after the JSON"),
        pytest.param(b'{"refresh_token":"rt-1","access_tok', "", id="after the refresh token"),
    ],
)
async def test_a_rotated_token_is_taken_from_an_answer_whose_end_is_lost(body, access):
    cut = answer(body + b"....").removesuffix(b"....")  # the connection ends before the announced length
    pair, _ = await asked(cut)
    assert (pair.access_token, pair.refresh_token) == (access, "rt-1")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"access_token=at-1&expires_in=3600", id="a form"),
        pytest.param(b"access_token: at-1\nexpires_in: 3600\n", id="YAML"),
    ],
)
async def test_only_a_whole_answer_without_a_refresh_token_keeps_the_sent_one(body):
    pair, _ = await asked(answer(body))
    assert (pair.access_token, pair.refresh_token, pair.is_rotated) == ("at-1", "rt-0", False)
    with pytest.raises(UnclearError):
        await asked(answer(body + b"....").removesuffix(b"...."))  # the end of the announced length is lost


async def test_a_rotated_token_is_taken_from_an_answer_without_an_end(monkeypatch):
    monkeypatch.setattr("feedamp.api.oauth.LONGEST_ANSWER", 200)
    pair, _ = await asked(answer(JSON[:-1] + b', "scope": "' + b"x" * 100_000 + b'"}'))
    assert (pair.access_token, pair.refresh_token) == ("at-1", "rt-1")


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        pytest.param(gzip.compress(JSON), "gzip", id="gzip"),
        pytest.param(gzip.compress(JSON), None, id="gzip that no header announces"),
        pytest.param(zlib.compress(JSON), "deflate", id="deflate"),
        pytest.param(JSON, "gzip", id="a plain body announced as gzip"),
        pytest.param(JSON, "br", id="a plain body announced as br"),
    ],
)
async def test_a_rotated_token_is_not_lost_over_a_content_encoding(body, encoding):
    headers = {"Content_Encoding": encoding} if encoding else {}
    pair, _ = await asked(answer(body, **headers))
    assert (pair.access_token, pair.refresh_token) == ("at-1", "rt-1")


async def test_half_a_token_is_not_taken():
    with pytest.raises(UnclearError):
        await asked(answer(b'{"refresh_token": "rt-').removesuffix(b"-"))


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        pytest.param(
            401, [{"code": "invalid_grant", "message": "m"}], AuthorizationError, id="401 for the grant"
        ),
        pytest.param(400, {"error": "invalid_grant"}, AuthorizationError, id="400 for the grant"),
        pytest.param(401, b"", AuthorizationError, id="401 without a word"),
        pytest.param(401, {"error": "INVALID_CLIENT"}, ClientRefusedError, id="401 for the client"),
        pytest.param(400, {"error": "unauthorized_client"}, ClientRefusedError, id="400 for the client"),
        pytest.param(200, {"error": "invalid_grant"}, AuthorizationError, id="200 for the grant"),
        pytest.param(200, {"error": "unauthorized_client"}, ClientRefusedError, id="200 for its client"),
        pytest.param(
            200, {"ok": False, "code": "invalid_client"}, ClientRefusedError, id="200 for the client"
        ),
        pytest.param(403, b"<h1>Forbidden</h1>", RejectedError, id="403: perhaps an address list"),
        pytest.param(404, b"", RejectedError, id="404: a wrong Host"),
        pytest.param(302, b"", RejectedError, id="a redirect"),
        pytest.param(500, b"", UnclearError, id="500"),
        pytest.param(503, b"", UnclearError, id="503"),
        pytest.param(408, b"", UnclearError, id="408"),
        pytest.param(429, b"", ThrottledError, id="429"),
    ],
)
async def test_each_refusal_has_its_error(status, body, kind):
    with pytest.raises(kind) as caught:
        await asked(answer(body, status))
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        pytest.param({"Retry-After": "7"}, 7, id="seconds"),
        pytest.param(
            {
                "Retry-After": http_date(NOON + timedelta(seconds=9), usegmt=True),
                "Date": http_date(NOON, usegmt=True),
            },
            9,
            id="a date",
        ),
        pytest.param({}, None, id="nothing"),
    ],
)
async def test_a_throttled_token_call_says_when_to_come_back(headers, seconds):
    with pytest.raises(ThrottledError) as caught:
        await asked(answer([], 429, **headers))
    assert caught.value.retry_after_s == seconds
