"""The events of orders: what is written when, once each, and without customer fields."""

from __future__ import annotations

import json
from datetime import timedelta

from completeness import differences, verified
from env import BAD_NUMBER, NOON, SELLER, shipment
from order_samples import example_order

from feedamp.lake.privacy import Privacy
from feedamp.models import Cancellation, LineFulfillment, Shipment, Snapshot
from feedamp.state import open_orders, order_events
from feedamp.steps.purge import purge

PERSONAL = ("Robin", "Vale", "12 Harbor Way", "robin")


def story(env, number="M-1"):
    """(kind, details) of each event in the state, oldest first."""
    with env.state.read() as connection:
        return [(e["kind"], e["details"]) for e in order_events.of_order(connection, SELLER, number)]


def kinds(env, number="M-1"):
    return [kind for kind, _ in story(env, number)]


COLUMNS = "seller_id, mp_order_number, event_id, kind, details, run_id"


def in_warehouse(env):
    return sorted(tuple(row) for row in env.rows(f"SELECT {COLUMNS} FROM order_events"))


def in_state(env):
    with env.state.read() as connection:
        found = connection.exec_driver_sql(f"SELECT {COLUMNS} FROM order_events")
        return sorted(tuple(row) for row in found)


def end_elsewhere(env, number, state):
    with env.sandbox.world.lock:
        env.sandbox._order(SELLER, number).marketplace_state = state


def full_story(env):
    env.deliver("M-1", marketplace_state="PENDING")
    env.loop()
    env.deliver("M-1")
    env.loop()
    env.fulfill("M-1", shipment(2, BAD_NUMBER))
    env.loop()
    env.fulfill("M-1", shipment(2))
    env.loop()
    env.loop()


def test_a_story_goes_from_the_delivery_to_the_closing(env):
    full_story(env)
    told = story(env)
    assert [kind for kind, _ in told] == [
        *("delivered", "placed", "changed", "delivered", "placed", "changed"),
        *("changed", "finding", "reported", "changed", "resolved", "closed"),
    ]
    assert told[0][1] == {"marketplace_state": "PENDING", "source": "0001.jsonl", "source_row": 1}
    assert {"field": "marketplace_state", "old": "PENDING", "new": "AWAITING_SHIPMENT"} in told[5][1][
        "changes"
    ]
    number = {"field": "order_lines[M-1-1].shipments[0].tracking_number"}
    assert {**number, "old": BAD_NUMBER, "new": shipment()["tracking_number"]} in told[9][1]["changes"]
    assert told[-1][1] == {"marketplace_state": "SHIPPED", "closed": "here"}
    assert in_warehouse(env) == in_state(env)


def test_what_comes_again_or_late_adds_no_event(env):
    env.placed("M-1")
    env.fulfill("M-1", shipment(1))
    env.loop()
    before = in_state(env)
    env.deliver("M-1")
    env.loop()
    older = Snapshot(mp_order_number="M-1", status="ORDERED")
    with env.state.begin() as connection:
        open_orders.keep_open(connection, SELLER, [(older, NOON)], run_id="late")
    env.loop()
    assert in_state(env) == before == in_warehouse(env)


def test_a_snapshot_is_compared_with_the_one_before_in_the_same_batch(env):
    env.placed("M-1")
    snapshots = [
        (Snapshot(mp_order_number="M-1", status=status), env.state.now() + timedelta(seconds=second))
        for second, status in enumerate(("A", "B", "B", "A"))
    ]
    with env.state.begin() as connection:
        open_orders.keep_open(connection, SELLER, snapshots, run_id="r")
    changes = [details["changes"] for kind, details in story(env) if kind == "changed"]
    assert [[(c["old"], c["new"]) for c in change] for change in changes] == [
        [(None, "A")],
        [("A", "B")],
        [("B", "A")],
    ]


def test_late_changes_of_a_closed_order_are_told_once_each(env):
    env.placed("M-1")
    env.fulfill("M-1", cancelled=2)
    env.loop()
    env.loop()
    before = len(story(env))

    def shown(shipped, after):
        line = LineFulfillment(
            mp_line_number="M-1-1",
            shipments=(Shipment(quantity=shipped, carrier="UPS", tracking_number="1"),),
            cancellations=(Cancellation(quantity=2 - shipped),) if shipped < 2 else (),
        )
        snapshot = Snapshot(mp_order_number="M-1", fulfillments=(line,))
        return snapshot, env.state.now() + timedelta(seconds=after)

    batch = [shown(1, 0), shown(1, 1), shown(2, 0), shown(2, 2)]
    with env.state.begin() as connection:
        open_orders.keep_open(connection, SELLER, batch, run_id="r")
    late = [{c["field"][-7:]: (c["old"], c["new"]) for c in d["changes"]} for _, d in story(env)[before:]]
    assert late == [{"shipped": (0, 1), "ncelled": (2, 1)}, {"shipped": (1, 2), "ncelled": (1, 0)}]


