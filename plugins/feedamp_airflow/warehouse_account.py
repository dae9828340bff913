"""An Airflow Postgres connection, read and checked for the warehouse."""

from __future__ import annotations

from feedamp.errors import ConfigurationError

try:
    from feedamp.warehouse.postgres_address import PostgresAddress
except ImportError as error:  # pragma: no cover - only without the extra
    raise ConfigurationError(
        "[feedamp] warehouse_conn_id needs the Postgres driver; install this package with its extra `postgres`."
    ) from error
from feedamp_airflow.account import AirflowConnection, libpq_options


def read_postgres(connection: AirflowConnection) -> PostgresAddress:
    """Address and credentials of a Postgres connection.

    Raises:
        ConfigurationError: the connection has another type, or a field is missing; the message names both.
    """
    name = f"Connection {connection.conn_id}"
    kind = getattr(connection, "conn_type", None)
    if kind not in (None, "", "postgres", "postgresql"):
        raise ConfigurationError(
            f"{name}: [feedamp] warehouse_conn_id takes a connection of type postgres, this is {kind}."
        )
    for field, value in (
        ("Host", connection.host),
        ("Login", connection.login),
        ("Database", connection.schema),
    ):
        if not value:
            raise ConfigurationError(f"{name}: {field} is missing.")
    return PostgresAddress(
        host=connection.host or "",
        port=connection.port or 5432,
        database=connection.schema or "",
        user=connection.login or "",
        password=connection.password or "",
        options=libpq_options(connection),
    )
