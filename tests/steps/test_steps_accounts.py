"""A grant for the wrong account is compared before its first use, and detected by the orders it returns."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa
from env import OTHER, SELLER, Env, open_env, shipment

from crashes.clock import NOON
from feedamp.api.account_check import AccountCheck, Verdict
from feedamp.api.pages import Filters
from feedamp.models import Order, OrderLine
from feedamp.run import Run
from feedamp.state import consents, grants, manifests, sellers
from feedamp.state.schema import account_marks
from feedamp.state.schema import grants as grants_table
from feedamp.state.schema import orders as orders_table
from feedamp.state.schema import sellers as sellers_table
from feedamp.steps import depart
from feedamp.steps.extract_fulfillments.account_watch import AccountWatch
from feedamp.steps.load import load_what_is_whole
from feedamp.steps.lost_manifests import give_up_manifest


@pytest.fixture
def env():
    """Both sellers have a grant that is compared already; older grants of an account stay alive."""
    with open_env(keep_older_grants=True) as opened:
        yield opened


def connect(env: Env, seller: str, *, account: str, status: str | None = None) -> str:
    """A new consent for a seller, given while signed in to an account; a grant before it has a status."""
    token = env.sandbox.consent(account)
    with env.state.begin() as connection:
        if status is not None:
            connection.execute(
                sa.update(grants_table).where(grants_table.c.seller_id == seller).values(status=status)
            )
        grants.put_grant(
            connection, env.cipher, seller, "feedamp", token, now=env.state.now(), to_compare=True
        )
    return token


def refused_before(env: Env, seller: str, *, account: str) -> str:
    """The same where the previous grant no longer works."""
    return connect(env, seller, account=account, status="needs_authorization")


def the(env: Env, seller: str) -> sellers.Seller:
    with env.state.read() as connection:
        [found] = sellers.find(connection, [seller])
    return found


def grant_of(env: Env, seller: str) -> grants.Grant:
    with env.state.read() as connection:
        grant = grants.read(connection, env.cipher, seller)
    assert grant is not None
    return grant


def asked(env: Env, method: str, since: int = 0) -> list[str]:
    return [
        r.path for r in env.sandbox.requests[since:] if r.method == method and "access_token" not in r.path
    ]


def hold(env: Env, seller: str, number: str, **changes: object) -> None:
    """An order that another system placed in a seller's account."""
    with env.sandbox.world.lock:
        order = env.sandbox.world.orders.add(seller, env.body(number, **changes), env.clock.now())
        order.seller_updated_at = env.clock.now()


def place_some(env: Env, seller: str, *numbers: str, **changes: object) -> None:
    env.placed(*numbers, seller=seller, **changes)
    assert set(numbers) <= env.sandbox.orders(seller).keys()


def test_no_order_goes_out_with_a_grant_for_another_sellers_account(env):
    place_some(env, SELLER, "A-1")
    place_some(env, OTHER, "B-1")
    refused_before(env, OTHER, account=SELLER)
    env.deliver("B-2", seller=OTHER)
    result = env.place()
    assert "B-2" not in env.sandbox.orders(SELLER)
    assert any("set aside: its account does not show the order" in note for note in result.notes)
    assert (the(env, OTHER).grant, the(env, SELLER).grant) == ("set_aside", "active")
    assert env.place().orders == 0
    assert "B-2" not in env.sandbox.orders(SELLER)


@pytest.mark.parametrize(
    ("owner", "newcomer"),
    [
        pytest.param(SELLER, OTHER, id="of a seller before it"),
        pytest.param(OTHER, SELLER, id="of a seller behind it"),
    ],
)
def test_a_seller_without_orders_is_told_by_what_the_account_shows_of_others(env, owner, newcomer):
    place_some(env, owner, "A-1")
    refused_before(env, newcomer, account=owner)
    env.deliver("B-1", seller=newcomer)
    env.place()
    assert "B-1" not in env.sandbox.orders(owner)
    assert f"orders that were placed for seller {owner} (first: A-1)" in (
        the(env, newcomer).grant_reason or ""
    )


