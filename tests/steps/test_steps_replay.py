"""Rejected rows read again: what today's rules allow is taken, a verdict that stays the same writes nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sqlalchemy as sa
from env import SELLER, Env
from sqlalchemy.engine import Connection

from feedamp.order_body import BodyRules
from feedamp.state import ledger, rejects, schema
from feedamp.steps.place_orders.replay import Replayed, replay

LENIENT = BodyRules(extra_order_fields=frozenset({"gift_note"}))


def outbox_rows(env: Env) -> int:
    with env.state.read() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(schema.outbox)).scalar_one()


def refuse(env: Env, number: str, *, phase: str) -> None:
    """Writes a reject of stage feedamp, as `place` does."""
    order = env.order(number)
    now = env.state.now()
    with env.state.begin() as connection:
        ledger.write(connection, replace(order, phase=phase, reason="FeedAMP answered 409"))
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


def test_a_verdict_that_stays_the_same_writes_nothing(env: Env) -> None:
    env.deliver("M-1", gift_note="x")
    before = outbox_rows(env), env.rejects()
    assert replay(env.resources) == Replayed(still_rejected=1)
    assert (outbox_rows(env), env.rejects()) == before


def test_a_reject_with_other_reasons_is_written_again(env: Env) -> None:
    env.deliver("M-1", gift_note="x", currency="XXX1")
    env.set_rules(body=LENIENT)
    assert replay(env.resources) == Replayed(still_rejected=1)
    [rejected] = env.rejects()
    assert [reason["field"] for reason in rejected.reasons] == ["currency"]


def test_a_row_that_is_good_now_goes_the_whole_way(env: Env) -> None:
    env.deliver("M-1", gift_note="x")
    env.set_rules(body=LENIENT)
    assert replay(env.resources) == Replayed(taken=1)
    assert env.rejects() == []
    assert env.order("M-1").phase == "to_place"
    assert replay(env.resources) == Replayed()


def test_the_later_of_two_rejected_rows_of_an_order_wins(env: Env) -> None:
    env.deliver("M-1", gift_note="first")
    env.deliver("M-1", gift_note="second")
    env.set_rules(body=LENIENT)
    assert replay(env.resources) == Replayed(taken=2)
    assert env.order("M-1").body["gift_note"] == "second"
    [replaced] = env.rejects()
    assert replaced.reasons[0]["code"] == "body_changed"
    assert "0001.jsonl row 1" in replaced.reasons[0]["message"]


def test_a_later_bad_row_stays_rejected_although_an_earlier_one_was_accepted(env: Env) -> None:
    env.deliver("M-1", gift_note="x")
    env.deliver("M-1", currency="XXX1")
    env.set_rules(body=LENIENT)
    assert replay(env.resources) == Replayed(taken=1, still_rejected=1)
    assert [rejected.source for rejected in env.rejects()] == ["0002.jsonl"]


def test_a_row_whose_order_was_redelivered_correctly_is_not_read_again(env: Env) -> None:
    env.deliver("M-1", gift_note="x")
    env.deliver("M-1", units=3)
    env.set_rules(body=LENIENT)
    assert replay(env.resources) == Replayed()
    assert env.order("M-1").ordered == {"M-1-1": 3}


def test_a_delivery_that_comes_in_between_is_not_undone(env: Env, monkeypatch: pytest.MonkeyPatch) -> None:
    env.deliver("M-1", gift_note="x")
    env.set_rules(body=LENIENT)
    read_open = rejects.read_open

    def slow(connection: Connection) -> list[rejects.Rejected]:
        found = read_open(connection)
        env.deliver("M-1", units=3)
        return found

    monkeypatch.setattr(rejects, "read_open", slow)
    assert replay(env.resources) == Replayed(left=1)
    assert env.order("M-1").ordered == {"M-1-1": 3}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("orders.txt", b"anything", id="a file of another kind"),
        pytest.param("broken.parquet", b"no Parquet", id="a damaged file"),
        pytest.param("latin.jsonl", b'{"seller_id": "\xff"}\n', id="a line that is not UTF-8"),
        pytest.param("empty.csv", b"", id="a CSV without header"),
    ],
)
def test_what_was_not_kept_whole_keeps_its_reason(env: Env, name: str, content: bytes) -> None:
    path = env.inbox / name
    path.write_bytes(content)
    env.intake()
    before = env.rejects()
    assert len(before) == 1
    assert replay(env.resources) == Replayed(still_rejected=1)
    assert env.rejects() == before


def test_a_cancellation_that_feedamp_refused_is_not_sent_over_shipped_units(env: Env) -> None:
    env.placed("M-1")
    env.deliver("M-1", marketplace_state="CANCELLED")
    refuse(env, "M-1", phase="held")
    assert replay(env.resources) == Replayed(to_place=1)
    refuse(env, "M-1", phase="held")
    env.fulfill(
        "M-1", {"quantity": 1, "carrier": "UPS", "tracking_number": "x", "shipped_date": "2026-03-09"}
    )
    env.read()
    assert replay(env.resources) == Replayed(still_rejected=1)
    assert env.order("M-1").phase == "held"


def test_a_reject_of_a_closed_order_is_laid_aside(env: Env) -> None:
    env.placed("M-1")
    refuse(env, "M-1", phase="closed")
    assert replay(env.resources) == Replayed(left=1)
    assert env.rejects() == []


def test_only_the_named_sources_are_read(env: Env) -> None:
    env.deliver("M-1", gift_note="x")
    env.deliver("M-2", gift_note="x")
    env.set_rules(body=LENIENT)
    assert replay(env.resources, ["0002.jsonl"]) == Replayed(taken=1)
    assert [rejected.source for rejected in env.rejects()] == ["0001.jsonl"]


def test_more_rows_than_one_transaction_takes(env: Env) -> None:
    env.drop("many.jsonl", *(env.body(f"M-{n}", gift_note="x") for n in range(401)))
    env.intake()
    env.set_rules(body=LENIENT)
    assert replay(env.resources) == Replayed(taken=401)
    assert env.rejects() == []
