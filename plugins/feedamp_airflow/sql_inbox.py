"""Options `inbox_sql` and `inbox_sql_conn_id`: orders read from any SQL connection of Airflow, nothing written back."""

import logging
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn

from feedamp.errors import ConfigurationError, TransientError
from feedamp.inbox.query import QUERY_PREFIX

log = logging.getLogger(__name__)
ROWS_AT_ONCE = 500
COLUMNS = ("seller_id", "order")
OPTION = "[feedamp] inbox_sql"
# The plain cursors of these drivers fetch the whole result; a named cursor stays on the server.
_NAMED_CURSORS = ("psycopg", "psycopg2")


def hook_of(connection: Any) -> Any:
    """The hook for a connection's type; the connection may come from the task SDK or from the server."""
    # The server's `get_hook` is deprecated outside the server. The hook looks up the other fields by connection id.
    from airflow.sdk import Connection

    typed: Any = Connection(conn_id=connection.conn_id, conn_type=connection.conn_type)
    return typed.get_hook()


@dataclass(frozen=True)
class SqlInbox:
    """A query on one connection, which is opened when the rows are read."""

    conn_id: str
    sql: str = field(repr=False)
    find: Callable[[str], Any]  # a connection by its id
    hook_of: Callable[[Any], Any] = hook_of

    @property
    def source(self) -> str:
        """`sql:` and the id of the connection."""
        return f"{QUERY_PREFIX}{self.conn_id}"

    def rows(self) -> Iterator[tuple[object, object]]:
        """(seller_id, order) of each row, a few hundred at a time; any change that the query made is rolled back.

        Raises:
            TransientError: the database cannot be reached, or failed in the middle.
            ConfigurationError: there is no such SQL connection, or the query cannot be run or has other columns.
        """
        opened = self._open()
        try:
            try:
                yield from _stream(opened, self.sql)
            finally:
                # The connection may be closed, and the rollback is only a precaution.
                with suppress(Exception):
                    opened.rollback()
        except (ConfigurationError, TransientError, GeneratorExit):
            raise
        except Exception as error:  # noqa: BLE001 - each driver has its own errors
            _explain(error)
        finally:
            with suppress(Exception):
                opened.close()

    def _open(self) -> Any:
        try:
            hook = self.hook_of(self.find(self.conn_id))
        except TransientError:  # in a task: the connection could not be read
            raise
        except ConfigurationError as error:
            raise ConfigurationError(f"{OPTION}_conn_id: there is no connection {self.conn_id}.") from error
        except Exception as error:
            raise ConfigurationError(
                f"{OPTION}_conn_id: no installed provider can use connection {self.conn_id}; "
                "install the provider of its type."
            ) from error
        # SQL hooks have it, also those that do not inherit from DbApiHook.
        if not hasattr(hook, "get_records"):
            raise ConfigurationError(f"{OPTION}_conn_id: connection {self.conn_id} is not an SQL connection.")
        hook.log_sql = False
        try:
            return hook.get_conn()
        except Exception as error:  # noqa: BLE001 - each driver has its own errors
            # Without its cause: a driver's message may contain parts of the connection.
            raise TransientError(
                f"{OPTION}_conn_id: the database of connection {self.conn_id} cannot be reached "
                f"({type(error).__name__})."
            ) from None


def _stream(opened: Any, sql: str) -> Iterator[tuple[object, object]]:
    cursor = opened.cursor("feedamp_inbox") if _is_named(opened) else opened.cursor()
    try:
        cursor.execute(sql)
        rows = cursor.fetchmany(ROWS_AT_ONCE) if cursor.description or _is_named(opened) else []
        places = _places(cursor.description)
        while rows:
            for row in rows:
                cells = list(row.values()) if isinstance(row, Mapping) else row
                yield cells[places[0]], cells[places[1]]
            rows = cursor.fetchmany(ROWS_AT_ONCE)
    finally:
        with suppress(Exception):
            cursor.close()


def _is_named(opened: Any) -> bool:
    return type(opened).__module__.partition(".")[0] in _NAMED_CURSORS


def _places(description: Sequence[Sequence[Any]] | None) -> tuple[int, int]:
    """The positions of the two columns; some databases write names in capitals."""
    names = [str(column[0]).lower() for column in description or ()]
    if sorted(names) != sorted(COLUMNS):
        raise ConfigurationError(
            f'{OPTION} must return exactly the columns seller_id and order (written "order" in SQL); '
            f"it returns {', '.join(names) or 'none'}."
        )
    return names.index("seller_id"), names.index("order")


def _explain(error: Exception) -> NoReturn:
    """Raises ConfigurationError for a faulty query and TransientError otherwise, by the DB-API names of error classes."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    is_sqlite_fault = (
        isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode == sqlite3.SQLITE_ERROR
    )
    if "ProgrammingError" in kinds or "NotSupportedError" in kinds or is_sqlite_fault:
        first_line = str(error).partition("\n")[0]  # further lines quote the query
        raise ConfigurationError(f"{OPTION} cannot be run: {first_line}") from None
    raise TransientError(
        f"{OPTION}: the database failed while rows were read ({type(error).__name__})."
    ) from None
