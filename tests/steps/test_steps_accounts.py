"""A grant for the wrong account: compared before its first use, and noticed by what the account shows."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
import sqlalchemy as sa
from house import NOON, OTHER, SELLER, House, open_house

from feedamp.api.account_check import AccountCheck, Verdict
from feedamp.api.pages import Filters
from feedamp.run import Run
from feedamp.state import consents, grants, sellers
from feedamp.state.schema import grants as grants_table
from feedamp.state.schema import sellers as sellers_table


@pytest.fixture
def house(tmp_path):
    """Both sellers have a grant that is compared already; older grants of an account stay alive."""
    with open_house(tmp_path, keep_older_grants=True) as opened:
        yield opened


def connect(house: House, seller: str, *, account: str, status: str | None = None) -> str:
    """A new consent for a seller, given while signed in to an account; a grant before it has a status."""
    token = house.sandbox.consent(account)
    with house.state.begin() as connection:
        if status is not None:
            connection.execute(
                sa.update(grants_table).where(grants_table.c.seller_id == seller).values(status=status)
            )
        grants.put_grant(
            connection, house.cipher, seller, "feedamp", token, now=house.state.now(), to_compare=True
        )
    return token


def refused_before(house: House, seller: str, *, account: str) -> str:
    """The same where the grant before it is of no use any more."""
    return connect(house, seller, account=account, status="needs_authorization")


def the(house: House, seller: str) -> sellers.Seller:
    with house.state.read() as connection:
        [found] = sellers.find(connection, [seller])
    return found


def grant_of(house: House, seller: str) -> grants.Grant:
    with house.state.read() as connection:
        grant = grants.read(connection, house.cipher, seller)
    assert grant is not None
    return grant


def asked(house: House, method: str, since: int = 0) -> list[str]:
    return [
        r.path for r in house.sandbox.requests[since:] if r.method == method and "access_token" not in r.path
    ]


def hold(house: House, seller: str, number: str, **changes: object) -> None:
    """An order that another system placed in a seller's account."""
    with house.sandbox.world.lock:
        order = house.sandbox.world.orders.add(seller, house.body(number, **changes), house.clock.now())
        order.seller_updated_at = house.clock.now()


def place_some(house: House, seller: str, *numbers: str, **changes: object) -> None:
    house.placed(*numbers, seller=seller, **changes)
    assert set(numbers) <= house.sandbox.orders(seller).keys()


def test_no_order_goes_out_with_a_grant_for_another_sellers_account(house):
    place_some(house, SELLER, "A-1")
    place_some(house, OTHER, "B-1")
    refused_before(house, OTHER, account=SELLER)
    house.deliver("B-2", seller=OTHER)
    result = house.place()
    assert "B-2" not in house.sandbox.orders(SELLER)
    assert any("set aside: its account does not show the order" in note for note in result.notes)
    assert (the(house, OTHER).grant, the(house, SELLER).grant) == ("set_aside", "active")
    assert house.place().orders == 0
    assert "B-2" not in house.sandbox.orders(SELLER)


def test_a_seller_without_orders_is_told_by_what_the_account_shows_of_others(house):
    place_some(house, SELLER, "A-1")
    refused_before(house, OTHER, account=SELLER)
    house.deliver("B-1", seller=OTHER)
    house.place()
    assert "B-1" not in house.sandbox.orders(SELLER)
    assert f"orders that were placed for seller {SELLER} (first: A-1)" in (
        the(house, OTHER).grant_reason or ""
    )


def test_the_right_account_is_used_after_two_requests(house):
    place_some(house, SELLER, "A-1")
    place_some(house, OTHER, "B-1", "B-2")
    refused_before(house, OTHER, account=OTHER)
    before = len(house.sandbox.requests)
    house.deliver("B-3", seller=OTHER)
    house.place()
    assert "B-3" in house.sandbox.orders(OTHER)
    assert len(asked(house, "GET", before)) == 2
    assert the(house, OTHER).account_checked
    assert house.sandbox.broken_rules == []


def test_nothing_is_asked_where_nothing_is_known(house):
    refused_before(house, OTHER, account=OTHER)
    house.deliver("B-1", seller=OTHER)
    house.place()
    assert asked(house, "GET") == []
    assert the(house, OTHER).account_checked


