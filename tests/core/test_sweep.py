"""All pages of a filter: none is lost, and a partial read never counts as complete."""

from __future__ import annotations

import asyncio
import gc
from contextlib import aclosing

import pytest
from scripted import answer
from wire import S1, speaking, wired

from feedamp.api import client as client_module
from feedamp.api import pagination
from feedamp.api.decoding import read_page
from feedamp.api.pages import Filters
from feedamp.api.pagination import NULL_PAGE_REPEATS, RESTARTS, OrderPages
from feedamp.errors import AuthorizationError, BrokenAnswerError, RejectedError, UnclearError

TEN = Filters(page_size=10)
M1, M2 = {"mp_order_number": "M-1"}, {"mp_order_number": "M-2"}


def place_many(wire, count):
    names = [f"M-{n}" for n in range(count)]
    wire.place(*names)
    return sorted(names)


async def note_numbers(sweep, read):
    async for page in sweep.pages():
        read += [item.mp_order_number for item in page.items]


async def numbers_of(sweep):
    await note_numbers(sweep, read := [])
    return read


ONE_BY_ONE, AHEAD, OF_SLOW_PAGES = "one by one", "ahead", "ahead of pages that are slow"


@pytest.fixture(params=[ONE_BY_ONE, AHEAD, OF_SLOW_PAGES], autouse=True)
def asking(request, monkeypatch):
    """Each test of this module is also true of pages that are asked for ahead, be they slow or not."""
    monkeypatch.setitem(OrderPages.__init__.__kwdefaults__, "asks_ahead", request.param != ONE_BY_ONE)
    monkeypatch.setattr(pagination, "SLOW_S", 0 if request.param == OF_SLOW_PAGES else 60)
    monkeypatch.setattr(pagination, "LEAVES_WITHIN_S", 5)


@pytest.fixture
async def wire():
    async with wired() as connected:
        yield connected


@pytest.mark.parametrize(
    ("placed", "pages", "last_cursor"),
    [
        pytest.param(0, 1, "null", id="none"),
        pytest.param(1, 1, "absent", id="one, and no cursor"),
        pytest.param(10, 1, "null", id="exactly a page"),
        pytest.param(11, 2, "empty", id="a page plus one, and an empty cursor"),
        pytest.param(11, 2, "absent", id="a page plus one, and no cursor"),
        pytest.param(30, 3, "null", id="exactly three pages"),
    ],
)
async def test_every_order_is_read_once(placed, pages, last_cursor):
    async with wired(last_cursor=last_cursor) as wire:
        names, client = place_many(wire, placed), wire.client()
        sweep = OrderPages(client, TEN)
        assert sorted(await numbers_of(sweep)) == names
        assert (sweep.complete, sweep.missing, client.counts.pages) == (True, None, pages)
        assert wire.sandbox.broken_rules == []


BROKEN = b'{"orders": [{"mp_order_number": "M-1", "x": }, {"mp_order_number": 2}], "next_cursor": %s}'


@pytest.mark.parametrize(
    ("body", "read"),
    [
        pytest.param(
            b'{"orders": [{"mp_order_number": "M-1", "status": "\xff"}]}', ["M-1"], id="a latin-1 byte"
        ),
        pytest.param(
            b'{"orders": [{"mp_order_number": "M-1", "x": NaN, "y": "\\u00e9"}]}', ["M-1"], id="NaN"
        ),
        pytest.param(BROKEN % b"null", ["M-1", "2"], id="no JSON"),
        pytest.param(BROKEN % b'" "', ["M-1", "2"], id="no JSON, and a blank cursor"),
        pytest.param(
            b'{"orders": [{"mp_order_number": "M-1"}], "next_cursor": " \\n"}', ["M-1"], id="a blank cursor"
        ),
        pytest.param(
            b'{"orders": [{"mp_order_number": "M-1"}], "next_cursor": "null"}', ["M-1"], id="null as text"
        ),
        pytest.param(
            b'{"orders": [{"mp_order_number": "M-1"}], "next_cursor": [null]}', ["M-1"], id="a list of null"
        ),
    ],
)
async def test_no_byte_makes_a_page_unreadable(body, read):
    async with speaking(answer(body)) as (client, script):
        sweep = OrderPages(client, TEN)
        assert await numbers_of(sweep) == read
        assert sweep.complete
        assert len(script.requests) == 2  # the first is the token call


