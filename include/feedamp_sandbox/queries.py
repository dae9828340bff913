"""The query parameters of GET /orders, read as strictly as the contract allows (3.1, 7.2)."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NoReturn
from zoneinfo import ZoneInfo

from feedamp_sandbox.orders import StoredOrder
from feedamp_sandbox.wire import Call, Refusal
from feedamp_sandbox.world import World

NEW_YORK = ZoneInfo("America/New_York")
PARAMETERS = (
    "mp_order_numbers",
    "fulfillment_status",
    "imported_after",
    "seller_updated_after",
    "has_errors",
    "page_size",
    "cursor",
)
FULFILLMENT_STATUSES = ("UNFULFILLED", "PARTIALLY_FULFILLED", "COMPLETE")
ISO_8601 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:?\d\d)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Query:
    """The parsed parameters. Times are UTC and inclusive lower bounds."""

    numbers: tuple[str, ...] | None
    statuses: frozenset[str] | None
    imported_after: datetime | None
    seller_updated_after: datetime | None
    has_errors: bool | None
    page_size: int

    def matches(self, order: StoredOrder) -> bool:
        if self.statuses is not None and fulfillment_status(order) not in self.statuses:
            return False
        if self.imported_after is not None and order.imported_at < self.imported_after:
            return False
        updated_at = order.seller_updated_at
        if self.seller_updated_after is not None and (
            updated_at is None or updated_at < self.seller_updated_after
        ):
            return False
        return self.has_errors is None or self.has_errors == bool(order.errors)


def fulfillment_status(order: StoredOrder) -> str | None:
    """The only filter value that matches the order, by the letter of the contract (7.2); None if no value does."""
    if order.marketplace_state == "AWAITING_SHIPMENT":
        return "PARTIALLY_FULFILLED" if order.fulfillments else "UNFULFILLED"
    return "COMPLETE" if order.closed and order.all_units_in else None


class QueryReader:
    """Reads the parameters of one call; anything that is not in the contract is counted and refused with 400."""

    def __init__(self, world: World, call: Call) -> None:
        self.world, self.call = world, call
        self.given = dict(call.query)

    def read(self) -> Query:
        """All parameters; raises Refusal 400."""
        for name in self.given:
            if name not in PARAMETERS:
                self.refuse("unknown_query_parameter", name[:60])
        if len(self.given) != len(self.call.query):
            self.refuse("repeated_query_parameter", "a parameter")
        return Query(
            numbers=self.numbers(),
            statuses=self.statuses(),
            imported_after=self.time("imported_after"),
            seller_updated_after=self.time("seller_updated_after"),
            has_errors=self.flag("has_errors"),
            page_size=self.page_size(),
        )

    def numbers(self) -> tuple[str, ...] | None:
        """At most `max_order_numbers` of 1 to 128 characters."""
        listed = self.listed("mp_order_numbers")
        if listed is not None and len(listed) > self.world.options.max_order_numbers:
            self.refuse("too_many_order_numbers", "mp_order_numbers")
        if listed is not None and any(not 1 <= len(number) <= 128 for number in listed):
            self.refuse("bad_query_value", "mp_order_numbers")
        return listed

    def statuses(self) -> frozenset[str] | None:
        listed = self.listed("fulfillment_status")
        if listed is not None and any(status not in FULFILLMENT_STATUSES for status in listed):
            self.refuse("bad_query_value", "fulfillment_status")
        return None if listed is None else frozenset(listed)

    def listed(self, name: str) -> tuple[str, ...] | None:
        return tuple(self.given[name].split(",")) if name in self.given else None

    def time(self, name: str) -> datetime | None:
        """A date-time as UTC; without an offset it is read as New York time (1) and counted as a broken rule."""
        text = self.given.get(name)
        if text is None:
            return None
        if ISO_8601.fullmatch(text) is None:
            self.refuse("bad_query_value", name)
        try:
            moment = datetime.fromisoformat(text)
            if moment.tzinfo is None:
                self.world.rules.note("naive_time_in_query", f"{self.call.where}: {name}={text}")
                moment = moment.replace(tzinfo=NEW_YORK)
            return moment.astimezone(UTC)
        except (ValueError, OverflowError):
            self.refuse("bad_query_value", name)

    def flag(self, name: str) -> bool | None:
        text = self.given.get(name)
        if text not in (None, "true", "false"):
            self.refuse("bad_query_value", name)
        return None if text is None else text == "true"

    def page_size(self) -> int:
        """10 to 50."""
        text = self.given.get("page_size", str(self.world.options.page_default))
        if not re.fullmatch("[0-9]{1,4}", text) or not 10 <= int(text) <= 50:
            self.refuse("page_size_out_of_bounds", "page_size")
        return int(text)

    def refuse(self, rule: str, name: str) -> NoReturn:
        """Counts the broken rule and refuses the call; raises Refusal 400, always."""
        self.world.rules.note(rule, f"{self.call.where}: {name}")
        raise Refusal(400, ("INVALID_QUERY_PARAM", f"{name}: {rule}"))
