"""`feedamp sellers authorize-url` and `authorize`, against the sandbox's consent page."""

from __future__ import annotations

import io
import json
import sqlite3
import threading
import time
from contextlib import closing
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
import sqlalchemy as sa
from consenting import CALLBACK, authorize, consent
from console import SELLER

from feedamp.api import pair_storage
from feedamp.api.token_journal import JournaledPair
from feedamp.errors import StoreAwayError
from feedamp.state import grants, overview
from feedamp.state.schema import authorizations, slots


@pytest.fixture
def shop(console):
    """One seller without a grant, and a connection that has a callback."""
    console.env.set_connection(extra=json.dumps({"callback_url": CALLBACK}))
    assert console.run("sellers", "add", SELLER).code == 0
    return console


def ask_for_url(shop):
    done = shop.run("sellers", "authorize-url", SELLER)
    assert done.code == 0, done.err
    [url] = done.out.splitlines()
    return url


def state_of(url):
    return parse_qs(urlsplit(url).query)["state"][0]


def the_grant(shop):
    with shop.resources.state.read() as connection:
        return grants.read(connection, shop.resources.cipher, SELLER)


def test_a_consent_becomes_a_grant_that_works(shop):
    url = ask_for_url(shop)
    assert url.startswith(f"{shop.sandbox.api}/authorize?")
    assert parse_qs(urlsplit(url).query)["redirect_url"] == [CALLBACK]
    shop.deliver("a.jsonl", "M-1")
    shop.plan()
    done = authorize(shop, *consent(url))
    assert (done.code, "connected; the next run sends 1 waiting order" in done.out) == (0, True)
    shop.place()
    assert "M-1" in shop.sandbox.orders(SELLER)
    assert shop.sandbox.broken_rules == []
    grant = the_grant(shop)
    secrets = (grant.refresh_token, grant.access_token, shop.sandbox.client_secret)
    assert not [secret for secret in secrets if secret in done.out + done.err]


def test_a_state_that_is_away_once_the_grant_is_stored_makes_it_no_failure(shop, monkeypatch):
    code_and_state, watermarks = consent(ask_for_url(shop)), overview.seller_watermarks

    def away(connection):
        if the_grant(shop):
            raise StoreAwayError("The state database does not answer.")
        return watermarks(connection)

    monkeypatch.setattr(overview, "waiting_by_seller", away)
    monkeypatch.setattr(overview, "seller_watermarks", away)
    done = authorize(shop, *code_and_state)
    assert (done.code, f"seller {SELLER}: connected" in done.out) == (0, True)
    assert "is not known (StoreAwayError)" in done.err


def test_a_pause_that_feedamp_asks_for_spends_nothing_and_is_obeyed(shop):
    code, state = consent(ask_for_url(shop))
    shop.sandbox.fault("throttle", path="access_token", seconds=90)
    first, second = authorize(shop, code, state), authorize(shop, code, state)
    assert (first.code, second.code) == (1, 1)
    assert "answered a token call with 429. It asks for a pause until 20" in first.err
    assert f"asked for a pause for seller {SELLER} until 20" in second.err
    for done in (first, second):
        assert "Nothing was spent" in done.err
    calls = [asked for asked in shop.sandbox.requests if asked.path.endswith("/access_token")]
    assert len(calls) == 1
    with shop.resources.state.begin() as connection:
        connection.execute(sa.update(slots).values(token_call_at=0.0))
    assert authorize(shop, code, state).code == 0


@pytest.mark.parametrize(
    "pauses", [("pause", 600), ("pause_token_calls", 2)], ids=["of requests", "a short one"]
)
def test_a_pause_that_is_short_or_of_other_requests_refuses_no_consent(shop, pauses):
    which, seconds = pauses
    code, state = consent(ask_for_url(shop))
    until = time.monotonic() + seconds
    getattr(shop.resources.state.rates, which)(SELLER, seconds)
    done = authorize(shop, code, state)
    assert (done.code, f"seller {SELLER}: connected" in done.out) == (0, True)
    assert (time.monotonic() >= until) is (which == "pause_token_calls")


def test_only_a_digest_of_the_state_is_stored(shop):
    urls = [ask_for_url(shop) for _ in range(2)]
    states = [state_of(url) for url in urls]
    assert states[0] != states[1]
    assert all(len(state) >= 43 for state in states)
    content = b"".join(path.read_bytes() for path in shop.folder.glob("state.db*"))
    assert not [state for state in states if state.encode() in content]


def test_a_state_works_once(shop):
    code, state = consent(ask_for_url(shop))
    assert authorize(shop, code, state).code == 0
    again = authorize(shop, code, state)
    assert again.code == 1
    assert "used already" in again.err
    assert shop.sandbox.broken_rules == []  # the code was not sent twice


def test_an_old_state_is_refused(shop):
    code, state = consent(ask_for_url(shop))
    with shop.resources.state.begin() as connection:
        past = shop.resources.state.now() - timedelta(seconds=1)
        connection.execute(sa.update(authorizations).values(expires_at=past))
    done = authorize(shop, code, state)
    assert (done.code, "expired" in done.err) == (1, True)
    assert the_grant(shop) is None


