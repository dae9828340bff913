"""What holds for every warehouse: a row that it cannot hold costs itself, and values of any length cost no memory."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from manifests import Loader, finding, order, snapshot

from feedamp.errors import IncompleteError, MisfitError
from feedamp.rules.erased import Erased, mark_of
from feedamp.tables import LAKE_TABLES, TABLES, Rows, Table
from feedamp.warehouse import Warehouse, refused_rows
from feedamp.warehouse.refused_rows import BoundedFiles, RefusedRow
from feedamp.warehouse.session import Session

NO_JSON = "{no JSON"


def orders(count: int, **changes: Any) -> Rows:
    """Orders M-0, M-1, … with a line each, every other one shipped; `changes` of a row by its table and place, as `orders_3={…}`."""
    rows: Rows = {}
    for number in range(count):
        name = f"M-{number}"
        shown = order(*([3] if number % 2 else []), mp_order_number=name)
        for table, some in snapshot(shown, 1).items():
            changed = changes.get(f"{table}_{number}", {})
            rows.setdefault(table, []).extend({**row, **changed} for row in some)
    return rows


def load(loader: Loader, rows: Rows) -> list[RefusedRow]:
    refused: list[RefusedRow] = []
    assert loader.session.load(loader.lake, loader.publish(rows), refused.extend)
    return refused


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        pytest.param({"orders_0": {"extra": NO_JSON}}, [("orders", 0, "extra")], id="the first row"),
        pytest.param({"orders_8": {"extra": NO_JSON}}, [("orders", 8, "extra")], id="the last row"),
        pytest.param(
            {"orders_2": {"extra": NO_JSON}, "orders_3": {"extra": NO_JSON}},
            [("orders", 2, "extra"), ("orders", 3, "extra")],
            id="two rows side by side",
        ),
        pytest.param({"order_lines_4": {"extra": NO_JSON}}, [("orders", 4, "")], id="a line costs its order"),
    ],
)
def test_a_row_that_is_refused_costs_itself(loader: Loader, rows: Any, found: Any) -> None:
    refused = load(loader, orders(9, **rows))
    assert [(row.table, row.place, row.column) for row in refused] == found
    lost = {f"M-{place}" for _, place, _ in found}
    for table in ("orders", "order_lines", "shipments"):
        there = {number for (number,) in loader.query(f"SELECT mp_order_number FROM {table}")}
        numbers = range(1, 9, 2) if table == "shipments" else range(9)
        assert there == {f"M-{number}" for number in numbers} - lost


def test_a_refused_row_of_another_table_costs_no_order(loader: Loader) -> None:
    rows = orders(2)
    rejected = {"source": "a", "row_number": 1, "row_hash": "h", "reasons": NO_JSON}
    rows["rejected_orders"] = [{**rejected, "recorded_at": finding(1, "held")["findings"][0]["recorded_at"]}]
    assert [row.table for row in load(loader, rows)] == ["rejected_orders"]
    assert loader.query("SELECT count(*) FROM orders") == [(2,)]


def test_an_older_row_stays_where_a_newer_one_is_refused(loader: Loader) -> None:
    loader.load(snapshot(order(1), 1))
    assert load(loader, {name: _spoilt(rows) for name, rows in snapshot(order(2), 2).items()})
    assert loader.query("SELECT quantity FROM shipments") == [(1,)]


def test_rows_are_set_aside_before_the_others_are_merged(loader: Loader) -> None:
    # Killed in between, the next load finds the manifest merged and would record nothing.
    def die(_: Any) -> None:
        raise KeyboardInterrupt

    manifest = loader.publish(orders(3, orders_1={"extra": NO_JSON}))
    with pytest.raises(KeyboardInterrupt):
        loader.session.load(loader.lake, manifest, die)
    assert loader.query("SELECT count(*) FROM orders") == [(0,)]


@pytest.mark.parametrize("work", [Session.load, Session.replace_all])
def test_what_is_erased_meanwhile_costs_no_other_row(loader: Loader, work: Callable[..., Any]) -> None:
    manifest = loader.publish(orders(5, orders_3={"extra": NO_JSON}))

    def erase_one(_: Any) -> None:
        loader.lake.erased = lambda: Erased((mark_of(str, "S1", "M-1"),), str)

    which = [manifest] if work is Session.load else []
    work(loader.session, loader.lake, *which, erase_one)
    there = {number for (number,) in loader.query("SELECT mp_order_number FROM orders")}
    assert there == {"M-0", "M-1", "M-2", "M-4"}  # its erasure waits for the warehouse, and finds M-1


def test_a_warehouse_that_refuses_too_many_rows_gets_none(loader: Loader, monkeypatch: Any) -> None:
    monkeypatch.setattr(refused_rows, "MOST_REFUSED", 2)
    manifest = loader.publish(orders(4, **{f"orders_{at}": {"extra": NO_JSON} for at in range(4)}))
    with pytest.raises(MisfitError, match="more than 2 of its rows"):
        loader.session.load(loader.lake, manifest)
    assert loader.query("SELECT count(*) FROM orders") == [(0,)]


def test_what_ends_the_reading_of_rows_is_not_hidden(loader: Loader) -> None:
    def batches() -> Iterator[pa.RecordBatch]:
        yield from ()
        raise MisfitError("the seventh row")

    reader = pa.RecordBatchReader.from_batches(TABLES["orders"].lake_schema, batches())
    with pytest.raises(Exception, match="the seventh row"), loader.engine.transaction():
        loader.engine.stage("staged_orders", TABLES["orders"], reader)


def test_a_damaged_file_sets_no_row_aside(loader: Loader) -> None:
    manifest = loader.publish(orders(3, orders_1={"extra": NO_JSON}))
    path = next(file.path for file in manifest.files if file.table == "order_lines")
    Path(loader.lake.absolute(path)).unlink()
    with pytest.raises(IncompleteError, match="is missing"):
        loader.session.load(loader.lake, manifest, lambda rows: pytest.fail(f"{rows} were set aside"))


def test_values_that_are_too_long_are_left_in_the_lake(
    loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refused_rows, "MOST_BYTES_OF_A_VALUE", 80)
    rows = orders(2, orders_1={"extra": json.dumps({"a": "x" * 90}), "delivery_notes": "y" * 90})
    manifest = loader.publish(rows)
    table = LAKE_TABLES["orders"]
    read = pa.Table.from_batches(BoundedFiles(loader.lake, manifest).batches(table))
    assert read.column("delivery_notes").to_pylist() == [None, f"{'y' * 90}… (90 bytes, whole in the lake)"]
    assert json.loads(read.column("extra").to_pylist()[1]) == {"left_out": "99 bytes, whole in the lake"}
    assert read.column("mp_order_number").to_pylist() == ["M-0", "M-1"]


def test_a_group_with_a_row_or_file_at_fault_is_merged_one_by_one(loader: Loader) -> None:
    spoilt = loader.publish(orders(3, orders_1={"extra": NO_JSON}))
    others = [loader.publish(snapshot(order(1, mp_order_number=f"N-{at}"), 3)) for at in range(2)]
    refused: list[RefusedRow] = []
    assert not loader.session.load_together(loader.lake, [others[0], spoilt])
    assert loader.query("SELECT count(*) FROM orders") == [(0,)]
    loader.session.load_all(loader.lake, refused.extend)
    assert [(row.manifest, row.place) for row in refused] == [(spoilt.path, 1)]
    assert loader.query("SELECT count(*) FROM orders") == [(4,)]

    for lost in (spoilt.path, others[1].files[0].path):
        Path(loader.lake.absolute(lost)).unlink()
    for read_all in (loader.session.load_all, loader.session.replace_all):
        loader.empty()
        with pytest.raises(IncompleteError, match=f"Manifest {others[1].path} .* is missing"):
            read_all(loader.lake)
    assert loader.query("SELECT count(*) FROM orders") == [(0,)]


@pytest.mark.parametrize("table", ["orders", "rejected_orders"])
def test_a_rebuild_names_the_damaged_file_beside_a_refused_row(loader: Loader, table: str) -> None:
    loader.load(snapshot(order(1, mp_order_number="before"), 1))
    rejected = {"source": "a", "row_number": 1, "row_hash": "h", "reasons": NO_JSON}
    recorded_at = finding(1, "held")["findings"][0]["recorded_at"]
    spoilt = {"rejected_orders": [{**rejected, "recorded_at": recorded_at}]}
    loader.publish(spoilt if table == "rejected_orders" else orders(3, orders_1={"extra": NO_JSON}))
    damaged = loader.publish(snapshot(order(1, mp_order_number="N-1"), 3))
    path = next(file.path for file in damaged.files if file.table == "orders")
    Path(loader.lake.absolute(path)).unlink()
    with pytest.raises(IncompleteError, match=f"{path} is missing"):
        loader.session.replace_all(loader.lake, lambda rows: pytest.fail(f"{rows} were set aside"))
    assert loader.query("SELECT mp_order_number FROM orders") == [("before",)]


def test_a_group_that_is_merged_counts_as_loaded(loader: Loader) -> None:
    group = [loader.publish(snapshot(order(1, mp_order_number=f"N-{at}"), 3)) for at in range(2)]
    assert loader.session.load_together(loader.lake, group)
    assert [loader.session.load(loader.lake, manifest) for manifest in group] == [False, False]
    assert loader.session.load_together(loader.lake, group)
    assert loader.query("SELECT count(*) FROM orders") == [(2,)]


def _spoilt(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, "extra": NO_JSON} if "sku" in row else row for row in rows]


def test_a_rebuild_sets_rows_aside_as_a_load_does(
    tmp_path: Path, open_warehouse: Callable[[Mapping[str, Table]], Warehouse]
) -> None:
    with closing(Loader(tmp_path)) as loader:  # only to publish
        loader.publish(orders(3, orders_1={"extra": NO_JSON}))
        loader.publish(snapshot(order(1, mp_order_number="M-9"), 3))
    warehouse, refused = open_warehouse(TABLES), []
    assert warehouse.rebuild(loader.lake, refused.extend) == 2
    with warehouse.session() as session:
        kept = {row["mp_order_number"] for row in session.row_keys("orders", "S1", (), 10)}
    assert ([row.place for row in refused], kept) == ([1], {"M-0", "M-2", "M-9"})


def test_a_key_that_no_index_can_hold_costs_its_order_at_most(loader: Loader) -> None:
    # Random, because Postgres compresses what it can.
    long = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=9_000))
    rows: list[Rows] = [snapshot(order(1, mp_order_number=number), 1) for number in ("M-1", long, "M-2")]
    refused: list[RefusedRow] = []
    loader.session.load(loader.lake, loader.publish(*rows), refused.extend)
    there = {number for (number,) in loader.query("SELECT mp_order_number FROM orders")}
    assert there | {row.row["mp_order_number"] for row in refused} == {"M-1", "M-2", long}
    assert there >= {"M-1", "M-2"}
