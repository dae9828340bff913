"""JSON in and out: fractions are exact `Decimal`, and equal content has equal bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from feedamp.errors import UnreadableError

_ENCODER = msgspec.json.Encoder(order="deterministic", decimal_format="number")
_BODY = msgspec.json.Encoder(decimal_format="number")  # money goes out as JSON numbers (contract 1)


def encode(value: Any) -> bytes:
    """The one JSON form of a value; equal values give equal bytes."""
    return _ENCODER.encode(value)


def content_hash(value: Any) -> str:
    """32 hex characters that say whether two contents are the same."""
    return hashlib.sha256(encode(value)).hexdigest()[:32]


def encode_body(body: Mapping[str, Any]) -> bytes:
    """A request body, its members in their own order and its decimals exact."""
    return _BODY.encode(body)


def _exact(digits: str) -> Decimal:
    """The fraction to the letter; infinite where not even `Decimal` can hold it, so that one field is refused."""
    try:
        return Decimal(digits)
    except InvalidOperation:
        return Decimal("Infinity")


_DECODER = msgspec.json.Decoder(float_hook=_exact)


def decode_json(body: bytes) -> Any:
    """The body as Python values, fractions as exact `Decimal`.

    Raises:
        UnreadableError: the body is no JSON.
    """
    try:
        return _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if b"\\u" in body:  # half of a character, which JSON's grammar permits and msgspec refuses
            with suppress(ValueError, RecursionError):
                return _whole_characters(json.loads(body, parse_float=_exact))
        raise UnreadableError("FeedAMP answered with something that is no JSON.") from error


def _whole_characters(value: Any) -> Any:
    """The value with halves of characters replaced, since no store takes them."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_whole_characters(item) for item in value]
    if isinstance(value, dict):
        return {_whole_characters(key): _whole_characters(item) for key, item in value.items()}
    return value
