"""PURE: takes the personal values of an order out of what FeedAMP said about it; a refusal may repeat what was sent."""

import html
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from feedamp.errors import RejectedError
from feedamp.order_body.shape import CUSTOMER, DISCOUNT, ORDER, ORDER_LINE, SHIPPING_ADDRESS, TAX, Node
from feedamp.tables import ORDERS

STRUCK = "***"
_PERSONAL = frozenset(column.name for column in ORDERS.columns if column.personal)
_CODE = re.compile(r"[A-Z]+(_[A-Z]+)+")  # FeedAMP's own
_JSON_ESCAPES = re.compile(r"(?:\\+u[0-9a-fA-F]{4})+|\\+[bfnrt]")  # of texts within texts, too
_LONGER_WORDS = 4  # from this length on a value is taken out of longer words, too
_SHORTEST_PART = 4  # of a value that was cut off at the end of the words


def without_values(error: RejectedError, body: Mapping[str, Any]) -> RejectedError:
    """The refusal with `***` for each value of a personal column or of `extra` in its words, and for each part of a name."""
    personal = {unicodedata.normalize("NFC", value) for value in _personal(body)}
    values = [(value, _words(value)) for value in sorted(personal, key=lambda value: (-len(value), value))]

    def struck(words: str) -> str:
        if _CODE.fullmatch(words):
            return words
        plain = _unescaped(words)
        # An order can have tens of thousands of values: most are not there, and a pattern of all would take long to build.
        letters = plain.casefold()
        there = [
            _spelled(parts)
            for _, parts in values
            if sum(map(len, parts)) <= len(letters) and all(part.casefold() in letters for part in parts)
        ]
        kept = re.sub("|".join(there), STRUCK, plain, flags=re.IGNORECASE) if there else plain
        cut = max((_cut_off(kept, value) for value, _ in values), default=0)
        kept = kept[: len(kept) - cut] + STRUCK if cut else kept
        return words if kept == plain else kept

    reasons = tuple((struck(code), struck(message)) for code, message in error.reasons)
    return RejectedError(error.message, status=error.status, reasons=reasons, seller_id=error.seller_id)


def _personal(body: Mapping[str, Any]) -> Iterator[str]:
    address = _members(body.get("shipping_address"))
    customer = _members(body.get("customer"))
    yield from _texts(body.get("delivery_notes"))
    yield from _texts(list(customer.values()))
    yield from _texts([address[name] for name in address if f"shipping_address_{name}" in _PERSONAL])
    for name in (customer.get("full_name"), address.get("full_name")):
        yield from re.findall(r"[^\W\d_]{2,}", str(name or ""))
    known: list[tuple[Mapping[str, Any], Mapping[str, Node]]] = []
    known += [(body, ORDER), (address, SHIPPING_ADDRESS), (customer, CUSTOMER)]
    for line in _list(body.get("order_lines")):
        discounts, taxes = _list(line.get("discounts")), _list(line.get("taxes"))
        yield from _texts([discount.get("name") for discount in discounts])
        known += [(line, ORDER_LINE), *((one, DISCOUNT) for one in discounts), *((one, TAX) for one in taxes)]
    for given, fields in known:
        yield from _texts([given[name] for name in given if name not in fields])


def _members(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Mapping[str, Any]]:
    return [_members(one) for one in value] if isinstance(value, list) else []


def _texts(value: Any) -> Iterator[str]:
    """Every text and number within a JSON value that has a letter or a digit."""
    if isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item)
    elif value is not None and not isinstance(value, bool) and re.search(r"[^\W_]", str(value)):
        yield str(value)


def _words(value: str) -> list[str]:
    return re.findall(r"[^\W_]+", value)


def _spelled(words: Sequence[str]) -> str:
    """How a value of these words may stand in an answer: with other spaces and signs between them."""
    spelled = r"[\W_]+".join(words).replace("ß", "(?:ß|ss)")
    return spelled if sum(map(len, words)) >= _LONGER_WORDS else rf"(?<!\w){spelled}(?!\w)"


def _unescaped(words: str) -> str:
    """The words without the escapes of JSON, of URLs and of HTML."""
    plain = html.unescape(unquote(_JSON_ESCAPES.sub(_characters, words)))
    return unicodedata.normalize("NFC", plain).replace("\0", " ")


def _characters(escapes: re.Match[str]) -> str:
    units = re.findall(r"u(....)", escapes[0])
    return bytes.fromhex("".join(units)).decode("utf-16-be", "replace") if units else " "


def _cut_off(words: str, value: str) -> int:
    """How many characters at the end are the beginning of a value; answers are kept up to a length."""
    if value[:_SHORTEST_PART] not in words:
        return 0
    longest = min(len(value) - 1, len(words))
    return next((n for n in range(longest, _SHORTEST_PART - 1, -1) if words.endswith(value[:n])), 0)
