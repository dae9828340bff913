"""One method per order endpoint of the contract (section 3), for one seller; every request carries a live token.

Every request first waits for a slot of the rate limiter. Requests are repeated here only where that is safe: GET and
PUT after a throttle, a 5xx or a lost answer; POST after a throttle; any request once after a 401, with a newer token.
If the answer to a POST is lost, `UnclearError` is raised: read the order before repeating the POST (contract 7.5).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import quote

from feedamp.api.clock_check import ClockCheck
from feedamp.api.decoding import (
    number_of,
    read_fulfillments,
    read_order,
)
from feedamp.api.error_bodies import refusal_reasons
from feedamp.api.json_fields import Coercions
from feedamp.api.pages import (
    Filters,
    OrderPage,
    UnreadableOrder,
)
from feedamp.api.rate_limit import QUICK_RETRIES, RateLimiter, Sleep, quick_pause_s
from feedamp.api.tokens import Token, Tokens
from feedamp.api.transport import Answer, Transport
from feedamp.codec import decode_json, encode, encode_body
from feedamp.errors import (
    AuthorizationError,
    BusyError,
    NotFoundError,
    RejectedError,
    StaleReadError,
    ThrottledError,
    TransientError,
    UnclearError,
    UnreadableError,
)
from feedamp.models import (
    ErrorReport,
    LineFulfillment,
    Order,
)
from feedamp.rules.cancelling import STILL_FRESH_S, is_fresh

Check = Callable[[], None]
LONGEST_QUICK_WAIT_S = 20.0


def no_check() -> None:
    """Lets every request be sent."""


@dataclass(frozen=True)
class Reply:
    """A 2xx answer, when its request was sent, and the decoded body of a GET."""

    answer: Answer
    sent_at: datetime
    value: Any


@dataclass
class Counts:
    """Counts of pages, requests and coercions; shared by the clients of one step."""

    pages: int = 0
    requests: int = 0
    coercions: Coercions = field(default_factory=Coercions)


class FeedAmpClient:
    """The API for one seller."""

    def __init__(
        self,
        seller_id: str,
        *,
        transport: Transport,
        tokens: Tokens,
        rate_limiter: RateLimiter,
        now: Callable[[], datetime],
        sleep: Sleep,
        counts: Counts | None = None,
        to_compare: bool = False,
        clock: ClockCheck | None = None,
    ) -> None:
        self.seller_id = seller_id
        self._clock = clock
        self._to_compare = to_compare  # used to check a new grant's account; see `account_check`
        self.counts = counts or Counts()
        self._transport = transport
        self._tokens = tokens
        self._rate_limiter = rate_limiter
        self._now = now
        self._sleep = sleep

    async def list_orders(self, filters: Filters, cursor: str | None = None) -> OrderPage:
        """One page (contract 3.1). Raises as `_ask` does; a 400 is `RejectedError`."""
        reply = await self._ask("GET", f"/orders?{filters.query(cursor)}")
        body = reply.value
        if not isinstance(body, dict) or "orders" not in body:
            raise UnclearError(
                "GET /orders answered with something that is not a page.", seller_id=self.seller_id
            )
        items = body["orders"]
        if items is not None and not isinstance(items, list):
            raise UnclearError(
                "GET /orders answered with something that is not a page.", seller_id=self.seller_id
            )
        next_cursor = body.get("next_cursor")
        if next_cursor is not None and not isinstance(next_cursor, str):
            raise UnclearError(
                "GET /orders answered with a cursor that is not text.", seller_id=self.seller_id
            )
        self.counts.pages += 1
        orders: list[Order] = []
        unread: list[UnreadableOrder] = []
        for item in items or ():
            try:
                orders.append(read_order(item, self.counts.coercions))
            except UnreadableError as error:
                unread.append(UnreadableOrder(number_of(item), error.where))
        return OrderPage(
            tuple(orders),
            tuple(unread),
            next_cursor or None,
            reply.sent_at,
            reply.answer.server_time,
            items is None,
        )

    async def get_order(self, mp_order_number: str) -> tuple[Order, datetime]:
        """One order (contract 3.2) and when the request was sent.

        Raises:
            NotFoundError: FeedAMP does not know it for this seller.
            UnreadableError: the answer does not have the shape of the contract.
        """
        reply = await self._ask("GET", _path(mp_order_number))
        order = read_order(reply.value, self.counts.coercions)
        if order.mp_order_number != mp_order_number:
            raise UnreadableError("FeedAMP answered with another order.", where="mp_order_number")
        return order, reply.sent_at

    async def get_fulfillments(
        self, mp_order_number: str
    ) -> tuple[tuple[LineFulfillment, ...], bool | None, dict[str, Any]]:
        """GET /orders/{n}/fulfillments (contract 3.4); raises as `get_order`."""
        reply = await self._ask("GET", _path(mp_order_number) + "/fulfillments")
        return read_fulfillments(reply.value, self.counts.coercions)

    async def put_order(
        self,
        mp_order_number: str,
        body: dict[str, Any],
        *,
        right_after: datetime | None = None,
        before_sending: Check = no_check,
    ) -> datetime:
        """Creates or updates the order (contract 3.3); returns when the accepted request was sent.

        `right_after` is the time of the read on which the change was decided. If it is given, the request is sent
        within `STILL_FRESH_S` seconds of that read or not at all, and is repeated only once, after a 401.
        `before_sending` is called immediately before each request and raises `BusyError` if it must not be sent. Safe
        to repeat: FeedAMP identifies the order by its number (contract 7.5).

        Raises:
            RejectedError: FeedAMP refuses the body permanently.
            StaleReadError: the read is too old; nothing was sent.
            TransientError: the request did not succeed and can be repeated.
        """
        path, encoded = _path(mp_order_number), encode_body(body)
        if right_after is None:
            return (await self._ask("PUT", path, json_body=encoded, before_sending=before_sending)).sent_at
        reply = await self._ask_once(
            "PUT", path, encoded, right_after=right_after, before_sending=before_sending
        )
        return reply.sent_at

    async def post_errors(
        self, mp_order_number: str, reports: Sequence[ErrorReport], *, before_sending: Check = no_check
    ) -> datetime:
        """Reports errors (contract 3.5); returns when the request was sent. `before_sending` is as for `put_order`.

        Raises:
            UnclearError: the answer was lost; read the order before repeating.
        """
        path = _path(mp_order_number) + "/errors"
        body = encode(list(reports))
        return (await self._ask("POST", path, json_body=body, before_sending=before_sending)).sent_at

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        json_body: bytes | None = None,
        before_sending: Check = no_check,
    ) -> Reply:
        """A 2xx answer; the body is decoded only for a GET.

        Raises:
            ThrottledError, UnclearError, TransientError: after the quick retries that are safe.
            AuthorizationError: the grant is refused, or FeedAMP answered 401 to a newer token as well.
            RejectedError, NotFoundError: 4xx.
        """
        for attempt in range(QUICK_RETRIES + 1):
            try:
                return await self._ask_once(method, path, json_body, before_sending=before_sending)
            except BusyError:
                raise  # only the other process can end this
            except TransientError as error:
                safe = isinstance(error, ThrottledError) or method != "POST"
                wait_s = error.retry_after_s
                if wait_s is None:
                    wait_s = quick_pause_s(attempt)
                elif error.status is not None:  # FeedAMP sent Retry-After, with a 429 or a 5xx
                    self._rate_limiter.pause(self.seller_id, wait_s)
                if not safe or attempt == QUICK_RETRIES or wait_s > LONGEST_QUICK_WAIT_S:
                    error.seller_id = self.seller_id
                    raise
                await self._sleep(wait_s)
        raise AssertionError("unreachable")  # pragma: no cover

    async def _ask_once(
        self,
        method: str,
        path: str,
        json_body: bytes | None,
        *,
        right_after: datetime | None = None,
        before_sending: Check = no_check,
    ) -> Reply:
        checks = (right_after, before_sending)
        answer, sent_at, token = await self._send(method, path, json_body, await self._token(), *checks)
        if answer.status == 401:
            # A 401 means that nothing was done, so even a POST can be repeated with a newer token.
            newer = await self._token(stale=token)
            answer, sent_at, token = await self._send(method, path, json_body, newer, *checks)
            if answer.status == 401:
                self._tokens.disowned(self.seller_id, token)
        self._raise_for(method, answer, token)
        self._tokens.accepted(self.seller_id)
        # The bodies of answers to PUT and POST are not documented (Q7) and are ignored.
        return Reply(answer, sent_at, self._json(answer) if method == "GET" else None)

    async def _token(self, stale: Token | None = None) -> Token:
        """A live token; if `stale` is given, a newer one.

        Raises:
            TransientError: the token call failed. Raised even where that call was rejected or its answer was lost,
                because the request for the order was never sent.
        """
        try:
            if stale is None:
                return await self._tokens.live(self.seller_id, to_compare=self._to_compare)
            return await self._tokens.replace(self.seller_id, stale, to_compare=self._to_compare)
        except RejectedError as error:
            raise TransientError(error.message, seller_id=self.seller_id) from error
        except UnclearError as error:
            raise TransientError(
                error.message,
                retry_after_s=error.retry_after_s,
                status=error.status,
                seller_id=self.seller_id,
            ) from error

    async def _send(
        self,
        method: str,
        path: str,
        json_body: bytes | None,
        token: Token,
        right_after: datetime | None,
        before_sending: Check,
    ) -> tuple[Answer, datetime, Token]:
        """The answer, when the request was sent, and the token it carried: `token`, or a newer one obtained meanwhile."""
        while True:
            async with self._rate_limiter.leaving(self.seller_id, self._transport.room) as left:
                # Meanwhile another request may have received a 401 for this token (contract 7.7). While the token is
                # being refreshed, the request slot is given up: otherwise all requests that wait for the refresh would
                # be sent at the same moment.
                newest = self._tokens.newest(self.seller_id)
                if newest is not None:
                    if newest.generation > token.generation:
                        token = newest
                    sent_at = self._now()
                    if right_after is not None and not is_fresh(right_after, sent_at=sent_at):
                        raise StaleReadError(
                            f"The order was read more than {STILL_FRESH_S:.0f} s before its change could be sent.",
                            seller_id=self.seller_id,
                        )
                    before_sending()
                    self.counts.requests += 1
                    answer = await self._transport.send_in_room(
                        method,
                        path,
                        headers={"Authorization": f"Bearer {token.value}"},
                        json_body=json_body,
                        on_leaving=left,
                    )
                    if self._clock is not None:
                        self._clock.raise_if_refused()
                    return answer, sent_at, token
            token = await self._token()

    def _raise_for(self, method: str, answer: Answer, token: Token) -> None:
        status = answer.status
        if 200 <= status < 300:
            return
        if status == 401:
            raise AuthorizationError(
                "FeedAMP refuses a token it has just given; the seller must authorize again.",
                seller_id=self.seller_id,
            )
        if status == 429:
            raise ThrottledError(
                "FeedAMP answered 429.",
                retry_after_s=answer.retry_after_s(self._now()),
                status=429,
                seller_id=self.seller_id,
            )
        if status >= 500 or status == 408:
            raise UnclearError(
                f"FeedAMP answered {status}.",
                retry_after_s=answer.retry_after_s(self._now()),
                status=status,
                seller_id=self.seller_id,
            )
        kind = NotFoundError if status == 404 else RejectedError
        raise kind(
            f"FeedAMP answered {method} with {status}.",
            status=status,
            reasons=refusal_reasons(answer.body, secret=token.value),
            seller_id=self.seller_id,
        )

    def _json(self, answer: Answer) -> Any:
        """The body as JSON; a 2xx with a broken body counts as a lost answer, not as an empty success."""
        try:
            return decode_json(answer.body)
        except UnreadableError as error:
            raise UnclearError(
                "FeedAMP answered 2xx with a broken body.", seller_id=self.seller_id
            ) from error


def _path(mp_order_number: str) -> str:
    # Proxies would remove "." and ".." as path segments, so the dots of a number without other characters are encoded.
    encoded = quote(mp_order_number, safe="")
    return "/orders/" + (encoded.replace(".", "%2E") if encoded.strip(".") == "" else encoded)
