"""Of an order that shows nothing new only the moments are written, and no row that other code made is taken for one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from exploring import examples
from hypothesis import given
from hypothesis import strategies as st
from manifests import Loader, at, closure, order, placement, snapshot
from memory_warehouse import folder_in_memory

from feedamp.errors import IncompleteError
from feedamp.lake.manifest import Manifest
from feedamp.tables import MADE_BY, ORDERS, SHIPMENTS, SNAPSHOTS, TABLES, Rows
from feedamp.warehouse.engine import META
from feedamp.warehouse.structure import prepare
from feedamp.warehouse.views import VIEWS

MOMENTS = "SELECT extracted_at AS moment FROM orders" + "".join(
    f" UNION SELECT recorded_at FROM {table}" for table in (ORDERS.name, "order_lines", SHIPMENTS.name)
)
OURS, OTHER = "ours", "other"
# Equal orders of which other code makes other rows.
SHOWN = (order(1), order(1, 1, status="COMPLETE"))


def made(rows: Rows, by: str | None, number: str = "M-1", seller: str = "S1") -> Rows:
    """The rows as some code makes them: a column of each table says which, and the snapshot's hash does not."""
    column = {ORDERS.name: "currency", SHIPMENTS.name: "carrier", "order_lines": "sku"}
    return {
        table: [
            row
            | {"seller_id": seller, "mp_order_number": number}
            | ({column[table]: by} if table in column else {})
            | ({MADE_BY: by} if table == ORDERS.name else {})
            for row in some
        ]
        for table, some in rows.items()
        if table != SNAPSHOTS.name
    }


def without_parts(loader: Loader, manifest: Manifest) -> Manifest:
    """A manifest of which only the file of `orders` can be read."""
    for file in manifest.files:
        if file.table != ORDERS.name:
            Path(loader.lake.absolute(file.path)).unlink()
    return manifest


def test_nothing_but_the_moments_is_read_and_written_of_an_unchanged_order(loader: Loader) -> None:
    loader.load(snapshot(order(1), 1))
    loader.session.load(loader.lake, without_parts(loader, loader.publish(snapshot(order(1), 2))))
    loader.load(snapshot(order(1), 1.5))
    assert loader.query(MOMENTS) == [(at(2),)]
    assert loader.query(f"SELECT reported_at FROM {META}.first_reports") == [(at(1),)]


def test_what_was_decided_on_an_unchanged_order_comes_with_it(loader: Loader) -> None:
    loader.load(snapshot(order(1), 1))
    loader.load(snapshot(order(1), 2) | closure(3))
    assert loader.query("SELECT extracted_at, closed_at FROM orders") == [(at(2), at(3))]


@pytest.mark.parametrize(
    ("first", "then"),
    [
        pytest.param(made(snapshot(order(1), 1), OURS), made(snapshot(order(1), 2), OTHER), id="other code"),
        pytest.param(made(snapshot(order(1), 1), None), made(snapshot(order(1), 2), None), id="unknown code"),
        pytest.param(snapshot(order(1), 1), snapshot(order(2), 2), id="another snapshot"),
        pytest.param(snapshot(order(1), 1), snapshot(order(1), 1), id="the same snapshot again"),
        pytest.param(
            snapshot(order(1), 1) | closure(1.5), snapshot(order(1), 2), id="a state decided meanwhile"
        ),
    ],
)
def test_the_rows_of_any_other_order_are_read(loader: Loader, first: Rows, then: Rows) -> None:
    loader.load(first)
    broken = without_parts(loader, loader.publish(then))
    with pytest.raises(IncompleteError, match="is missing"):
        loader.session.load(loader.lake, broken)


def test_rows_that_an_earlier_build_loaded_are_taken_for_no_others(loader: Loader) -> None:
    loader.load(made(snapshot(order(1), 1), OURS))
    with loader.engine.transaction():
        loader.engine.execute(f"DROP TABLE {META}.{MADE_BY}")
        prepare(loader.engine, TABLES, VIEWS)
    for hour in (2, 3):
        broken = without_parts(loader, loader.publish(made(snapshot(order(1), hour), OURS)))
        if hour == 2:
            with pytest.raises(IncompleteError, match="is missing"):
                loader.session.load(loader.lake, broken)
            loader.load(made(snapshot(order(1), 2), OURS))
        else:
            loader.session.load(loader.lake, broken)
    assert loader.query(MOMENTS) == [(at(3),)]


