"""What an answer other than 2xx means. The shape of an error body is unknown (contract Q8)."""

import json
import re
from datetime import datetime
from typing import Any

from feedamp.api.transport import Answer
from feedamp.codec import decode_json
from feedamp.errors import (
    AuthorizationError,
    ClientRefusedError,
    NotFoundError,
    RejectedError,
    ThrottledError,
    UnclearError,
    UnreadableError,
)

TOKEN_CALL = "a token call"  # noqa: S105 - words
LONGEST_WORDS, LONGEST_DECODED = 500, 1 << 20
# What a header, a form or JSON calls a token; three stars in its place are left.
_TOKEN = re.compile(
    rb"""(?i)((?:\bbearer(?:\s|\+|%20)+|(?:access|refresh)[_-]?token\\?["']?\s*[:=]\s*\\?["']?))[\w.~+/=%-]{4,}"""
)
_CLIENT_NAMED = (b"invalid_client", b"unauthorized_client")


def raise_for_status(
    answer: Answer, request: str, *, now: datetime | None = None, seller_id: str | None = None
) -> None:
    """Returns only for a 2xx answer. `request` is its method, or `TOKEN_CALL`.

    `now` is only used for a `Retry-After` date if the answer has no `Date`.

    Raises:
        AuthorizationError: 401, of a token call also 400; ClientRefusedError if a token call's answer names the client.
        ThrottledError: 429.
        UnclearError: 408 and 5xx.
        RejectedError: any other status, also a redirect; NotFoundError for 404, except of a token call. FeedAMP's words are
            in `reasons`, except of a token call, where they may repeat a secret.
    """
    status, is_token_call = answer.status, request == TOKEN_CALL
    # Without the method, because failures are grouped by their words.
    message = (
        f"FeedAMP answered {TOKEN_CALL} with {status}" if is_token_call else f"FeedAMP answered {status}"
    )
    if 200 <= status < 300:
        return
    if is_token_call and status in (400, 401):
        if any(name in answer.body.lower() for name in _CLIENT_NAMED):
            raise ClientRefusedError(
                "FeedAMP refuses the client id or secret of the connection; correct them there."
            )
        raise AuthorizationError("FeedAMP refuses the grant; the seller must authorize again.")
    if status == 401:
        raise AuthorizationError(
            "FeedAMP refuses a token it has just given; the seller must authorize again.", seller_id=seller_id
        )
    if status in (408, 429) or status >= 500:
        kind = ThrottledError if status == 429 else UnclearError
        wait_s = answer.retry_after_s(now)
        raise kind(f"{message}.", retry_after_s=wait_s, status=status, seller_id=seller_id)
    if is_token_call:
        raise RejectedError(
            f"{message}; check Base URL, or ask whether this machine's address must be allowed.",
            status=status,
        )
    refusal = NotFoundError if status == 404 else RejectedError
    reasons = refusal_reasons(answer.body)
    raise refusal(f"{message} to {request}.", status=status, reasons=reasons, seller_id=seller_id)


def refusal_reasons(body: bytes) -> tuple[tuple[str, str], ...]:
    """(code, message) pairs of an error body, which may be a list, an object, text or empty (Q8)."""
    try:
        # A larger one is not decoded, since that takes about twenty times as much memory.
        return _pairs(decode_json(body[:LONGEST_DECODED]) if body.strip() else [])
    except (UnreadableError, RecursionError):  # also nested deeper than Python can write it
        return (("", _words(body[:LONGEST_DECODED].decode("utf-8", "replace"))),)


def _pairs(value: Any) -> tuple[tuple[str, str], ...]:
    if isinstance(value, dict):
        inner = value.get("errors")
        value = inner if inner and isinstance(inner, list) else [value]
    if not isinstance(value, list):
        return (("", _words(value)),)
    return tuple(_pair(item) if isinstance(item, dict) else ("", _words(item)) for item in value[:50])


def _pair(item: dict[str, Any]) -> tuple[str, str]:
    """The code and the message; members with other names follow the message as JSON, since the reason may be there."""
    code = _words(item.get("code") or "")
    message = next(
        (text for name in ("message", "error") if isinstance(text := item.get(name), str) and text), ""
    )
    others = {name: value for name, value in item.items() if value and name != "code" and value != message}
    message = message.removesuffix(f": {code}") if code else message  # some messages repeat the code
    return code, _words(" ".join(filter(None, (message, _words(others) if others else ""))))


def _words(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text[:LONGEST_WORDS]


def without(body: bytes, secret: str) -> bytes:
    """A body with `***` in place of `secret`, also where JSON escapes its characters, and of what is called a token.

    Some servers repeat the request in their answer, or that of another seller, and reasons are stored and displayed.
    """

    def escaped(found: re.Match[str]) -> str:
        return rf"(?:\\?{re.escape(found[0])}|\\u(?i:{ord(found[0]):04x}))"

    return _TOKEN.sub(rb"\1***", re.sub(re.sub(r"\W", escaped, secret).encode(), b"***", body))
