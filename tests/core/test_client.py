"""One method per order endpoint, over the real sandbox: what is sent and what is returned."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from order_samples import example_order
from scripted import answer
from wire import S1, S2, speaking, wired

from crashes.clock import NOON
from feedamp.api.bad_answers import refusal_reasons, without
from feedamp.api.pages import Filters
from feedamp.errors import NotFoundError, RejectedError, UnclearError, UnreadableError
from feedamp.models import ErrorReport


@pytest.fixture
async def wire():
    async with wired() as connected:
        yield connected
        assert connected.sandbox.broken_rules == []


async def test_put_order_places_it_and_says_when_it_was_sent(wire):
    wire.clock.skip(seconds=60)
    assert await wire.client().put_order("M-1", example_order("M-1")) == NOON + timedelta(seconds=60)
    assert wire.sandbox.orders(S1)["M-1"]["order_lines"][0]["quantity"] == 2


async def test_money_is_sent_as_a_number_with_its_digits(wire):
    line = {**example_order("M-1")["order_lines"][0], "unit_price": Decimal("19.90")}
    await wire.client().put_order("M-1", example_order("M-1", order_lines=[line]))
    assert str(wire.sandbox.orders(S1)["M-1"]["order_lines"][0]["unit_price"]) == "19.90"


@pytest.mark.parametrize("status", [200, 201, 204])
async def test_any_2xx_accepts_a_put_whatever_its_body(status):
    async with wired(put_status=status) as wire:
        await wire.client().put_order("M-1", example_order("M-1"))
        assert "M-1" in wire.sandbox.orders(S1)


async def test_get_order_reads_it_and_says_when_it_was_asked_for(wire):
    wire.place("M-1")
    wire.ship("M-1")
    wire.clock.skip(seconds=60)
    order, read_at = await wire.client().get_order("M-1")
    assert (order.mp_order_number, order.status, read_at) == (
        "M-1",
        "FULFILLED",
        NOON + timedelta(seconds=60),
    )
    assert order.order_lines[0].unit_price == Decimal("25.5")
    assert order.fulfillments[0].shipments[0].tracking_number == "1Z0"


async def test_a_slow_answer_is_dated_by_its_request():
    """What changed at FeedAMP while an answer was on its way must count as newer (promise 4)."""
    clocks = []
    async with wired(lambda *_: [clock.skip(seconds=30) for clock in clocks]) as wire:
        wire.place("M-1")
        await wire.client().get_order("M-1")  # with the token's request out of the way
        clocks.append(wire.clock)
        asked_at = wire.clock.now()
        page = await wire.client().list_orders(Filters())
        assert page.read_at - asked_at < timedelta(seconds=1)
        asked_at = wire.clock.now()
        _, read_at = await wire.client().get_order("M-1")
        assert read_at - asked_at < timedelta(seconds=1)
        assert wire.clock.now() - asked_at >= timedelta(seconds=30)


async def test_get_fulfillments_reads_what_the_seller_did(wire):
    wire.place("M-1")
    wire.ship("M-1", quantity=1)
    read, by_marketplace, extra = await wire.client().get_fulfillments("M-1")
    assert [shipment.quantity for shipment in read[0].shipments] == [1]
    assert (by_marketplace, extra) == (False, {})


async def test_post_errors_reports_them(wire):
    wire.place("M-1")
    wire.ship("M-1")
    report = ErrorReport(code="INVALID_TRACKING_NUMBER", message="unknown to UPS", mp_line_number="M-1-1")
    assert await wire.client().post_errors("M-1", [report]) == NOON
    assert wire.sandbox.orders(S1)["M-1"]["errors"] == [
        {"code": "INVALID_TRACKING_NUMBER", "message": "unknown to UPS", "mp_line_number": "M-1-1"}
    ]


async def test_an_order_of_another_seller_is_not_found(wire):
    wire.place("M-1", seller_id=S2)
    with pytest.raises(NotFoundError) as caught:
        await wire.client(S1).get_order("M-1")
    assert caught.value.seller_id == S1


@pytest.mark.parametrize(
    ("placed", "pages"),
    [
        pytest.param(0, [0], id="none"),
        pytest.param(1, [1], id="one"),
        pytest.param(10, [10], id="exactly a page"),
        pytest.param(11, [10, 1], id="a page plus one"),
    ],
)
async def test_list_orders_gives_pages_of_the_size_asked_for(wire, placed, pages):
    wire.place(*(f"M-{n}" for n in range(placed)))
    client, sizes, cursor, numbers = wire.client(), [], None, set()
    for _ in pages:
        page = await client.list_orders(Filters(page_size=10), cursor)
        sizes.append(len(page.orders))
        numbers |= {order.mp_order_number for order in page.orders}
        cursor = page.next_cursor
    assert (sizes, cursor, len(numbers), client.counts.pages) == (pages, None, placed, len(pages))


@pytest.mark.parametrize("last_cursor", ["null", "absent", "empty"])
async def test_the_last_page_has_no_cursor_however_it_says_so(last_cursor):
    async with wired(last_cursor=last_cursor) as wire:
        assert (await wire.client().list_orders(Filters())).next_cursor is None


async def test_a_page_knows_when_it_was_asked_for_and_the_servers_time(wire):
    wire.clock.skip(seconds=60)
    page = await wire.client().list_orders(Filters())
    assert page.read_at == page.server_time == NOON + timedelta(seconds=60)


async def test_the_filter_by_time_includes_its_bound(wire):
    wire.place("M-1")
    wire.ship("M-1")
    client = wire.client()
    at = await client.list_orders(Filters(seller_updated_after=NOON))
    later = await client.list_orders(Filters(seller_updated_after=NOON + timedelta(seconds=1)))
    assert (len(at.orders), len(later.orders)) == (1, 0)


@pytest.mark.parametrize(
    ("filters", "query"),
    [
        pytest.param(Filters(), "page_size=50", id="none: only the page size"),
        pytest.param(
            Filters(seller_updated_after=datetime(2026, 7, 1, 12, 0, 0, 999, tzinfo=UTC)),
            "page_size=50&seller_updated_after=2026-07-01T12:00:00Z",
            id="a time carries its Z and is cut to the second before",
        ),
        pytest.param(
            Filters(seller_updated_after=datetime(2026, 7, 1, 14, tzinfo=timezone(timedelta(hours=2)))),
            "page_size=50&seller_updated_after=2026-07-01T12:00:00Z",
            id="a time of another zone is sent in UTC",
        ),
        pytest.param(
            Filters(mp_order_numbers=("M-1", "a/b", "é&c")),
            "page_size=50&mp_order_numbers=M-1,a%2Fb,%C3%A9%26c",
            id="a list is one value with commas, its items encoded",
        ),
        pytest.param(Filters(has_errors=False, page_size=10), "page_size=10&has_errors=false", id="a flag"),
    ],
)
def test_filters_are_spelled_as_the_contract_has_them(filters, query):
    assert filters.query(None) == query
    assert filters.query("a+b=") == query + "&cursor=a%2Bb%3D"


async def test_has_errors_asks_for_those_with_or_without(wire):
    wire.place("M-1", "M-2")
    wire.sandbox.world.orders.get(S1, "M-2").errors.append({"code": "C", "message": "m"})
    client = wire.client()
    found = [(await client.list_orders(Filters(has_errors=flag))).orders for flag in (True, False)]
    assert [[order.mp_order_number for order in orders] for orders in found] == [["M-2"], ["M-1"]]


@pytest.mark.parametrize("number", ["a/b", "a b+c", "50%", "é", "#1?x=y", ".", "..", "a.b", "%2F"])
async def test_an_odd_order_number_reaches_its_order(wire, number):
    client = wire.client()
    await client.put_order(number, example_order(number))
    order, _ = await client.get_order(number)
    await client.get_fulfillments(number)
    page = await client.list_orders(Filters(mp_order_numbers=(number,)))
    assert [order.mp_order_number, *(o.mp_order_number for o in page.orders)] == [number, number]


@pytest.mark.parametrize("number", [".", ".."])
async def test_dots_alone_are_encoded_lest_a_proxy_folds_the_path(number):
    async with speaking(answer({})) as (client, script):
        await client.put_order(number, {})
    assert script.heads[1].split()[1] == "/api/v1/orders/" + "%2E" * len(number)


async def test_what_feedamp_says_about_a_400_reaches_the_caller():
    async with wired() as wire:
        wire.place("M-1")
        with pytest.raises(RejectedError) as caught:
            await wire.client().put_order("M-1", example_order("M-1", delivery_notes="leave at the door"))
        assert len(wire.asked()) == 1
    assert caught.value.status == 400
    assert caught.value.reasons == (("FIELD_INVALID_VALUE", "delivery_notes cannot be updated"),)


async def test_a_token_that_feedamp_repeats_in_its_words_is_taken_out():
    async with wired() as wire:
        wire.sandbox.fault("echo_400", method="PUT")
        with pytest.raises(RejectedError) as caught:
            await wire.client().put_order("M-1", example_order("M-1"))
    [(code, message)] = caught.value.reasons
    assert code == "FIELD_INVALID_VALUE"
    assert message.startswith('Bearer *** sent {"mp_order_number":"M-1"')


@pytest.mark.parametrize("body", [b"a/b+c=", rb"a\/b+c=", rb"a/b\u002Bc\u003d"])
def test_a_secret_is_taken_out_although_json_escapes_it(body):
    assert without(b'{"sent": "%s", "kept": "a/b"}' % body, "a/b+c=") == b'{"sent": "***", "kept": "a/b"}'


@pytest.mark.parametrize(
    ("body", "left"),
    [
        pytest.param(b"Bearer eyJh.of-S2 sent", b"Bearer *** sent", id="a header of another seller"),
        pytest.param(b"a=1&refresh_token=rt%2Dof-S2&b=2", b"a=1&refresh_token=***&b=2", id="a form"),
        pytest.param(b'{"access_token": "at-of-S2"}', b'{"access_token": "***"}', id="JSON"),
        pytest.param(
            rb'{"m": "{\"refreshToken\":\"rt-of-S2\"}"}',
            rb'{"m": "{\"refreshToken\":\"***\"}"}',
            id="JSON in text",
        ),
        pytest.param(
            b"the bearer of a parcel has no token", b"the bearer of a parcel has no token", id="words"
        ),
    ],
)
def test_what_is_called_a_token_is_taken_out_whoever_has_it(body, left):
    assert without(body, "at-of-S1") == left


@pytest.mark.usefixtures("without_collection")
@pytest.mark.parametrize(
    ("body", "reasons"),
    [
        pytest.param(b'[{"code":"C","message":"m"},"t"]', (("C", "m"), ("", "t")), id="a list"),
        pytest.param(b'{"errors":[{"code":"C","message":"m"}]}', (("C", "m"),), id="a list in an object"),
        pytest.param(b'{"code":7,"error":"m"}', (("7", "m"),), id="an object"),
        pytest.param(
            b'{"detail":"\xc3\xa4"}', (("", '{"detail": "\u00e4"}'),), id="an object of other names"
        ),
        pytest.param(
            b'{"message":"m","errors":{"sku":["bad"]}}',
            (("", 'm {"errors": {"sku": ["bad"]}}'),),
            id="reasons by field",
        ),
        pytest.param(b'{"error":{"code":"C"}}', (("", '{"error": {"code": "C"}}'),), id="an object within"),
        pytest.param(
            b'{"errors":[{"field":"sku","message":"m"}]}',
            (("", 'm {"field": "sku"}'),),
            id="a field named beside",
        ),
        pytest.param(b'{"errors":[],"message":"m"}', (("", "m"),), id="an empty list beside a message"),
        pytest.param(b'{"code":"C","message":"x: C"}', (("C", "x"),), id="a code that the message repeats"),
        pytest.param(b'"no"', (("", "no"),), id="a text"),
        pytest.param(b"<h1>no</h1>", (("", "<h1>no</h1>"),), id="HTML"),
        pytest.param(b"\xff", (("", "\ufffd"),), id="no UTF-8"),
        pytest.param(b" ", (), id="nothing"),
        pytest.param(b"x" * 900, (("", "x" * 500),), id="a long text is cut"),
        pytest.param(
            b'{"code":"\\u0000","message":' + b"[" * 800 + b"]" * 800 + b"}",
            (("", '{"code":"\\u0000","message":' + "[" * 473),),
            id="nested deeper than a NUL can be taken out of",
        ),
        pytest.param(b"[" * 5_000 + b"]" * 5_000, (("", "[" * 500),), id="nested deeper than can be read"),
    ],
)
def test_an_error_body_of_any_shape_is_surfaced(body, reasons):
    assert refusal_reasons(body) == reasons


async def test_a_redirect_is_refused_and_the_token_stays_here():
    async with speaking(answer(status=302, Location="http://127.0.0.1:9/")) as (client, _):
        with pytest.raises(RejectedError):
            await client.get_order("M-1")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({}, id="an object without orders"),
        pytest.param([], id="a bare list"),
        pytest.param({"orders": {"all": 7}}, id="orders that are no list"),
    ],
)
async def test_a_page_of_another_shape_is_never_an_empty_one(body):
    async with speaking(answer(body)) as (client, _):
        with pytest.raises(UnclearError):
            await client.list_orders(Filters())


async def test_an_unreadable_order_leaves_the_rest_of_its_page_readable():
    page = {"orders": [{"mp_order_number": "M-1"}, {"mp_order_number": "M-2", "status": [7]}, 8]}
    page["orders"].append({"mp_order_number": "M\0"})
    async with speaking(answer(page)) as (client, _):
        read = await client.list_orders(Filters())
    assert [order.mp_order_number for order in read.orders] == ["M-1"]
    assert [(item.mp_order_number, item.where) for item in read.unread] == [
        ("M-2", "status"),
        (None, "order"),
        ("M\ufffd", "mp_order_number"),
    ]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param([], id="a list"),
        pytest.param({"mp_order_number": "M-2"}, id="another order"),
        pytest.param({"mp_order_number": "M-1", "status": [7]}, id="a wrong type"),
    ],
)
async def test_an_order_of_another_shape_is_unreadable(body):
    async with speaking(answer(body)) as (client, _):
        with pytest.raises(UnreadableError):
            await client.get_order("M-1")
