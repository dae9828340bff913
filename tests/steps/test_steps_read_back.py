"""A state that we set reaches lake and warehouse even if the read that follows it fails or never comes."""

from __future__ import annotations

import pytest
from house import House


def status(house: House, number: str) -> tuple[str, str]:
    [row] = house.rows(f"SELECT marketplace_state, status FROM orders WHERE mp_order_number = '{number}'")
    return row


def changed(house: House, state: str) -> None:
    """An order that FeedAMP and the warehouse knew as PENDING is set to a state, and cannot be read back at once."""
    house.placed("M-1", marketplace_state="PENDING")
    house.see("M-1")
    house.read()
    house.drop("later.jsonl", house.body("M-1", marketplace_state=state))
    house.intake()
    house.sandbox.fault("error_500", method="GET", path="/orders$", times=None)
    house.place()
    house.sandbox.clear_faults()
    house.load()


@pytest.mark.parametrize(
    ("state", "shown"),
    [
        pytest.param("AWAITING_SHIPMENT", "ORDERED", id="an order that is released"),
        pytest.param("CANCELLED", "COMPLETE", id="an order that the marketplace cancels"),
    ],
)
def test_the_next_extraction_reads_what_could_not_be_read_back(house: House, state: str, shown: str) -> None:
    changed(house, state)
    assert house.order("M-1").next_try_at is not None
    house.read()
    assert status(house, "M-1") == (state, shown)
    assert house.order("M-1").next_try_at is None


def test_an_order_that_was_read_back_is_not_read_again(house: House) -> None:
    house.placed("M-1", marketplace_state="PENDING")
    house.placed("M-1")
    house.load()
    house.read()
    before = len(house.asked("GET"))
    house.clock.skip(hours=1)
    house.read()
    assert [r.query for r in house.asked("GET")[before:] if "mp_order_numbers" in r.query] == []


def test_an_older_read_does_not_count(house: House) -> None:
    house.placed("M-1", marketplace_state="PENDING")
    house.extract()  # read before the change, loaded after it
    house.drop("later.jsonl", house.body("M-1"))
    house.intake()
    house.sandbox.fault("error_500", method="GET", times=None)
    house.place()
    house.sandbox.clear_faults()
    house.load()
    assert house.order("M-1").next_try_at is not None
    house.read()
    assert status(house, "M-1") == ("AWAITING_SHIPMENT", "ORDERED")
