"""Where the next extraction starts: RULES, Extraction."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from house import NOON, OTHER, SELLER, House, open_house, shipment

from feedamp.errors import IncompleteError
from feedamp.steps.runner import finish


@pytest.fixture(autouse=True)
def _no_rule_is_broken(house: House) -> Iterator[None]:
    yield
    assert house.sandbox.broken_rules == []


@pytest.fixture
def placed(house: House) -> House:
    """M-1 is placed and partly shipped since."""
    house.placed("M-1")
    house.fulfill("M-1", shipment(1))
    return house


def test_nothing_reaches_state_or_watermark_before_load(placed: House) -> None:
    mark, held = placed.watermark(), placed.held("M-1")
    placed.extract()
    assert (placed.watermark(), placed.held("M-1")) == (mark, held)


def test_the_watermark_is_the_start_of_the_read_less_the_overlap(house: House) -> None:
    started = house.clock.now()
    house.read()
    mark = house.watermark()
    assert mark is not None
    # The Date header, which has whole seconds, may be the earlier clock.
    assert -2 < (mark - (started - timedelta(minutes=10))).total_seconds() < 5


def test_the_first_read_has_no_lower_bound_and_the_next_starts_at_the_watermark(house: House) -> None:
    house.read()
    mark = house.watermark()
    assert mark is not None
    house.extract()
    first, *_, last = [r for r in house.asked("GET") if r.seller_id == SELLER]
    assert "seller_updated_after" not in first.query
    assert last.query["seller_updated_after"] == f"{mark:%Y-%m-%dT%H:%M:%S}Z"


def test_the_watermark_waits_for_an_incomplete_read_and_what_came_is_loaded(house: House) -> None:
    house.stock(51)
    house.sandbox.fault("repeat_cursor", times=None)
    house.sandbox.fault("empty_page", times=1)
    result = house.extract()
    with pytest.raises(IncompleteError):
        finish(result)
    house.load()
    assert house.watermark() is None
    assert house.watermark(OTHER) is not None
    [(complete, failed)] = house.rows("SELECT complete, sellers_failed FROM runs WHERE step = 'extract'")
    assert (complete, failed) == (False, 1)
    assert house.rows("SELECT count(*) FROM orders WHERE extracted_at IS NOT NULL") >= [(1,)]


SINCE = [
    pytest.param(timedelta(hours=-1), True, id="older than the watermark moves it"),
    pytest.param(timedelta(), True, id="the watermark itself moves it"),
    pytest.param(timedelta(minutes=30), False, id="newer than the watermark leaves it"),
]


@pytest.mark.parametrize(("shift", "moves"), SINCE)
def test_since_moves_the_watermark_only_if_nothing_lies_between(
    house: House, shift: timedelta, moves: bool
) -> None:
    house.read()
    mark = house.watermark()
    assert mark is not None
    house.clock.skip(hours=1)
    house.extract(since=mark + shift)
    house.load()
    assert (house.watermark() != mark) is moves


def test_since_reads_from_the_moment_named(placed: House) -> None:
    since = datetime(2026, 3, 10, 11, 30, tzinfo=UTC)
    placed.extract(since=since)
    assert placed.asked("GET")[-1].query["seller_updated_after"] == "2026-03-10T11:30:00Z"


def test_a_clock_of_feedamp_that_is_behind_sets_the_watermark(tmp_path: Path) -> None:
    folder = tmp_path / "behind"
    folder.mkdir()
    with open_house(folder) as house:
        house.sandbox.world.clock = lambda: house.clock.now() - timedelta(hours=1)
        house.read()
        assert house.watermark() < NOON - timedelta(hours=1)


def test_an_order_that_stays_unreadable_is_counted_and_the_watermark_waits(placed: House) -> None:
    placed.sandbox.fault("misshapen_order", seller_id=SELLER, times=None)
    result = placed.extract()
    assert finish(result)["orders_unread"] == 1
    placed.load()
    assert placed.watermark() is None
    assert placed.rows("SELECT orders_unread, complete FROM runs WHERE step = 'extract'") == [(1, False)]
