"""What the warehouse must have is compared with what it has, and what was lost comes back."""

from __future__ import annotations

from datetime import date

import pytest
from completeness import Rows, differences, everything, rewrite_without, verified
from env import OTHER, SELLER, Env, shipment

from feedamp.state import sellers
from feedamp.steps.compact import compact
from feedamp.steps.completeness_proof import compare
from feedamp.steps.completeness_proof.compare import find_differences, find_quickly
from feedamp.steps.completeness_proof.found_differences import FoundDifferences
from feedamp.tables import TABLES

# What is asked does not depend on the engine. The lake is compared in a DuckDB file, so Postgres beside it is both.
once = pytest.mark.parametrize("env", ["postgres"], indirect=True)


@once
def test_an_installation_without_losses_has_no_difference(lived_in: Env) -> None:
    for at in range(2):
        assert differences(lived_in, with_lake=True) == []
        lived_in.clock.skip(hours=7)
        lived_in.fulfill("O-2", shipment(1), cancelled=at % 2, seller=OTHER)
        lived_in.loop()
    lived_in.reconcile(repair=True)
    lived_in.load()
    assert differences(lived_in, with_lake=True) == []


@once
@pytest.mark.parametrize("closed", ["A-1", "B-1"], ids=["before an open one", "after an open one"])
def test_a_closed_order_is_compared(env: Env, closed: str) -> None:
    """Of an open order more columns are expected than of a closed one."""
    env.placed("A-1", "B-1")
    env.load()
    env.fulfill(closed, shipment(2))
    for _ in range(2):
        env.clock.skip(minutes=20)
        env.loop()
    assert env.order(closed).phase == "closed"
    assert differences(env) == []
    assert verified(env, repair=True).count == 0


@once
def test_what_waits_for_the_next_load_is_not_missing(lived_in: Env) -> None:
    lived_in.placed("W-1", "W-2")
    lived_in.deliver("BAD-2", currency="dollars")
    lived_in.fulfill("O-2", shipment(2), seller=OTHER)
    lived_in.clock.skip(minutes=20)
    lived_in.extract()
    lived_in.validate()
    assert differences(lived_in, with_lake=True) == []
    lived_in.process()
    assert differences(lived_in, with_lake=True) == []
    lived_in.load()
    assert differences(lived_in, with_lake=True) == []


# What a repair must bring back: table, which row, and what names it. Rows of one order are in different groups, so that
# none comes back only because another was missed.
LOSSES = {
    "in one group": [
        ("placements", "mp_order_number = 'S-1'", "S-1"),
        ("closures", "mp_order_number = 'S-2'", "S-2"),
        ("orders", "mp_order_number = 'N-1'", "N-1"),  # never shown
        ("order_lines", "mp_order_number = 'F-1'", "F-1"),
        ("shipments", "mp_order_number = 'S-3'", "S-3"),
        ("rejected_orders", "mp_order_number = 'BAD-1'", ".jsonl"),
    ],
    "in another": [
        ("placements", "marketplace_state = 'CANCELLED'", "P-2"),
        ("orders", "mp_order_number = 'F-1'", "F-1"),  # was shown
        ("cancellations", "mp_order_number = 'S-2'", "S-2"),
        ("order_events", "mp_order_number = 'S-1' AND kind = 'closed'", "S-1"),
    ],
    "in a third": [
        ("placements", "mp_order_number = 'P-1' AND marketplace_state = 'AWAITING_SHIPMENT'", "P-1"),
        ("findings", "mp_order_number = 'F-1'", "F-1"),
    ],
}


