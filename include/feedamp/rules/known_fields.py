"""PURE: how much of the name of a field is the contract's or the ledger's own; the rest is a file's or a seller's word."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

from feedamp.order_body.shape import field_names

ENVELOPE = ("seller_id", "order")  # of a row, around the order
_INDEX = re.compile(r"\[\d{1,6}\]$")


def known_part(field: str | None) -> str | None:
    """The longest beginning of a dotted field name, with indexes, that rows have; None if they have nothing of it."""
    if not field:
        return field
    parts = field.split(".")
    while parts and ".".join(_INDEX.sub("", part) for part in parts) not in _known():
        parts.pop()
    return ".".join(parts) or None


def is_known_place(field: str, kind: str, lines: Iterable[str]) -> bool:
    """Whether a compared field names no line but one of these; `kind` is the field without its lines and indexes."""
    above, has_line, below = kind.partition("[]")
    if not has_line:
        return field == kind
    return any(re.sub(r"\[[0-9]+\]", "[]", field.removeprefix(f"{above}[{line}]")) == below for line in lines)


@cache
def _known() -> frozenset[str]:
    return frozenset((*ENVELOPE, *field_names()))
