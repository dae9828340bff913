"""What validations of many orders find is stored of each as it was found."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta

from feedamp.models import Snapshot
from feedamp.state import State, open_orders
from feedamp.state.open_orders import StoredSnapshot

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
SUMS, LISTED = "units do not add up yet", "FeedAMP still lists an error that looks resolved"
# closable, waits_for, needs_person, error_lingers_since
FOUND = [
    (True, None, False, None),
    (False, LISTED, False, NOON),
    (False, LISTED, True, NOON - timedelta(days=4)),
    (False, LISTED, False, NOON - timedelta(days=1)),
    *[(False, SUMS, False, None)] * 501,  # more than one statement takes
]


def test_each_order_of_a_batch_keeps_its_own_result(url: str) -> None:
    numbers = [f"M-{number}" for number in range(len(FOUND) + 1)]
    with closing(State(url)) as state, state.begin() as connection:
        for number in numbers:
            open_orders.keep(connection, "S1", Snapshot(mp_order_number=number), read_at=NOON)
        *stored, left = open_orders.read_all(connection, [("S1", number) for number in numbers]).values()
        names = ("closable", "waits_for", "needs_person", "error_lingers_since")
        results = [dict(zip(names, found, strict=True)) for found in FOUND]
        known = [one for one in stored if isinstance(one, StoredSnapshot)]
        open_orders.record_validations(connection, zip(known, results, strict=True))
        for one, found in zip(known, FOUND, strict=True):
            after = open_orders.read(connection, "S1", one.mp_order_number)
            assert after is not None
            assert tuple(getattr(after, name) for name in names) == found
            assert after.validated_hash == one.snapshot_hash
        assert isinstance(left, StoredSnapshot)
        assert open_orders.read(connection, "S1", left.mp_order_number) == left
