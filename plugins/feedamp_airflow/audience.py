"""Whose word a reader may see: decided here alone, for the pages and for what commands say in logs that others read.

What FeedAMP, an order file, a seller or a person wrote can name customers. It is for those who may edit the connection; all
others see codes, counts, moments, and the names that the contract, the ledger or the registry of sellers has.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.codec import decode_json
from feedamp.models import ListedError
from feedamp.order_body.body_options import DEFAULT_ORDER_NUMBER_PATTERN
from feedamp.rules.finding import HELD
from feedamp.rules.known_fields import is_known_place, known_part
from feedamp.rules.order import Phase
from feedamp.state import page_lists, sellers
from feedamp.state.overview import CountedItems
from feedamp.state.schema import orders

KEY = ("seller_id", "mp_order_number")
# Columns that anyone may read as they are, by what has them. What is not here and has no rule below is a word.
_PLAIN = {
    "row of a file": "source row row_number rows_read rows_rejected stage rejected_at",
    "order": (
        "phase desired_state accepted_state next_try_at is_known purchase_date taken_at placed_at read_at closed_at missing_since "
        "adopted_at events events_recorded_since events_in_warehouse lines findings closing can_be_closed needs_person"
    ),
    "event or line of an order": "event_id occurred_at run_id sku ordered shipped cancelled pending over",
    "finding or wait": "kind severity api_code state found_at since error_lingers_since watermark waiting_orders",
    "seller": "name sales_channel conn_id paused grant status refreshed_at grant_issued_at grant_ends_at open_orders oldest_open",
    "comparison": (
        "day days table differences compared found repaired left not_extracted_yet remaining unread kinds checked_at repaired_at "
        "sellers not_checked"
    ),
}
PLAIN = frozenset([*" ".join(_PLAIN.values()).split(), *page_lists.SCORES])
SEEN = PLAIN | {*KEY, "mp_line_number", "field", "why"}
NAMES_ORDERS = "; first: "  # of a sentence: what follows names orders that no ledger may have
# What FeedAMP wrote follows the colon; a code of its own names no customer.
_ANSWERED = re.compile(r"(FeedAMP (?:answered \d+|refused to close it)): (.*)", re.DOTALL)
_CODE = re.compile(r"[A-Z]+(?:_[A-Z]+)+(?=: |$)")
ELSEWHERE = (
    "What FeedAMP wrote is left out, because pii is mask. It stands in the state: `feedamp orders list`, `findings list` and "
    "`rejected list` show it, and the pages do to those who may edit the connection."
)
T = TypeVar("T")
U = TypeVar("U")


class Shown(list[dict[str, Any]]):
    """Rows as a reader may see them. Pages and tables take no others."""

    def part(self, start: int, end: int | None = None) -> Shown:
        """Some of them."""
        return Shown(self[start:end])


@dataclass(frozen=True)
class Audience:
    """Who reads an answer; with `reads_words`, what was said is shown as it is."""

    reads_words: bool = True

    def said(self, words: T, instead: U) -> T | U:
        """What FeedAMP, a file, a seller or a person said, or what stands there for those who may not read it."""
        return words if self.reads_words else instead

    def note(self, sentence: str) -> str:
        """A sentence on several orders, for others than who reads words without the orders that it names."""
        return sentence if self.reads_words else sentence.partition(NAMES_ORDERS)[0]

    def waits(self, phase: str, reasons: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
        """(what orders of a phase wait for, number of orders). Of settled ones FeedAMP's words follow our own after a colon."""
        if self.reads_words:
            return list(reasons)
        counts: Counter[str] = Counter()
        for reason, count in reasons if phase == Phase.SETTLED else ():
            counts[reason.partition(": ")[0]] += count
        return counts.most_common()

    def columns(self, names: Iterable[T]) -> list[T]:
        """Those of the columns (each a name, or a name with its title) in which this reader sees anything."""
        return [
            one for one in names if self.reads_words or (one[0] if isinstance(one, tuple) else one) in SEEN
        ]

    def counted(self, connection: Connection, found: CountedItems) -> CountedItems:
        """A list that was cut into pages, its rows as in `rows`."""
        return CountedItems(found.count, self.rows(connection, found.items))

    def rows(self, connection: Connection, rows: Iterable[Mapping[str, Any]]) -> Shown:
        """The rows as this reader may see them, with None for what is hidden.

        A row with `reasons` gets `why`, one text. A row within a row is about the same order.
        """
        found = [{n: Shown(v) if isinstance(v, list) else v for n, v in row.items()} for row in rows]
        for row in found:
            if "reasons" in row:
                row["why"] = self._why(row["reasons"])
        return Shown(found) if self.reads_words else _hide(connection, found)

    def _why(self, reasons: str | Iterable[Mapping[str, Any]]) -> str:
        given = decode_json(reasons.encode()) if isinstance(reasons, str) else reasons
        return "; ".join(
            f"{self.said(one['field'], known_part(one['field'])) or 'row'}: {self.said(one['message'], one['code'])}"
            for one in given
        )


