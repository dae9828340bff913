"""An env for tests that try many examples: its warehouse stays open in memory, its files lie in memory too.

Opening and closing a DuckDB file costs more than all that a step does; that it can be opened again is tested elsewhere.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from env import Env, open_env
from manifests import in_memory

from feedamp.lake.store import Lake
from feedamp.tables import TABLES
from feedamp.warehouse.duckdb import DuckDbEngine
from feedamp.warehouse.session import Session, SetAside, ignore
from feedamp.warehouse.structure import prepare
from feedamp.warehouse.views import VIEWS

_MEMORY = Path("/dev/shm")


class OpenWarehouse:
    """A DuckDB in memory with one session that never ends."""

    shown = "memory"
    lock_wait_s = 0.0

    def __init__(self, engine: DuckDbEngine) -> None:
        self._engine = engine
        with engine.transaction():
            prepare(engine, TABLES, VIEWS)
        self._session = Session(engine, TABLES)

    @contextmanager
    def session(self, *, wait_s: float | None = None) -> Iterator[Session]:
        yield self._session

    def rebuild(self, lake: Lake, set_aside: SetAside = ignore) -> int:
        return self._session.replace_all(lake, set_aside)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of a query; tables without schema name."""
        return self._engine._connection.execute(sql).fetchall()


@cache
def _warehouse() -> OpenWarehouse:
    return OpenWarehouse(in_memory())


@contextmanager
def folder_in_memory() -> Iterator[Path]:
    """A folder that no disk has to keep up with, where the machine has such a place."""
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        yield Path(folder)


@contextmanager
def open_quick_env(**options: Any) -> Iterator[Env]:
    """An env as `open_env` makes it, on the one warehouse of this process, emptied."""
    warehouse = _warehouse()
    with folder_in_memory() as folder, open_env(folder, **options) as env:
        warehouse.rebuild(Lake(str(folder / "nothing")))
        env.resources = replace(env.resources, warehouse=warehouse)
        env.rows = warehouse.query  # type: ignore[method-assign]
        yield env
