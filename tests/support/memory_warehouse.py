"""A warehouse that stays open in memory, and folders that lie in memory too.

Opening and closing a DuckDB file costs more than all that a step does; that it can be opened again is tested elsewhere.
"""

from __future__ import annotations

import atexit
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from manifests import in_memory

from feedamp.errors import BusyError
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
    is_there = True

    def __init__(self, engine: DuckDbEngine) -> None:
        self._engine = engine
        with engine.transaction():
            prepare(engine, TABLES, VIEWS)
        self._session = Session(engine, TABLES)
        self._is_open = False

    @contextmanager
    def session(self, *, wait_s: float | None = None) -> Iterator[Session]:
        """As of a file, one at a time."""
        if self._is_open:
            raise BusyError("Another session of this process is open.")
        self._is_open = True
        try:
            yield self._session
        finally:
            self._is_open = False

    def rebuild(self, lake: Lake, set_aside: SetAside = ignore) -> int:
        return self._session.replace_all(lake, set_aside)

    @property
    def connection(self) -> Any:
        """DuckDB's own, with the schema as its search path."""
        return self._engine._connection


@cache
def _only_one() -> OpenWarehouse:
    atexit.register(_only_one.cache_clear)  # DuckDB complains of what it finds open at the end of Python
    return OpenWarehouse(in_memory())


def emptied_warehouse(folder: Path) -> OpenWarehouse:
    """The one warehouse of this process with nothing in it; `folder` may not hold a lake yet."""
    _only_one().rebuild(Lake(str(folder / "nothing")))
    return _only_one()


@contextmanager
def folder_in_memory() -> Iterator[Path]:
    """A folder that no disk has to keep up with, where the machine has such a place."""
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        yield Path(folder)