def test_the_right_account_is_used_after_two_requests(env):
    place_some(env, SELLER, "A-1")
    place_some(env, OTHER, "B-1", "B-2")
    refused_before(env, OTHER, account=OTHER)
    before = len(env.sandbox.requests)
    env.deliver("B-3", seller=OTHER)
    env.place()
    assert "B-3" in env.sandbox.orders(OTHER)
    assert len(asked(env, "GET", before)) == 2
    assert the(env, OTHER).account_checked
    assert env.sandbox.broken_rules == []


def test_nothing_is_asked_where_nothing_is_known(env):
    refused_before(env, OTHER, account=OTHER)
    env.deliver("B-1", seller=OTHER)
    env.place()
    assert asked(env, "GET") == []
    assert the(env, OTHER).account_checked


def test_orders_that_the_list_does_not_show_yet_are_asked_for_by_number(env):
    place_some(env, OTHER, "B-1")
    refused_before(env, OTHER, account=OTHER)
    env.sandbox.fault("empty_page", method="GET", path="/orders")
    env.deliver("B-2", seller=OTHER)
    env.place()
    assert "B-2" in env.sandbox.orders(OTHER)


def test_the_grant_before_stays_in_use_and_the_wrong_one_is_kept(env):
    place_some(env, SELLER, "A-1")
    place_some(env, OTHER, "B-1")
    right = grant_of(env, OTHER).refresh_token
    connect(env, OTHER, account=SELLER)
    env.deliver("B-2", seller=OTHER)
    env.place()
    assert "B-2" in env.sandbox.orders(OTHER)
    assert grant_of(env, OTHER).refresh_token == right
    other = the(env, OTHER)
    assert (other.grant, other.blocked_by) == ("active", None)
    assert (other.grant_reason or "").startswith("a newer grant is set aside: its account does not show")
    with env.state.begin() as connection:
        assert consents.take_set_aside(connection, OTHER, now=env.state.now())
        assert not consents.take_set_aside(connection, OTHER, now=env.state.now())
    env.clock.skip(hours=2)
    assert asyncio.run(numbers_of(env, OTHER)) == {"A-1"}


async def numbers_of(env: Env, seller: str) -> set[str]:
    """What the account shows with the grant that is used."""
    async with env.resources.clients(Run("test", "by hand", env.state.now())) as clients:
        page = await (await clients.for_seller(seller)).list_orders(Filters())
    return {order.mp_order_number for order in page.orders}


def test_a_refresh_under_way_keeps_the_token_of_the_grant_that_is_kept(env):
    place_some(env, OTHER, "B-1")
    old = grant_of(env, OTHER)
    connect(env, OTHER, account=SELLER)
    with env.state.begin() as connection:  # what a process stores that began before
        stored = grants.store_tokens(
            connection,
            env.cipher,
            old,
            used_token=old.refresh_token,
            refresh_token="rt-newer",
            access_token="at-newer",
            expires_in_s=3600,
            now=env.state.now(),
        )
    assert asyncio.run(compare(env, OTHER)).verdict is Verdict.KEPT_BEFORE
    assert stored is False
    assert grant_of(env, OTHER).refresh_token == "rt-newer"


def test_a_new_grant_that_feedamp_refuses_leaves_the_one_before(env):
    place_some(env, OTHER, "B-1")
    with env.state.begin() as connection:
        grants.put_grant(
            connection, env.cipher, OTHER, "feedamp", "rt-made-up", now=env.state.now(), to_compare=True
        )
    env.deliver("B-2", seller=OTHER)
    env.place()
    assert "B-2" in env.sandbox.orders(OTHER)
    assert "FeedAMP refuses its token" in (the(env, OTHER).grant_reason or "")


