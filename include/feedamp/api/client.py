"""One method per order endpoint of the contract (section 3), for one seller; every request carries a live token.

Every request first waits for a slot of the rate limiter. Requests are repeated here only where that is safe: GET and
PUT after a throttle, a 5xx or a lost answer; POST after a throttle; any request once after a 401, with a newer token.
If the answer to a POST is lost, `UnclearError` is raised: read the order before repeating the POST (contract 7.5).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from itertools import count
from typing import Any
from urllib.parse import quote

from multidict import CIMultiDict

from feedamp.api.bad_answers import raise_for_status, without
from feedamp.api.clock_check import ClockCheck
from feedamp.api.decoding import cursor_of, number_of, read_fulfillments, read_order, read_page, salvage_page
from feedamp.api.json_fields import Coercions
from feedamp.api.pages import BROKEN, SMALLEST_PAGE, Filters, OrderPage, UnreadableOrder
from feedamp.api.rate_limit import QUICK_RETRIES, Departure, RateLimiter, Sleep, quick_pause_s
from feedamp.api.tokens import Token, Tokens
from feedamp.api.transport import MAX_BODY_BYTES, Answer, Transport
from feedamp.codec import decode_json, encode, encode_body
from feedamp.errors import (
    AuthorizationError,
    BrokenAnswerError,
    BusyError,
    FeedAmpError,
    PausedError,
    RejectedError,
    StaleReadError,
    ThrottledError,
    TransientError,
    UnclearError,
    UnreadableError,
)
from feedamp.models import ErrorReport, LineFulfillment, Order, ReadOrder
from feedamp.rules.cancelling import STILL_FRESH_S, is_fresh

Check = Callable[[], None]
OnCursor = Callable[[str], Awaitable[None]]
LONGEST_QUICK_WAIT_S = 20.0
# Larger answers are not decoded: the decoded values need about twenty times as much memory.
PAGE_BYTES, ORDER_BYTES = 8 << 20, 16 << 20
_JSON = {"Content-Type": "application/json"}
_NOT_DONE = (*(RejectedError, AuthorizationError, PausedError), *(ThrottledError, BusyError, StaleReadError))


def no_check() -> None:
    """Lets every request be sent."""


@dataclass(frozen=True)
class Request:
    """A request to be sent with the seller's token; `path` is below the base URL and encoded, with the query.

    `timeout_s` and `max_bytes`: as for `Transport.send`. `decode` raises `UnreadableError`. `right_after`, `waiting_since` and
    `before_sending`: as for `put_order`.
    What `smaller` makes is sent instead of a repeat after a broken answer. `on_leaving` is called each time it was sent, and
    `before_decoding` with the body of a 2xx answer.
    """

    method: str
    path: str
    body: bytes | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout_s: float | None = None
    max_bytes: int | None = None
    decode: Callable[[bytes], Any] | None = None
    right_after: datetime | None = None
    waiting_since: datetime | None = None
    before_sending: Check = no_check
    smaller: Callable[[], Request] | None = None
    on_leaving: Check | None = None
    before_decoding: Callable[[bytes], Awaitable[None]] | None = None


@dataclass(frozen=True)
class Reply:
    """A 2xx answer, when its request was sent, and what `Request.decode` made of its body."""

    answer: Answer
    sent_at: datetime
    value: Any


@dataclass
class Counts:
    """Counts of pages, requests and coercions; shared by the clients of one step."""

    pages: int = 0
    requests: Counter[str] = field(default_factory=Counter)  # by seller
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
        clock: ClockCheck,
        now: Callable[[], datetime],
        sleep: Sleep,
        counts: Counts,
        to_compare: bool = False,
    ) -> None:
        self.seller_id = seller_id
        self._clock = clock
        self._to_compare = to_compare  # used to check a new grant's account; see `account_check`
        self.counts = counts
        self._transport = transport
        self._tokens = tokens
        self._rate_limiter = rate_limiter
        self._now = now
        self._sleep = sleep

    def requests_in(self, seconds: float) -> int:
        """How many requests leave within so many seconds, if no other work has any; at least one."""
        return self._rate_limiter.requests_in(seconds)

    async def list_orders(
        self,
        filters: Filters,
        cursor: str | None = None,
        *,
        on_leaving: Check | None = None,
        on_cursor: OnCursor | None = None,
    ) -> OrderPage:
        """One page (contract 3.1). Raises as `_ask` does; a 400 is `RejectedError`.

        A page that is too large or not JSON is requested again with half as many orders, down to ten. If that one is broken
        too, its orders are unreadable, so that the caller requests them one by one.

        `on_leaving` is called when a request was sent, and `on_cursor` with the next cursor before the orders of a page are
        decoded, where it can be told by then; another page may be returned than that one.

        Raises:
            BrokenAnswerError: no page could be read, and the last one does not even show its orders' numbers.
        """

        async def tell_cursor(body: bytes) -> None:
            if on_cursor is not None and (found := cursor_of(body)) is not None:
                await on_cursor(found)

        before_decoding = None if on_cursor is None else tell_cursor
        reply = await self._ask(self._list_request(filters, cursor, on_leaving, before_decoding))
        items, next_cursor, numbers = reply.value
        orders: list[Order] = []
        unread = [UnreadableOrder(number, BROKEN) for number in numbers]
        self.counts.pages += 1
        for item in items or ():
            try:
                order = read_order(item, self.counts.coercions)
                if "\ufffd" in order.mp_order_number:  # two numbers with other characters there would be one
                    raise UnreadableError("The order's number is broken.", where="mp_order_number")
                orders.append(order)
            except UnreadableError as error:
                unread.append(UnreadableOrder(number_of(item), error.where))
        return OrderPage(
            tuple(orders),
            tuple(unread),
            next_cursor,
            reply.sent_at,
            reply.answer.server_time,
            was_null=items is None,
            size=len(reply.answer.body),
        )

    def _list_request(
        self,
        filters: Filters,
        cursor: str | None,
        on_leaving: Check | None = None,
        before_decoding: Callable[[bytes], Awaitable[None]] | None = None,
    ) -> Request:
        is_smallest = filters.page_size <= SMALLEST_PAGE

        def half() -> Request:
            size = max(SMALLEST_PAGE, filters.page_size // 2)
            return self._list_request(replace(filters, page_size=size), cursor)

        return Request(
            "GET",
            f"/orders?{filters.query(cursor)}",
            max_bytes=MAX_BODY_BYTES if is_smallest else PAGE_BYTES,
            decode=partial(self._page, salvages=is_smallest),
            smaller=None if is_smallest else half,
            on_leaving=on_leaving,
            before_decoding=before_decoding,
        )

    def _page(self, body: bytes, *, salvages: bool) -> tuple[Sequence[Any] | None, str | None, list[str]]:
        """The items of a page, None if they are null, its next cursor, and the numbers of orders of a broken page."""
        try:
            if salvages and len(body) > PAGE_BYTES:
                raise UnreadableError("The page is too large.")
            items, cursor = read_page(body, self.counts.coercions)
            return items, cursor, []
        except UnreadableError:
            if not salvages:
                raise
        numbers, cursor = salvage_page(body)
        return [], cursor, numbers

    async def get_order(self, mp_order_number: str) -> ReadOrder:
        """One order (contract 3.2) and when the request was sent.

        Raises:
            NotFoundError: FeedAMP does not know it for this seller.
            UnreadableError: the answer does not have the shape of the contract.
        """
        reply = await self._ask(
            Request("GET", _path(mp_order_number), max_bytes=ORDER_BYTES, decode=self._json)
        )
        order = read_order(reply.value, self.counts.coercions)
        if order.mp_order_number != mp_order_number:
            raise UnreadableError("FeedAMP answered with another order.", where="mp_order_number")
        return ReadOrder(order, reply.sent_at)

    async def get_fulfillments(
        self, mp_order_number: str
    ) -> tuple[tuple[LineFulfillment, ...], bool | None, dict[str, Any]]:
        """GET /orders/{n}/fulfillments (contract 3.4); raises as `get_order`."""
        path = _path(mp_order_number) + "/fulfillments"
        reply = await self._ask(Request("GET", path, max_bytes=ORDER_BYTES, decode=self._json))
        return read_fulfillments(reply.value, self.counts.coercions)

    async def put_order(
        self,
        mp_order_number: str,
        body: dict[str, Any],
        *,
        right_after: datetime | None = None,
        waiting_since: datetime | None = None,
        before_sending: Check = no_check,
    ) -> datetime:
        """Creates or updates the order (contract 3.3); returns when the accepted request was sent.

        `right_after` is the time of the read on which the change was decided. If it is given, the request is sent
        within `STILL_FRESH_S` seconds of that read or not at all, and is repeated only once, after a 401. After
        `waiting_since`, it is sent within as many seconds or not at all, until one may have arrived: that is repeated as usual.
        `before_sending` is called immediately before each request and raises `BusyError` if it must not be sent. Safe
        to repeat: FeedAMP identifies the order by its number (contract 7.5).

        Raises:
            RejectedError: FeedAMP refuses the body permanently.
            StaleReadError: the read is too old; nothing was sent.
            TransientError: the request did not succeed and can be repeated.
            FeedAmpError: each says by `may_have_arrived` whether FeedAMP may have done it.
        """
        request = Request(
            "PUT",
            _path(mp_order_number),
            encode_body(body),
            _JSON,
            right_after=right_after,
            waiting_since=waiting_since,
            before_sending=before_sending,
        )
        return (await self._ask(request)).sent_at

    async def post_errors(
        self, mp_order_number: str, reports: Sequence[ErrorReport], *, before_sending: Check = no_check
    ) -> datetime:
        """Reports errors (contract 3.5); returns when the request was sent. `before_sending` is as for `put_order`.

        Raises:
            UnclearError: the answer was lost; read the order before repeating.
        """
        path, body = _path(mp_order_number) + "/errors", encode(list(reports))
        return (await self._ask(Request("POST", path, body, _JSON, before_sending=before_sending))).sent_at

    async def _ask(self, request: Request) -> Reply:
        """A 2xx answer.

        Raises:
            ThrottledError, UnclearError, TransientError: after the quick retries that are safe.
            AuthorizationError: the grant is refused, or FeedAMP answered 401 to a newer token as well.
            RejectedError, NotFoundError: 4xx.
        """
        may_have_arrived = False
        for attempt in count():
            try:
                return await self._ask_once(request)
            except FeedAmpError as error:
                may_have_arrived = error.may_have_arrived = may_have_arrived or not _is_not_done(error)
                # A busy order is another process's, which alone can end that; a stale read can only be repeated.
                if not isinstance(error, TransientError) or isinstance(error, BusyError | StaleReadError):
                    raise
                smaller = request.smaller if isinstance(error, BrokenAnswerError) else None
                safe = isinstance(error, ThrottledError) or request.method != "POST"
                safe = safe and not (isinstance(error, BrokenAnswerError) and error.is_too_large)
                safe = safe and request.right_after is None
                is_over = attempt >= QUICK_RETRIES or not safe
                # A moment that is over, as one of 0 s, is no reason to ask again without a pause.
                wait_s = error.retry_after_s or quick_pause_s(min(attempt, QUICK_RETRIES))
                if (is_over and smaller is None) or wait_s > LONGEST_QUICK_WAIT_S:
                    error.seller_id = self.seller_id
                    raise
                if may_have_arrived:
                    request = replace(request, waiting_since=None)
                request = smaller() if smaller else request
                await self._sleep(wait_s)
        raise AssertionError("unreachable")  # pragma: no cover

    async def _ask_once(self, request: Request) -> Reply:
        answer, sent_at = await self.exchange(request)
        if not 200 <= answer.status < 300:
            raise_for_status(answer, request.method, now=self._now(), seller_id=self.seller_id)
        # The bodies of answers to PUT and POST are not documented (Q7) and are ignored.
        if request.decode is None:
            return Reply(answer, sent_at, None)
        if request.before_decoding is not None:
            await request.before_decoding(answer.body)
        try:
            return Reply(answer, sent_at, request.decode(answer.body))
        except UnreadableError as error:
            # A 2xx with a broken body counts as a lost answer, not as an empty success.
            raise BrokenAnswerError(
                "FeedAMP answered 2xx with a broken body.", seller_id=self.seller_id
            ) from error

    async def exchange(self, request: Request) -> tuple[Answer, datetime]:
        """The answer of any status to one request, and when that was sent. After a 401 it is sent once more.

        A `Retry-After` pauses the seller in all processes. The token is in no answer, and what is called a token in none but 2xx.

        Raises:
            AuthorizationError: the grant is refused.
            ThrottledError: FeedAMP asked for a long pause for this seller before; nothing was sent.
            TransientError: FeedAMP cannot be reached, or the token call failed.
            UnclearError: the answer was lost.
            ConfigurationError: the clock is refused.
        """
        answer, sent_at, token = await self._send(request, await self._token())
        if answer.status == 401:
            # A 401 means that nothing was done, so even a POST can be repeated with a newer token.
            answer, sent_at, token = await self._send(request, await self._token(stale=token))
            if answer.status == 401:
                self._tokens.disowned(self.seller_id, token)
        if "Retry-After" in answer.headers and (pause_s := answer.retry_after_s(self._now())) is not None:
            self._rate_limiter.pause(self.seller_id, pause_s)
        answer = _without_token(answer, token.value)
        if 200 <= answer.status < 300:
            self._tokens.accepted(self.seller_id)
            return answer, sent_at
        return replace(answer, body=without(answer.body, token.value)), sent_at

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

    async def _send(self, request: Request, token: Token) -> tuple[Answer, datetime, Token]:
        """The answer, when the request was sent, and the token it carried: `token`, or a newer one obtained meanwhile."""
        while True:
            is_urgent = request.right_after is not None
            room = self._transport.room
            async with self._rate_limiter.leaving(self.seller_id, room, is_urgent=is_urgent) as left:
                # Meanwhile another request may have received a 401 for this token (contract 7.7). While the token is
                # being refreshed, the request slot is given up: otherwise all requests that wait for the refresh would
                # be sent at the same moment.
                newest = self._tokens.newest(self.seller_id)
                if newest is not None:
                    if newest.version != token.version:
                        token = newest
                    sent_at = self._now()
                    since = request.right_after or request.waiting_since
                    if since is not None and not is_fresh(since, sent_at=sent_at):
                        raise StaleReadError(
                            f"The order was read more than {STILL_FRESH_S:.0f} s before its change could be sent.",
                            seller_id=self.seller_id,
                        )
                    request.before_sending()
                    self.counts.requests[self.seller_id] += 1

                    def has_left(moment: float, left: Departure = left) -> None:
                        left(moment)
                        if request.on_leaving is not None:
                            request.on_leaving()

                    answer = await self._transport.send(
                        request.method,
                        request.path,
                        headers={**request.headers, "Authorization": f"Bearer {token.value}"},
                        body=request.body,
                        timeout_s=request.timeout_s,
                        max_bytes=request.max_bytes,
                        before_leaving=left.require_prompt,
                        on_leaving=has_left,
                        tell_at_once=left.tell_at_once if request.on_leaving is None else None,
                        in_room=True,
                    )
                    self._clock.raise_if_refused()
                    return answer, sent_at, token
            token = await self._token()

    def _json(self, body: bytes) -> Any:
        return decode_json(body, self.counts.coercions)


def _is_not_done(error: FeedAmpError) -> bool:
    """Whether an attempt that failed so has done nothing at FeedAMP. The state may fail after an answer as well."""
    return type(error) is TransientError or isinstance(error, _NOT_DONE)


def _without_token(answer: Answer, token: str) -> Answer:
    """An answer that does not repeat the token of its request, neither in a header nor in the body."""
    if token.encode() in answer.body:
        answer = replace(answer, body=answer.body.replace(token.encode(), b"***"))
    if token in "\n".join(answer.headers.values()):
        headers = [(name, value.replace(token, "***")) for name, value in answer.headers.items()]
        answer = replace(answer, headers=CIMultiDict(headers))
    return answer


def _path(mp_order_number: str) -> str:
    # Proxies would remove "." and ".." as path segments, so the dots of a number without other characters are encoded.
    encoded = quote(mp_order_number, safe="")
    return "/orders/" + (encoded.replace(".", "%2E") if encoded.strip(".") == "" else encoded)
