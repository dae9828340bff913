"""How long pages, forms and the callback wait for a state that is locked, silent or gone, and what they say then."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import json
import threading
import time
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

import httpx
import pytest
import sqlalchemy as sa
from browsing import token_of
from consenting import consent
from console import SELLER

from feedamp.errors import BusyError
from feedamp.state import State, database_engine
from feedamp.state.schema import grants
from feedamp_airflow.hook import FeedAmpHook
from feedamp_airflow.pages import page as pages
from feedamp_airflow.pages.connect import UNSURE

OTHER = "seller-002"


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(pages, "LOCK_PATIENCE_S", 0.2)


@contextmanager
def before_a_statement(words, do, nth=1, after=""):
    """Does something just before the first statement with these words is sent, or the nth; or after one with others."""
    left = [do, *[lambda: None] * (nth - 1)]
    waited_for = {after}

    def look(_connection, _cursor, statement, *_):
        if after in statement:
            waited_for.clear()
        if words in statement and left and not waited_for:
            left.pop()()

    sa.event.listen(sa.Engine, "before_cursor_execute", look)
    try:
        yield
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", look)
    assert not left


@pytest.mark.parametrize("is_stalled", [True, False], ids=["silent", "gone"])
def test_no_page_waits_for_a_server_that_goes_away(is_stalled, browse, state_on_postgres, server):
    state_on_postgres.add_seller()
    page = f"/feedamp/sellers/{SELLER}"
    token = token_of(browse(page))
    for words, ask in (
        ("FROM sellers", lambda: browse("/feedamp/sellers")),
        ("UPDATE sellers", lambda: browse.send("/feedamp/do/pause", "", token=token, chosen=SELLER)),
    ):
        with ExitStack() as back:

            def leave(back=back):
                if is_stalled:
                    back.enter_context(server.stalled())
                else:
                    server.crash()
                    back.callback(server.start)

            with before_a_statement(words, leave):
                began = time.monotonic()
                said = ask()
            assert time.monotonic() - began < 12
            assert (said.status_code, "The state database" in said.text) == (503, True)
    assert "look at the page again before you repeat it" in said.text
    if is_stalled:
        days = {"from": "2026-03-01", "to": "2026-03-02"}
        for path, given, words in (
            ("do/pause", {"chosen": SELLER}, ". Nothing was changed.<"),
            ("connect/paste", {"address": "https://x/?code=c&state=s"}, ". Nothing was changed.<"),
            ("connect/extract", {"seller": SELLER}, ". Nothing was started.<"),
            ("reconciliation/backfill", days, ". Nothing was started.<"),
        ):
            with server.stalled():  # before anything was asked
                said = browse.send(f"/feedamp/{path}", "", token=token, **given)
            assert (said.status_code, words in said.text) == (503, True), path


@contextmanager
def writing(state, *, until=None):
    """Another process writes, until the end of the block or of some seconds."""
    held, over = threading.Event(), threading.Event()

    def hold():
        with state.begin():
            held.set()
            over.wait(until)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    try:
        yield
    finally:
        over.set()
        holder.join()


def test_a_form_says_which_rows_it_did(browse, feedamp_env):
    token = token_of(browse("/feedamp/"))
    state = feedamp_env.resources.state
    chosen = [SELLER, OTHER, "seller-003"]
    with ExitStack() as held:
        lock = partial(held.enter_context, writing(state))
        with before_a_statement("BEGIN IMMEDIATE", lock, nth=2):
            said = browse.send("/feedamp/do/pause", "", token=token, chosen=chosen)
    assert said.status_code == 409
    assert "1 of 3 rows was done, as above; the others were not tried" in said.text
    assert pages.LOCKED in said.text
    for seller, is_paused in ((SELLER, True), (OTHER, False)):
        assert ("the seller is paused" in browse(f"/feedamp/sellers/{seller}").text) is is_paused


def test_the_test_of_a_connection_does_not_wait_for_who_writes(send, browse, feedamp_env):
    state = feedamp_env.resources.state
    token = token_of(browse("/feedamp/connect"))
    with state.begin() as connection:
        connection.execute(sa.update(grants).values(origin=None))  # as of a version before origins
    with writing(state):
        began = time.monotonic()
        said = send("/feedamp/do/test", "", token=token, conn_id="feedamp_default")
        assert FeedAmpHook("feedamp_default").test_connection()[0]
        assert time.monotonic() - began < 5
    assert (said.status_code, "token endpoint work" in said.text) == (200, True)


def test_a_consent_outlives_a_lock_that_a_page_would_not(browse, console):
    extra = {"allow_http": True, "callback_url": "http://testserver/feedamp/callback"}
    console.env.set_connection(extra=json.dumps(extra))
    console.run("sellers", "add", SELLER)
    code, state = consent(console.run("sellers", "authorize-url", SELLER).out.strip())
    with writing(console.resources.state, until=2.0):
        came = browse.client(None).get(f"/feedamp/callback?{urlencode({'code': code, 'state': state})}")
    assert (came.status_code, "Your account is connected" in came.text) == (200, True)


def test_a_consent_in_the_journal_is_said_to_be_given(browse, console, monkeypatch):
    monkeypatch.setattr(pages, "CONSENT_PATIENCE_S", 1.5)
    extra = {"allow_http": True, "callback_url": "http://testserver/feedamp/callback"}
    console.env.set_connection(extra=json.dumps(extra))
    console.run("sellers", "add", SELLER)
    code, state = consent(console.run("sellers", "authorize-url", SELLER).out.strip())
    back = f"/feedamp/callback?{urlencode({'code': code, 'state': state})}"
    with ExitStack() as held:
        lock = partial(held.enter_context, writing(console.resources.state))
        with before_a_statement("BEGIN IMMEDIATE", lock, after="UPDATE authorizations"):
            began = time.monotonic()
            came = browse(back, None)
        assert time.monotonic() - began < 15
    assert (came.status_code, "You gave access" in came.text, "Ask whoever" in came.text) == (
        202,
        True,
        False,
    )
    again = browse(back, None)
    assert (again.status_code, "or that access was given, all is well" in again.text) == (400, True)
    console.resources.pairs.take_in_consents()
    assert ">active</td>" in browse("/feedamp/sellers").text


@contextmanager
def before_a_commit(do, after):
    """Does something just before the first commit after a statement with these words is sent."""
    seen, left = [], [do]

    def look(_connection, _cursor, statement, *_):
        seen.extend([statement] if after in statement else [])

    def commit(_connection):
        if seen and left:
            left.pop()()

    sa.event.listen(sa.Engine, "before_cursor_execute", look)
    sa.event.listen(sa.Engine, "commit", commit)
    try:
        yield
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", look)
        sa.event.remove(sa.Engine, "commit", commit)
    assert not left


SPEND, STORE, NEXT = (
    "UPDATE authorizations",
    "UPDATE grants",
    "SET LOCAL",
)  # with which each transaction begins
NEW_LINK = "Ask whoever sent you the link for a new one"
CONNECTED, GIVEN = (200, "Your account is connected"), (202, "You gave access to your account")
AGAIN, REFUSED = (503, "open this address again in a minute.<"), (400, NEW_LINK)
# When the state falls silent during a callback, what the seller then reads, and what once more, with a state that answers.
MOMENTS = [
    pytest.param(partial(before_a_statement, "FROM authorizations"), AGAIN, CONNECTED, id="whose link it is"),
    pytest.param(partial(before_a_statement, SPEND), AGAIN, CONNECTED, id="the link is spent"),
    pytest.param(partial(before_a_commit, after=SPEND), (503, UNSURE), REFUSED, id="that is committed"),
    pytest.param(
        partial(before_a_statement, NEXT, after=SPEND), GIVEN, REFUSED, id="next, the pair is stored"
    ),
    pytest.param(partial(before_a_commit, after=STORE), GIVEN, REFUSED, id="that is committed, too"),
    pytest.param(partial(before_a_statement, NEXT, after=STORE), CONNECTED, REFUSED, id="next, all is done"),
]


@pytest.fixture
def back(console, state_on_postgres, monkeypatch):
    """The address to which FeedAMP sends a seller who has consented."""
    monkeypatch.setattr(pages, "CONSENT_PATIENCE_S", 0.5)
    monkeypatch.setattr(database_engine, "LATE_ANSWER_S", 1.0)
    extra = {"allow_http": True, "callback_url": "http://testserver/feedamp/callback"}
    console.env.set_connection(extra=json.dumps(extra))
    console.run("sellers", "add", SELLER)
    code, state = consent(console.run("sellers", "authorize-url", SELLER).out.strip())
    yield f"/feedamp/callback?{urlencode({'code': code, 'state': state})}"
    for thread in threading.enumerate():  # what still stores the pair when its page is over
        if thread.name == "feedamp-store":
            thread.join(20)
    gc.collect()


# Such a thread ends with a connection that is no one's any more.
LEAVES_A_CONNECTION = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@LEAVES_A_CONNECTION
@pytest.mark.parametrize(("silent_at", "said", "said_again"), MOMENTS)
def test_a_seller_is_told_what_is_so_whenever_the_state_falls_silent(
    browse, console, back, server, silent_at, said, said_again
):
    with ExitStack() as held:
        with silent_at(do=lambda: held.enter_context(server.stalled())):
            came = browse(back, None)
        assert (came.status_code, said[1] in came.text, NEW_LINK in came.text) == (said[0], True, False)
    again = browse(back, None)
    assert (again.status_code, said_again[1] in again.text) == (said_again[0], True)
    console.resources.pairs.take_in_consents()
    is_active = ">active</td>" in browse("/feedamp/sellers").text
    assert is_active is (said in (GIVEN, CONNECTED) or said_again == CONNECTED)


@LEAVES_A_CONNECTION
@pytest.mark.parametrize("is_silent", [False, True], ids=["a state that answers", "a silent state"])
def test_a_link_that_is_not_given_back_is_said_to_be_spent(browse, console, back, server, is_silent):
    console.env.set_connection(extra={"proxies": {"http": "http://127.0.0.1:9"}})
    with ExitStack() as held:
        stall = (lambda: held.enter_context(server.stalled())) if is_silent else (lambda: None)
        with before_a_statement(SPEND, stall, nth=2):
            came = browse(back, None)
    console.env.set_connection()
    first, then = (REFUSED, REFUSED) if is_silent else (AGAIN, CONNECTED)
    assert (came.status_code, first[1] in came.text) == (first[0], True)
    again = browse(back, None)
    assert (again.status_code, then[1] in again.text) == (then[0], True)


def test_no_stranger_holds_up_the_server_while_the_state_is_silent(
    api_server, browse, state_on_postgres, server
):
    login = browse.client("admin").headers

    async def ask():
        asgi = httpx.ASGITransport(app=api_server)
        async with httpx.AsyncClient(transport=asgi, base_url="http://testserver") as client:
            strangers = [
                asyncio.create_task(client.get("/feedamp/callback?state=s&code=c")) for _ in range(45)
            ]
            await asyncio.sleep(0.5)
            began = time.monotonic()
            other = await client.get(
                "/api/v2/dags?limit=1", headers={"Authorization": login["Authorization"]}
            )
            waited_s = time.monotonic() - began
            return other.status_code, waited_s, {one.status_code for one in await asyncio.gather(*strangers)}

    assert browse("/api/v2/dags?limit=1").status_code == 200
    with server.stalled():
        code, waited_s, strangers = asyncio.run(ask())
    assert (code, strangers) == (200, {503})
    assert waited_s < 1.5


def test_a_button_waits_for_no_upgrade_by_another_process(tmp_path):
    url = f"sqlite:///{tmp_path}/state.db"
    with Path(f"{tmp_path}/state.db.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        began = time.monotonic()
        with pytest.raises(BusyError, match="nothing was changed"):
            State(url, lock_wait_s=0.2)
        assert time.monotonic() - began < 5
    with closing(State(url, lock_wait_s=0.2)) as state:
        assert state.current_revision() is not None
