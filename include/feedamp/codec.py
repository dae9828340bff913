"""Encodes and decodes JSON: fractions are exact `Decimal`, and equal content gives equal bytes."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, AnyStr, TypeVar

import msgspec

from feedamp.errors import UnreadableError

LONGEST_NUMBER = 400
"""Digits of a whole number, or the size of an exponent, that every store can hold in JSON."""

LONGEST_REMEMBERED = 50
"""Characters of a text whose value is remembered: amounts and times are shorter, and what is sent can be megabytes."""

NUL = b"\\u0000"
"""How JSON writes the character that no store can hold."""

_T = TypeVar("_T")
_ENCODER = msgspec.json.Encoder(order="deterministic", decimal_format="number")
_BODY = msgspec.json.Encoder(decimal_format="number")  # money is sent as JSON numbers (contract 1)


class _Meanings(dict[AnyStr, _T]):
    def __init__(self, meaning_of: Callable[[AnyStr], _T], entries: int) -> None:
        self._meaning_of: Callable[[AnyStr], _T] = meaning_of
        self._entries = entries

    def __missing__(self, text: AnyStr) -> _T:
        meaning = self._meaning_of(text)
        if len(text) <= LONGEST_REMEMBERED:
            if len(self) >= self._entries:
                self.clear()
            self[text] = meaning
        return meaning


def remembers_short(entries: int) -> Callable[[Callable[[AnyStr], _T]], Callable[[AnyStr], _T]]:
    """The function with a cache of at most so many texts, none of them longer than `LONGEST_REMEMBERED`.

    What it raises is not remembered.
    """
    # The method of the dict itself: a function around it would take longer than most of what is remembered.
    return lambda meaning_of: _Meanings(meaning_of, entries).__getitem__


def has_nul(body: bytes) -> bool:
    """Whether a text has `NUL`. Most have no escape at all, and one character is found ten times as fast as six."""
    return b"\\" in body and NUL in body


def encode(value: Any) -> bytes:
    """The canonical JSON of a value; equal values give equal bytes."""
    return _ENCODER.encode(value)


def content_hash(value: Any) -> str:
    """A hash of 32 hex characters; equal content gives an equal hash."""
    return encoded_hash(encode(value))


def content_hashes(values: Iterable[Any]) -> list[str]:
    """The `content_hash` of each value, in a sixth less time."""
    buffer, encode_into = bytearray(4096), _ENCODER.encode_into
    hashes = []
    for value in values:
        encode_into(value, buffer)
        hashes.append(encoded_hash(buffer))
    return hashes


def encoded_hash(encoded: bytes | bytearray) -> str:
    """The `content_hash` of a value that `encode` has encoded."""
    return hashlib.sha256(encoded).hexdigest()[:32]


def encode_body(body: Mapping[str, Any]) -> bytes:
    """A request body with its members in the order of the mapping and its decimals exact."""
    return _BODY.encode(body)


@remembers_short(1024)  # of one page, many amounts are equal
def _exact(digits: str) -> Decimal | str:
    """The exact fraction; as text if no store can hold it, so that only its field is refused."""
    try:
        number = Decimal(digits)
    except InvalidOperation:
        return digits
    return number if abs(number.adjusted()) < LONGEST_NUMBER else digits


def _whole(digits: str) -> int | str:
    return int(digits) if len(digits) < LONGEST_NUMBER else digits


_DECODER = msgspec.json.Decoder(float_hook=_exact)


def decoder_of(kind: Any) -> msgspec.json.Decoder[Any]:
    """A strict decoder of a type, whose untyped fractions are exact as those of `decode_json`."""
    return msgspec.json.Decoder(kind, float_hook=_exact)


def decode_json(body: bytes, coercions: Counter[str] | None = None) -> Any:
    """The body as Python values, fractions as exact `Decimal`.

    A byte order mark is ignored, and NaN is null. What no store can hold costs itself: half a character, a byte that is
    not UTF-8 and a NUL become U+FFFD, and a number beyond all bounds becomes text. All but the last are counted in
    `coercions`. Raises an UnreadableError if the body is not JSON, or nested deeper than Python can follow.
    """
    try:
        value = _DECODER.decode(body)
        return _storable(value) if has_nul(body) else value
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        try:
            return _decode_as_meant(body, Counter() if coercions is None else coercions)
        except (ValueError, RecursionError):
            raise UnreadableError("FeedAMP's answer is not JSON.") from error


def _decode_as_meant(body: bytes, coercions: Counter[str]) -> Any:
    """As `json.loads`, which accepts what JSON's grammar permits and msgspec refuses, and more."""
    encoding = json.detect_encoding(body)
    meant = body.decode(encoding, "replace").strip("\ufeff\0 \t\r\n")
    if encoding != "utf-8":
        coercions["byte_order_mark"] += 1
    if "\ufffd" in meant:
        coercions["byte_that_is_not_utf8"] += 1

    def constant(name: str) -> str | None:
        coercions["number_that_is_none"] += 1
        return None if name == "NaN" else name

    value = json.loads(meant, strict=False, parse_float=_exact, parse_int=_whole, parse_constant=constant)
    return _storable(value)


def _storable(value: Any) -> Any:
    """The value without lone surrogates and NULs, because no store can hold them."""
    if isinstance(value, str):
        value = value.replace("\0", "\ufffd")
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_storable(item) for item in value]
    if isinstance(value, dict):
        return {_storable(key): _storable(item) for key, item in value.items()}
    return value
