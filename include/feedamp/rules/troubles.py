"""PURE: what went wrong in a step, put together by reason: the outage of a whole account is one line, not one a seller.

Holds sellers' ids, order numbers and sentences of this package; never a customer field or a secret.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

NAMES_SHOWN = 20
REASONS_SHOWN = 3
REASONS_KEPT = 10
LONGEST_REASON = 300
LONGEST_RECORD = 8_000  # characters that one task may leave in the state
_ORDER = re.compile(r"order (\S+?):? ")


@dataclass
class Trouble:
    """One reason, in the words with which it came first, and every seller it concerns."""

    text: str
    orders: dict[str, list[str]] = field(
        default_factory=dict
    )  # by seller; numbers only where the words name one
    cause: Exception | None = None  # an error that no one expected; its traceback belongs in the log, once

    def line(self, noun: str = "seller") -> str:
        """One line for the log: the seller or the first 20 of them, and why."""
        if len(self.orders) > 1:
            return f"{counted(len(self.orders), noun)}: {self.text} ({named(sorted(self.orders))})"
        [(seller_id, numbers)] = self.orders.items()
        more = f" (likewise {len(numbers) - 1} more orders: {named(numbers[1:])})" if len(numbers) > 1 else ""
        return f"{seller_id}: {self.text}{more}"


class Troubles:
    """Collects them by reason."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Trouble] = {}

    def add(
        self, seller_id: str, text: str, *, mp_order_number: str | None = None, cause: Exception | None = None
    ) -> None:
        """One more. Words that differ only in the order's number are one reason of their seller."""
        named_first = _ORDER.match(text)
        number = mp_order_number or (named_first[1] if named_first else None)
        # What no one expected is one reason whichever seller's order it struck.
        whose = seller_id if number and cause is None else ""
        key = (whose, text.replace(number, "…") if number else text)
        numbers = self._found.setdefault(key, Trouble(text, cause=cause)).orders.setdefault(seller_id, [])
        if number and number not in numbers:
            numbers.append(number)

    def __iter__(self) -> Iterator[Trouble]:
        return iter(self._found.values())


@dataclass(frozen=True)
class Reason:
    """Why a task has work left, and whose: the first sellers by name, all of them as a count."""

    text: str
    sellers: tuple[str, ...]
    count: int

    def words(self, noun: str = "seller") -> str:
        """For a message that names several reasons: the first seller, why, and how many there are."""
        text = self.text.rstrip(".")
        return f"{self.sellers[0]}: {text}" + (f" ({counted(self.count, noun)})" if self.count > 1 else "")

    def covers(self, trouble: Trouble) -> bool:
        """Whether every seller of a trouble is among these."""
        return self.count > len(self.sellers) or set(trouble.orders) <= set(self.sellers)


@dataclass(frozen=True)
class Told:
    """What the last try of a task says of itself.

    `has_ended` is false from the moment the next try begins until it has said how it ended; `error` is what ended the
    task as a whole, where that is not one of the reasons.
    """

    reasons: tuple[Reason, ...] = ()
    failed: int = 0
    error: str | None = None
    has_ended: bool = True

    @property
    def is_silent(self) -> bool:
        """Nothing was said: a task that failed all the same was killed."""
        return not self.has_ended or not (self.reasons or self.error)

    def encode(self) -> str:
        """As text of a bounded length; reasons beyond it are left out."""
        kept = self.reasons
        while True:
            reasons = [[reason.text, list(reason.sellers), reason.count] for reason in kept]
            values = {"reasons": reasons, "failed": self.failed, "error": self.error, "ended": self.has_ended}
            text = json.dumps(values, ensure_ascii=False)
            if len(text) <= LONGEST_RECORD or not kept:
                return text
            kept = kept[:-1]

    @classmethod
    def decode(cls, text: str) -> Told:
        """What `encode` wrote."""
        values: dict[str, Any] = json.loads(text)
        reasons = tuple(Reason(words, tuple(names), count) for words, names, count in values["reasons"])
        return cls(reasons, values["failed"], values["error"], values["ended"])

    def but(self, **changes: Any) -> Told:
        """The same with some fields changed."""
        return replace(self, **changes)


def reasons_of(troubles: Iterable[Trouble]) -> tuple[Reason, ...]:
    """The first reasons, shortened to what the state keeps."""
    return tuple(
        Reason(
            trouble.text[:LONGEST_REASON], tuple(sorted(trouble.orders)[:NAMES_SHOWN]), len(trouble.orders)
        )
        for trouble in list(troubles)[:REASONS_KEPT]
    )


def together(reasons: Iterable[Reason]) -> list[Reason]:
    """Reasons of several tasks, each once, those of most sellers first. No seller is in two tasks."""
    found: dict[str, Reason] = {}
    for reason in reasons:
        before = found.get(reason.text)
        if before is not None:
            names = sorted((*before.sellers, *reason.sellers))[:NAMES_SHOWN]
            reason = Reason(reason.text, tuple(names), before.count + reason.count)
        found[reason.text] = reason
    return sorted(found.values(), key=lambda reason: -reason.count)


def noun_of(step: str) -> str:
    """What a step counts its troubles by: `intake` reads files, whoever's orders they hold."""
    return "file" if step == "intake" else "seller"


def sentence(step: str, failed: int, sellers: int, reasons: Sequence[Reason]) -> str:
    """What a step has left undone, for whom, and why; the first few reasons."""
    whose = f"{failed} of {sellers} sellers have work left"
    if step == "intake":
        whose = f"{failed} inbox files or queries were not read to the end"
    shown = "; ".join(reason.words(noun_of(step)) for reason in reasons[:REASONS_SHOWN])
    more = len(reasons) - REASONS_SHOWN
    return f"{step}: {whose}. {shown}{f'; and {more} more reasons, see the log' if more > 0 else ''}."


def counted(count: int, noun: str) -> str:
    """ "3 orders", "1 order": the noun is given in the singular and has a regular plural."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def named(names: Sequence[str]) -> str:
    """The first 20 names, and how many more there are."""
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
