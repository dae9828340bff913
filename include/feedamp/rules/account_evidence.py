"""PURE: decides whether an order in an account is a known order. The number alone proves nothing: two sellers may both
have an order 1001."""

from dataclasses import dataclass
from datetime import datetime

from feedamp.codec import content_hash
from feedamp.models import Order


@dataclass(frozen=True)
class KnownOrder:
    """An order of the ledger that FeedAMP has accepted for a seller; `lines`: SKU by `mp_line_number`."""

    seller_id: str
    mp_order_number: str
    purchase_date: datetime
    lines: dict[str, str | None]
    placed_at: datetime


def contradicts(shown: Order, known: KnownOrder) -> bool:
    """Whether an order that has the number of a known order is a different one: purchase date, lines or a SKU differ.

    Fields that FeedAMP does not show are not compared. Purchase dates are compared to the second, as they are sent.
    """
    if shown.purchase_date is not None and _second(shown.purchase_date) != _second(known.purchase_date):
        return True
    if not shown.order_lines:
        return False
    lines = {line.mp_line_number: line.sku for line in shown.order_lines}
    return lines.keys() != known.lines.keys() or any(
        None not in (sku, known.lines[number]) and sku != known.lines[number] for number, sku in lines.items()
    )


def proves(shown: Order, known: KnownOrder) -> bool:
    """Whether the order is certainly the known one: FeedAMP shows purchase date and lines, and all of them agree."""
    return shown.purchase_date is not None and bool(shown.order_lines) and not contradicts(shown, known)


def mark(shown: Order) -> str | None:
    """A digest that identifies the order in another seller's account; None if FeedAMP does not show enough of it."""
    if shown.purchase_date is None or not shown.order_lines:
        return None
    lines = sorted((line.mp_line_number, line.sku or "") for line in shown.order_lines)
    return content_hash([shown.mp_order_number, _second(shown.purchase_date), lines])


def _second(moment: datetime) -> datetime:
    return moment.replace(microsecond=0)
