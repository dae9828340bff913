"""`feedamp sellers add|import|list|pause|resume`."""

from __future__ import annotations

import json
import os
import re
from contextlib import closing
from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa
from airflow.models.connection import Connection
from console import SELLER
from postgres import others_connected

from feedamp.rules.secret_words import may_be_token
from feedamp.state import State, grants, schema
from feedamp_airflow import connections, wiring

SECRETS = ("rt-", "Bearer")


def row(seller_id="S1", token="tok-1", **more):
    return {"seller_id": seller_id, "refresh_token": token, **more}


def token_of(console, seller_id):
    with console.resources.state.read() as connection:
        return grants.read(connection, console.resources.cipher, seller_id).refresh_token


def listed(console, seller_id):
    [found] = [s for s in console.run("sellers", "list", "--json").json if s["seller_id"] == seller_id]
    return found


def test_an_import_adds_and_the_same_again_changes_nothing(console):
    file = console.sellers_file()
    first = console.run("sellers", "import", file)
    assert (first.code, first.out.splitlines()[-1]) == (0, "added 3, updated 0, unchanged 0, refused 0")
    again = console.run("sellers", "import", file)
    assert (again.code, again.out) == (0, "added 0, updated 0, unchanged 3, refused 0\n")


def test_connections_are_looked_up_while_others_may_write(console, monkeypatch):
    looked_up, account = [], wiring._account

    def asked(conn_id, **given):
        with closing(State(str(console.resources.state.url), lock_wait_s=0.5)) as other, other.begin():
            looked_up.append(conn_id)
        return account(conn_id, **given)

    monkeypatch.setattr(wiring, "_account", asked)
    done = console.import_rows(row(), row("S2", "tok-2", conn_id="missing"))
    assert (done.code, looked_up[-1]) == (1, "missing")


def test_an_import_warns_of_a_clock_that_the_state_contradicts(console, caplog):
    console.import_rows(row())
    wrong = console.resources.state.now() + timedelta(days=400)
    with console.resources.state.begin() as connection:
        connection.execute(sa.update(schema.grants).values(refreshed_at=wrong))
    assert console.import_rows(row("S2", "tok-2")).code == 0
    [said] = [text for text in caplog.messages if "clock shows" in text]
    assert f"the latest time in the state is {wrong:%Y-%m-%d %H:%M} UTC" in said


def test_a_new_token_replaces_a_live_grant_only_when_asked(console):
    console.import_rows(row())
    refused = console.import_rows(row(token="tok-2"))
    assert (refused.code, refused.out) == (1, "added 0, updated 0, unchanged 0, refused 1\n")
    assert "line 1: refresh_token: the seller has a live grant; --replace" in refused.err
    assert token_of(console, "S1") == "tok-1"
    replaced = console.import_rows(row(token="tok-2"), replace=True)
    assert (replaced.code, replaced.out) == (0, "added 0, updated 1, unchanged 0, refused 0\n")
    assert token_of(console, "S1") == "tok-2"


def test_a_token_seen_before_is_old_news_even_with_replace(console):
    console.import_rows(row())
    console.import_rows(row(token="tok-2"), replace=True)
    done = console.import_rows(row(token="tok-1"), replace=True)
    assert done.out == "added 0, updated 0, unchanged 1, refused 0\n"
    assert token_of(console, "S1") == "tok-2"


def test_a_grant_that_needs_authorization_is_replaced_without_being_asked(console):
    console.import_rows(row())
    with console.resources.state.begin() as connection:
        grant = grants.read(connection, console.resources.cipher, "S1")
        grants.note_refusal(connection, grant, run_key="run", now=console.resources.state.now())
        grants.mark_needs_authorization(connection, ["S1"], now=console.resources.state.now())
    assert listed(console, "S1")["grant"] == "needs_authorization"
    assert console.import_rows(row(token="tok-2")).out == "added 0, updated 1, unchanged 0, refused 0\n"
    assert listed(console, "S1")["grant"] == "active"


def test_a_seller_registered_before_gets_its_first_grant(console):
    assert console.run("sellers", "add", "S1", "--name", "One").code == 0
    assert console.import_rows(row()).out == "added 0, updated 1, unchanged 0, refused 0\n"
    assert (listed(console, "S1")["name"], listed(console, "S1")["grant"]) == ("One", "active")


