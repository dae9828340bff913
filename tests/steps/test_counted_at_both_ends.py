"""Rows lost between two stores are noticed, named, and read or written again; nothing counts as done before."""

from __future__ import annotations

import errno
import fcntl
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from decimal import Context, Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from env import OTHER, SELLER, Env, shipment
from fsspec.implementations.local import LocalFileSystem

from crashes.clock import NOON
from feedamp.errors import BusyError, IncompleteError, StoreAwayError
from feedamp.lake import flatten
from feedamp.lake.flatten import OrderColumns, order_columns
from feedamp.lake.manifest import Manifest
from feedamp.lake.store import Lake
from feedamp.lake.writer import LakeWriter
from feedamp.models import LineFulfillment, Order, ReadOrder, Shipment
from feedamp.run import Run
from feedamp.state import ledger, manifests, outbox, schema
from feedamp.steps.compact import compact
from feedamp.steps.extract_fulfillments import publisher
from feedamp.steps.load import load_what_is_whole
from feedamp.storage import Storage


class FullDisk(LocalFileSystem):
    """A store that accepts a limited number of files, then reports a full disk."""

    cachable = False

    def __init__(self, opens: int) -> None:
        super().__init__(auto_mkdir=False)
        self.left = opens

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:  # type: ignore[override]
        if mode == "wb":
            self.left -= 1
            if self.left < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
        return super().open(path, mode, **options)


def on_full_disk(env: Env, opens: int) -> None:
    root = env.resources.lake.root
    env.resources = replace(env.resources, lake=Lake(Storage("lake_url", root, FullDisk(opens), root)))


def waiting(env: Env) -> int:
    with env.state.read() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(schema.outbox)).scalar_one()


def waiting_manifests(env: Env) -> list[str]:
    """What the manifests that wait for the warehouse hold: an extraction, rows of the outbox, or full snapshots."""
    with env.state.read() as connection:
        paths = [path for path, _ in manifests.unloaded(connection)]
    return sorted(word for path in paths for word in ("extract", "outbox", "whole") if word in path)


def shipped(env: Env, *numbers: str, seller: str = SELLER) -> None:
    env.placed(*numbers, seller=seller)
    for number in numbers:
        env.fulfill(number, shipment(2), seller=seller)


def test_a_lake_that_cannot_be_written_moves_no_watermark_of_any_seller(env: Env) -> None:
    shipped(env, *(f"M-{n}" for n in range(3)))
    shipped(env, "N-1", seller=OTHER)
    env.load()
    lake = env.resources.lake
    on_full_disk(env, opens=2)
    with pytest.raises(IncompleteError, match="No space left on device"):
        env.extract()
    assert [m.path for m in lake.published() if "extract" in m.path] == []
    env.resources = replace(env.resources, lake=lake)
    env.load()
    assert (env.watermark(SELLER), env.watermark(OTHER)) == (None, None)
    env.read()
    env.process()
    assert {env.order(f"M-{n}").phase for n in range(3)} == {env.order("N-1", OTHER).phase} == {"closed"}