def test_while_feedamp_cannot_be_read_the_grant_is_not_used(env):
    place_some(env, SELLER, "A-1")
    place_some(env, OTHER, "B-1")
    refused_before(env, OTHER, account=SELLER)
    env.sandbox.fault("error_503", method="GET", times=None)
    env.deliver("B-2", seller=OTHER)
    result = env.place()
    assert result.undone
    assert asked(env, "PUT")[-1].endswith("B-1")
    assert not the(env, OTHER).account_checked
    env.sandbox.clear_faults()
    env.clock.skip(hours=2)
    env.place()
    assert the(env, OTHER).grant == "set_aside"
    assert "B-2" not in env.sandbox.orders(SELLER)


def test_a_grant_that_comes_in_while_a_step_runs_is_not_used_by_it(env):
    place_some(env, SELLER, "A-1")
    place_some(env, OTHER, "B-1")

    async def run():
        async with env.resources.clients(Run("test", "by hand", env.state.now())) as clients:
            client = await clients.for_seller(OTHER)
            await client.get_order("B-1")
            connect(env, OTHER, account=SELLER)
            env.clock.skip(hours=2)  # the access token has run out
            with pytest.raises(Exception, match="A new grant arrived during this run"):
                await client.get_order("B-1")

    asyncio.run(run())


def test_a_grant_set_aside_is_not_refreshed(env):
    place_some(env, OTHER, "B-1")
    refused_before(env, OTHER, account=SELLER)
    env.extract()
    assert the(env, OTHER).grant == "set_aside"
    env.clock.skip(days=40)
    before = len(env.sandbox.requests)
    env.refresh()
    tokens = [r for r in env.sandbox.requests[before:] if "access_token" in r.path]
    assert len(tokens) == 1  # the other seller's
    assert the(env, OTHER).grant == "set_aside"


def connect_by_force(env: Env, seller: str, *, account: str) -> None:
    connect(env, seller, account=account)
    asyncio.run(compare(env, seller))
    with env.state.begin() as connection:
        assert consents.take_set_aside(connection, seller, now=env.state.now())


@pytest.fixture
def forced(env):
    """B-1 shipped in the right account while the seller's grant was forced for another one, which was read since."""
    place_some(env, SELLER, "A-1")
    place_some(env, OTHER, "B-1")
    env.read()
    env.fulfill("B-1", shipment(), seller=OTHER)
    connect_by_force(env, OTHER, account=SELLER)
    env.clock.skip(hours=2)
    return env


def shipped(env: Env, seller: str) -> set[str]:
    rows = env.rows("SELECT DISTINCT seller_id, mp_order_number FROM feedamp.shipments")
    return {number for seller_id, number in rows if seller_id == seller}


def test_changes_made_while_the_wrong_account_was_read_are_read_later(forced):
    forced.read()
    connect(forced, OTHER, account=OTHER)
    forced.clock.skip(hours=2)
    forced.read()
    assert shipped(forced, OTHER) == {"B-1"}


def test_a_watermark_on_its_way_from_another_account_does_not_count(forced):
    forced.extract()
    connect(forced, OTHER, account=OTHER)
    asyncio.run(compare(forced, OTHER))
    forced.load()
    assert forced.watermark(OTHER) is None
    assert forced.watermark(SELLER) is not None
    forced.clock.skip(hours=2)
    forced.read()
    assert shipped(forced, OTHER) == {"B-1"}
    assert forced.watermark(OTHER) is not None


def test_an_abandoned_manifest_restores_no_watermark_of_another_account(forced):
    forced.read()
    connect(forced, OTHER, account=OTHER)
    forced.clock.skip(hours=2)
    forced.extract()
    with forced.resources.warehouse.session():
        load_what_is_whole(forced.resources, forced.run("load"))
    assert forced.watermark(OTHER) is not None
    with forced.state.read() as connection:
        [path] = [path for path, _ in manifests.unloaded(connection) if "-extract-" in path]
    forced.resources.lake.remove(path)
    give_up_manifest(forced.resources, path)
    forced.read()
    assert shipped(forced, OTHER) == {"B-1"}


