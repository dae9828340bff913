"""What the log of a step tells: lines and tables by seller, rejected rows, and progress."""

from __future__ import annotations

import logging

import pytest

from feedamp.progress import Progress
from feedamp.steps.step_log import RejectedRows, SellerCounts


def table(
    counts: dict[str, dict[str, int]], failed: set[str], requests: dict[str, int], **totals: int
) -> list[list[str]]:
    by_seller = SellerCounts()
    for seller_id, of_seller in counts.items():
        by_seller.add(seller_id, of_seller)
    lines = by_seller.table(
        "seller", failed, requests, **{"sellers": len(counts), "sent": sum(requests.values())} | totals
    )
    return [line.split() for line in lines]


def test_a_table_has_a_row_for_each_seller_with_work_and_the_totals():
    counts = {"S1": {"orders": 2, "shipped": 2}, "S2": {"orders": 0}, "S3": {"orders": 1, "cancelled": 1}}
    assert table(counts, {"S3", "S4"}, {"S1": 4, "S2": 1, "S3": 2}, sellers=50, sent=9) == [
        ["seller", "orders", "cancelled", "shipped", "requests", "failed"],
        ["S3", "1", "1", "0", "2", "1"],
        ["S4", "0", "0", "0", "0", "1"],
        ["S1", "2", "0", "2", "4", "0"],
        ["others,", "tokens", "0", "0", "0", "3", "0"],
        ["all", "50", "sellers", "3", "1", "2", "9", "2"],
    ]


def test_a_table_of_many_sellers_is_cut_but_adds_up():
    counts = {f"S{n:03}": {"orders": n} for n in range(1, 121)}
    rows = table(counts, set(), {"S120": 7})
    assert len(rows) == 53
    assert rows[-2:] == [
        ["70", "more", str(sum(range(51, 121))), "7", "0"],
        ["all", "120", "sellers", str(sum(range(1, 121))), "7", "0"],
    ]


def test_a_step_without_work_has_no_table_and_an_idle_seller_no_line():
    assert table({"S1": {"orders": 0}}, set(), {"S1": 1}) == []
    counts = SellerCounts()
    counts.add("S1", {"orders": 0})
    assert (counts.line("S1", requests=1), counts.line("S2", requests=0)) == (None, None)
    counts.add("S\n1", {"orders": 3})
    assert counts.line("S\n1", requests=2) == "seller S?1: orders 3, requests 2"


def rejected(*rows: tuple[str, int, str | None, list[tuple[str, str, str]]]) -> list[str]:
    found = RejectedRows()
    for row in rows:
        found.add(*row)
    return list(found.lines())


def test_rejected_rows_are_told_with_every_reason_and_counted_by_reason():
    lines = rejected(
        (
            "a.csv",
            4,
            "M-1",
            [("order_lines[2].quantity", "bad_number", "is not a number"), ("currency", "missing", "x")],
        ),
        ("a.csv", 5, None, [("order_lines[0].quantity", "bad_number", "is not a number")]),
        ("a.csv", 0, None, [("", "unreadable", "the file breaks off")]),
    )
    assert lines == [
        "3 rows rejected:",
        "a.csv row 4, order M-1: order_lines[2].quantity bad_number: is not a number; currency missing: x",
        "a.csv row 5: order_lines[0].quantity bad_number: is not a number",
        "a.csv row 0: row unreadable: the file breaks off",
        "Rejected rows by reason: order_lines.quantity bad_number 2, currency missing 1, unreadable 1",
    ]


def test_only_the_first_rejected_rows_are_told_but_all_are_counted():
    reasons = [(f"order_lines[{n}].sku", "missing", "must be there") for n in range(5)]
    lines = rejected(*(("a.csv", n, None, reasons) for n in range(1_000)))
    assert len(lines) == 22
    assert lines[0] == "1000 rows rejected, the first 20 of them:"
    assert lines[20].startswith("a.csv row 19: order_lines[0].sku missing: must be there; ")
    assert lines[20].endswith("; and 2 more reasons")
    assert lines[21] == "Rejected rows by reason: order_lines.sku missing 1000"


@pytest.mark.parametrize(
    "name", ["Eva Muster", "eva@example.com", "+49 30 1234", "Müller", "1 Main St", "x\ny"]
)
def test_a_field_that_may_be_the_cell_of_a_file_without_header_is_not_told(name):
    lines = rejected(("a.csv", 1, None, [(name, "unknown_field", "is not a field of an order")]))
    assert lines[1:] == [
        "a.csv row 1: (not shown) unknown_field: is not a field of an order",
        "Rejected rows by reason: (not shown) unknown_field 1",
    ]


@pytest.mark.parametrize(
    ("total", "done", "seconds", "line"),
    [
        pytest.param(100, 25, 10, "x: 25 of 100 rows, 2.5 a second, 30 s left; more", id="a part"),
        pytest.param(None, 5_000, 20, "x: 5000 rows, 250 a second; more", id="of no known total"),
        pytest.param(1_000, 10, 10, "x: 10 of 1000 rows, 1.0 a second, 16 min left; more", id="minutes"),
        pytest.param(90_000, 10, 10, "x: 10 of 90000 rows, 1.0 a second, 25.0 h left; more", id="hours"),
        pytest.param(7, 0, 30, "x: 0 of 7 rows, 0.0 a second; more", id="nothing yet"),
        pytest.param(7, 9, 30, "x: 9 of 7 rows, 0.3 a second; more", id="more than expected"),
    ],
)
def test_progress_says_done_total_rate_and_rest(total, done, seconds, line, caplog, clock):
    caplog.set_level(logging.INFO)
    progress = Progress("x", "rows", total, note=lambda: "more", monotonic=clock.elapsed_s)
    clock.skip(seconds=seconds)
    progress.at(done)
    assert caplog.messages == [line]


def test_progress_is_logged_every_ten_seconds_and_not_before(caplog, clock):
    caplog.set_level(logging.INFO)
    progress = Progress("x", "rows", 100, monotonic=clock.elapsed_s)
    for _ in range(70):
        clock.skip(seconds=0.5)
        progress.add()
    assert caplog.messages == [
        f"x: {n} of 100 rows, 2.0 a second, {(100 - n) // 2} s left" for n in (20, 40, 60)
    ]
