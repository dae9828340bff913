"""Resolves carrier names as sellers write them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

from feedamp.carriers import spellings
from feedamp.carriers.catalogue import ALL
from feedamp.carriers.formats import Carrier
from feedamp.carriers.s10 import INTERNATIONAL

_MARKS = re.compile(r"[®™©℠]")
_DOTTED = re.compile(r"\b(?:[a-z0-9]\.){2,}[a-z0-9]?")
_SEPARATORS = re.compile(r"[\W_]+")
# A name run together with its service: UPSGround, FedExHomeDelivery.
_GLUED = re.compile(
    r"(ups|usps|fedex|dhl)"
    r"(?:2day|3day|air|express|first|freight|ground|home|international|intl|mail|next|overnight|parcel|priority|"
    r"saver|second|smartpost|standard|surepost|worldwide)[a-z0-9]*"
)
_SHORTEST_LETTERS = 3


def words_of(name: str) -> tuple[str, ...]:
    """Split a name into plain lower-case words; single letters with dots between them make one word."""
    plain = unicodedata.normalize("NFKD", _MARKS.sub(" ", name)).casefold()
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    plain = _DOTTED.sub(lambda match: match[0].replace(".", "") + " ", plain)
    return tuple(_SEPARATORS.sub(" ", plain).split())


def _named() -> Iterator[tuple[str, Carrier]]:
    further = spellings.by_carrier()
    for carrier in ALL:
        for name in (*carrier.names.split("|"), *further.pop(carrier.carrier_id, ())):
            yield name, carrier


BY_NAME = dict(_named())
_BY_WORDS: dict[tuple[str, ...], Carrier | None] = {
    **{words_of(name): carrier for name, carrier in BY_NAME.items()},
    **{words_of(name): None for name in spellings.SHOPS},
}
_BY_LETTERS = {
    letters: carrier
    for words, carrier in _BY_WORDS.items()
    if carrier and len(letters := "".join(words)) >= _SHORTEST_LETTERS
}
_LONGEST = max(map(len, _BY_WORDS))


@lru_cache(maxsize=8192)
def resolve(name: str) -> Carrier | None:
    """The carrier, or the service of it, that a name means; None if none or more than one fits.

    At each word the longest known phrase of whole words counts, so "DHL eCommerce" is not also "DHL". Words that name
    no carrier are skipped. "International mail" is ignored if the name contains another carrier.
    """
    words = words_of(name)
    if found := _BY_LETTERS.get("".join(words)):
        return found
    named = {carrier.carrier_id: carrier for carrier in _carriers_in(words)}
    if len(named) > 1:
        named.pop(INTERNATIONAL.carrier_id, None)
    return next(iter(named.values())) if len(named) == 1 else None


def _carriers_in(words: tuple[str, ...]) -> list[Carrier]:
    carriers = []
    start = 0
    while start < len(words):
        length, carrier = _phrase_at(words, start)
        if carrier:
            carriers.append(carrier)
        start += length
    return carriers


def _phrase_at(words: tuple[str, ...], start: int) -> tuple[int, Carrier | None]:
    for length in range(min(_LONGEST, len(words) - start), 0, -1):
        phrase = words[start : start + length]
        if phrase in _BY_WORDS:
            return length, _BY_WORDS[phrase]
    glued = _GLUED.fullmatch(words[start])
    return 1, _BY_LETTERS[glued[1]] if glued else None