EDITOR, VIEWER = Audience(), Audience(reads_words=False)


def without_answers(value: Any) -> Any:
    """A document without what FeedAMP wrote about orders, of which only its error codes are left (`pii = mask`)."""
    if isinstance(value, ListedError):
        return msgspec.structs.replace(value, message="")
    if isinstance(value, str):
        return _ANSWERED.sub(lambda found: ": ".join(filter(None, (found[1], _code(found[2])))), value)
    if isinstance(value, list | tuple):
        return [without_answers(one) for one in value]
    if not isinstance(value, dict):
        return value
    shown = {name: without_answers(one) for name, one in value.items()}
    if shown.get("note"):  # of a finding: why FeedAMP refused its report, or why a person waived it
        shown["note"] = _code(shown["note"]) if shown["state"] == HELD else shown["note"]
    if shown.get("code") == "refused_by_feedamp":
        shown["message"] = _code(shown["message"])
    return shown


def _code(words: str) -> str:
    found = _CODE.match(words)
    return found[0] if found else ""


def _hide(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> Shown:
    """Takes words out of rows, and ids, numbers, lines and fields in whose place other words can stand.

    Of an order that the ledger has, all of these are its own. Of another one, a seller is named that is registered or
    that orders wait for, and a number of the usual form.
    """
    lines = page_lists.ordered_lines(connection, [_key(row) for row in rows if row.get("mp_order_number")])
    known_sellers = _known_sellers(connection, {row["seller_id"] for row in rows if row.get("seller_id")})

    def hidden(row: Mapping[str, Any]) -> dict[str, Any]:
        shown = {name: within(row, value) if name in PLAIN else None for name, value in row.items()}
        of_order = lines.get(_key(row), frozenset[str]())
        is_known = row.get("is_known", _key(row) in lines)
        shown |= {name: row[name] for name in ("why", *KEY) if name in row}
        if "seller_id" in row and not is_known and row["seller_id"] not in known_sellers:
            shown["seller_id"] = None
        if "mp_order_number" in row and not is_known and not _is_usual(row["mp_order_number"]):
            shown["mp_order_number"] = None
        if row.get("mp_line_number") in of_order:
            shown["mp_line_number"] = row["mp_line_number"]
        if "field" in row and is_known_place(row["field"], row["kind"], of_order):
            shown["field"] = row["field"]
        return shown

    def within(row: Mapping[str, Any], value: Any) -> Any:
        order = {name: row[name] for name in KEY if name in row}
        if isinstance(value, dict):
            return hidden(order | value)
        return Shown(hidden(order | one) for one in value) if isinstance(value, list) else value

    return Shown(map(hidden, rows))


def _key(row: Mapping[str, Any]) -> tuple[str, str]:
    return row.get("seller_id") or "", row.get("mp_order_number") or ""


def _is_usual(number: str | None) -> bool:
    return re.fullmatch(DEFAULT_ORDER_NUMBER_PATTERN, number or "") is not None


def _known_sellers(connection: Connection, ids: set[str]) -> set[str]:
    """Those that are registered, or of whom the ledger has orders."""
    known = {seller.seller_id for seller in sellers.find(connection, ids)} if ids else set[str]()
    of_one = sa.select(orders.c.seller_id).where(orders.c.seller_id == sa.bindparam("one")).limit(1)
    return known | {one for one in ids - known if connection.execute(of_one, {"one": one}).first()}
