"""What holds for the merge into every warehouse: a newer snapshot wins, a manifest counts once, a failure changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from manifests import Loader, at, closure, finding, order, placed, placement, snapshot

from feedamp.errors import IncompleteError
from feedamp.lake.schema_evolution import ROWS_READ_AT_ONCE
from feedamp.models import OrderLine
from feedamp.tables import Rows
from feedamp.warehouse import merge

SHIPPED_UNITS = "SELECT units_shipped FROM orders"


OpenLoader = Callable[[Path], Loader]


@pytest.mark.parametrize(
    "hours", [pytest.param((1, 2), id="older first"), pytest.param((2, 1), id="newer first")]
)
def test_the_newer_snapshot_wins_whatever_comes_first(loader: Loader, hours: tuple[int, int]) -> None:
    loader.load(*(snapshot(order(hour), hour) for hour in hours))
    assert loader.query("SELECT units_shipped, extracted_at FROM orders") == [(2, at(2))]


HISTORY: tuple[Rows, ...] = (
    placed(0),
    snapshot(order(1), 1),
    snapshot(order(1, 1), 2) | finding(2, "to_report"),
    finding(2.5, "reported"),
    snapshot(order(2, cancelled=1), 3) | finding(3, "resolved"),
    closure(4),
    snapshot(order(2, cancelled=1, status="COMPLETE", marketplace_state="SHIPPED"), 5),
)


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with the whole life of an order, a manifest for each step of it."""
    folder = tmp_path_factory.mktemp("history")
    with closing(Loader(folder)) as loader:  # whatever the engine
        for rows in HISTORY:
            loader.publish(rows)
    return folder


Tables = dict[str, list[str]]


@pytest.fixture(scope="module")
def tables_after(history: Path, open_loader: OpenLoader) -> Callable[[Sequence[int]], Tables]:
    """What is in the tables after some steps; each order is loaded once."""
    known: dict[tuple[int, ...], Tables] = {}

    def loaded(steps: Sequence[int]) -> Tables:
        if tuple(steps) not in known:
            with closing(open_loader(history)) as loader:
                manifests = list(loader.lake.manifests())
                for step in steps:
                    loader.session.load(loader.lake, manifests[step])
                known[tuple(steps)] = loader.tables()
        return known[tuple(steps)]

    return loaded


@settings(max_examples=5)
@given(steps=st.permutations(range(len(HISTORY))))
def test_manifests_in_any_order_give_the_same_tables(
    tables_after: Callable[[Sequence[int]], Tables], steps: list[int]
) -> None:
    assert tables_after(steps) == tables_after(range(len(HISTORY)))


def test_child_rows_are_replaced_not_merged(loader: Loader) -> None:
    loader.load(snapshot(order(1, 1, cancelled=1), 1), snapshot(order(2), 2))
    assert loader.query("SELECT shipment_index, quantity FROM shipments") == [(0, 2)]
    assert loader.query("SELECT * FROM cancellations") == []


def test_a_vanished_shipment_leaves_no_child_row(loader: Loader) -> None:
    loader.load(snapshot(order(1), 1), snapshot(order(), 2))
    assert loader.query("SELECT * FROM shipments") == []


def test_an_older_snapshot_brings_no_child_row_back(loader: Loader) -> None:
    loader.load(snapshot(order(), 2), snapshot(order(1, cancelled=1), 1))
    assert loader.query("SELECT * FROM shipments") == loader.query("SELECT * FROM cancellations") == []


def test_a_manifest_counts_once(loader: Loader) -> None:
    manifest = loader.publish(snapshot(order(1), 1))
    assert loader.session.load(loader.lake, manifest)
    before = loader.tables()
    assert not loader.session.load(loader.lake, manifest)
    assert loader.tables() == before


def test_a_manifest_without_files_counts_as_loaded(loader: Loader) -> None:
    manifest = loader.publish()
    assert loader.session.load(loader.lake, manifest)
    assert not loader.session.load(loader.lake, manifest)


def test_an_order_without_fulfillments_needs_no_child_file(loader: Loader) -> None:
    loader.load(snapshot(order(1), 1), {"orders": snapshot(order(), 2)["orders"]})
    assert loader.query("SELECT units_shipped, (SELECT count(*) FROM shipments) FROM orders") == [(0, 0)]


