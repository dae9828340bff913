"""The forms of the pages and the consent of a seller: who may send them, what they change, and how long they wait."""

from __future__ import annotations

import html
import json
import re
import sqlite3
import time
from contextlib import closing, contextmanager
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

import pytest
import sqlalchemy as sa
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from browsing import HOSTILE, token_of
from consenting import consent
from console import BAD_NUMBER, SELLER
from itsdangerous import TimestampSigner

from feedamp.state.schema import authorizations, grants
from feedamp_airflow.pages import page as pages
from feedamp_airflow.pages.app import HEADERS


def test_a_seller_is_paused_and_resumed(send, browse, feedamp_env):
    page = f"/feedamp/sellers/{SELLER}"
    said = send("/feedamp/do/pause", page, chosen=SELLER)
    assert (said.status_code, f"seller {SELLER}: paused" in said.text) == (200, True)
    assert "the seller is paused" in browse(page).text
    assert "work continues" in send("/feedamp/do/resume", page, chosen=SELLER).text
    assert "the seller is paused" not in browse(page).text
    said = send("/feedamp/do/pause", page, chosen="unknown")
    assert (said.status_code, "There is no seller unknown" in said.text) == (409, True)
    gone = browse("/feedamp/sellers/unknown")
    assert (gone.status_code, "or it was removed or erased;" in gone.text) == (404, True)


def test_the_page_of_a_seller_says_until_when_feedamp_asked_for_a_pause(browse, feedamp_env):
    page, words = f"/feedamp/sellers/{SELLER}", "FeedAMP asked for a pause until"
    assert words not in browse(page).text
    feedamp_env.resources.state.rates.pause(SELLER, 600)
    assert words in browse(page, "viewer").text


def test_everything_that_is_sent_is_stopped_and_goes_on(send, browse, feedamp_env):
    do = "/feedamp/do/read-only"
    assert "Emergency stop" in browse("/feedamp/", "viewer").text
    assert "Stop sending" not in browse("/feedamp/", "viewer").text
    field = '<input name="reason" maxlength="500">'  # may be left empty
    assert [field in browse("/feedamp/", role).text for role in ("op", "viewer")] == [True, False]
    stopped = send(do, "/feedamp/", chosen="on", reason="wrong prices <b>").text
    assert "Read-only is on" in stopped
    assert "switched on by " in browse("/feedamp/").text
    assert "Reason: wrong prices &lt;b&gt;" in browse("/feedamp/").text
    assert field not in browse("/feedamp/").text
    assert "wrong prices" not in browse("/feedamp/", "viewer").text
    assert "nothing is sent to FeedAMP" in stopped
    assert "nothing is sent to FeedAMP" in browse("/feedamp/", "viewer").text
    assert browse("/feedamp/health").json()["read_only"] is True
    assert send(do, "/feedamp/", chosen="perhaps").status_code == 409
    assert "send what is due" in send(do, "/feedamp/", chosen="off").text
    assert browse("/feedamp/health").json()["read_only"] is False
    feedamp_env.env.set_options(read_only="true")
    assert "no switch ends that" in browse("/feedamp/").text


def title_of(said):
    [title] = re.findall("<h1>(.*)</h1>", said)
    return title


def test_rejects_are_dismissed_and_replayed(send, browse, filled):
    page = "/feedamp/rejected"
    replayed = send("/feedamp/do/replay", page).text
    assert ("still rejected 1" in replayed, title_of(replayed)) == (True, "Not done")
    filled.deliver("c.jsonl", "M-4", gift_note="x")
    filled.env.set_options(extra_order_fields="gift_note")
    replayed = send("/feedamp/do/replay", page).text
    assert ("accepted 1, " in replayed, title_of(replayed)) == (True, "Done, with rows left")
    [chosen] = re.findall('name="chosen" value="([^"]+)"', browse(page).text)
    assert "Choose at least one row" in send("/feedamp/do/dismiss", page, reason="x").text
    assert "reason is empty" in send("/feedamp/do/dismiss", page, chosen=chosen, reason=" ").text
    assert chosen in browse(page).text
    unknown = send("/feedamp/do/dismiss", page, chosen="unknown", reason="x").text
    assert ("There is no reject unknown" in unknown, title_of(unknown)) == (True, "Not done")
    both = send("/feedamp/do/dismiss", page, chosen=[chosen, "unknown"], reason=HOSTILE).text
    assert ("dismissed" in both, title_of(both)) == (True, "Done, with rows left")
    assert chosen not in browse(page).text
    again = send("/feedamp/do/dismiss", page, chosen=[chosen, "unknown"], reason="x").text
    assert ("was dismissed already" in again, title_of(again)) == (True, "Not done")
    assert title_of(send("/feedamp/do/replay", page).text) == "Done"