async def test_a_broken_page_is_read_order_by_order_and_the_next_one_follows():
    pages = [answer(BROKEN % b'"c-2"'), answer({"orders": [M2]})]
    async with speaking(*pages) as (client, script):
        sweep = OrderPages(client, TEN)
        assert await numbers_of(sweep) == ["M-1", "2", "M-2"]
        assert sweep.complete
    assert "cursor=c-2" in script.heads[-1]


async def test_a_page_that_is_too_large_is_asked_for_in_smaller_ones(monkeypatch):
    monkeypatch.setattr("feedamp.api.client.PAGE_BYTES", 200)
    large = answer({"orders": [{**M1, "gift": "x" * 200}]})
    async with speaking(large, large, answer({"orders": [M1]})) as (client, script):
        assert await numbers_of(OrderPages(client, Filters(page_size=50))) == ["M-1"]
    assert [head.split("page_size=")[1][:2] for head in script.heads[1:]] == ["50", "25", "12"]


async def test_a_page_of_one_large_order_is_left_to_single_reads(monkeypatch):
    monkeypatch.setattr("feedamp.api.client.PAGE_BYTES", 200)
    large = answer({"orders": [{**M1, "gift": "x" * 200}], "next_cursor": None})
    async with speaking(large) as (client, _):
        sweep = OrderPages(client, Filters(page_size=20))
        [page] = [page async for page in sweep.pages()]
    assert ([item.mp_order_number for item in page.unread], sweep.complete) == (["M-1"], True)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"orders": [{"mp_order_number": "M-1"}', id="no cursor"),
        pytest.param(b'{"next_cursor": null, "orders": [{"mp_order_number": "M-1"}', id="the cursor first"),
    ],
)
async def test_a_page_without_its_end_is_not_the_last_one(body):
    async with speaking(answer(body)) as (client, _):
        with pytest.raises(BrokenAnswerError):
            await numbers_of(OrderPages(client, TEN))


@pytest.mark.parametrize(
    "filters",
    [
        pytest.param(TEN, id="the same orders again and again"),
        pytest.param(Filters(mp_order_numbers=("M-9",)), id="orders that were not asked for"),
    ],
)
async def test_a_list_without_an_end_is_left(monkeypatch, filters):
    monkeypatch.setattr("feedamp.api.pagination.FRUITLESS_PAGES", 3 if filters is TEN else 99)
    monkeypatch.setattr("feedamp.api.pagination.PAGES_BY_NUMBER", 5)
    pages = [
        answer(
            {"orders": [M1] if filters is TEN else [{"mp_order_number": f"M-{n}"}], "next_cursor": f"c{n}"}
        )
        for n in range(9)
    ]
    async with speaking(*pages) as (client, _):
        sweep = OrderPages(client, filters)
        await numbers_of(sweep)
    assert (sweep.complete, sweep.missing) == (False, "the list has no end")


async def test_a_sweep_that_is_left_half_way_is_not_complete(wire):
    place_many(wire, 11)
    sweep = OrderPages(wire.client(), TEN)
    pages = sweep.pages()
    await anext(pages)
    await pages.aclose()
    assert (sweep.complete, sweep.missing) == (False, "the end was not reached")


async def test_the_servers_time_is_that_of_the_first_page(wire):
    place_many(wire, 11)
    started_at, sweep = wire.clock.now(), OrderPages(wire.client(), TEN)
    async for _ in sweep.pages():
        wire.clock.skip(seconds=60)
    assert sweep.server_time == started_at


async def test_a_cursor_that_comes_back_at_once_ends_the_sweep_as_incomplete(wire):
    place_many(wire, 30)
    wire.sandbox.fault("repeat_cursor", times=None)
    sweep = OrderPages(wire.client(), TEN)
    assert len(await numbers_of(sweep)) == 20
    assert (sweep.complete, sweep.missing) == (False, "the cursor repeats")


async def test_cursors_that_go_round_end_the_sweep_as_incomplete():
    pages = [answer({"orders": [M1], "next_cursor": cursor}) for cursor in ("a", "b", "c", "a")]
    async with speaking(*pages) as (client, script):
        sweep = OrderPages(client, TEN)
        await numbers_of(sweep)
    assert (sweep.complete, sweep.missing, len(script.requests)) == (False, "the cursor repeats", 5)