def test_orders_that_the_list_does_not_show_yet_are_asked_for_by_number(house):
    place_some(house, OTHER, "B-1")
    refused_before(house, OTHER, account=OTHER)
    house.sandbox.fault("empty_page", method="GET", path="/orders")
    house.deliver("B-2", seller=OTHER)
    house.place()
    assert "B-2" in house.sandbox.orders(OTHER)


def test_the_grant_before_stays_in_use_and_the_wrong_one_is_kept(house):
    place_some(house, SELLER, "A-1")
    place_some(house, OTHER, "B-1")
    right = grant_of(house, OTHER).refresh_token
    connect(house, OTHER, account=SELLER)
    house.deliver("B-2", seller=OTHER)
    house.place()
    assert "B-2" in house.sandbox.orders(OTHER)
    assert grant_of(house, OTHER).refresh_token == right
    other = the(house, OTHER)
    assert (other.grant, other.blocked_by) == ("active", None)
    assert (other.grant_reason or "").startswith("a newer grant is set aside: its account does not show")
    with house.state.begin() as connection:
        assert consents.take_set_aside(connection, OTHER, now=house.state.now())
        assert not consents.take_set_aside(connection, OTHER, now=house.state.now())
    house.clock.skip(hours=2)
    assert asyncio.run(numbers_of(house, OTHER)) == {"A-1"}


async def numbers_of(house: House, seller: str) -> set[str]:
    """What the account shows with the grant that is used."""
    async with house.resources.clients(Run("test", "by hand", house.state.now())) as clients:
        page = await (await clients.for_seller(seller)).list_orders(Filters())
    return {order.mp_order_number for order in page.orders}


def test_a_refresh_under_way_keeps_the_token_of_the_grant_that_is_kept(house):
    place_some(house, OTHER, "B-1")
    old = grant_of(house, OTHER)
    connect(house, OTHER, account=SELLER)
    with house.state.begin() as connection:  # what a process stores that began before
        stored = grants.store_tokens(
            connection,
            house.cipher,
            old,
            used_token=old.refresh_token,
            refresh_token="rt-newer",
            access_token="at-newer",
            expires_in_s=3600,
            now=house.state.now(),
        )
    assert asyncio.run(compare(house, OTHER)).verdict is Verdict.KEPT_BEFORE
    assert stored is False
    assert grant_of(house, OTHER).refresh_token == "rt-newer"


def test_a_new_grant_that_feedamp_refuses_leaves_the_one_before(house):
    place_some(house, OTHER, "B-1")
    with house.state.begin() as connection:
        grants.put_grant(
            connection, house.cipher, OTHER, "feedamp", "rt-made-up", now=house.state.now(), to_compare=True
        )
    house.deliver("B-2", seller=OTHER)
    house.place()
    assert "B-2" in house.sandbox.orders(OTHER)
    assert "FeedAMP refuses its token" in (the(house, OTHER).grant_reason or "")


def test_while_feedamp_cannot_be_read_the_grant_is_not_used(house):
    place_some(house, SELLER, "A-1")
    place_some(house, OTHER, "B-1")
    refused_before(house, OTHER, account=SELLER)
    house.sandbox.fault("error_503", method="GET", times=None)
    house.deliver("B-2", seller=OTHER)
    result = house.place()
    assert result.undone
    assert asked(house, "PUT")[-1].endswith("B-1")
    assert not the(house, OTHER).account_checked
    house.sandbox.clear_faults()
    house.clock.skip(hours=2)
    house.place()
    assert the(house, OTHER).grant == "set_aside"
    assert "B-2" not in house.sandbox.orders(SELLER)


def test_a_grant_that_comes_in_while_a_step_runs_is_not_used_by_it(house):
    place_some(house, SELLER, "A-1")
    place_some(house, OTHER, "B-1")

    async def run():
        async with house.resources.clients(Run("test", "by hand", house.state.now())) as clients:
            client = await clients.for_seller(OTHER)
            await client.get_order("B-1")
            connect(house, OTHER, account=SELLER)
            house.clock.skip(hours=2)  # the access token has run out
            with pytest.raises(Exception, match="A new grant came in while this ran"):
                await client.get_order("B-1")

    asyncio.run(run())