def test_unchanged_orders_beside_changed_ones_keep_their_rows(loader: Loader) -> None:
    def read(hour: float, shipped: Sequence[int]) -> list[Rows]:
        return [
            made(snapshot(order(units, mp_order_number=f"M-{at}"), hour), OURS, f"M-{at}")
            for at, units in enumerate(shipped)
        ]

    loader.session.load(loader.lake, loader.publish(*read(1, [1, 1, 1])))
    loader.session.load(loader.lake, loader.publish(*read(2, [1, 2, 1, 3])))
    merged = loader.tables()
    loader.empty()
    loader.session.load(loader.lake, loader.publish(*read(2, [1, 2, 1, 3])))
    assert loader.tables() == merged
    assert len(merged[SHIPMENTS.name]) == 4


def test_rows_that_moved_on_are_of_the_code_of_their_newest_snapshot(loader: Loader) -> None:
    older = made(snapshot(order(1), 1), OURS, "M-2")
    loader.load(made(snapshot(order(1), 1), OURS))
    loader.session.load(loader.lake, loader.publish(older, made(snapshot(order(1), 2), OURS)))
    broken = without_parts(loader, loader.publish(made(snapshot(order(1), 3), OTHER)))
    with pytest.raises(IncompleteError, match="is missing"):
        loader.session.load(loader.lake, broken)


@pytest.mark.parametrize("hours", [(2, 3), (3, 2)], ids=["the newer last", "the newer first"])
def test_of_an_order_that_is_twice_in_a_manifest_the_newer_counts(
    loader: Loader, hours: tuple[int, int]
) -> None:
    loader.load(snapshot(order(1), 1))
    loader.session.load(loader.lake, loader.publish(*(snapshot(order(1), hour) for hour in hours)))
    assert loader.query(MOMENTS) == [(at(3),)]


def test_orders_of_two_sellers_with_one_number_keep_their_own_rows(loader: Loader) -> None:
    turns = ((1, "S2"), (2, "S1"), (3, "S1"))
    first, second, third = (made(snapshot(order(1), hour), OURS, seller=seller) for hour, seller in turns)
    loader.load(first, second, third)
    merged = loader.tables()
    loader.empty()
    loader.session.load(loader.lake, loader.publish(first, third))
    assert loader.tables() == merged


@pytest.mark.parametrize("before", [OURS, OTHER])
def test_rows_of_two_codes_in_one_manifest_are_taken_for_no_others(loader: Loader, before: str) -> None:
    def read(hour: float, *makers: str) -> Manifest:
        numbered = enumerate(makers)
        return loader.publish(*(made(snapshot(order(1), hour), by, f"M-{at}") for at, by in numbered))

    loader.session.load(loader.lake, read(1, before, before))
    loader.session.load(loader.lake, both := read(2, OURS, OTHER))
    merged = loader.tables()
    loader.empty()
    loader.session.load(loader.lake, both)
    assert loader.tables() == merged


@pytest.fixture(scope="module")
def shared(open_loader: Callable[[Path], Loader]) -> Iterator[Loader]:
    with folder_in_memory() as folder, closing(open_loader(folder)) as opened:
        yield opened


@examples(15)
@given(
    data=st.data(),
    makers=st.lists(
        st.tuples(st.sampled_from([OURS, OURS, OTHER, None]), st.sampled_from(SHOWN)), max_size=5
    ),
    decided=st.lists(st.sampled_from([closure(2.5), placement(0.5, "PENDING"), closure(9)]), max_size=2),
)
def test_rows_end_as_the_code_of_the_newest_snapshot_made_them(
    shared: Loader, data: st.DataObject, makers: list[tuple[str | None, object]], decided: list[Rows]
) -> None:
    read = [made(snapshot(shown, hour), by) for hour, (by, shown) in enumerate(makers, start=1)]  # type: ignore[arg-type]
    newest = [*decided, *read[-1:]]
    shared.empty()
    shared.load(*newest)  # into an empty warehouse: compared with nothing
    expected = shared.tables()
    shared.empty()
    turns = data.draw(st.permutations([*decided, *read]), label="loaded in this order")
    shared.load(*turns, *data.draw(st.lists(st.sampled_from(turns), max_size=2) if turns else st.just([])))
    assert shared.tables() == expected
