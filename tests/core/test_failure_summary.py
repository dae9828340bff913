"""Failures grouped by reason."""

from __future__ import annotations

import pytest

from feedamp.rules.failure_summary import (
    LONGEST_RECORD,
    Told,
    Troubles,
    counted,
    reasons_of,
    sentence,
    together,
)


def lines(*found: tuple[str, str]) -> list[str]:
    troubles = Troubles()
    for seller_id, text in found:
        troubles.add(seller_id, text)
    return [trouble.line() for trouble in troubles]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param([("S1", "No answer."), ("S1", "No answer.")], ["S1: No answer."], id="said twice"),
        pytest.param(
            [("S1", "No answer."), ("S2", "No answer."), ("S1", "Too late.")],
            ["2 sellers: No answer. (S1, S2)", "S1: Too late."],
            id="one line for each reason",
        ),
        pytest.param(
            [("S1", "order M-1 is gone; ask"), ("S1", "order M-2 is gone; ask")],
            ["S1: order M-1 is gone; ask (likewise 1 more order: M-2)"],
            id="orders of one seller",
        ),
        pytest.param(
            [("S1", "order M-1: it is gone"), ("S2", "order M-1: it is gone")],
            ["S1: order M-1: it is gone", "S2: order M-1: it is gone"],
            id="orders of two sellers are named by seller",
        ),
        pytest.param(
            [(f"S{n}", "No answer.") for n in range(163, 99, -1)],
            [f"64 sellers: No answer. ({', '.join(f'S{n}' for n in range(100, 120))} and 44 more)"],
            id="the first twenty by name",
        ),
    ],
)
def test_what_is_the_same_for_many_is_one_line(found: list[tuple[str, str]], expected: list[str]) -> None:
    assert lines(*found) == expected


def test_what_intake_names_are_files() -> None:
    troubles = Troubles()
    for name in ("a.xlsx", "b.xlsx"):
        troubles.add(name, "Not read.")
    [trouble] = troubles
    assert trouble.line("file") == "2 files: Not read. (a.xlsx, b.xlsx)"
    assert "a.xlsx: Not read (2 files)" in sentence("intake", 2, 0, reasons_of(troubles))


def test_an_error_that_no_one_expected_is_one_line_whomever_it_struck() -> None:
    troubles, error = Troubles(), OSError("disk full")
    for seller_id in ("S1", "S2"):
        for number in ("M-1", "M-2"):
            text = f"An unexpected OSError ended the work on order {number}."
            troubles.add(seller_id, text, mp_order_number=number, cause=error)
    [trouble] = troubles
    assert (trouble.cause, trouble.orders) == (error, {"S1": ["M-1", "M-2"], "S2": ["M-1", "M-2"]})


def test_shards_with_the_same_reason_are_told_together() -> None:
    shards = []
    for first in (0, 25):
        troubles = Troubles()
        for number in range(first, first + 25):
            troubles.add(f"S{number:02}", "FeedAMP answered 503.")
        shards += reasons_of(troubles)
    [reason] = together(shards)
    assert (reason.words(), len(reason.sellers)) == ("S00: FeedAMP answered 503 (50 sellers)", 20)
    assert sentence("place", 50, 60, [reason]) == (
        "place: 50 of 60 sellers have work left. S00: FeedAMP answered 503 (50 sellers)."
    )


def test_many_reasons_are_counted_after_the_first_three() -> None:
    troubles = Troubles()
    for number in range(5):
        troubles.add(f"S{number}", f"Reason {number}.")
    said = sentence("close", 5, 5, reasons_of(troubles))
    assert said.endswith("S2: Reason 2; and 2 more reasons, see the log.")
    assert (
        sentence("close", 1, 1, reasons_of(troubles)[:1])
        == "close: 1 of 1 seller has work left. S0: Reason 0."
    )


def test_what_a_task_leaves_in_the_state_is_bounded_and_comes_back() -> None:
    troubles = Troubles()
    for reason in range(50):
        for seller in range(100):
            troubles.add(f"seller-{seller:0>120}", f"{reason} {'x' * 1000}")
    text = Told(reasons_of(troubles), failed=100).encode()
    assert len(text) <= LONGEST_RECORD
    told = Told.decode(text)
    assert (told.failed, told.reasons[0].count, len(told.reasons[0].text)) == (100, 100, 300)
    assert Told.decode(told.encode()) == told


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0 rows were"), (1, "1 row was"), (2, "2 rows were"), (1_000, "1000 rows were")]
)
def test_a_noun_and_its_verb_follow_the_count(count: int, shown: str) -> None:
    assert counted(count, "row", "were") == shown