def test_a_changed_name_counts_as_updated_and_a_missing_one_stays(console):
    console.import_rows(row(name="One"))
    assert console.import_rows(row()).out.startswith("added 0, updated 0, unchanged 1")
    assert console.import_rows(row(name="Two")).out.startswith("added 0, updated 1")
    assert listed(console, "S1")["name"] == "Two"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        pytest.param("nonsense tok-9", "line 2: is not JSON", id="no JSON"),
        pytest.param('["tok-9"]', "line 2: is not a JSON object", id="no object"),
        pytest.param('{"seller_id": "S9"}', "line 2: refresh_token: is missing", id="no token"),
        pytest.param('{"refresh_token": "tok-9"}', "line 2: seller_id: is missing", id="no seller"),
        pytest.param(
            '{"seller_id": " ", "refresh_token": "tok-9"}', "seller_id: is empty", id="blank seller"
        ),
        pytest.param('{"seller_id": 9, "refresh_token": "tok-9"}', "seller_id: must be text", id="a number"),
        pytest.param(
            '{"seller_id": "S9 ", "refresh_token": "tok-9"}', "trailing blanks", id="a blank behind"
        ),
        pytest.param('{"seller_id": "S\\t9", "refresh_token": "tok-9"}', "control character", id="a tab"),
        pytest.param(
            '{"seller_id": "S9", "refresh_token": "tok 9"}', "token: contains white space", id="blank"
        ),
        pytest.param(
            '{"seller_id": "S9", "refresh_token": "tok-9", "tok-9x": 1}', "unknown field", id="unknown"
        ),
        pytest.param(
            '{"seller_id": "S9", "refresh_token": "tok-1"}', "belongs to seller S1 already", id="other"
        ),
        pytest.param(
            '{"seller_id": "S9", "refresh_token": "tok-8", "conn_id": "tok-9"}',
            "line 2: conn_id: names no connection that can be used",
            id="a token for a connection",
        ),
        pytest.param(
            f'{{"seller_id": "tok-{"9z" * 16}", "refresh_token": "S9"}}',
            "line 2: seller_id: looks like a token, and refresh_token does not",
            id="a token for a seller",
        ),
        pytest.param(
            '{"seller_id": "S\\u20299", "refresh_token": "tok-9"}',
            "control character",
            id="a line break of Unicode",
        ),
        pytest.param('{"seller_id": "\\u0000", "refresh_token": "tok-9"}', "cannot be stored", id="a NUL"),
    ],
)
def test_a_bad_line_is_named_without_its_token_and_the_others_go_on(console, line, words):
    file = console.folder / "sellers.jsonl"
    file.write_text(f"{json.dumps(row())}\n{line}\n\n{json.dumps(row('S2', 'tok-2'))}\n")
    done = console.run("sellers", "import", file)
    assert (done.code, done.out) == (1, "added 2, updated 0, unchanged 0, refused 1\n")
    assert words in done.err
    assert "tok-9" not in done.err


TOKEN = "rt-" + "0a1b" * 8
NO_IDS = [
    pytest.param(TOKEN, id="a token"),
    pytest.param("8b0e5f7c-2c54-4a4e-9d3c-1a2b3c4d5e6f", id="a UUID"),
    pytest.param("1//0gK3fZq9tXw-LrV2bYd8Sm1Nc7Hj4Pa6Ue0Ti5Go_Wx", id="a token with slashes"),
    pytest.param("v1.Kx3fZq9tXwLrV2bYd8Sm.1Nc7Hj4Pa6Ue0Ti5GoWx", id="a token with dots"),
    pytest.param("hJkdWqPzRtYbNmVcXsLgFaQeTuIoZxCvBnMkJhGfDsAp", id="a token without a digit"),
    pytest.param("1A2B-3C4D-AB12-9F8E-XY7Z", id="a token in groups"),
    pytest.param("tok9xK3fZq9tXwLrV2b", id="a short token"),
    pytest.param("tok~9", id="no form of an id"),
    pytest.param("tok-9x" * 42, id="more than 250"),
]


