"""Every format that has a check digit: made numbers fit, a digit changed is found out.

The check digits are computed here by other means than in the code under test.
"""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from feedamp.carriers import Status, check, identify, normalize
from feedamp.carriers.catalogue import ALL

LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def gs1(body: str) -> str:
    return str(-sum(int(c) * (3, 1)[i % 2] for i, c in enumerate(reversed(body))) % 10)


def ups(body: str) -> str:
    values = dict(zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "23456789012345678901234567", strict=True))
    return str(-sum(int(values.get(c, c)) * (1, 2)[i % 2] for i, c in enumerate(body)) % 10)


def fedex(body: str) -> str:
    weights = "31731731731"
    return str(sum(int(c) * int(w) for c, w in zip(body[-11:], weights, strict=True)) % 11 % 10)


def s10(body: str) -> str:
    rest = sum(int(c) * int(w) for c, w in zip(body[-8:], "86423597", strict=True)) % 11
    return "50987654321"[rest]


def luhn(body: str) -> str:
    return str(
        -sum(int("0246813579"[int(c)]) if i % 2 == 0 else int(c) for i, c in enumerate(body[::-1])) % 10
    )


def iso_7064(body: str) -> str:
    product = 36
    for c in body:
        product = ((product + LETTERS.index(c)) % 36 or 36) * 2 % 37
    return LETTERS[(37 - product) % 36]


def made(pattern: str, check_digit, tail: str = "") -> SearchStrategy[str]:
    bodies = st.from_regex(re.compile(pattern, re.ASCII), fullmatch=True)
    return bodies.map(lambda body: body + check_digit(body) + tail)


# carrier, numbers, and where a digit may be changed without changing the format
MADE = [
    pytest.param("UPS", made(r"1Z[0-9A-Z]{15}", lambda b: ups(b[2:])), -1, id="UPS 1Z"),
    pytest.param("UPS", made(r"[JKV]\d{9}", lambda b: ups(b[1:])), -1, id="UPS waybill"),
    pytest.param("FedEx", made(r"[1-9]\d{10}", fedex), -1, id="FedEx Express"),
    pytest.param("FedEx", made(r"[1-9]\d{13}", gs1), slice(1, 15), id="FedEx Ground"),
    pytest.param("FedEx", made(r"96\d{19}", lambda b: gs1(b[7:])), slice(7, 22), id="FedEx Ground 96"),
    pytest.param("FedEx", made(r"612[9]\d{15}", lambda b: gs1("92" + b)), -1, id="FedEx Ground Economy"),
    pytest.param("FedEx", made(r"100\d{17}00\d{11}", fedex), -1, id="FedEx Express barcode"),
    pytest.param("USPS", made(r"9[1-5]\d{19}", gs1), slice(2, 22), id="USPS of 22 digits"),
    pytest.param("USPS", made(r"9[2-5]\d{23}", gs1), slice(2, 26), id="USPS of 26 digits"),
    pytest.param(
        "USPS", made(r"420\d{5}9[2-5]\d{19}", lambda b: gs1(b[8:])), slice(10, 30), id="USPS and ZIP"
    ),
    pytest.param("USPS", made(r"[A-Z]{2}\d{8}", s10, "US"), 10, id="USPS abroad"),
    pytest.param("DHL", made(r"[1-9]\d{8}", lambda b: str(int(b) % 7)), -1, id="DHL waybill"),
    pytest.param("La Poste", made(r"[A-Z]{2}\d{8}", s10, "FR"), 10, id="French S10"),
    pytest.param("Australia Post", made(r"[A-Z]{2}\d{8}", s10, "AU"), 10, id="Australian S10"),
    pytest.param("Canada Post", made(r"[1-9]\d{14}", gs1), slice(1, 16), id="Canada Post"),
    pytest.param("OnTrac", made(r"C1\d{12}", lambda b: ups("4" + b[1:])), -1, id="OnTrac"),
    pytest.param("Purolator", made(r"[1-5]\d{10}", luhn), slice(1, 12), id="Purolator"),
    pytest.param("Old Dominion", made(r"[1-9]\d{9}", luhn), slice(1, 11), id="Old Dominion"),
    pytest.param("DPD", made(r"0\d{26}", iso_7064), slice(1, 27), id="DPD label"),
]


@settings(max_examples=40)
@pytest.mark.parametrize(("carrier", "numbers", "where"), MADE)
@given(data=st.data())
def test_a_made_number_is_valid_and_names_its_carrier(carrier, numbers, where, data):
    number = data.draw(numbers)
    assert check(carrier, number).status is Status.VALID
    assert normalize(carrier) in identify(number)


@settings(max_examples=40)
@pytest.mark.parametrize(("carrier", "numbers", "where"), MADE)
@given(data=st.data())
def test_one_digit_changed_is_found_out(carrier, numbers, where, data):
    number = data.draw(numbers)
    digits = range(len(number))[where] if isinstance(where, slice) else [where % len(number)]
    place = data.draw(st.sampled_from(digits))
    other = data.draw(st.sampled_from([c for c in LETTERS[:10] if c != number[place]]))
    verdict = check(carrier, number[:place] + other + number[place + 1 :])
    assert verdict.status is Status.INVALID
    assert verdict.carrier_id == normalize(carrier)
    assert verdict.reason.endswith(".")


FORMATS = [
    pytest.param(carrier, format_, id=f"{carrier.title}: {format_.name}, {format_.shape.pattern[:30]}")
    for carrier in ALL
    for format_ in carrier.formats
    if carrier.country == "" or format_.name != "S10"
]


@settings(max_examples=15)
@pytest.mark.parametrize(("carrier", "format_"), FORMATS)
@given(data=st.data())
def test_a_format_knows_the_lengths_of_its_shape(carrier, format_, data):
    number = data.draw(st.from_regex(format_.shape, fullmatch=True))
    assert len(number) in format_.lengths


@given(carrier=st.sampled_from([c.title for c in ALL]) | st.text() | st.none(), number=st.text() | st.none())
def test_whatever_is_typed_gets_a_verdict(carrier, number):
    verdict = check(carrier, number)
    assert (verdict.status is Status.VALID) == (verdict.reason == "")
    assert verdict.carrier_id == normalize(carrier)
    assert isinstance(identify(number or ""), list)
