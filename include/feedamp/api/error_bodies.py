"""Reads FeedAMP's reasons for a refused request; the shape of an error body is unknown (contract Q8)."""

from __future__ import annotations

from typing import Any

import msgspec

LONGEST_WORDS = 500


def refusal_reasons(body: bytes, *, secret: str = "") -> tuple[tuple[str, str], ...]:
    """(code, message) pairs of an error body, which may be a list, an object, text or empty (Q8).

    `secret` is replaced by `***`: some servers repeat the request in the body, and the pairs are stored and displayed.
    """

    def words(value: object) -> str:
        text = str(value)
        return (text.replace(secret, "***") if secret else text)[:LONGEST_WORDS]

    def pair(item: dict[str, Any]) -> tuple[str, str]:
        code = words(item.get("code") or "")
        message = words(item.get("message") or item.get("error") or "")
        return code, message.removesuffix(f": {code}") if code else message  # some messages repeat the code

    try:
        value: Any = msgspec.json.decode(body) if body.strip() else []
    except (msgspec.DecodeError, UnicodeDecodeError):
        return (("", words(body.decode("utf-8", "replace"))),)
    if isinstance(value, dict):
        inner = value.get("errors")
        value = inner if isinstance(inner, list) else [value]
    if not isinstance(value, list):
        return (("", words(value)),)
    return tuple(pair(item) if isinstance(item, dict) else ("", words(item)) for item in value[:50])
