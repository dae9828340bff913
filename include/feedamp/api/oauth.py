"""POST /access_token: both grant types of the contract (2.2), sent as a form, without any Authorization header."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from feedamp.api.bad_answers import TOKEN_CALL, raise_for_status
from feedamp.api.transport import Answer, Transport
from feedamp.codec import decode_json
from feedamp.errors import UnclearError, UnreadableError

ASSUMED_LIFE_S = 300
LONGEST_LIFE_S = 366 * 86_400


@dataclass(frozen=True)
class Credentials:
    """The marketplace's client id and secret of one connection."""

    conn_id: str
    client_id: str
    client_secret: str = field(repr=False)


@dataclass(frozen=True)
class TokenPair:
    """The tokens in FeedAMP's answer; the refresh token replaces the previous one."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_in_s: int


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
        answer = await self._transport.send("POST", "/access_token", body=form)
        raise_for_status(answer, TOKEN_CALL)
        return _pair(answer, unrotated)


def _pair(answer: Answer, unrotated: str | None) -> TokenPair:
    """The token pair of a 2xx answer.

    If the answer has no refresh token, the one that was sent stays valid (OAuth 2.0, section 6).

    Raises:
        UnclearError: the body cannot be used. The refresh token may be spent nevertheless.
    """
    try:
        body: Any = decode_json(answer.body)
    except UnreadableError:
        body = None
    fields = body if isinstance(body, dict) else {}
    access, refresh = fields.get("access_token"), fields.get("refresh_token", unrotated)
    if not (isinstance(access, str) and access):
        raise UnclearError("FeedAMP answered a token call with something that is not a token pair.")
    if not (isinstance(refresh, str) and refresh):
        raise UnclearError("FeedAMP answered a token call without a refresh token.")
    return TokenPair(access, refresh, _life_s(fields.get("expires_in")))


def _life_s(value: Any) -> int:
    """Lifetime in whole seconds; a short one is assumed if the value is unusable, so that the pair is not lost."""
    try:
        life = Decimal(value) if isinstance(value, (int, str, Decimal)) and value is not True else Decimal(0)
        return int(min(life, Decimal(LONGEST_LIFE_S))) if life >= 1 else ASSUMED_LIFE_S
    except InvalidOperation:  # text that is not a number
        return ASSUMED_LIFE_S
