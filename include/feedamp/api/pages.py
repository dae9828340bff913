"""GET /orders as values: the filters of a request and the content of a page."""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from urllib.parse import quote

from feedamp.models import Order

NOT_FOUND, REFUSED, BROKEN = "not found", "refused", "broken"
_WHY = {
    NOT_FOUND: "FeedAMP lists it, but does not find it when asked for it alone",
    REFUSED: "FeedAMP lists it, but refuses the request for it alone",
    BROKEN: "FeedAMP's answer is not JSON, or is too large",
}
SMALLEST_PAGE = 10  # contract 3.1
UNREADABLE_CURSOR = ""
"""In place of a next cursor of unknown shape: there may be more pages, which cannot be asked for."""


@dataclass(frozen=True)
class UnreadableOrder:
    """An item that could not be read; `mp_order_number` is None when not even that was readable."""

    mp_order_number: str | None
    where: str | None

    @property
    def sentence(self) -> str:
        """The sentence for logs and failures."""
        number = self.mp_order_number or "(no number)"
        shape = f"FeedAMP's answer has an unexpected shape at {self.where or 'the top'}"
        return f"order {number} cannot be read: {_WHY.get(self.where or '', shape)}"


@dataclass(frozen=True)
class OrderPage:
    """One page of GET /orders. `read_at` is when the request was sent, by the state database's clock; `size` in bytes.

    `next_cursor` may be `UNREADABLE_CURSOR`; None: it is the last page.
    """

    orders: tuple[Order, ...]
    unread: tuple[UnreadableOrder, ...]
    next_cursor: str | None
    read_at: datetime
    server_time: datetime | None
    was_null: bool = False
    size: int = 0

    @property
    def items(self) -> tuple[Order | UnreadableOrder, ...]:
        return (*self.orders, *self.unread)


@dataclass(frozen=True)
class Filters:
    """Filters of GET /orders (contract 3.1); repeated with every cursor."""

    seller_updated_after: datetime | None = None
    imported_after: datetime | None = None
    mp_order_numbers: tuple[str, ...] = ()
    has_errors: bool | None = None
    page_size: int = 50

    def query(self, cursor: str | None) -> str:
        """The query string; a time always carries its Z, a list is one comma-separated value."""
        return (
            self._of_all_pages if cursor is None else f"{self._of_all_pages}&cursor={quote(cursor, safe='')}"
        )

    @cached_property
    def _of_all_pages(self) -> str:
        parts = [f"page_size={self.page_size}"]
        for name in ("seller_updated_after", "imported_after"):
            moment: datetime | None = getattr(self, name)
            if moment is not None:
                parts.append(f"{name}={moment.astimezone(UTC).isoformat()[:19]}Z")
        if self.mp_order_numbers:
            parts.append("mp_order_numbers=" + ",".join(quote(n, safe="") for n in self.mp_order_numbers))
        if self.has_errors is not None:
            parts.append(f"has_errors={'true' if self.has_errors else 'false'}")
        return "&".join(parts)
