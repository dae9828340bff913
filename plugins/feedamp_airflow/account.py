"""What is read of Airflow connections: of one of type `feedamp`, and of a Postgres connection."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from feedamp.api.account import REQUESTS_PER_SECOND, FeedAmpAccount
from feedamp.api.oauth import Credentials
from feedamp.api.transport import Endpoint
from feedamp.errors import ConfigurationError
from feedamp_airflow.connections import AirflowConnection

if TYPE_CHECKING:
    from feedamp.warehouse.postgres_address import PostgresAddress

_Number = TypeVar("_Number", int, float)
# Extras of a Postgres connection that are passed on to libpq; Airflow's others (cursor, iam, …) are ignored.
_LIBPQ_EXTRAS = (
    "sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl", "connect_timeout", "keepalives_idle",
    "target_session_attrs",
)  # fmt: skip


def libpq_options(connection: AirflowConnection) -> dict[str, str]:
    """The TLS and timeout settings in a Postgres connection's extras, as libpq options."""
    extra = _extras(connection)
    return {name: str(extra[name]) for name in _LIBPQ_EXTRAS if extra.get(name) not in (None, "")}


def read_postgres(connection: AirflowConnection) -> PostgresAddress:
    """Address and credentials of a Postgres connection; a ConfigurationError names a wrong type or field."""
    from feedamp.warehouse.postgres_address import PostgresAddress

    name = f"Connection {connection.conn_id}"
    kind = getattr(connection, "conn_type", None)
    if kind not in (None, "", "postgres", "postgresql"):
        raise ConfigurationError(
            f"{name}: [feedamp] warehouse_conn_id takes a connection of type postgres, this is {kind}."
        )
    needed = {"Host": connection.host, "Login": connection.login, "Database": connection.schema}
    for field, value in needed.items():
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


def _extras(connection: AirflowConnection) -> dict[str, Any]:
    try:
        extra: Any = connection.extra_dejson or {}
    except Exception:  # noqa: BLE001 - Airflow raises different errors, which may quote the value
        extra = None
    if not isinstance(extra, dict):
        raise ConfigurationError(
            f"Connection {connection.conn_id} is there, but cannot be read: Extra must be a JSON object. Correct it."
        )
    return extra


def read_account(connection: AirflowConnection) -> FeedAmpAccount:
    """Endpoint, credentials and limits of a connection; a ConfigurationError names the connection and the field."""
    name = f"Connection {connection.conn_id}"
    extra = _extras(connection)
    if connection.schema or connection.port:
        field = "Schema" if connection.schema else "Port"
        raise ConfigurationError(f"{name}: {field} must stay empty; Base URL is the whole address.")
    if not connection.host:
        raise ConfigurationError(
            f"{name}: Base URL is missing; it is the address up to and including /api/v1."
        )
    # A file or a Kubernetes secret ends in a line end, and pasted text in blanks.
    login, password = (connection.login or "").strip(), (connection.password or "").strip()
    if not login or not password:
        field = "Client ID" if not login else "Client secret"
        raise ConfigurationError(f"{name}: {field} is missing.")
    base_url = connection.host.strip().rstrip("/")
    timeout_s = _number(name, extra, "timeout_s", _number(name, extra, "timeout", 30.0, float), float)
    max_connections = _number(name, extra, "max_connections", 32, int)
    try:
        endpoint = Endpoint(
            base_url=base_url,
            max_connections=max_connections,
            timeout_s=timeout_s,
            allow_http=_flag(extra.get("allow_http")),
            verify=_verify(extra.get("verify")),
            cert=_cert(_from_text(extra.get("cert"))),
            trust_env=_flag(extra.get("trust_env")),
            proxy=_proxy(base_url, _from_text(extra.get("proxies"))),
        )
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}: {error}") from error
    return FeedAmpAccount(
        endpoint=endpoint,
        credentials=Credentials(connection.conn_id, login, password),
        requests_per_second=_number(name, extra, "requests_per_second", REQUESTS_PER_SECOND, float),
        callback_url=str(extra.get("callback_url") or "").strip() or None,
    )


def _number(
    name: str, extra: Mapping[str, Any], field: str, default: _Number, kind: Callable[[Any], _Number]
) -> _Number:
    value = extra.get(field)
    if value is None or value == "":
        return default
    try:
        number = kind(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigurationError(f"{name}: extra {field} must be a number.") from error
    if not 0 < number < float("inf"):
        raise ConfigurationError(f"{name}: extra {field} must be more than 0.")
    return number


def _flag(value: Any) -> bool:
    return value is True or str(value).strip().lower() in ("true", "1", "yes", "on")


def _verify(value: Any) -> bool | str:
    """True, False or the path of a CA bundle; the connection form saves all of them as text."""
    if value is None or value == "" or value is True:
        return True
    text = str(value).strip()
    if text.lower() in ("false", "0", "no", "off"):
        return False
    return True if text.lower() in ("true", "1", "yes", "on") else text


def _from_text(value: Any) -> Any:
    """The value, also if it is JSON as text: all extras of a URI are text."""
    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        with suppress(ValueError):
            return json.loads(value)
    return value


def _cert(value: Any) -> str | tuple[str, str] | None:
    if not value:
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and len(value) == 2:
        return str(value[0]), str(value[1])
    raise ConfigurationError("extra cert must be a path, or the two paths of certificate and key.")


def _proxy(host: str, value: Any) -> str | None:
    if not value:
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        scheme = host.partition("://")[0].lower()
        chosen = value.get(scheme) or value.get("all")
        return str(chosen) if chosen else None
    raise ConfigurationError("extra proxies must map a scheme to a URL.")
