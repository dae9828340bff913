"""PURE: groups failures and warnings of a step by reason, and words them for the log and for the message of a red run.

So an outage is one log line and not one per seller.

Contains seller ids, order numbers and messages of this package; never a customer field or a secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

NAMES_SHOWN = 20
REASONS_SHOWN = 3
REASONS_KEPT = 10
LONGEST_REASON = 300
LONGEST_RECORD = 8_000  # characters that one task may store in the state
_OF_ONE = {"are": "is", "do": "does", "have": "has", "need": "needs", "wait": "waits", "were": "was"}
_ORDER = re.compile(r"order (\S+?):? ")


@dataclass
class Trouble:
    """One reason, in the words of its first occurrence, and every seller it concerns."""

    text: str
    # Order numbers by seller; empty where the text names no order.
    orders: dict[str, list[str]] = field(default_factory=dict)
    cause: Exception | None = None  # an unexpected error; its traceback is logged once

    def line(self, noun: str = "seller") -> str:
        """One line for the log: the seller or the first 20 of them, and why."""
        if len(self.orders) > 1:
            return f"{counted(len(self.orders), noun)}: {self.text} ({named(sorted(self.orders))})"
        [(seller_id, numbers)] = self.orders.items()
        more = (
            f" (likewise {counted(len(numbers) - 1, 'more order')}: {named(numbers[1:])})"
            if len(numbers) > 1
            else ""
        )
        return f"{seller_id}: {self.text}{more}"


class Troubles:
    """Collects failures by reason."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Trouble] = {}

    def add(
        self, seller_id: str, text: str, *, mp_order_number: str | None = None, cause: Exception | None = None
    ) -> None:
        """Adds a failure. Texts of one seller that differ only in the order number count as one reason."""
        named_first = _ORDER.match(text)
        number = mp_order_number or (named_first[1] if named_first else None)
        # An unexpected error is one reason for all sellers, even where it concerns single orders.
        only_of = seller_id if number and cause is None else ""
        key = (only_of, text.replace(number, "…") if number else text)
        numbers = self._found.setdefault(key, Trouble(text, cause=cause)).orders.setdefault(seller_id, [])
        if number and number not in numbers:
            numbers.append(number)

    def __iter__(self) -> Iterator[Trouble]:
        return iter(self._found.values())


class Reason(msgspec.Struct, frozen=True, array_like=True):
    """Why a task has work left: the first sellers by id, and the count of all sellers concerned."""

    text: str
    sellers: tuple[str, ...]
    count: int

    def words(self, noun: str = "seller") -> str:
        """The text for a message that names several reasons: first seller, reason, number of sellers."""
        text = self.text.rstrip(".")
        return f"{self.sellers[0]}: {text}" + (f" ({counted(self.count, noun)})" if self.count > 1 else "")

    def covers(self, trouble: Trouble) -> bool:
        """Whether these are all sellers of a trouble; assumed if not all sellers of the reason are stored."""
        return self.count > len(self.sellers) or set(trouble.orders) <= set(self.sellers)


class Told(msgspec.Struct, frozen=True, rename={"has_ended": "ended"}):
    """The outcome that the last try of a task recorded.

    `has_ended` is false from the start of a try until it records its outcome. `error` is the error that ended the
    whole task, if it is not one of the reasons.
    """

    reasons: tuple[Reason, ...] = ()
    failed: int = 0
    error: str | None = None
    has_ended: bool = True

    @property
    def is_silent(self) -> bool:
        """The try recorded no failure. If the task failed nevertheless, it was killed."""
        return not self.has_ended or not (self.reasons or self.error)

    def encode(self) -> str:
        """The outcome as text of bounded length; the last reasons are left out if they do not fit."""
        told = self
        while len(text := msgspec.json.encode(told).decode()) > LONGEST_RECORD and told.reasons:
            told = told.but(reasons=told.reasons[:-1])
        return text

    @classmethod
    def decode(cls, text: str) -> Told:
        return msgspec.json.decode(text, type=cls)

    def but(self, **changes: Any) -> Told:
        return msgspec.structs.replace(self, **changes)


def reasons_of(troubles: Iterable[Trouble]) -> tuple[Reason, ...]:
    """The first reasons, shortened to the length that the state stores."""
    return tuple(
        Reason(
            trouble.text[:LONGEST_REASON], tuple(sorted(trouble.orders)[:NAMES_SHOWN]), len(trouble.orders)
        )
        for trouble in list(troubles)[:REASONS_KEPT]
    )


def together(reasons: Iterable[Reason]) -> list[Reason]:
    """The reasons of several tasks, merged by text, the one with the most sellers first. No seller is in two tasks."""
    found: dict[str, Reason] = {}
    for reason in reasons:
        before = found.get(reason.text)
        if before is not None:
            names = sorted((*before.sellers, *reason.sellers))[:NAMES_SHOWN]
            reason = Reason(reason.text, tuple(names), before.count + reason.count)
        found[reason.text] = reason
    return sorted(found.values(), key=lambda reason: -reason.count)


def noun_of(step: str) -> str:
    """The noun by which a step counts its failures: `intake` reads files, and a file can hold orders of many sellers."""
    return "file" if step == "intake" else "seller"


def sentence(step: str, failed: int, sellers: int, reasons: Sequence[Reason]) -> str:
    """A message on the work that a step has left undone: for how many sellers, and the first few reasons."""
    summary = f"{failed} of {counted(sellers, 'seller')} {'has' if failed == 1 else 'have'} work left"
    if step == "intake":
        inputs = "inbox file or query was" if failed == 1 else "inbox files or queries were"
        summary = f"{failed} {inputs} not read to the end"
    shown = "; ".join(reason.words(noun_of(step)) for reason in reasons[:REASONS_SHOWN])
    more = len(reasons) - REASONS_SHOWN
    rest = f"; and {counted(more, 'more reason')}, see the log" if more > 0 else ""
    return f"{step}: {summary}. {shown}{rest}."


def counted(count: int, noun: str, verb: str = "", *, form: str = "d") -> str:
    """The count with its noun, "1 order" or "3 orders"; `noun` is singular and must have a regular plural.

    A `verb` is given as it follows many, and follows in the number of the noun: "1 order was" or "3 orders were". `form` is
    how the number is written.
    """
    words = [f"{count:{form}}", noun if count == 1 else f"{noun}s"]
    if verb:
        words.append(_OF_ONE[verb] if count == 1 else verb)
    return " ".join(words)


def named(names: Sequence[str]) -> str:
    """The first 20 names, and how many more there are."""
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
