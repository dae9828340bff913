"""A state database of an earlier version is upgraded to the newest schema with all its rows."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta

from old_state import CLOSED_AT, make_old_state

from feedamp.state import HEAD, State, ledger


def test_orders_of_the_first_schema_are_read_as_before(tmp_path):
    url = f"sqlite:///{tmp_path}/state.db"
    make_old_state(url)
    with closing(State(url)) as state:
        assert state.current_revision() == HEAD
        with state.read() as connection:
            orders = ledger.read_many(connection, "S1", ["open", "closed", "elsewhere"])
    assert all(order.has_body and order.adopted_at is None for order in orders.values())
    assert (orders["open"].ended_at, orders["closed"].ended_at) == (None, CLOSED_AT)
    ended_at = orders["elsewhere"].ended_at
    assert ended_at is not None
    assert abs(ended_at - datetime.now(UTC)) < timedelta(minutes=5)
