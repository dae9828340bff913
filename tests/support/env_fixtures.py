"""What every env has: a state database and a warehouse made ready."""

from __future__ import annotations

import shutil
import tempfile
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import compiled_sql  # noqa: F401 - states share it
import sqlalchemy as sa
from cryptography.fernet import Fernet

from crashes.clock import Clock
from feedamp.state import State, grants, sellers
from feedamp.state.token_cipher import TokenCipher
from feedamp.warehouse.duckdb import DuckDbWarehouse

SELLER = "seller-001"
OTHER = "seller-002"


@cache
def empty_state() -> Path:
    """A migrated SQLite file to copy: a test needs it in a millisecond."""
    folder = Path(tempfile.mkdtemp(prefix="feedamp-tests-"))
    path = folder / "state.db"
    State(f"sqlite:///{path}").close()  # the last connection writes everything into the one file
    return path


@cache
def empty_warehouse() -> Path:
    """A DuckDB file with its tables, to copy."""
    path = empty_state().with_name("warehouse.duckdb")
    with DuckDbWarehouse(str(path)).session():
        pass
    return path


def open_state(folder: Path, clock: Clock | None = None, url: str = "") -> State:
    """A fresh state database in `folder`, or the one that is named."""
    if url:
        return State(url, clock=clock.now if clock else None)
    path = folder / "state.db"
    shutil.copy(empty_state(), path)
    return open_file(path, clock)


def open_file(path: Path, clock: Clock | None) -> State:
    """A state that is there; no commit waits for the disk."""
    state = State(f"sqlite:///{path}", clock=clock.now if clock else None)

    @sa.event.listens_for(state.engine, "connect")
    def _survive_no_power_cut(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA synchronous=OFF")

    state.engine.dispose()
    return state


def connect_seller(state: State, seller_id: str) -> None:
    """The seller's account was accepted long before anything is read from it; the token is never sent."""
    accepted_at = datetime(2020, 1, 1, tzinfo=UTC)
    cipher = TokenCipher(Fernet.generate_key().decode())
    with state.begin() as connection:
        sellers.add(connection, seller_id, conn_id="feedamp", now=accepted_at)
        grants.put_grant(connection, cipher, seller_id, "feedamp", "rt-0", now=accepted_at)
