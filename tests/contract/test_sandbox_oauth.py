"""Consent, codes, token pairs and their rotation in the sandbox."""

from __future__ import annotations

import http.client
import json
import re
from html import unescape
from urllib.parse import parse_qs, urlsplit

import pytest
from probe import Probe, rules

from feedamp_sandbox import (
    SandboxOptions,
    Seller,
    running,
)

SELLER = "seller-001"


@pytest.fixture
def start(clock):
    """Starts a sandbox with the given options; returns it with a probe for its first seller."""
    opened = []

    def started(**options):
        context = running(SandboxOptions(requests_per_second=1000, burst=1000, **options), clock=clock.now)
        sandbox = context.__enter__()
        probe = Probe(sandbox)
        opened.append((context, probe))
        return sandbox, probe

    yield started
    for context, probe in opened:
        probe.close()
        context.__exit__(None, None, None)


def consent(probe, **changes):
    query = {
        "response_type": "code",
        "client_id": probe.sandbox.client_id,
        "state": "s-1",
        "redirect_url": "https://market.example/cb?from=feedamp",
        "seller_id": SELLER,
        **changes,
    }
    return probe.send("GET", "/authorize", query={name: value for name, value in query.items() if value})


def code_of(answer):
    return parse_qs(urlsplit(answer.headers["location"]).query)["code"][0]


def test_consent_leads_back_to_the_callback_with_code_and_state(start):
    _, probe = start()
    answer = consent(probe)
    query = parse_qs(urlsplit(answer.headers["location"]).query)
    assert answer.status == 302
    assert answer.headers["location"].startswith("https://market.example/cb?from=feedamp&code=")
    assert (query["state"], len(query["code"])) == (["s-1"], 1)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        pytest.param({"state": ""}, "missing_query_parameter", id="no state"),
        pytest.param(
            {"redirect_uri": "https://x.example"}, "unknown_query_parameter", id="OAuth's usual spelling"
        ),
        pytest.param({"redirect_url": "/cb"}, "bad_query_value", id="a callback without host"),
        pytest.param({"response_type": "token"}, "bad_query_value", id="another response type"),
    ],
)
def test_a_wrong_consent_url_is_refused_and_counted(start, changes, rule):
    sandbox, probe = start()
    assert consent(probe, **changes).status == 400
    assert rules(sandbox) == {rule: 1}


def test_a_code_buys_a_token_pair_for_the_seller_who_consented(start):
    sandbox, probe = start()
    code = code_of(consent(probe, seller_id="seller-003"))
    pair = probe.token(grant_type="authorization_code", code=code, refresh_token="").json
    assert (pair["token_type"], pair["expires_in"]) == ("Bearer", 3600)
    assert pair["refresh_token"] == sandbox.refresh_token("seller-003")
    assert sandbox.broken_rules == []


def test_a_consent_that_names_no_seller_ends_no_live_grant(start):
    has_grant = [Seller("s-1", "One", "rt-1"), Seller("s-2", "Two", "rt-2")]
    sandbox, probe = start(sellers=[*has_grant, Seller("s-3", "Three")])
    code = code_of(consent(probe, seller_id=""))
    assert probe.token(grant_type="authorization_code", code=code, refresh_token="").status == 200
    refused = consent(probe, seller_id="")
    assert (refused.status, "append &seller_id=s-1" in refused.json[0]["message"]) == (400, True)
    assert [sandbox.refresh_token(s.seller_id) for s in has_grant] == ["rt-1", "rt-2"]
    assert sandbox.refresh_token("s-3")


def test_a_browser_is_asked_which_seller_is_signed_in(start):
    _, probe = start(sellers=[Seller("s-1", "One", "rt-1"), Seller('s"<2>', "Two", "rt-2")])
    query = {
        "response_type": "code",
        "client_id": probe.sandbox.client_id,
        "state": "a&b",
        "redirect_url": "https://market.example/cb",
    }
    asked = probe.send("GET", "/authorize", query=query, headers={"Accept": "text/html,*/*"})
    links = [unescape(link) for link in re.findall('<a href="([^"]+)"', asked.body.decode())]
    assert [parse_qs(urlsplit(link).query)["seller_id"] for link in links] == [["s-1"], ['s"<2>']]
    assert all(parse_qs(urlsplit(link).query)["state"] == ["a&b"] for link in links)


