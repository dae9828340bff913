"""Orders by number, and orders fetched completely: an order is missing only after its own request returned 404."""

from __future__ import annotations

import pytest
from scripted import answer
from wire import S1, speaking, wired

from feedamp.api.orders_by_number import QUERY_BYTES, fetch_again, fetch_complete, read_by_number
from feedamp.api.pages import BROKEN, REFUSED, Filters, UnreadableOrder
from feedamp.errors import RejectedError

M1 = {"mp_order_number": "M-1", "is_marketplace_fulfilled": False, "fulfillments": []}


def names(count, prefix="M"):
    return [f"{prefix}-{n:04d}" for n in range(count)]


def found(result):
    return sorted(order.mp_order_number for order, _ in result.orders)


def lists(wire):
    """How many order numbers each list request named."""
    queries = [request.query for request in wire.sandbox.requests if request.path.endswith("/orders")]
    return [len(query["mp_order_numbers"].split(",")) for query in queries if "cursor" not in query]


@pytest.fixture
async def wire():
    async with wired() as connected:
        yield connected


@pytest.mark.parametrize(
    ("count", "chunks"),
    [
        pytest.param(0, [], id="none"),
        pytest.param(1, [1], id="one"),
        pytest.param(50, [50], id="exactly a request"),
        pytest.param(51, [50, 1], id="a request plus one"),
    ],
)
async def test_fifty_numbers_go_in_a_request(wire, count, chunks):
    wire.place(*names(count))
    result = await read_by_number(wire.client(), names(count))
    assert (found(result), result.missing, result.unread) == (names(count), [], [])
    assert lists(wire) == chunks
    assert wire.sandbox.broken_rules == []


@pytest.mark.parametrize(
    ("letter", "count"),
    [
        pytest.param("x", 34, id="plain numbers"),
        pytest.param("#", 23, id="numbers of which every character is encoded"),
        pytest.param("é", 11, id="numbers of which every character takes two bytes"),
    ],
)
async def test_no_query_is_longer_than_four_kilobytes(letter, count):
    numbers = [letter * 120 + name for name in names(count)]
    async with speaking(answer({"orders": []})) as (client, script):
        await read_by_number(client, numbers)
    queries = [head.split()[1].partition("mp_order_numbers=")[2] for head in script.heads]
    lengths = [len(query) for query in queries if query]
    assert len(lengths) > 1
    assert max(lengths) <= QUERY_BYTES
    assert min(lengths[:-1]) > QUERY_BYTES * 0.8


@pytest.mark.parametrize("placed", [[], ["M-2"]], ids=["all of them", "one of them"])
async def test_a_number_that_a_list_lacks_is_confirmed_before_it_counts_as_missing(wire, placed):
    wire.place(*placed)
    result = await read_by_number(wire.client(), ["M-1", "M-2"])
    assert (found(result), result.missing) == (placed, sorted({"M-1", "M-2"} - set(placed)))
    assert ("GET", "/orders/M-1", 404) in wire.asked()


async def test_an_order_that_a_list_hides_is_found_by_itself():
    async with speaking(answer({"orders": []}), answer(M1)) as (client, _):
        result = await read_by_number(client, ["M-1"])
    assert (found(result), result.missing) == (["M-1"], [])


@pytest.mark.parametrize(
    "other", [{"status": "ORDERED"}, {"status": {"a": 1}}], ids=["its own", "unreadable"]
)
@pytest.mark.parametrize("is_first", [True, False], ids=["first", "last"])
async def test_an_order_that_a_list_shows_with_two_contents_is_read_by_itself(other, is_first):
    """Either may be the one that is not true, and `close` decides on what is read."""
    shown = [M1 | other, M1] if is_first else [M1, M1 | other]
    async with speaking(answer({"orders": shown}), answer(M1 | {"status": "IN_PROGRESS"})) as (client, _):
        result = await read_by_number(client, ["M-1"])
    assert [order.status for order, _ in result.orders] == ["IN_PROGRESS"]


async def test_an_order_that_a_list_shows_twice_alike_is_not_asked_for_again():
    async with speaking(answer({"orders": [M1, M1]})) as (client, script):
        result = await read_by_number(client, ["M-1"])
    assert (found(result), len(script.requests)) == (["M-1"], 2)  # the first is the token call


