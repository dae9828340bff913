"""The address of a Postgres warehouse, and driver errors made safe to log."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from adbc_driver_manager import dbapi

from feedamp.errors import ConfigurationError, FeedAmpError, MisfitError, StoreAwayError, TransientError

# SQLSTATE classes of values that cannot be stored, whose messages quote rows; 54 is a key that an index cannot hold.
_ABOUT_VALUES = ("21", "22", "23", "54")
# Declared as text, delivered as bytes.
_PRIMARY: tuple[Any, ...] = ("PG_DIAG_MESSAGE_PRIMARY", b"PG_DIAG_MESSAGE_PRIMARY")
_PASSING = ("starting up", "shutting down", "too many", "remaining connection slots", "recovery")
_TRANSIENT = ("08", "40", "53", "55", "57", "58")
_AWAY = ("08", "57P")  # the connection broke, or the server is shutting down or starting up


@dataclass(frozen=True)
class PostgresAddress:
    """Server, database and user; `options` are libpq's, for example `sslmode`."""

    host: str
    port: int
    database: str
    user: str
    password: str = field(repr=False)
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def shown(self) -> str:
        """Server and database, without secrets, for messages."""
        return f"Postgres {self.host}:{self.port}/{self.database}"

    @property
    def conninfo(self) -> str:
        """The libpq connection string; contains the password."""
        words = {
            "application_name": f"feedamp process {os.getpid()} on {socket.gethostname()}",
            "connect_timeout": "10",
            **self.options,
            "host": self.host,
            "port": str(self.port),
            "dbname": self.database,
            "user": self.user,
            "password": self.password,
        }
        quoted = {k: v.replace("\\", "\\\\").replace("'", "\\'") for k, v in words.items() if v}
        return " ".join(f"{name}='{value}'" for name, value in quoted.items())


def safe_error(address: PostgresAddress, error: dbapi.Error) -> FeedAmpError:
    """The driver's error as a `FeedAmpError`, without statement, rows and password."""
    where, state = address.shown, error.sqlstate or ""
    said: Any = next((text for key, text in error.details or () if key in _PRIMARY), b"")
    reason = bytes(said).decode(errors="replace")
    if not state and isinstance(error, dbapi.DataError):  # the driver could not write a value for the server
        return MisfitError(f"{where} cannot take a value; nothing was changed.")
    if not state:
        return _unreachable(where, str(error), address.password)
    if state.startswith(_TRANSIENT):
        kind = StoreAwayError if state.startswith(_AWAY) else TransientError
        return kind(f"{where} could not complete a statement ({state}): {reason}", retry_after_s=60)
    if state.startswith(_ABOUT_VALUES):
        return MisfitError(f"{where} cannot take a value (SQLSTATE {state}); nothing was changed.")
    return ConfigurationError(f"{where} refuses a statement (SQLSTATE {state}): {reason}")


def _unreachable(where: str, text: str, password: str) -> FeedAmpError:
    """The error of a failed or lost connection; quotes libpq's message of a failed one, unless it contains the password."""
    lines = text.strip().splitlines()
    if "Failed to connect" not in text or (password and password in text):
        return StoreAwayError(f"{where} closed the connection.", retry_after_s=60)
    reason = lines[-1].rpartition("failed: ")[2].strip()
    if reason.startswith("FATAL") and not any(word in reason for word in _PASSING):
        return ConfigurationError(f"{where} refuses the connection: {reason.removeprefix('FATAL:').strip()}.")
    return StoreAwayError(f"{where} cannot be reached: {reason}.", retry_after_s=60)