def test_the_url_is_good_for_fifteen_minutes(shop):
    ask_for_url(shop)
    with shop.resources.state.read() as connection:
        [until] = connection.execute(sa.select(authorizations.c.expires_at)).scalars()
    assert timedelta(minutes=14) < until - shop.resources.state.now() <= timedelta(minutes=15)


def test_a_state_of_another_seller_is_refused_and_stays_good(shop):
    shop.run("sellers", "add", "seller-002")
    code, state = consent(ask_for_url(shop))
    wrong = authorize(shop, code, state, seller="seller-002")
    assert (wrong.code, "another seller" in wrong.err) == (1, True)
    assert authorize(shop, code, state).code == 0


def test_a_state_never_looks_like_an_option(shop, monkeypatch):
    made = iter(["-abc", "--state", "abc"])
    monkeypatch.setattr("secrets.token_urlsafe", lambda size: next(made))
    assert state_of(ask_for_url(shop)) == "abc"


def test_a_code_that_looks_like_an_option_goes_in_with_an_equals_sign(shop):
    state = state_of(ask_for_url(shop))
    done = shop.run("sellers", "authorize", SELLER, "--code=-made-up", f"--state={state}")
    assert (done.code, "refuses the code" in done.err) == (1, True)


@pytest.mark.parametrize("state", ["made-up", "", "\udc80"])
def test_a_state_from_nowhere_is_refused(shop, state):
    done = authorize(shop, "c-1", state)
    assert (done.code, "never handed out" in done.err) == (1, True)
    assert shop.sandbox.requests == []


def test_a_refused_code_says_so(shop):
    done = authorize(shop, "c-made-up", state_of(ask_for_url(shop)))
    assert done.code == 1
    assert "refuses the code" in done.err
    assert "c-made-up" not in done.err


def test_a_seller_who_did_not_consent(shop):
    state = state_of(ask_for_url(shop))
    argv = ["sellers", "authorize", SELLER, "--error", "access_denied", "--state", state]
    done = shop.run(*argv)
    assert (done.code, "did not consent (access_denied)" in done.err) == (1, True)
    assert "used already" in shop.run(*argv).err


