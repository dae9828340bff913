"""Looks connections up by their id, in a task as well as outside of one, and says why one cannot be read."""

import os
import re
import time
from collections.abc import Callable
from typing import Any, Protocol, cast

from airflow.configuration import conf
from sqlalchemy.exc import DBAPIError

from feedamp.errors import ConfigurationError, TransientError
from feedamp.rules.secret_words import may_be_token

# How long a task keeps trying to read a connection, and the time between two attempts.
LOOK_UP_PATIENCE_S, LOOK_UP_PAUSE_S = 60.0, 3.0
_CONN_ID = re.compile(r"[\w#!()\-.:/\\]{1,250}")  # as Airflow 3.3.2 takes it (models/connection.py)
_URI_OR_JSON = re.compile(r"\s*(?:\{|[A-Za-z][\w+.-]*://)")


class AirflowConnection(Protocol):
    """The fields that are read from a connection, of the SDK or of the server."""

    conn_id: str
    conn_type: str | None
    host: str | None
    login: str | None
    password: str | None
    schema: str | None
    port: int | None

    @property
    def extra_dejson(self) -> dict[str, Any]:
        """Extras as a dict."""


def check_conn_id(text: str) -> None:
    """Raises a ConfigurationError, which does not repeat it, if a text is no id of a connection.

    In a task an id becomes a part of a URL that Airflow's API server writes to its log, and secrets backends are given it.
    """
    if not _CONN_ID.fullmatch(text):
        raise ConfigurationError(
            "What was given as the id of a connection cannot be one, so it was not looked up and is not repeated here: Airflow "
            "takes letters, digits and any of # ! ( ) - . : / \\ _, up to 250 of them."
        )


def connection_by_id(conn_id: str, *, patience_s: float = LOOK_UP_PATIENCE_S) -> AirflowConnection:
    """A connection by its id: a task asks its supervisor, any other process looks it up as Airflow's server does.

    Raises:
        ConfigurationError: it is there, but cannot be read; or outside a task: there is no such connection. Or the text is no
            id of a connection: then it is neither looked up nor repeated.
        TransientError: in a task, after attempts for `patience_s`: it could not be read.
    """
    check_conn_id(conn_id)
    if is_task():
        return _connection_of_task(conn_id, patience_s=patience_s)
    try:
        # Outside a task only the server's look-up sees connections saved in the UI.
        os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
        from airflow.models.connection import Connection as ServerConnection

        looked_up = ServerConnection.get_connection_from_secrets(conn_id, team_name=team_of(conn_id))
        found = cast("AirflowConnection", looked_up)
    except Exception as error:
        if "NotFound" not in type(error).__name__:
            raise
        _refuse_broken_variable(conn_id)
        _refuse_broken_store(conn_id)
        raise ConfigurationError(f"There is no connection {conn_id}; add it, or correct its id.") from error
    _refuse_unread_variable(found)
    return found


def connection_for(option: str, conn_id: str) -> AirflowConnection:
    """The connection that an option names; a ConfigurationError of the look-up names the option too. Raises as `connection_by_id`."""
    try:
        return connection_by_id(conn_id)
    except ConfigurationError as error:
        raise ConfigurationError(f"[feedamp] {option}: {error}") from error


def team_of(conn_id: str) -> str | None:
    """The team that a saved connection belongs to; None without `[core] multi_team`, or if it is for all.

    Outside a task, Airflow finds no connection of a team unless it is asked for that of the team.
    """
    if not conf.getboolean("core", "multi_team"):
        return None
    from airflow.models.connection import Connection as ServerConnection

    found: str | None = ServerConnection.get_team_name(conn_id)
    return found


def looks_like_token(conn_id: str) -> bool:
    """Whether what was given as the id of a connection may be a token, and is no connection of the environment."""
    return may_be_token(conn_id) and _variable(conn_id) not in os.environ


def _variable(conn_id: str) -> str:
    return f"AIRFLOW_CONN_{conn_id.upper()}"


def _refuse_unread_variable(found: AirflowConnection) -> None:
    """Raises as `_refuse_broken_variable` for a text that Airflow takes as a URI although it is none: it finds no type in it.

    Such are JSON and URIs with quotes around them, as in a file for `docker --env-file`, or behind a byte order mark. A
    connection with a type is of another store, which Airflow asks first, or after a variable that is empty or that it cannot read.
    """
    if not found.conn_type and not _URI_OR_JSON.match(os.environ.get(_variable(found.conn_id), "{")):
        _refuse_broken_variable(found.conn_id)


def _refuse_broken_variable(conn_id: str) -> None:
    """Raises a ConfigurationError if the connection that Airflow did not find is in the environment."""
    if _variable(conn_id) in os.environ:
        raise ConfigurationError(
            f"Connection {conn_id} is there, but cannot be read: the environment variable {_variable(conn_id)} is neither a URI "
            "nor a JSON object with Airflow's fields. Correct it; quotes around it, too, are part of what Airflow reads."
        )


def _refuse_broken_store(conn_id: str) -> None:
    """Raises a ConfigurationError if a store failed when it was asked; Airflow says then that there is no connection."""
    from airflow.configuration import ensure_secrets_loaded

    for store in ensure_secrets_loaded():
        try:
            found = store.get_connection(conn_id=conn_id)
            if found is not None:
                found.get_uri()  # decrypts the password
        except DBAPIError as error:
            raise ConfigurationError(
                f"Connection {conn_id} cannot be read: Airflow's database has no tables yet, or is away "
                f"({type(error).__name__})."
            ) from error
        except Exception as error:
            raise ConfigurationError(
                f"Connection {conn_id} cannot be read: {type(store).__name__}, where it may be, failed with "
                f"{type(error).__name__}. If it is there, save it again; look also at Airflow's fernet_key."
            ) from error


def _connection_of_task(
    conn_id: str,
    *,
    patience_s: float = LOOK_UP_PATIENCE_S,
    sleep: Callable[[float], None] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> AirflowConnection:
    """Repeats the look-up, by default for a minute.

    While the API server or its database restarts, the SDK reports every connection as not found, exactly as one
    that does not exist (Airflow 3.3). A task can therefore not tell the two apart, and must not fail permanently.
    """
    from airflow.sdk import Connection as TaskConnection
    from airflow.sdk.exceptions import AirflowNotFoundException, AirflowRuntimeError

    give_up_at = monotonic() + patience_s
    while True:
        try:
            found = cast("AirflowConnection", TaskConnection.get(conn_id))
            _refuse_unread_variable(found)
            return found
        except (AirflowNotFoundException, AirflowRuntimeError) as error:
            _refuse_broken_variable(conn_id)  # no other try can read it
            if monotonic() + LOOK_UP_PAUSE_S > give_up_at:
                raise TransientError(
                    f"Connection {conn_id} could not be read. If it does not exist, add it or correct its id; "
                    "otherwise Airflow's API server did not answer, and the next try reads it."
                ) from error
        sleep(LOOK_UP_PAUSE_S)


def is_task() -> bool:
    from airflow.sdk.execution_time import task_runner

    return hasattr(task_runner, "SUPERVISOR_COMMS")