@pytest.mark.parametrize("text", NO_IDS)
@pytest.mark.parametrize(
    "argv",
    [
        ("sellers", "import"),
        ("sellers", "add", "S9", "--conn-id"),
        ("sellers", "confirm-host", "--yes", "--conn-id"),
    ],
)
def test_what_is_no_id_of_a_connection_is_not_looked_up(console, monkeypatch, argv, text):
    asked, look_up = [], Connection.get_connection_from_secrets
    monkeypatch.setattr(
        Connection,
        "get_connection_from_secrets",
        lambda conn_id, **of: asked.append(conn_id) or look_up(conn_id, **of),
    )
    last = console.sellers_file(row(conn_id=text)) if argv[-1] == "import" else text
    done = console.run(*argv, last)
    assert done.code == (1 if argv[-1] == "import" else 2)
    assert (
        text in asked,
        text in done.out + done.err,
        "conn_id" in done.err or "id of a connection" in done.err,
    ) == (
        False,
        False,
        True,
    )
    assert console.run("sellers", "list", "--json").json == []


def test_a_connection_that_is_there_may_look_like_a_token(console, monkeypatch):
    uuid = "8b0e5f7c-2c54-4a4e-9d3c-1a2b3c4d5e6f"
    refused = console.import_rows(row(conn_id=uuid))
    assert (refused.code, "line 1: conn_id: looks like a token" in refused.err) == (1, True)
    monkeypatch.setenv(f"AIRFLOW_CONN_{uuid.upper()}", os.environ["AIRFLOW_CONN_FEEDAMP_DEFAULT"])
    assert console.run("sellers", "add", "S9", "--conn-id", uuid).code == 0
    assert console.import_rows(row(conn_id=uuid)).code == 0
    monkeypatch.setattr(
        connections, "_variable", lambda _: "AIRFLOW_CONN_ELSEWHERE"
    )  # only the seller names it now
    assert console.run("sellers", "add", "S9", "--name", "N", "--conn-id", uuid).code == 0


@pytest.mark.parametrize(
    "conn_id",
    [
        "feedamp_production_marketplace_eu_west_1",
        "feedamp.prod-FeedAMPProduction/2026_11_28:db01",
        "feedamp_eu_a1b2c3d4",
        "Verkäufer_größe_münchen_k8s",
    ],
)
def test_an_id_of_words_and_numbers_is_no_token(conn_id):
    assert not may_be_token(conn_id)


@pytest.mark.parametrize("seller", ["S\n9", "S\x1b[2J9", "S\x7f9", "S\x859", "S\u202e9"])
def test_a_seller_that_no_log_can_name_is_not_registered(console, seller):
    done = console.run("sellers", "add", seller)
    assert (done.code, "control character" in done.err, seller in done.err) == (2, True, False)
    assert console.run("sellers", "list", "--json").json == []


def test_more_lines_than_one_transaction_takes(console):
    rows = [row(f"S{n}", f"tok-{n}") for n in range(401)]
    assert console.import_rows(*rows).out == "added 401, updated 0, unchanged 0, refused 0\n"
    assert console.import_rows(*rows, row("S7", "tok-new")).out == (
        "added 0, updated 0, unchanged 401, refused 1\n"
    )


def test_a_seller_twice_in_one_file(console):
    done = console.import_rows(row(), row(token="tok-2"), row(name="One"))
    assert done.out == "added 1, updated 1, unchanged 0, refused 1\n"


@pytest.mark.parametrize("name", ["nowhere.jsonl", "."])
def test_a_file_that_cannot_be_opened_is_a_usage_error(console, name):
    done = console.run("sellers", "import", console.folder / name)
    assert done.code == 2
    assert "cannot be opened" in done.err


def test_a_grant_wakes_orders_that_waited_for_it(console):
    console.deliver("a.jsonl", "M-1", seller="S1")
    console.plan()
    assert (
        console.run("orders", "show", "S1", "M-1", "--json").json["reason"] == "the seller is not registered"
    )
    before = console.run("orders", "show", "S1", "M-1", "--json").json["next_try_at"]
    console.import_rows(row())
    assert console.run("orders", "show", "S1", "M-1", "--json").json["next_try_at"] < before
    assert console.plan() == [{"shard": 0, "sellers": ["S1"]}]


def test_add_registers_and_changes(console):
    first = console.run("sellers", "add", "S1", "--sales-channel", "market.example")
    assert (first.code, "added; no grant yet" in first.out) == (0, True)
    assert "unchanged" in console.run("sellers", "add", "S1").out
    assert "updated" in console.run("sellers", "add", "S1", "--name", "One").out
    shown = listed(console, "S1")
    assert (shown["name"], shown["sales_channel"], shown["conn_id"]) == (
        "One",
        "market.example",
        "feedamp_default",
    )


