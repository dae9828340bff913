"""Made-up tracking numbers with correct check digits, and carriers as sellers type them.

Written from the carriers' published rules, independently of `feedamp.carriers`: two implementations that agree prove
more than one that is compared with itself.
"""

import random
import string
from typing import NamedTuple

CARRIERS = {
    "ups": ("UPS", "UPS®", "ups ground", "United Parcel Service"),
    "fedex": ("FedEx", "Fedex Ground", "FEDEX EXPRESS", "Federal Express"),
    "usps": ("USPS", "usps priority mail", "U.S. Postal Service", "USPS First-Class"),
    "dhl": ("DHL Paket", "DHL", "dhl paket"),
    "post": ("Royal Mail", "Correios", "La Poste"),
}
COUNTRY_OF = {"Royal Mail": "GB", "Correios": "BR", "La Poste": "FR"}


class Parcel(NamedTuple):
    """The real carrier and tracking number of one parcel, and what its seller types."""

    carrier: str
    tracking_number: str
    typed_carrier: str
    typed_tracking_number: str

    @property
    def mistyped(self) -> bool:
        """Whether the seller typed anything other than the real values."""
        return (self.carrier, self.tracking_number) != (self.typed_carrier, self.typed_tracking_number)


def parcel(rng: random.Random, *, mistyped: bool = False) -> Parcel:
    """A parcel; a mistyped one has a wrong check digit or no carrier."""
    kind = rng.choice(sorted(CARRIERS))
    carrier = rng.choice(CARRIERS[kind])
    number = tracking_number(rng, kind, carrier)
    typed_carrier, typed_number = carrier, number
    if mistyped and rng.random() < 0.25:
        typed_carrier = ""
    elif mistyped:
        typed_number = with_wrong_check_digit(rng, number)
    return Parcel(carrier, number, typed_carrier, typed_number)


def tracking_number(rng: random.Random, kind: str, carrier: str) -> str:
    match kind:
        case "ups":
            shipper = "".join(rng.choices(string.ascii_uppercase + string.digits, k=6))
            body = shipper + rng.choice(("01", "02", "03", "12")) + digits(rng, 7)
            return f"1Z{body}{ups_check(body)}"
        case "fedex":
            body = rng.choice("23456789") + digits(rng, 10)
            return body + fedex_check(body)
        case "usps":
            body = rng.choice(("94001", "94055", "93612")) + digits(rng, 16)
            return body + mod10_check(body)
        case "dhl":
            # Of its numbers, only these tell by their check digit that one was mistyped.
            body = "0034043433" + rng.choice("123456789") + digits(rng, 8)
            return body + mod10_check(body)
        case _:
            body = digits(rng, 8)
            return f"{rng.choice('RCEL')}{rng.choice('ABCDEX')}{body}{s10_check(body)}{COUNTRY_OF[carrier]}"


def digits(rng: random.Random, count: int) -> str:
    return "".join(rng.choices(string.digits, k=count))


def with_wrong_check_digit(rng: random.Random, number: str) -> str:
    """The number with its last digit replaced by another one."""
    at = max(position for position, character in enumerate(number) if character.isdigit())
    wrong = rng.choice([digit for digit in string.digits if digit != number[at]])
    return number[:at] + wrong + number[at + 1 :]


def ups_check(body: str) -> str:
    """Check digit of the 15 characters after `1Z`; letters count A=2, B=3 … modulo 10."""
    values = [int(c) if c.isdigit() else (ord(c) - 63) % 10 for c in body]
    return str(-(sum(values[0::2]) + 2 * sum(values[1::2])) % 10)


def fedex_check(body: str) -> str:
    """Check digit of an 11-digit Express number: weights 3, 1, 7, modulo 11, then modulo 10."""
    return str(sum(int(c) * (3, 1, 7)[at % 3] for at, c in enumerate(body)) % 11 % 10)


def mod10_check(body: str) -> str:
    """Check digit of USPS, and of DHL's parcels: weights 3 and 1 from the right."""
    return str(-sum(int(c) * (3, 1)[at % 2] for at, c in enumerate(reversed(body))) % 10)


def s10_check(body: str) -> str:
    """Check digit of a UPU S10 item number of 8 digits."""
    rest = 11 - sum(int(c) * weight for c, weight in zip(body, (8, 6, 4, 2, 3, 5, 9, 7), strict=True)) % 11
    return {10: "0", 11: "5"}.get(rest, str(rest))
