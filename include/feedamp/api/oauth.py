"""POST /access_token: both grant types of the contract (2.2), sent as a form, without any Authorization header."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import parse_qsl

from feedamp.api.bad_answers import TOKEN_CALL, raise_for_status
from feedamp.api.transport import Answer, Transport
from feedamp.codec import decode_json
from feedamp.errors import UnclearError, UnreadableError

ASSUMED_LIFE_S = 300
LONGEST_LIFE_S = 366 * 86_400
LONGEST_ANSWER = 1 << 20
_DEEPEST, _LONGEST_SCANNED = 4, 1 << 16
# A member of JSON, of a Python or PHP literal, or of XML, up to the character that ends its value.
_MEMBER = re.compile(
    r"""(?i)(?<![/\w])((?:access|refresh)[_-]?token|expires[_-]?in)["']?\s*(?:=>|[:=>])\s*["']?"""
    r"""([^"'<>&,;\s{}\[\]]+)(?=["'<&,;}\s])"""
)
# Some servers answer 200 to what RFC 6749 (5.2) refuses with 400.
_REFUSAL = re.compile(rb"""(?i)["'](?:invalid_grant|invalid_client|unauthorized_client)["']""")
_SCHEME = re.compile(r"(?i)\Abearer\s+")  # no token holds a blank (RFC 6749, appendix A.12)
_FORM = re.compile(r"[\w.~%+*=&/:-]+")


@dataclass(frozen=True)
class Credentials:
    """The marketplace's client id and secret of one connection."""

    conn_id: str
    client_id: str
    client_secret: str = field(repr=False)


@dataclass(frozen=True)
class TokenPair:
    """The tokens in FeedAMP's answer; the refresh token replaces the previous one.

    `access_token` is empty if only the refresh token could be read. Without `is_rotated`, the answer had no other refresh
    token than the one that was sent, which stays.
    """

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_in_s: int
    is_rotated: bool = True


class TokenEndpoint:
    """Makes the token calls of both grant types; stores nothing."""

    def __init__(self, transport: Transport, credentials: Credentials) -> None:
        self._transport = transport
        self.credentials = credentials

    @property
    def origin(self) -> str:
        """Scheme, host and port of the server that is asked."""
        return self._transport.endpoint.origin

    async def refresh(self, refresh_token: str) -> TokenPair:
        """A new pair for a refresh token.

        Raises:
            AuthorizationError: the token is refused; ClientRefusedError if the answer names the client.
            UnclearError: the answer was lost; the token may be spent.
            TransientError: FeedAMP cannot be reached or throttles the call; the token is not spent.
            RejectedError: any other answer, such as a redirect or a 403.
        """
        fields = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        return await self._call(fields, unrotated=refresh_token)

    async def exchange(self, code: str) -> TokenPair:
        """A pair for a one-time code; raises as `refresh` does."""
        return await self._call({"grant_type": "authorization_code", "code": code})

    async def _call(self, fields: dict[str, str], *, unrotated: str | None = None) -> TokenPair:
        form = {
            **fields,
            "client_id": self.credentials.client_id,
            "client_secret": self.credentials.client_secret,
        }
        # Even a part of the answer may hold the rotated token, which must not be lost.
        answer = await self._transport.send(
            "POST", "/access_token", body=form, is_token_call=True, max_bytes=LONGEST_ANSWER
        )
        raise_for_status(answer, TOKEN_CALL)
        return _pair(answer, unrotated)


def _pair(answer: Answer, unrotated: str | None) -> TokenPair:
    """The token pair of a 2xx answer, also of one that is slightly off RFC 6749, so that a rotated token is not lost.

    If the whole answer has no refresh token, the one that was sent stays valid (OAuth 2.0, section 6).

    Raises:
        AuthorizationError: it is a refusal; ClientRefusedError if it names the client.
        UnclearError: the body cannot be used, or its end is lost, and perhaps the rotated token with it. The refresh
            token may be spent nevertheless.
    """
    members, is_whole = _members(answer)
    access = next((token for found in members if (token := _token(found.get("accesstoken")))), None)
    tokens = [token for found in members if (token := _token(found.get("refreshtoken")))]
    # An answer may repeat the request, and with it the token that was sent.
    rotated = next((token for token in tokens if token != unrotated), None)
    life = next((found["expiresin"] for found in members if "expiresin" in found), None)
    if not access and not rotated:
        if _REFUSAL.search(answer.body):
            raise_for_status(replace(answer, status=400), TOKEN_CALL)
        raise UnclearError("FeedAMP answered a token call with something that is not a token pair.")
    if not rotated and not is_whole:
        raise UnclearError("FeedAMP answered a token call with a part of a token pair.")
    refresh = rotated or unrotated
    if refresh is None:
        raise UnclearError("FeedAMP answered a token call without a refresh token.")
    return TokenPair(access or "", refresh, _life_s(life) if access else 0, is_rotated=rotated is not None)


def _members(answer: Answer) -> tuple[list[dict[str, Any]], bool]:
    """The objects of a token answer, whose members are named in lower case and without `_` and `-`, outermost first.

    It is JSON, perhaps as text in JSON or below another member, or a form. Of a body that is cut off, or has something
    before or after the JSON, what can be read; and whether that is the whole of it.
    """
    body = answer.body
    with suppress(UnreadableError):
        return list(_objects(decode_json(body))), True
    text = body[:_LONGEST_SCANNED].decode(json.detect_encoding(body), "replace")
    if "=" in text and _FORM.fullmatch(text.strip()):
        return [{_plain(name): value} for name, value in parse_qsl(text.strip())], answer.is_whole
    # A server that breaks off within its JSON may announce the shorter length, so that the answer arrives whole.
    is_whole = answer.is_whole and len(body) <= _LONGEST_SCANNED and text.count("{") <= text.count("}")
    return [{_plain(name): _unescaped(value)} for name, value in _MEMBER.findall(text)], is_whole


def _objects(value: Any, depth: int = 0) -> Iterator[dict[str, Any]]:
    """The objects in a JSON value, a few levels deep."""
    if depth > _DEEPEST:
        return
    if isinstance(value, str) and "token" in value:
        with suppress(UnreadableError):
            yield from _objects(decode_json(value.encode()), depth + 1)
    if isinstance(value, dict):
        yield {_plain(name): member for name, member in value.items()}
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in inner:
        yield from _objects(item, depth + 1)


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def _unescaped(value: str) -> str:
    try:
        return str(decode_json(f'"{value}"'.encode()))
    except UnreadableError:
        return value


def _token(value: Any) -> str | None:
    """A token, also the only one of a list or an object; None for an empty one, which means that there is none."""
    if isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, dict):
        value = value.get("value", value.get("token"))
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    text = _SCHEME.sub("", value.strip()) if isinstance(value, str) else ""
    return None if text.lower() in ("", "0", "false", "null", "none", "undefined") else text


def _life_s(value: Any) -> int:
    """Lifetime in whole seconds; a short one is assumed if the value is unusable, so that the pair is not lost."""
    try:
        life = Decimal(value) if isinstance(value, (int, str, Decimal)) and value is not True else Decimal(0)
        return int(min(life, Decimal(LONGEST_LIFE_S))) if life >= 1 else ASSUMED_LIFE_S
    except InvalidOperation:  # text that is not a number
        return ASSUMED_LIFE_S
