"""Resources built from options and connections: the encryption key, and invalid combinations."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from airflow.models.connection import Connection
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.execution_time.supervisor import InProcessTestSupervisor
from airflow.sdk.log import redact
from airflow.utils.session import create_session
from cryptography.fernet import Fernet
from sqlalchemy import delete
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from crashes.clock import Clock
from feedamp.errors import ConfigurationError, TransientError
from feedamp_airflow import connections, wiring
from feedamp_airflow.account import libpq_options
from feedamp_airflow.config import read_options
from feedamp_airflow.connections import _connection_of_task, connection_by_id
from feedamp_airflow.sql_inbox import SqlInbox
from feedamp_airflow.wiring import _state_url, make_resources, start_state


def test_a_sqlite_state_gets_a_key_file_beside_it_made_once(airflow_env):
    first, second = airflow_env.resources().cipher, airflow_env.resources().cipher
    file = airflow_env.folder / "state.db.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert second.decrypt(first.encrypt("rt-1")) == "rt-1"


@pytest.fixture
def default_inbox(airflow_env, monkeypatch):
    monkeypatch.setattr("feedamp_airflow.config.AIRFLOW_HOME", str(airflow_env.folder))
    return airflow_env.folder / "feedamp" / "inbox"


@pytest.mark.parametrize(
    "begin",
    [
        pytest.param(make_resources, id="by the first command"),
        pytest.param(lambda: start_state()[0], id="by a new start on purpose"),
    ],
)
def test_a_new_installation_gets_the_default_inbox(begin, airflow_env, default_inbox):
    airflow_env.make_stores()
    airflow_env.set_options(inbox_url="")
    state = begin()
    getattr(state, "state", state).close()
    assert default_inbox.is_dir()


def test_only_intake_makes_the_default_inbox_once_sellers_are_registered(airflow_env, default_inbox):
    airflow_env.connect("seller-001")
    airflow_env.set_options(inbox_url="")
    airflow_env.resources().state.close()
    assert not default_inbox.exists()
    assert str(airflow_env.run_dag("place_orders").state) == "success"
    assert default_inbox.is_dir()


def test_a_given_key_is_used_and_no_file_is_made(airflow_env):
    key = Fernet.generate_key().decode()
    airflow_env.set_options(encryption_key=f" {key}\n")
    stored = airflow_env.resources().cipher.encrypt("rt-1")
    assert Fernet(key).decrypt(stored.encode()) == b"rt-1"
    assert not (airflow_env.folder / "state.db.key").exists()


def test_a_key_from_a_command_loses_its_line_end(monkeypatch):
    key = Fernet.generate_key().decode()
    monkeypatch.setenv("AIRFLOW__FEEDAMP__ENCRYPTION_KEY_CMD", f"echo {key}")
    assert read_options().encryption_key == key


READ = {
    "STATE_URL": lambda options: options.state_url,
    "LAKE_URL": lambda options: options.lake_url,
    "INBOX_URL": lambda options: options.settings.inbox_url,
    "JOURNAL_URL": lambda options: options.journal_url,
}


@pytest.mark.parametrize("option", READ)
def test_an_address_that_may_hold_a_password_can_come_from_a_command(option, monkeypatch):
    monkeypatch.delenv(f"AIRFLOW__FEEDAMP__{option}", raising=False)
    monkeypatch.setenv(f"AIRFLOW__FEEDAMP__{option}_CMD", f"echo /from/command/{option}")
    assert READ[option](read_options()) == f"/from/command/{option}"


BACKEND = """
from airflow.secrets import BaseSecretsBackend

class Backend(BaseSecretsBackend):
    def get_config(self, key):
        return f"/from/backend/{key}"
