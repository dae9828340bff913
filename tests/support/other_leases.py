"""Leases as another process sees them, on a clock that tests move, and times that are over in a moment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from crashes.clock import Clock
from feedamp.state import State
from feedamp.state.lease_owner import new_owner
from feedamp.state.leases import Leases, LeaseTimes
from feedamp.state.schema import leases as table

# No process of this machine has such a name, so only its silence shows that it is dead.
ELSEWHERE = "abcdef.1.1.0"
_machine, _pid, _began, _ = new_owner().split(".")
DEAD = f"{_machine}.{_pid}.{int(_began) + 1}.0"  # a process of this machine that has ended
QUICK = LeaseTimes(heartbeat_s=0.05, free_after_s=0.4, look_every_s=0.02)


def leases_of_another_process(state: State, clock: Clock) -> Leases:
    """With the times of production; only `clock` says how much time has passed."""
    return Leases(state.begin, state.now, LeaseTimes(), clock.elapsed_s)


def use_quick_leases(state: State) -> None:
    state.leases = Leases(state.begin, state.now, QUICK)


def leave_lease(state: State, name: str, owner: str = ELSEWHERE) -> None:
    """A lease whose process has died in the middle of the work, on another machine."""
    with state.begin() as connection:
        connection.execute(sa.insert(table).values(name=name, owner=owner, beat=0))


@contextmanager
def held_elsewhere(state: State, *names: str) -> Iterator[None]:
    """Leases of a process that is alive, with the heartbeat of `QUICK`."""
    other = Leases(state.begin, state.now, QUICK)
    holds = [other.hold(name) for name in names]
    for hold in holds:
        assert hold.__enter__() is not None
    try:
        yield
    finally:
        for hold in holds:
            hold.__exit__(None, None, None)