def test_a_seller_of_whom_no_order_proves_the_account_is_read_again(env):
    env.read()
    hold(env, OTHER, "Z-1")
    mix_up(env)
    env.clock.skip(hours=2)
    env.read()
    connect(env, OTHER, account=OTHER)
    env.read()
    assert (OTHER, "Z-1") in env.rows("SELECT seller_id, mp_order_number FROM feedamp.orders")


def test_a_new_consent_for_the_same_account_keeps_the_watermark(env):
    place_some(env, OTHER, "B-1")
    env.read()
    mark = env.watermark(OTHER)
    refused_before(env, OTHER, account=OTHER)
    asyncio.run(compare(env, OTHER))
    assert mark is not None
    assert env.watermark(OTHER) == mark


async def compare(env: Env, seller: str) -> AccountCheck:
    async with env.resources.clients(Run("test", "by hand", env.state.now())) as clients:
        return await clients.check_account(the(env, seller))


def paused(env: Env) -> set[str]:
    with env.state.read() as connection:
        query = sa.select(sellers_table.c.seller_id).where(sellers_table.c.paused.is_(True))
        return set(connection.execute(query).scalars())


def mix_up(env: Env) -> None:
    """The other seller's token is for the first one's account, and nothing was known when it came."""
    with env.state.begin() as connection:
        token = env.sandbox.consent(SELLER)
        grants.put_grant(connection, env.cipher, OTHER, "feedamp", token, now=env.state.now())


def test_a_first_read_that_shows_another_sellers_orders_pauses_both(env):
    mix_up(env)
    place_some(env, SELLER, "A-1")
    result = env.extract()
    assert paused(env) == {SELLER, OTHER}
    one, other = the(env, SELLER), the(env, OTHER)
    words = f"the account of seller {OTHER} shows orders that were placed for seller {SELLER} (first: A-1)"
    assert one.blocked_by == other.blocked_by == f"the seller is paused: {words}"
    assert (one.mixed_with, other.mixed_with) == (OTHER, SELLER)
    assert any("Both sellers are paused" in note for note in result.notes)
    assert (result.undone, result.complete) == ([], False)
    env.load()
    assert env.rows("SELECT seller_id FROM feedamp.orders") == [(SELLER,)]
    assert env.watermark(OTHER) is None


def test_what_was_shown_before_a_seller_was_resumed_is_no_news(env):
    mix_up(env)
    place_some(env, SELLER, "A-1")
    env.extract()
    with env.state.begin() as connection:
        for seller in (SELLER, OTHER):
            sellers.pause(connection, seller, paused=False, now=env.state.now())
    env.clock.skip(minutes=1)
    env.extract()
    assert paused(env) == set()
    place_some(env, SELLER, "A-2")
    env.extract()
    assert paused(env) == {SELLER, OTHER}


def test_two_sellers_with_an_equal_number_are_not_paused(env):
    place_some(env, SELLER, "1001", "1002")
    place_some(env, OTHER, "1001", purchase_date="2026-03-02T10:00:01Z")
    hold(env, OTHER, "1002", purchase_date="2026-03-02T10:00:02Z")
    env.extract()
    env.extract()
    assert paused(env) == set()


def test_an_erased_order_that_equals_another_sellers_proves_nothing(env):
    for seller in (SELLER, OTHER):
        place_some(env, seller, "1001")
    assert depart.erase(env.resources, SELLER, "1001", asked_by="test").unfinished == {}
    env.extract()
    assert paused(env) == set()
    assert (the(env, SELLER).mix_up, the(env, OTHER).mix_up) == (None, None)


def test_two_tokens_for_one_account_are_noticed_by_orders_that_both_show(env):
    mix_up(env)
    env.stock(1)
    result = env.extract()
    for seller, other in ((SELLER, OTHER), (OTHER, SELLER)):
        found = the(env, seller)
        assert found.mixed_with == other
        assert "shows the same orders as that of seller" in (found.mix_up or "")
        assert found.blocked_by is None
    assert result.complete
    with env.state.begin() as connection:
        for seller in (SELLER, OTHER):
            sellers.pause(connection, seller, paused=False, now=env.state.now())
    env.extract(since=NOON - timedelta(days=1))
    assert [the(env, seller).mixed_with for seller in (SELLER, OTHER)] == [None, None]


