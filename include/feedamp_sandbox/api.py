"""The API below its base URL: checks the caller, routes the call, and answers it."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, timedelta
from email.utils import format_datetime
from urllib.parse import unquote

from feedamp_sandbox import spoil
from feedamp_sandbox.faults import CONTENT_KINDS, INSTEAD_KINDS, LOST_KINDS, Fault
from feedamp_sandbox.headers import DeadTokens, check_headers, check_url
from feedamp_sandbox.listing import list_orders
from feedamp_sandbox.placing import put_order
from feedamp_sandbox.reporting import post_errors
from feedamp_sandbox.token_endpoints import access_token, authorize
from feedamp_sandbox.views import fulfillments_view, order_view
from feedamp_sandbox.wire import Call, Refusal, Reply, pairs
from feedamp_sandbox.world import World

ORDER_PATH = re.compile(r"/orders/(?P<number>[^/]+)(?P<rest>/fulfillments|/errors)?")

TOKEN_PATHS = ("/authorize", "/access_token")

OrderEndpoint = Callable[[World, Call, str, str], Reply]


def get_order(world: World, _call: Call, seller_id: str, number: str) -> Reply:
    """One order, without an envelope (3.2)."""
    return Reply(200, order_view(world.orders.get(seller_id, number), world.options))


def get_fulfillments(world: World, _call: Call, seller_id: str, number: str) -> Reply:
    """The snapshot of shipped and cancelled units (3.4)."""
    return Reply(200, fulfillments_view(world.orders.get(seller_id, number), world.options))


ORDER_ENDPOINTS: dict[tuple[str, str], OrderEndpoint] = {
    ("GET", ""): get_order,
    ("PUT", ""): put_order,
    ("GET", "/fulfillments"): get_fulfillments,
    ("POST", "/errors"): post_errors,
}


@dataclass(slots=True)
class Outcome:
    """An answer, the seller it is for, and the fault that was applied."""

    reply: Reply
    seller_id: str | None = None
    fault: Fault | None = None


class Api:
    """Answers calls, one at a time, under the sandbox's lock."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._dead_tokens = DeadTokens(world)

    def answer(self, call: Call) -> Outcome:
        """The outcome of one call; a refusal is an answer, too."""
        outcome = Outcome(Reply(500))
        with self.world.lock:
            try:
                outcome.reply = self._answer(call, outcome)
            except Refusal as refusal:
                outcome.reply = refusal.reply()
        return outcome

    def _answer(self, call: Call, outcome: Outcome) -> Reply:
        check_url(self.world, call)
        check_headers(self.world, call)
        if call.path in TOKEN_PATHS:
            outcome.seller_id = self._grantor(call)
        else:
            outcome.seller_id = self._dead_tokens.seller_of(call)
            self._limit(call, outcome.seller_id)
        outcome.fault = fault = self.world.faults.take(call, outcome.seller_id)
        if fault and fault.kind in INSTEAD_KINDS:
            # A throttled token call does not oblige clients with a live access token to wait.
            throttled_seller_id = None if call.path in TOKEN_PATHS else outcome.seller_id
            return spoil.instead(fault, self.world, call, throttled_seller_id)
        reply = self._routed(call, outcome.seller_id, fault)
        if fault and fault.kind in (*LOST_KINDS, *CONTENT_KINDS):
            for credential in self._credentials(call):
                self.world.grants.answer_was_lost(credential)
            reply = spoil.spoiled(fault, self.world, call, outcome.seller_id, reply)
        if fault and fault.kind == "clock_apart":
            now = self.world.clock() + timedelta(seconds=fault.seconds)
            reply.headers["Date"] = format_datetime(now.astimezone(UTC), usegmt=True)
        return reply

    def _routed(self, call: Call, seller_id: str | None, fault: Fault | None) -> Reply:
        if (call.method, call.path) == ("GET", "/authorize"):
            return authorize(self.world, call)
        if (call.method, call.path) == ("GET", "/orders") and seller_id:
            return list_orders(self.world, call, seller_id, fault)
        match = ORDER_PATH.fullmatch(call.path)
        endpoint = ORDER_ENDPOINTS.get((call.method, match["rest"] or "")) if match else None
        token_call = (call.method, call.path) == ("POST", "/access_token")
        if call.query and (endpoint or token_call):
            self.world.rules.note("unknown_query_parameter", call.where)
            raise Refusal(400, ("INVALID_QUERY_PARAM", "this call takes no query"))
        if token_call:
            return access_token(self.world, call)
        if match and endpoint and seller_id:
            return endpoint(self.world, call, seller_id, unquote(match["number"]))
        self.world.rules.note("unknown_path", call.where)
        if match or call.path in (*TOKEN_PATHS, "/orders"):
            raise Refusal(405, ("METHOD_NOT_ALLOWED", "the contract has no such method here"))
        raise Refusal(404, ("NOT_FOUND", "the contract has no such path"))

    def _limit(self, call: Call, seller_id: str) -> None:
        wait_s = self.world.limiter.wait_s(seller_id, call.where)
        if wait_s:
            raise Refusal(429, ("TOO_MANY_REQUESTS", "slow down"), headers={"Retry-After": str(wait_s)})

    def _grantor(self, call: Call) -> str | None:
        """The seller that the credential of a token call belongs to; None if unknown."""
        owners = [self.world.grants.owner(credential) for credential in self._credentials(call)]
        return owners[0] if owners else None

    @staticmethod
    def _credentials(call: Call) -> list[str]:
        if call.path != "/access_token":
            return []
        try:
            return [value for name, value in pairs(call.body) if name in ("code", "refresh_token")]
        except Refusal:
            return []