def test_the_icon_that_a_browser_asks_for_breaks_no_rule(start):
    sandbox, _ = start()
    address = urlsplit(sandbox.api)
    browser = http.client.HTTPConnection(address.netloc, timeout=10)
    for path, status in (("/favicon.ico", 204), ("/favicon.png", 404)):
        browser.request("GET", path)
        answer = browser.getresponse()
        assert (answer.status, bool(answer.read())) == (status, status == 404)
    browser.close()
    assert rules(sandbox) == {"unknown_path": 1}


def test_a_code_works_once(start):
    sandbox, probe = start()
    code = code_of(consent(probe))
    answers = [probe.token(grant_type="authorization_code", code=code, refresh_token="") for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 401]
    assert (answers[1].codes, rules(sandbox)) == (["invalid_grant"], {"code_reused": 1})


def test_a_new_consent_ends_the_grant_before_it(start):
    sandbox, probe = start()
    old = sandbox.refresh_token(SELLER)
    probe.call("GET", "/orders")
    probe.token(grant_type="authorization_code", code=code_of(consent(probe)), refresh_token="")
    assert (probe.token(refresh_token=old).status, probe.call("GET", "/orders").status) == (401, 401)
    assert sandbox.broken_rules == []


def test_a_seller_who_has_not_consented_has_no_grant(start):
    sandbox, probe = start(sellers=[Seller("s-1", "One")])
    assert sandbox.refresh_token("s-1") == ""
    code = code_of(consent(probe, seller_id="s-1"))
    assert probe.token(grant_type="authorization_code", code=code, refresh_token="").status == 200


def test_every_refresh_gives_a_new_refresh_token(start):
    sandbox, probe = start()
    pairs = [probe.token().json for _ in range(3)]
    assert len({pair["refresh_token"] for pair in pairs} | {pair["access_token"] for pair in pairs}) == 6
    assert sandbox.broken_rules == []


def test_an_exchanged_refresh_token_is_dead_and_its_reuse_is_counted(start):
    sandbox, probe = start()
    old = sandbox.refresh_token(SELLER)
    probe.token()
    answer = probe.token(refresh_token=old)
    assert (answer.status, answer.codes) == (401, ["invalid_grant"])
    assert rules(sandbox) == {"refresh_token_reused": 1}
    assert probe.token().status == 200


@pytest.mark.parametrize(
    ("waited_s", "status"),
    [pytest.param(29, 200, id="within the grace period"), pytest.param(30, 401, id="after it")],
)
def test_the_token_before_the_newest_is_answered_with_the_newest(start, clock, waited_s, status):
    sandbox, probe = start(refresh_grace_s=30)
    old = sandbox.refresh_token(SELLER)
    newest = probe.token().json["refresh_token"]
    clock.skip(seconds=waited_s)
    answer = probe.token(refresh_token=old)
    assert answer.status == status
    if status == 200:
        assert (answer.json["refresh_token"], sandbox.broken_rules) == (newest, [])


def test_the_token_before_the_one_before_has_no_grace(start):
    sandbox, probe = start(refresh_grace_s=30)
    old = sandbox.refresh_token(SELLER)
    probe.token()
    probe.token()
    assert (probe.token(refresh_token=old).status, rules(sandbox)) == (401, {"refresh_token_reused": 1})


def test_reuse_can_end_the_whole_grant(start):
    sandbox, probe = start(revoke_on_reuse=True)
    old = sandbox.refresh_token(SELLER)
    probe.call("GET", "/orders")
    probe.token(refresh_token=old)
    assert (sandbox.refresh_token(SELLER), probe.call("GET", "/orders").status) == ("", 401)


def test_repeating_a_refresh_whose_answer_was_lost_is_no_mistake(start):
    sandbox, probe = start()
    old = sandbox.refresh_token(SELLER)
    sandbox.fault("lost_refresh")
    with pytest.raises(ConnectionError):
        probe.token()
    assert sandbox.refresh_token(SELLER) != old
    assert (probe.token(refresh_token=old).status, sandbox.broken_rules) == (401, [])