def test_an_order_of_another_account_is_known_on_a_later_page_too(env):
    def look(watch: AccountWatch, *numbers: str, sku: str = "SKU-A") -> str | None:
        lines = (OrderLine(mp_line_number="1", sku=sku),)
        shown = [Order(mp_order_number=one, purchase_date=NOON, order_lines=lines) for one in numbers]
        with env.state.read() as connection:
            seen = watch.look(connection, shown)
        watch.judge(seen)
        return the(env, SELLER).mixed_with

    one, other = (AccountWatch(env.resources, the(env, it), is_marked=False) for it in (SELLER, OTHER))
    assert look(one, "1001") is None
    assert look(other, "1002") is None
    assert look(other, "1001", "1003", sku="SKU-B") is None
    assert look(other, "1004", "1001") == OTHER
    with env.state.begin() as connection:
        for seller in (SELLER, OTHER):
            sellers.pause(connection, seller, paused=False, now=env.state.now())
    assert look(AccountWatch(env.resources, the(env, OTHER), is_marked=False), "1001") is None


def test_no_mark_is_made_of_an_order_that_was_erased_since_it_was_compared(env):
    lines = (OrderLine(mp_line_number="1", sku="SKU-A"),)
    watch = AccountWatch(env.resources, the(env, SELLER), is_marked=False)
    with env.state.read() as connection:
        seen = watch.look(
            connection, [Order(mp_order_number=one, purchase_date=NOON, order_lines=lines) for one in "12"]
        )
    assert depart.erase(env.resources, SELLER, "1", asked_by="test").unfinished == {}
    watch.judge(seen)
    with env.state.read() as connection:
        assert connection.execute(sa.select(account_marks.c.mp_order_number)).scalars().all() == ["2"]


def test_only_orders_that_were_not_placed_here_are_marked(env):
    place_some(env, SELLER, "A-1", "A-2")
    with env.state.begin() as connection:
        connection.execute(sa.delete(orders_table).where(orders_table.c.mp_order_number == "A-2"))
    env.extract()
    with env.state.read() as connection:
        assert connection.execute(sa.select(account_marks.c.mp_order_number)).scalars().all() == ["A-2"]


def test_foreign_orders_of_two_accounts_are_no_mix_up(env):
    env.stock(3)
    for seller in (SELLER, OTHER):
        hold(env, seller, f"Z-{seller}")
    env.extract()
    env.extract()
    assert paused(env) == set()
    assert the(env, SELLER).mixed_with is None


def test_a_grant_that_a_person_forced_is_used_whatever_it_shows(env):
    place_some(env, SELLER, "A-1")
    place_some(env, OTHER, "B-1")
    refused_before(env, OTHER, account=SELLER)
    env.deliver("B-2", seller=OTHER)
    env.place()
    with env.state.begin() as connection:
        assert consents.take_set_aside(connection, OTHER, now=env.state.now())
    env.place()
    assert "B-2" in env.sandbox.orders(SELLER)
    env.extract()
    assert paused(env) == set()


def test_sellers_wait_for_one_look_up_and_one_who_gives_up_ends_no_other(env):
    asked: list[str] = []

    def slow(conn_id: str) -> object:
        asked.append(conn_id)
        time.sleep(0.2)
        return env.resources.connection(conn_id)

    async def work() -> None:
        async with replace(env.resources, connection=slow).clients(
            env.run("feedamp_place_orders")
        ) as clients:
            gives_up, stays, other = (asyncio.create_task(clients.tokens("feedamp")) for _ in range(3))
            await asyncio.sleep(0.05)
            gives_up.cancel()
            assert await stays is await other
            assert gives_up.cancelled()

    asyncio.run(work())
    assert asked == ["feedamp"]