def test_a_failed_load_changes_nothing_and_can_be_repeated(loader: Loader) -> None:
    loader.load(snapshot(order(1), 1))
    manifest = loader.publish(snapshot(order(2), 2))
    [path] = [Path(loader.lake.absolute(f.path)) for f in manifest.files if f.table == "shipments"]
    aside = path.rename(path.with_suffix(".aside"))
    before = loader.tables()
    with pytest.raises(IncompleteError):
        loader.session.load(loader.lake, manifest)
    assert loader.tables() == before
    aside.rename(path)
    assert loader.session.load(loader.lake, manifest)
    assert loader.query(SHIPPED_UNITS) == [(2,)]


@pytest.mark.parametrize("compared", [0, merge.ROWS_COMPARED_IN_PASSING], ids=["by a query", "in passing"])
def test_of_two_rows_of_one_order_in_a_batch_the_newer_wins_with_its_children(
    loader: Loader, monkeypatch: pytest.MonkeyPatch, compared: int
) -> None:
    monkeypatch.setattr(merge, "ROWS_COMPARED_IN_PASSING", compared)
    manifest = loader.publish(snapshot(order(1, 1, cancelled=1), 2), snapshot(order(1), 1))
    loader.session.load(loader.lake, manifest)
    assert loader.query(SHIPPED_UNITS) == [(2,)]
    assert len(loader.query("SELECT * FROM shipments")) == 2


def test_of_two_rows_of_one_finding_in_a_batch_the_later_wins(loader: Loader) -> None:
    loader.session.load(loader.lake, loader.publish(finding(2, "resolved"), finding(1, "reported")))
    assert loader.query("SELECT state FROM findings") == [("resolved",)]


def test_a_later_recorded_finding_is_not_overwritten_by_an_older_one(loader: Loader) -> None:
    loader.load(finding(2, "resolved"), finding(1, "reported"))
    assert loader.query("SELECT state FROM findings") == [("resolved",)]


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param((placed(2), snapshot(order(1), 1)), id="placed row first"),
        pytest.param((snapshot(order(1), 1), placed(2)), id="snapshot first"),
    ],
)
def test_a_placed_row_gives_way_to_any_snapshot(loader: Loader, parts: tuple[Rows, Rows]) -> None:
    loader.load(*parts)
    assert loader.query("SELECT units_shipped, extracted_at, placed_at FROM orders") == [(1, at(1), at(2))]


def test_an_order_placed_and_read_at_one_moment_has_the_lines_that_were_read(loader: Loader) -> None:
    lines = tuple(OrderLine(mp_line_number=number, quantity=3) for number in "AB")
    parts = (placed(1, order_lines=lines), snapshot(order(1, order_lines=lines[:1]), 1))
    ends = []
    for turn in permutations(parts):
        loader.load(*turn)
        ends.append(loader.tables())
        loader.empty()
    for turn in permutations(parts):
        loader.session.load(loader.lake, loader.publish(*turn))
        ends.append(loader.tables())
        loader.session.replace_all(loader.lake)
        ends.append(loader.tables())
        assert loader.query("SELECT mp_line_number, units_shipped FROM order_lines") == [("A", 1)]
        loader.empty()
    assert ends == ends[:1] * 6


def test_a_placed_order_shows_before_it_is_seen(loader: Loader) -> None:
    loader.load(placed(0))
    row = loader.query("SELECT marketplace_state, status, placed_at, extracted_at, units_pending FROM orders")
    assert row == [("AWAITING_SHIPMENT", None, at(0), None, 3)]
    assert loader.query("SELECT quantity, units_pending FROM order_lines") == [(3, 3)]


OLD_SNAPSHOT = snapshot(order(1, marketplace_state="PENDING"), 1)


@pytest.mark.parametrize(
    ("decision", "state"),
    [
        pytest.param(placement(2, "AWAITING_SHIPMENT"), "AWAITING_SHIPMENT", id="released after the read"),
        pytest.param(closure(2), "SHIPPED", id="closed after the read"),
        pytest.param(placement(0.5, "AWAITING_SHIPMENT"), "PENDING", id="set before the read"),
    ],
)
@pytest.mark.parametrize("first", [True, False], ids=["snapshot first", "decision first"])
def test_a_state_set_after_the_snapshot_was_read_survives(
    loader: Loader, decision: Rows, state: str, first: bool
) -> None:
    loader.load(*((OLD_SNAPSHOT, decision) if first else (decision, OLD_SNAPSHOT)))
    assert loader.query("SELECT marketplace_state FROM orders") == [(state,)]


