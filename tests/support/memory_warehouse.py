"""A warehouse that stays open, on DuckDB in memory if no other engine is named, and folders that lie in memory too.

Opening and closing one costs more than all that a step does; that it can be opened again is tested elsewhere. In a
patient one, manifests are merged only when the warehouse is looked at: most tests of a step never do.
"""

from __future__ import annotations

import atexit
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from manifests import in_memory

from feedamp.errors import BusyError
from feedamp.lake.manifest import Manifest
from feedamp.lake.store import Lake
from feedamp.tables import SCHEMA, TABLES, Row, Table
from feedamp.warehouse.engine import META, Engine
from feedamp.warehouse.session import Session, SetAside, ignore
from feedamp.warehouse.structure import prepare
from feedamp.warehouse.views import VIEWS

_MEMORY = Path("/dev/shm")


class PatientSession(Session):
    """Merges when the engine is used for anything else, unless told to merge at once; an error is raised then.

    What waits is merged as one, as if it had been compacted, because a merge of few rows costs as much as of many; one by
    one only if that fails.
    """

    def __init__(self, engine: Engine, tables: Mapping[str, Table]) -> None:
        self._waiting: list[tuple[Lake, Manifest, SetAside]] = []
        self.is_patient, self.is_empty = True, False
        super().__init__(engine, tables)

    @property
    def _engine(self) -> Engine:
        self.is_empty = False
        if len(self._waiting) > 1:
            waiting, self._waiting = self._waiting, []
            [lake] = {lake.root: lake for lake, _, _ in waiting}.values()
            once = {manifest.path: manifest for _, manifest, _ in waiting}
            if not super().load_together(lake, list(once.values())):
                self._waiting = waiting
        while self._waiting:
            super().load(*self._waiting.pop(0))
        return self._used

    @_engine.setter
    def _engine(self, engine: Engine) -> None:
        self._used = engine

    def load(self, lake: Lake, manifest: Manifest, set_aside: SetAside = ignore) -> bool:
        if not self.is_patient:
            return super().load(lake, manifest, set_aside)
        self._waiting.append((lake, manifest, set_aside))
        return True

    def load_together(self, lake: Lake, manifests: Sequence[Manifest]) -> bool:
        return not self.is_patient and super().load_together(lake, manifests)

    def scorecards(self, columns: Sequence[str], now: datetime) -> list[Row]:
        return [] if self.is_patient else super().scorecards(columns, now)

    def empty(self) -> None:
        """Takes every row out again, if any was put in."""
        self._waiting.clear()
        if not self.is_empty:
            self.replace_all(Lake("/nonexistent"))
            self.is_empty = True


class OpenWarehouse:
    """An engine with one session that never ends; `connection` is the driver's own, with the schema as its search path."""

    shown = "memory"
    lineage_name = "duckdb://memory", "memory"
    lock_wait_s = 0.0
    is_there = True

    def __init__(self, engine: Engine, connection: Any, *, is_patient: bool = False) -> None:
        self._connection = connection
        with engine.transaction():
            prepare(engine, TABLES, VIEWS)
        self._session = (PatientSession if is_patient else Session)(engine, TABLES)
        self._is_open = False

    @property
    def connection(self) -> Any:
        assert self._session._engine  # what waits is merged
        return self._connection

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

    def erase(self, seller_id: str, mp_order_number: str | None = None) -> dict[str, int]:
        return self._session.erase(seller_id, mp_order_number)

    def left_by_erasing(self) -> str:
        return ""

    @property
    def is_patient(self) -> bool:
        """Whether it merges only when it is looked at."""
        return isinstance(self._session, PatientSession) and self._session.is_patient

    @is_patient.setter
    def is_patient(self, value: bool) -> None:
        if isinstance(self._session, PatientSession):
            self._session.is_patient = value

    def keep(self, name: str) -> None:
        """Keeps a copy of every row under a name, for `bring_back`; what waits is merged before."""
        engine = self._session._engine
        with engine.transaction():
            engine.execute(f"CREATE SCHEMA {name}")
            for relation in _filled():
                engine.execute(
                    f"CREATE TABLE {name}.{relation.rpartition('.')[2]} AS SELECT * FROM {relation}"
                )

    def bring_back(self, name: str) -> None:
        """Puts back every row that was kept, and no other."""
        self.empty()
        engine = self._session._engine
        with engine.transaction():
            for relation in _filled():
                engine.execute(f"INSERT INTO {relation} SELECT * FROM {name}.{relation.rpartition('.')[2]}")

    def empty(self) -> None:
        """Takes every row out again."""
        if isinstance(self._session, PatientSession):
            self._session.empty()
        else:
            self.rebuild(Lake("/nonexistent"))


def _filled() -> Iterator[str]:
    """The relations that a session fills."""
    yield from (f"{SCHEMA}.{name}" for name in TABLES)
    for name in ("loaded_manifests", "unshown_states", "full_snapshots", "first_reports"):
        yield f"{META}.{name}"


@cache
def _only_one() -> OpenWarehouse:
    atexit.register(_only_one.cache_clear)  # DuckDB complains of what it finds open at the end of Python
    engine = in_memory(for_few_rows=True)
    return OpenWarehouse(engine, engine._connection, is_patient=True)


def emptied_warehouse(*, is_patient: bool = True) -> OpenWarehouse:
    """The one warehouse of this process in memory with nothing in it."""
    warehouse = _only_one()
    warehouse.empty()
    if isinstance(warehouse._session, PatientSession):
        warehouse._session.is_patient = is_patient
    return warehouse


@contextmanager
def folder_in_memory() -> Iterator[Path]:
    """A folder that no disk has to keep up with, where the machine has such a place."""
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        yield Path(folder)