def test_lost_rows_are_named_and_come_back(lived_in: Env) -> None:
    before = everything(lived_in)
    for group, losses in LOSSES.items():
        for table, condition, _ in losses:
            lived_in.change(f"DELETE FROM feedamp.{table} WHERE {condition}")
        assert sorted(differences(lived_in)) == sorted((table, SELLER, 1) for table, _, _ in losses), group
        with FoundDifferences() as found:
            words = find_quickly(lived_in.resources, lived_in.resources.warehouse, found)
            assert words == "9 orders were compared one by one"
            named = [(d.table, f"{' '.join(d.key)} {d.what}") for d in found.first()]
            for table, _, number in losses:
                assert any(name == table and number in words for name, words in named)
        done = verified(lived_in, repair=True)
        assert (done.count, done.notes) == (0, []), group
        changed = {name: rows for name, rows in everything(lived_in).items() if rows != before[name]}
        assert changed == {}, group


# Rows that the ledger does not know, by table.
LOST_IN_THE_WAREHOUSE = [
    {
        "orders": "DELETE FROM feedamp.orders WHERE mp_order_number = 'X-0'",
        "runs": "DELETE FROM feedamp.runs WHERE step = 'extract'",
        "sellers": "DELETE FROM feedamp.sellers",
        "reconciliations": "DELETE FROM feedamp.reconciliations",
    },
    {  # an older snapshot
        "orders": """UPDATE feedamp.orders SET snapshot_hash = 'old', status = 'old',
            extracted_at = extracted_at - INTERVAL '1 hour', recorded_at = recorded_at - INTERVAL '1 hour'
            WHERE mp_order_number = 'X-0'""",
    },
    {
        "order_lines": "UPDATE feedamp.order_lines SET mp_line_number = 'X-9' WHERE mp_order_number = 'X-0'",
        "shipments": "UPDATE feedamp.shipments SET shipment_index = 7",
        "cancellations": "UPDATE feedamp.cancellations SET cancellation_index = 7",
    },
]


@once
def test_lost_rows_that_the_ledger_does_not_know_come_back_from_the_lake(shown: Env) -> None:
    def all_rows() -> Rows:
        return {
            name: sorted(shown.rows(f"SELECT {', '.join(t.names)} FROM {name}"), key=repr)
            for name, t in TABLES.items()
        }

    before = all_rows()
    assert differences(shown, with_lake=True) == []
    for losses in LOST_IN_THE_WAREHOUSE:
        for loss in losses.values():
            shown.change(loss)
        with FoundDifferences() as found:
            find_differences(shown.resources, found)
            assert {table for table, _, _ in found.counts()} == losses.keys()
            assert {difference.what for difference in found.first()} == {compare.ONLY_IN_LAKE}
        done = verified(shown, repair=True)
        assert (done.count, done.notes, done.orders_read_again) == (0, [], 0)
        assert {name: rows for name, rows in all_rows().items() if rows != before[name]} == {}, losses


@once
def test_a_newer_snapshot_never_gives_way_to_the_one_that_the_lake_kept(shown: Env) -> None:
    env, lines = (
        shown,
        "SELECT mp_line_number, units_shipped FROM order_lines WHERE mp_order_number = 'X-0'",
    )
    env.sandbox.set_fulfillments(SELLER, "X-0", [{"mp_line_number": "X-0-1", "shipments": [shipment(2)]}])
    known = {manifest.path for manifest in env.resources.lake.published()}
    env.clock.skip(minutes=20)
    env.read()
    assert shown.rows(lines) == [("X-0-1", 2)]
    for manifest in env.resources.lake.published():
        if manifest.path not in known:
            env.resources.lake.remove(manifest.path)
    verified(env, repair=True)
    assert shown.rows(lines) == [("X-0-1", 2)]


@once
def test_rows_of_other_systems_that_wait_for_the_warehouse_are_not_missing(env: Env) -> None:
    env.stock(2)
    env.extract()
    assert differences(env, with_lake=True) == []


@once
def test_a_repair_that_is_repeated_changes_nothing(lived_in: Env) -> None:
    lived_in.change("DELETE FROM feedamp.placements")
    assert verified(lived_in, repair=True).before == 9
    before = everything(lived_in)
    again = verified(lived_in, repair=True)
    assert (again.before, again.count, again.orders_read_again) == (0, 0, 0)
    assert everything(lived_in) == before


