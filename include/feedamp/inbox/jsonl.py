"""JSON Lines: one order per line, `{"seller_id": …, "order": {PUT body}}`; a bad line is rejected alone."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import IO, Any

import msgspec

from feedamp.inbox.lines import is_blank, lines
from feedamp.inbox.streams import TextStream
from feedamp.order_body import BadRow, BodyRules, OrderRow, Reason
from feedamp.order_body.rows import MAX_ORDER_BYTES, Origin, judge, kept, reject

BLANKS = b" \t\r"
TRUNCATED = "truncated"  # msgspec's word where a text ends too early


def _decimal(digits: str) -> Decimal:
    try:
        return Decimal(digits)
    except InvalidOperation:  # an exponent that no decimal can hold
        return Decimal("NaN")


_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)"
)
_NOTHING = object()
_JSON = msgspec.json.Decoder(float_hook=_decimal)


class NotJsonError(Exception):
    """Bytes that are not JSON; the message says where, without quoting them."""


class CutJsonError(NotJsonError):
    """The beginning of a JSON text."""


def decode(content: bytes) -> object:
    """The decoded JSON, with fractions as Decimal; if a key occurs twice, the last value counts.

    Half of a surrogate pair becomes U+FFFD: JSON's grammar permits it, and no store can hold it. A member that is `NaN`,
    which Python and pandas write for nothing, is left out. Raises a NotJsonError for what is not JSON, as `Infinity`.
    """
    if b"\\u" in content:
        content = _ESCAPE.sub(_whole_character, content)
    try:
        return _JSON.decode(content)
    except UnicodeDecodeError as error:
        raise NotJsonError(f"is not UTF-8: {error.reason}") from error
    except msgspec.ValidationError as error:
        raise NotJsonError("holds a number with too many digits") from error
    except msgspec.DecodeError as error:
        if b"NaN" in content:
            with suppress(ValueError, RecursionError):
                return json.loads(
                    content, parse_float=_decimal, parse_constant=_nan, object_pairs_hook=_members
                )
        kind = CutJsonError if TRUNCATED in str(error) else NotJsonError
        raise kind(f"is not JSON: {error}") from error
    except RecursionError as error:
        raise NotJsonError("is nested too deep") from error


def _whole_character(escape: re.Match[bytes]) -> bytes:
    """The escape as it is, or U+FFFD for half of a surrogate pair, such as the rest of an emoji that was cut off."""
    return b"\\ufffd" if escape.lastgroup == "half" else escape[0]


def _nan(constant: str) -> object:
    if constant != "NaN":
        raise ValueError(constant)
    return _NOTHING


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in pairs if value is not _NOTHING}


def read_jsonl(stream: IO[bytes] | TextStream, source: str, rules: BodyRules) -> Iterator[OrderRow | BadRow]:
    """An order or reject per line; blank lines are skipped but counted. Memory does not grow with the file.

    If the last line is incomplete JSON without a line end, the file was cut off; its reject says so in `file_fault`.
    """
    for line in lines(stream):
        content = line.content.strip(BLANKS)
        if line.is_cut:
            origin = Origin(source, line.number, 1, line.sha256, kept(_text(content)))
            message = f"the line is longer than {MAX_ORDER_BYTES} bytes"
            yield reject(origin, Reason("", "too_large", message))
        elif content[:1] == b"{" or not is_blank(_text(content)):
            yield read_line(content, source, line.number, rules, has_end=line.has_end)


def read_line(
    content: bytes, source: str, row_number: int, rules: BodyRules, *, has_end: bool = True
) -> OrderRow | BadRow:
    """One line without the blanks around it; `has_end` is False for a last line without line end."""
    row_hash = hashlib.sha256(content).hexdigest()
    try:
        row = decode(content)
    except NotJsonError as error:
        origin = Origin(source, row_number, 1, row_hash, kept(_text(content)))
        bad = reject(origin, Reason("", "unreadable", f"the line {error}"))
        if has_end or not isinstance(error, CutJsonError):
            return bad
        fault = f"the file breaks off within line {row_number}: what came after it is not known"
        return replace(bad, file_fault=fault)
    return judge(Origin(source, row_number, 1, row_hash, _text(content)), row, rules)


def _text(content: bytes) -> str:
    return content.decode("utf-8", "backslashreplace")
