"""A reject ends when it is superseded or dismissed; some are notes from the start and require no action."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import duckdb
import pytest
from env import SELLER, Env, open_env, shipment
from inbox_drops import drop_bytes, jsonl
from installations import MID_LIFE, unpack

from feedamp.lake.store import Lake
from feedamp.order_body import BodyRules
from feedamp.run import Run
from feedamp.state import State, action_required, rejects
from feedamp.steps.load import load
from feedamp.steps.place_orders.inbox_verdict import inbox_problems
from feedamp.steps.place_orders.replay import Replayed, replay
from feedamp.warehouse.duckdb import DuckDbWarehouse

LENIENT = BodyRules(extra_order_fields=frozenset({"gift_note"}))


def dismiss(env: Env, *found: rejects.Rejected, reason: str = "test order") -> None:
    with env.state.begin() as connection:
        for reject in found:
            rejects.dismiss(connection, reject, reason, now=env.state.now())


def rows_that_require_action(env: Env) -> list[tuple[str, int]]:
    with env.state.read() as connection:
        found = action_required.rejected_rows(connection, limit=20)
    assert len(found.items) == found.count
    return [(item["source"], item["row_number"]) for item in found.items]


def test_a_dismissed_reject_is_no_action_and_is_told_in_the_warehouse(env: Env) -> None:
    env.deliver("M-1", gift_note="x")
    env.deliver("M-2", gift_note="x")
    assert rows_that_require_action(env) == [("0002.jsonl", 1), ("0001.jsonl", 1)]
    dismiss(env, env.rejects()[0])
    assert rows_that_require_action(env) == [("0002.jsonl", 1)]
    assert [r.source for r in env.rejects(everything=True)] == ["0001.jsonl", "0002.jsonl"]
    env.load()
    assert env.rows("SELECT source, dismiss_reason FROM rejected_orders WHERE dismissed_at IS NOT NULL") == [
        ("0001.jsonl", "test order")
    ]


def test_a_dismissed_reject_is_never_replayed(env: Env) -> None:
    env.deliver("M-1", gift_note="x")
    dismiss(env, *env.rejects())
    env.set_rules(body=LENIENT)
    assert replay(env.resources) == Replayed()
    with pytest.raises(KeyError):
        env.order("M-1")


def test_a_reject_that_is_dismissed_while_it_is_replayed_is_left(
    env: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    env.deliver("M-1", gift_note="x")
    env.set_rules(body=LENIENT)
    found = env.rejects()
    dismiss(env, *found)
    monkeypatch.setattr(rejects, "read_open", lambda connection: found)
    assert replay(env.resources) == Replayed(left=1)


def test_a_dismissed_reject_is_superseded_by_a_corrected_delivery(env: Env) -> None:
    env.deliver("M-1", gift_note="x")
    dismiss(env, *env.rejects())
    env.deliver("M-1")
    [reject] = env.rejects(everything=True)
    assert None not in (reject.superseded_at, reject.dismissed_at)


def test_a_refusal_of_feedamp_for_a_dismissed_row_stands(env: Env) -> None:
    env.placed("M-1")
    env.drop("2.jsonl", env.body("M-1", units=3))
    env.intake()
    [reject] = env.rejects()
    dismiss(env, reject)
    refused = replace(reject, stage=rejects.FEEDAMP, reasons=({"field": "", "code": "x", "message": "no"},))
    with env.state.begin() as connection:
        rejects.write(connection, refused, now=env.state.now())
    assert [r.stage for r in env.rejects()] == [rejects.FEEDAMP]


def test_ids_are_short_distinct_and_found_again(env: Env) -> None:
    drop_bytes(env, "1.jsonl", jsonl([env.body("M-1", currency="Dollars")] * 3))
    env.intake()
    ids = [reject.reject_id for reject in env.rejects()]
    assert (len(set(ids)), {len(name) for name in ids}) == (3, {16})
    with env.state.read() as connection:
        [found] = rejects.find(connection, rejects.keys(connection, [ids[1], "unknown"]))
    assert found == env.rejects()[1]


def close(env: Env) -> None:
    env.placed("M-1")
    env.fulfill("M-1", shipment())
    env.read()
    env.process()
    assert env.order("M-1").phase == "closed"


def test_a_cancellation_after_the_end_is_a_note(env: Env) -> None:
    close(env)
    result = env.deliver("M-1", marketplace_state="CANCELLED")
    assert (result.rejected, env.rejects(), rows_that_require_action(env)) == (0, [], [])
    assert any("closed as SHIPPED" in note and note.startswith(SELLER) for note in result.notes)
    [reject] = env.rejects(everything=True)
    assert reject.reasons[0]["code"] == "illegal_transition"
    assert "closed as SHIPPED" in (reject.dismiss_reason or "")
    env.load()
    assert env.rows("SELECT count(*) FROM rejected_orders WHERE dismissed_at IS NOT NULL") == [(1,)]


def test_many_cancellations_after_the_end_do_not_turn_the_run_red(env: Env) -> None:
    close(env)
    cancelled = env.body("M-1", marketplace_state="CANCELLED")
    since = env.state.now()
    drop_bytes(env, "2.jsonl", jsonl([cancelled | {"delivery_notes": f"{at}"} for at in range(30)]))
    env.intake()
    assert inbox_problems(env.resources, Run("feedamp_place_orders", "manual__0", since)) == []
    assert len(env.rejects(everything=True)) == 30


@pytest.mark.parametrize("state", ["PENDING", "AWAITING_SHIPMENT"])
def test_another_state_after_the_end_requires_action(env: Env, state: str) -> None:
    close(env)
    env.deliver("M-1", marketplace_state=state, delivery_notes="ring")
    assert env.reject_codes()[-1] == ("inbox", "illegal_transition")
    assert len(rows_that_require_action(env)) == 1


def test_a_warehouse_of_an_earlier_version_learns_of_dismissals(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    folder = unpack(MID_LIFE, tmp_path / "old")
    with open_env(tmp_path) as env:
        env.clock.skip(days=60)  # later than all that is in it
        state = State(f"sqlite:///{folder / 'state.db'}", clock=env.clock.now)
        try:
            warehouse = DuckDbWarehouse(str(folder / "warehouse.duckdb"), lock_wait_s=0.0)
            resources = replace(
                env.resources, state=state, lake=Lake(str(folder / "lake")), warehouse=warehouse
            )
            with state.begin() as connection:
                found = rejects.read_open(connection)
                for reject in found:
                    rejects.dismiss(connection, reject, "from before", now=state.now())
            load(resources, Run("feedamp_load", "by hand", state.now()))
        finally:
            state.close()
    assert found
    with duckdb.connect(str(folder / "warehouse.duckdb"), read_only=True) as connection:
        dismissed = connection.execute(
            "SELECT dismiss_reason FROM feedamp.rejected_orders WHERE dismissed_at IS NOT NULL"
        )
        assert dismissed.fetchall() == [("from before",)] * len(found)
