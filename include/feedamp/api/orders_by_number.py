"""Reads orders by their numbers, and fetches what an item of a list lacks: its fulfillments, or the order itself."""

from collections.abc import Awaitable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import quote

import msgspec

from feedamp.api.client import FeedAmpClient
from feedamp.api.pages import BROKEN, NOT_FOUND, REFUSED, Filters, UnreadableOrder
from feedamp.api.pagination import OrderPages
from feedamp.errors import (
    BrokenAnswerError,
    NotFoundError,
    RejectedError,
    TransientError,
    UnclearError,
    UnreadableError,
)
from feedamp.models import LineFulfillment, Order, ReadOrder
from feedamp.rules.retries import FAILURES_THAT_END_A_SELLER

# At most so many numbers, and so many bytes of them, are in one request.
NUMBERS_PER_REQUEST, QUERY_BYTES = 50, 4096
_SAYS_SETTLED = ("FULFILLED", "CANCELLED")


@dataclass
class ReadOrders:
    """The result of a read by number: each order with the time of its request, numbers that FeedAMP does not have,
    orders that cannot be read, and requests that failed. Numbers that were not asked for are in none of them."""

    orders: list[ReadOrder] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unread: list[UnreadableOrder] = field(default_factory=list)
    failed: list[TransientError] = field(default_factory=list)
    patience: int = FAILURES_THAT_END_A_SELLER

    async def add(self, reading: Awaitable[ReadOrder | UnreadableOrder]) -> None:
        """Adds an order, or why it cannot be read; raises the failure that ends the read."""
        try:
            read = await reading
        except UnclearError as error:
            self.failed.append(error)  # only this order fails
            if len(self.failed) >= self.patience:
                raise
            return
        if isinstance(read, UnreadableOrder):
            self.unread.append(read)
        else:
            self.orders.append(read)


async def with_fulfillments(client: FeedAmpClient, order: Order) -> Order:
    """The order with fulfillments that can be trusted.

    They are read from GET /orders/{n}/fulfillments if the list answer has none in the inferred shape, has none
    although the status says that every unit is accounted for, or does not say who ships the order.

    Raises:
        UnreadableError: the fulfillments cannot be read.
    """
    if is_complete(order):
        return order
    try:
        fulfillments, is_marketplace_fulfilled, extra = await client.get_fulfillments(order.mp_order_number)
    except NotFoundError as error:
        raise UnreadableError("FeedAMP does not find the order's fulfillments.", where=NOT_FOUND) from error
    listed = order.is_marketplace_fulfilled
    return msgspec.structs.replace(
        order,
        fulfillments=fulfillments,
        is_marketplace_fulfilled=is_marketplace_fulfilled if listed is None else listed,
        extra={**order.extra, **extra},
    )


def is_complete(order: Order) -> bool:
    """Whether the fulfillments of an order from a list can be trusted: see `with_fulfillments`."""
    if order.fulfillments is None or order.is_marketplace_fulfilled is None:
        return False
    return order.status not in _SAYS_SETTLED or _has_units(order.fulfillments)


def _has_units(fulfillments: Iterable[LineFulfillment]) -> bool:
    for entry in fulfillments:
        for parts in (entry.shipments, entry.cancellations):
            for part in parts:
                if part.quantity is not None and part.quantity > 0:
                    return True
    return False


async def fetch_complete(
    client: FeedAmpClient, item: Order | UnreadableOrder, listed_at: datetime
) -> ReadOrder | UnreadableOrder:
    """A page's item as a complete order; an unreadable order is requested again by its number (promise 12).

    `listed_at` is when the page was requested. Returns the item if it stays unreadable.
    """
    if isinstance(item, UnreadableOrder):
        return await fetch_again(client, item)
    try:
        return ReadOrder(await with_fulfillments(client, item), listed_at)
    except (UnreadableError, BrokenAnswerError) as error:
        where = error.where if isinstance(error, UnreadableError) else BROKEN
        return await fetch_again(client, UnreadableOrder(item.mp_order_number, where))


