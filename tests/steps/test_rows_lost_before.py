"""Rows lost by an earlier build are named and restored, in the installations of tests/data."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from env import OTHER, SELLER, Env, open_earlier
from installations import MID_LIFE, ROWS_LOST
from warehouse_units import shows_the_truth, units_add_up

from feedamp.rules.order import LedgerOrder
from feedamp.state import ledger
from feedamp.steps.completeness_proof.compare import find_differences
from feedamp.steps.completeness_proof.found_differences import FoundDifferences
from feedamp.steps.completeness_proof.verify import Verified, verify

LOST, CLOSED = [f"lost-{at:03}" for at in range(250)], [f"closed-{at:03}" for at in range(250)]


def verified(env: Env, *, repair: bool = False) -> Verified:
    return asyncio.run(verify(env.resources, env.run("lake"), repair=repair))


def counts(env: Env, table: str) -> dict[str, int]:
    return dict(env.rows(f"SELECT seller_id, count(*) FROM {table} GROUP BY 1"))


def agrees(env: Env) -> None:
    """Warehouse, ledger and FeedAMP say the same of every order, line, shipment, placement and closure."""
    known = in_ledger(env)
    assert sorted(known) == sorted([*LOST, *CLOSED])
    shows_the_truth(env, {**env.sandbox.orders(SELLER), **env.sandbox.orders(OTHER)})
    units_add_up(env)
    placed = env.rows("SELECT mp_order_number, min(placed_at) FROM placements GROUP BY 1")
    assert dict(placed) == {number: order.placed_at for number, order in known.items()}
    closed = env.rows("SELECT mp_order_number, marketplace_state, closed_at, units_shipped FROM closures")
    assert sorted(closed) == sorted(
        (number, order.closing_state, order.closed_at, 2)
        for number, order in known.items()
        if order.closed_at is not None
    )
    moments = env.rows("SELECT mp_order_number, placed_at, closed_at FROM orders")
    assert {row[0]: row[1:] for row in moments} == {
        number: (order.placed_at, order.closed_at) for number, order in known.items()
    }


def in_ledger(env: Env) -> dict[str, LedgerOrder]:
    """The orders of the ledger by number."""
    with env.state.read() as connection:
        lost, closed = (ledger.read_many(connection, *of) for of in ((SELLER, LOST), (OTHER, CLOSED)))
    return lost | closed


def test_an_installation_that_lost_rows_is_repaired_and_goes_on(tmp_path: Path) -> None:
    with open_earlier(ROWS_LOST, tmp_path) as env:
        found = verified(env)
        assert found.counts == [
            ("closures", OTHER, 250),
            ("orders", SELLER, 250),
            ("placements", SELLER, 250),
        ]
        assert {difference.key for difference in found.first} == {(SELLER, number) for number in LOST[:20]}
        assert all("has no row" in difference.what for difference in found.first)

        done = verified(env, repair=True)
        assert (done.before, done.count, done.notes, done.orders_read_again) == (750, 0, [], 500)
        agrees(env)
        assert not [r for r in env.asked("PUT") if "lost-" in r.path or "closed-" in r.path]

        env.process()
        env.load()
        assert {order.phase for order in in_ledger(env).values()} == {"closed"}
        assert len(env.asked("PUT")) == 250
        assert (counts(env, "closures"), verified(env).count) == ({SELLER: 250, OTHER: 250}, 0)
        agrees(env)
        before = everything(env)
        env.resources.warehouse.rebuild(env.resources.lake)
        agrees(env)
        assert everything(env) == before


def everything(env: Env) -> list[list[tuple[object, ...]]]:
    tables = ("orders", "order_lines", "shipments", "placements", "closures", "runs")
    return [sorted(env.rows(f"SELECT * FROM {table}"), key=repr) for table in tables]


@pytest.mark.parametrize("is_loaded", [False, True], ids=["as it was left", "after a load of what waits"])
def test_an_installation_that_lost_nothing_has_no_difference(tmp_path: Path, is_loaded: bool) -> None:
    with open_earlier(MID_LIFE, tmp_path) as env:
        if is_loaded:
            env.load()
        with FoundDifferences() as found:
            find_differences(env.resources, found)
            assert (found.counts(), found.notes, found.compared) == ([], [], 28)
