"""Checks a tracking number against the carrier that was stated with it."""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from feedamp.carriers import typed_numbers, verdicts
from feedamp.carriers.catalogue import fitting
from feedamp.carriers.check_digits import Rule
from feedamp.carriers.formats import Carrier
from feedamp.carriers.names import LONGEST_READ, linked, resolve, resolve_short
from feedamp.carriers.verdicts import Status, Verdict, refused, unjudged, valid

# What a wrong check digit proves about a number of the right shape.
_NOTHING, _UNLESS_ANOTHERS, _MISTYPED = range(3)
# The newest verdicts: the shipments of an order's lines are often of one parcel.
_newest: dict[tuple[str | None, str | None, str | None], Verdict] = {}
_REMEMBERED = 1024


def check(carrier: str | None, tracking_number: str | None, *, url: str | None = None) -> Verdict:
    """The verdict on a tracking number and its stated carrier, both as the seller wrote them.

    `invalid` only if the number cannot be one of the stated carrier's, or no carrier, known or not, can have issued it. A
    missing number, an unknown carrier and a number whose rules are not public are `unverified`. Spaces, dashes and case do
    not matter. `url`, the tracking link, is used only if the name means no carrier or more than one. With a carrier found
    by the link alone, its rules can make a number valid but never invalid, because the seller did not state that carrier.
    """
    key = carrier, tracking_number, url
    verdict = _newest.get(key)
    if verdict is None:
        verdict = _check(carrier and carrier[:LONGEST_READ], tracking_number, url)
        if len(carrier or "") + len(tracking_number or "") + len(url or "") <= LONGEST_READ:
            if len(_newest) >= _REMEMBERED:
                _newest.clear()
            _newest[key] = verdict
    return verdict


def check_all(
    carriers: Sequence[str | None], tracking_numbers: Sequence[str | None], urls: Sequence[str | None]
) -> list[Verdict]:
    """As `check`, of the shipments of many orders, by column: each number of a carrier is judged once."""
    stated = {name: resolve(name) if name else None for name in set(carriers)}
    known = {name: _Verdicts(carrier, name) for name, carrier in stated.items() if name and carrier}
    return [
        known[name][number] if name in known else check(name, number, url=url)
        for name, number, url in zip(carriers, tracking_numbers, urls, strict=True)
    ]


class _Verdicts(dict[str | None, Verdict]):
    """The verdicts on numbers of a carrier that is stated by a name of its own, so that no link counts."""

    def __init__(self, stated: Carrier, name: str) -> None:
        self._stated, self._name, self._valid = stated, name[:LONGEST_READ], valid(stated)

    def __missing__(self, number: str | None) -> Verdict:
        fits = number and _fits_as_typed(self._stated, number)
        verdict = self[number] = self._valid if fits else _check(self._name, number, None)
        return verdict


def _check(carrier: str | None, tracking_number: str | None, url: str | None) -> Verdict:
    stated = resolve_short(carrier) if carrier else None
    judged = stated or (linked(url) if url else None)
    if judged and tracking_number and _fits_as_typed(judged, tracking_number):
        return valid(judged)
    if not tracking_number or tracking_number.isspace():
        return unjudged(judged, verdicts.NO_NUMBER)
    typed = tracking_number[:LONGEST_READ]
    number = typed_numbers.clean(typed)
    if reason := _never_issued(judged, typed, number):
        return refused(judged, *reason)
    if judged is None:
        if typed_numbers.has_dropped_digits(number):
            return refused(None, verdicts.DROPPED_DIGITS)
        is_named = carrier and not carrier.isspace()
        return unjudged(None, verdicts.UNKNOWN_CARRIER if is_named else verdicts.NO_CARRIER)
    verdict = _judge(judged, typed, number)
    if stated is None and verdict.status is Status.INVALID:
        return unjudged(judged, verdicts.ONLY_LINKED, verdict.reason)
    return verdict


def identify(tracking_number: str) -> list[str]:
    """The ids of all carriers whose formats the number fits, check digit included.

    The best-known carriers come first. Formats that numbers often fit by chance do not count. For an S10 number, these are
    the post of its country, if that is in the catalogue, and "s10".
    """
    typed = tracking_number[:LONGEST_READ]
    number = typed_numbers.clean(typed)
    if _never_issued(None, typed, number):
        return []
    return [carrier.carrier_id for carrier in fitting(number)]


def normalize(carrier: str | None, *, url: str | None = None) -> str | None:
    """The id of the carrier that a name means; None if it is unknown or fits more than one.

    `url`, the tracking link, is used only if the name gives no result.
    """
    stated = resolve(carrier) if carrier else None
    if stated is None and url:
        stated = linked(url)
    return stated.carrier_id if stated else None


