"""Where a Postgres warehouse is, and what of its driver's errors may be shown."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from adbc_driver_manager import dbapi

from feedamp.errors import ConfigurationError, FeedAmpError, TransientError

_ABOUT_VALUES = ("21", "22", "23")  # SQLSTATE classes whose messages quote rows
_PRIMARY: tuple[Any, ...] = (
    "PG_DIAG_MESSAGE_PRIMARY",
    b"PG_DIAG_MESSAGE_PRIMARY",
)  # declared the one, given the other
_PASSING = ("starting up", "shutting down", "too many", "remaining connection slots", "recovery")
_TRANSIENT = ("08", "40", "53", "55", "57", "58")


@dataclass(frozen=True)
class PostgresAddress:
    """Where the server is and who asks; `options` are libpq's, `sslmode` for one."""

    host: str
    port: int
    database: str
    user: str
    password: str = field(repr=False)
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def shown(self) -> str:
        """What may stand in a message."""
        return f"Postgres {self.host}:{self.port}/{self.database}"

    @property
    def conninfo(self) -> str:
        """For libpq; holds the password."""
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


def said_plainly(address: PostgresAddress, error: dbapi.Error) -> FeedAmpError:
    """The driver's error as one of ours, without statement, rows and password."""
    where, state = address.shown, error.sqlstate or ""
    said: Any = next((text for key, text in error.details or () if key in _PRIMARY), b"")
    reason = bytes(said).decode(errors="replace")
    if not state:
        return _unreachable(where, str(error), address.password)
    if state.startswith(_TRANSIENT):
        return TransientError(f"{where} broke off ({state}): {reason}", retry_after_s=60)
    if state.startswith(_ABOUT_VALUES):
        return FeedAmpError(f"{where} cannot take a value (SQLSTATE {state}); nothing was changed.")
    return ConfigurationError(f"{where} refuses a statement (SQLSTATE {state}): {reason}")


def _unreachable(where: str, text: str, password: str) -> FeedAmpError:
    """A connection that did not come about, or ended; libpq's words of the first, if they hold no password."""
    lines = text.strip().splitlines()
    if "Failed to connect" not in text or (password and password in text):
        return TransientError(f"{where} broke off the connection.", retry_after_s=60)
    reason = lines[-1].rpartition("failed: ")[2].strip()
    if reason.startswith("FATAL") and not any(word in reason for word in _PASSING):
        return ConfigurationError(f"{where} refuses the connection: {reason.removeprefix('FATAL:').strip()}.")
    return TransientError(f"{where} cannot be reached: {reason}.", retry_after_s=60)