@once
def test_a_finding_whose_state_is_behind_is_named_and_comes_back(lived_in: Env) -> None:
    before = everything(lived_in)
    lived_in.change("UPDATE feedamp.findings SET state = 'to_report'")
    assert differences(lived_in) == [("findings", SELLER, 1)]
    assert verified(lived_in, repair=True).count == 0
    assert everything(lived_in)["findings"] == before["findings"]


@once
def test_a_snapshot_that_the_warehouse_never_got_is_named(lived_in: Env) -> None:
    lived_in.fulfill("O-2", shipment(2), seller=OTHER)
    lived_in.clock.skip(minutes=5)
    lived_in.see("O-2", seller=OTHER)
    assert differences(lived_in) == [("orders", OTHER, 1)]
    assert verified(lived_in, repair=True).count == 0


@once
def test_a_state_that_a_reconciliation_took_over_is_not_missing(env: Env) -> None:
    env.placed("R-1", marketplace_state="PENDING")
    env.load()
    with env.sandbox.world.lock:
        env.sandbox.world.orders.get(SELLER, "R-1").marketplace_state = "AWAITING_SHIPMENT"
    env.reconcile(repair=True)
    env.load()
    assert env.order("R-1").accepted_state == "AWAITING_SHIPMENT"
    assert differences(env) == []


@once
def test_rows_that_only_the_lake_lost_would_be_lost_by_a_rebuild_and_come_back(lived_in: Env) -> None:
    """As a compaction of an earlier build left it: the warehouse has all rows, and the lake does not."""
    before = everything(lived_in)
    for manifest in list(lived_in.resources.lake.manifests()):
        rewrite_without(lived_in, manifest, {"placements", "closures"})
    assert differences(lived_in) == []
    lost = {(table, seller): count for table, seller, count in differences(lived_in, with_lake=True)}
    assert lost == {
        ("placements", SELLER): 7,
        ("placements", OTHER): 2,
        ("closures", SELLER): 3,
    }
    assert verified(lived_in, repair=True).count == 0
    assert everything(lived_in)["placements"] == before["placements"]
    lived_in.resources.warehouse.rebuild(lived_in.resources.lake)
    after = everything(lived_in)
    assert {name: after[name] for name in ("placements", "closures")} == {
        name: before[name] for name in ("placements", "closures")
    }


@once
def test_a_compacted_lake_has_no_difference(lived_in: Env) -> None:
    lived_in.clock.skip(days=3)
    assert compact(lived_in.resources, lived_in.run("lake"), before=date(2999, 1, 1))["replaced"] > 1
    assert differences(lived_in, with_lake=True) == []
    lived_in.loop()
    lived_in.clock.skip(days=3)
    compact(lived_in.resources, lived_in.run("lake"), before=date(2999, 1, 1))
    assert differences(lived_in, with_lake=True) == []
    lived_in.resources.warehouse.rebuild(lived_in.resources.lake)
    assert differences(lived_in, with_lake=True) == []


@once
def test_what_the_lake_has_of_a_paused_seller_comes_back(lived_in: Env) -> None:
    with lived_in.state.begin() as connection:
        sellers.pause(connection, SELLER, paused=True, now=lived_in.state.now())
    lived_in.load()
    before = everything(lived_in)
    lived_in.change("DELETE FROM feedamp.orders WHERE mp_order_number IN ('S-1', 'N-1')")
    for table in ("shipments", "closures"):
        lived_in.change(f"DELETE FROM feedamp.{table} WHERE mp_order_number = 'S-2'")
    asked = len(lived_in.asked("GET"))
    assert verified(lived_in, repair=True).count == 0
    assert everything(lived_in) == before
    assert len(lived_in.asked("GET")) == asked
