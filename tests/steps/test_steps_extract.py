"""FeedAMP -> lake -> warehouse -> state -> watermark: promises 3, 4, 8, 12 and docs/rules.md, Extraction."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from env import OTHER, SELLER, Env, open_env, shipment

from crashes.clock import NOON
from feedamp.api.pages import OrderPage
from feedamp.models import Order, ReadOrder
from feedamp.state import extraction_start, grants, manifests, schema, sellers
from feedamp.steps.extract_fulfillments import extract, publisher
from feedamp.steps.extract_fulfillments.publisher import ManifestPublisher, Then
from feedamp.steps.step_end import finish
from feedamp_sandbox.faults import Kind

pytestmark = pytest.mark.usefixtures("no_rule_is_broken")


def test_a_fulfillment_reaches_lake_warehouse_and_state(placed: Env) -> None:
    placed.read()
    assert placed.rows("SELECT quantity, carrier, tracking_check FROM shipments") == [(1, "UPS", "valid")]
    held = placed.held("M-1")
    assert held is not None
    assert held.snapshot.fulfillments[0].shipments[0].quantity == 1


def test_sellers_with_nothing_new_cost_five_transactions_together(env: Env) -> None:
    """The request rates taken and given back, the manifest announced, the row of the run, and the refused grants of all."""
    env.read()
    committed: list[object] = []
    sa.event.listen(env.state.engine, "commit", committed.append)
    env.extract()
    assert len(committed) == 5


def test_the_warehouse_says_when_the_request_was_sent(placed: Env) -> None:
    before = placed.state.now()
    placed.extract()
    after = placed.state.now()
    placed.load()
    [(extracted_at,)] = placed.rows("SELECT extracted_at FROM orders")
    assert before < extracted_at < after


def test_reading_twice_gives_the_same_warehouse(placed: Env) -> None:
    placed.read()
    query = (
        "SELECT orders.* EXCLUDE (extracted_at, recorded_at), shipments.* EXCLUDE (recorded_at) "
        "FROM orders JOIN shipments USING (seller_id, mp_order_number)"
    )
    before = placed.rows(query)
    placed.read()
    assert placed.rows(query) == before


COUNTS = [
    pytest.param(0, 1, id="no order"),
    pytest.param(1, 1, id="one order"),
    pytest.param(50, 1, id="exactly a page"),
    pytest.param(51, 3, id="a page plus one, and the question whether anything moved"),
]


@pytest.mark.parametrize(("orders", "pages"), COUNTS)
def test_every_page_is_read(env: Env, orders: int, pages: int) -> None:
    env.stock(orders)
    env.clock.skip(minutes=15)
    before = len([r for r in env.asked("GET") if r.seller_id == SELLER])
    result = env.extract()
    assert (result.orders, result.complete) == (orders, True)
    assert len([r for r in env.asked("GET") if r.seller_id == SELLER]) - before == pages


@pytest.mark.parametrize(
    "kind", ["expire_cursor", "empty_page", "null_orders", "error_500", "cut_body", "broken_json"]
)
def test_a_page_that_fails_once_loses_nothing(env: Env, kind: Kind) -> None:
    env.stock(51)
    env.sandbox.fault(kind, method="GET", path="/orders$", seller_id=SELLER)
    result = env.extract()
    env.load()
    assert result.complete
    assert env.rows("SELECT count(*) FROM orders WHERE extracted_at IS NOT NULL") == [(51,)]
    assert env.watermark() is not None


@pytest.mark.parametrize("trouble", ["an outage", "a revoked grant", "a refused query"])
def test_one_failing_seller_does_not_delay_another(env: Env, trouble: str) -> None:
    env.placed("M-2", seller=OTHER)
    if trouble == "a revoked grant":
        env.sandbox.revoke(SELLER)
    else:
        kind: Kind = "error_503" if trouble == "an outage" else "expire_cursor"
        env.sandbox.fault(kind, seller_id=SELLER, path="/orders", times=None)
    if trouble == "a refused query":
        env.stock(51)
    result = env.extract()
    env.load()
    assert result.failed_sellers == {SELLER}
    assert env.watermark() is None
    assert env.watermark(OTHER) is not None
    assert env.rows("SELECT complete FROM runs WHERE step = 'extract'") == [(False,)]


def test_a_refused_grant_is_marked_noted_and_green(env: Env) -> None:
    env.sandbox.revoke(SELLER)
    result = env.extract()
    assert finish(result)["notes"] == 1
    with env.state.read() as connection:
        grant = grants.read(connection, env.cipher, SELLER)
        assert grant is not None
        assert grant.status == "needs_authorization"
        assert SELLER not in [seller.seller_id for seller in sellers.workable(connection)]


def test_an_unreadable_order_is_read_by_itself(placed: Env) -> None:
    placed.sandbox.fault("misshapen_order", path="/orders$", seller_id=SELLER)
    result = placed.extract()
    placed.load()
    assert (result.orders, result.orders_unread) == (1, 0)
    assert placed.rows("SELECT units_shipped FROM orders") == [(1,)]


def test_unknown_fields_and_values_are_kept(placed: Env) -> None:
    placed.sandbox.fault("unknown_values", times=None)
    placed.read()
    [(status, extra)] = placed.rows("SELECT status, extra FROM orders")
    assert status == "AWAITING_PICKUP"
    assert json.loads(extra)["gift_wrap"]["paper"] == "red"


def test_numbers_sent_as_text_are_read_as_meant(placed: Env) -> None:
    placed.sandbox.fault("numbers_as_strings", times=None)
    placed.read()
    assert placed.rows("SELECT quantity, unit_price FROM order_lines") == [(2, Decimal("25.5000"))]


SHAPES: list[Any] = [
    pytest.param({"fulfillments_in_list": "absent"}, id="the list carries no fulfillments"),
    pytest.param({"fulfillments_in_list": "flat"}, id="the list carries another shape"),
    pytest.param({"sparse_fulfillments": True}, id="empty lists are left out"),
    pytest.param({"last_cursor": "absent"}, id="the last page has no cursor field"),
    pytest.param({"last_cursor": "empty"}, id="the last page has an empty cursor"),
]


@pytest.mark.parametrize("options", SHAPES)
def test_whatever_the_list_looks_like_the_fulfillments_arrive(options: dict[str, Any]) -> None:
    with open_env(**options) as env:
        env.placed("M-1")
        env.fulfill("M-1", shipment(1), cancelled=1)
        env.read()
        assert env.rows("SELECT units_shipped, units_cancelled FROM orders") == [(1, 1)]
        assert env.sandbox.broken_rules == []


def test_an_order_that_we_did_not_place_is_shown_but_never_held_in_the_state(env: Env) -> None:
    env.stock(1)
    env.fulfill("X-0", shipment(2))
    env.read()
    env.process()
    assert env.rows("SELECT mp_order_number, placed_at FROM orders") == [("X-0", None)]
    assert env.held("X-0") is None
    assert env.asked("PUT") + env.asked("POST", "/errors") == []


def test_an_older_snapshot_never_replaces_a_newer_one_in_the_state(placed: Env) -> None:
    placed.extract()
    with placed.state.read() as connection:
        late = manifests.pending(connection)
    placed.fulfill("M-1", shipment(2))
    placed.see("M-1")
    newest = placed.held("M-1")
    placed.load()
    assert late
    assert placed.held("M-1") == newest


def test_equal_content_is_no_change_for_validation(placed: Env) -> None:
    placed.see("M-1")
    placed.validate()
    placed.clock.skip(hours=1)
    placed.see("M-1")
    held = placed.held("M-1")
    assert held is not None
    assert held.validated_hash == held.snapshot_hash
    assert held.read_at > NOON + timedelta(hours=1)


def test_an_order_extracted_before_its_lost_put_was_repeated_is_still_closed(env: Env) -> None:
    env.sandbox.fault("reset_after", method="PUT", times=4)
    env.placed("M-1")
    env.fulfill("M-1", shipment(2))
    env.read()
    env.clock.skip(hours=1)
    env.place()
    env.process()
    assert env.order("M-1").phase == "closed"


def test_a_dry_run_asks_and_writes_nothing(placed: Env) -> None:
    before = len(placed.sandbox.requests)
    result = placed.extract(dry_run=True)
    assert result.sellers == 2
    assert len(placed.sandbox.requests) == before
    assert not (placed.folder / "lake").exists()


@pytest.mark.parametrize(
    ("sellers_at_once", "page_bytes", "pages_together"),
    [
        pytest.param(1, 70_000, 20, id="one seller holds a thousand orders"),
        pytest.param(3, 70_000, 20, id="so does each of three"),
        pytest.param(20, 70_000, 3, id="twenty share what three may hold"),
        pytest.param(300, 70_000, 1, id="a page is never waited with for lack of room"),
        pytest.param(1, 1_000_000, 2, id="large pages"),
    ],
)
def test_pages_that_come_fast_are_taken_in_together_within_bounds(
    sellers_at_once: int, page_bytes: int, pages_together: int
) -> None:
    page = OrderPage((Order(mp_order_number="M-1"),) * 50, (), "more", NOON, None, size=page_bytes)

    async def pages() -> AsyncGenerator[OrderPage, None]:
        for _ in range(2 * pages_together + 1):
            yield page

    async def sizes() -> list[int]:
        group = extract._PageGroup(
            of_sellers=sellers_at_once,
            held=extract.HELD,
            now=lambda: NOON,
            ends_at=NOON + timedelta(hours=1),
        )
        found, has_more = list[int](), True
        async with aclosing(pages()) as read:
            while has_more:
                has_more = await group.fill(read)
                found.append(len(group.pages))
        return [size for size in found if size]

    assert asyncio.run(sizes()) == [pages_together, pages_together, 1]


@pytest.mark.parametrize(("held_ms", "together"), [(0, 1), (100, 3), (1_000, 7)])
def test_pages_that_come_slowly_are_taken_in_when_the_first_was_held_so_long(
    held_ms: int, together: int
) -> None:
    came = 0

    async def pages() -> AsyncGenerator[OrderPage, None]:
        nonlocal came
        while came < 7:
            yield OrderPage((Order(mp_order_number="M-1"),), (), "more", NOON, None, size=1_000)
            came += 1

    async def first() -> int:
        group = extract._PageGroup(
            of_sellers=1,
            held=timedelta(milliseconds=held_ms),
            now=lambda: NOON + came * timedelta(milliseconds=50),
            ends_at=NOON + timedelta(hours=1),
        )
        async with aclosing(pages()) as read:
            await group.fill(read)
        return len(group.pages)

    assert asyncio.run(first()) == together


@pytest.mark.parametrize(
    ("most_asking_ahead", "held", "taken", "written"),
    [
        pytest.param(8, (timedelta(0), timedelta(hours=1)), [10, 10, 10], [10, 10, 10], id="slow pages"),
        pytest.param(8, (timedelta(hours=1), timedelta(0)), [20, 10], [30], id="fast pages"),
        pytest.param(0, (timedelta(0), timedelta(hours=1)), [20, 10], [30], id="many sellers"),
        pytest.param(0, (timedelta(0), timedelta(0)), [10, 10, 10], [30], id="slow pages of many sellers"),
    ],
)
def test_what_slow_pages_bring_is_written_by_itself_unless_sellers_are_many(
    monkeypatch: pytest.MonkeyPatch,
    most_asking_ahead: int,
    held: tuple[timedelta, timedelta],
    taken: list[int],
    written: list[int],
) -> None:
    class Noted(ManifestPublisher):
        def take(self, seller_id: str, orders: Sequence[ReadOrder], size: int, then: Then) -> None:
            took.append(len(orders))
            super().take(seller_id, orders, size, then)

        def _written(self, sellers: Sequence[str], orders: Sequence[ReadOrder]) -> dict[int, str]:
            wrote.append(len(orders))
            return super()._written(sellers, orders)

    took: list[int] = []
    wrote: list[int] = []
    monkeypatch.setattr(extract, "ManifestPublisher", Noted)
    monkeypatch.setattr(extract, "MOST_SELLERS_ASKING_AHEAD", most_asking_ahead)
    monkeypatch.setattr(extract, "ORDERS_HELD", 60)  # of which a seller has a third
    monkeypatch.setattr(extract, "HELD", held[0])
    monkeypatch.setattr(extract, "HELD_OF_MANY", held[1])
    with open_env(rules={"page_size": 10}) as env:
        env.stock(30)
        env.clock.skip(minutes=15)
        # Alone, since what waits is also written when another seller's list ends.
        assert env.for_sellers("extract", SELLER).complete
    assert ([*filter(None, took)], [*filter(None, wrote)]) == (taken, written)


def test_a_seller_without_orders_makes_the_run_no_poorer(env: Env) -> None:
    assert finish(env.extract())["sellers"] == 2


def test_a_large_read_is_published_in_manifests_of_whole_orders(
    placed: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A load's memory is that of one manifest; the watermark comes with the last."""
    monkeypatch.setattr(publisher, "ORDERS_PER_MANIFEST", 20)
    placed.stock(50)
    placed.clock.skip(minutes=5)  # nothing moves while it is read
    placed.extract()
    manifests = [m for m in placed.resources.lake.manifests() if m.dag_id == "feedamp_extract_fulfillments"]
    assert len(manifests) == 3
    assert [bool(manifest.sweeps) for manifest in manifests] == [False, False, True]
    placed.load()
    assert placed.rows("SELECT count(*) FROM orders WHERE extracted_at IS NOT NULL") == [(51,)]
    joined = "SELECT count(*) FROM orders JOIN order_lines USING (seller_id, mp_order_number)"
    assert placed.rows(joined) == [(51,)]
    assert placed.watermark() is not None


def test_open_orders_whose_errors_may_vanish_unseen_are_watched(env: Env) -> None:
    for number in ("lingers", "reported", "closed"):
        env.placed(number)
        env.see(number)
    reported = {
        "seller_id": SELLER,
        "kind": "bad",
        "severity": "error",
        "message": "bad",
        "state": "reported",
        "line_hash": "",
    }
    with env.state.begin() as connection:
        of_one = schema.snapshots.c.mp_order_number == "lingers"
        connection.execute(sa.update(schema.snapshots).where(of_one).values(error_lingers_since=NOON))
        for number in ("reported", "closed"):
            values = {**reported, "finding_id": number, "mp_order_number": number, "found_at": NOON}
            connection.execute(sa.insert(schema.findings).values(values))
        is_closed = schema.orders.c.mp_order_number == "closed"
        connection.execute(sa.update(schema.orders).where(is_closed).values(phase="closed"))
        start = extraction_start.read_all(connection, [SELLER], now=env.state.now())
        assert start[SELLER].watched == {"lingers", "reported"}
