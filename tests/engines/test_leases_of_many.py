"""Leases that are taken together, of which some are free, some held, and some left by a dead process."""

from __future__ import annotations

from contextlib import closing

import sqlalchemy as sa
from other_leases import DEAD, ELSEWHERE, leave_lease

from feedamp.state import State
from feedamp.state.leases import Lease
from feedamp.state.schema import leases as table


def take(state: State, *names: str) -> dict[str, Lease]:
    with state.begin() as connection:
        return state.leases.take(connection, names, asked_at=state.leases.elapsed())


def test_of_leases_taken_together_those_held_are_left_out(url: str) -> None:
    with closing(State(url)) as state:
        leave_lease(state, "held", ELSEWHERE)
        leave_lease(state, "left", DEAD)
        taken = take(state, "new", "left", "held", "other")
        assert {name: lease.was_left for name, lease in taken.items()} == {
            "new": False,
            "left": True,
            "other": False,
        }
        assert take(state, "other", "held", "new") == {}
        with state.read() as connection:
            rows = connection.execute(sa.select(table.c.name, table.c.owner, table.c.beat))
            assert {row.name: row[1:] for row in rows} == {
                "held": (ELSEWHERE, 0),
                **{name: (lease.owner, 0) for name, lease in taken.items()},
            }