@pytest.mark.parametrize(
    ("edited", "may"),
    [
        pytest.param("feedamp_default", True, id="who may edit our connection"),
        pytest.param(None, False, id="who may edit any but ours"),
    ],
)
def test_all_that_is_for_editors_asks_about_our_connection(edited, may, send, browse, filled, monkeypatch):
    token = token_of(browse("/feedamp/"))
    monkeypatch.setattr(
        SimpleAuthManager,
        "is_authorized_connection",
        lambda _, *, method, user, details=None: (details and details.conn_id) == edited,
    )
    assert ("has no such field" in browse("/feedamp/rejected").text) is may
    days = {"from": "2026-03-01", "to": "2026-03-01"}
    asked = (
        browse("/feedamp/rejected/export"),
        browse(f"/feedamp/reconciliation/backfill?{urlencode(days)}"),
        send("/feedamp/do/read-only", "", token=token, chosen="off"),
        send("/feedamp/connect/paste", "", token=token, address="http://["),
    )
    assert [answer.status_code != 403 for answer in asked] == [may] * 4


def test_a_form_of_a_stranger_is_refused_before_it_is_read(browse, airflow_env):
    fields = {f"field-{at}": "x" for at in range(3_000)}  # more than a form may have
    for role, code in ((None, 401), ("admin", 400)):
        answer = browse.client(role).post("/feedamp/do/pause", data=fields)
        assert (answer.status_code, "<nav" in answer.text) == (code, True)
        assert ("Log in to Airflow first; nothing was changed." in answer.text) is (role is None)
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_login_that_airflow_cannot_verify_is_to_be_made_again(method, browse, airflow_env):
    path, said = {
        "GET": ("/feedamp/", "Log in to Airflow first."),
        "POST": ("/feedamp/do/pause", "Log in to Airflow first; nothing was changed."),
    }[method]
    answer = browse.client(None).request(method, path, headers={"Authorization": "Bearer of.another.key"})
    assert (answer.status_code, said in answer.text, ">Log in</a>" in answer.text) == (401, True, True)


@pytest.mark.parametrize(
    ("path", "sent_from", "leads_to"),
    [
        pytest.param("orders?phase=held&seller=a%26b", None, "orders?phase=held&seller=a%26b", id="a page"),
        pytest.param("orders/a%2Fb/c%20d", None, "orders/a%2Fb/c%20d", id="odd names"),
        pytest.param("do/pause", "findings?kind=k", "findings?kind=k", id="the page of a form"),
        pytest.param("do/pause", "https://elsewhere.example/", "", id="a form of another site"),
    ],
)
def test_a_login_leads_back(path, sent_from, leads_to, browse, airflow_env):
    client = browse.client(None)
    if sent_from is None:
        answer = client.get(f"/feedamp/{path}")
    else:
        answer = client.post(
            f"/feedamp/{path}", headers={"Referer": urljoin("http://testserver/feedamp/", sent_from)}
        )
    login = html.unescape(re.search('href="([^"]+)">Log in</a>', answer.text)[1])
    assert parse_qs(urlsplit(login).query) == {"next": [f"/feedamp/{leads_to}"]}


@pytest.fixture
def faulty(feedamp_env):
    """Three orders, each with a tracking number that cannot be right."""
    numbers = ("M-1", "M-2", "M-3")
    feedamp_env.deliver("a.jsonl", *numbers)
    feedamp_env.place()
    for number in numbers:
        feedamp_env.fulfill(number, tracking_number=BAD_NUMBER)
    feedamp_env.read()
    feedamp_env.process()
    return feedamp_env


