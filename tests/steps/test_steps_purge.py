"""Customer fields leave the state some days after an order is done; what the rules need stays."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from env import SELLER, Env, shipment
from leaks import hits, parquet_cells

from feedamp.order_body import BodyRules
from feedamp.rules.stored_body import FULL, REDACTED
from feedamp.state import leases, ledger, schema
from feedamp.state.schema import metadata, tracking_uses
from feedamp.steps import purge as purge_module

PERSONAL = ("Robin Vale", "12 Harbor Way")


@pytest.fixture
def closed(env: Env) -> Env:
    """M-1 is closed, M-2 open; bodies are kept for 30 days."""
    env.set_rules(closed_body_kept=timedelta(days=30))
    env.placed("M-1", "M-2")
    env.fulfill("M-1", shipment())
    env.read()
    env.process()
    env.load()
    return env


def purge(env: Env, *, dry_run: bool = False) -> dict[str, int]:
    """After a refresh of the tokens, which confirms the clock."""
    with env.state.begin() as connection:
        connection.execute(sa.update(schema.grants).values(refreshed_at=env.clock.now()))
    return purge_module.purge(env.resources, env.run("refresh_tokens", dry_run=dry_run))


def personal_rows(env: Env) -> dict[str, int]:
    """Rows of the state that hold a customer field, by table."""
    found = {}
    with env.state.read() as connection:
        for table in metadata.sorted_tables:
            rows = [str(tuple(row)) for row in connection.execute(sa.select(table))]
            if count := sum(any(word in row for word in PERSONAL) for row in rows):
                found[table.name] = count
    return found


def test_nothing_personal_of_a_closed_order_is_left_after_its_days(closed):
    assert personal_rows(closed) == {"orders": 2}
    closed.clock.skip(days=31)
    assert purge(closed)["bodies"] == 1
    assert personal_rows(closed) == {"orders": 1}  # M-2 is still to be closed with its body
    assert (closed.order("M-1").body_kind, closed.order("M-2").body_kind) == (REDACTED, FULL)
    # What lake and warehouse have stays until a person erases it.
    assert closed.rows("SELECT count(*) FROM orders WHERE customer_full_name = 'Robin Vale'") == [(2,)]
    in_lake = hits(parquet_cells(Path(closed.resources.lake.root)), PERSONAL)
    assert ("orders.customer_full_name", "robin vale") in in_lake


@pytest.mark.parametrize(
    ("days", "kept"),
    [
        pytest.param(29, timedelta(days=30), id="before its days are over"),
        pytest.param(3650, None, id="without the option"),
    ],
)
def test_a_body_is_kept(closed, days, kept):
    closed.set_rules(closed_body_kept=kept)
    closed.clock.skip(days=days)
    assert purge(closed)["bodies"] == 0
    assert closed.order("M-1").has_body


def test_a_dry_run_only_counts(closed):
    closed.clock.skip(days=31)
    assert purge(closed, dry_run=True)["bodies"] == 1
    assert closed.order("M-1").has_body


def test_a_second_run_finds_nothing_left(closed):
    closed.clock.skip(days=31)
    purge(closed)
    before = closed.order("M-1")
    assert purge(closed) == {"bodies": 0, "rejects": 0, "tracking_uses": 0}
    assert closed.order("M-1") == before


def test_more_orders_than_one_transaction_holds_are_all_redacted(closed, monkeypatch):
    monkeypatch.setattr(purge_module, "ROWS_PURGED_AT_ONCE", 2)
    closed.placed(*(f"N-{n}" for n in range(5)), marketplace_state="PENDING")
    closed.drop("cancel.jsonl", *(closed.body(f"N-{n}", marketplace_state="CANCELLED") for n in range(5)))
    closed.intake()
    closed.place()
    closed.load()
    closed.clock.skip(days=31)
    assert purge(closed)["bodies"] == 6


def test_the_same_order_delivered_again_changes_nothing(closed):
    closed.clock.skip(days=31)
    purge(closed)
    before = closed.order("M-1")
    closed.deliver("M-1")
    assert closed.order("M-1") == before
    assert closed.rejects() == []


def test_a_changed_body_is_recorded_without_the_names_of_its_fields(closed):
    closed.clock.skip(days=31)
    purge(closed)
    closed.deliver("M-1", delivery_notes="ring twice")
    [rejected] = closed.rejects()
    codes = [(reason["field"], reason["code"]) for reason in rejected.reasons]
    assert codes == [("", "body_changed"), ("marketplace_state", "illegal_transition")]
    assert closed.order("M-1").phase == "closed"


def test_reconciliation_still_compares_quantities(closed):
    closed.clock.skip(days=31)
    purge(closed)
    assert closed.reconcile().extra["differences"] == 0
    with closed.sandbox.world.lock:
        closed.sandbox._order("seller-001", "M-1").body["order_lines"][0]["quantity"] = 7
    assert closed.reconcile().extra["differences"] > 0


def test_an_order_closed_elsewhere_is_redacted_too(closed):
    closed.fulfill("M-2", shipment(number="1Z999AA10123456793"))
    with closed.sandbox.world.lock:
        closed.sandbox._order("seller-001", "M-2").marketplace_state = "SHIPPED"
    closed.read()
    closed.process()
    closed.load()
    closed.clock.skip(days=31)
    assert purge(closed)["bodies"] == 2
    assert personal_rows(closed) == {}


def test_an_order_that_was_never_placed_is_redacted_too(closed):
    closed.deliver("M-3")
    closed.deliver("M-3", marketplace_state="CANCELLED")
    assert closed.order("M-3").phase == "never_placed"
    closed.clock.skip(days=31)
    purge(closed)
    assert closed.order("M-3").body_kind == REDACTED


def test_rejected_rows_lose_their_text_once_superseded_or_order_is_redacted(closed):
    closed.deliver("M-1", delivery_notes="ring twice")  # remains: nothing supersedes a body_changed
    closed.deliver("M-4", currency="crowns")
    closed.deliver("M-4")  # superseded
    closed.deliver("M-5", currency="crowns")  # remains
    closed.clock.skip(days=31)
    assert purge(closed)["rejects"] == 2
    raws = {r.mp_order_number: bool(r.raw) for r in closed.rejects(everything=True)}
    assert raws == {"M-1": False, "M-4": False, "M-5": True}
    assert all(r.reasons for r in closed.rejects(everything=True))


def test_hashes_of_parcels_end_after_their_ninety_days(closed):
    def uses():
        with closed.state.read() as connection:
            return connection.execute(sa.select(sa.func.count()).select_from(tracking_uses)).scalar_one()

    closed.set_rules(closed_body_kept=None)
    closed.clock.skip(days=89)
    assert (purge(closed)["tracking_uses"], uses()) == (0, 1)
    closed.clock.skip(days=2)
    assert (purge(closed)["tracking_uses"], uses()) == (1, 0)


@pytest.mark.parametrize(
    ("hours", "left"),
    [(20, {"M-1", "M/1", "M-2"}), (30, {"M-2"})],
    ids=["it ended today", "it ended yesterday"],
)
def test_a_lease_that_a_killed_process_left_ends_with_its_order(closed, hours, left):
    closed.set_rules(body=BodyRules(order_number_pattern=".+"))
    closed.placed("M/1")
    closed.fulfill("M/1", shipment())
    closed.read()
    closed.process()
    numbers = ("M-1", "M/1", "M-2")  # M-2 is open
    names = {leases.of_order("close", SELLER, number): number for number in numbers}
    with closed.state.begin() as connection:
        rows = [{"name": name, "owner": "killed", "beat": 7} for name in [*names, "load", "refresh/S1"]]
        connection.execute(sa.insert(schema.leases), rows)
    closed.clock.skip(hours=hours)
    purge(closed)
    with closed.state.read() as connection:
        kept = set(connection.execute(sa.select(schema.leases.c.name)).scalars())
    assert {names[name] for name in kept & names.keys()} == left
    assert {"load", "refresh/S1"} <= kept


@pytest.fixture
def reopened(closed: Env) -> Env:
    """M-1 has lost its body, and FeedAMP shows it open again; a repair has followed."""
    closed.clock.skip(days=31)
    purge(closed)
    with closed.sandbox.world.lock:
        closed.sandbox._order(SELLER, "M-1").marketplace_state = "AWAITING_SHIPMENT"
    closed.reconcile(repair=True)
    closed.load()
    assert (closed.order("M-1").phase, closed.order("M-1").has_body) == ("settled", False)
    return closed


def test_a_reopened_order_regains_its_body_by_the_same_delivery_and_closes(reopened):
    reopened.process()
    assert "deliver it to the inbox" in reopened.held("M-1").waits_for
    reopened.deliver("M-1")
    assert reopened.order("M-1").has_body
    reopened.process()
    assert reopened.order("M-1").phase == "closed"
    assert reopened.shown("M-1")["marketplace_state"] == "SHIPPED"


def test_another_body_for_it_is_rejected(reopened):
    assert reopened.deliver("M-1", delivery_notes="ring twice").rejected == 1
    assert not reopened.order("M-1").has_body


def test_a_redacted_body_does_not_stop_other_orders_from_being_placed(reopened):
    """An order without a body that is due to be sent is held, and the others are sent."""
    with reopened.state.begin() as connection:
        cancelled = reopened.order("M-1").requested("CANCELLED", now=reopened.state.now())
        ledger.write(connection, cancelled)
        snapshots = schema.snapshots
        connection.execute(sa.delete(snapshots).where(snapshots.c.mp_order_number == "M-1"))
    reopened.drop("more.jsonl", *(reopened.body(f"N-{number}") for number in range(3)))
    reopened.intake()
    result = reopened.place()
    assert [reopened.order(f"N-{number}").phase for number in range(3)] == ["settled"] * 3
    assert reopened.order("M-1").phase == "held"
    assert result.undone == []