async def test_an_unreadable_item_without_a_number_is_found_by_itself():
    async with speaking(answer({"orders": [7]}), answer(M1)) as (client, _):
        result = await read_by_number(client, ["M-1"])
    assert (found(result), result.missing, result.unread) == (["M-1"], [], [])


async def test_an_outage_while_confirming_is_no_missing_order():
    async with speaking(answer({"orders": []}), answer(b"", 503)) as (client, _):
        result = await read_by_number(client, ["M-1"])
    assert (result.missing, result.orders, len(result.failed)) == ([], [], 1)


@pytest.mark.parametrize(("patience", "failed"), [(3, 3), (1, 1)])
async def test_reads_end_once_several_orders_fail_where_lists_are_answered(patience, failed):
    async with speaking(answer({"orders": []}), answer(b"", 503)) as (client, script):
        result = await read_by_number(client, names(9), patience=patience)
    assert (result.missing, result.orders, len(result.failed)) == ([], [], failed)
    assert len({path for head in script.heads if "/M-" in (path := head.split()[1])}) == failed


async def test_an_order_whose_fulfillments_are_not_found_is_unread_and_not_missing():
    order = answer({"mp_order_number": "M-1"})
    async with speaking(answer({"orders": []}), order, answer([], 404)) as (client, _):
        result = await read_by_number(client, ["M-1"])
    assert (result.missing, result.unread) == ([], [UnreadableOrder("M-1", "not found")])


@pytest.mark.parametrize(
    ("allowed", "chunks"),
    [
        pytest.param(20, [40, 20, 20], id="once"),
        pytest.param(10, [40, 20, 10, 10, 20, 10, 10], id="twice"),
    ],
)
async def test_a_list_that_is_refused_is_halved_until_it_is_taken(allowed, chunks):
    async with wired(max_order_numbers=allowed) as wire:
        wire.place(*names(40))
        result = await read_by_number(wire.client(), names(40))
        assert (found(result), result.missing) == (names(40), [])
        assert lists(wire) == chunks
        assert {path for _, path, _ in wire.asked()} == {"/orders"}


@pytest.mark.parametrize("status", [400, 414])
async def test_a_number_whose_list_is_refused_even_alone_is_asked_for_by_itself(status):
    async with speaking(answer([], status), answer(M1)) as (client, script):
        result = await read_by_number(client, ["M-1"])
    assert found(result) == ["M-1"]
    assert [head.split()[1].rpartition("/")[2] for head in script.heads[2:]] == ["M-1"]


async def test_any_other_refusal_is_not_halved():
    async with speaking(answer([], 403)) as (client, script):
        with pytest.raises(RejectedError):
            await read_by_number(client, names(4))
    assert len(script.requests) == 2


async def test_a_number_with_a_comma_is_never_put_in_a_list(wire):
    wire.place("M,1", "M-2")
    result = await read_by_number(wire.client(), ["M,1", "M-2", "no,such"])
    assert (found(result), result.missing, lists(wire)) == (["M,1", "M-2"], ["no,such"], [1])


async def test_orders_that_were_not_requested_are_ignored():
    page = answer({"orders": [M1, {**M1, "mp_order_number": "M-9"}, M1]})
    async with speaking(page) as (client, _):
        assert found(await read_by_number(client, ["M-1"])) == ["M-1"]


async def test_an_order_carries_the_moment_its_page_was_asked_for(wire):
    wire.place("M-1")
    wire.clock.skip(seconds=60)
    asked_at = wire.clock.now()
    result = await read_by_number(wire.client(), ["M-1"])
    assert result.orders[0][1] == asked_at


async def test_a_misshapen_order_among_good_ones_is_read_again_by_itself(wire):
    wire.place(*names(3))
    wire.sandbox.fault("misshapen_order")
    result = await read_by_number(wire.client(), names(3))
    assert (found(result), result.unread) == (names(3), [])
    assert len({read_at for _, read_at in result.orders}) == 2  # its own request was sent later
    assert sum(path.startswith("/orders/") for _, path, _ in wire.asked()) == 1


async def test_an_order_that_stays_misshapen_is_unread_alone(wire):
    wire.place(*names(3))
    wire.sandbox.fault("misshapen_order", times=None)
    result = await read_by_number(wire.client(), names(3))
    assert len(found(result)) == 2
    assert [item.where for item in result.unread] == ["order_lines"]