"""


def test_each_option_that_may_hold_a_secret_can_come_from_a_secrets_backend(tmp_path, airflow_home):
    """In a process of its own, as a worker reads it."""
    (tmp_path / "a_backend.py").write_text(BACKEND)
    names = [*READ, "ENCRYPTION_KEY"]
    code = (
        "from feedamp_airflow.config import read_options; o = read_options(); "
        "print(o.state_url, o.lake_url, o.settings.inbox_url, o.journal_url, o.encryption_key)"
    )
    env = {**os.environ, "AIRFLOW__SECRETS__BACKEND": "a_backend.Backend", "PYTHONPATH": str(tmp_path)}
    env |= {f"AIRFLOW__FEEDAMP__{name}_SECRET": name for name in names}
    ran = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert ran.stdout.split()[-5:] == [f"/from/backend/{name}" for name in names]


def test_each_key_is_masked_in_logs_from_the_moment_it_is_loaded(airflow_env):
    keys = [Fernet.generate_key().decode() for _ in range(2)]
    airflow_env.set_options(encryption_key=", ".join(keys))
    airflow_env.resources()
    said = str(redact(f"the keys are {keys[0]} and {keys[1]}"))
    assert [key for key in keys if key in said] == []


def test_who_only_looks_notes_no_use_of_a_key_and_waits_for_no_writer(airflow_env):
    airflow_env.resources().state.close()
    with sqlite3.connect(airflow_env.folder / "state.db", isolation_level=None) as connection:
        connection.execute("DELETE FROM encryption_keys")
        connection.execute("BEGIN IMMEDIATE")
        make_resources(lock_wait_s=0.1, records_origins=False).state.close()
        connection.execute("ROLLBACK")
    connection.close()


def test_a_password_in_an_address_is_masked_in_logs(airflow_env):
    key = Fernet.generate_key().decode()
    airflow_env.set_options(encryption_key=key, inbox_url="sftp://us:sesame-of-the-inbox@127.0.0.1/inbox")
    state = (
        "postgresql+psycopg://us:sesame%20of%20the%20state@127.0.0.1:1/feedamp?sslpassword=sesame%2Fof+TLS"
    )
    airflow_env.set_options(
        state_url=state, lake_url=f"{airflow_env.folder}/lake?access_token=sesame-of-the-lake"
    )
    with pytest.raises(OperationalError):  # no one listens there
        make_resources()
    said = str(
        redact(
            "sesame-of-the-inbox, sesame%20of%20the%20state, sesame of the state, sesame%2Fof+TLS, sesame/of TLS, "
            "sesame-of-the-lake"
        )
    )
    assert "sesame" not in said


def test_the_journal_is_beside_a_file_and_otherwise_in_the_lake(airflow_env):
    folder, options = airflow_env.folder, read_options()
    urls = (f"sqlite:///{folder}/state.db", "postgresql+psycopg://db/feedamp")
    found = [wiring._journal_url(options, url) for url in urls]
    assert found == [f"{folder}/journal", f"{options.lake_url}/_journal"]


def test_a_state_that_is_no_file_needs_a_key(airflow_env):
    airflow_env.set_options(state_url="postgresql+psycopg://no one@127.0.0.1:1/feedamp")
    with pytest.raises(ConfigurationError, match="encryption_key is required"):
        make_resources()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        pytest.param({"encryption_key": "short"}, "encryption_key", id="a key that is not valid"),
        pytest.param({"encryption_key": f"{'k' * 43}=,short"}, "second of its 2 keys", id="a second key"),
        pytest.param({"state_url": "state.db"}, "not a database URL", id="a state that is only a path"),
        pytest.param({"state_url": "mysql://h/d"}, "must begin with sqlite", id="a state on another server"),
        pytest.param(
            {"state_url": "sqlite+aiosqlite:////tmp/s.db"},
            "must begin with sqlite",
            id="a state by an asynchronous driver",
        ),
        pytest.param({"state_conn_id": "pg"}, "state_url and state_conn_id", id="two states"),
        pytest.param(
            {"state_url": "", "state_conn_id": "pg"}, "no connection pg", id="an unknown state connection"
        ),
        pytest.param({"warehouse_conn_id": "pg"}, "no connection pg", id="an unknown warehouse connection"),
        pytest.param(
            {"warehouse_conn_id": "feedamp_default"},
            "type postgres",
            id="a warehouse connection of another type",
        ),
    ],
)
def test_resources_that_cannot_be_built_name_the_wrong_option(options, named, airflow_env):
    airflow_env.set_options(**options)
    with pytest.raises(ConfigurationError, match=named):
        make_resources()


@pytest.mark.parametrize(
    "value",
    [
        pytest.param('{"conn_type": "feedamp", "password": "hush",}', id="a comma too many"),
        pytest.param('{"conn_type": "feedamp", "password": "hush"', id="cut JSON"),
        pytest.param(
            '{"conn_type": "feedamp", "password": "hush", "extra": "abc"}', id="Extra that is not JSON"
        ),
        pytest.param(
            '{"conn_type": "feedamp", "password": "hush", "extra": "[1]"}', id="Extra that is a list"
        ),
        pytest.param(
            '{"conn_type": "feedamp", "password": "hush", "hots": "x"}', id="a field that Airflow lacks"
        ),
        pytest.param("feedamp://us:hush@127.0.0.1:port", id="a port that is not a number"),
        pytest.param('["hush"]', id="a JSON list"),
        pytest.param("hush", id="a word"),
        pytest.param(
            """'{"conn_type": "feedamp", "host": "https://h", "password": "hush"}'""", id="quoted JSON"
        ),
        pytest.param('\ufeff{"host": "https://h", "password": "hush"}', id="JSON behind a byte order mark"),
        pytest.param('"feedamp://us:hush@127.0.0.1"', id="a quoted URI"),
        pytest.param("", id="nothing"),
    ],
)
def test_a_broken_connection_is_not_said_to_be_missing(value, airflow_env, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_FEEDAMP_DEFAULT", value)
    with pytest.raises(ConfigurationError, match="is there, but cannot be read") as caught:
        connection_by_id("feedamp_default")
    assert "AIRFLOW_CONN_FEEDAMP_DEFAULT" in str(caught.value)
    assert "hush" not in str(caught.value)


def test_an_extra_that_is_not_an_object_is_said_to_be_broken():
    with pytest.raises(ConfigurationError, match="pg is there, but cannot be read: Extra"):
        libpq_options(Postgres(extra_dejson=[1]))


def test_a_store_that_fails_is_named_where_a_connection_is_missing(airflow_env, monkeypatch):
    class SecretStore:
        def get_connection(self, conn_id):
            raise PermissionError("hush")

    monkeypatch.setattr("airflow.configuration.ensure_secrets_loaded", lambda: [SecretStore()])
    with pytest.raises(ConfigurationError, match="SecretStore, where it may be, failed with PermissionError"):
        connection_by_id("pg")


def test_a_database_without_tables_is_not_taken_for_a_wrong_key(airflow_env, monkeypatch, tmp_path):
    class Store:
        def get_connection(self, conn_id):
            with sa.create_engine(f"sqlite:///{tmp_path / 'new.db'}").connect() as database:
                database.execute(sa.text("SELECT * FROM connection"))

    monkeypatch.setattr("airflow.configuration.ensure_secrets_loaded", lambda: [Store()])
    with pytest.raises(
        ConfigurationError, match="Airflow's database has no tables yet, or is away"
    ) as caught:
        connection_by_id("pg")
    assert "fernet_key" not in str(caught.value)


def test_a_task_does_not_wait_for_a_broken_connection(monkeypatch):
    def missing(_conn_id):
        raise AirflowNotFoundException

    def taken_as_uri(_conn_id):
        return Postgres(conn_type="", host="", schema="postgres://db.example/x'")

    for value, get in (("{", missing), ("'postgres://db.example/x'", taken_as_uri)):
        monkeypatch.setattr("airflow.sdk.Connection.get", get)
        monkeypatch.setenv("AIRFLOW_CONN_PG", value)
        with pytest.raises(ConfigurationError, match="AIRFLOW_CONN_PG"):
            _connection_of_task("pg", sleep=lambda _: pytest.fail("waited"))


@pytest.mark.parametrize("value", ["", "not read"], ids=["empty", "asked later"])
def test_a_variable_that_airflow_does_not_use_is_no_fault(value, airflow_env, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_SAVED", value)
    saved = Connection(conn_id="saved", conn_type="feedamp", host="http://127.0.0.1")
    get = "airflow.models.connection.Connection.get_connection_from_secrets"
    if value:  # as with a store of secrets that Airflow asks before the environment
        monkeypatch.setattr(get, lambda *_, **__: saved)
    else:
        with create_session() as session:
            session.add(saved)
    monkeypatch.setattr("airflow.sdk.Connection.get", lambda _conn_id: saved)
    try:
        for look_up in (connection_by_id, _connection_of_task):
            assert look_up("saved").host == "http://127.0.0.1"
    finally:
        with create_session() as session:
            session.execute(delete(Connection).where(Connection.conn_id == "saved"))


def test_a_state_url_that_depends_on_the_folder_is_refused(airflow_home, monkeypatch):
    from feedamp.errors import ConfigurationError
    from feedamp_airflow.wiring import make_resources

    monkeypatch.setenv("AIRFLOW__FEEDAMP__STATE_URL", "sqlite:///state.db")
    with pytest.raises(ConfigurationError, match="absolute path"):
        make_resources()


@dataclass
class Postgres:
    """An Airflow connection of a Postgres state."""

    conn_id: str = "pg"
    conn_type: str = "postgres"
    host: str = "db.example"
    login: str = "etl"
    password: str = "s3cret"
    schema: str = "feedamp"
    port: int = 5433
    extra_dejson: dict[str, Any] = field(default_factory=lambda: {"sslmode": "verify-full", "cursor": "dict"})


def test_tls_options_of_the_state_connection_reach_the_driver(airflow_env, monkeypatch):
    monkeypatch.setattr(connections, "connection_by_id", lambda _conn_id: Postgres())
    airflow_env.set_options(state_url="", state_conn_id="pg")
    url = make_url(_state_url(read_options()))
    assert (url.host, url.port, url.database, url.username) == ("db.example", 5433, "feedamp", "etl")
    assert dict(url.query) == {"sslmode": "verify-full"}


def test_a_task_repeats_the_look_up_while_the_api_server_restarts(monkeypatch):
    clock, tries = Clock(keeps_still=True), []

    def get(conn_id):
        tries.append(conn_id)
        if clock.elapsed_s() < 50:
            raise AirflowNotFoundException
        return Postgres()

    monkeypatch.setattr("airflow.sdk.Connection.get", get)
    found = _connection_of_task("pg", sleep=clock.pause, monotonic=clock.elapsed_s)
    assert found.host == "db.example"
    assert len(tries) > 10


def test_a_look_up_that_fails_for_a_minute_is_left_to_the_retry_policy(monkeypatch):
    clock = Clock(keeps_still=True)

    def get(_conn_id):
        raise AirflowNotFoundException

    monkeypatch.setattr("airflow.sdk.Connection.get", get)
    with pytest.raises(TransientError, match="Connection pg could not be read"):
        _connection_of_task("pg", sleep=clock.pause, monotonic=clock.elapsed_s)
    assert 50 <= clock.elapsed_s() <= 60


def test_another_error_of_the_look_up_is_raised_as_it_is(monkeypatch):
    def get(_conn_id):
        raise PermissionError("denied")

    monkeypatch.setattr("airflow.sdk.Connection.get", get)
    with pytest.raises(PermissionError):
        _connection_of_task("pg")


def test_a_task_waits_for_an_api_server_that_is_away_at_its_start(airflow_env, monkeypatch):
    """The connection is only in Airflow's database, which a task reaches through the API server."""
    airflow_env.connect("seller-001")
    fields = json.loads(os.environ.pop("AIRFLOW_CONN_FEEDAMP_DEFAULT"))
    fields["extra"] = json.dumps(fields.get("extra") or {})
    away = []
    request = InProcessTestSupervisor._Client.request

    def out_of_service(client, method, url, *args, **kwargs):
        if "connections/" not in str(url) or len(away) >= 3:
            return request(client, method, url, *args, **kwargs)
        away.append(url)
        served, client._transport = client._transport, httpx.MockTransport(lambda _: httpx.Response(503))
        try:
            return request(client, method, url, *args, **kwargs)
        finally:
            client._transport = served

    monkeypatch.setattr(InProcessTestSupervisor._Client, "request", out_of_service)
    monkeypatch.setattr(connections, "LOOK_UP_PAUSE_S", 0.05)
    with create_session() as session:
        session.add(Connection(conn_id="feedamp_default", **fields))
    try:
        run = airflow_env.run_dag("extract_fulfillments")
    finally:
        with create_session() as session:
            session.execute(delete(Connection).where(Connection.conn_id == "feedamp_default"))
    assert (str(run.state), len(away)) == ("success", 3)


def test_an_inbox_query_whose_connection_cannot_be_read_is_tried_again():
    def find(_conn_id):
        raise TransientError("Connection pg could not be read.")

    with pytest.raises(TransientError, match="could not be read"):
        list(SqlInbox("pg", "SELECT 1", find).rows())


@pytest.mark.parametrize("content", [b"garbage", b"", b"\xff\xfe\0"], ids=["words", "nothing", "bytes"])
def test_a_key_file_that_is_damaged_is_named(airflow_env, content):
    airflow_env.resources()
    file = airflow_env.folder / "state.db.key"
    file.write_bytes(content)
    with pytest.raises(
        ConfigurationError, match=f"^The key file {file} is damaged; restore it from a backup. Its "
    ):
        airflow_env.resources()
