"""Who calls, and whether secrets stand where they do not belong (contract 1, 2.2, 7.7)."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import unquote

from feedamp_sandbox.wire import (
    MAX_URL_LENGTH,
    Call,
    Refusal,
)
from feedamp_sandbox.world import World

IN_FLIGHT_S = 1.0
"""On one connection a request that comes later than this after a 401 was made by someone who knew of it."""

PROCESSES_AT_ONCE = 4
"""So many processes may bring one token with the same request, each told by its own 401."""


def check_url(world: World, call: Call) -> None:
    """Refuse secrets in the URL and a URL that is too long; the examples never show a value.

    Raises: Refusal 400 or 414.
    """
    parts = [*call.path.split("/"), *(text for pair in call.query for text in pair)]
    if any(world.grants.is_secret(unquote(part)) for part in parts):
        world.rules.note("secret_in_url", f"{call.method} /{call.path.split('/')[1]}")
        raise Refusal(400, ("INVALID_QUERY_PARAM", "a secret stands in the URL"))
    if call.url_length > MAX_URL_LENGTH:
        world.rules.note("too_many_order_numbers", f"{call.where}: URL of {call.url_length} characters")
        raise Refusal(414, ("INVALID_QUERY_PARAM", "the URL is too long"))


def check_headers(world: World, call: Call) -> None:
    """Count secrets in headers, and basic auth."""
    for name, value in call.headers.items():
        scheme, _, credential = value.partition(" ")
        if name == "authorization" and scheme.lower() == "basic":
            world.rules.note("basic_auth", call.where)
        elif world.grants.is_secret(value) or holds_secret(
            world, credential if name == "authorization" else ""
        ):
            world.rules.note("secret_in_header", f"{call.where}: {name}")


def holds_secret(world: World, credential: str) -> bool:
    """Whether the credential is a secret other than an access token."""
    return bool(credential) and not world.grants.was_issued(credential) and world.grants.is_secret(credential)


@dataclass(slots=True)
class Refused:
    """Where and when an access token got its 401s: by request the connections, by connection the moment."""

    requests: dict[tuple[str, str, tuple[tuple[str, str], ...]], list[str]] = field(default_factory=dict)
    connections: dict[str, float] = field(default_factory=dict)


class DeadTokens:
    """Reads the bearer token, and notices a client that goes on with one after its 401.

    Requests under way at the same time are innocent, and so are processes that were not told yet. So it counts when the
    very same request comes again on its connection, or more often than processes would send it at once, or when a
    connection that was told more than a second ago brings the token once more.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._refused: dict[str, Refused] = {}

    def seller_of(self, call: Call) -> str:
        """The seller the call is made for.

        Raises: Refusal 401.
        """
        scheme, _, token = call.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            self._world.rules.note("no_token", call.where)
            raise Refusal(401, ("invalid_token", "no access token"))
        try:
            return self._world.grants.seller_of(token)
        except Refusal:
            if self._world.grants.was_issued(token):
                self._count(call, token)
            else:
                self._world.rules.note("unknown_token", call.where)
            raise

    def _count(self, call: Call, token: str) -> None:
        refused = self._refused.setdefault(token, Refused())
        now, request = self._world.monotonic(), (call.method, call.path, call.query)
        told_at = refused.connections.setdefault(call.connection, now)
        told = refused.requests.setdefault(request, [])
        if call.connection in told or len(told) >= PROCESSES_AT_ONCE or now > told_at + IN_FLIGHT_S:
            self._world.rules.note("dead_access_token_reused", call.where)
        told.append(call.connection)
