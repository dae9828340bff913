"""What the overlap of two reads covers: an index that lags, clocks apart, orders that move; and what it does not."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from env import OTHER, SELLER, Env, open_env, shipment

from feedamp.steps.step_end import finish

OVERLAP_S = 600
EVERY_S = 900


@pytest.fixture
def small() -> Iterator[Env]:
    """An env whose pages hold ten orders."""
    with open_env(rules={"page_size": 10}) as opened:
        yield opened


def shipped_in_the_warehouse(env: Env, number: str = "M-1") -> bool:
    return env.rows(f"SELECT units_shipped FROM orders WHERE mp_order_number = '{number}'") == [(2,)]


def apart(env: Env, seconds: float) -> None:
    """FeedAMP's clock is off, for its Date header and for every time it stamps and compares."""
    env.sandbox.fault("clock_apart", times=None, seconds=seconds)


@pytest.mark.parametrize(
    ("apart_s", "shipped_before_s"),
    [(apart_s, ends_s) for apart_s in (-90, 90) for ends_s in (1, OVERLAP_S - 5)],
)
def test_a_change_hidden_at_one_read_is_found_by_the_next(
    env: Env, apart_s: int, shipped_before_s: int
) -> None:
    """The index lags so much that the read just does not see it: the lag that is worst for this change."""
    env.placed("M-1")
    env.clock.skip(hours=1)
    apart(env, apart_s)
    env.read()
    env.clock.skip(seconds=EVERY_S - shipped_before_s)
    env.fulfill("M-1", shipment(2))
    env.clock.skip(seconds=shipped_before_s)
    env.sandbox.clear_faults()
    # The list that this read gets was made before the change; only the Date header tells FeedAMP's time.
    hidden = env.sandbox._order(SELLER, "M-1").seller_updated_at
    env.sandbox._order(SELLER, "M-1").seller_updated_at = None
    apart(env, apart_s)
    env.read()
    env.sandbox._order(SELLER, "M-1").seller_updated_at = hidden
    assert not shipped_in_the_warehouse(env)
    env.clock.skip(seconds=EVERY_S)
    env.read()
    assert shipped_in_the_warehouse(env)


def test_a_change_hidden_longer_than_the_overlap_waits_for_the_next_update(
    env: Env,
) -> None:
    env.placed("M-1")
    env.clock.skip(hours=1)
    env.read()
    env.clock.skip(seconds=60)
    env.fulfill("M-1", shipment(2))
    env.clock.skip(seconds=OVERLAP_S + 60)
    env.sandbox.fault("index_lag", times=None, seconds=OVERLAP_S + 180)
    env.read()
    env.clock.skip(seconds=EVERY_S)
    env.read()
    assert not shipped_in_the_warehouse(env)
    env.reconcile()  # it reads by number, and the index has caught up with the change long since
    env.load()
    differences = env.rows("SELECT field FROM reconciliations WHERE mp_order_number = 'M-1'")
    assert ("order_lines[M-1-1].units_shipped",) in differences
    env.fulfill("M-1", shipment(1), shipment(1, "1Z999AA10123456793"))
    env.sandbox.clear_faults()
    env.read()
    assert shipped_in_the_warehouse(env)


@pytest.mark.parametrize("lag_s", [5, OVERLAP_S - 60])
def test_an_index_that_always_lags_loses_nothing_within_the_overlap(env: Env, lag_s: int) -> None:
    env.placed("M-1", "M-2")
    env.sandbox.fault("index_lag", times=None, seconds=lag_s)
    env.clock.skip(hours=1)
    env.read()
    env.clock.skip(seconds=EVERY_S - 2)
    env.fulfill("M-1", shipment(2))
    env.read()
    assert not shipped_in_the_warehouse(env)
    env.clock.skip(seconds=EVERY_S)
    env.fulfill("M-2", shipment(2, "1Z999AA10123456793"))
    env.read()
    assert shipped_in_the_warehouse(env)
    env.clock.skip(seconds=EVERY_S)
    env.read()
    assert shipped_in_the_warehouse(env, "M-2")


@pytest.mark.parametrize(
    ("apart_s", "warned"),
    [(90, False), (-90, False), (310, True), (-310, True)],
    ids=["a little ahead", "a little behind", "far ahead", "far behind"],
)
def test_clocks_that_differ_by_more_than_half_the_overlap_are_warned_of(
    env: Env, caplog: pytest.LogCaptureFixture, apart_s: int, warned: bool
) -> None:
    apart(env, apart_s)
    with caplog.at_level(logging.WARNING):
        finish(env.extract())
    said = [message for message in caplog.messages if "FeedAMP's clock and the state database's" in message]
    assert len(said) == int(warned)  # one line, although it is so for both sellers


