"""The life of an order: which changes its phase allows, drawn as the table that readers find, and nowhere else."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from order_samples import good_order
from sources import ROOT, packaged, text_of, tree_of

from feedamp.rules import order as order_module
from feedamp.rules.order import (
    ACCEPTED_BY,
    AWAITING_SHIPMENT,
    CANCELLED,
    CANCELLED_TOO_LATE,
    CHANGED_BY_ACCEPTED,
    PENDING,
    TRANSITIONS,
    IllegalTransitionError,
    LedgerOrder,
    Phase,
    Transition,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
# An argument for each parameter that a transition has.
GIVEN: dict[str, Any] = {
    "state": str(AWAITING_SHIPMENT),
    "reason": "because",
    "now": NOON,
    "sent_at": NOON,
    "at": NOON,
    "until": NOON,
}
ORDER = LedgerOrder(
    seller_id="S1",
    mp_order_number="M-1",
    phase=Phase.TO_PLACE,
    body=good_order(),
    body_hash="h",
    desired_state=str(AWAITING_SHIPMENT),
    accepted_state=str(AWAITING_SHIPMENT),
    delivered=(),
    purchase_date=NOON,
    source="a.jsonl",
    source_row=1,
    row_hash="r",
    taken_at=NOON,
)


def make(transition: Transition, order: LedgerOrder) -> LedgerOrder:
    method = getattr(order, transition.name)
    required = [p for p in inspect.signature(method).parameters.values() if p.default is p.empty]
    changed = method(**{parameter.name: GIVEN[parameter.name] for parameter in required})
    assert isinstance(changed, LedgerOrder)
    return changed


LATER = NOON + timedelta(hours=1)
# What a transition changes, of an order that has been tried three times; everything else stays as it was.
BUSY = replace(ORDER, attempts=3, reason="because", next_try_at=NOON, read_back_at=NOON)
ENDED_TIMES = {"next_try_at": None, "read_back_at": None}
OUTCOMES = [
    pytest.param(
        replace(BUSY, phase=Phase.REFUSED),
        lambda order: order.requested("CANCELLED", now=LATER),
        {"phase": "to_place", "desired_state": "CANCELLED", "reason": None, "attempts": 0}
        | {"next_try_at": LATER, "read_back_at": None},
        id="requested",
    ),
    pytest.param(
        replace(BUSY, accepted_state=None),
        lambda order: order.cancelled_before_placing(now=LATER),
        {"phase": "never_placed", "desired_state": "CANCELLED", "reason": "cancelled before it was placed"}
        | {"ended_at": LATER, **ENDED_TIMES},
        id="cancelled before placing",
    ),
    pytest.param(
        replace(BUSY, desired_state="CANCELLED"),
        lambda order: order.cancellation_held("it was shipped"),
        {"phase": "held", "desired_state": "AWAITING_SHIPMENT", "conflicting_state": "CANCELLED"}
        | {"reason": "it was shipped", **ENDED_TIMES},
        id="cancellation held",
    ),
    pytest.param(
        replace(BUSY, accepted_state=str(PENDING)),
        lambda order: order.cancellation_held("it was shipped", read_back_at=LATER),
        {"phase": "held", "conflicting_state": "CANCELLED", "reason": "it was shipped"}
        | {"next_try_at": None, "read_back_at": LATER},
        id="cancellation held before the released state was sent",
    ),
    pytest.param(
        replace(BUSY, phase=Phase.HELD, conflicting_state="CANCELLED"),
        lambda order: order.conflict_ended(now=LATER),
        {"phase": "to_place", "desired_state": "CANCELLED", "conflicting_state": None, "reason": None}
        | {"attempts": 0, "next_try_at": LATER, "read_back_at": None},
        id="conflict ended",
    ),
    pytest.param(
        replace(BUSY, next_try_at=LATER),
        lambda order: order.held_without_body("no body"),
        {"phase": "held", "reason": "no body", "next_try_at": None, "read_back_at": LATER},
        id="held without a body",
    ),
    pytest.param(
        BUSY,
        lambda order: order.postponed("503", until=LATER),
        {"reason": "503", "attempts": 4, "next_try_at": LATER},
        id="postponed",
    ),
    pytest.param(
        replace(BUSY, accepted_state=None),
        lambda order: order.refused("no such SKU"),
        {"phase": "refused", "reason": "no such SKU", **ENDED_TIMES},
        id="refused",
    ),
    pytest.param(
        replace(BUSY, next_try_at=LATER, read_back_at=None),
        lambda order: order.refused("no such state"),
        {"phase": "held", "reason": "no such state", "next_try_at": None, "read_back_at": LATER},
        id="refused after it was accepted",
    ),
    pytest.param(
        replace(BUSY, accepted_state=None, missing_since=NOON),
        lambda order: order.accepted("AWAITING_SHIPMENT", sent_at=NOON, now=LATER),
        {"phase": "settled", "accepted_state": "AWAITING_SHIPMENT", "placed_at": NOON, "reason": None}
        | {"attempts": 0, "missing_since": None, **ENDED_TIMES},
        id="accepted for the first time",
    ),
    pytest.param(
        replace(BUSY, desired_state="CANCELLED", placed_at=NOON),
        lambda order: order.accepted("CANCELLED", sent_at=LATER, now=LATER),
        {"phase": "closed", "accepted_state": "CANCELLED", "closed_at": LATER, "ended_at": LATER}
        | {"reason": None, "attempts": 0, "next_try_at": None, "read_back_at": LATER},
        id="accepted as final",
    ),
    pytest.param(
        replace(BUSY, accepted_state=None),
        lambda order: order.accepted("PENDING", sent_at=NOON, now=LATER),
        {"accepted_state": "PENDING", "placed_at": NOON, "reason": None, "attempts": 0, **ENDED_TIMES},
        id="accepted while another state is wanted already",
    ),
    pytest.param(
        replace(BUSY, phase=Phase.SETTLED, accepted_state="PENDING", desired_state="PENDING"),
        lambda order: order.followed("AWAITING_SHIPMENT"),
        {"accepted_state": "AWAITING_SHIPMENT", "desired_state": "AWAITING_SHIPMENT"},
        id="followed",
    ),
    pytest.param(
        replace(BUSY, phase=Phase.SETTLED),
        lambda order: order.closing("SHIPPED", at=LATER),
        {"closing_state": "SHIPPED", "closing_at": LATER},
        id="closing",
    ),
    pytest.param(
        replace(BUSY, phase=Phase.SETTLED, closing_state="SHIPPED", closing_at=NOON),
        lambda order: order.closed("SHIPPED", now=LATER),
        {"phase": "closed", "accepted_state": "SHIPPED", "desired_state": "SHIPPED", "reason": None}
        | {"closed_at": NOON, "ended_at": NOON, **ENDED_TIMES},
        id="closed by us",
    ),
    pytest.param(
        replace(BUSY, phase=Phase.SETTLED, closing_state="SHIPPED", closing_at=NOON),
        lambda order: order.closed("CANCELLED", now=LATER),
        {"phase": "closed", "accepted_state": "CANCELLED", "desired_state": "CANCELLED"}
        | {"reason": "closed elsewhere", "ended_at": LATER, **ENDED_TIMES},
        id="closed elsewhere",
    ),
    pytest.param(
        replace(BUSY, desired_state="CANCELLED", closing_state="SHIPPED", closing_at=NOON),
        lambda order: order.closed("SHIPPED", now=LATER),
        {"phase": "closed", "accepted_state": "SHIPPED", "desired_state": "SHIPPED", "closed_at": NOON}
        | {"ended_at": NOON, "reason": CANCELLED_TOO_LATE, "conflicting_state": "CANCELLED", **ENDED_TIMES},
        id="closed as shipped although it was cancelled",
    ),
    pytest.param(
        replace(BUSY, phase=Phase.SETTLED, accepted_state="PENDING", desired_state="PENDING"),
        lambda order: order.adopted("AWAITING_SHIPMENT", now=LATER),
        {"accepted_state": "AWAITING_SHIPMENT", "desired_state": "AWAITING_SHIPMENT", "reason": None}
        | {"attempts": 0, "next_try_at": None, "read_back_at": LATER},
        id="adopted",
    ),
    pytest.param(
        replace(BUSY, phase=Phase.HELD, conflicting_state="CANCELLED", accepted_state="PENDING"),
        lambda order: order.adopted("AWAITING_SHIPMENT", now=LATER),
        {"accepted_state": "AWAITING_SHIPMENT", "attempts": 0, "next_try_at": None, "read_back_at": LATER},
        id="adopted in a conflict",
    ),
    pytest.param(
        replace(BUSY, phase=Phase.CLOSED, accepted_state="SHIPPED", closed_at=NOON, first_put_at=NOON),
        lambda order: order.reopened("AWAITING_SHIPMENT", now=LATER),
        {"phase": "settled", "accepted_state": "AWAITING_SHIPMENT", "placed_at": NOON, "closed_at": None}
        | {"reason": "reopened: FeedAMP shows it open", "attempts": 0}
        | {"next_try_at": None, "read_back_at": LATER},
        id="reopened",
    ),
    pytest.param(
        replace(BUSY, phase=Phase.CLOSED, accepted_state="CANCELLED", closed_at=NOON),
        lambda order: order.sent_again("PENDING", now=LATER),
        {"phase": "to_place", "accepted_state": "PENDING", "desired_state": "CANCELLED", "closed_at": None}
        | {"reason": "FeedAMP shows PENDING again", "attempts": 0}
        | {"next_try_at": LATER, "read_back_at": None},
        id="sent again",
    ),
    pytest.param(
        replace(BUSY, phase=Phase.SETTLED, desired_state="PENDING"),
        lambda order: order.sent_again(None, now=LATER),
        {"phase": "to_place", "desired_state": "AWAITING_SHIPMENT", "reason": "FeedAMP has lost it"}
        | {"attempts": 0, "next_try_at": LATER, "read_back_at": None},
        id="sent again because it was lost",
    ),
]


@pytest.mark.parametrize(("order", "change", "expected"), OUTCOMES)
def test_a_transition_changes_exactly_this(
    order: LedgerOrder, change: Callable[[LedgerOrder], LedgerOrder], expected: dict[str, Any]
) -> None:
    changed = change(order)
    fields = order.__dataclass_fields__
    found = {
        name: getattr(changed, name) for name in fields if getattr(changed, name) != getattr(order, name)
    }
    assert found == {name: value for name, value in expected.items() if value != getattr(order, name)}
    assert {name: getattr(changed, name) for name in expected} == expected


def table() -> str:
    """The transitions as a table in Markdown."""
    rows = [
        f"| `{t.name}` | {', '.join(t.before)} | {', '.join(t.after)} | {t.meaning} |" for t in TRANSITIONS
    ]
    return "\n".join(["| change | from | to | what it means |", "|---|---|---|---|", *rows])


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("transition", TRANSITIONS, ids=lambda transition: transition.name)
def test_a_phase_allows_its_transitions_and_refuses_all_others(transition: Transition, phase: Phase) -> None:
    order = replace(ORDER, phase=phase)
    if phase in transition.before:
        assert make(transition, order).phase in transition.after
    else:
        with pytest.raises(IllegalTransitionError, match=f"is {phase}.*{transition.name}"):
            make(transition, order)


@pytest.mark.parametrize("desired", ["PENDING", "AWAITING_SHIPMENT", "SHIPPED"])
@pytest.mark.parametrize("state", ["PENDING", "AWAITING_SHIPMENT", "SHIPPED", "CANCELLED"])
@pytest.mark.parametrize("placed_at", [None, NOON])
def test_what_is_compared_decides_all_that_acceptance_changes(
    desired: str, state: str, placed_at: datetime | None
) -> None:
    """`ledger.save_accepted` counts on this."""
    fields = {"phase": Phase.TO_PLACE, "desired_state": desired, "placed_at": placed_at}
    assert fields.keys() == set(ACCEPTED_BY)
    others = {name for name in ORDER.__dataclass_fields__ if name not in CHANGED_BY_ACCEPTED}
    results = set()
    changed_since = replace(BUSY, accepted_state=None, missing_since=NOON, closed_at=NOON, ended_at=NOON)
    for order in (replace(one, **fields) for one in (ORDER, BUSY, changed_since)):
        after = order.accepted(state, sent_at=LATER, now=LATER)
        assert all(getattr(after, name) == getattr(order, name) for name in others)
        results.add(tuple(getattr(after, name) for name in CHANGED_BY_ACCEPTED))
    assert len(results) == 1


def test_each_phase_is_reached_and_only_never_placed_is_never_left() -> None:
    assert {phase for t in TRANSITIONS for phase in t.after} == set(Phase)
    assert set(Phase) - {phase for t in TRANSITIONS for phase in t.before} == {Phase.NEVER_PLACED}


def test_a_phase_cannot_be_changed_without_a_transition() -> None:
    with pytest.raises(IllegalTransitionError):
        ORDER.but(phase=Phase.CLOSED)


def test_times_to_try_and_to_read_back_end_with_the_phase() -> None:
    order = ORDER.but(next_try_at=NOON, read_back_at=NOON, desired_state=str(CANCELLED))
    held = order.cancellation_held("it was shipped")
    assert (held.next_try_at, held.read_back_at, held.desired_state) == (None, None, AWAITING_SHIPMENT)
    assert order.cancellation_held("unreadable", read_back_at=NOON).read_back_at == NOON


@pytest.mark.parametrize("place", ["docs/architecture.md", "include/feedamp/rules/order.py"])
def test_the_table_of_transitions_is_the_one_of_the_code(place: str) -> None:
    assert table() in (ROOT / place).read_text("utf-8")


def _names_phase(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "phase"


def _has_text(node: ast.AST) -> bool:
    return any(isinstance(n, ast.Constant) and isinstance(n.value, str) for n in ast.walk(node))


def test_no_code_compares_or_sets_a_phase_as_text() -> None:
    found = []
    for path in (path for path in packaged() if "phase" in text_of(path)):
        for node in ast.walk(tree_of(path)):
            compared = isinstance(node, ast.Compare) and any(map(_names_phase, ast.walk(node)))
            function = node.func if isinstance(node, ast.Call) else None
            asked = isinstance(function, ast.Attribute) and _names_phase(function.value)
            is_set = isinstance(node, ast.keyword) and node.arg == "phase"
            if (compared or asked or is_set) and _has_text(node):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno if hasattr(node, 'lineno') else ''}")
    assert found == []


def test_the_scan_for_phases_as_text_finds_them() -> None:
    for code in ('order.phase == "held"', 'c.phase.in_(("held",))', 'f(phase="held")'):
        nodes = list(ast.walk(ast.parse(code)))
        assert any(map(_names_phase, nodes)) or re.search(r"phase=", code)
        assert any(map(_has_text, nodes))


def test_the_module_says_which_transitions_there_are() -> None:
    assert len(TRANSITIONS) == len(
        re.findall(r"^    @_transition", inspect.getsource(order_module), re.MULTILINE)
    )


def test_an_order_has_all_of_its_fields_and_no_others() -> None:
    with pytest.raises(TypeError):
        ORDER.but(color="red")
    with pytest.raises(TypeError):
        LedgerOrder.of(["seller_id"], [["S1"]])
