"""The judgement: a number against the carrier it was stated with."""

from __future__ import annotations

from functools import lru_cache

from feedamp.carriers import typed_numbers
from feedamp.carriers.catalogue import fitting
from feedamp.carriers.formats import Carrier, Format
from feedamp.carriers.names import resolve
from feedamp.carriers.verdict import Status, Verdict, valid

_AS_TEXT = "Format the column as text and enter the number from the label again."
_COMPARE = "Compare it with the label."


def check(carrier: str | None, tracking_number: str | None) -> Verdict:
    """Give the verdict on a tracking number stated with a carrier, both as the seller wrote them.

    `invalid` only when the number cannot be one of the stated carrier. A missing number, a carrier we do not
    know and a number by rules that are not public are `unverified`. Spaces, dashes and case do not matter.
    """
    stated = resolve(carrier) if carrier else None
    carrier_id = stated.carrier_id if stated else None
    if not tracking_number or tracking_number.isspace():
        return Verdict(Status.UNVERIFIED, carrier_id, "There is no tracking number.")
    damage = typed_numbers.spreadsheet_damage(tracking_number)
    if stated is None or not stated.formats:
        return Verdict(Status.UNVERIFIED, carrier_id, _why_unjudged(carrier, stated, damage))
    if damage:
        return _refuse(stated, f"The tracking number is damaged: {damage}. {_AS_TEXT}")
    number = typed_numbers.clean(tracking_number)
    if typed_numbers.is_placeholder(number):
        return _refuse(stated, "This is a placeholder. Enter the number from the label.")
    for format_ in _formats_of_length(stated, len(number)):
        if format_.fits(number):
            return valid(stated.carrier_id)
    return _judge_misfit(stated, tracking_number, number)


def identify(tracking_number: str) -> list[str]:
    """Give the ids of all carriers whose formats the number fits, check digit included.

    The best known come first. Formats that any number may fit by chance do not count. An S10 number gives the
    post of its country, if we know it by name, and "s10".
    """
    number = typed_numbers.clean(tracking_number)
    if typed_numbers.spreadsheet_damage(tracking_number) or typed_numbers.is_placeholder(number):
        return []
    return [carrier.carrier_id for carrier in fitting(number)]


def normalize(carrier: str | None) -> str | None:
    """Give the id of the one carrier a name means; None when it is unknown or fits more than one."""
    stated = resolve(carrier) if carrier else None
    return stated.carrier_id if stated else None


@lru_cache(maxsize=4096)
def _formats_of_length(stated: Carrier, length: int) -> tuple[Format, ...]:
    return tuple(f for f in (*stated.formats, *stated.handed_over) if length in f.lengths)


def _why_unjudged(name: str | None, stated: Carrier | None, damage: str) -> str:
    if damage:
        return f"The tracking number looks damaged: {damage}. {_AS_TEXT}"
    if stated:
        return f"{stated.title} publishes no rules for its numbers, so this one was not checked."
    if not name or name.isspace():
        return "There is no carrier, so the number was not checked."
    return "The carrier is not one we know for certain, so the number was not checked."


def _judge_misfit(stated: Carrier, typed: str, number: str) -> Verdict:
    if typed_numbers.holds_several(typed):
        reason = "The field holds more than one tracking number. Enter one number for each shipment."
        return Verdict(Status.UNVERIFIED, stated.carrier_id, reason)
    if _lost_zero(stated, number):
        return _refuse(stated, f"A leading zero is missing, as happens in spreadsheets. {_AS_TEXT}")
    if any(format_.is_broken_by(number) for format_ in stated.formats):
        return _refuse(stated, _why_broken(stated, number))
    others = " or ".join(other.title for other in fitting(number) if other.carrier_id != stated.carrier_id)
    if stated.open_shapes is None or stated.open_shapes.fullmatch(number):
        hint = f" It looks like one from {others}: see that the carrier is right." if others else ""
        reason = f"{stated.title} publishes no rule to check a number like this one by.{hint}"
        return Verdict(Status.UNVERIFIED, stated.carrier_id, reason)
    if others:
        return _refuse(
            stated,
            f"This looks like a number from {others}, not from {stated.title}. Correct either of them.",
        )
    if any(format_.is_broken_by(number) for format_ in stated.handed_over):
        return _refuse(stated, _why_broken(stated, number))
    return _refuse(
        stated, f"This is not a number from {stated.title}: it should be {stated.looks_like}. {_COMPARE}"
    )


def _why_broken(stated: Carrier, number: str) -> str:
    if typed_numbers.has_dropped_digits(number):
        return f"A spreadsheet replaced the last digits with zeros. {_AS_TEXT}"
    return f"The check digit of this {stated.title} number is wrong, so a digit was mistyped. {_COMPARE}"


def _lost_zero(stated: Carrier, number: str) -> bool:
    if len(number) + 1 not in stated.zero_padded or not number.isdigit():
        return False
    return any(format_.check and format_.fits("0" + number) for format_ in stated.formats)


def _refuse(stated: Carrier, reason: str) -> Verdict:
    return Verdict(Status.INVALID, stated.carrier_id, reason)