def test_a_snapshot_read_after_our_decision_shows_its_own_state(loader: Loader) -> None:
    loader.load(closure(1), snapshot(order(3, marketplace_state="CANCELLED"), 2))
    assert loader.query("SELECT marketplace_state FROM orders") == [("CANCELLED",)]


OPEN_AGAIN = snapshot(order(3), 3)


@pytest.mark.parametrize(
    ("parts", "row"),
    [
        pytest.param(
            (closure(2), OPEN_AGAIN), ("AWAITING_SHIPMENT", None), id="shown open after our closing"
        ),
        pytest.param(
            (placement(2, "CANCELLED"), OPEN_AGAIN), ("AWAITING_SHIPMENT", None), id="or our cancelling"
        ),
        pytest.param((closure(4), OPEN_AGAIN), ("SHIPPED", at(4)), id="shown open before our closing"),
        pytest.param(
            (closure(2), OPEN_AGAIN, closure(4)), ("SHIPPED", at(4)), id="shown open, and closed once more"
        ),
        pytest.param(
            (closure(2), snapshot(order(3, marketplace_state=None), 3)),
            ("SHIPPED", at(2)),
            id="shown without state",
        ),
        pytest.param(
            (OPEN_AGAIN, closure(2), placement(4, "AWAITING_SHIPMENT")),
            ("AWAITING_SHIPMENT", None),
            id="placed again after our closing",
        ),
    ],
)
@pytest.mark.parametrize("turned", [False, True], ids=["in the order of time", "the other way round"])
def test_an_order_that_is_open_again_has_no_moment_of_closing(
    loader: Loader, parts: tuple[Rows, ...], row: tuple[str, object], turned: bool
) -> None:
    loader.load(*(reversed(parts) if turned else parts))
    assert loader.query("SELECT marketplace_state, closed_at FROM orders") == [row]


def test_a_cancellation_by_the_marketplace_counts_as_closing(loader: Loader) -> None:
    loader.load(placed(0), placement(2, "CANCELLED"))
    assert loader.query("SELECT marketplace_state, placed_at, closed_at FROM orders") == [
        ("CANCELLED", at(0), at(2))
    ]


def test_decisions_touch_their_own_order_only(loader: Loader) -> None:
    other = {"orders": [row | {"mp_order_number": "M-2"} for row in snapshot(order(1), 1)["orders"]]}
    loader.load(snapshot(order(1), 1), other, closure(2))
    assert loader.query("SELECT mp_order_number FROM orders WHERE closed_at IS NULL") == [("M-2",)]


def test_the_same_number_of_two_sellers_is_two_orders(loader: Loader) -> None:
    other = {"orders": [row | {"seller_id": "S2"} for row in snapshot(order(2), 1)["orders"]]}
    loader.load(snapshot(order(1), 1), other)
    assert loader.query("SELECT seller_id, units_shipped FROM orders ORDER BY seller_id") == [
        ("S1", 1),
        ("S2", 2),
    ]


def test_a_failure_in_the_middle_of_a_load_leaves_nothing_of_it(loader: Loader) -> None:
    """The file of findings comes last in the manifest and is damaged: orders went in before it."""
    loader.load(snapshot(order(1), 1) | finding(1, "held"))
    before = loader.tables()
    manifest = loader.publish(finding(2, "resolved") | snapshot(order(2), 2) | closure(2))
    [path] = [Path(loader.lake.absolute(f.path)) for f in manifest.files if f.table == "shipments"]
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(IncompleteError, match=r"shipments/.* is damaged.*The warehouse was not changed"):
        loader.session.load(loader.lake, manifest)
    assert loader.tables() == before
    path.write_bytes(whole)
    assert loader.session.load(loader.lake, manifest)
    assert loader.query("SELECT state FROM findings") == [("resolved",)]


def test_many_rows_stream_in_more_than_one_batch(loader: Loader) -> None:
    row = snapshot(order(1), 1)["orders"][0]
    count = 2 * ROWS_READ_AT_ONCE + 1
    loader.load({"orders": [row | {"mp_order_number": f"M-{n}"} for n in range(count)]})
    assert loader.query("SELECT count(*) AS rows, count(DISTINCT mp_order_number) AS orders FROM orders") == [
        (count, count)
    ]
