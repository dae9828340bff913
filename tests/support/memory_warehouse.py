"""A warehouse that stays open, on DuckDB in memory if no other engine is named, and folders that lie in memory too.

Opening and closing one costs more than all that a step does; that it can be opened again is tested elsewhere.
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
from feedamp.warehouse.engine import Engine
from feedamp.warehouse.session import Session, SetAside, ignore
from feedamp.warehouse.structure import prepare
from feedamp.warehouse.views import VIEWS

_MEMORY = Path("/dev/shm")


class OpenWarehouse:
    """An engine with one session that never ends; `connection` is the driver's own, with the schema as its search path."""

    shown = "memory"
    lock_wait_s = 0.0
    is_there = True

    def __init__(self, engine: Engine, connection: Any) -> None:
        self.connection = connection
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

    def empty(self) -> None:
        """Takes every row out again."""
        self.rebuild(Lake("/nonexistent"))


@cache
def _only_one() -> OpenWarehouse:
    atexit.register(_only_one.cache_clear)  # DuckDB complains of what it finds open at the end of Python
    engine = in_memory()
    return OpenWarehouse(engine, engine._connection)


def emptied_warehouse() -> OpenWarehouse:
    """The one warehouse of this process in memory with nothing in it."""
    _only_one().empty()
    return _only_one()


@contextmanager
def folder_in_memory() -> Iterator[Path]:
    """A folder that no disk has to keep up with, where the machine has such a place."""
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        yield Path(folder)
