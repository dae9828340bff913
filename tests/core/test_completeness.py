"""Which rows lake and warehouse must hold for an order of the ledger, and which rows a repair writes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from feedamp.rules.expected_rows import (
    LedgerFact,
    expected_rows,
    placements_to_restore,
)

TAKEN = datetime(2026, 3, 10, 12, tzinfo=UTC)
SENT, PLACED, CLOSED = (TAKEN + timedelta(minutes=at) for at in (1, 2, 3))
OPEN = LedgerFact(
    "S1",
    "M-1",
    phase="settled",
    accepted_state="AWAITING_SHIPMENT",
    placed_at=PLACED,
    first_put_at=SENT,
    taken_at=TAKEN,
    adopted_at=None,
    closing_state=None,
    closed_at=None,
    read_at=None,
)
WAITING = replace(OPEN, phase="to_place", accepted_state=None, placed_at=None)
SHIPPED = replace(OPEN, phase="closed", accepted_state="SHIPPED", closing_state="SHIPPED", closed_at=CLOSED)
CANCELLED = replace(OPEN, phase="closed", accepted_state="CANCELLED", closed_at=CLOSED)
ADOPTED = replace(OPEN, adopted_at=PLACED, first_put_at=PLACED)


@pytest.mark.parametrize(
    ("fact", "tables"),
    [
        pytest.param(OPEN, ["placements AWAITING_SHIPMENT", "orders"], id="placed and open"),
        pytest.param(
            replace(OPEN, accepted_state="PENDING"),
            ["placements PENDING", "orders"],
            id="placed, not released",
        ),
        pytest.param(WAITING, [], id="not placed yet"),
        pytest.param(replace(WAITING, read_at=CLOSED), ["orders"], id="shown, though its PUT got no answer"),
        pytest.param(replace(WAITING, phase="refused"), [], id="refused"),
        pytest.param(SHIPPED, ["placements", "closures", "orders"], id="closed by us"),
        pytest.param(CANCELLED, ["placements CANCELLED", "orders"], id="cancelled by the marketplace"),
        pytest.param(
            replace(CANCELLED, closing_state="SHIPPED"),
            ["placements CANCELLED", "orders"],
            id="cancelled by the marketplace after a closing that failed",
        ),
        pytest.param(
            replace(SHIPPED, closing_state=None, closed_at=None),
            ["placements", "orders"],
            id="closed elsewhere",
        ),
        pytest.param(ADOPTED, ["orders"], id="adopted"),
        pytest.param(
            replace(SHIPPED, adopted_at=PLACED, first_put_at=PLACED),
            ["closures", "orders"],
            id="adopted and closed",
        ),
        pytest.param(
            replace(OPEN, placed_at=SENT), ["orders"], id="found open by a reconciliation, never answered"
        ),
        pytest.param(
            replace(OPEN, phase="held"), ["placements AWAITING_SHIPMENT", "orders"], id="held as a conflict"
        ),
    ],
)
def test_an_order_must_have_its_rows(fact: LedgerFact, tables: list[str]) -> None:
    found = [
        f"{expected.table} {expected.row.get('marketplace_state', '')}".strip()
        for expected in expected_rows(fact)
    ]
    assert found == tables


@pytest.mark.parametrize(
    ("fact", "moment"),
    [
        pytest.param(OPEN, "null", id="an open order that was never shown"),
        pytest.param(replace(OPEN, read_at=CLOSED), CLOSED, id="an open order with a snapshot"),
        pytest.param(SHIPPED, "any", id="a closed order"),
        pytest.param(replace(OPEN, first_put_at=None), "any", id="an order whose snapshots are not kept"),
    ],
)
def test_the_row_of_an_order_is_of_the_moment_of_its_snapshot(fact: LedgerFact, moment: object) -> None:
    [row] = [expected.row for expected in expected_rows(fact) if expected.table == "orders"]
    assert row.get("extracted_at", "any") == (None if moment == "null" else moment)


@pytest.mark.parametrize(
    ("fact", "has_any", "rows"),
    [
        pytest.param(OPEN, False, [("AWAITING_SHIPMENT", PLACED)], id="placed and open"),
        pytest.param(
            replace(OPEN, accepted_state="PENDING"), False, [("PENDING", PLACED)], id="not released"
        ),
        pytest.param(SHIPPED, False, [("AWAITING_SHIPMENT", PLACED)], id="closed by us"),
        pytest.param(
            CANCELLED,
            False,
            [("AWAITING_SHIPMENT", PLACED), ("CANCELLED", CLOSED)],
            id="cancelled by the marketplace",
        ),
        pytest.param(CANCELLED, True, [("CANCELLED", CLOSED)], id="only the cancellation is missing"),
        pytest.param(ADOPTED, False, [], id="adopted"),
    ],
)
def test_a_repair_writes_what_the_ledger_knows(
    fact: LedgerFact, has_any: bool, rows: list[tuple[str, datetime]]
) -> None:
    written = placements_to_restore(fact, has_any=has_any)
    assert [(row["marketplace_state"], row["placed_at"]) for row in written] == rows
