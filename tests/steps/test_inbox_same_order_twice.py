"""The same order twice in one file: the later one wins, and its state is checked against the one before."""

from __future__ import annotations

import pytest
from env import Env, open_env
from exploring import examples
from hypothesis import given
from hypothesis import strategies as st
from inbox_drops import csv_row, drop_csv
from order_samples import good_line

P, A, C = "PENDING", "AWAITING_SHIPMENT", "CANCELLED"


def place(env: Env) -> dict[str, tuple[str, list[str]]]:
    """State and lines of each order as FeedAMP holds it after all was placed."""
    env.place()
    env.place()
    assert env.sandbox.broken_rules == []
    shown = env.sandbox.orders("seller-001")
    return {
        number: (order["marketplace_state"], [line["mp_line_number"] for line in order["order_lines"]])
        for number, order in shown.items()
    }


def test_an_order_and_its_release_in_one_csv_file_end_released(env: Env) -> None:
    rows = [csv_row("M-1", state=P), csv_row("M-2"), csv_row("M-1", state=A), csv_row("M-2")]
    drop_csv(env, "1.csv", *rows)
    result = env.intake()
    assert (result.orders, result.rejected, env.rejects()) == (4, 0, [])
    assert place(env) == {"M-1": (A, ["1"]), "M-2": (A, ["1"])}


def test_the_release_of_a_placed_order_with_two_lines_goes_out(env: Env) -> None:
    lines = [csv_row("M-1", line, P) for line in ("1", "2")]
    drop_csv(env, "1.csv", *lines)
    env.intake()
    assert place(env) == {"M-1": (P, ["1", "2"])}
    released = [csv_row("M-1", line, A) for line in ("1", "2")]
    drop_csv(env, "1.csv", *lines, *released)
    env.intake()
    assert env.rejects() == []
    assert place(env) == {"M-1": (A, ["1", "2"])}


def test_a_step_backward_between_two_deliveries_is_rejected(env: Env) -> None:
    drop_csv(env, "1.csv", csv_row("M-1", state=A), csv_row("M-1", state=P))
    result = env.intake()
    assert (result.orders, result.rejected) == (2, 1)
    [reject] = env.rejects()
    assert (reject.row_number, reject.reasons[0]["code"]) == (3, "illegal_transition")
    assert place(env) == {"M-1": (A, ["1"])}


def test_a_good_delivery_supersedes_a_bad_one_but_not_the_reverse(env: Env) -> None:
    drop_csv(env, "1.csv", csv_row("M-1", currency="Euros"), csv_row("M-1"))
    drop_csv(env, "2.csv", csv_row("M-2"), csv_row("M-2", currency="Euros"))
    env.intake()
    assert [(r.source, r.row_number) for r in env.rejects()] == [("2.csv", 3)]
    assert place(env) == {"M-1": (A, ["1"]), "M-2": (A, ["1"])}


def test_two_contents_of_one_line_are_still_a_duplicate_line(env: Env) -> None:
    other = csv_row("M-1") | {"order_lines.quantity": "9"}
    drop_csv(env, "1.csv", csv_row("M-1"), other)
    env.intake()
    assert env.reject_codes() == [("inbox", "duplicate_line")]


DELIVERIES = st.lists(st.tuples(st.sampled_from([P, A, C]), st.booleans()), min_size=1, max_size=4)


@examples(15)
@given(deliveries=DELIVERIES, lines=st.integers(1, 3), data=st.data())
def test_a_csv_file_ends_as_the_same_orders_in_json_lines(
    deliveries: list[tuple[str, bool]], lines: int, data: st.DataObject
) -> None:
    """However rows are arranged, as long as the first rows of the deliveries keep their order."""
    numbers = [str(line) for line in range(lines)]
    distinct = list(dict.fromkeys(deliveries))
    notes = {True: {"delivery_notes": "ring"}, False: {}}
    rows = [[csv_row("M-1", line, state, **notes[rings]) for line in numbers] for state, rings in distinct]
    first = [own[0] for own in rows]
    repeats = [rows[distinct.index(delivery)][0] for delivery in deliveries]
    # Rows are in any order, but each delivery names its lines in the same order.
    turns = [at for at, own in enumerate(rows) for _ in own[1:]]
    others = [iter(own[1:]) for own in rows]
    rest = [next(others[at]) for at in data.draw(st.permutations(turns), label="turns")]
    for row in repeats:
        rest.insert(data.draw(st.integers(0, len(rest)), label="a repeat"), row)
    bodies = [
        {
            "order_lines": [good_line(mp_line_number=line) for line in numbers],
            "marketplace_state": state,
            **notes[rings],
        }
        for state, rings in distinct
    ]
    ends = []
    for kind in ("csv", "jsonl"):
        with open_env(sellers=1) as env:
            if kind == "csv":
                drop_csv(env, "1.csv", *first, *rest)
            else:
                env.drop("1.jsonl", *(env.body("M-1", **body) for body in bodies))
            result = env.intake()
            assert result.orders == (len(first) + len(rest) if kind == "csv" else len(bodies))
            codes = sorted(env.reject_codes())
            shown = place(env)
            ends.append((codes, {n: (state, sorted(found)) for n, (state, found) in shown.items()}))
    assert ends[0] == ends[1]


@pytest.mark.parametrize("rows", [400, 401])
def test_deliveries_that_lie_over_a_transaction_are_taken_in_order(env: Env, rows: int) -> None:
    pending = [csv_row(f"M-{at}", state=P) for at in range(rows // 2)]
    drop_csv(env, "1.csv", *pending, *(row | {"marketplace_state": A} for row in pending))
    assert env.intake().rejected == 0
    assert {env.order(f"M-{at}").desired_state for at in (0, 99, 100, rows // 2 - 1)} == {A}
