"""Encodes and decodes JSON: fractions are exact `Decimal`, and equal content gives equal bytes."""

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
_BODY = msgspec.json.Encoder(decimal_format="number")  # money is sent as JSON numbers (contract 1)


def encode(value: Any) -> bytes:
    """The canonical JSON of a value; equal values give equal bytes."""
    return _ENCODER.encode(value)


def content_hash(value: Any) -> str:
    """A hash of 32 hex characters; equal content gives an equal hash."""
    return hashlib.sha256(encode(value)).hexdigest()[:32]


def encode_body(body: Mapping[str, Any]) -> bytes:
    """A request body with its members in the order of the mapping and its decimals exact."""
    return _BODY.encode(body)


def _exact(digits: str) -> Decimal:
    """The exact fraction, or infinity if `Decimal` cannot hold it, so that only this one field is refused."""
    try:
        return Decimal(digits)
    except InvalidOperation:
        return Decimal("Infinity")


_DECODER = msgspec.json.Decoder(float_hook=_exact)


def decode_json(body: bytes) -> Any:
    """The body as Python values, fractions as exact `Decimal`.

    Raises:
        UnreadableError: the body is not JSON.
    """
    try:
        return _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if (
            b"\\u" in body
        ):  # perhaps an escaped lone surrogate, which JSON's grammar permits and msgspec refuses
            with suppress(ValueError, RecursionError):
                return _without_surrogates(json.loads(body, parse_float=_exact))
        raise UnreadableError("FeedAMP's answer is not JSON.") from error


def _without_surrogates(value: Any) -> Any:
    """The value with lone surrogates replaced, because no store can hold them."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    return value