@pytest.mark.parametrize("shape", ["absent", "flat"])
async def test_fulfillments_of_an_unexpected_shape_come_from_their_own_endpoint(shape):
    async with wired(fulfillments_in_list=shape) as wire:
        wire.place("M-1")
        wire.ship("M-1")
        result = await read_by_number(wire.client(), ["M-1"])
        assert ("GET", "/orders/M-1/fulfillments", 200) in wire.asked()
    assert [s.tracking_number for s in result.orders[0][0].fulfillments[0].shipments] == ["1Z0"]


async def test_fulfillments_of_the_inferred_shape_cost_no_request(wire):
    wire.place("M-1")
    wire.ship("M-1")
    await read_by_number(wire.client(), ["M-1"])
    assert wire.asked() == [("GET", "/orders", 200)]


async def test_an_order_that_does_not_say_who_ships_it_is_asked():
    page = answer({"orders": [{"mp_order_number": "M-1", "fulfillments": []}]})
    async with speaking(page, answer({"is_marketplace_fulfilled": True})) as (client, _):
        result = await read_by_number(client, ["M-1"])
    assert result.orders[0][0].is_marketplace_fulfilled


@pytest.mark.parametrize("status", ["FULFILLED", "CANCELLED"])
async def test_a_settled_order_without_any_units_is_not_believed(status):
    entry = {"mp_line_number": "1", "cancellations": [{"quantity": 1}]}
    answers = [answer({"orders": [{**M1, "status": status}]}), answer({"fulfillments": [entry]})]
    async with speaking(*answers) as (client, _):
        result = await read_by_number(client, ["M-1"])
    assert result.orders[0][0].fulfillments[0].cancellations[0].quantity == 1


async def test_who_ships_is_taken_from_the_fulfillments_where_the_order_does_not_say():
    answers = [
        answer({"orders": [{"mp_order_number": "M-1"}]}),
        answer({"is_marketplace_fulfilled": True, "wave": 7}),
    ]
    async with speaking(*answers) as (client, _):
        order, _ = (await read_by_number(client, ["M-1"])).orders[0]
    assert (order.is_marketplace_fulfilled, order.extra) == (True, {"fulfillments_answer.wave": 7})


async def test_an_order_with_unreadable_fulfillments_is_unread_after_one_more_read():
    bare, broken = {"mp_order_number": "M-1"}, answer({"fulfillments": 7})
    async with speaking(answer({"orders": [bare]}), broken, answer(bare), broken) as (client, script):
        page = await client.list_orders(Filters())
        assert await fetch_complete(client, page.items[0], page.read_at) == UnreadableOrder(
            "M-1", "fulfillments"
        )
    assert len(script.requests) == 5


@pytest.mark.parametrize(
    ("alone", "where"),
    [
        pytest.param(answer(b'{"mp_order_number": "M-1", "x": }'), BROKEN, id="no JSON"),
        pytest.param(answer({**M1, "gift": "x" * 200}), BROKEN, id="too large"),
        pytest.param(answer(status=400), REFUSED, id="refused"),
        pytest.param(answer(status=414), REFUSED, id="a number too long for the path"),
    ],
)
async def test_an_order_whose_single_read_fails_is_unreadable_alone(monkeypatch, alone, where):
    monkeypatch.setattr("feedamp.api.client.ORDER_BYTES", 200)
    async with speaking(alone) as (client, _):
        read = await fetch_again(client, UnreadableOrder("M-1", None))
    assert read == UnreadableOrder("M-1", where)


async def test_an_order_read_again_carries_the_moment_of_that_request():
    async with speaking(answer({"orders": [{**M1, "status": [7]}]}), answer(M1)) as (client, _):
        page = await client.list_orders(Filters())
        _, read_at = await fetch_complete(client, page.items[0], page.read_at)
    assert read_at > page.read_at


async def test_an_unreadable_order_without_a_number_cannot_be_read_again():
    async with speaking(answer({})) as (client, script):
        assert await fetch_again(client, UnreadableOrder(None, "order")) == UnreadableOrder(None, "order")
    assert script.requests == []


async def test_a_number_of_another_seller_is_missing(wire):
    wire.place("M-1", seller_id="seller-002")
    assert (await read_by_number(wire.client(S1), ["M-1"])).missing == ["M-1"]
