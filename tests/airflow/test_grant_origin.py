"""After Host of a connection has changed, nothing is sent to the new server until a person confirms it."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from airflow_env import CONN_ID, FAST
from console import SELLER, Console
from installations import MID_LIFE, unpack

from feedamp.errors import ConfigurationError
from feedamp.state import grants
from feedamp.steps.refresh_tokens.renew_idle_grants import refresh
from feedamp_airflow.hook import FeedAmpHook
from feedamp_sandbox import Sandbox, SandboxOptions, running

CONNECTION = f"AIRFLOW_CONN_{CONN_ID.upper()}"
CALLBACK = "https://market.example/callback"


def server(sandbox: Sandbox) -> str:
    return sandbox.api.removesuffix("/api/v1")


def lead_to(shop: Console, sandbox: Sandbox) -> None:
    """Changes only Host of the connection."""
    extra = {"allow_http": True, "callback_url": CALLBACK, "requests_per_second": 1000}
    shop.env.set_connection(host=sandbox.api, extra=json.dumps(extra))
    shop.reopen()


@pytest.fixture
def elsewhere(feedamp_env: Console) -> Iterator[Sandbox]:
    """A second sandbox, to which the connection leads after its sellers' tokens were used at the first one."""
    shop = feedamp_env
    shop.read()
    options = SandboxOptions(
        **{
            **FAST,
            "sellers": 3,
            "client_id": shop.sandbox.client_id,
            "client_secret": shop.sandbox.client_secret,
        }
    )
    with running(options, host="127.0.0.2") as second:  # not one of the loopback names
        lead_to(shop, second)
        yield second


def origins(shop: Console, conn_id: str = CONN_ID) -> dict[str | None, int]:
    with shop.resources.state.read() as connection:
        return grants.origins(connection, conn_id)


def expire(shop: Console) -> None:
    with shop.resources.state.begin() as connection:
        connection.exec_driver_sql("UPDATE grants SET access_token = NULL")


def renew(shop: Console) -> None:
    asyncio.run(refresh(shop.resources, shop._run(), 0, [SELLER]))


def hook(shop: Console) -> None:
    FeedAmpHook(CONN_ID).run("orders", seller=SELLER)


def exchange(shop: Console) -> None:
    done = shop.run("sellers", "authorize", SELLER, "--code", "c", "--state", "s")
    raise ConfigurationError(done.err)


def link(shop: Console) -> None:
    raise ConfigurationError(shop.run("sellers", "authorize-url", SELLER).err)


def bring_in(shop: Console) -> None:
    done = shop.import_rows({"seller_id": "S-9", "refresh_token": "rt-new"})
    raise ConfigurationError(done.err)


def live_token(shop: Console) -> None:
    shop.read()


def spent_token(shop: Console) -> None:
    expire(shop)
    shop.read()


