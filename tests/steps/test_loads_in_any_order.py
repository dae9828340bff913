"""Manifests and outbox rows loaded in any order, twice, and by loads that die half-way (promise 4)."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import sqlalchemy as sa
from env_fixtures import connect_seller, empty_warehouse, open_state
from exploring import examples
from histories import NUMBERS, Event, histories
from hypothesis import given
from hypothesis import strategies as st
from manifests import T0, Loader, published, stores
from order_samples import good_order

from crashes.clock import Clock
from feedamp.lake.manifest import Manifest, SellerProgress
from feedamp.lake.store import Lake
from feedamp.rules.order import LedgerOrder
from feedamp.run import Run
from feedamp.state import ledger, manifests, open_orders, outbox, schema, watermarks
from feedamp.steps.load import load
from feedamp.tables import ORDER_EVENTS, TABLES
from feedamp.warehouse.duckdb import DuckDbWarehouse

Tables = dict[str, list[str]]
# A load fills these from the state, not from the rows of the history.
OF_THE_STATE = {table.name for table in TABLES.values() if table.full_snapshot} | {ORDER_EVENTS.name}
# What happens to a manifest before the next one is published.
LOADED, WAITS, MERGED_AND_DIED, LOADED_TWICE = (
    "loaded, with all that waits",
    "waits for a later load",
    "merged with all that waits, then killed before the state was told",
    "loaded twice",
)


class Stores:
    """State, lake and warehouse of a seller whose orders are placed and open; no request is ever sent."""

    def __init__(self, folder: Path) -> None:
        shutil.copy(empty_warehouse(), folder / "warehouse.duckdb")
        self.state = open_state(folder, Clock())
        connect_seller(self.state, "S1")
        self.lake = Lake(str(folder / "lake"))
        self.warehouse = DuckDbWarehouse(str(folder / "warehouse.duckdb"), lock_wait_s=0.0)
        self.resources = stores(self.state, self.lake, warehouse=self.warehouse)
        self._runs = 0
        with self.state.begin() as connection:
            for number in NUMBERS:
                ledger.write(connection, _open_order(number))

    def publish(self, events: Sequence[Event]) -> Manifest:
        """A manifest whose sweep says how far it has read."""
        self._runs += 1
        read_at = max((event.read_at for event in events), default=None)
        sweeps = [SellerProgress(seller_id="S1", complete=True, watermark=read_at)] if read_at else []
        return published(self.lake, self._runs, *(event.rows for event in events), sweeps=sweeps)

    def announce(self, manifest: Manifest) -> None:
        with self.state.begin() as connection:
            manifests.announce(connection, manifest.path, now=self.state.now())

    def merge_and_die(self, waiting: Sequence[Manifest]) -> None:
        with self.warehouse.session() as session:
            if not session.load_together(self.lake, waiting):
                [alone] = waiting
                session.load(self.lake, alone)

    def load(self) -> None:
        load(self.resources, Run("feedamp_load", "r", self.state.now()))

    def tables(self) -> Tables:
        with closing(self._connected()) as connection:
            return {
                name: sorted(map(repr, connection.execute(f"FROM feedamp.{name}").fetchall()))
                for name in TABLES
            }

    def _connected(self) -> duckdb.DuckDBPyConnection:
        connection = duckdb.connect(str(self.warehouse.path), read_only=True)
        connection.execute("SET TimeZone = 'UTC'")
        return connection

    def stories(self) -> tuple[list[Any], list[Any]]:
        """The events of orders in the state, and those in the warehouse."""
        names = (*ORDER_EVENTS.key, "kind", "details", "occurred_at")
        query = sa.select(*(schema.order_events.c[name] for name in names))
        with self.state.read() as state, closing(self._connected()) as warehouse:
            ours = state.execute(query).all()
            theirs = warehouse.execute(f"SELECT {', '.join(names)} FROM feedamp.order_events").fetchall()
        return sorted(map(tuple, ours)), sorted(theirs)

    def held(self) -> dict[str, tuple[datetime, object]]:
        """The newest snapshots in the state."""
        with self.state.read() as connection:
            held = (open_orders.read(connection, "S1", number) for number in NUMBERS)
            return {found.mp_order_number: (found.read_at, found.snapshot) for found in held if found}

    def watermark(self) -> datetime | None:
        with self.state.read() as connection:
            return watermarks.read(connection, "S1")


def _open_order(number: str) -> LedgerOrder:
    body = good_order(mp_order_number=number)
    return LedgerOrder(
        seller_id="S1", mp_order_number=number, phase="settled", body=body, body_hash="", desired_state="PENDING",
        accepted_state="PENDING", delivered=(), purchase_date=T0, source="a.jsonl", source_row=1, row_hash="",
        taken_at=T0, first_put_at=T0, placed_at=T0,
    )  # fmt: skip


@contextmanager
def open_stores() -> Iterator[Stores]:
    with ExitStack() as stack:
        stores = Stores(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        stack.callback(stores.state.close)
        yield stores


def in_order_of_time(events: Sequence[Event]) -> Tables:
    with tempfile.TemporaryDirectory() as folder, closing(Loader(Path(folder))) as loader:
        loader.load(*(event.rows for event in events))
        return loader.tables()


@examples(6)
@given(data=st.data(), events=histories())
def test_state_warehouse_and_rebuild_tell_what_was_true_last(
    data: st.DataObject, events: list[Event]
) -> None:
    with open_stores() as stores:
        through_outbox = [
            e for e in events if e.shown is None and data.draw(st.booleans(), label="by the outbox")
        ]
        others = data.draw(st.permutations([e for e in events if e not in through_outbox]), label="rows")
        cuts = sorted(data.draw(st.lists(st.integers(0, len(others)), max_size=2), label="cuts"))
        pieces = [others[a:b] for a, b in zip([0, *cuts], [*cuts, len(others)], strict=True)]
        manifests = [stores.publish(piece) for piece in pieces]
        for event in through_outbox:
            with stores.state.begin() as connection:
                outbox.put_all(connection, event.rows, recorded_at=event.read_at)
        waiting: list[Manifest] = []
        for manifest in data.draw(st.permutations(manifests), label="in this order"):
            fate = data.draw(st.sampled_from([LOADED, WAITS, MERGED_AND_DIED, LOADED_TWICE]), label="fate")
            stores.announce(manifest)
            waiting.append(manifest)
            if fate == MERGED_AND_DIED:
                stores.merge_and_die(waiting)
            if fate in (WAITS, MERGED_AND_DIED):
                continue
            waiting.clear()
            stores.load()
            if fate == LOADED_TWICE:
                stores.announce(manifest)
                stores.load()
        stores.load()

        found, expected = stores.tables(), in_order_of_time(events)
        assert {t: found[t] for t in found if t not in OF_THE_STATE} == {
            t: expected[t] for t in expected if t not in OF_THE_STATE
        }
        ours, theirs = stores.stories()
        assert theirs == ours
        assert len(found["sellers"]) == 1
        newest = {e.number: (e.read_at, e.shown.snapshot()) for e in events if e.shown is not None}
        assert stores.held() == newest
        assert stores.watermark() == max((e.read_at for e in others), default=None)
        stores.warehouse.rebuild(stores.lake)
        assert stores.tables() == found