def test_findings_are_waived_by_row_and_all_of_a_kind(send, browse, faulty):
    page = "/feedamp/findings"
    chosen = re.findall('name="chosen" value="([^"]+)"', browse(page).text)
    assert len(chosen) == 3
    assert "reason is empty" in send("/feedamp/do/waive", page, chosen=chosen[0], reason=" ").text
    said = send("/feedamp/do/waive", page, chosen=[chosen[0], "unknown"], reason="seen")
    assert (said.status_code, len(re.findall('name="chosen"', browse(page).text))) == (409, 3)
    filtered = f"{page}?kind=invalid_tracking&state=all"
    for back in (filtered, page):
        for fields in ({"chosen": chosen[0], "reason": " "}, {}):
            answer = send("/feedamp/do/waive", page, headers={"Referer": f"http://x{back}"}, **fields).text
            assert f'<a href="{html.escape(back)}">Back</a> <a href="/feedamp/">Overview</a>' in answer
    assert ">Back<" not in send("/feedamp/do/waive", page, headers={"Referer": "http://x//evil/"}).text
    assert "waived" in send("/feedamp/do/waive", page, chosen=chosen[0], reason=HOSTILE).text
    both = browse(f"{page}?state=all").text
    assert (both.count(">waived</td>"), both.count('name="chosen"')) == (1, 2)
    assert "Waive the chosen" not in browse(f"{page}?state=waived").text
    found = f"{page}?seller={SELLER}"
    assert f"Waive all 2 open findings of seller {SELLER}" in browse(found).text
    given = {"seller": SELLER, "reason": "seen"}
    too_many = send("/feedamp/do/waive_all", page, **given, count=3)
    assert (too_many.status_code, "There are 2 such findings now" in too_many.text) == (409, True)
    assert send("/feedamp/do/waive_all", page, reason="x", count=2).status_code == 409
    assert send("/feedamp/do/waive_all", page, reason="x", count="x", seller=SELLER).status_code == 400
    assert "2 findings waived" in send("/feedamp/do/waive_all", page, **given, count=2).text
    assert 'name="chosen"' not in browse(page).text
    emptied = browse(f"{page}?kind=invalid_tracking").text
    assert '<option value="invalid_tracking" selected>' in emptied  # the filter is as it was chosen
    assert not faulty.run("findings", "list", "--json").json


def test_findings_of_which_one_is_over_are_titled_by_what_was_done(send, faulty):
    found = faulty.run("findings", "list", "--json").json
    waived, over, left = (finding["finding_id"] for finding in found)
    faulty.fulfill(found[1]["mp_order_number"])
    faulty.read()
    faulty.process()
    page = "/feedamp/findings"
    for chosen, title in (
        ([waived], "Done"),
        ([waived, over], "Not done"),
        ([waived, over, left], "Done, with rows left"),
    ):
        assert title_of(send("/feedamp/do/waive", page, chosen=chosen, reason="seen").text) == title


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"token": ""}, id="without a token"),
        pytest.param({"token": "forged.x.y"}, id="with a forged token"),
        pytest.param({"role": "op"}, id="with another user's token"),
        pytest.param({"headers": {"Sec-Fetch-Site": "cross-site"}}, id="from another site"),
        pytest.param({"headers": {"Sec-Fetch-Site": "same-site"}}, id="from a site beside it"),
        pytest.param({"role": "viewer"}, id="by a viewer"),
        pytest.param({"role": "user"}, id="by a user"),
    ],
)
def test_a_form_that_is_not_ours_changes_nothing(changes, send, browse, feedamp_env):
    page = f"/feedamp/sellers/{SELLER}"
    given = {"token": token_of(browse(page))} | changes
    refused = send("/feedamp/do/pause", page, chosen=SELLER, **given)
    assert refused.status_code == 403
    assert ("Your role in Airflow" in refused.text) is (changes.get("role") in ("viewer", "user"))
    assert "the seller is paused" not in browse(page).text


def test_a_form_is_good_for_eight_hours(send, feedamp_env):
    for age_s, code in ((8 * 3600 - 60, 200), (8 * 3600 + 60, 403)):
        made_at = int(time.time()) - age_s
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(TimestampSigner, "get_timestamp", lambda _, at=made_at: at)
            token = pages.form_signer().dumps("admin")
        assert send("/feedamp/do/resume", "", chosen=SELLER, token=token).status_code == code


@pytest.mark.parametrize("field", ["chosen", "reason"])
def test_a_file_in_place_of_a_word_is_refused(field, browse, feedamp_env):
    client = browse.client("admin")
    given = {"token": token_of(client.get(f"/feedamp/sellers/{SELLER}")), "chosen": SELLER}
    given.pop(field, None)
    said = client.post(
        "/feedamp/do/pause",
        data=given,
        files={field: ("name-of-it", b"")},
        headers={"Sec-Fetch-Site": "same-origin"},
    )
    assert (said.status_code, "name-of-it" in said.text) == (400, False)
    assert "not one of ours" in said.text


