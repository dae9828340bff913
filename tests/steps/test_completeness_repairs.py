"""What a repair of the warehouse does for each seller when something fails."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa
from completeness import differences, everything, rewrite_without, verified
from env import OTHER, SELLER, Env, shipment

from feedamp.state import open_orders, schema, sellers
from feedamp.steps.completeness_proof import compare
from feedamp.steps.completeness_proof.compare import find_quickly
from feedamp.steps.completeness_proof.found_differences import FoundDifferences
from feedamp.steps.completeness_proof.restore import restore


def test_a_snapshot_that_the_state_lost_is_read_again(lived_in: Env) -> None:
    with lived_in.state.begin() as connection:
        open_orders.remove(connection, [(OTHER, "O-1")])
    assert differences(lived_in) == [("snapshots", OTHER, 1)]
    assert verified(lived_in, repair=True).count == 0
    assert lived_in.held("O-1", OTHER) is not None


def test_one_failing_seller_does_not_stop_the_repair_of_others(lived_in: Env) -> None:
    env = lived_in
    for manifest in list(env.resources.lake.manifests()):
        rewrite_without(env, manifest, {"shipments"})
    lived_in.change("DELETE FROM feedamp.shipments")
    lived_in.change("DELETE FROM feedamp.placements")
    env.sandbox.fault("error_503", path="/orders", seller_id=SELLER, times=None)
    done = verified(env, repair=True)
    assert {(table, seller) for table, seller, _ in done.counts} == {("shipments", SELLER)}
    assert any(note.startswith(SELLER) for note in done.notes)
    assert done.orders_read_again == 2
    env.sandbox.clear_faults()
    env.clock.skip(hours=1)
    assert verified(env, repair=True).count == 0


def test_a_repair_that_left_a_seller_out_is_not_finished(lived_in: Env) -> None:
    """Nothing is missing by the state, but orders that were never read could not be read either."""
    lived_in.placed("N-9")
    lived_in.load()
    lived_in.sandbox.fault("error_503", path="/orders", seller_id=SELLER, times=None)
    done = verified(lived_in, repair=True)
    assert (done.count, done.is_finished, done.is_whole) == (0, False, False)
    lived_in.sandbox.clear_faults()
    lived_in.clock.skip(hours=1)
    assert verified(lived_in, repair=True).is_whole


def test_a_snapshot_that_cannot_be_decoded_does_not_stop_the_repair_of_others(env: Env) -> None:
    env.placed("M-1", "M-2")
    for number in ("M-1", "M-2"):
        env.fulfill(number, shipment(1))
    env.read()
    for table in ("orders", "order_lines", "shipments", "placements"):
        env.change(f"DELETE FROM feedamp.{table}")
    with env.state.begin() as connection:
        broken = schema.snapshots.c.mp_order_number == "M-1"
        connection.execute(sa.update(schema.snapshots).where(broken).values(snapshot="not JSON"))
    result = verified(env, repair=True)
    assert result.count == 0
    assert differences(env) == []


def test_of_a_paused_seller_the_state_is_written_and_nothing_is_read(lived_in: Env) -> None:
    for manifest in list(lived_in.resources.lake.manifests()):
        rewrite_without(lived_in, manifest, {"placements", "closures"})
    lived_in.change("DELETE FROM feedamp.placements")
    lived_in.change("DELETE FROM feedamp.closures")
    with lived_in.state.begin() as connection:
        sellers.pause(connection, SELLER, paused=True, now=lived_in.state.now())
    done = verified(lived_in, repair=True)
    assert {(table, seller) for table, seller, _ in done.counts} == {("closures", SELLER)}
    assert f"{SELLER}: orders are not read again: the seller is paused" in done.notes


def test_an_order_that_feedamp_does_not_have_is_restored_as_it_was_placed(lived_in: Env) -> None:
    lived_in.change("DELETE FROM feedamp.orders WHERE mp_order_number = 'N-1'")
    lived_in.change("DELETE FROM feedamp.order_lines WHERE mp_order_number = 'N-1'")
    with lived_in.sandbox.world.lock:
        orders = lived_in.sandbox.world.orders
        orders._sorted[SELLER].remove(orders._by_number[SELLER].pop("N-1"))
    done = verified(lived_in, repair=True)
    assert done.count == 0
    assert [note for note in done.notes if "order N-1 is no longer in the seller's FeedAMP account" in note]


def test_portions_of_any_size_compare_every_order(lived_in: Env, monkeypatch: pytest.MonkeyPatch) -> None:
    lived_in.change("DELETE FROM feedamp.placements")
    for portion in (1, 2, 9, 10):
        monkeypatch.setattr(compare, "ROWS_PER_COMPARISON", portion)
        with FoundDifferences() as found:
            find_quickly(lived_in.resources, lived_in.resources.warehouse, found)
            lost = [("placements", SELLER, 7), ("placements", OTHER, 2)]
            assert (found.compared, found.counts()) == (9, lost), portion


def test_a_repair_that_is_killed_before_it_loads_is_finished_by_the_next(lived_in: Env) -> None:
    env, before = lived_in, everything(lived_in)
    with env.state.begin() as connection:
        open_orders.remove(connection, [(SELLER, "S-2"), (OTHER, "O-1")])
    for table in ("orders", "order_lines", "shipments", "placements", "closures"):
        env.change(f"DELETE FROM feedamp.{table}")
    with FoundDifferences() as found:
        find_quickly(env.resources, env.resources.warehouse, found)
        assert {seller for _, seller, _ in found.counts()} == {SELLER, OTHER}
        asyncio.run(restore(env.resources, env.run("lake"), found))
    assert verified(env).count == 0  # what waits is not missing
    with env.state.read() as connection:
        assert set(open_orders.to_validate(connection, [OTHER])[OTHER]) >= {"O-1"}
    done = verified(env, repair=True)
    assert (done.before, done.count) == (0, 0)
    assert everything(env) == before