WAYS = [live_token, spent_token, renew, hook, exchange, link, bring_in]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_nothing_is_sent_to_another_server(
    way: Callable[[Console], Any], feedamp_env: Console, elsewhere: Sandbox
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        way(feedamp_env)
    said = str(raised.value)
    assert server(feedamp_env.sandbox) in said
    assert server(elsewhere) in said
    assert f"feedamp sellers confirm-host --conn-id {CONN_ID}" in said
    assert elsewhere.requests == []


def test_doctor_names_the_other_server_and_sends_nothing(feedamp_env: Console, elsewhere: Sandbox) -> None:
    done = feedamp_env.run("doctor", "--json")
    [check] = [check for check in done.json["checks"] if check["name"] == f"connection {CONN_ID}"]
    assert (done.code, check["state"]) == (2, "configuration")
    assert "confirm-host" in check["says"]
    assert elsewhere.requests == []


def test_the_button_sends_no_client_secret_to_another_server(
    feedamp_env: Console, elsewhere: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the new host is saved, and after it."""
    monkeypatch.setenv("AIRFLOW_CONN_QWERTY", os.environ[CONNECTION])
    saved = FeedAmpHook("qwerty").test_connection()
    # Airflow fills in the saved secret although the client id in the form is another one.
    edited = json.loads(os.environ[CONNECTION]) | {"login": "another-client"}
    monkeypatch.setenv("AIRFLOW_CONN_ASDFGH", json.dumps(edited))
    typed = FeedAmpHook("asdfgh").test_connection()
    feedamp_env.env.set_connection()
    for works, said in (saved, typed, FeedAmpHook("qwerty").test_connection()):
        assert not works
        assert said.startswith("Address works. The client secret was not sent: ")
    assert {(r.method, r.path) for r in elsewhere.requests} == {("GET", "/api/v1/orders")}


def test_the_button_accepts_each_server_of_two_connections_with_one_client(
    feedamp_env: Console, elsewhere: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    for conn_id in ("STAGING", "QWERTY"):
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id}", os.environ[CONNECTION])
    feedamp_env.env.set_connection()
    assert not FeedAmpHook("qwerty").test_connection()[0]
    enrolled = feedamp_env.run("sellers", "add", "S-staging", "--conn-id", "staging")
    assert (enrolled.code, FeedAmpHook("qwerty").test_connection()[0]) == (0, True)
    token = {"seller_id": "S-staging", "refresh_token": "rt-staging"}
    assert feedamp_env.import_rows(token).code == 0
    assert FeedAmpHook("qwerty").test_connection()[0]
    checks = {check["name"]: check["state"] for check in feedamp_env.run("doctor", "--json").json["checks"]}
    assert (checks[f"connection {CONN_ID}"], checks["connection staging"]) == ("ok", "ok")


def test_a_confirmed_server_gets_the_tokens(feedamp_env: Console, elsewhere: Sandbox) -> None:
    shop = feedamp_env
    asked = shop.run("sellers", "confirm-host")
    assert (asked.code, "--yes" in asked.err) == (1, True)
    old, new = server(shop.sandbox), server(elsewhere)
    assert f"3 grants of {old} -> {new}" in asked.out
    assert (origins(shop), elsewhere.requests) == ({old: 3}, [])
    done = shop.run("sellers", "confirm-host", "--conn-id", CONN_ID, "--yes")
    assert (done.code, origins(shop)) == (0, {new: 3})
    shop.read()
    assert elsewhere.requests
    assert "no grant was issued by another server" in shop.run("sellers", "confirm-host").out


def test_grants_of_an_earlier_version_get_the_origin_of_the_connection(feedamp_env: Console) -> None:
    shop = feedamp_env
    with shop.resources.state.begin() as connection:
        connection.exec_driver_sql("UPDATE grants SET origin = NULL")
    shop.read()
    assert origins(shop) == {server(shop.sandbox): 3}


def upgrade_by_command(shop: Console) -> None:
    done = shop.run("db", "upgrade")
    assert f"connection feedamp: 1 grant recorded as issued by {server(shop.sandbox)}" in done.out
    assert "connection gone" not in done.out
    assert done.code == 0


def upgrade_by_a_step_without_connection(shop: Console) -> None:
    shop.env.take_in()


def upgrade_by_a_look(shop: Console) -> None:
    shop.run("status")


WAYS_TO_UPGRADE = [upgrade_by_command, upgrade_by_a_step_without_connection, upgrade_by_a_look]


@pytest.mark.parametrize("upgrade", WAYS_TO_UPGRADE, ids=lambda way: way.__name__)
def test_an_upgrade_records_the_servers_before_a_host_can_be_changed(
    upgrade: Callable[[Console], None], console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = unpack(MID_LIFE, console.folder / "old")
    with closing(sqlite3.connect(folder / "state.db")) as old, old:
        old.execute("UPDATE grants SET conn_id = 'gone' WHERE seller_id = 'seller-002'")
    console.env.set_options(
        state_url=f"sqlite:///{folder / 'state.db'}",
        lake_url=str(folder / "lake"),
        duckdb_path=str(folder / "warehouse.duckdb"),
    )
    monkeypatch.setenv("AIRFLOW_CONN_FEEDAMP", os.environ[CONNECTION])
    upgrade(console)
    moved = json.loads(os.environ[CONNECTION]) | {"host": "https://new.example/api/v1"}
    monkeypatch.setenv("AIRFLOW_CONN_FEEDAMP", json.dumps(moved))
    console.reopen()
    assert (origins(console, "feedamp"), origins(console, "gone")) == (
        {server(console.sandbox): 1},
        {None: 1},
    )
    with pytest.raises(ConfigurationError, match="confirm-host"):
        FeedAmpHook("feedamp").run("orders", seller=SELLER)
    assert console.sandbox.requests == []


def test_a_hook_with_another_connection_gets_no_token_of_a_seller(
    feedamp_env: Console, elsewhere: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_SECOND", os.environ[CONNECTION])
    feedamp_env.env.set_connection()
    with pytest.raises(ConfigurationError, match="no token of the seller is sent"):
        FeedAmpHook("second").run("orders", seller=SELLER)
    assert elsewhere.requests == []


def test_a_move_to_another_server_is_refused_or_warned_of(
    feedamp_env: Console, elsewhere: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The grant must block neither the sellers of the new connection nor a consent there."""
    shop = feedamp_env
    monkeypatch.setenv("AIRFLOW_CONN_SECOND", os.environ[CONNECTION])
    shop.env.set_connection()
    move = ("sellers", "add", SELLER, "--conn-id", "second")
    refused = shop.run(*move)
    assert (refused.code, "no other seller is connected" in refused.err) == (1, True)
    assert origins(shop) == {server(shop.sandbox): 3}
    shop.import_rows({"seller_id": "S-9", "conn_id": "second", "refresh_token": "rt-new"})
    moved = shop.run(*move)
    assert (moved.code, f"belongs to {server(shop.sandbox)}: nothing is sent" in moved.err) == (0, True)
    assert shop.run("sellers", "authorize-url", SELLER).code == 0
    assert elsewhere.requests == []


def test_a_moved_seller_leaves_the_others_of_the_connection_at_work(feedamp_env: Console) -> None:
    with feedamp_env.resources.state.begin() as connection:
        connection.exec_driver_sql(
            f"UPDATE grants SET origin = 'https://a.example:443' WHERE seller_id != '{SELLER}'"
        )
    feedamp_env.read()
    with pytest.raises(ConfigurationError, match=r"issued by https://a\.example:443"):
        FeedAmpHook(CONN_ID).run("orders", seller="seller-002")
    assert {request.seller_id for request in feedamp_env.env.asked()} == {SELLER}
    assert "confirm-host" in feedamp_env.run("doctor").out