def test_a_browser_that_names_no_site_must_name_the_origin(browse, feedamp_env):
    page = f"/feedamp/sellers/{SELLER}"
    client = browse.client("admin")
    given = {"token": token_of(client.get(page)), "chosen": SELLER}
    for origin, code in (("https://other.example", 403), (None, 403), ("http://testserver", 200)):
        headers = {"Origin": origin} if origin else {}
        assert client.post("/feedamp/do/pause", data=given, headers=headers).status_code == code


def test_the_saved_connection_is_tested_from_its_page(send, console):
    said = send("/feedamp/do/test", "/feedamp/connect", conn_id="")
    assert (said.status_code, "Address and token endpoint work" in said.text) == (200, True)
    console.env.set_connection(password="another-secret")
    said = send("/feedamp/do/test", "/feedamp/connect", conn_id="feedamp_default")
    assert (said.status_code, "refuses client id or secret" in said.text) == (409, True)
    assert (
        "There is no connection nowhere"
        in send("/feedamp/do/test", "/feedamp/connect", conn_id="nowhere").text
    )


@pytest.fixture
def link(send, console):
    """The link at which a new seller consents, made by the page."""
    console.env.set_connection(extra=json.dumps({"callback_url": "https://airflow.example/feedamp/callback"}))
    said = send("/feedamp/connect", "/feedamp/connect", seller=SELLER, name="A shop")
    assert said.status_code == 200, said.text
    return html.unescape(re.search("<textarea readonly[^>]*>([^<]+)", said.text)[1])


def test_a_seller_who_is_no_user_comes_back_with_a_grant(link, browse, console):
    code, state = consent(link)
    back = f"/feedamp/callback?{urlencode({'code': code, 'state': state})}"
    shown = browse(back, None)
    assert (shown.status_code, "Your account is connected" in shown.text) == (200, True)
    assert state not in str(shown.url)  # a reload sends no code again
    assert browse(shown.url.raw_path.decode(), None).status_code == 200
    assert not [secret for secret in (code, state, SELLER) if secret in shown.text]
    assert ">active</td>" in browse("/feedamp/sellers").text
    again = browse(back, None)
    assert (again.status_code, "works once and for 15 minutes" in again.text) == (400, True)
    assert console.sandbox.broken_rules == []


def test_an_address_that_did_not_open_is_pasted(link, send, browse, console):
    code, state = consent(link)
    address = f"https://elsewhere.example/cb?x=1&{urlencode({'code': code, 'state': state})}"
    said = send("/feedamp/connect/paste", "/feedamp/connect", address=address).text
    assert "connected" in said
    assert "Read its orders now" in said
    assert ">active</td>" in browse("/feedamp/sellers").text


@pytest.mark.parametrize(
    ("query", "said"),
    [
        pytest.param({}, "was not made here", id="nothing"),
        pytest.param({"code": "c", "state": "s"}, "was not made here", id="a state of somewhere else"),
        pytest.param({"state": "{state}"}, "has no code", id="no code"),
        pytest.param(
            {"connected": "true", "state": "{state}"}, "has no code", id="as where a consent has ended"
        ),
        pytest.param({"error": "access_denied", "state": "{state}"}, "You did not consent", id="denied"),
        pytest.param({"code": HOSTILE, "state": "{state}"}, "could not be connected", id="a wrong code"),
    ],
)
def test_the_callback_takes_nothing_else(query, said, link, browse, console):
    state = parse_qs(urlsplit(link).query)["state"][0]
    given = urlencode({name: value.format(state=state) for name, value in query.items()})
    shown = browse(f"/feedamp/callback?{given}", None)
    assert shown.status_code == 400
    assert said in shown.text
    assert ("Ask whoever sent you the link for a new one" in shown.text) is (said != "has no code")
    assert SELLER not in shown.text
    assert ">no_<wbr>grant</td>" in browse("/feedamp/sellers").text


@pytest.mark.parametrize("problem", ["the server is away", "no such connection"])
def test_a_consent_that_reached_no_one_can_be_tried_again(problem, link, browse, console, monkeypatch):
    code, state = consent(link)
    back = f"/feedamp/callback?{urlencode({'code': code, 'state': state})}"
    with monkeypatch.context() as broken:
        if problem == "no such connection":
            broken.delenv("AIRFLOW_CONN_FEEDAMP_DEFAULT")
        else:
            console.env.set_connection(extra={"proxies": {"http": "http://127.0.0.1:9"}})
        shown = browse(back, None)
        assert (shown.status_code, "open this address again" in shown.text) == (503, True)
        assert "for a new one" not in shown.text
    console.env.set_connection()
    assert "Your account is connected" in browse(back, None).text