def test_a_conflict_begins_ends_and_is_told_with_its_reason(env):
    env.placed("M-1")
    env.fulfill("M-1", shipment(1))
    env.read()
    env.deliver("M-1", marketplace_state="CANCELLED")
    env.place()
    env.fulfill("M-1")
    env.read()
    env.process()
    conflicts = [details for kind, details in story(env) if kind == "conflict"]
    assert [details["marketplace_state"] for details in conflicts] == ["CANCELLED", "CANCELLED"]
    assert (conflicts[0]["reason"], conflicts[1]["ended"]) == (
        "conflict: CANCELLED came in, but the seller has shipped 1 unit",
        True,
    )


def test_waived_found_again_closed_elsewhere_and_shipped_late_are_told(env):
    env.placed("M-1", "M-2")
    env.fulfill("M-1", shipment(2, BAD_NUMBER))
    env.loop()
    env.waive("M-1")
    env.loop()
    assert [kind for kind in kinds(env) if kind != "changed"][-3:] == ["reported", "waived", "closed"]
    end_elsewhere(env, "M-2", "CANCELLED")
    env.fulfill("M-2", cancelled=2)
    env.loop()
    env.fulfill("M-2", shipment(1), cancelled=1)
    env.read()
    (_, closed), (_, late) = story(env, "M-2")[-2:]
    assert closed == {"marketplace_state": "CANCELLED", "closed": "elsewhere"}
    assert late == {
        "changes": [
            {"field": "order_lines[M-2-1].units_shipped", "old": 0, "new": 1},
            {"field": "order_lines[M-2-1].units_cancelled", "old": 2, "new": 1},
        ]
    }


def test_a_repair_is_told_once_with_its_fields(env):
    env.placed("M-1")
    env.read()
    end_elsewhere(env, "M-1", "SHIPPED")
    env.reconcile(repair=True)
    env.load()
    env.reconcile(repair=True)
    assert [details for kind, details in story(env) if kind == "repaired"] == [
        {"fields": ["marketplace_state", "status"]}
    ]
    env.load()
    assert in_warehouse(env) == in_state(env)


def test_a_reopened_order_is_told_once_and_counts_no_unit_again(env):
    env.placed("M-1")
    env.fulfill("M-1", shipment(2))
    env.loop()
    env.loop()
    end_elsewhere(env, "M-1", "AWAITING_SHIPMENT")
    env.clock.skip(hours=1)
    env.reconcile(repair=True)
    env.read()
    told = story(env)
    at = kinds(env).index("closed") + 1
    assert [(kind, details.get("reopened")) for kind, details in told[at:]] == [("repaired", True)]
    with env.state.read() as connection:
        assert sum(f.units for f in order_events.flow(connection, since=NOON, by="day")) == 2


def test_an_order_of_others_has_no_event(env):
    env.stock(2)
    env.loop()
    assert in_state(env) == []


def test_no_event_holds_a_customer_field(env):
    env.resources = env.resources.__class__(**{**env.resources.__dict__, "privacy": Privacy(b"key")})
    full_story(env)
    env.placed("M-2")
    other = example_order("M-2", delivery_notes="Ring at Vale's")
    other["customer"]["full_name"] = "Robin Othername"
    env.drop("other.jsonl", other)
    env.intake()
    assert story(env, "M-2")[-1][1]["differs"] == ["customer.full_name", "delivery_notes"]
    env.load()
    said = json.dumps(in_warehouse(env)) + json.dumps(in_state(env))
    assert not [word for word in PERSONAL if word in said]


def test_events_leave_the_state_after_their_order_has_ended(env):
    env.placed("M-1", "M-2", "M-3")
    env.fulfill("M-1", shipment(2))
    env.loop()
    env.loop()
    env.deliver("M-4")
    env.deliver("M-4", marketplace_state="CANCELLED")
    env.clock.skip(days=31)
    purge(env.resources, env.run("refresh_tokens"))
    assert (kinds(env), kinds(env, "M-4")) == ([], [])
    assert kinds(env, "M-2") == ["delivered", "placed", "changed"]
    assert ("M-1", "closed") in {(row[1], row[3]) for row in in_warehouse(env)}


def test_lost_events_are_found_and_restored_from_the_state(env):
    env.placed("M-1")
    env.loop()
    whole = in_warehouse(env)
    assert differences(env) == []
    with env.resources.warehouse.session() as session, session._engine.transaction():
        session._engine.execute("DELETE FROM feedamp.order_events WHERE kind = 'placed'")
    assert [table for table, _, _ in differences(env)] == ["order_events"]
    assert verified(env, repair=True).is_whole
    assert in_warehouse(env) == whole == in_state(env)


def test_the_flow_counts_events_by_hour_and_by_day_of_a_seller(env):
    env.placed("M-1", "M-2")
    env.fulfill("M-1", shipment(2))
    env.loop()
    env.clock.skip(hours=1)
    env.loop()
    with env.state.read() as connection:
        hours = order_events.flow(connection, since=NOON, by="hour")
        [day] = {f.began_at for f in order_events.flow(connection, since=NOON, by="day", seller_id=SELLER)}
    assert {(f.kind, f.events, f.units) for f in hours if f.began_at == NOON} == {
        ("placed", 2, 0),
        ("closed", 1, 0),
        ("shipped", 1, 2),
    }
    assert (day.hour, day.tzinfo is not None) == (0, True)