def test_a_grant_set_aside_is_not_refreshed(house):
    place_some(house, OTHER, "B-1")
    refused_before(house, OTHER, account=SELLER)
    house.extract()
    assert the(house, OTHER).grant == "set_aside"
    house.clock.skip(days=40)
    before = len(house.sandbox.requests)
    house.refresh()
    tokens = [r for r in house.sandbox.requests[before:] if "access_token" in r.path]
    assert len(tokens) == 1  # the other seller's
    assert the(house, OTHER).grant == "set_aside"


async def compare(house: House, seller: str) -> AccountCheck:
    async with house.resources.clients(Run("test", "by hand", house.state.now())) as clients:
        return await clients.check_account(the(house, seller))


def paused(house: House) -> set[str]:
    with house.state.read() as connection:
        query = sa.select(sellers_table.c.seller_id).where(sellers_table.c.paused.is_(True))
        return set(connection.execute(query).scalars())


def mix_up(house: House) -> None:
    """The other seller's token is for the first one's account, and nothing was known when it came."""
    with house.state.begin() as connection:
        token = house.sandbox.consent(SELLER)
        grants.put_grant(connection, house.cipher, OTHER, "feedamp", token, now=house.state.now())


def test_a_first_read_that_shows_another_sellers_orders_pauses_both(house):
    mix_up(house)
    place_some(house, SELLER, "A-1")
    result = house.extract()
    assert paused(house) == {SELLER, OTHER}
    one, other = the(house, SELLER), the(house, OTHER)
    words = f"the account of seller {OTHER} shows orders that were placed for seller {SELLER} (first: A-1)"
    assert one.blocked_by == other.blocked_by == f"the seller is paused: {words}"
    assert (one.mixed_with, other.mixed_with) == (OTHER, SELLER)
    assert any("Both sellers are paused" in note for note in result.notes)
    assert (result.undone, result.complete) == ([], False)
    house.load()
    assert house.rows("SELECT seller_id FROM feedamp.orders") == [(SELLER,)]
    assert house.watermark(OTHER) is None


def test_what_was_shown_before_a_seller_was_resumed_is_no_news(house):
    mix_up(house)
    place_some(house, SELLER, "A-1")
    house.extract()
    with house.state.begin() as connection:
        for seller in (SELLER, OTHER):
            sellers.pause(connection, seller, paused=False, now=house.state.now())
    house.clock.skip(minutes=1)
    house.extract()
    assert paused(house) == set()
    place_some(house, SELLER, "A-2")
    house.extract()
    assert paused(house) == {SELLER, OTHER}


def test_two_sellers_with_an_equal_number_are_not_paused(house):
    place_some(house, SELLER, "1001", "1002")
    place_some(house, OTHER, "1001", purchase_date="2026-03-02T10:00:01Z")
    hold(house, OTHER, "1002", purchase_date="2026-03-02T10:00:02Z")
    house.extract()
    house.extract()
    assert paused(house) == set()


def test_two_tokens_for_one_account_are_noticed_by_orders_that_both_show(house):
    mix_up(house)
    house.stock(1)
    result = house.extract()
    for seller, other in ((SELLER, OTHER), (OTHER, SELLER)):
        found = the(house, seller)
        assert found.mixed_with == other
        assert "shows the same orders as that of seller" in (found.mix_up or "")
        assert found.blocked_by is None
    assert result.complete
    with house.state.begin() as connection:
        for seller in (SELLER, OTHER):
            sellers.pause(connection, seller, paused=False, now=house.state.now())
    house.extract(since=NOON - timedelta(days=1))
    assert [the(house, seller).mixed_with for seller in (SELLER, OTHER)] == [None, None]


def test_foreign_orders_of_two_accounts_are_no_mix_up(house):
    house.stock(3)
    for seller in (SELLER, OTHER):
        hold(house, seller, f"Z-{seller}")
    house.extract()
    house.extract()
    assert paused(house) == set()
    assert the(house, SELLER).mixed_with is None


def test_a_grant_that_a_person_forced_is_used_whatever_it_shows(house):
    place_some(house, SELLER, "A-1")
    place_some(house, OTHER, "B-1")
    refused_before(house, OTHER, account=SELLER)
    house.deliver("B-2", seller=OTHER)
    house.place()
    with house.state.begin() as connection:
        assert consents.take_set_aside(connection, OTHER, now=house.state.now())
    house.place()
    assert "B-2" in house.sandbox.orders(SELLER)
    house.extract()
    assert paused(house) == set()
