"""Leases: one owner at a time, and what happens when the owner dies."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from wire import Clock, opened_state

from feedamp.state import State, leases
from feedamp.state.lease_owner import is_dead, new_owner
from feedamp.state.schema import leases as table

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
INCLUDE = Path(leases.__file__).parents[2]
HOLD = "from feedamp.state.lease_owner import new_owner\nprint(new_owner(), flush=True)\n"


@pytest.fixture
def state():
    with opened_state(Clock()) as opened:
        yield opened


def take(state: State, now: datetime = NOON) -> str | None:
    with state.begin() as connection:
        return leases.take(connection, "close/S1/M-1", now=now)


def hand_to(state: State, holder: str) -> None:
    with state.begin() as connection:
        connection.execute(sa.update(table).values(owner=holder))


def holder_of_a_process(*, ends: bool) -> tuple[str, subprocess.Popen[str]]:
    """The name under which another process owns a lease, and that process, which is killed if `ends`."""
    source = HOLD if ends else f"{HOLD}import sys\nsys.stdin.read()\n"
    process = subprocess.Popen(
        [sys.executable, "-c", source],
        env={"PYTHONPATH": str(INCLUDE)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    holder = process.stdout.readline().strip()
    if ends:
        process.kill()
        process.wait(10)
    return holder, process


def test_a_lease_has_one_owner_until_it_is_released(state):
    mine = take(state)
    assert take(state) is None
    with state.begin() as connection:
        leases.release(connection, "close/S1/M-1", mine)
    assert take(state)


def test_a_lease_ends_by_its_time(state):
    assert take(state)
    assert take(state, NOON + leases.LASTS - timedelta(seconds=1)) is None
    assert take(state, NOON + leases.LASTS + timedelta(seconds=1))


def test_the_lease_of_a_dead_process_of_this_machine_is_free_immediately(state):
    assert take(state)
    holder, process = holder_of_a_process(ends=True)
    process.communicate()
    hand_to(state, holder)
    assert take(state)


def test_the_lease_of_a_living_process_is_not_free(state):
    assert take(state)
    holder, process = holder_of_a_process(ends=False)
    hand_to(state, holder)
    assert take(state) is None
    process.communicate()


@pytest.mark.parametrize(
    "holder",
    [
        pytest.param("abcdef.1.1.0", id="of another machine"),
        pytest.param("0123456789abcdef0123456789abcdef", id="of an earlier version"),
        pytest.param("", id="of no one"),
    ],
)
def test_an_owner_that_cannot_be_checked_does_not_count_as_dead(holder):
    assert not is_dead(holder)


def test_a_process_that_reuses_a_dead_ones_pid_is_a_different_owner():
    machine, pid, began, _ = new_owner().split(".")
    assert not is_dead(f"{machine}.{pid}.{began}.0")
    assert is_dead(f"{machine}.{pid}.{int(began) + 1}.0")


def test_an_owner_name_fits_its_column_and_is_never_repeated():
    holders = {new_owner() for _ in range(100)}
    assert len(holders) == 100
    assert max(map(len, holders)) <= table.c.owner.type.length