def _never_issued(stated: Carrier | None, typed: str, number: str) -> tuple[str, str] | None:
    """Why no carrier can have issued the number, as a text of `verdicts` and its detail; None if one can."""
    if not typed.isalnum():
        typed = typed_numbers.unwrapped(typed)
    if not (typed.isalnum() or typed_numbers.is_in_groups(typed)):
        if damage := typed_numbers.spreadsheet_damage(typed):
            return verdicts.DAMAGED, damage
        if other := typed_numbers.other_value(typed):
            return verdicts.OTHER_VALUE, other
    elif other := typed_numbers.short_value(typed):
        return verdicts.OTHER_VALUE, other
    if typed_numbers.is_placeholder(number):
        return verdicts.PLACEHOLDER, ""
    if number.isalnum() and not number.isalpha():
        return None
    is_code = stated is not None and len(number) == stated.code_length > 0
    return None if is_code or any(map(str.isdecimal, number)) else (verdicts.PLACEHOLDER, "")


def _fits_as_typed(stated: Carrier, typed: str) -> bool:
    """Whether a number fits a format and is nothing else, as nearly all: the other tests would say so in twice the time."""
    for shaped, agrees, _ in _formats_of_length(stated, len(typed)):
        if shaped(typed) and (agrees is None or agrees(typed)):
            return typed_numbers.is_long(typed) and not typed_numbers.is_placeholder(typed)
    return False


def _judge(stated: Carrier, typed: str, number: str) -> Verdict:
    plain = typed.isalnum()
    proof = _NOTHING
    for shaped, agrees, broken in _formats_of_length(stated, len(number)):
        if shaped(number):
            if agrees is None or agrees(number):
                return valid(stated)
            proof = max(proof, broken)
    if not plain and typed_numbers.holds_several(typed):
        return unjudged(stated, verdicts.SEVERAL)
    if typed_numbers.has_dropped_digits(number):
        return refused(stated, verdicts.DROPPED_DIGITS)
    if len(number) < stated.shortest:
        return refused(stated, verdicts.TOO_SHORT)
    if not stated.formats:
        return unjudged(stated, verdicts.NO_RULES)
    if len(number) + 1 in stated.zero_padded and _lost_zero(stated, number):
        return refused(stated, verdicts.LOST_ZERO)
    if proof == _MISTYPED:
        return refused(stated, verdicts.WRONG_DIGIT)
    return _judge_misfit(stated, typed, number, proof)


@lru_cache(maxsize=4096)
def _formats_of_length(
    stated: Carrier, length: int
) -> tuple[tuple[Callable[[str], re.Match[str] | None], Rule | None, int], ...]:
    own = ((format_, _MISTYPED) for format_ in stated.formats)
    others = ((format_, _UNLESS_ANOTHERS) for format_ in stated.handed_over)
    return tuple(
        (format_.shape.fullmatch, format_.check, broken if format_.pins else _NOTHING)
        for format_, broken in (*own, *others)
        if length in format_.lengths
    )


def _judge_misfit(stated: Carrier, typed: str, number: str, proof: int) -> Verdict:
    others = " or ".join([other.title for other in fitting(number) if other.carrier_id != stated.carrier_id])
    is_open = stated.open_shapes is None or stated.open_shapes.fullmatch(number) is not None
    if is_open and not (others and any(format_.fits(number) for format_ in stated.never)):
        return unjudged(stated, verdicts.NO_RULE, verdicts.HINT.format(others) if others else "")
    if others:
        return refused(stated, verdicts.OF_OTHERS, others)
    if proof == _UNLESS_ANOTHERS:
        return refused(stated, verdicts.WRONG_DIGIT)
    if _fits(stated, typed_numbers.letters_as_digits(number)):
        return refused(stated, verdicts.LETTER_FOR_DIGIT)
    if typed_numbers.is_whole_barcode(typed):
        return refused(stated, verdicts.WHOLE_BARCODE)
    if odd := typed_numbers.odd_character(number):
        return refused(stated, verdicts.ODD_CHARACTER, odd)
    return refused(stated, verdicts.NOT_ITS_SHAPE, typed_numbers.described(typed, number))


def _lost_zero(stated: Carrier, number: str) -> bool:
    if not number.isdigit() or number.startswith("00"):  # a spreadsheet would have dropped these, too
        return False
    return any(format_.check and format_.fits("0" + number) for format_ in stated.formats)


def _fits(stated: Carrier, number: str) -> bool:
    return any(format_.fits(number) for format_ in (*stated.formats, *stated.handed_over))
