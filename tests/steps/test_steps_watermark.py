"""Where the next extraction starts: docs/rules.md, Extraction."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from env import OTHER, SELLER, Env, open_env

from crashes.clock import NOON
from feedamp.errors import IncompleteError
from feedamp.steps.step_end import finish

pytestmark = pytest.mark.usefixtures("no_rule_is_broken")


def test_nothing_reaches_state_or_watermark_before_load(placed: Env) -> None:
    mark, held = placed.watermark(), placed.held("M-1")
    placed.extract()
    assert (placed.watermark(), placed.held("M-1")) == (mark, held)


def test_the_watermark_is_the_start_of_the_read_less_the_overlap(env: Env) -> None:
    started = env.clock.now()
    env.read()
    mark = env.watermark()
    assert mark is not None
    # The Date header, which has whole seconds, may be the earlier clock.
    assert -2 < (mark - (started - timedelta(minutes=10))).total_seconds() < 5


def test_the_first_read_is_unbounded_and_the_next_starts_at_the_watermark(env: Env) -> None:
    env.read()
    mark = env.watermark()
    assert mark is not None
    env.extract()
    first, *_, last = [r for r in env.asked("GET") if r.seller_id == SELLER]
    assert "seller_updated_after" not in first.query
    assert last.query["seller_updated_after"] == f"{mark:%Y-%m-%dT%H:%M:%S}Z"


def test_the_watermark_waits_for_an_incomplete_read_and_what_came_is_loaded(env: Env) -> None:
    env.stock(51)
    env.sandbox.fault("repeat_cursor", times=None)
    env.sandbox.fault("empty_page", times=1, seller_id=SELLER)
    result = env.extract()
    with pytest.raises(IncompleteError):
        finish(result)
    env.load()
    assert env.watermark() is None
    assert env.watermark(OTHER) is not None
    [(complete, failed)] = env.rows("SELECT complete, sellers_failed FROM runs WHERE step = 'extract'")
    assert (complete, failed) == (False, 1)
    assert env.rows("SELECT count(*) FROM orders WHERE extracted_at IS NOT NULL") >= [(1,)]


SINCE = [
    pytest.param(timedelta(hours=-1), True, id="older than the watermark moves it"),
    pytest.param(timedelta(), True, id="the watermark itself moves it"),
    pytest.param(timedelta(minutes=30), False, id="newer than the watermark leaves it"),
]


@pytest.mark.parametrize(("shift", "moves"), SINCE)
def test_since_moves_the_watermark_only_if_nothing_lies_between(
    env: Env, shift: timedelta, moves: bool
) -> None:
    env.read()
    mark = env.watermark()
    assert mark is not None
    env.clock.skip(hours=1)
    env.extract(since=mark + shift)
    env.load()
    assert (env.watermark() != mark) is moves


def test_since_reads_from_the_moment_named(placed: Env) -> None:
    since = datetime(2026, 3, 10, 11, 30, tzinfo=UTC)
    placed.extract(since=since)
    assert placed.asked("GET")[-1].query["seller_updated_after"] == "2026-03-10T11:30:00Z"


def test_a_clock_of_feedamp_that_is_behind_sets_the_watermark() -> None:
    with open_env() as env:
        env.sandbox.world.clock = lambda: env.clock.now() - timedelta(hours=1)
        env.read()
        assert env.watermark() < NOON - timedelta(hours=1)


def test_an_order_that_stays_unreadable_is_counted_and_the_watermark_waits(placed: Env) -> None:
    placed.sandbox.fault("misshapen_order", seller_id=SELLER, times=None)
    result = placed.extract()
    assert finish(result)["orders_unread"] == 1
    placed.load()
    assert placed.watermark() is None
    assert placed.rows("SELECT orders_unread, complete FROM runs WHERE step = 'extract'") == [(1, False)]
