"""An order that is read at once is what the tolerant reader makes of it, value for value."""

from __future__ import annotations

import json
from collections import Counter
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from order_samples import example_order, good_line

from feedamp.api.decoding import cursor_of, read_order, read_page, read_tolerantly, salvage_page
from feedamp.api.json_fields import Coercions
from feedamp.api.pages import UNREADABLE_CURSOR
from feedamp.api.plain_orders import PlainOrders
from feedamp.codec import NUL, decode_json, encode
from feedamp.errors import UnreadableError
from feedamp.lake.flatten import order_columns, order_rows, rows_of
from feedamp.models import Order, ReadOrder

SHIPMENT = {
    "quantity": 1,
    "carrier": "UPS",
    "tracking_number": "1Z999AA10123456784",
    "shipped_date": "2026-03-04",
    "tracking_url": None,
}
PLAIN: dict[str, Any] = example_order(
    "M-1",
    customer={"full_name": "Robin Vale", "email": None},
    order_lines=[
        good_line(mp_line_number="A", shipping_price=6, taxes=[{"type": "ITEM", "amount": 1.25}]),
        good_line(mp_line_number="B", unit_price="25.50"),
    ],
    fulfillments=[
        {"mp_line_number": "A", "shipments": [SHIPMENT, SHIPMENT], "cancellations": [], "status": "PART"},
        {
            "mp_line_number": "B",
            "shipments": None,
            "cancellations": [{"quantity": 1, "reason": "lost"}],
            "pending": {"quantity": 0},
        },
    ],
    errors=[{"code": "C", "message": "m", "mp_line_number": "A"}],
    earliest_ship_date="2026-03-02T14:05:00.123Z",
    latest_ship_date="2026-03-02T16:05:00+02:00",
    status="PART",
    acknowledged=True,
    is_marketplace_fulfilled=False,
)
PLAIN_TEXT = json.dumps(PLAIN, default=float).encode()
FIRST = read_tolerantly(decode_json(PLAIN_TEXT), Counter())
READ_AT = datetime(2026, 3, 10, 12, tzinfo=UTC)
TEXTS = (
    *("", " ", "x", "1", "true", "x" * 128, "x" * 129, "a\0b", "\ufffd"),
    *(
        "25.50",
        "25,50",
        " 7 ",
        "1_000",
        "1e2",
        "1.00001",
        "NaN",
        "sNaN",
        "Infinity",
        ".5",
        "5.",
        "-3",
        "\u0662",
    ),
    *("2026-03-02", "20260302", "2026-W10-1", "2026-02-30", "0000-00-00", "0000-00-00T00:00:00Z"),
    *("2026-03-02T14:05:00", "2026-03-02T14:05:00z", "2026-03-02t14:05:00Z", "2026-03-02 14:05Z"),
    *("2026-03-02T14:05:00.1234567Z", "2026-03-02T14:05:00-05:30", " 2026-03-02T14:05:00Z "),
    *("2026-03-02T24:00:00Z", "2026-03-02T14:05:60Z", "2026-03-02ß14:05:00Z"),
    *("0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"),
)
NUMBERS = (
    *(
        "0",
        "1",
        "-1",
        "2.0",
        "2.5",
        "25.50",
        "1e2",
        "1.00001",
        "-0.0",
        "0e9",
        "0.10000",
        "1e14",
        "1e400",
        "NaN",
    ),
    *("99999999999999.99995", "2147483647", "2147483648", "-2147483648", str(2**63), str(10**30), "9" * 500),
)
OTHERS = (
    *(
        "null",
        "true",
        "false",
        "[]",
        "{}",
        "[[]]",
        "[{}]",
        "[null]",
        "[1,2]",
        '{"0":{}}',
        '{"a":1}',
        '{"é":null}',
    ),
    *('{"quantity":1,"gift":2}', "[" * 40 + "]" * 40, '{"a":' * 40 + "0" + "}" * 40, '"\\ud83d"'),
)
# A zero that is decoded as text, since its exponent is beyond all bounds, and as one object for both amounts.
ZEROS = json.dumps(
    PLAIN | {"order_lines": [good_line(unit_price=0, shipping_price=0)]}, default=float
).replace('_price": 0', '_price": 0e500')
# As they are in the text of a page.
VALUES = st.sampled_from([*map(json.dumps, TEXTS), *NUMBERS, *OTHERS])
NAMES = st.sampled_from(
    ["gift", "extra", "quantity", "carrier", "status", "pending", "0", "mp_line_number", "errors"]
)
MARK, AGAIN = "@value@", "@again@"


def places_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all objects, lists and values below `value`."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, below in inner for place in places_in(below, (*path, key)))]