def test_a_link_that_a_wrong_client_secret_has_spent_is_over(link, browse, console):
    code, state = consent(link)
    console.env.set_connection(password="wrong")
    shown = browse(f"/feedamp/callback?{urlencode({'code': code, 'state': state})}", None)
    assert (shown.status_code, "open this address again" in shown.text) == (400, False)
    assert "Ask whoever sent you the link for a new one" in shown.text


def test_a_user_who_consents_comes_back_to_the_seller(link, browse, console):
    code, state = consent(link)
    client = browse.client("op")
    client.cookies.set(
        "_token", client.headers.pop("Authorization").removeprefix("Bearer ")
    )  # as a browser has it
    shown = client.get(f"/feedamp/callback?{urlencode({'code': code, 'state': state})}")
    assert (shown.url.path, shown.url.query) == (f"/feedamp/sellers/{SELLER}", b"connected=true")
    said = re.search('role="status">([^<]+)', shown.text)[1]
    assert f"Seller {SELLER} (A shop) is connected: its FeedAMP account granted access" in said
    assert "feedamp_default" in said
    assert shown.text.count("Read its orders for the first time") == 1
    assert '<th scope="row">Days of grant left</th><td>365<' in shown.text
    assert ">in 365 days<" in browse("/feedamp/sellers").text
    told = f"{shown.url.path}?connected=true"
    again = client.get(f"/feedamp/callback?{urlencode({'code': code, 'state': state})}")
    assert (again.status_code, "this link was used already" in again.text) == (409, True)
    assert not [secret for secret in (code, state) if secret in again.text]
    with console.resources.state.begin() as connection:
        connection.execute(sa.update(grants).values(status="needs_authorization"))
    assert "is connected" not in browse(told).text


def test_a_viewer_sees_no_form_to_connect(browse, airflow_env):
    assert "<form" in browse("/feedamp/connect", "op").text
    shown = browse("/feedamp/connect", "viewer").text
    assert ("<form" in shown, "feedamp_default" in shown) == (False, True)


@pytest.mark.parametrize(
    "extra", [pytest.param({}, id="no callback"), pytest.param({"allow_http": "x"}, id="a bad connection")]
)
def test_a_link_that_cannot_be_made_registers_no_one(extra, send, browse, feedamp_env):
    feedamp_env.env.set_connection(extra=json.dumps(extra))
    for seller, name in (("new", "A shop"), (SELLER, "Renamed")):
        said = send("/feedamp/connect", "/feedamp/connect", seller=seller, name=name, sales_channel="de")
        assert said.status_code == 409
        typed = dict(re.findall('name="([a-z_]+)" value="([^"]+)"', said.text))
        assert (typed["seller"], typed["name"], typed["sales_channel"]) == (seller, name, "de")
        assert not [word for word in ("--", "`feedamp") if word in said.text]
        assert name not in browse("/feedamp/sellers").text


@pytest.mark.parametrize("problem", ["denied", "expired", "reused"])
def test_why_a_pasted_address_is_refused_is_said_for_the_page(problem, link, send, console):
    code, state = consent(link)
    query = {"code": code, "state": state}
    if problem == "denied":
        query = {"error": "access_denied", "state": state}
    elif problem == "expired":
        with console.resources.state.begin() as connection:
            connection.execute(
                sa.update(authorizations).values(expires_at=sa.text("'2020-01-01 00:00:00.000000'"))
            )
    paste = ("/feedamp/connect/paste", "/feedamp/connect")
    if problem == "reused":
        send(*paste, address=f"https://a.example/?{urlencode(query)}")
    said = send(*paste, address=f"https://a.example/?{urlencode(query)}")
    why = {
        "denied": "did not consent",
        "expired": "this link has expired",
        "reused": "this link was used already",
    }
    assert (said.status_code, why[problem] in said.text) == (409, True)
    assert f'name="seller" value="{SELLER}"' in said.text  # the next link is one button away
    assert not [secret for secret in (code, state, "a.example") if secret in said.text]
    assert "Begin again below." in said.text
    assert "`feedamp" not in said.text


