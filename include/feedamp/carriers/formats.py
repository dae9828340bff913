"""What a number format and a carrier are made of."""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass

from feedamp.carriers.check_digits import Rule


@dataclass(frozen=True, slots=True, eq=False)
class Format:
    """One way a carrier writes its numbers.

    `shape` matches the whole cleaned number, and `lengths` are those it can match: they alone tell most
    formats apart, which is quick. `check` is None where there is no check digit. `pins`: no other number
    of the carrier looks like this, so a wrong check digit is a typing error. `telling`: few enough numbers
    of others fit by chance for this to say something about the carrier.
    """

    name: str
    shape: re.Pattern[str]
    lengths: Container[int]
    check: Rule | None = None
    pins: bool = True
    telling: bool = True

    def fits(self, number: str) -> bool:
        """Say whether a cleaned number has this shape and, where there is one, the right check digit."""
        return (
            len(number) in self.lengths
            and self.shape.fullmatch(number) is not None
            and (self.check is None or self.check(number))
        )


@dataclass(frozen=True, slots=True, eq=False)
class Carrier:
    """A carrier, or one service of it, and the numbers it can issue.

    `names` are its names in plain words, parted by bars. `handed_over` are formats of the carriers that
    deliver for it; a wrong check digit in one of them proves nothing. `open_shapes` are numbers it may
    issue by rules that are not public; they are called invalid only where they fit, check digit included,
    one of the formats of others in `never`. `zero_padded` are the lengths of digit-only numbers that lose a
    leading zero in a spreadsheet. `looks_like` ends the sentence "It should be ...". `country` is the S10 code
    of a post.
    """

    carrier_id: str
    title: str
    names: str
    formats: tuple[Format, ...] = ()
    handed_over: tuple[Format, ...] = ()
    open_shapes: re.Pattern[str] | None = None
    zero_padded: tuple[int, ...] = ()
    never: tuple[Format, ...] = ()
    looks_like: str = ""
    country: str = ""


def shape(pattern: str) -> re.Pattern[str]:
    r"""Compile a shape, where `\d` means the ten ASCII digits only."""
    return re.compile(pattern, re.ASCII)


# Whoever has numbers of unknown shape still has none that start like a UPS label and are as long as one.
NOT_1Z = r"(?!1Z[A-Z0-9]{15}\d\Z)"
ANYTHING_BUT_1Z = shape(NOT_1Z + r".+")