@st.composite
def changed_orders(draw: st.DrawFn) -> str:
    """The JSON of an order with up to three changes: a value replaced, removed, added under another name, or sent twice."""
    order, values = deepcopy(PLAIN), []
    for _ in range(draw(st.integers(0, 3))):
        path = draw(st.sampled_from(places_in(order)[1:]))
        at = order
        for key in path[:-1]:
            at = at[key]
        change = draw(st.sampled_from(["replace", "replace", "remove", "add", "twice"]))
        if change == "remove":
            del at[path[-1]]
        elif change == "twice" and isinstance(at, dict):
            at[f"{AGAIN}{path[-1]}"] = f"{MARK}{len(values)}"
            values.append(draw(VALUES))
        else:
            if change == "add" and isinstance(at, dict):
                at[draw(NAMES)] = f"{MARK}{len(values)}"
            else:
                at[path[-1]] = f"{MARK}{len(values)}"
            values.append(draw(VALUES))
    text = json.dumps(order, default=float)
    for number, value in enumerate(values):
        text = text.replace(f'"{MARK}{number}"', value)
    return text.replace(AGAIN, "")


def outcome(read: Any, item: Any) -> tuple[Any, Coercions]:
    """What a reader makes of an item, down to the digits of each amount, and what it counts."""
    coercions: Coercions = Counter()
    try:
        order = read(item, coercions)
    except UnreadableError as error:
        return (error.message, error.where), coercions
    return order and (order, encode(order)), coercions


def read_second(page: bytes, coercions: Coercions) -> Order:
    """The second of two orders, as a page is read."""
    items, _ = read_page(page, coercions)
    _, second = [read_order(item, coercions) for item in items or ()]
    return second


@given(changed_orders())
@example(json.dumps(PLAIN, default=float))
@example(json.dumps(PLAIN | {"order_lines": [good_line(unit_price=1.00001)]}, default=float))
@example(ZEROS)
def test_both_readers_give_the_same_order_whatever_a_page_holds(text: str) -> None:
    meant: Coercions = Counter()
    item = decode_json(text.encode(), meant)
    tolerant = outcome(read_tolerantly, item)
    plain = PlainOrders()
    for read, given_ in (
        (plain.read_text, text.encode()),
        (plain.read, item),
        (plain.read_text, text.encode()),
    ):
        if isinstance(given_, bytes) and NUL in given_:
            continue
        at_once, counted = outcome(read, given_)
        if at_once is None:
            assert not counted
        else:
            assert (at_once, counted) == tolerant
    assert outcome(read_order, item) == tolerant
    page = b'{"next_cursor":null,"orders":[%b,%b]}' % (PLAIN_TEXT, text.encode())
    assert outcome(read_second, page) == (tolerant[0], tolerant[1] + meant + Counter(number_as_text=1))
    if isinstance(tolerant[0][0], Order):
        both = [FIRST, tolerant[0][0]]
        rows = [order_rows("S1", order, read_at=READ_AT) for order in both]
        assert rows_of(order_columns(["S1", "S1"], [ReadOrder(order, READ_AT) for order in both])) == {
            table: first + rows[1][table] for table, first in rows[0].items()
        }


def test_equal_times_without_a_zone_are_counted_one_by_one() -> None:
    time = "2026-03-02T14:05:00"
    order = decode_json(PLAIN_TEXT) | {"purchase_date": time, "latest_ship_date": time}
    meant: Coercions = Counter()
    tolerant = [read_tolerantly(order, meant) for _ in range(2)]
    plain, counted = PlainOrders(), Counter[str]()
    plain.read(order, Counter())  # learns its members
    page = b'{"orders":[%b,%b],"next_cursor":null}' % (encode(order), encode(order))
    assert plain.read_page(page, counted) == (tolerant, None)
    assert counted == meant
    assert counted["time_without_zone"] == 4


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({}, id="as the contract says"),
        pytest.param({"gift": {"wrap": True}}, id="an unknown member"),
        pytest.param(
            {"order_lines": [good_line(unit_price="25.50", gift=1)]}, id="of a line, amount as text"
        ),
        pytest.param(dict.fromkeys(["customer", "errors", "purchase_date"]), id="null for what is absent"),
        pytest.param({"purchase_date": "2026-03-02T14:05:00"}, id="a time without zone"),
    ],
)
def test_orders_like_these_are_read_at_once(change: dict[str, Any]) -> None:
    text = json.dumps(PLAIN | change, default=float).encode()
    plain = PlainOrders()
    assert isinstance(
        plain.read(decode_json(text), Counter()), Order
    )  # learns the members that have no field
    read = plain.read_text(text, Counter())
    assert isinstance(read, Order)
    page = b'{"orders":[%b,%b],"next_cursor":"2"}' % (text, text)
    assert plain.read_page(page, Counter()) == ([read, read], "2")


