"""The queries of docs/analyst-queries.md give on both engines the answers of the page, on what the demo plays.

They are added up here again, from what the sandbox has.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cached_property
from time import sleep
from typing import Any

import duckdb
import pytest
from doc_blocks import blocks
from env_fixtures import open_state
from memory_warehouse import folder_in_memory
from postgres_warehouses import address_of, looking
from sources import ROOT

from crashes.clock import NOON, Clock
from demo.offline import Played
from demo.play import DAYS, ENDING, LOST, ORDERS_OF_UNKNOWN, accounts
from feedamp import carriers
from feedamp.warehouse.postgres import PostgresWarehouse
from feedamp_sandbox import SandboxOptions, running
from feedamp_sandbox.orders import StoredOrder
from feedamp_sandbox.sellers import plan
from feedamp_sandbox.views import full_view

PAGE = ROOT / "docs" / "analyst-queries.md"
DAY_OF_PAGE = date(2026, 3, 10)
Answer = list[tuple[Any, ...]]


class Answers(Played):
    """What the sandbox has: each order, and each of its lines with the units that were shipped and cancelled."""

    @cached_property
    def orders(self) -> list[tuple[str, date, dict[str, Any]]]:
        return [
            (seller_id, datetime.fromisoformat(order.body["purchase_date"]).date(), full_view(order))
            for seller_id, order in self.stored()
        ]

    def stored(self) -> Iterator[tuple[str, StoredOrder]]:
        for seller in self.sandbox.world.sellers:
            for order in self.sandbox.world.orders.of(seller.seller_id):
                yield seller.seller_id, order

    @staticmethod
    def units(order: dict[str, Any], line: dict[str, Any]) -> tuple[int, int]:
        entries = [e for e in order["fulfillments"] if e["mp_line_number"] == line["mp_line_number"]]
        return tuple(
            sum(part["quantity"] for entry in entries for part in entry[kind])
            for kind in ("shipments", "cancellations")
        )

    def shipments(self) -> Iterator[tuple[str, date, dict[str, Any]]]:
        for seller_id, day, order in self.orders:
            for entry in order["fulfillments"]:
                yield from ((seller_id, day, one) for one in entry["shipments"])


def summed(rows: Any) -> Answer:
    """Pairs of a key and of amounts, added up by key."""
    sums: dict[Any, list[Any]] = {}
    for key, amounts in rows:
        before = sums.get(key, [0] * len(amounts))
        sums[key] = [one + more for one, more in zip(before, amounts, strict=True)]
    return [(*key, *amounts) for key, amounts in sorted(sums.items())]


def revenue(played: Answers) -> Answer:
    def rows() -> Iterator[Any]:
        for _, day, order in played.orders:
            for line in order["order_lines"]:
                kept = line["quantity"] - played.units(order, line)[1]
                if kept and order["marketplace_state"] != "CANCELLED":
                    goods, shipping = kept * Decimal(line["unit_price"]), Decimal(line["shipping_price"])
                    tax, discount = (
                        sum((Decimal(one["amount"]) for one in line.get(kind) or ()), Decimal())
                        for kind in ("taxes", "discounts")
                    )
                    amounts = (goods, shipping, tax, discount, goods + shipping + tax - discount)
                    yield (day, order["currency"]), amounts

    return summed(rows())


def late(played: Answers) -> Answer:
    return summed(
        (
            (seller_id,),
            (1, sum(line["quantity"] - sum(played.units(order, line)) for line in order["order_lines"])),
        )
        for seller_id, day, order in played.orders
        if order["marketplace_state"] == "AWAITING_SHIPMENT" and day + timedelta(days=3) < played.today
    )


def days_to_ship(played: Answers) -> Answer:
    days = defaultdict(list)
    for _, day, one in played.shipments():
        known = carriers.check(one["carrier"], one["tracking_number"]).carrier_id
        days[known or one["carrier"]].append((date.fromisoformat(one["shipped_date"]) - day).days)
    return [
        (name, len(all_), round(sum(all_) / len(all_), 1), max(all_)) for name, all_ in sorted(days.items())
    ]


def invalid(played: Answers) -> Answer:
    counts = defaultdict(Counter)
    for seller_id, order in played.stored():
        moves = plan(played.sandbox.world.options, order).moves[: order.moves_done]
        for parcel in (move.parcel for move in moves if move.parcel for _ in move.units):
            verdict = carriers.check(parcel.typed_carrier, parcel.typed_tracking_number).status
            counts[seller_id][verdict] += 1
    now = {
        (seller_id, carriers.check(one["carrier"], one["tracking_number"]).status)
        for seller_id, _, one in played.shipments()
    }
    assert {verdict for _, verdict in now} == {"valid"}
    return [
        (seller_id, of["invalid"] / (of["invalid"] + of["valid"]), 0.0)
        for seller_id, of in sorted(counts.items())
    ]


def waiting(played: Answers) -> Answer:
    return [("to_place", "the seller is not registered", 1 + ORDERS_OF_UNKNOWN, played.today)]


def cancelled(played: Answers) -> Answer:
    def rows() -> Iterator[Any]:
        for seller_id, _, order in played.orders:
            units = [played.units(order, line) for line in order["order_lines"]]
            ordered = sum(line["quantity"] for line in order["order_lines"])
            if (0, ordered) == tuple(map(sum, zip(*units, strict=True))):
                yield (seller_id,), (1, ordered, 0)

    return summed(rows())


def short(played: Answers) -> Answer:
    sums = summed(
        ((line["sku"],), (line["quantity"], line["quantity"] - played.units(order, line)[0]))
        for _, _, order in played.orders
        if order["marketplace_state"] == "SHIPPED"
        for line in order["order_lines"]
    )
    return [row for row in sums if row[2]]


def ending(played: Answers) -> Answer:
    return sorted(((seller_id, "active", days) for seller_id, days in ENDING.items()), key=lambda row: row[2])


def unreconciled(played: Answers) -> Answer:
    first = played.today - timedelta(days=DAYS + 1)
    rows = summed(((day, seller), (1,)) for seller, day, _ in played.orders if day == first)
    return [(*row, False) for row in rows]


def repaired(played: Answers) -> Answer:
    return [("order", LOST, LOST)]


EXPECTED = (revenue, late, days_to_ship, invalid, waiting, cancelled, short, ending, unreconciled, repaired)


@pytest.fixture(scope="module")
def played() -> Iterator[Answers]:
    now = datetime.now(UTC)
    if (left_s := 86_400 - (now.hour * 60 + now.minute) * 60 - now.second) < 60:
        sleep(left_s)  # when a day ends between the play and its answers, an order more is late
    clock = Clock()  # the queries ask the machine for the moment
    clock.skip(seconds=(datetime.now(UTC) - NOON).total_seconds())
    options = SandboxOptions(sellers=accounts(), requests_per_second=100_000.0, burst=100_000)
    with (
        folder_in_memory() as folder,
        running(options, clock=clock.now, monotonic=clock.elapsed_s) as sandbox,
    ):
        open_state(folder).close()  # SQLite's slow commits are no part of it
        yield Answers(folder, sandbox, clock)


@pytest.fixture(scope="module", params=["duckdb", "postgres"])
def answers(request: pytest.FixtureRequest, played: Answers) -> list[Answer]:
    """Those of the play's own warehouse, and of one on Postgres that is loaded from its lake."""
    queries = blocks(PAGE, "sql")
    if request.param == "duckdb":
        with duckdb.connect(str(played.fixtures.folder / "warehouse.duckdb")) as warehouse:
            return [warehouse.execute(sql).fetchall() for sql in queries]
    address = address_of(request.getfixturevalue("server").database())
    PostgresWarehouse(address).rebuild(played.resources.lake)
    with looking(address) as reader:
        return [reader.execute(sql).fetchall() for sql in queries]


def shown(value: Any) -> str:
    if isinstance(value, Decimal):
        return f"{value:.2f}"
    return str(round(value, 3)) if isinstance(value, float) else str(value)


@pytest.mark.parametrize("at", range(len(EXPECTED)), ids=lambda at: EXPECTED[at].__name__)
def test_a_query_of_the_page_gives_its_answer(played: Answers, answers: list[Answer], at: int) -> None:
    assert len(answers) == len(EXPECTED)
    expected = EXPECTED[at](played)
    assert expected
    assert [tuple(map(shown, row)) for row in answers[at]] == [tuple(map(shown, row)) for row in expected]
    section = PAGE.read_text("utf-8").split("\n## ")[at + 1]
    table = [
        tuple(cell.strip() for cell in line.strip("|").split("|"))
        for line in re.findall(r"^\|.*\|$", section, re.MULTILINE)
    ]
    assert table[2:] == as_of_page(played, expected)


def as_of_page(played: Answers, rows: Answer) -> list[tuple[str, ...]]:
    """As the page shows them, which was played on its day."""
    ago = played.today - DAY_OF_PAGE
    return [tuple(shown(v - ago if isinstance(v, date) else v) for v in row) for row in rows]
