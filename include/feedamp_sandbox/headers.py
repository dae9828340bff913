"""Identifies the caller, and finds secrets where they do not belong (contract 1, 2.2, 7.7)."""

from urllib.parse import unquote

from feedamp_sandbox.wire import MAX_URL_LENGTH, Call, Refusal
from feedamp_sandbox.world import World

IN_FLIGHT_S = 1.0
"""A request that arrives on a connection later than this after a 401 was sent by a client that knew of the 401."""

PROCESSES_AT_ONCE = 4
"""How many processes may send the same request with one token before each has received its own 401."""


CONNECTION_TEST = ("GET", "/orders", (("page_size", "10"),))
"""A client that asks this without an Authorization header wants to know whether this is FeedAMP, and what time it has."""


def check_url(world: World, call: Call) -> None:
    """Refuses a URL that contains a secret or is too long; recorded examples never contain a value.

    Raises: Refusal 400 or 414.
    """
    parts = [*call.path.split("/"), *(text for pair in call.query for text in pair)]
    if any(world.grants.is_secret(unquote(part)) for part in parts):
        world.rules.note("secret_in_url", f"{call.method} /{call.path.split('/')[1]}")
        raise Refusal(400, ("INVALID_QUERY_PARAM", "the URL contains a secret"))
    if call.url_length > MAX_URL_LENGTH:
        world.rules.note("too_many_order_numbers", f"{call.where}: URL of {call.url_length} characters")
        raise Refusal(414, ("INVALID_QUERY_PARAM", "the URL is too long"))


def check_headers(world: World, call: Call) -> None:
    """Counts secrets in headers, and basic auth."""
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


class DeadTokens:
    """Reads the bearer token, and notices a client that keeps using a token after its 401.

    Requests in flight at that moment break no rule, nor do other processes that have not received a 401 yet. So a
    request counts only if the same request is repeated on its connection, if more than 4 connections send the same
    request, or if its connection received a 401 for this token more than a second ago.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._refused_at: dict[tuple[str, str], float] = {}  # of the first 401, by token and connection
        self._connections: dict[
            tuple[object, ...], list[str]
        ] = {}  # that received a 401, by token and request

    def seller_of(self, call: Call) -> str:
        """The seller the call is made for; raises Refusal 401."""
        scheme, _, token = call.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            request = (call.method, call.path, call.query)
            if "authorization" in call.headers or request != CONNECTION_TEST:
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
        now = self._world.monotonic()
        refused_at = self._refused_at.setdefault((token, call.connection), now)
        connections = self._connections.setdefault((token, call.method, call.path, call.query), [])
        if (
            call.connection in connections
            or len(connections) >= PROCESSES_AT_ONCE
            or now > refused_at + IN_FLIGHT_S
        ):
            self._world.rules.note("dead_access_token_reused", call.where)
        connections.append(call.connection)