def break_order(monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    """The quantity of this order's shipment, of orders with one each, fits no column."""

    def with_fault(sellers: Sequence[str], read: Sequence[ReadOrder]) -> OrderColumns:
        found = order_columns(sellers, read)
        for at, number in enumerate(found.key["mp_order_number"]):
            if number == broken:
                quantities = list(found.tables["shipments"]["quantity"])
                quantities[at] = 2**70
                found.tables["shipments"]["quantity"] = quantities
        return found

    monkeypatch.setattr(publisher, "order_columns", with_fault)
    monkeypatch.setattr(flatten, "order_columns", with_fault)


Told = list[tuple[str, list[str], Mapping[int, str]]]


@pytest.fixture
def together(env: Env) -> publisher.ManifestPublisher:
    return publisher.ManifestPublisher(env.resources, Run("d", "r", env.clock.now()), "extract", 0)


def give(
    together: publisher.ManifestPublisher, told: Told, seller_id: str, *numbers: str, size: int = 0
) -> None:
    """Orders with a shipment each; `told` gets what the publisher says of them."""
    parts = (LineFulfillment("1", shipments=(Shipment(2),)),)
    read = [ReadOrder(Order(number, fulfillments=parts), NOON) for number in numbers]

    def tell(orders: Sequence[ReadOrder], misfits: Mapping[int, str]) -> None:
        told.append((seller_id, [one.order.mp_order_number for one in orders], misfits))

    together.take(seller_id, read, size, tell)


def keys_written(env: Env, table: str) -> list[list[tuple[str, str]]]:
    """Seller and number of the rows of a table, by manifest."""
    return [
        [(row["seller_id"], row["mp_order_number"]) for row in pq.read_table(path).to_pylist()]
        for path in (file_of(env, manifest, table) for manifest in env.resources.lake.published())
    ]


def test_of_orders_written_together_each_seller_hears_of_its_own(
    env: Env, together: publisher.ManifestPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "ORDERS_PER_MANIFEST", 2)
    break_order(monkeypatch, "M-1")
    told: Told = []
    give(together, told, OTHER, "N-1", "N-2")
    give(together, told, SELLER, "M-2", "M-1", "M-3")
    assert told == []
    together.publish()
    assert [one[:2] for one in told] == [(OTHER, ["N-1", "N-2"]), (SELLER, ["M-2", "M-1", "M-3"])]
    assert [list(misfits) for _, _, misfits in told] == [[], [1]]
    for table in ("orders", "shipments"):
        assert keys_written(env, table) == [
            [(OTHER, "N-1"), (OTHER, "N-2")],
            [(SELLER, "M-2")],
            [(SELLER, "M-3")],
        ]


def test_orders_of_large_pages_wait_for_no_others(together: publisher.ManifestPublisher) -> None:
    told: Told = []
    give(together, told, SELLER, "M-1", size=publisher.BYTES_AT_ONCE - 1)
    assert told == []
    give(together, told, SELLER, "M-2", size=1)
    assert len(told) == 2
    give(together, told, SELLER, "M-3", size=1)
    assert len(told) == 2


def test_orders_that_a_failure_kept_waiting_are_written_later(
    env: Env, together: publisher.ManifestPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> None:
        monkeypatch.undo()
        raise StoreAwayError("The state is away.")

    told: Told = []
    monkeypatch.setattr(publisher, "ORDERS_PER_MANIFEST", 2)
    monkeypatch.setattr(publisher, "ORDERS_AT_ONCE", 3)
    monkeypatch.setattr(manifests, "announce", away)
    give(together, told, OTHER, "N-1")
    with pytest.raises(StoreAwayError):
        give(together, told, SELLER, "M-1", "M-2")
    assert told == []
    together.publish()
    assert [one[:2] for one in told] == [(OTHER, ["N-1"]), (SELLER, ["M-1", "M-2"])]
    env.load()
    for table in ("orders", "order_lines", "shipments"):
        assert env.rows(f"SELECT mp_order_number FROM {table} ORDER BY 1") == [("M-1",), ("M-2",), ("N-1",)]


def test_a_value_that_no_column_holds_costs_its_own_order_only(
    env: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If such a value got into a file, the other rows of the file would be lost too."""

    shipped(env, "M-1", "M-2")
    shipped(env, "N-1", seller=OTHER)
    break_order(monkeypatch, "M-1")
    result = env.extract()
    monkeypatch.undo()
    env.load()
    assert (result.orders, result.orders_unread, result.failed_sellers) == (2, 1, {SELLER})
    [note] = result.notes
    assert "order M-1 cannot be read" in note
    assert "shipments.quantity cannot hold this int as integer" in note
    assert env.watermark(OTHER) is not None
    assert env.watermark(SELLER) is None
    env.process()
    assert (env.order("M-2").phase, env.order("N-1", OTHER).phase) == ("closed", "closed")


def test_an_order_read_by_its_number_that_does_not_fit_is_told_of(
    env: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped(env, "M-1")
    for _ in range(2):  # then the list no longer shows it
        env.read()
        env.clock.skip(hours=2)
    before = env.watermark()
    with env.state.begin() as connection:
        ledger.read_back_later(connection, SELLER, "M-1", now=env.state.now())
    break_order(monkeypatch, "M-1")
    result = env.extract()
    env.load()
    assert (result.orders, result.orders_unread, result.failed_sellers) == (0, 1, {SELLER})
    assert env.watermark() == before


def test_no_watermark_moves_over_an_earlier_manifest_that_is_not_whole(
    env: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "ORDERS_PER_MANIFEST", 2)
    shipped(env, *(f"M-{n}" for n in range(5)))
    env.load()
    env.extract()
    first, second, last = [m for m in env.resources.lake.published() if "extract" in m.path]
    assert (first.sweeps, second.sweeps, len(last.sweeps)) == ((), (), 2)
    assert last.follows == (first.path, second.path)
    damaged = Path(env.resources.lake.absolute(first.files[0].path))
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(IncompleteError, match=first.path):
        env.load()
    assert env.watermark() is None
    env.clock.skip(minutes=15)
    env.extract()
    with pytest.raises(IncompleteError, match=first.path):
        env.load()
    assert env.watermark() is not None
    env.process()
    assert {env.order(f"M-{n}").phase for n in range(5)} == {"closed"}


@pytest.mark.parametrize("table", ["orders", "shipments", "snapshots"])
@pytest.mark.parametrize("change", ["a row too few", "a row too many"])
def test_a_file_with_other_rows_than_its_manifest_names_is_not_loaded(
    env: Env, table: str, change: str
) -> None:
    shipped(env, "M-1", "M-2")
    env.load()
    env.extract()
    [manifest] = [m for m in env.resources.lake.published() if "extract" in m.path]
    path = file_of(env, manifest, table)
    rows = pq.read_table(path)
    pq.write_table(rows.slice(1) if change == "a row too few" else rows.take([0, 0, 1]), path)
    with pytest.raises(IncompleteError, match=rf"{table}.* holds {1 if 'few' in change else 3} rows?"):
        env.load()
    assert env.watermark() is None
    assert env.rows("SELECT count(*) FROM shipments") == [(0,)]
    pq.write_table(rows, path)
    env.load()
    assert env.rows("SELECT count(*) FROM shipments") == [(2,)]


def test_the_warehouse_refuses_a_manifest_of_which_it_took_in_fewer_rows(env: Env) -> None:
    """A rebuild reads no manifest beforehand."""
    shipped(env, "M-1", "M-2")
    env.load()
    before = env.rows("SELECT count(*) FROM placements")
    [manifest] = [found for found in env.resources.lake.published() if not found.full_snapshots]
    path = file_of(env, manifest, "placements")
    pq.write_table(pq.read_table(path).slice(1), path)
    with pytest.raises(IncompleteError, match="holds 1 row, but its manifest names 2"):
        env.resources.warehouse.rebuild(env.resources.lake)
    assert env.rows("SELECT count(*) FROM placements") == before == [(2,)]


def test_rows_of_the_outbox_that_their_manifest_lacks_are_written_again(env: Env) -> None:
    """As left behind by an earlier version that ended between publishing and loading."""
    env.placed("M-1", "M-2")
    path = "_manifests/date=2026-03-10/place_orders-outbox-0.json"
    now = env.state.now()
    with env.state.begin() as connection:
        outbox.claim(connection, path)
        manifests.announce(connection, path, now=now)
    env.resources.lake.publish(Manifest(path=path, created_at=now, dag_id="d", run_id="r"))
    assert waiting(env) > 2
    env.load()  # finds that the manifest lacks them, and writes them under another name
    assert waiting(env) == 0
    assert env.rows("SELECT count(*) FROM placements") == [(2,)]


def test_rows_that_get_lost_between_outbox_and_writer_stay_in_the_outbox(
    env: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    env.placed("M-1", "M-2")
    held = waiting(env)
    claimed_rows = outbox.claimed_rows
    monkeypatch.setattr(outbox, "claimed_rows", lambda *args: list(claimed_rows(*args))[1:])
    with pytest.raises(
        IncompleteError, match=f"{held} rows of the outbox were claimed, but {held - 1} were read"
    ):
        env.load()
    monkeypatch.undo()
    assert waiting(env) == held
    env.load()
    assert waiting(env) == 0
    assert env.rows("SELECT count(*) FROM placements") == [(2,)]


@pytest.mark.parametrize("rows", [0, 2], ids=["a row too few", "a row twice"])
def test_a_compaction_that_takes_over_other_rows_replaces_nothing(
    env: Env, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    for number in ("M-1", "M-2"):
        env.placed(number)
        env.load()
    before = list(env.resources.lake.manifests())
    copy = LakeWriter.copy

    def spoiled(writer: LakeWriter, table: str, batches: Iterator[pa.RecordBatch]) -> None:
        copy(writer, table, batches if table != "placements" else [b for b in batches for _ in range(rows)])

    monkeypatch.setattr(LakeWriter, "copy", spoiled)
    with pytest.raises(IncompleteError, match="other rows were taken over than theirs"):
        compacted(env)
    assert list(env.resources.lake.manifests()) == before
    monkeypatch.undo()
    assert compacted(env)["replaced"] == len(before) == 3  # one holds the sellers


def test_originals_stay_while_the_file_that_replaces_them_is_damaged(env: Env) -> None:
    for number in ("M-1", "M-2"):
        env.placed(number)
        env.load()
    compacted(env)
    [keeper] = [manifest for manifest in env.resources.lake.published() if manifest.replaces]
    path = file_of(env, keeper, "orders")
    path.write_bytes(path.read_bytes()[:-10])
    env.clock.skip(hours=72)
    with pytest.raises(IncompleteError, match=r"is damaged .* were not removed"):
        compacted(env)
    Path(env.resources.lake.absolute(keeper.path)).unlink()
    env.resources.warehouse.rebuild(env.resources.lake)
    assert env.rows("SELECT count(*) FROM orders") == [(2,)]


def test_an_undecodable_snapshot_in_the_lake_affects_only_its_own_order(env: Env) -> None:
    shipped(env, "M-1", "M-2")
    env.load()
    env.extract()
    [manifest] = [m for m in env.resources.lake.published() if "extract" in m.path]
    path = file_of(env, manifest, "snapshots")
    rows = pq.read_table(path)
    spoiled = [
        "not JSON" if number == "M-1" else text
        for number, text in zip(
            rows["mp_order_number"].to_pylist(), rows["snapshot"].to_pylist(), strict=True
        )
    ]
    at = rows.schema.get_field_index("snapshot")
    pq.write_table(rows.set_column(at, rows.schema.field(at), [spoiled]), path)
    env.load()
    env.process()
    assert (env.order("M-1").phase, env.order("M-2").phase) == ("settled", "closed")
    env.read()
    env.process()
    assert env.order("M-1").phase == "closed"


@pytest.mark.warehouse_file
def test_a_busy_warehouse_holds_up_neither_snapshots_nor_watermarks(env: Env) -> None:
    shipped(env, "M-1")
    env.load()
    with held(env):
        env.extract()
        loaded = load_what_is_whole(patient(env), env.run("load"))
        assert (waiting_manifests(env), loaded.problem) == (["extract", "outbox", "whole"], None)
        assert loaded.counts["waiting"] == 3
        assert "is being loaded by process" in str(loaded.busy)
        assert env.watermark() is not None
        env.process()
        assert env.order("M-1").phase == "closed"
        assert env.rows("SELECT count(*) FROM shipments") == [(0,)]
    assert env.load()["waiting"] == 0
    assert env.rows("SELECT count(*) FROM shipments") == [(1,)]
    env.load()
    assert env.rows("SELECT marketplace_state FROM orders") == [("SHIPPED",)]


@pytest.mark.warehouse_file
def test_a_busy_warehouse_is_a_problem_once_a_manifest_waited_too_long(env: Env) -> None:
    env.placed("M-1")
    with held(env):
        assert load_what_is_whole(patient(env), env.run("load")).problem is None
        env.clock.skip(seconds=121)
        loaded = load_what_is_whole(patient(env), env.run("load"))
        assert loaded.problem is not None
        assert waiting_manifests(env) == ["outbox", "whole"]
        assert "2 manifests have waited too long" in loaded.problem
        env.clock.skip(seconds=1)
        with pytest.raises(BusyError, match="is being loaded by process"):
            env.load()
    env.load()
    assert env.rows("SELECT count(*) FROM placements") == [(1,)]


@pytest.mark.warehouse_file
def test_what_waits_for_the_warehouse_waits_since_the_state_took_it(env: Env) -> None:
    """An extraction announces its first manifest long before the last seller is read."""
    shipped(env, "M-1")
    env.load()
    env.extract()
    env.clock.skip(minutes=20)
    with held(env):
        loaded = load_what_is_whole(patient(env), env.run("load"))
    assert loaded.busy is not None
    assert loaded.problem is None


@pytest.mark.warehouse_file
def test_a_manifest_that_vanishes_before_it_reached_the_warehouse_is_red(env: Env) -> None:
    shipped(env, "M-1")
    env.load()
    env.extract()
    with held(env):
        load_what_is_whole(patient(env), env.run("load"))
    [manifest] = [m for m in env.resources.lake.published() if "extract" in m.path]
    path = Path(env.resources.lake.absolute(manifest.path))
    content = path.read_bytes()
    path.unlink()
    for _ in range(2):
        with pytest.raises(IncompleteError, match="is no longer in the lake"):
            env.load()
    path.write_bytes(content)
    env.load()
    assert env.rows("SELECT count(*) FROM shipments") == [(1,)]


@pytest.mark.parametrize("amount", ["0E+20", "25.5" + "0" * 40, "1E+3"])
def test_a_price_that_an_earlier_version_left_in_the_outbox_is_loaded(env: Env, amount: str) -> None:
    env.placed("M-1")
    with env.state.begin() as connection:
        lines = schema.outbox.c.table_name == "order_lines"
        text = connection.execute(sa.select(schema.outbox.c.payload).where(lines)).scalar_one()
        payload = {**json.loads(text), "unit_price": amount}
        connection.execute(sa.update(schema.outbox).where(lines).values(payload=json.dumps(payload)))
    env.load()
    assert env.rows("SELECT unit_price FROM order_lines") == [
        (Decimal(amount).quantize(Decimal("0.0001"), context=Context(prec=60)),)
    ]


@pytest.mark.warehouse_file
def test_a_load_waits_ten_seconds_for_the_warehouse_in_all(env: Env) -> None:
    seconds = iter(range(1_000))
    waits: list[float] = []
    warehouse = env.resources.warehouse
    warehouse.lock_wait_s, warehouse._sleep = 120.0, waits.append  # type: ignore[attr-defined]
    warehouse._monotonic = lambda: float(next(seconds))  # type: ignore[attr-defined]
    env.placed("M-1")
    with held(env):
        assert load_what_is_whole(env.resources, env.run("load")).busy is not None
    assert 8 <= len(waits) <= 11


@contextmanager
def held(env: Env) -> Iterator[None]:
    """Another loader holds the warehouse."""
    with Path(f"{env.resources.warehouse.shown}.lock").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def patient(env: Env) -> Any:
    """Resources whose warehouse tolerates another holder for two minutes, and does not wait itself."""
    warehouse = env.resources.warehouse
    patient_one = type(warehouse)(
        warehouse.shown, lock_wait_s=120.0, sleep=lambda s: None, monotonic=_Ticks()
    )
    return replace(env.resources, warehouse=patient_one)


class _Ticks:
    """A clock that advances by five seconds at each reading."""

    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        self.s += 5.0
        return self.s


def file_of(env: Env, manifest: Manifest, table: str) -> Path:
    [path] = [file.path for file in manifest.files if file.table == table]
    return Path(env.resources.lake.absolute(path))


def compacted(env: Env) -> dict[str, int]:
    tomorrow = (env.clock.now() + timedelta(days=1)).date()
    return compact(env.resources, env.run("lake"), before=tomorrow)


def test_a_seller_without_own_orders_hides_none_of_the_next_in_a_manifest(env: Env) -> None:
    now = env.clock.now()
    with env.sandbox.world.lock:  # an order of another system
        env.sandbox.world.orders.add(SELLER, env.body("X-1"), now).seller_updated_at = now
    shipped(env, "M-1", seller=OTHER)
    env.extract()
    [manifest] = env.resources.lake.published()
    assert {sweep.seller_id for sweep in manifest.sweeps} == {SELLER, OTHER}
    assert env.load()["snapshots"] == 1
