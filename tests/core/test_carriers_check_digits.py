"""How many wrong digits each check digit detects: all of them where its rule can, otherwise the documented share."""

from __future__ import annotations

import random
import re

import pytest

from carrier_docs import RULES_OF_CHECK_DIGITS
from feedamp.carriers import Status, check, check_digits

# rule, carrier, a pattern of its numbers with a 9 for a drawn digit, where a digit may change, the least and most share
MEASURED = [
    pytest.param("gs1", "FedEx", "599999999999999", range(15), (1, 1), id="FedEx Ground"),
    pytest.param("gs1", "USPS", "9499999999999999999999", range(2, 22), (1, 1), id="USPS online postage"),
    pytest.param("gs1", "Canada Post", "7999999999999999", range(16), (1, 1), id="Canada Post"),
    pytest.param("luhn", "Old Dominion", "79999999999", range(11), (1, 1), id="Old Dominion"),
    pytest.param("luhn", "Purolator", "399999999999", range(1, 12), (1, 1), id="Purolator"),
    pytest.param("modulo_37_36", "DPD", "0" + "9" * 26 + "9", range(27), (1, 1), id="DPD label"),
    pytest.param("ups", "UPS", "1Z9999999999999999", range(2, 18), (0.945, 0.955), id="UPS 1Z"),
    pytest.param("fedex", "FedEx", "799999999999", range(12), (0.975, 0.99), id="FedEx Express"),
    pytest.param("modulo_7", "DHL", "3999999999", range(10), (0.93, 0.95), id="DHL waybill"),
    pytest.param("s10", "La Poste", "RB999999999FR", range(2, 11), (0.975, 0.99), id="S10"),
    pytest.param(None, "USPS", "71999999999999999999", range(20), (0.88, 0.9), id="USPS, 20 digits: two rules"),
]  # fmt: skip


def drawn(rng: random.Random, carrier: str, pattern: str) -> str:
    """A valid number of the pattern."""
    while True:
        number = "".join(
            rng.choice("0123456789") if c == "9" and at > 1 else c for at, c in enumerate(pattern)
        )
        if check(carrier, number).status is Status.VALID:
            return number


def changed(number: str, places: range) -> list[str]:
    """Every variant of the number with one digit changed."""
    return [
        number[:place] + digit + number[place + 1 :]
        for place in places
        for digit in "0123456789"
        if digit != number[place]
    ]


@pytest.mark.parametrize(("rule", "carrier", "pattern", "places", "share"), MEASURED)
def test_a_check_digit_finds_the_share_of_wrong_digits_that_it_can(rule, carrier, pattern, places, share):
    rng = random.Random(3)
    verdicts = [
        check(carrier, wrong).status
        for _ in range(40)
        for wrong in changed(drawn(rng, carrier, pattern), places)
    ]
    least, most = share
    assert least <= 1 - verdicts.count(Status.VALID) / len(verdicts) <= most
    if rule:
        named = RULES_OF_CHECK_DIGITS[rule]
        percent = re.match(r"(\d+) %", named)
        assert (least * 100 <= int(percent[1]) <= most * 100) if percent else (named, least) == ("always", 1)


def test_the_docs_name_every_rule_of_check_digits():
    rules = {
        name
        for name, rule in vars(check_digits).items()
        if callable(rule) and getattr(rule, "__module__", "") == check_digits.__name__
    }
    assert rules - {"of_part"} == set(RULES_OF_CHECK_DIGITS)
