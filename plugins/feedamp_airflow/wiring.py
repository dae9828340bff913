"""Builds `Resources` from options and connections; the only place that does."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from airflow.sdk.log import mask_secret
from sqlalchemy.engine import URL, make_url

from feedamp.api.account import FeedAmpAccount
from feedamp.api.token_journal import TokenJournal
from feedamp.errors import ConfigurationError, TransientError
from feedamp.inbox import OrderQuery
from feedamp.lake.privacy import Privacy
from feedamp.lake.store import Lake
from feedamp.resources import Resources
from feedamp.state import State
from feedamp.state.token_cipher import TokenCipher, key_beside
from feedamp.warehouse import Warehouse
from feedamp.warehouse.duckdb import DuckDbWarehouse
from feedamp_airflow.account import AirflowConnection, libpq_options, read_account
from feedamp_airflow.config import Options, default_state_file, read_options
from feedamp_airflow.sql_inbox import SqlInbox
from feedamp_airflow.storages import open_store

LookUp = Callable[[str], AirflowConnection]
# How long a task keeps trying to read a connection, and the time between two attempts.
LOOK_UP_PATIENCE_S, LOOK_UP_PAUSE_S = 60.0, 3.0


def make_resources(look_up: LookUp | None = None) -> Resources:
    """Everything a step needs, from the options and connections of this process.

    Raises:
        ConfigurationError: an option or a connection cannot be used.
    """
    options = read_options()
    find = look_up or connection_by_id
    state_url = _state_url(options, find)
    journal_url = _journal_url(options, state_url)
    for address in (state_url, options.settings.inbox_url, options.lake_url, journal_url):
        _mask_password(address)
    key = _encryption_key(options, state_url)
    mask_secret(key)
    cipher = TokenCipher(key)

    @functools.cache
    def account(conn_id: str) -> FeedAmpAccount:
        found = read_account(find(conn_id))
        mask_secret(found.credentials.client_secret)
        return found

    return Resources(
        state=State(state_url),
        cipher=cipher,
        lake=Lake(open_store("lake_url", options.lake_url, find)),
        warehouse=make_warehouse(options, find, lock_wait_s=options.duckdb_lock_wait_s),
        settings=options.settings,
        privacy=Privacy(cipher.derived_key("pseudonym") if options.masks_personal_fields else None),
        connection=account,
        journal=TokenJournal(open_store("journal_url", journal_url, find), cipher),
        default_conn_id=options.conn_id,
        order_query=_order_query(options, find),
        on_secret=mask_secret,
        open_inbox=functools.cache(lambda: open_store("inbox_url", options.settings.inbox_url, find)),
    )


def make_warehouse(options: Options, find: LookUp, *, lock_wait_s: float) -> Warehouse:
    """The Postgres warehouse of `warehouse_conn_id`, or the DuckDB file; it is not opened yet.

    Raises:
        ConfigurationError: the connection is not a Postgres connection, or its driver is not installed.
    """
    if options.warehouse_conn_id:
        # Imported late: the driver comes with the extra `postgres`.
        from feedamp_airflow.warehouse_account import read_postgres

        address = read_postgres(find(options.warehouse_conn_id))
        mask_secret(address.password)
        from feedamp.warehouse.postgres import PostgresWarehouse

        return PostgresWarehouse(address, lock_wait_s=lock_wait_s)
    return DuckDbWarehouse(
        options.duckdb_path, memory_limit=options.duckdb_memory_limit, lock_wait_s=lock_wait_s
    )


def open_state(*, upgrade: bool = True) -> State:
    """The state database alone; `upgrade=False` opens it without a schema upgrade.

    Raises:
        ConfigurationError: an option or a connection cannot be used.
    """
    return State(_state_url(read_options(), connection_by_id), upgrade=upgrade)


def connection_by_id(conn_id: str) -> AirflowConnection:
    """A connection by its id: a task asks its supervisor, any other process looks it up as Airflow's server does.

    Raises:
        ConfigurationError: outside a task: there is no such connection.
        TransientError: in a task, after a minute of attempts: it could not be read.
    """
    if _is_task():
        return _connection_of_task(conn_id)
    try:
        # Outside a task only the server's look-up sees connections saved in the UI.
        os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
        from airflow.models.connection import Connection as ServerConnection

        return _typed(ServerConnection.get_connection_from_secrets(conn_id))
    except Exception as error:
        if "NotFound" not in type(error).__name__:
            raise
        raise ConfigurationError(f"There is no connection {conn_id}; add it, or correct its id.") from error


def _connection_of_task(
    conn_id: str,
    *,
    sleep: Callable[[float], None] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> AirflowConnection:
    """Repeats the look-up for a minute.

    While the API server or its database restarts, the SDK reports every connection as not found, exactly as one
    that does not exist (Airflow 3.3). A task can therefore not tell the two apart, and must not fail permanently.
    """
    from airflow.sdk import Connection as TaskConnection
    from airflow.sdk.exceptions import AirflowNotFoundException, AirflowRuntimeError

    give_up_at = monotonic() + LOOK_UP_PATIENCE_S
    while True:
        try:
            return _typed(TaskConnection.get(conn_id))
        except (AirflowNotFoundException, AirflowRuntimeError) as error:
            if monotonic() + LOOK_UP_PAUSE_S > give_up_at:
                raise TransientError(
                    f"Connection {conn_id} could not be read. If it does not exist, add it or correct its id; "
                    "otherwise Airflow's API server did not answer, and the next try reads it."
                ) from error
        sleep(LOOK_UP_PAUSE_S)


def _is_task() -> bool:
    from airflow.sdk.execution_time import task_runner

    return hasattr(task_runner, "SUPERVISOR_COMMS")


def _typed(connection: Any) -> AirflowConnection:
    found: AirflowConnection = connection
    return found


def _journal_url(options: Options, state_url: str) -> str:
    """By default beside a SQLite state, which only one machine uses; otherwise in the lake, which all machines reach."""
    file = make_url(state_url).database
    if options.journal_url or not state_url.startswith("sqlite") or not file:
        return options.journal_url or f"{options.lake_url.rstrip('/')}/_journal"
    return str(Path(file).with_name("journal"))


def _state_url(options: Options, find: LookUp) -> str:
    if options.state_url and options.state_conn_id:
        raise ConfigurationError("[feedamp] state_url and state_conn_id are both set; set only one.")
    if options.state_conn_id:
        connection = find(options.state_conn_id)
        url = URL.create(
            "postgresql+psycopg",
            username=connection.login,
            password=connection.password,
            host=connection.host,
            port=connection.port,
            database=connection.schema,
            query=libpq_options(connection),
        )
        return url.render_as_string(hide_password=False)
    url_text = options.state_url or f"sqlite:///{default_state_file()}"
    if url_text.startswith("sqlite") and not Path(make_url(url_text).database or "").is_absolute():
        raise ConfigurationError(
            "[feedamp] state_url must name an absolute path, as in sqlite:////var/lib/feedamp/state.db."
        )
    return url_text


def _order_query(options: Options, find: LookUp) -> OrderQuery | None:
    if options.inbox_sql is None or options.inbox_sql_conn_id is None:
        return None
    return SqlInbox(options.inbox_sql_conn_id, options.inbox_sql, find)


def _mask_password(address: str) -> None:
    """Masks the password of a URL in logs, percent-encoded and decoded."""
    password = urlsplit(address).password
    if password:
        mask_secret(password)
        mask_secret(unquote(password))


def _encryption_key(options: Options, state_url: str) -> str:
    if options.encryption_key:
        return options.encryption_key
    if not state_url.startswith("sqlite"):
        raise ConfigurationError(
            "[feedamp] encryption_key is required when the state is not a SQLite file; make one with "
            "`python -c 'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())'`."
        )
    return key_beside(make_url(state_url).database or "")
