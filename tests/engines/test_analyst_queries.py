"""The queries of docs/analyst-queries.md give on both engines the answers of the page, which are added up here again."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from analyst_sample import (
    BAD_UPS,
    DIFFERENCES,
    GRANTS,
    RECONCILED,
    SAMPLE,
    WAITING,
    Line,
    Sold,
    load_sample,
    when,
)
from doc_blocks import blocks
from manifests import Loader
from sources import ROOT

PAGE = ROOT / "docs" / "analyst-queries.md"
Answer = list[tuple[Any, ...]]


@pytest.fixture(scope="module")
def loader(
    open_loader: Callable[[Path], Loader], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Loader]:
    with closing(open_loader(tmp_path_factory.mktemp("lake"))) as opened:
        load_sample(opened, datetime.now(UTC))
        yield opened


def lines(*, cancelled: bool) -> Iterator[tuple[Sold, Line]]:
    for sold in SAMPLE:
        if cancelled or sold.state != "CANCELLED":
            yield from ((sold, line) for line in sold.lines)


def total(amounts: tuple[tuple[str, str], ...]) -> Decimal:
    return sum((Decimal(amount) for _, amount in amounts), Decimal())


def revenue() -> Answer:
    days: dict[date, list[Decimal]] = defaultdict(lambda: [Decimal()] * 4)
    for sold, line in lines(cancelled=False):
        kept = line.quantity - line.cancelled
        if kept:
            parts = (kept * Decimal(line.unit_price or 0), Decimal(line.shipping_price), total(line.taxes))
            sums = zip(days[sold.purchased.date()], (*parts, total(line.discounts)), strict=True)
            days[sold.purchased.date()] = [one + more for one, more in sums]
    return [(day, "USD", *sums, sums[0] + sums[1] + sums[2] - sums[3]) for day, sums in sorted(days.items())]


def late() -> Answer:
    pending: dict[str, list[int]] = defaultdict(list)
    for sold in SAMPLE:
        if sold.state == "AWAITING_SHIPMENT":
            done = sum(line.cancelled + sum(n for n, *_ in line.shipped) for line in sold.lines)
            pending[sold.seller_id].append(sum(line.quantity for line in sold.lines) - done)
    return [(seller, len(units), sum(units)) for seller, units in sorted(pending.items())]


def days_to_ship() -> Answer:
    days: dict[str, list[int]] = defaultdict(list)
    for sold, line in lines(cancelled=True):
        for _, carrier, _, day in line.shipped:
            days[carrier.lower()].append(day - sold.purchased.day)
    return [(name, len(all_), sum(all_) / len(all_), max(all_)) for name, all_ in sorted(days.items())]


def invalid() -> Answer:
    def share(seller: str, *, first: bool) -> float:
        sold = [one for one in SAMPLE if one.seller_id == seller]
        shown = [line for one in sold for line in (one.first if first and one.first else one.lines)]
        numbers = [number for line in shown for _, _, number, _ in line.shipped]
        return sum(number in (None, BAD_UPS) for number in numbers) / len(numbers)

    return [(seller, share(seller, first=True), share(seller, first=False)) for seller in ("S1", "S2")]


def waiting() -> Answer:
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for _, _, phase, reason, day in WAITING:
        groups[phase, reason].append(day)
    found = [(*key, len(days), when(min(days)).date()) for key, days in groups.items()]
    return sorted(found, key=lambda row: (-row[2], row[0]))


def cancelled() -> Answer:
    by_seller: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for sold in SAMPLE:
        shipped = any(line.shipped for line in sold.lines)
        units = sum(line.cancelled for line in sold.lines)
        ordered = sum(line.quantity for line in sold.lines)
        if not shipped and (sold.state == "CANCELLED" or units == ordered):
            more = (1, units, ordered - units)
            by_seller[sold.seller_id] = [a + b for a, b in zip(by_seller[sold.seller_id], more, strict=True)]
    return [(seller, *counts) for seller, counts in sorted(by_seller.items())]


def short() -> Answer:
    units: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for sold, line in lines(cancelled=False):
        if sold.state == "SHIPPED" and not sold.by_marketplace:
            units[line.sku][0] += line.quantity
            units[line.sku][1] += max(line.quantity - sum(n for n, *_ in line.shipped), 0)
    return [(sku, *counts) for sku, counts in sorted(units.items()) if counts[1]]


def ending() -> Answer:
    soon = sorted((days, seller) for seller, days in GRANTS.items() if days < 30)
    return [(seller, "active", days) for days, seller in soon]


def unreconciled() -> Answer:
    counts: dict[tuple[date, str], int] = defaultdict(int)
    for sold in SAMPLE:
        counts[sold.purchased.date(), sold.seller_id] += 1
    done = {(when(day).date(), seller): not any(left) for (seller, day), left in RECONCILED.items()}
    return [(*key, count, key in done) for key, count in sorted(counts.items()) if not done.get(key)]


def repaired() -> Answer:
    kinds = sorted({kind for kind, _ in DIFFERENCES})
    of = {kind: [runs[-1] for found, runs in DIFFERENCES if found == kind] for kind in kinds}
    return [(kind, len(found), sum(found)) for kind, found in of.items()]


EXPECTED = (revenue, late, days_to_ship, invalid, waiting, cancelled, short, ending, unreconciled, repaired)


def shown(value: Any) -> str:
    if isinstance(value, Decimal):
        return f"{value:.2f}"
    return str(round(value, 3)) if isinstance(value, float) else str(value)


@pytest.mark.parametrize("at", range(len(EXPECTED)), ids=lambda at: EXPECTED[at].__name__)
def test_a_query_of_the_page_gives_its_answer(loader: Loader, at: int) -> None:
    sql = blocks(PAGE, "sql")
    assert len(sql) == len(EXPECTED)
    answer = [tuple(map(shown, row)) for row in loader.query(sql[at])]
    assert answer == [tuple(map(shown, row)) for row in EXPECTED[at]()]
    section = PAGE.read_text("utf-8").split("\n## ")[at + 1]
    table = [
        tuple(cell.strip() for cell in line.strip("|").split("|"))
        for line in re.findall(r"^\|.*\|$", section, re.MULTILINE)
    ]
    assert table[2:] == answer
