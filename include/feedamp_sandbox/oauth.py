"""Codes, access tokens and refresh tokens (contract section 2); one live grant per seller."""

import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from feedamp_sandbox.options import Clock, SandboxOptions
from feedamp_sandbox.rules import BrokenRules
from feedamp_sandbox.wire import Json, Refusal


@dataclass(slots=True)
class Grant:
    """A seller's consent. `newest` is the only refresh token that works, except during the grace period."""

    seller_id: str
    newest: str = field(repr=False)
    previous: str = field(default="", repr=False)
    rotated_at: datetime | None = None
    live: bool = True


@dataclass(slots=True)
class AccessToken:
    """The grant and expiry of one access token; `until` is exclusive, UTC."""

    grant: Grant
    until: datetime
    live: bool = True


class Grants:
    """All tokens of the sandbox. Not locked: the caller holds the sandbox's lock."""

    def __init__(self, options: SandboxOptions, clock: Clock, rules: BrokenRules) -> None:
        self.client_id = options.client_id
        self.client_secret = options.client_secret or secrets.token_urlsafe(24)
        self._options, self._clock, self._rules = options, clock, rules
        self._grants: dict[str, Grant] = {}
        self._refresh: dict[str, Grant] = {}
        self._access: dict[str, AccessToken] = {}
        self._codes: dict[str, str] = {}
        self._used_codes: set[str] = set()
        self._answer_lost: set[str] = set()
        for seller in options.seller_list():
            if seller.refresh_token:
                self._grant(seller.seller_id, seller.refresh_token)

    def _grant(self, seller_id: str, refresh_token: str) -> Grant:
        if not self._options.keep_older_grants:
            self.revoke(seller_id)
        grant = Grant(seller_id, refresh_token)
        self._grants[seller_id] = self._refresh[refresh_token] = grant
        return grant

    def issue_code(self, seller_id: str) -> str:
        """Issues a one-time code for a seller who has just consented."""
        code = "c-" + secrets.token_hex(12)
        self._codes[code] = seller_id
        return code

    def exchange_code(self, code: str) -> Json:
        """Issues the first token pair of a new grant; ends the seller's previous grant unless `keep_older_grants`.

        Raises: Refusal 401 invalid_grant.
        """
        seller_id = self._codes.pop(code, None)
        if seller_id is None:
            if code in self._used_codes and code not in self._answer_lost:
                self._rules.note("code_reused", "POST /access_token")
            raise refused_grant("the code is unknown or was used")
        self._used_codes.add(code)
        return self._pair(self._grant(seller_id, "rt-" + secrets.token_hex(16)))

    def exchange_refresh_token(self, token: str) -> Json:
        """Issues a new token pair; the given token stops working, after the grace period if there is one.

        Raises: Refusal 401 invalid_grant.
        """
        grant = self._refresh.get(token)
        if grant is None or not grant.live:
            raise refused_grant("the refresh token is unknown or its grant has ended")
        if token != grant.newest:
            if not self._in_grace(grant, token):
                self._reused(grant, token)
                raise refused_grant("the refresh token was exchanged before")
            return self._pair(grant)
        grant.previous, grant.newest = token, "rt-" + secrets.token_hex(16)
        grant.rotated_at = self._clock()
        self._refresh[grant.newest] = grant
        return self._pair(grant)

    def _in_grace(self, grant: Grant, token: str) -> bool:
        grace = timedelta(seconds=self._options.refresh_grace_s)
        rotated_at = grant.rotated_at
        return token == grant.previous and rotated_at is not None and self._clock() < rotated_at + grace

    def _reused(self, grant: Grant, token: str) -> None:
        if token not in self._answer_lost:
            self._rules.note("refresh_token_reused", f"POST /access_token for {grant.seller_id}")
        if self._options.revoke_on_reuse:
            self.revoke(grant.seller_id)

    def _pair(self, grant: Grant) -> Json:
        access_token = "at-" + secrets.token_hex(16)
        lifetime_s = self._options.token_lifetime_s
        self._access[access_token] = AccessToken(grant, self._clock() + timedelta(seconds=lifetime_s))
        return {
            "access_token": access_token,
            "token_type": "Bearer",
            "refresh_token": grant.newest,
            "expires_in": lifetime_s,
        }

    def seller_of(self, access_token: str) -> str:
        """The seller that the token belongs to.

        Raises: Refusal 401 for a token that is unknown or expired, or whose grant has ended.
        """
        token = self._access.get(access_token)
        if token is None or not token.live or self._clock() >= token.until:
            raise Refusal(401, ("invalid_token", "the access token is unknown or has expired"))
        return token.grant.seller_id

    def was_issued(self, access_token: str) -> bool:
        return access_token in self._access

    def owner(self, credential: str) -> str | None:
        """The seller that a refresh token or an unused code belongs to; None if unknown."""
        grant = self._refresh.get(credential)
        return grant.seller_id if grant else self._codes.get(credential)

    def answer_was_lost(self, credential: str) -> None:
        """Records that the client could not read the answer: using `credential` again then breaks no rule."""
        self._answer_lost.add(credential)

    def newest_refresh_token(self, seller_id: str) -> str:
        """The seller's newest refresh token; empty without a live grant."""
        grant = self._grants.get(seller_id)
        return grant.newest if grant and grant.live else ""

    def is_secret(self, text: str) -> bool:
        """Whether `text` is a token, code or the client secret of this sandbox."""
        return (
            text in self._access
            or text in self._refresh
            or text in self._codes
            or text in self._used_codes
            or self.client_secret in text
        )

    def expire_access_tokens(self, seller_id: str | None = None) -> None:
        """Expires all access tokens now, or those of one seller; the grants remain live."""
        for token in self._access.values():
            if seller_id in (None, token.grant.seller_id):
                token.live = False

    def cancel(self, seller_id: str) -> None:
        """Ends the grant; access tokens work until they expire."""
        if seller_id in self._grants:
            self._grants[seller_id].live = False

    def revoke(self, seller_id: str) -> None:
        """Ends the grant and its access tokens immediately, as when a seller disconnects."""
        self.cancel(seller_id)
        self.expire_access_tokens(seller_id)


def refused_grant(message: str) -> Refusal:
    """A 401 that blames the grant, not the client."""
    return Refusal(401, ("invalid_grant", message))