def test_a_new_server_is_confirmed_as_it_was_shown(send, browse, feedamp_env):
    page = f"/feedamp/sellers/{SELLER}"
    assert "Confirm the new server" not in browse(page).text
    feedamp_env.env.set_connection(host="https://new.example/api/v1")
    assert "Confirm the new server https://new.example:443" in browse(page, "op").text
    assert "new.example" not in browse(page, "viewer").text
    given = {"conn_id": "feedamp_default", "origin": "https://other.example:443"}
    changed = send("/feedamp/do/confirm_origin", page, **given)
    assert (changed.status_code, "look at it again" in changed.text) == (409, True)
    assert "Confirm the new server" in browse(page).text
    given["origin"] = "https://new.example:443"
    assert "confirmed" in send("/feedamp/do/confirm_origin", page, **given).text
    assert "Confirm the new server" not in browse(page).text


@pytest.fixture(params=["sqlite", "postgres"])
def on_state(request, console):
    """The console with its state on each database, and a seller in it."""
    if request.param == "postgres":
        request.getfixturevalue("state_on_postgres")
    console.add_seller()
    return console


def test_a_form_does_not_wait_long_for_who_writes(send, browse, on_state, monkeypatch):
    monkeypatch.setattr(pages, "LOCK_PATIENCE_S", 0.2)
    page = f"/feedamp/sellers/{SELLER}"
    assert "the seller is paused" not in browse(page).text
    with on_state.resources.state.begin():
        began = time.monotonic()
        said = send("/feedamp/do/pause", page, chosen=SELLER)
        assert time.monotonic() - began < 10
    assert (said.status_code, "Nothing was changed. Another process" in said.text) == (503, True)
    assert "the seller is paused" not in browse(page).text


@contextmanager
def locked(state):
    """Another process keeps even readers away from the state."""
    if state.is_sqlite:
        state.engine.dispose()
        with closing(sqlite3.connect(state.url.database, isolation_level=None)) as holder:
            holder.execute("PRAGMA locking_mode=EXCLUSIVE")
            holder.execute("BEGIN EXCLUSIVE")
            yield
    else:
        with state.engine.connect() as holder:
            holder.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = '30s'"))
            holder.execute(sa.text("LOCK TABLE sellers, authorizations"))
            yield


def test_nothing_waits_long_for_a_locked_state(browse, on_state, monkeypatch):
    monkeypatch.setattr(pages, "LOCK_PATIENCE_S", 0.2)
    token = token_of(browse(f"/feedamp/sellers/{SELLER}"))
    with locked(on_state.resources.state):
        began = time.monotonic()
        for path in ("", "sellers", "health"):
            for role in ("op", "viewer"):
                shown = browse(f"/feedamp/{path}", role)
                assert (shown.status_code, pages.LOCKED in shown.text) == (503, True)
        assert browse("/feedamp/callback?code=c&state=s", None).status_code == 503
        said = browse.send("/feedamp/do/pause", "", token=token, chosen=SELLER)
        assert time.monotonic() - began < 15
    assert (said.status_code, "Nothing was changed. Another process" in said.text) == (503, True)
    assert "the seller is paused" not in browse(f"/feedamp/sellers/{SELLER}").text


def test_a_number_is_found_by_its_beginning_to_the_letter(browse, on_state):
    on_state.deliver("a.jsonl", "N-1", "n-2", "N_3")
    for number, found in (("n", ["n-2"]), ("N", ["N-1", "N_3"]), ("N_", ["N_3"]), ("n_", [])):
        shown = browse(f"/feedamp/orders?number={number}").text
        assert sorted(re.findall(f'href="/feedamp/orders/{SELLER}/([^"]+)', shown)) == found
    for typed in (SELLER.swapcase(), f" {SELLER}%0A"):
        assert f">{SELLER}</a>" in browse(f"/feedamp/sellers?q={typed}").text


def test_a_form_does_not_wait_for_what_a_run_can_do(send, browse, feedamp_env, monkeypatch, caplog):
    monkeypatch.setattr(pages, "LOCK_PATIENCE_S", 0.2)
    token = token_of(browse("/feedamp/"))
    with feedamp_env.resources.state.begin() as connection:
        connection.execute(sa.update(grants).values(origin=None))  # as of a version before origins
    with feedamp_env.resources.state.begin():
        assert send("/feedamp/do/pause", "", token=token, chosen=SELLER).status_code == 503
    assert "cannot be recorded yet" not in caplog.text


def test_an_address_that_is_none_is_said(send, feedamp_env):
    assert "was not made here" in send("/feedamp/connect/paste", "/feedamp/connect", address="http://[").text


# Links from Airflow's own pages
