"""From bytes to values: exact numbers, and bodies that are not JSON."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal

import pytest

from feedamp.api.decoding import read_order
from feedamp.codec import decode_json
from feedamp.errors import UnreadableError


@pytest.mark.parametrize(
    ("body", "price"),
    [
        pytest.param(b"25.5", "25.5", id="one decimal"),
        pytest.param(b"12345678901234.5678", "12345678901234.5678", id="more digits than a float holds"),
        pytest.param(b"25", "25", id="a whole number"),
        pytest.param(b"2.55e1", "25.5", id="an exponent"),
    ],
)
def test_money_is_exact(body, price):
    raw = b'{"mp_order_number":"M-1","order_lines":[{"mp_line_number":"1","unit_price":%s}]}' % body
    read = read_order(decode_json(raw), Counter()).order_lines[0].unit_price
    assert isinstance(read, Decimal)
    assert read == Decimal(price)


def test_money_beyond_four_decimals_is_rounded_kept_and_counted():
    coercions = Counter()
    raw = b'{"mp_order_number":"M-1","order_lines":[{"mp_line_number":"1","unit_price":10.33333}]}'
    [line] = read_order(decode_json(raw), coercions).order_lines
    assert line.unit_price == Decimal("10.3333")
    assert line.extra == {"unit_price": Decimal("10.33333")}
    assert coercions == {"money_beyond_four_decimals": 1}


@pytest.mark.parametrize(
    ("body", "value", "counted"),
    [
        pytest.param(b'\xef\xbb\xbf{"a":1.10}', {"a": Decimal("1.10")}, "byte_order_mark", id="a mark"),
        pytest.param(
            b"\xef\xbb\xbf\xef\xbb\xbf[1]\r\n\0", [1], "byte_order_mark", id="two, and a NUL behind"
        ),
        pytest.param('\ufeff{"a":"é"}'.encode("utf-16-le"), {"a": "é"}, "byte_order_mark", id="UTF-16"),
        pytest.param(
            b'{"a":"M\xfcller"}', {"a": "M\ufffdller"}, "byte_that_is_not_utf8", id="a latin-1 byte"
        ),
        pytest.param(b'{"a":NaN,"b":"\\u00e9"}', {"a": None, "b": "é"}, "number_that_is_none", id="NaN"),
        pytest.param(b'{"a":-Infinity}', {"a": "-Infinity"}, "number_that_is_none", id="infinity"),
        pytest.param(b'{"a":1e9999}', {"a": "1e9999"}, None, id="a number beyond all bounds"),
        pytest.param(b'{"a":' + b"9" * 5000 + b"}", {"a": "9" * 5000}, None, id="one with too many digits"),
        pytest.param(b'{"a\\u0000":"\\u0000b"}', {"a\ufffd": "\ufffdb"}, None, id="NUL"),
        pytest.param(b'{"a":"two\nlines"}', {"a": "two\nlines"}, None, id="a bare line break in text"),
    ],
)
def test_what_no_store_can_hold_costs_itself(body, value, counted):
    coercions = Counter()
    assert decode_json(body, coercions) == value
    assert list(coercions) == ([counted] if counted else [])


def test_half_a_character_costs_that_character_alone():
    raw = b'{"mp_order_number":"M-1","gift":"cut \\ud83d here","price":1.10}'
    assert decode_json(raw) == {"mp_order_number": "M-1", "gift": "cut \ufffd here", "price": Decimal("1.10")}


def test_a_number_that_no_decimal_holds_fails_its_order_alone():
    body = decode_json(
        b'[{"mp_order_number":"M-1","order_lines":[{"mp_line_number":"1","unit_price":1e9999999999999999999}]},{}]'
    )
    with pytest.raises(UnreadableError) as caught:
        read_order(body[0], Counter())
    assert caught.value.where == "order_lines[0].unit_price"


@pytest.mark.usefixtures("without_collection")
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"orders":[', id="half a text"),
        pytest.param(b"<html></html>", id="HTML"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"[" * 100_000, id="nested too deep"),
        pytest.param(b'["\\u0000",' + b"[" * 800 + b"]" * 800 + b"]", id="nested too deep beside a NUL"),
    ],
)
def test_a_body_that_is_no_json_is_unreadable(body):
    with pytest.raises(UnreadableError):
        decode_json(body)
