"""Resolves carrier names as sellers write them, and tracking links where a name is unknown or ambiguous.

A name is listed in the file of its carrier, also in other languages, of services that only one carrier sells, misspelled,
and as a code of a platform. A misspelling is listed only if it can mean just one carrier. There is no fuzzy matching,
because one letter separates SunExpress from YunExpress and UPS from USPS. "USP" and "Priority Mail" are left out for that
reason.

Source of the codes: eBay's ShippingCarrierCodeType, Walmart's supported carrier names, the tracking companies of Shopify's
FulfillmentTrackingInfo, Shippo's tracking carriers, and Amazon's shipment reports.

Source of the hosts: the carriers' own sites. Shops and services that track for many carriers (17track, AfterShip,
Narvar, ParcelsApp, Route) are left out, and so is amazon.com, which also shows parcels of other carriers.
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urlsplit

from feedamp.carriers.catalogue import ALL
from feedamp.carriers.formats import Carrier
from feedamp.carriers.posts import INTERNATIONAL

# Of a name, a number or a link: more than any of them, with the text around it. Some patterns would take very long on a
# longer text, and no cache holds a longer one: what a seller writes can be megabytes.
LONGEST_READ = 500
# Services that sell labels: these contain a carrier's name but do not mean that carrier.
SHOPS = ("amazon buy shipping", "buy shipping")

_MARKS = re.compile(r"[®™©℠]")
_DOTTED = re.compile(r"\b(?:[a-z0-9]\.){2,}[a-z0-9]?")
_SEPARATORS = re.compile(r"[\W_]+")
# A name run together with its service: UPSGround, FedExHomeDelivery.
_GLUED = re.compile(
    r"(ups|usps|fedex|dhl)"
    r"(?:2day|3day|air|express|first|freight|ground|home|international|intl|mail|next|overnight|parcel|priority|"
    r"saver|second|smartpost|standard|surepost|worldwide)[a-z0-9]*"
)
_INNER_CAPITAL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")  # OsterreichischePostAG
_SHORTEST_IN_A_NAME = 3  # shorter ones mean a carrier only if nothing else is stated


def words_of(name: str) -> tuple[str, ...]:
    """Split a name into plain lower-case words; single letters with dots between them make one word."""
    plain = unicodedata.normalize("NFKD", _MARKS.sub(" ", name)).casefold()
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    plain = _DOTTED.sub(lambda match: match[0].replace(".", "") + " ", plain)
    return tuple(_SEPARATORS.sub(" ", plain).split())


BY_NAME: dict[str, Carrier] = {}
BY_HOST: dict[str, Carrier] = {}
for _carrier in ALL:
    for _name in (_carrier.title, *_carrier.names):
        BY_NAME.setdefault(_name, _carrier)  # of several carriers with one title (DHL) it means the first
    BY_HOST.update(dict.fromkeys(_carrier.hosts, _carrier))
_BY_WORDS: dict[tuple[str, ...], Carrier | None] = {
    **{words_of(name): carrier for name, carrier in BY_NAME.items() if len(name) >= _SHORTEST_IN_A_NAME},
    **dict.fromkeys(map(words_of, SHOPS)),
}
_BY_LETTERS = {"".join(words_of(name)): carrier for name, carrier in reversed(BY_NAME.items())}
_LONGEST = max(map(len, _BY_WORDS))


def resolve(name: str) -> Carrier | None:
    """The carrier, or the service of it, that a name means; None if none or more than one fits.

    At each word the longest known phrase of whole words counts, so "DHL eCommerce" is not also "DHL". Words that name
    no carrier are skipped. "International mail" is ignored if the name contains another carrier.
    """
    return resolve_short(name[:LONGEST_READ])


@lru_cache(maxsize=4096)
def resolve_short(name: str) -> Carrier | None:
    """As `resolve`, of a name of at most `LONGEST_READ` characters; it is remembered."""
    return _meant(words_of(name)) or _meant(words_of(_INNER_CAPITAL.sub(" ", name)))


def is_one_of(stated: str, listed: Iterable[str]) -> bool:
    """Whether a stated name is one of the listed carriers or services.

    The title or id of a carrier stands for all its services, any other name only for names that contain it.
    """
    words, carrier = words_of(stated), resolve(stated)
    whole = {words_of(carrier.title), words_of(carrier.carrier_id)} if carrier else set()
    return any(
        wanted in whole or wanted in {words[at : at + len(wanted)] for at in range(len(words))}
        for wanted in filter(None, map(words_of, listed))
    )


def _meant(words: tuple[str, ...]) -> Carrier | None:
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


def linked(url: str) -> Carrier | None:
    """The carrier to whose site a tracking link leads; None for other sites and for text that is not a link."""
    link = url.strip()[:LONGEST_READ]  # `urlsplit` remembers what it was given
    try:
        host = urlsplit(link if "//" in link else f"//{link}").hostname or ""
    except ValueError:
        return None
    parts = host.casefold().rstrip(".").split(".")
    parents = (".".join(parts[start:]) for start in range(len(parts) - 1))
    return next((BY_HOST[parent] for parent in parents if parent in BY_HOST), None)