@pytest.mark.parametrize("shape", [["a", "b"], {"cursor": "a"}, True])
async def test_a_page_whose_cursor_has_an_unknown_shape_is_read_but_is_not_the_last(shape):
    pages = [answer({"orders": [M1], "next_cursor": "b"}), answer({"orders": [M2], "next_cursor": shape})]
    async with speaking(*pages) as (client, script):
        sweep = OrderPages(client, TEN)
        assert await numbers_of(sweep) == ["M-1", "M-2"]
    assert (sweep.complete, sweep.missing) == (False, "the next cursor has an unknown shape")
    assert (sweep.next_cursor, len(script.requests)) == (None, 3)  # the first is the token call


async def test_an_expired_cursor_starts_the_window_again(wire):
    names = place_many(wire, 25)
    wire.sandbox.fault("expire_cursor")
    sweep = OrderPages(wire.client(), TEN)
    read = await numbers_of(sweep)
    assert (sorted(set(read)), len(read)) == (names, 10 + 25)
    assert (sweep.complete, sweep.missing) == (True, None)


async def test_cursors_that_keep_expiring_are_abandoned_after_three_restarts(wire):
    place_many(wire, 25)
    wire.sandbox.fault("expire_cursor", times=None)
    sweep = OrderPages(wire.client(), TEN)
    assert len(await numbers_of(sweep)) == 10 * (1 + RESTARTS)
    assert (RESTARTS, sweep.complete, sweep.missing) == (3, False, "the cursor expired again and again")
    assert [status for _, _, status in wire.asked()] == [200, 400] * 4


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param([answer([], 400)], id="a 400 for the first page"),
        pytest.param([answer({"orders": [M1], "next_cursor": "a"}), answer([], 403)], id="another refusal"),
    ],
)
async def test_only_a_400_for_a_cursor_is_taken_for_its_end(answers):
    async with speaking(*answers) as (client, script):
        with pytest.raises(RejectedError):
            await numbers_of(OrderPages(client, TEN))
    assert len(script.requests) == 1 + len(answers)  # the first is the token call


@pytest.mark.parametrize("pages", [1, 4])
async def test_an_empty_page_with_a_cursor_is_not_the_end(wire, pages):
    names = place_many(wire, 11)
    wire.sandbox.fault("empty_page", times=pages)
    sweep = OrderPages(wire.client(), TEN)
    assert sorted(await numbers_of(sweep)) == names
    assert sweep.complete


async def test_null_orders_are_asked_for_again(wire):
    names = place_many(wire, 11)
    wire.sandbox.fault("null_orders", times=NULL_PAGE_REPEATS)
    sweep = OrderPages(wire.client(), TEN)
    assert sorted(await numbers_of(sweep)) == names
    assert sweep.complete


async def test_a_page_that_stays_null_is_passed_but_the_sweep_is_incomplete(wire):
    place_many(wire, 15)
    wire.sandbox.fault("null_orders", times=NULL_PAGE_REPEATS + 1)
    sweep = OrderPages(wire.client(), TEN)
    assert len(await numbers_of(sweep)) == 5
    assert (sweep.complete, sweep.missing) == (False, "a page came without its orders")


NULL_PAGE = answer({"orders": None, "next_cursor": "a"})


@pytest.mark.parametrize(
    ("answers", "read"),
    [
        pytest.param([answer({"orders": None})], [], id="without a next cursor there are none"),
        pytest.param(
            [NULL_PAGE] * 3 + [answer([], 400), answer({"orders": [M1, M2]})],
            ["M-1", "M-2"],
            id="before a restart that reads all of them",
        ),
    ],
)
async def test_null_orders_that_hide_none_leave_the_sweep_complete(answers, read):
    async with speaking(*answers) as (client, _):
        sweep = OrderPages(client, TEN)
        assert await numbers_of(sweep) == read
    assert (sweep.complete, sweep.missing) == (True, None)


async def test_pages_read_before_an_outage_are_kept_and_the_sweep_is_incomplete():
    answers = [answer({"orders": [M1], "next_cursor": "a"}), answer(b"", 503)]
    read = []
    async with speaking(*answers) as (client, _):
        sweep = OrderPages(client, TEN)
        with pytest.raises(UnclearError):
            await note_numbers(sweep, read)
    assert (read, sweep.complete) == (["M-1"], False)


async def test_a_grant_that_ends_in_the_middle_leaves_the_sweep_incomplete(wire):
    place_many(wire, 31)
    sweep = OrderPages(wire.client(), TEN)
    pages = sweep.pages()
    await anext(pages)
    wire.sandbox.revoke(S1)
    with pytest.raises(AuthorizationError):
        async for _ in pages:
            pass
    assert not sweep.complete


