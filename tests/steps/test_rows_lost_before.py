"""What an earlier build lost is named, and comes back: installations in tests/data."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from earlier_house import open_earlier
from house import OTHER, SELLER, House
from installations import MID_LIFE, ROWS_LOST
from warehouse_units import shows_the_truth, units_add_up

from feedamp.state import open_orders
from feedamp.steps.completeness_proof.compare import find_differences
from feedamp.steps.completeness_proof.found_differences import FoundDifferences
from feedamp.steps.completeness_proof.verify import Verified, verify

LOST, CLOSED = [f"lost-{at:03}" for at in range(250)], [f"closed-{at:03}" for at in range(250)]


def verified(house: House, *, repair: bool = False) -> Verified:
    return asyncio.run(verify(house.resources, house.run("lake"), repair=repair))


def counts(house: House, table: str) -> dict[str, int]:
    return dict(house.rows(f"SELECT seller_id, count(*) FROM {table} GROUP BY 1"))


def agrees(house: House) -> None:
    """Warehouse, ledger and FeedAMP say the same of every order, line, shipment, placement and closure."""
    truth = {number: house.shown(number, seller) for number, seller in every_order()}
    shows_the_truth(house, truth)
    units_add_up(house)
    ledger = {number: house.order(number, seller) for number, seller in every_order()}
    placed = house.rows("SELECT mp_order_number, min(placed_at) FROM placements GROUP BY 1")
    assert dict(placed) == {number: order.placed_at for number, order in ledger.items()}
    closed = house.rows("SELECT mp_order_number, marketplace_state, closed_at, units_shipped FROM closures")
    assert sorted(closed) == sorted(
        (number, order.closing_state, order.closed_at, 2)
        for number, order in ledger.items()
        if order.closed_at is not None
    )
    moments = house.rows("SELECT mp_order_number, placed_at, closed_at FROM orders")
    assert {row[0]: row[1:] for row in moments} == {
        number: (order.placed_at, order.closed_at) for number, order in ledger.items()
    }


def every_order() -> list[tuple[str, str]]:
    return [*((number, SELLER) for number in LOST), *((number, OTHER) for number in CLOSED)]


def test_an_installation_that_lost_rows_is_repaired_and_goes_on(tmp_path: Path) -> None:
    with open_earlier(ROWS_LOST, tmp_path) as house:
        found = verified(house)
        assert found.counts == [
            ("closures", OTHER, 250),
            ("orders", SELLER, 250),
            ("placements", SELLER, 250),
        ]
        assert {difference.key for difference in found.first} == {(SELLER, number) for number in LOST[:20]}
        assert all("has no row" in difference.what for difference in found.first)

        done = verified(house, repair=True)
        assert (done.before, done.count, done.notes, done.orders_read_again) == (750, 0, [], 500)
        agrees(house)
        assert not [r for r in house.asked("PUT") if "lost-" in r.path or "closed-" in r.path]

        house.process()
        house.load()
        assert {house.order(number).phase for number in LOST} == {"closed"}
        assert len(house.asked("PUT")) == 250
        assert (counts(house, "closures"), verified(house).count) == ({SELLER: 250, OTHER: 250}, 0)
        agrees(house)
        before = everything(house)
        house.resources.warehouse.rebuild(house.resources.lake)
        agrees(house)
        assert everything(house) == before


def everything(house: House) -> list[list[tuple[object, ...]]]:
    tables = ("orders", "order_lines", "shipments", "placements", "closures", "runs")
    return [sorted(house.rows(f"SELECT * FROM {table}"), key=repr) for table in tables]


@pytest.mark.parametrize("is_loaded", [False, True], ids=["as it was left", "after a load of what waits"])
def test_an_installation_that_lost_nothing_has_no_difference(tmp_path: Path, is_loaded: bool) -> None:
    with open_earlier(MID_LIFE, tmp_path) as house:
        if is_loaded:
            house.load()
        with FoundDifferences() as found:
            find_differences(house.resources, found, with_lake=True)
            assert (found.counts(), found.notes, found.compared) == ([], [], 28)


def test_a_repair_that_is_killed_before_it_loads_is_finished_by_the_next(tmp_path: Path) -> None:
    from feedamp.steps.completeness_proof.restore import restore

    with open_earlier(ROWS_LOST, tmp_path) as house:
        with FoundDifferences() as found:
            find_differences(house.resources, found)
            asyncio.run(restore(house.resources, house.run("lake"), found))
        assert verified(house).count == 0  # what waits is not missing
        with house.state.read() as connection:
            assert len(open_orders.to_validate(connection, [SELLER])[SELLER]) == 250
        done = verified(house, repair=True)
        assert (done.before, done.count) == (0, 0)
        agrees(house)