def list_requests(env: Env, since: int) -> int:
    return sum(request.path.endswith("/orders") for request in env.asked("GET")[since:])


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("move_up", id="an order that is updated onto a page already read"),
        pytest.param("shift_pages", id="an order that slips unchanged to a page already read"),
        pytest.param("change_after_read", id="an order that is updated after its page was read"),
    ],
)
def test_a_list_that_moved_while_it_was_read_is_read_once_more(small: Env, kind: str) -> None:
    small.stock(25)
    small.clock.skip(hours=1)  # no overlap reaches back to when the others were updated
    small.sandbox.fault(kind, seller_id=SELLER)  # type: ignore[arg-type]
    before = len(small.asked("GET"))
    result = small.extract()
    small.load()
    assert small.rows("SELECT count(*) FROM orders") == [(25,)]
    assert small.rows("SELECT count(*) FROM orders WHERE acknowledged") == [(1,)]
    assert (result.complete, result.notes) == (True, [])
    assert list_requests(small, before) == 3 + 1 + 3 + 1 + 1  # both times with one question; the other seller
    assert small.watermark() is not None


@pytest.mark.parametrize(
    ("orders", "requests"),
    [
        pytest.param(10, 1, id="a read of one page asks nothing more"),
        pytest.param(11, 3, id="a read of two pages asks once more"),
    ],
)
def test_a_list_at_rest_is_read_once(small: Env, orders: int, requests: int) -> None:
    small.stock(orders)
    small.clock.skip(minutes=15)
    before = len(small.asked("GET"))
    small.read()
    assert list_requests(small, before) == requests + 1  # of the other seller one


def test_a_list_that_never_rests_is_read_twice_and_the_run_says_so(small: Env) -> None:
    small.stock(25)
    small.clock.skip(hours=1)
    small.sandbox.fault("shift_pages", seller_id=SELLER, times=None)
    result = small.extract()
    [note] = result.notes
    assert note == (
        f"{SELLER}: FeedAMP's list of orders changed each of the 2 times it was read, so an order may have moved from "
        "one page to another without being read. It is not lost: it is read with its next update, and "
        "feedamp_reconcile_orders finds it by its number."
    )
    assert result.complete
    small.load()
    assert small.watermark() is not None  # else a busy seller's window would grow forever


def test_a_second_read_that_breaks_is_not_complete(small: Env) -> None:
    small.stock(25)
    small.clock.skip(hours=1)
    small.sandbox.fault("shift_pages", seller_id=SELLER)
    small.sandbox.fault(
        "clock_apart", seller_id=SELLER, times=3, seconds=0
    )  # the other requests of the first read
    small.sandbox.fault("error_503", path="^/orders", seller_id=SELLER, times=None)
    result = small.extract()
    assert (result.complete, result.orders) == (False, 25)  # one of them twice
    small.load()
    assert small.watermark() is None


@pytest.mark.parametrize("how", ["closed", "cancelled by the marketplace"])
def test_an_index_that_lags_does_not_bring_the_state_back_that_we_have_changed(env: Env, how: str) -> None:
    env.placed("M-1")
    if how == "closed":
        env.fulfill("M-1", shipment(2))
    env.read()
    env.clock.skip(hours=1)
    env.read()  # from here on no overlap reaches back to the seller's update
    env.sandbox.fault("index_lag", times=None, seconds=30)
    if how == "closed":
        env.process()
    else:
        env.deliver("M-1", marketplace_state="CANCELLED")
        env.place()
    env.load()
    env.sandbox.clear_faults()
    for _ in range(2):
        env.clock.skip(minutes=15)
        env.read()
    state = env.shown("M-1")["marketplace_state"]
    shown = env.rows("SELECT marketplace_state, status FROM orders WHERE mp_order_number = 'M-1'")
    assert (state in ("SHIPPED", "CANCELLED"), shown) == (True, [(state, "COMPLETE")])


