"""FeedAMP's own words about a refused request; the shape of an error body is unknown (contract Q8)."""

from __future__ import annotations

from typing import Any

import msgspec


def refusal_reasons(body: bytes) -> tuple[tuple[str, str], ...]:
    """(code, message) pairs of an error body, whose shape is unknown (Q8): list, object, text or nothing."""
    try:
        value: Any = msgspec.json.decode(body) if body.strip() else []
    except (msgspec.DecodeError, UnicodeDecodeError):
        return (("", body[:500].decode("utf-8", "replace")),)
    if isinstance(value, dict):
        inner = value.get("errors")
        value = inner if isinstance(inner, list) else [value]
    if not isinstance(value, list):
        return (("", str(value)[:500]),)
    return tuple(
        (str(item.get("code") or ""), str(item.get("message") or item.get("error") or "")[:500])
        if isinstance(item, dict)
        else ("", str(item)[:500])
        for item in value[:50]
    )