@pytest.mark.parametrize("asking", [AHEAD, OF_SLOW_PAGES], indirect=True)
async def test_only_the_next_page_is_requested_while_a_page_is_worked_on(wire):
    def requested():
        return sum(request.path.endswith("/orders") for request in wire.sandbox.requests)

    place_many(wire, 40)
    async with aclosing(OrderPages(wire.client(), TEN).pages()) as pages:
        for number in (2, 3):
            await anext(pages)
            for _ in range(1_000):
                if requested() >= number:
                    break
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            assert requested() == number


DRIP_S = 0.001  # a body of a hundred bytes takes so long that its page is certainly waited for


@pytest.mark.parametrize("asking", [OF_SLOW_PAGES], indirect=True)
async def test_a_slow_page_is_asked_for_before_the_one_before_it_is_decoded(monkeypatch):
    def read_now(*page):
        asked.append(client._transport.requests - 1)  # of which one is the token call
        return read_page(*page)

    asked = []
    monkeypatch.setattr(client_module, "read_page", read_now)
    pages = [answer({"orders": [M1], "next_cursor": cursor}) for cursor in ("a", "b", "c", None)]
    async with speaking(*pages) as (client, script):
        script.drip_s = DRIP_S
        await numbers_of(OrderPages(client, TEN))
    # Of the first page it is not known yet whether pages are slow.
    assert asked == [1, 3, 4, 4]


@pytest.mark.parametrize("asking", [OF_SLOW_PAGES], indirect=True)
async def test_a_page_that_was_asked_for_in_vain_is_left_out():
    nul = b'{"orders":[{"mp_order_number":"M-2"}],"next_cursor":"a\\u0000"}'  # read as U+FFFD
    answers = [
        answer({"orders": [M1], "next_cursor": "b"}),
        answer(nul),
        answer({"orders": [{"mp_order_number": "M-3"}]}),  # to both cursors
    ]
    async with speaking(*answers) as (client, script):
        script.drip_s = DRIP_S
        sweep = OrderPages(client, TEN)
        found = await numbers_of(sweep)
    assert (found, sweep.complete, client.counts.requests[S1]) == (["M-1", "M-2", "M-3"], True, 4)
    assert "cursor=a%EF%BF%BD" in str(script.heads)


@pytest.mark.parametrize("asking", [AHEAD, OF_SLOW_PAGES], indirect=True)
async def test_no_page_waits_until_the_next_one_may_be_asked_for(monkeypatch):
    async def never(*_):
        await asyncio.Event().wait()

    monkeypatch.setattr(pagination, "LEAVES_WITHIN_S", 0.01)
    monkeypatch.setattr("crashes.clock.Clock.sleep", never)
    later = answer({"orders": [M1], "next_cursor": "a"}, Retry_After="30")
    async with speaking(later) as (client, _), aclosing(OrderPages(client, TEN).pages()) as pages:
        page = await asyncio.wait_for(anext(pages), 5)
    assert (page.next_cursor, client.counts.requests[S1]) == ("a", 1)


@pytest.mark.parametrize("asking", [AHEAD, OF_SLOW_PAGES], indirect=True)
@pytest.mark.parametrize("status", [200, 503])
async def test_a_page_that_is_no_longer_wanted_ends_without_a_trace(status, caplog):
    gc.freeze()  # the search for garbage at the end looks at what this test made alone
    answers = [answer({"orders": [M1], "next_cursor": "a"}), answer({"orders": [M2]}, status)]
    async with speaking(*answers) as (client, _):
        sweep = OrderPages(client, TEN)
        async with aclosing(sweep.pages()) as pages:
            await anext(pages)
    found = sweep.complete, sweep.next_cursor
    del sweep, pages
    gc.collect()
    assert (*found, caplog.text) == (False, "a", "")


async def test_the_filters_are_repeated_with_every_cursor(wire):
    place_many(wire, 25)
    sweep = OrderPages(wire.client(), Filters(has_errors=False, page_size=10))
    await numbers_of(sweep)
    queries = [request.query for request in wire.sandbox.requests if request.path.endswith("/orders")]
    assert [(q["has_errors"], q["page_size"], "cursor" in q) for q in queries] == [
        ("false", "10", False),
        ("false", "10", True),
        ("false", "10", True),
    ]