@pytest.mark.parametrize(
    ("text", "cursor"),
    [
        pytest.param(b'{"next_cursor":"a", "orders": [{"x": "\xff"}]}', "a", id="an order that is not plain"),
        pytest.param(b'{"orders":[],"next_cursor":"a","next_cursor":"b"}', "b", id="twice"),
        pytest.param(b'{"orders":[],"next_cursor":""}', None, id="empty"),
        pytest.param(b'{"orders":[],"next_cursor":" "}', None, id="blank"),
        pytest.param(b'{"orders":[],"next_cursor":7}', None, id="a number"),
        pytest.param(b'{"orders":null,"next_cursor":"a"}', None, id="of a page that is asked for again"),
        pytest.param(b'{"next_cursor":"a"}', None, id="without orders"),
        pytest.param(b'{"orders":[{"next_cursor":"a"}]}', None, id="of an order"),
        pytest.param(b'{"orders":[],"next_cursor":"a"', None, id="of a page that is cut off"),
    ],
)
def test_the_cursor_is_told_in_advance_where_the_page_will_be_read(text: bytes, cursor: str | None) -> None:
    assert cursor_of(text) == cursor
    if cursor is not None:
        assert read_page(text, Counter())[1] == cursor


BLANK = st.text(" \t\r\n\x1c\x85\u00a0\u2003\u3000").map(json.dumps)


@given(BLANK | st.text(max_size=3).map(json.dumps) | st.sampled_from([*map(json.dumps, TEXTS), "null"]))
def test_all_readers_of_a_page_find_the_same_next_cursor(sent: str) -> None:
    at_once = b'{"orders":[],"next_cursor":%b}' % sent.encode()
    of_texts = b'{"orders":[7],"next_cursor":%b}' % sent.encode()
    tolerantly = b'{"orders":[],"x":NaN,"next_cursor":%b}' % sent.encode()
    [cursor] = {read_page(page, Counter())[1] for page in (at_once, of_texts, tolerantly)}
    assert salvage_page(b'{"orders":[x],"next_cursor":%b}' % sent.encode()) == ([], cursor)
    if NUL not in at_once:
        assert cursor_of(at_once) == cursor
    meant = decode_json(sent.encode()) or ""
    assert cursor == (meant if meant.strip() else None)


@pytest.mark.parametrize(
    ("sent", "cursor", "counted"),
    [
        pytest.param(b'["c-1"]', "c-1", {"list_for_text": 1}, id="a list of one text"),
        pytest.param(b'[" "]', None, {"list_for_text": 1}, id="a list of a blank text"),
        pytest.param(b"7", "7", {"number_for_text": 1}, id="a number"),
        pytest.param(b"[]", None, {"empty_for_null": 1}, id="an empty list"),
        pytest.param(b'["c-1","c-2"]', UNREADABLE_CURSOR, {}, id="a list of two"),
        pytest.param(b"[7]", UNREADABLE_CURSOR, {}, id="a list of a number"),
        pytest.param(b'{"cursor":"c-1"}', UNREADABLE_CURSOR, {}, id="an object"),
        pytest.param(b"true", UNREADABLE_CURSOR, {}, id="true"),
    ],
)
def test_a_next_cursor_of_another_type_costs_no_order(
    sent: bytes, cursor: str | None, counted: dict[str, int]
) -> None:
    coercions: Coercions = Counter()
    page = b'{"orders":[{"mp_order_number":"M-1"}],"next_cursor":%b}' % sent
    assert read_page(page, coercions) == ([{"mp_order_number": "M-1"}], cursor)
    assert coercions == counted
    assert cursor_of(page) is None


@pytest.mark.parametrize(
    "name", ['a"b', "a\\b", "a\nb", "a\x7fb", "\ud800", "", "__class__", "further_0", "x" * 101]
)
def test_a_member_of_any_name_is_kept_and_spoils_no_other_order(name: str) -> None:
    plain = PlainOrders()
    strange = decode_json(json.dumps(PLAIN | {name: 1}, default=float).encode())
    item = decode_json(json.dumps(PLAIN | {"gift": 1}, default=float).encode())
    read, coercions = plain.read(strange, Counter()), Counter[str]()
    assert read is None or read == read_tolerantly(strange, coercions)
    assert read_order(strange, coercions).extra[(strange.keys() - PLAIN.keys()).pop()] == 1
    assert isinstance(plain.read(item, Counter()), Order)
