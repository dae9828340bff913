"""A reject ends: superseded, dismissed by a person, or a note from the start that no one has to act on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import duckdb
import pytest
from house import SELLER, House, open_house, shipment
from inbox_drops import drop_bytes, jsonl
from installations import MID_LIFE, unpack

from feedamp.lake.store import Lake
from feedamp.order_body import BodyRules
from feedamp.run import Run
from feedamp.state import State, overview, rejects
from feedamp.steps.load import load
from feedamp.steps.place_orders.inbox_verdict import inbox_problems
from feedamp.steps.place_orders.replay import Replayed, replay
from feedamp.warehouse.duckdb import DuckDbWarehouse

LENIENT = BodyRules(extra_order_fields=frozenset({"gift_note"}))


def dismiss(house: House, *found: rejects.Rejected, reason: str = "test order") -> None:
    with house.state.begin() as connection:
        for reject in found:
            rejects.dismiss(connection, reject, reason, now=house.state.now())


def action_required(house: House) -> list[tuple[str, int]]:
    with house.state.read() as connection:
        found = overview.rejected_rows(connection, limit=20)
    assert len(found.items) == found.count
    return [(item["source"], item["row_number"]) for item in found.items]


def test_a_dismissed_reject_is_no_action_and_is_told_in_the_warehouse(house: House) -> None:
    house.deliver("M-1", gift_note="x")
    house.deliver("M-2", gift_note="x")
    assert action_required(house) == [("0002.jsonl", 1), ("0001.jsonl", 1)]
    dismiss(house, house.rejects()[0])
    assert action_required(house) == [("0002.jsonl", 1)]
    assert [r.source for r in house.rejects(everything=True)] == ["0001.jsonl", "0002.jsonl"]
    house.load()
    assert house.rows(
        "SELECT source, dismiss_reason FROM rejected_orders WHERE dismissed_at IS NOT NULL"
    ) == [("0001.jsonl", "test order")]


def test_a_dismissed_reject_is_never_replayed(house: House) -> None:
    house.deliver("M-1", gift_note="x")
    dismiss(house, *house.rejects())
    house.set_rules(body=LENIENT)
    assert replay(house.resources) == Replayed()
    with pytest.raises(KeyError):
        house.order("M-1")


def test_a_reject_that_is_dismissed_while_it_is_replayed_is_left(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.deliver("M-1", gift_note="x")
    house.set_rules(body=LENIENT)
    found = house.rejects()
    dismiss(house, *found)
    monkeypatch.setattr(rejects, "standing", lambda connection: found)
    assert replay(house.resources) == Replayed(left=1)


def test_a_dismissed_reject_whose_order_comes_in_mended_is_superseded(house: House) -> None:
    house.deliver("M-1", gift_note="x")
    dismiss(house, *house.rejects())
    house.deliver("M-1")
    [reject] = house.rejects(everything=True)
    assert None not in (reject.superseded_at, reject.dismissed_at)


def test_a_refusal_of_feedamp_for_a_dismissed_row_stands(house: House) -> None:
    house.placed("M-1")
    house.drop("2.jsonl", house.body("M-1", units=3))
    house.intake()
    [reject] = house.rejects()
    dismiss(house, reject)
    refused = replace(reject, stage=rejects.FEEDAMP, reasons=({"field": "", "code": "x", "message": "no"},))
    with house.state.begin() as connection:
        rejects.write(connection, refused, now=house.state.now())
    assert [r.stage for r in house.rejects()] == [rejects.FEEDAMP]


def test_ids_are_short_distinct_and_found_again(house: House) -> None:
    drop_bytes(house, "1.jsonl", jsonl([house.body("M-1", currency="Dollars")] * 3))
    house.intake()
    ids = [reject.reject_id for reject in house.rejects()]
    assert (len(set(ids)), {len(name) for name in ids}) == (3, {16})
    with house.state.read() as connection:
        [found] = rejects.find(connection, rejects.keys(connection, [ids[1], "unknown"]))
    assert found == house.rejects()[1]


def close(house: House) -> None:
    house.placed("M-1")
    house.fulfill("M-1", shipment())
    house.read()
    house.process()
    assert house.order("M-1").phase == "closed"


def test_a_cancellation_after_the_end_is_a_note(house: House) -> None:
    close(house)
    result = house.deliver("M-1", marketplace_state="CANCELLED")
    assert (result.rejected, house.rejects(), action_required(house)) == (0, [], [])
    assert any("closed as SHIPPED" in note and note.startswith(SELLER) for note in result.notes)
    [reject] = house.rejects(everything=True)
    assert reject.reasons[0]["code"] == "illegal_transition"
    assert "closed as SHIPPED" in (reject.dismiss_reason or "")
    house.load()
    assert house.rows("SELECT count(*) FROM rejected_orders WHERE dismissed_at IS NOT NULL") == [(1,)]


def test_many_cancellations_after_the_end_do_not_turn_the_run_red(house: House) -> None:
    close(house)
    cancelled = house.body("M-1", marketplace_state="CANCELLED")
    since = house.state.now()
    drop_bytes(house, "2.jsonl", jsonl([cancelled | {"delivery_notes": f"{at}"} for at in range(30)]))
    house.intake()
    assert inbox_problems(house.resources, Run("feedamp_place_orders", "manual__0", since)) == []
    assert len(house.rejects(everything=True)) == 30


@pytest.mark.parametrize("state", ["PENDING", "AWAITING_SHIPMENT"])
def test_another_state_after_the_end_needs_somebody(house: House, state: str) -> None:
    close(house)
    house.deliver("M-1", marketplace_state=state, delivery_notes="ring")
    assert house.reject_codes()[-1] == ("inbox", "illegal_transition")
    assert len(action_required(house)) == 1


def test_a_warehouse_of_an_earlier_version_learns_of_dismissals(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    folder = unpack(MID_LIFE, tmp_path / "old")
    with open_house(tmp_path) as house:
        house.clock.skip(days=60)  # later than all that is in it
        state = State(f"sqlite:///{folder / 'state.db'}", clock=house.clock.now)
        try:
            warehouse = DuckDbWarehouse(str(folder / "warehouse.duckdb"), lock_wait_s=0.0)
            resources = replace(
                house.resources, state=state, lake=Lake(str(folder / "lake")), warehouse=warehouse
            )
            with state.begin() as connection:
                found = rejects.standing(connection)
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
