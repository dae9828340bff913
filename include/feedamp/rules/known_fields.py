"""PURE: how much of the name of a refused field is the contract's own; the rest is the file's word, and can be a value."""

from __future__ import annotations

import re
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


@cache
def _known() -> frozenset[str]:
    return frozenset((*ENVELOPE, *field_names()))
