"""What FeedAMP says about an order is kept without the order's personal values, however it repeats them."""

from __future__ import annotations

import time

import pytest

from feedamp.errors import RejectedError
from feedamp.rules.echoed_values import without_values

BODY = {
    "mp_order_number": "M-1",
    "customer": {"full_name": "Zoë Quillmere", "email": "zq@example.com", "phone": None, "vat": "GB 123"},
    "shipping_address": {
        "full_name": "Bo Vale",
        "address1": "12 Elm St., Apt 4",
        "address2": "7",
        "city": "Portland",
        "door_code": 4711,
    },
    "delivery_notes": "ring twice",
    "order_lines": [
        {
            "sku": "TABLE-1",
            "discounts": [{"name": "GIFT FOR ZOE", "type": "PROMO", "amount": "1"}],
            "gift_note": {"to": "dear aunt", "from": "𠮷कु, Groß\nSt 5", "floor": "# - 8"},
        }
    ],
}


def kept(message: str, code: str = "", body: object = None) -> tuple[tuple[str, str], ...]:
    error = RejectedError("FeedAMP answered 400 to PUT.", status=400, reasons=((code, message),))
    return without_values(error, BODY if body is None else body).reasons


@pytest.mark.parametrize(
    ("said", "left"),
    [
        pytest.param("no such person: Zoë Quillmere!", "no such person: ***!", id="as it was sent"),
        pytest.param("ZOË  QUILLMERE", "***", id="in capitals, with two spaces"),
        pytest.param("Mr. quillmere has moved", "Mr. *** has moved", id="the surname alone"),
        pytest.param(r'{"n": "Zo\u00eb Quillmere"}', '{"n": "***"}', id="escaped as in JSON"),
        pytest.param("name=Zo%C3%AB%20Quillmere&x=1", "name=***&x=1", id="escaped as in a URL"),
        pytest.param("Zo&euml; Quillmere &amp; Bo", "*** & ***", id="escaped as in HTML"),
        pytest.param("Zoe\u0308 Quillmere", "***", id="with an accent of its own"),
        pytest.param("zq@example.com, zq@example.org", "***, zq@example.org", id="an address of mail"),
        pytest.param("vat GB123 or GB 123", "vat GB123 or ***", id="a number with a space"),
        pytest.param("at 12 ELM ST APT 4", "at ***", id="a street without its signs"),
        pytest.param("floor 7 of 77, line 17", "floor *** of 77, line 17", id="a short value by itself"),
        pytest.param("Bob Valery and Bo", "Bob ***ry and ***", id="in a longer word from four letters on"),
        pytest.param("RING TWICE; 4711; dear aunt", "***; ***; ***", id="notes and unknown fields"),
        pytest.param("gift for zoe", "***", id="a voucher"),
        pytest.param(
            r'{"to": "\ud842\udfb7\u0915\u0941, GROSS\nST 5"}', '{"to": "***"}', id="escapes of all kinds"
        ),
        pytest.param("line 18 of unit 8", "line 18 of unit ***", id="a short value with a long sign"),
        pytest.param("TABLE-1 for Portland, M-1", "TABLE-1 for Portland, M-1", id="nothing personal"),
        pytest.param("the person Zoë Quil", "the person *** ***", id="cut off in a value"),
        pytest.param("mail zq@exa", "mail ***", id="cut off in an address of mail"),
    ],
)
def test_personal_values_are_taken_out(said: str, left: str) -> None:
    [(_, message)] = kept(said)
    assert message == left


def test_a_code_of_feedamp_stays_whatever_a_customer_is_called() -> None:
    body = {"customer": {"full_name": "Field Value"}}
    assert kept("Field Value", "FIELD_INVALID_VALUE", body) == (("FIELD_INVALID_VALUE", "***"),)
    assert kept("", "of Field", body) == (("of ***", ""),)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({}, id="of an order without a body"),
        pytest.param({"customer": None, "shipping_address": [], "order_lines": "x"}, id="of other shapes"),
        pytest.param({"customer": {"full_name": "-", "vat": True}}, id="with nothing to look for"),
    ],
)
def test_without_values_the_words_stay(body: object) -> None:
    assert kept("no such person: Zoë", "x", body) == (("x", "no such person: Zoë"),)


def test_an_order_of_tens_of_thousands_of_values_does_not_hold_others_up() -> None:
    lines = [{"gift_note": f"for number {at} dear"} for at in range(20_000)]
    began = time.process_time()
    said = kept("no such person " * 30 + "for number 7 dear", body={"order_lines": lines})
    assert said == (("", "no such person " * 30 + "***"),)
    assert time.process_time() - began < 5
