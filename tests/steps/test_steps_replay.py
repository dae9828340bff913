"""Rejected rows read again: what today's rules allow is taken, a verdict that stays the same writes nothing."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from house import SELLER, House
from sqlalchemy.engine import Connection

from feedamp.order_body import BodyRules
from feedamp.state import ledger, rejects, schema
from feedamp.steps.place_orders.replay import Replayed, replay

LENIENT = BodyRules(extra_order_fields=frozenset({"gift_note"}))


def outbox_rows(house: House) -> int:
    with house.state.read() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(schema.outbox)).scalar_one()


def refuse(house: House, number: str, *, phase: str) -> None:
    """Puts down a reject of stage feedamp, as `place` does."""
    order = house.order(number)
    now = house.state.now()
    with house.state.begin() as connection:
        ledger.change(connection, order, phase=phase, reason="FeedAMP answered 409")
        rejects.write(
            connection,
            rejects.Rejected(
                source=order.source,
                row_number=order.source_row,
                row_hash=order.row_hash,
                seller_id=SELLER,
                mp_order_number=number,
                stage=rejects.FEEDAMP,
                reasons=({"field": "", "code": "refused_by_feedamp", "message": "no"},),
                raw="",
                rejected_at=now,
            ),
            now=now,
        )


def test_a_verdict_that_stays_the_same_writes_nothing(house: House) -> None:
    house.deliver("M-1", gift_note="x")
    before = outbox_rows(house), house.rejects()
    assert replay(house.resources) == Replayed(still_rejected=1)
    assert (outbox_rows(house), house.rejects()) == before


def test_a_verdict_with_other_reasons_is_written_anew(house: House) -> None:
    house.deliver("M-1", gift_note="x", currency="XXX1")
    house.set_rules(body=LENIENT)
    assert replay(house.resources) == Replayed(still_rejected=1)
    [rejected] = house.rejects()
    assert [reason["field"] for reason in rejected.reasons] == ["currency"]


def test_a_row_that_is_good_now_goes_the_whole_way(house: House) -> None:
    house.deliver("M-1", gift_note="x")
    house.set_rules(body=LENIENT)
    assert replay(house.resources) == Replayed(taken=1)
    assert house.rejects() == []
    assert house.order("M-1").phase == "to_place"
    assert replay(house.resources) == Replayed()


def test_the_later_of_two_rejected_rows_of_an_order_wins(house: House) -> None:
    house.deliver("M-1", gift_note="first")
    house.deliver("M-1", gift_note="second")
    house.set_rules(body=LENIENT)
    assert replay(house.resources) == Replayed(taken=2)
    assert house.order("M-1").body["gift_note"] == "second"
    [replaced] = house.rejects()
    assert replaced.reasons[0]["code"] == "body_changed"
    assert "0001.jsonl row 1" in replaced.reasons[0]["message"]


def test_a_later_row_that_is_still_wrong_stands_although_an_earlier_one_was_taken(house: House) -> None:
    house.deliver("M-1", gift_note="x")
    house.deliver("M-1", currency="XXX1")
    house.set_rules(body=LENIENT)
    assert replay(house.resources) == Replayed(taken=1, still_rejected=1)
    assert [rejected.source for rejected in house.rejects()] == ["0002.jsonl"]


def test_a_row_whose_order_came_in_mended_is_not_read_again(house: House) -> None:
    house.deliver("M-1", gift_note="x")
    house.deliver("M-1", units=3)
    house.set_rules(body=LENIENT)
    assert replay(house.resources) == Replayed()
    assert house.order("M-1").ordered == {"M-1-1": 3}


def test_a_delivery_that_comes_in_between_is_not_undone(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.deliver("M-1", gift_note="x")
    house.set_rules(body=LENIENT)
    standing = rejects.standing

    def slow(connection: Connection) -> list[rejects.Rejected]:
        found = standing(connection)
        house.deliver("M-1", units=3)
        return found

    monkeypatch.setattr(rejects, "standing", slow)
    assert replay(house.resources) == Replayed(left=1)
    assert house.order("M-1").ordered == {"M-1-1": 3}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("orders.txt", b"anything", id="a file of another kind"),
        pytest.param("broken.parquet", b"no Parquet", id="a damaged file"),
        pytest.param("latin.jsonl", b'{"seller_id": "\xff"}\n', id="a line that is not UTF-8"),
        pytest.param("empty.csv", b"", id="a CSV without header"),
    ],
)
def test_what_was_not_kept_whole_keeps_its_reason(house: House, name: str, content: bytes) -> None:
    path = house.inbox / name
    path.write_bytes(content)
    house.intake()
    before = house.rejects()
    assert len(before) == 1
    assert replay(house.resources) == Replayed(still_rejected=1)
    assert house.rejects() == before


def test_a_cancellation_that_feedamp_refused_is_not_sent_over_shipped_units(house: House) -> None:
    house.placed("M-1")
    house.deliver("M-1", marketplace_state="CANCELLED")
    refuse(house, "M-1", phase="held")
    assert replay(house.resources) == Replayed(to_place=1)
    refuse(house, "M-1", phase="held")
    house.fulfill(
        "M-1", {"quantity": 1, "carrier": "UPS", "tracking_number": "x", "shipped_date": "2026-03-09"}
    )
    house.read()
    assert replay(house.resources) == Replayed(still_rejected=1)
    assert house.order("M-1").phase == "held"


def test_a_reject_of_a_closed_order_is_laid_aside(house: House) -> None:
    house.placed("M-1")
    refuse(house, "M-1", phase="closed")
    assert replay(house.resources) == Replayed(left=1)
    assert house.rejects() == []


def test_only_the_named_sources_are_read(house: House) -> None:
    house.deliver("M-1", gift_note="x")
    house.deliver("M-2", gift_note="x")
    house.set_rules(body=LENIENT)
    assert replay(house.resources, ["0002.jsonl"]) == Replayed(taken=1)
    assert [rejected.source for rejected in house.rejects()] == ["0001.jsonl"]


def test_more_rows_than_one_transaction_takes(house: House) -> None:
    house.drop("many.jsonl", *(house.body(f"M-{n}", gift_note="x") for n in range(401)))
    house.intake()
    house.set_rules(body=LENIENT)
    assert replay(house.resources) == Replayed(taken=401)
    assert house.rejects() == []
