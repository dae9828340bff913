"""JSON Lines: one order per line, `{"seller_id": …, "order": {PUT body}}`; a bad line is rejected alone."""

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import IO, Any

import msgspec

from feedamp.inbox.lines import Line, is_blank, lines
from feedamp.inbox.streams import TextStream
from feedamp.order_body import BadRow, BodyRules, OrderRow, Reason
from feedamp.order_body.reject_reasons import is_storable
from feedamp.order_body.rows import MAX_ORDER_BYTES, Origin, judge, kept, reject, reject_file

BLANKS = b" \t\r"
# How the first two lines of a list of orders, or of an order over several lines, begin.
_OTHER_JSON = re.compile(rb'\{\n"|\[\s*\{')
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
Key = tuple[str, str]  # seller and order number
Hashes = Callable[[Collection[Key]], Mapping[Key, str]]
LINES_AT_ONCE, BYTES_AT_ONCE = 200, 8 << 20  # of lines whose orders are looked up together


class _Numbered(msgspec.Struct):
    mp_order_number: str


class _Named(msgspec.Struct):
    seller_id: str
    order: _Numbered


_KEY = msgspec.json.Decoder(_Named)


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


def no_hashes(_: Collection[Key]) -> Mapping[Key, str]:
    """No order has been delivered before."""
    return {}


def read_jsonl(
    stream: IO[bytes] | TextStream, source: str, rules: BodyRules, hashes: Hashes = no_hashes
) -> Iterator[OrderRow | BadRow]:
    """An order or reject per line; blank lines are skipped but counted. Memory does not grow with the file.

    If the last line is incomplete JSON without a line end, the file was cut off; its reject says so in `file_fault`.
    `hashes` tells from which text (`row_hash`) the ledger has orders: the same text once more is not read.
    """
    is_first = True
    for group in _groups(lines(stream)):
        contents = [line.content.strip(BLANKS) for line in group]
        if is_first and _is_other_json([text for text in contents if text]):
            yield reject_file(source, "the file holds JSON that is not one order a line: write JSON Lines")
            return
        is_first = False
        keys = [None if line.is_cut else _key(text) for line, text in zip(group, contents, strict=True)]
        known = hashes({key for key in keys if key is not None})
        for line, content, key in zip(group, contents, keys, strict=True):
            if line.is_cut:
                origin = Origin(source, line.number, 1, line.sha256, kept(_text(content)))
                message = f"the line is longer than {MAX_ORDER_BYTES} bytes"
                yield reject(origin, Reason("", "too_large", message))
            elif key is not None and known.get(key) == (row_hash := hashlib.sha256(content).hexdigest()):
                yield OrderRow(source, line.number, 1, row_hash, "", *key, {}, was_delivered=True)
            elif content[:1] == b"{" or not is_blank(_text(content)):
                yield read_line(content, source, line.number, rules, has_end=line.has_end)


def _is_other_json(texts: Sequence[bytes]) -> bool:
    """Whether these lines begin a list, or an order over several lines; not if the first is damaged and an order follows."""
    if not _OTHER_JSON.match(b"\n".join(texts[:2])):
        return False
    is_listed = texts[0][:1] == b"[" and any(text != text.strip(b",]") for text in texts[1:3])
    return is_listed or not any(map(_key, texts[1:3]))


def _groups(of: Iterator[Line]) -> Iterator[list[Line]]:
    """The lines in groups; those before an error are in the last one, which is followed by the error."""
    group: list[Line] = []
    size, failure = 0, None
    while True:
        try:
            line = next(of, None)
        except Exception as error:  # noqa: BLE001 - raised below
            line, failure = None, error
        if line is not None:
            group.append(line)
            size += len(line.content)
        if group and (line is None or len(group) == LINES_AT_ONCE or size > BYTES_AT_ONCE):
            yield group
            group, size = [], 0
        if failure is not None:
            raise failure
        if line is None:
            return


def _key(content: bytes) -> Key | None:
    """Seller and number of a line that begins as an order; None where that takes a closer look."""
    try:
        named = _KEY.decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    key = named.seller_id, named.order.mp_order_number
    return key if all(map(is_storable, key)) else None  # Postgres takes no NUL, not even to look for it


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
