"""All carriers, in the order in which they are listed when a number fits several."""

import re
from collections.abc import Callable

from feedamp.carriers import america, asia, europe, posts, unpublished
from feedamp.carriers.check_digits import Rule
from feedamp.carriers.dhl import DHL
from feedamp.carriers.fedex import FEDEX
from feedamp.carriers.formats import Carrier, Format
from feedamp.carriers.posts import INTERNATIONAL
from feedamp.carriers.s10 import S10
from feedamp.carriers.ups import UPS
from feedamp.carriers.usps import USPS

ALL: tuple[Carrier, ...] = (
    UPS, FEDEX, USPS, DHL, *america.CARRIERS, *europe.CARRIERS, *asia.CARRIERS,
    *posts.CARRIERS, *unpublished.CARRIERS,
)  # fmt: skip

_BY_COUNTRY = {carrier.country: carrier for carrier in ALL if carrier.country}
_LONGEST = 48
_S10_LENGTH = 13
_LETTER = re.compile(r"[A-Z]")
_ESCAPED = re.compile(r"\\.")

Candidate = tuple[Carrier, Callable[[str], re.Match[str] | None], Rule | None]


def _candidates(length: int, *, digits_only: bool) -> tuple[Candidate, ...]:
    """The formats that a number of this length can fit. If it contains letters, only formats with letters can."""
    found: dict[tuple[str, Format], Candidate] = {}
    for carrier in ALL:
        for format_ in carrier.formats:
            if not format_.telling or length not in format_.lengths or format_.name == S10.name:
                continue
            if digits_only or _LETTER.search(_ESCAPED.sub("", format_.shape.pattern)):
                found[carrier.carrier_id, format_] = (carrier, format_.shape.fullmatch, format_.check)
    return tuple(found.values())


_OF_DIGITS = tuple(_candidates(length, digits_only=True) for length in range(_LONGEST))
_WITH_LETTERS = tuple(_candidates(length, digits_only=False) for length in range(_LONGEST))


def fitting(number: str) -> list[Carrier]:
    """Every carrier that can have issued a cleaned number, by the formats that distinguish carriers.

    Each id occurs once. An S10 number belongs to the post of its country and to international mail.
    """
    length = len(number)
    if length >= _LONGEST:
        return []
    found: dict[str, Carrier] = {}
    for carrier, shaped, agrees in (_OF_DIGITS if number.isdigit() else _WITH_LETTERS)[length]:
        if shaped(number) and (agrees is None or agrees(number)):
            found.setdefault(carrier.carrier_id, carrier)
    carriers = list(found.values())
    if length == _S10_LENGTH and S10.fits(number):
        country = number[-2:]
        post = USPS if country == "US" else _BY_COUNTRY.get(country)
        carriers += [post, INTERNATIONAL] if post else [INTERNATIONAL]
    return carriers
