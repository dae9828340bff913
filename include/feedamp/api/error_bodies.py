"""FeedAMP's own words about a refused request; the shape of an error body is unknown (contract Q8)."""

from __future__ import annotations

from typing import Any

import msgspec

LONGEST_WORDS = 500


def refusal_reasons(body: bytes, *, secret: str = "") -> tuple[tuple[str, str], ...]:
    """(code, message) pairs of an error body, whose shape is unknown (Q8): list, object, text or nothing.

    `secret` is taken out: some servers repeat the request, and these words are stored and shown.
    """

    def words(value: object) -> str:
        text = str(value)
        return (text.replace(secret, "***") if secret else text)[:LONGEST_WORDS]

    def pair(item: dict[str, Any]) -> tuple[str, str]:
        code = words(item.get("code") or "")
        message = words(item.get("message") or item.get("error") or "")
        return code, message.removesuffix(f": {code}") if code else message  # said once

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
