"""All carriers in the order in which they are named when a number fits several."""

from __future__ import annotations

from feedamp.carriers import america, asia, europe, posts, unpublished
from feedamp.carriers.dhl import DHL, DHL_EXPRESS, DHL_OTHER
from feedamp.carriers.fedex import FEDEX
from feedamp.carriers.formats import Carrier
from feedamp.carriers.s10 import ANY_POST, INTERNATIONAL, S10
from feedamp.carriers.ups import UPS
from feedamp.carriers.usps import USPS

ALL: tuple[Carrier, ...] = (
    UPS, FEDEX, USPS, DHL, DHL_EXPRESS, DHL_OTHER, *america.CARRIERS, *europe.CARRIERS, *asia.CARRIERS,
    INTERNATIONAL, ANY_POST, *posts.CARRIERS, *unpublished.CARRIERS,
)  # fmt: skip

_BY_COUNTRY = {carrier.country: carrier for carrier in ALL if carrier.country}
_LONGEST = 48
_BY_LENGTH = tuple(
    tuple(
        (carrier, format_)
        for carrier in ALL
        for format_ in carrier.formats
        if format_.telling and length in format_.lengths and format_.name != S10.name
    )
    for length in range(_LONGEST)
)


def fitting(number: str) -> list[Carrier]:
    """Give every carrier that can have issued a cleaned number, by the formats that tell carriers apart.

    Each id comes once. An S10 number belongs to the post of its country and to international mail.
    """
    found: dict[str, Carrier] = {}
    if len(number) < _LONGEST:
        for carrier, format_ in _BY_LENGTH[len(number)]:
            if carrier.carrier_id not in found and format_.fits(number):
                found[carrier.carrier_id] = carrier
    carriers = list(found.values())
    if S10.fits(number):
        country = number[-2:]
        post = USPS if country == "US" else _BY_COUNTRY.get(country)
        carriers += [post, INTERNATIONAL] if post else [INTERNATIONAL]
    return carriers
