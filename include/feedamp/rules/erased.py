"""PURE: recognizes the sellers and orders that were erased, by keyed marks that hold neither id nor number."""

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import lru_cache
from itertools import product
from typing import NamedTuple

from feedamp.order_body.values import trimmed

Fingerprint = Callable[[str], str]
Key = tuple[str | None, str | None]  # seller and number, as far as a row names them
MOST_COMPARED = 5_000  # words and pairs of a seller and a word, in one row: 13 ms
_SELLERS_REMEMBERED = 10_000
_WORD = re.compile(r"[\w.-]+")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_CELL_END = re.compile(r'[,;|"\t\r\n]')
JSON_BLANK = re.compile(r"\\[bfnrt]")  # its letter may be right before a word
_WHOLE = re.compile(r"([0-9]+)\.0*")  # as pandas and spreadsheets write a whole number


def mark_of(fingerprint: Fingerprint, seller_id: str, mp_order_number: str | None = None) -> str:
    """The mark of a seller or, with a number, of one order; a seller id counts without blanks around it, as at intake."""
    seller_id = trimmed(seller_id)
    # No seller id holds a NUL, so no seller has the mark of an order.
    return fingerprint(seller_id if mp_order_number is None else f"{seller_id}\0{mp_order_number}")


def marks_of(keys: Iterable[Key], *fingerprints: Fingerprint) -> set[str]:
    """The marks that `Erased` looks for when it is asked about these sellers and numbers, in any spelling."""
    asked: set[tuple[str, str | None]] = set()
    for seller_id, number in keys:
        if seller_id is not None:
            asked.add((seller_id, None))
        if number is not None:
            asked |= {(seller_id or "", number), (seller_id or "", meant(number))}
    return {mark_of(one, *key) for one in fingerprints for key in asked}


def meant(mp_order_number: str) -> str:
    """The number that a delivered one stands for: without blanks around it, and `70031.0` as 70031.

    Only where a row was refused. What was accepted is the number of an order to the letter, so `70031.0` is another one.
    """
    bare = trimmed(mp_order_number)
    whole = _WHOLE.fullmatch(bare)
    return whole[1] if whole else bare


def is_number(delivered: str | None, mp_order_number: str) -> bool:
    """Whether the number of a refused row is that of the order, also in another spelling."""
    return delivered is not None and mp_order_number in (delivered, meant(delivered))


def words_of(text: str) -> set[str]:
    """What in a text, perhaps JSON or CSV, may be an id or a number: its words, texts in quotes and cells, without blanks around.

    Of what has dots, such as `70031.0`, the parts and the whole.
    """
    words = [word for given in (text, JSON_BLANK.sub(" ", text)) for word in _WORD.findall(given)]
    texts = (*_QUOTED.findall(text), *_CELL_END.split(text))
    found = {
        *words,
        *(part for word in words for part in (word.strip("."), *word.split("."))),
        *map(trimmed, texts),
        *(trimmed(_meant_by_json(one)) for one in texts if "\\" in one),
    }
    return {one for one in found if one and "\0" not in one}


def _meant_by_json(text: str) -> str:
    try:
        meant_ = str(json.loads(f'"{text}"'))
        meant_.encode()  # half of an emoji is no part of an id
    except ValueError:
        return text
    return meant_


class Mentions(NamedTuple):
    """What a row that does not say whose it is may be about: its words, and the sellers among these."""

    words: set[str]
    seller_ids: set[str]

    @property
    def keys(self) -> Iterator[Key]:
        """What an erasure of the row's order or seller may be marked with."""
        yield from ((word, None) for word in self.words)
        yield from product(self.seller_ids, self.words)

    @property
    def are_too_many(self) -> bool:
        """Whether to compare them all would keep other writers waiting, as of a file whose lines are not told apart."""
        return len(self.words) * (1 + len(self.seller_ids)) > MOST_COMPARED


class Erased:
    """Says of a seller or an order whether it was erased. It does not change; a later erasure needs another one."""

    def __init__(self, marks: Collection[str], *fingerprints: Fingerprint) -> None:
        """Takes several fingerprints where marks come from several data keys."""
        self.marks = frozenset(marks)
        self._fingerprints = fingerprints
        self._has_seller = lru_cache(_SELLERS_REMEMBERED)(self._is_marked)

    def __bool__(self) -> bool:
        """Whether there is any mark."""
        return bool(self.marks)

    def has_seller(self, seller_id: str | None) -> bool:
        """Whether the whole seller was erased."""
        return bool(self.marks) and seller_id is not None and self._has_seller(seller_id)

    def has(self, seller_id: str | None, mp_order_number: str | None) -> bool:
        """Whether the order was erased, alone or with its seller.

        Without a seller it was only if there is a mark of its number with an empty seller id.
        """
        if not self.marks:
            return False
        if seller_id is not None and self._has_seller(seller_id):
            return True
        return mp_order_number is not None and self._is_marked(seller_id or "", mp_order_number)

    def has_delivered(self, seller_id: str | None, mp_order_number: str | None) -> bool:
        """As `has`, of a row that was refused: a number in another spelling is the order's too (`meant`)."""
        if self.has(seller_id, mp_order_number):
            return True
        return (
            bool(self.marks) and mp_order_number is not None and self.has(seller_id, meant(mp_order_number))
        )

    def among(self, words: Iterable[str], seller_ids: Collection[str]) -> set[str]:
        """Those of the words that are an erased seller, or the number of an erased order of one of these sellers."""
        if not self.marks:
            return set()
        return {
            word
            for word in words
            if self._is_marked(word) or any(self._is_marked(seller_id, word) for seller_id in seller_ids)
        }

    def _is_marked(self, seller_id: str, mp_order_number: str | None = None) -> bool:
        return any(mark_of(one, seller_id, mp_order_number) in self.marks for one in self._fingerprints)