def lock_once_the_state_is_spent(path, held):
    """Holds the write lock of the state from the moment when the `state` of an authorize URL is spent."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        while connection.execute("SELECT count(used_at) FROM authorizations").fetchone() == (0,):
            time.sleep(0.01)
        connection.execute("BEGIN IMMEDIATE")
        held.wait()
        connection.execute("ROLLBACK")


@pytest.fixture
def stalls_at_the_exchange(shop):
    """The state accepts nothing from the exchange of the code on, until the event is set."""
    held = threading.Event()
    shop.sandbox.fault("slow_drip", path="access_token", seconds=0.4)
    holder = threading.Thread(target=lock_once_the_state_is_spent, args=(shop.folder / "state.db", held))
    holder.start()
    yield held
    held.set()
    holder.join()


def test_a_grant_that_the_state_does_not_accept_waits_in_the_journal(
    shop, monkeypatch, stalls_at_the_exchange
):
    monkeypatch.setattr(pair_storage, "JOURNALED_AFTER_S", 0.1)
    monkeypatch.setattr(pair_storage, "STORE_TRIED_FOR_S", 0.2)
    code, state = consent(ask_for_url(shop))
    done = authorize(shop, code, state)
    assert (done.code, "in the journal" in done.err, the_grant(shop)) == (1, True, None)
    stalls_at_the_exchange.set()
    shop.resources.pairs.take_in_consents()
    assert the_grant(shop).refresh_token == shop.sandbox.refresh_token(SELLER)
    assert shop.resources.journal.sellers_with_consent() == []
    shop.deliver("a.jsonl", "M-1")
    shop.plan()
    shop.place()
    assert "M-1" in shop.sandbox.orders(SELLER)
    assert shop.sandbox.broken_rules == []


def test_a_consent_that_is_stored_already_is_not_stored_again(shop):
    authorize(shop, *consent(ask_for_url(shop)))
    grant = the_grant(shop)
    pair = JournaledPair(
        seller_id=SELLER,
        generation=0,
        used_token=grant.refresh_token,
        refresh_token=grant.refresh_token,
        access_token="at-first",
        expires_in_s=3600,
        asked_at=shop.resources.state.now(),
        conn_id="feedamp_default",
    )
    shop.resources.journal.reserve(SELLER, is_consent=True).write(pair)
    shop.resources.pairs.take_in_consents()
    assert the_grant(shop) == grant
    assert shop.resources.journal.waiting() == 0


def test_a_wrong_client_secret_is_a_matter_of_configuration(shop):
    code, state = consent(ask_for_url(shop))
    shop.env.set_connection(password="wrong", extra={"callback_url": CALLBACK})
    done = authorize(shop, code, state)
    assert (done.code, "client id or secret" in done.err, "Begin again" in done.err) == (2, True, True)


def test_feedamp_out_of_reach_spends_nothing(shop):
    code, state = consent(ask_for_url(shop))
    shop.env.set_connection(host="http://127.0.0.1:9/api/v1", extra={"callback_url": CALLBACK})
    away = authorize(shop, code, state)
    assert (away.code, "same command again" in away.err) == (1, True)
    shop.env.set_connection(extra={"callback_url": CALLBACK})
    assert authorize(shop, code, state).code == 0


def test_a_lost_answer_asks_for_a_new_consent(shop):
    code, state = consent(ask_for_url(shop))
    shop.sandbox.fault("reset_after", path="/access_token")
    done = authorize(shop, code, state)
    assert (done.code, "may be spent" in done.err) == (1, True)
    assert authorize(shop, *consent(ask_for_url(shop))).code == 0


def test_without_a_callback_url_there_is_no_address(console):
    console.run("sellers", "add", SELLER)
    done = console.run("sellers", "authorize-url", SELLER)
    assert (done.code, "callback_url is missing" in done.err, done.out) == (2, True, "")


@pytest.mark.parametrize("given", [5, "market.example/callback", ["https://market.example/callback"]])
def test_a_callback_url_that_is_no_address_gives_no_link(given, console):
    console.run("sellers", "add", SELLER)
    console.env.set_connection(extra=json.dumps({"callback_url": given}))
    done = console.run("sellers", "authorize-url", SELLER)
    assert (done.code, "callback_url must be a whole address" in done.err, done.out) == (2, True, "")


class Terminal(io.TextIOWrapper):
    def isatty(self):
        return True


def pasted(shop, text, monkeypatch, *argv, into=io.TextIOWrapper):
    monkeypatch.setattr("sys.stdin", into(io.BytesIO(text.encode("utf-8", "surrogateescape"))))
    return shop.run("sellers", "authorize", SELLER, *(argv or ("--code", "-", "--state", "-")))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("{code}\n{state}\n", id="a line each"),
        pytest.param('{{"code": "{code}", "state": "{state}"}}', id="JSON"),
        pytest.param("https://market.example/cb?from=x&code={code}&state={state}#top\n", id="an address"),
        pytest.param("state={state}&code={code}", id="its query"),
    ],
)
def test_code_and_state_come_from_stdin(shop, monkeypatch, text):
    code, state = consent(ask_for_url(shop))
    done = pasted(shop, text.format(code=code, state=state), monkeypatch)
    assert (done.code, "connected" in done.out) == (0, True)
    assert not [secret for secret in (code, state) if secret in done.out + done.err]


def test_a_person_at_a_terminal_is_told_what_to_paste(shop, monkeypatch):
    done = pasted(shop, "", monkeypatch, into=Terminal)
    assert done.err.startswith(
        "feedamp: Paste the address to which FeedAMP sent the seller, then Enter and Ctrl-D:\n"
    )


def test_a_consent_that_was_refused_comes_from_stdin(shop, monkeypatch):
    address = f"https://market.example/cb?error=access_denied&state={state_of(ask_for_url(shop))}"
    done = pasted(shop, address, monkeypatch)
    assert (done.code, "did not consent (access_denied)" in done.err) == (1, True)


@pytest.mark.usefixtures("without_collection")
@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("c-secret", id="one word"),
        pytest.param("c-secret s-secret and-more", id="three words"),
        pytest.param('{"code": "c-secret"}', id="no state"),
        pytest.param('{"code": ["c-secret"], "state": "s-secret"}', id="a list"),
        pytest.param('{"code": "c-secret', id="half of JSON"),
        pytest.param('{"a":' * 5_000, id="JSON without end"),
        pytest.param("http://[c-secret?code=c-secret&state=s-secret", id="no address"),
        pytest.param("code=c-secret&error=e-secret&state=s-secret", id="both a code and an error"),
        pytest.param("\udcff\udcfec-secret", id="bytes that are no text"),
        pytest.param("c-secret\n" + "s" * 20_000, id="too much"),
    ],
)
def test_stdin_that_is_no_callback_is_not_repeated(shop, monkeypatch, text):
    done = pasted(shop, text, monkeypatch)
    assert (done.code, "Stdin has no code and state" in done.err) == (2, True)
    assert "secret" not in done.out + done.err


def test_half_of_a_callback_from_stdin_is_a_usage_error(shop, monkeypatch):
    done = pasted(shop, "c-secret\ns-secret", monkeypatch, "--code", "-", "--state", "s-other")
    assert (done.code, "both --code and --state" in done.err) == (2, True)
    assert "s-other" not in done.err


@pytest.mark.parametrize("verb", [["authorize-url"], ["authorize", "--code", "c", "--state", "s"]])
def test_an_unknown_seller_is_refused(console, verb):
    done = console.run("sellers", verb[0], "no one", *verb[1:])
    assert (done.code, "no seller no one" in done.err) == (1, True)
