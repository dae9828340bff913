"""FeedAMP answers 400: kept in its own words, and not repeated until the input changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from house import SELLER, House, open_house

from feedamp.order_body import BodyRules
from feedamp.steps.runner import finish

LENIENT = {"body": BodyRules(extra_order_fields=frozenset({"gift_note"}))}


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A house that lets a field through which FeedAMP refuses."""
    with open_house(tmp_path, rules=LENIENT) as opened:
        yield opened


def test_a_refused_order_stands_in_rejects_with_feedamps_words(house: House) -> None:
    house.placed("M-1", gift_note="hello")
    [rejected] = house.rejects()
    assert (rejected.stage, rejected.source, rejected.mp_order_number) == ("feedamp", "0001.jsonl", "M-1")
    assert rejected.reasons[0]["code"] == "refused_by_feedamp"
    assert "gift_note" in rejected.reasons[0]["message"]
    assert "gift_note" in str(house.order("M-1").reason)


def test_a_refused_order_is_not_sent_again(house: House) -> None:
    house.placed("M-1", gift_note="hello")
    house.clock.skip(days=30)
    house.placed("M-1", gift_note="hello")
    assert len(house.asked("PUT")) == 1


def test_a_refusal_leaves_the_run_green_with_a_note(house: House) -> None:
    house.deliver("M-1", gift_note="hello")
    result = house.place()
    assert (result.rejected, result.undone, len(result.notes)) == (1, [], 1)


def test_feedamps_words_are_not_logged(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """They may repeat a customer field (promise 9)."""
    house.deliver("M-1", gift_note="hello")
    finish(house.place())
    assert "refused by FeedAMP (400)" in caplog.text
    assert "gift_note" not in caplog.text


def test_one_refused_order_does_not_hinder_the_next(house: House) -> None:
    house.drop("orders.jsonl", house.body("M-1", gift_note="hello"), house.body("M-2"))
    house.intake()
    house.place()
    assert house.order("M-2").phase == "settled"


def test_a_mended_order_is_placed_and_its_reject_superseded(house: House) -> None:
    house.placed("M-1", gift_note="hello")
    house.placed("M-1")
    assert house.order("M-1").phase == "settled"
    assert house.rejects() == []


def test_a_refusal_stands_while_the_file_grows_around_it(house: House) -> None:
    """Promise 1: the row is still there, so is its reject."""
    house.drop("orders.jsonl", house.body("M-1", gift_note="hello"))
    house.intake()
    house.place()
    house.drop("orders.jsonl", house.body("M-1", gift_note="hello"), house.body("M-2"))
    house.intake()
    assert [rejected.stage for rejected in house.rejects()] == ["feedamp"]


def test_a_refused_change_leaves_the_order_open_at_feedamp(house: House) -> None:
    house.placed("M-1", marketplace_state="PENDING")
    with house.sandbox.world.lock:
        house.sandbox._order(SELLER, "M-1").marketplace_state = "SHIPPED"
    house.placed("M-1")
    order = house.order("M-1")
    assert (order.phase, order.accepted_state) == ("held", "PENDING")
    assert [(r.stage, r.source) for r in house.rejects()] == [("feedamp", "0002.jsonl")]


def test_a_host_that_knows_no_orders_refuses_no_order(house: House) -> None:
    house.placed("M-0")  # so that a live token is at hand
    house.deliver("M-1")
    right = house.resources.connection("feedamp")
    wrong = replace(right, endpoint=replace(right.endpoint, base_url=f"{house.sandbox.api}/v9"))
    house.resources = replace(house.resources, connection=lambda conn_id: wrong)
    result = house.place()
    assert result.undone
    assert house.order("M-1").phase == "to_place"
    assert house.rejects() == []