def closed_between_two_reads(env: Env, how: str) -> None:
    """The next read returns the seller's update for the last time."""
    env.placed("M-1")
    if how == "closed":
        env.fulfill("M-1", shipment(2))
    else:
        env.sandbox.set_marketplace_fulfilled(SELLER, "M-1")  # a seller's update, too
        env.sandbox.set_marketplace_fulfilled(SELLER, "M-1", False)
    env.read()
    env.clock.skip(seconds=OVERLAP_S - 30)
    if how == "closed":
        env.process()
    else:
        env.deliver("M-1", marketplace_state="CANCELLED")
        env.place()
    env.load()


def state_and_closing(env: Env) -> tuple[str, str, bool]:
    [row] = env.rows("SELECT marketplace_state, status, closed_at IS NULL FROM orders")
    return row


how_it_ended = pytest.mark.parametrize(
    ("how", "state"), [("closed", "SHIPPED"), ("cancelled by the marketplace", "CANCELLED")]
)


@how_it_ended
def test_a_list_behind_our_closing_does_not_open_the_order_again(env: Env, how: str, state: str) -> None:
    closed_between_two_reads(env, how)
    env.sandbox.fault("index_lag", times=None, seconds=30)
    before = len(env.asked("GET"))
    env.read()
    alone = [r for r in env.asked("GET")[before:] if r.path.endswith("/orders/M-1")]
    env.sandbox.clear_faults()
    assert (state_and_closing(env), len(alone)) == ((state, "COMPLETE", False), 1)
    for _ in range(2):
        env.clock.skip(minutes=15)
        env.read()
    assert state_and_closing(env) == (state, "COMPLETE", False)


@how_it_ended
def test_an_order_that_is_behind_by_itself_too_waits_for_the_next_extraction(
    env: Env, how: str, state: str
) -> None:
    closed_between_two_reads(env, how)
    held = env.sandbox._order(SELLER, "M-1")
    held.marketplace_state = (
        "AWAITING_SHIPMENT"  # as a copy of FeedAMP's data shows it that has not followed yet
    )
    result = env.extract()
    held.marketplace_state = state
    env.load()
    assert (result.complete, state_and_closing(env)) == (True, (state, "COMPLETE", False))
    assert env.order("M-1").read_back_at is not None
    env.clock.skip(minutes=15)
    env.read()
    assert env.order("M-1").read_back_at is None
    assert state_and_closing(env) == (state, "COMPLETE", False)


def test_an_order_that_feedamp_opens_again_is_shown_open_after_the_overlap(env: Env) -> None:
    closed_between_two_reads(env, "closed")
    env.sandbox._order(SELLER, "M-1").marketplace_state = "AWAITING_SHIPMENT"
    env.read()
    assert state_and_closing(env)[0] == "SHIPPED"
    env.clock.skip(minutes=15)
    env.read()  # no one has updated it, yet it is read once more
    assert state_and_closing(env)[::2] == ("AWAITING_SHIPMENT", True)


PROOFS = [
    pytest.param("repeat_cursor", 1, id="a cursor that repeats"),
    pytest.param("null_orders", None, id="a page without its orders"),
    pytest.param("misshapen_order", None, id="an order that stays unread"),
    pytest.param("expire_cursor", None, id="a cursor that expires again and again"),
    pytest.param("error_503", None, id="no answer"),
    pytest.param("cut_body", None, id="half an answer"),
]


@pytest.mark.parametrize(("kind", "times"), PROOFS)
def test_without_the_end_marker_runs_say_so_and_the_watermark_waits(
    small: Env, kind: str, times: int | None
) -> None:
    small.stock(25)
    small.read()
    marks = small.watermark(), small.watermark(OTHER)
    small.clock.skip(hours=1)
    for number in range(25):
        small.sandbox.set_marketplace_fulfilled(SELLER, f"X-{number}")
    small.sandbox.fault(kind, path="^/orders", seller_id=SELLER, times=times)  # type: ignore[arg-type]
    small.read()
    complete = "SELECT complete, pages FROM runs WHERE step = 'extract' ORDER BY started_at"
    assert [row[0] for row in small.rows(complete)] == [True, False]
    assert small.watermark() == marks[0]
    assert small.watermark(OTHER) != marks[1]
    small.sandbox.clear_faults()
    small.clock.skip(minutes=15)
    small.read()
    assert small.rows(complete)[-1] == (
        True,
        5,
    )  # three of the one seller and whether they moved, one of the other
    assert small.watermark() != marks[0]
    assert small.rows("SELECT count(*) FROM orders WHERE is_marketplace_fulfilled") == [(25,)]
