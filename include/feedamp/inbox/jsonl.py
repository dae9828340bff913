"""JSON Lines: one order a line, `{"seller_id": …, "order": {PUT body}}`; a bad line costs that line only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import IO

import msgspec

from feedamp.inbox.lines import MAX_LINE_BYTES, lines
from feedamp.inbox.rows import BadRow, OrderRow, Origin, judge, kept, reject
from feedamp.order_body import BodyRules, Reason

BLANKS = b" \t\r"


def _decimal(digits: str) -> Decimal:
    try:
        return Decimal(digits)
    except InvalidOperation:  # an exponent that no decimal can hold
        return Decimal("NaN")


_JSON = msgspec.json.Decoder(float_hook=_decimal)


class NotJsonError(Exception):
    """Bytes that are no JSON text; the message says where, without quoting them."""


def decode(content: bytes) -> object:
    """JSON with its fractions as Decimal; of a key written twice the last one counts.

    Raises:
        NotJsonError: for anything else, `NaN` and `Infinity` included.
    """
    try:
        return _JSON.decode(content)
    except UnicodeDecodeError as error:
        raise NotJsonError(f"is not UTF-8: {error.reason}") from error
    except msgspec.ValidationError as error:
        raise NotJsonError("holds a number with too many digits") from error
    except msgspec.DecodeError as error:
        raise NotJsonError(f"is not JSON: {error}") from error
    except RecursionError as error:
        raise NotJsonError("is nested too deep") from error


def read_jsonl(stream: IO[bytes], source: str, rules: BodyRules) -> Iterator[OrderRow | BadRow]:
    """Each line in turn; blank ones are skipped but counted. Memory does not grow with the file."""
    for line in lines(stream):
        content = line.content.strip(BLANKS)
        if line.is_cut:
            origin = Origin(source, line.number, 1, line.sha256, kept(_text(content)))
            message = f"the line is longer than {MAX_LINE_BYTES} bytes"
            yield reject(origin, Reason("", "out_of_range", message))
        elif content:
            yield read_line(content, source, line.number, rules)


def read_line(content: bytes, source: str, row_number: int, rules: BodyRules) -> OrderRow | BadRow:
    """One line without the blanks around it."""
    row_hash = hashlib.sha256(content).hexdigest()
    try:
        row = decode(content)
    except NotJsonError as error:
        origin = Origin(source, row_number, 1, row_hash, kept(_text(content)))
        return reject(origin, Reason("", "wrong_type", f"the line {error}"))
    return judge(Origin(source, row_number, 1, row_hash, _text(content)), row, rules)


def _text(content: bytes) -> str:
    return content.decode("utf-8", "backslashreplace")
