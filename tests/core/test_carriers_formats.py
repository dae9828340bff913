"""Every format that has a check digit: made numbers fit, a digit changed is found out.

The check digits are computed here by other means than in the code under test.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from feedamp.carriers import Status, check, identify, normalize
from feedamp.carriers.catalogue import ALL
from feedamp.carriers.typed_numbers import is_placeholder

LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
LETTERS_AND_MORE = st.characters(codec="ascii")  # all of Unicode would take a second to sort


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


def made(
    prefix: str, length: int, check_digit, tail: str = "", alphabet: str = "0123456789"
) -> SearchStrategy[str]:
    """Numbers with this prefix, `length` characters long including their check digit, followed by the tail."""
    rest = st.text(alphabet, min_size=length - len(prefix) - 1, max_size=length - len(prefix) - 1)
    return rest.map(lambda r: prefix + r + check_digit(prefix + r) + tail)


# carrier, numbers, and where a digit may be changed without leaving the format
MADE = [
    pytest.param("UPS", made("1Z", 18, lambda b: ups(b[2:]), alphabet=LETTERS), [17], id="UPS 1Z"),
    pytest.param("UPS", made("K", 11, lambda b: ups(b[1:])), [10], id="UPS waybill"),
    pytest.param("FedEx", made("7", 12, fedex), [11], id="FedEx Express"),
    pytest.param("FedEx", made("5", 15, gs1), range(1, 15), id="FedEx Ground"),
    pytest.param("FedEx", made("96", 22, lambda b: gs1(b[7:])), range(7, 22), id="FedEx Ground 96"),
    pytest.param("FedEx", made("6129", 20, lambda b: gs1("92" + b)), range(4, 20), id="FedEx Ground Economy"),
    pytest.param("FedEx", made("1001921334250001000300", 34, fedex), [33], id="FedEx Express barcode"),
    pytest.param("FedEx", made("9622001900000000000000", 34, fedex), [33], id="FedEx Ground barcode"),
    pytest.param("FedEx", made("3297151456010244", 28, fedex, "2014"), [27], id="FedEx ASTRA barcode"),
    pytest.param("FedEx", made("001", 18, gs1), range(2, 18), id="FedEx container"),
    pytest.param("USPS", made("94", 22, gs1), range(2, 22), id="USPS online postage"),
    pytest.param("USPS", made("9274", 26, gs1), range(2, 26), id="USPS of 26 digits"),
    pytest.param("USPS", made("94", 30, gs1), range(2, 30), id="USPS of 30 digits"),
    pytest.param("USPS", made("4207874593", 30, lambda b: gs1(b[8:])), range(10, 30), id="USPS and ZIP code"),
    pytest.param(
        "USPS", made("42078745123493", 34, lambda b: gs1(b[12:])), range(14, 34), id="USPS and ZIP+4"
    ),
    pytest.param("USPS", made("EA", 11, s10, "US"), [10], id="USPS abroad"),
    pytest.param("DHL Paket", made("0034043", 20, gs1), range(7, 20), id="DHL Paket"),
    pytest.param("La Poste", made("RB", 11, s10, "FR"), [10], id="French S10"),
    pytest.param("Royal Mail", made("KF", 11, s10, "GB"), [10], id="Royal Mail"),
    pytest.param("Correios", made("AA", 11, s10, "BR"), [10], id="Correios"),
    pytest.param("Japan Post", made("EJ", 11, s10, "JP"), [10], id="Japan Post"),
    pytest.param("Australia Post", made("LK", 11, s10, "AU"), [10], id="Australian S10"),
    pytest.param("Canada Post", made("7", 16, gs1), range(1, 16), id="Canada Post"),
    pytest.param("OnTrac", made("C1", 15, lambda b: ups("4" + b[1:])), [14], id="OnTrac, C"),
    pytest.param("OnTrac", made("D1", 15, lambda b: ups("5" + b[1:])), [14], id="OnTrac, D"),
    pytest.param("Purolator", made("3", 12, luhn), range(1, 12), id="Purolator"),
    pytest.param("Old Dominion", made("7", 11, luhn), range(1, 11), id="Old Dominion"),
    pytest.param("DPD", made("0", 28, iso_7064), range(1, 27), id="DPD label"),
]
# Other divisions have numbers of these shapes without the check digit, so a wrong one proves nothing.
UNPROVEN = [
    pytest.param("DHL", made("3", 10, lambda b: str(int(b) % 7)), [9], id="DHL waybill"),
    pytest.param("DHL Express", made("7", 11, lambda b: str(int(b) % 7)), [10], id="DHL Express Air"),
    pytest.param("FedEx", made("00", 14, lambda b: fedex(b[2:])), [13], id="FedEx Express behind zeros"),
]


@settings(max_examples=12)
@pytest.mark.parametrize(("carrier", "numbers", "places"), MADE + UNPROVEN)
@given(data=st.data())
def test_a_made_number_is_valid_and_names_its_carrier(carrier, numbers, places, data):
    number = data.draw(numbers.filter(lambda number: not is_placeholder(number)))
    assert check(carrier, number).status is Status.VALID
    assert normalize(carrier) in identify(number)


@settings(max_examples=12)
@pytest.mark.parametrize(("carrier", "numbers", "places"), MADE)
@given(data=st.data())
def test_one_digit_changed_is_found_out(carrier, numbers, places, data):
    number = data.draw(numbers)
    place = data.draw(st.sampled_from(places))
    other = data.draw(st.sampled_from([c for c in "0123456789" if c != number[place]]))
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


@settings(max_examples=3)
@pytest.mark.parametrize(("carrier", "format_"), FORMATS)
@given(data=st.data())
def test_a_format_knows_the_lengths_of_its_shape(carrier, format_, data):
    number = data.draw(st.from_regex(format_.shape, fullmatch=True, alphabet=LETTERS_AND_MORE))
    assert len(number) in format_.lengths


@settings(max_examples=3)
@pytest.mark.parametrize(("carrier", "format_"), FORMATS)
@given(data=st.data())
def test_a_number_gets_the_verdict_it_gets_with_a_space_behind_it(carrier, format_, data):
    number = data.draw(st.from_regex(format_.shape, fullmatch=True, alphabet=LETTERS_AND_MORE))
    assert check(carrier.title, number) == check(carrier.title, f"{number} ")


@given(carrier=st.sampled_from([c.title for c in ALL]) | st.text() | st.none(), number=st.text() | st.none())
def test_whatever_is_typed_gets_a_verdict(carrier, number):
    verdict = check(carrier, number)
    assert (verdict.status is Status.VALID) == (verdict.reason == "")
    assert verdict.carrier_id == normalize(carrier)
    assert isinstance(identify(number or ""), list)


@settings(max_examples=12)
@pytest.mark.parametrize(("carrier", "numbers", "places"), UNPROVEN)
@given(data=st.data())
def test_a_digit_that_another_division_may_have_proves_nothing(carrier, numbers, places, data):
    number = data.draw(numbers.filter(lambda number: not is_placeholder(number)))
    place = data.draw(st.sampled_from(places))
    other = data.draw(st.sampled_from([c for c in "0123456789" if c != number[place]]))
    changed = number[:place] + other + number[place + 1 :]
    assert is_placeholder(changed) or check(carrier, changed).status is not Status.INVALID
