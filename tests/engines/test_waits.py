"""What orders wait for is counted as if each were looked at."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from datetime import UTC, datetime
from itertools import product

import sqlalchemy as sa

from feedamp.rules.closing import waits_for
from feedamp.rules.order import Phase
from feedamp.state import State, overview, sellers
from feedamp.state.schema import orders, snapshots

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
SUMS, RELEASE, REFUSED = (
    "units do not add up yet",
    "not released for shipping",
    "FeedAMP answered 422: " + "x" * 9_000,
)
READS = (  # validated, what it waits for, whether a person must act
    None,
    (False, None, False),
    (False, SUMS, False),
    (False, SUMS, True),
    (True, None, False),
    (True, SUMS, False),
    (True, RELEASE, False),
    (True, REFUSED, True),
)


def order_row(key: dict[str, str], phase: Phase, *, missing: bool) -> dict[str, object]:
    texts = ("body", "body_hash", "desired_state", "delivered", "source", "row_hash")
    times = {"purchase_date": NOON, "taken_at": NOON, "missing_since": NOON if missing else None}
    return {**key, **dict.fromkeys(texts, ""), **times, "phase": phase, "source_row": 1, "attempts": 0}


def test_waits_of_settled_orders_are_counted_in_each_case(url: str) -> None:
    cases = product(Phase, ("S1", "S2", "gone"), (False, True), READS)
    asked: Counter[str] = Counter()
    phases: Counter[str] = Counter()
    with closing(State(url)) as state, state.begin() as connection:
        for seller_id in ("S1", "S2", "S3"):
            sellers.add(connection, seller_id, conn_id="feedamp", now=NOON)
        for number, (phase, seller_id, missing, read) in enumerate(cases):
            if phase == Phase.CLOSED and read is not None:
                continue  # its snapshot goes when it is closed
            key = {"seller_id": seller_id, "mp_order_number": f"M-{number}"}
            connection.execute(sa.insert(orders), [order_row(key, phase, missing=missing)])
            phases[phase] += 1
            validated, reason, acts = read or (None, None, None)
            if read is not None:
                row = {"read_at": NOON, "snapshot_hash": "new", "snapshot": "{}", "closable": False}
                row |= {"validated_hash": "new" if validated else None, "waits_for": reason}
                connection.execute(sa.insert(snapshots), [{**key, **row, "needs_person": acts}])
            if phase == Phase.SETTLED:
                asked[waits_for(seller_id != "gone", missing, read is not None, validated, reason)] += 1
        assert overview.count_by_phase(connection) == phases
        assert dict(overview.waits_of_settled(connection, phases["settled"])) == asked


def test_nothing_waits_in_an_empty_ledger(url: str) -> None:
    with closing(State(url)) as state, state.read() as connection:
        assert (overview.waits_of_settled(connection, 0), overview.count_by_phase(connection)) == ([], {})