@pytest.mark.parametrize(
    ("changes", "status", "code", "rule"),
    [
        pytest.param({"client_secret": "wrong"}, 401, "invalid_client", None, id="a wrong secret"),
        pytest.param({"client_id": "mkt-0"}, 401, "invalid_client", None, id="a wrong client id"),
        pytest.param({"refresh_token": "rt-0"}, 401, "invalid_grant", None, id="an unknown refresh token"),
        pytest.param({"client_secret": ""}, 400, "MISSING_REQUIRED_FIELD", "missing_field", id="no secret"),
        pytest.param(
            {"redirect_url": "x"}, 400, "UNKNOWN_FIELD_PRESENT", "unknown_field", id="an unknown field"
        ),
        pytest.param(
            {"grant_type": "password"}, 400, "FIELD_INVALID_VALUE", "bad_field", id="another grant type"
        ),
    ],
)
def test_a_refused_token_call_says_whom_it_means(start, changes, status, code, rule):
    sandbox, probe = start()
    answer = probe.token(**changes)
    assert (answer.status, answer.codes, rules(sandbox)) == (status, [code], {rule: 1} if rule else {})
    assert probe.token().status == 200


def test_a_field_that_stands_twice_is_refused(start):
    sandbox, probe = start()
    body = f"grant_type=refresh_token&refresh_token={sandbox.refresh_token(SELLER)}&client_id=x"
    body += f"&client_id={sandbox.client_id}&client_secret={sandbox.client_secret}"
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert probe.send("POST", "/access_token", body, headers).status == 400
    assert rules(sandbox) == {"unknown_field": 1}


def test_json_is_no_form(start):
    sandbox, probe = start()
    body = json.dumps({"grant_type": "refresh_token", "refresh_token": sandbox.refresh_token(SELLER)})
    assert probe.send("POST", "/access_token", body, {"Content-Type": "application/json"}).status == 400
    assert rules(sandbox) == {"json_token_body": 1}


@pytest.mark.parametrize(
    ("waited_s", "status"),
    [pytest.param(59, 200, id="just before it ends"), pytest.param(60, 401, id="when it ends")],
)
def test_an_access_token_lives_as_long_as_it_says(start, clock, waited_s, status):
    _, probe = start(token_lifetime_s=60)
    probe.call("GET", "/orders")
    clock.skip(seconds=waited_s)
    answer = probe.call("GET", "/orders")
    assert answer.status == status


def test_a_refresh_leaves_the_access_token_before_it_alive(start):
    _, probe = start()
    probe.call("GET", "/orders")
    probe.token()
    assert probe.call("GET", "/orders").status == 200


@pytest.mark.parametrize(
    ("end", "order_status", "refresh_status"),
    [
        pytest.param(lambda s: s.expire_access_tokens(SELLER), 401, 200, id="access tokens run out"),
        pytest.param(
            lambda s: s.expire_access_tokens("seller-002"), 200, 200, id="those of another seller run out"
        ),
        pytest.param(lambda s: s.cancel_grant(SELLER), 200, 401, id="the grant ends quietly"),
        pytest.param(lambda s: s.revoke(SELLER), 401, 401, id="the seller disconnects"),
    ],
)
def test_grants_and_tokens_can_be_ended(start, end, order_status, refresh_status):
    sandbox, probe = start()
    probe.call("GET", "/orders")
    refresh_token = sandbox.refresh_token(SELLER)
    end(sandbox)
    statuses = probe.call("GET", "/orders").status, probe.token(refresh_token=refresh_token).status
    assert statuses == (order_status, refresh_status)
    assert sandbox.broken_rules == []


def test_a_new_consent_can_leave_the_grants_before_it_alive(start):
    sandbox, probe = start(keep_older_grants=True)
    old = sandbox.refresh_token(SELLER)
    new = sandbox.consent(SELLER)
    assert new != old
    assert [probe.token(refresh_token=token).status for token in (old, new)] == [200, 200]
    assert sandbox.broken_rules == []