async def fetch_again(client: FeedAmpClient, item: UnreadableOrder) -> ReadOrder | UnreadableOrder:
    """The complete order, requested by its number; unreadable if FeedAMP does not have it either."""
    if item.mp_order_number is None:
        return item
    try:
        return await read_alone(client, item.mp_order_number)
    except NotFoundError:
        return UnreadableOrder(item.mp_order_number, NOT_FOUND)


async def read_alone(client: FeedAmpClient, number: str) -> ReadOrder | UnreadableOrder:
    """One order from GET /orders/{n}, complete with its fulfillments, and when it was requested; or why it is unreadable.

    Raises:
        NotFoundError: FeedAMP does not have it.
    """
    try:
        order, read_at = await client.get_order(number)
        return ReadOrder(await with_fulfillments(client, order), read_at)
    except UnreadableError as error:
        return UnreadableOrder(number, error.where)
    except BrokenAnswerError:
        return UnreadableOrder(number, BROKEN)
    except NotFoundError:
        raise
    except RejectedError:
        return UnreadableOrder(number, REFUSED)


async def read_by_number(
    client: FeedAmpClient, numbers: Sequence[str], *, patience: int = FAILURES_THAT_END_A_SELLER
) -> ReadOrders:
    """Orders by number, at most 50 numbers or 4 KB of query per request; a list that FeedAMP refuses is halved.

    A number that a list answer lacks is requested alone before it counts as missing. Once `patience` such requests have
    failed, nothing more is asked for.

    Raises:
        TransientError: a list could not be read.
    """
    result = ReadOrders(patience=patience)
    try:
        await _read(client, list(dict.fromkeys(numbers)), result)
    except UnclearError as error:
        if error not in result.failed:
            raise
    return result


async def _read(client: FeedAmpClient, numbers: list[str], result: ReadOrders) -> None:
    found: set[str] = set()
    alone = [number for number in numbers if "," in number]
    for chunk in chunks_of_numbers([number for number in numbers if "," not in number]):
        await _read_chunk(client, chunk, result, found)
    for number in (*alone, *(n for n in numbers if n not in found and n not in alone)):
        if number in found:
            continue
        try:
            await result.add(read_alone(client, number))
        except NotFoundError:
            result.missing.append(number)


async def _read_chunk(client: FeedAmpClient, chunk: list[str], result: ReadOrders, found: set[str]) -> None:
    wanted = set(chunk)
    sweep = OrderPages(client, Filters(mp_order_numbers=tuple(chunk)))
    try:
        async for page in sweep.pages():
            shown: dict[str | None, Order | UnreadableOrder] = {}
            unclear = {
                item.mp_order_number
                for item in page.items
                if shown.setdefault(item.mp_order_number, item) != item
            }
            for item in page.items:
                number = item.mp_order_number
                if number not in wanted or number in found or number in unclear:
                    continue  # FeedAMP ignored the filter, or the order is on two pages; with two contents, it is read alone
                found.add(number)
                await result.add(fetch_complete(client, item, page.read_at))
    except RejectedError as error:
        if error.status not in (400, 414) or len(chunk) == 1:
            if error.status in (400, 414):
                return  # the caller requests it alone
            raise
        middle = len(chunk) // 2
        for half in (chunk[:middle], chunk[middle:]):
            await _read_chunk(client, [number for number in half if number not in found], result, found)


def chunks_of_numbers(numbers: Iterable[str], *, at_most: int = NUMBERS_PER_REQUEST) -> Iterator[list[str]]:
    """The numbers in chunks that fit one request, of `at_most` so many."""
    at_most = min(at_most, NUMBERS_PER_REQUEST)
    chunk: list[str] = []
    size = 0
    for number in numbers:
        length = len(quote(number, safe="")) + 1
        if chunk and (len(chunk) == at_most or size + length > QUERY_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(number)
        size += length
    if chunk:
        yield chunk