@pytest.mark.parametrize(
    "argv",
    [
        pytest.param(["S1", "--conn-id", "nope"], id="a connection no one knows"),
        pytest.param([" "], id="a blank id"),
        pytest.param(["x" * 129], id="an id too long"),
        pytest.param(["S1 --name One"], id="a command line as one word"),
        pytest.param(["--", "-S1"], id="an id that looks like an option"),
    ],
)
def test_add_refuses_what_cannot_work(console, argv):
    done = console.run("sellers", "add", *argv)
    assert done.code == 2
    assert len(done.err.splitlines()) == 1
    assert console.run("sellers", "list", "--json").json == []


def test_another_connection_takes_the_grant_along(console, monkeypatch):
    console.import_rows(row())
    account = {"conn_type": "feedamp", "host": console.sandbox.api, "login": "a", "password": "b"}
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", json.dumps(account))
    assert console.run("sellers", "add", "S1", "--conn-id", "other").code == 0
    with console.resources.state.read() as connection:
        assert grants.read(connection, console.resources.cipher, "S1").conn_id == "other"


def test_a_pause_of_feedamp_is_shown_and_ends_with_pause_and_resume(feedamp_env):
    feedamp_env.deliver("a.jsonl", "M-1")
    feedamp_env.plan()
    feedamp_env.sandbox.fault("throttle", path="/orders", seconds=86400)
    feedamp_env.place()
    shown = feedamp_env.run("status", "--json").json["pauses_of_feedamp"]
    assert (shown["count"], shown["items"][0]["seller_id"]) == (1, SELLER)
    assert f"{SELLER} until {shown['items'][0]['until'][:10]}" in feedamp_env.run("status").out
    assert "it still holds" in feedamp_env.run("sellers", "resume", SELLER).out
    assert feedamp_env.run("status", "--json").json["pauses_of_feedamp"]["count"] == 1
    assert "asked for a pause until" in feedamp_env.run("sellers", "pause", SELLER).out
    assert "it is over with that" in feedamp_env.run("sellers", "resume", SELLER).out
    assert feedamp_env.run("status", "--json").json["pauses_of_feedamp"] == {"count": 0, "items": []}
    assert "M-1" not in feedamp_env.sandbox.orders(SELLER)
    feedamp_env.place()
    assert "M-1" in feedamp_env.sandbox.orders(SELLER)


def test_resume_names_the_pause_that_is_left(feedamp_env):
    state = feedamp_env.resources.state
    feedamp_env.run("sellers", "pause", SELLER)
    state.rates.pause(SELLER, 600)
    state.rates.pause_token_calls(SELLER, 80_000)
    with state.begin() as connection:
        connection.execute(sa.update(schema.slots).values(held_by="another process"))
    before = state.now()
    out = feedamp_env.run("sellers", "resume", SELLER).out
    assert "it still holds" in out
    until = datetime.fromisoformat(re.search(r"until (\S+Z)", out)[1])
    assert until < before + timedelta(seconds=700)


def test_pause_and_resume(feedamp_env):
    assert feedamp_env.run("sellers", "pause", SELLER).code == 0
    assert listed(feedamp_env, SELLER)["paused"] is True
    assert feedamp_env.run("sellers", "resume", SELLER).code == 0
    assert listed(feedamp_env, SELLER)["paused"] is False
    unknown = feedamp_env.run("sellers", "pause", "no one")
    assert unknown.code == 1
    assert "no seller no one" in unknown.err


def test_the_list_for_people_shows_no_secret(feedamp_env):
    done = feedamp_env.run("sellers", "list")
    assert done.code == 0
    assert [line.split()[0] for line in done.out.splitlines()] == [
        "seller_id",
        "seller-001",
        "seller-002",
        "seller-003",
    ]
    assert not [secret for secret in SECRETS if secret in done.out + done.err]


def test_an_import_leaves_no_connection_to_the_state_open(state_on_postgres):
    console = state_on_postgres
    assert console.run("sellers", "import", console.sellers_file()).code == 0
    assert others_connected(console.resources.state) == 0
