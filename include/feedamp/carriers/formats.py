"""The types for a number format and a carrier."""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass
from typing import Any

from feedamp.carriers.check_digits import Rule


@dataclass(frozen=True, slots=True, eq=False)
class Format:
    """One way a carrier writes its numbers.

    `shape` matches the whole cleaned number; `lengths` are the lengths it can match, a quick first test. `check` is
    None if there is no check digit. `pins`: no other numbers of the carrier have this shape, so a wrong check digit is
    a typing error. `telling`: so few numbers of other carriers fit by chance that a match identifies the carrier.
    """

    name: str
    shape: re.Pattern[str]
    lengths: Container[int]
    check: Rule | None = None
    pins: bool = True
    telling: bool = True

    def fits(self, number: str) -> bool:
        """Whether a cleaned number has this shape and, if the format has a check digit, the right one."""
        return (
            len(number) in self.lengths
            and self.shape.fullmatch(number) is not None
            and (self.check is None or self.check(number))
        )


@dataclass(frozen=True, slots=True, eq=False)
class Carrier:
    """A carrier, or one service of it, and the numbers it can issue.

    `names` are further names in plain words, `hosts` those of its tracking links. `handed_over` are formats of the carriers that deliver for
    it; a wrong check digit in one of them proves nothing. `open_shapes` are numbers that it may issue by rules that are
    not public; such a number is invalid only if it fits a format in `never`, check digit included, which belongs to
    another carrier. `zero_padded` are the lengths of digit-only numbers that lose a leading zero in a spreadsheet.
    No number is shorter than `shortest`; only those of `code_length` can consist of letters alone.
    `looks_like` ends the sentence "It should be ...". `country` is the S10 code of a post.
    """

    carrier_id: str
    title: str
    names: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    formats: tuple[Format, ...] = ()
    handed_over: tuple[Format, ...] = ()
    open_shapes: re.Pattern[str] | None = None
    zero_padded: tuple[int, ...] = ()
    shortest: int = 5
    code_length: int = 0
    never: tuple[Format, ...] = ()
    looks_like: str = ""
    country: str = ""

    @classmethod
    def named(cls, row: str, **rules: Any) -> Carrier:
        """A carrier from its row `id|title|further names @ hosts`, and the rules for its numbers."""
        names, _, hosts = row.partition(" @ ")
        carrier_id, title, *further = names.split("|")
        return cls(carrier_id, title, tuple(further), tuple(hosts.split()), **rules)


def shape(pattern: str) -> re.Pattern[str]:
    r"""Compile a shape in which `\d` matches only the ten ASCII digits."""
    return re.compile(pattern, re.ASCII)


# Even a carrier with numbers of unknown shape has none with the start and the length of a UPS label.
NOT_1Z = r"(?!1Z[A-Z0-9]{15}\d\Z)"
ANY = r"[A-Z0-9]{5,50}"
ANYTHING_BUT_1Z = shape(NOT_1Z + ANY)
