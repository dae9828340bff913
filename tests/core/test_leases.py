"""Leases: one owner at a time, its heartbeat, and what happens when it stops (promises 5 to 7)."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import pytest
import sqlalchemy as sa
from other_leases import QUICK, leases_of_another_process, leave_lease, use_quick_leases
from sqlalchemy.exc import OperationalError

from crashes.clock import Clock
from feedamp.errors import BusyError
from feedamp.state import lease_owner
from feedamp.state.lease_owner import is_dead, new_owner
from feedamp.state.leases import Leases, LeaseTimes
from feedamp.state.schema import leases as table

# The file alone: the rest of the package would take half a second to import.
HOLD = "import runpy, sys\nprint(runpy.run_path(sys.argv[1])['new_owner'](), flush=True)\nsys.stdin.read()\n"
NAME = "close/S1/M-1"
TIMES = LeaseTimes()


@pytest.fixture
def seconds():
    return Clock(keeps_still=True)


@pytest.fixture
def other(state, seconds):
    return leases_of_another_process(state, seconds)


def takes(of: Leases) -> bool:
    with of.hold(NAME) as lease:
        return lease is not None


def watch(of: Leases, seconds: Clock, span: float) -> bool:
    """Whether it could take the lease at any of its looks, two a second."""
    for _ in range(round(2 * span)):
        seconds.skip(seconds=0.5)
        if takes(of):
            return True
    return False


@contextmanager
def owner_elsewhere() -> Iterator[str]:
    """The name under which another process owns a lease; the process is killed in the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, lease_owner.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    yield process.stdout.readline().strip()
    process.kill()
    process.communicate()


def test_a_lease_has_one_owner_until_it_is_released(state, other):
    with state.leases.hold(NAME) as lease:
        assert lease is not None
        assert not takes(other)
        assert not takes(state.leases)
    assert takes(other)


def test_a_lease_is_free_when_the_same_heartbeat_was_seen_for_20_s(state, seconds, other):
    leave_lease(state, NAME)
    assert not takes(other)
    assert not watch(other, seconds, TIMES.free_after_s - 0.5)
    assert watch(other, seconds, 0.5)


def test_each_heartbeat_starts_the_time_again(state, seconds, other):
    with state.leases.hold(NAME) as lease:
        for _ in range(3):
            assert not watch(other, seconds, TIMES.free_after_s - 0.5)
            assert lease.renew()
        assert watch(other, seconds, TIMES.free_after_s + 0.5)
        assert not lease.renew()


def test_a_process_counts_only_what_it_has_seen_itself(state, seconds, other):
    leave_lease(state, NAME)
    assert not watch(other, seconds, TIMES.free_after_s - 0.5)
    late = leases_of_another_process(state, seconds)
    assert not watch(late, seconds, TIMES.free_after_s - 0.5)


def test_no_wall_clock_ends_a_lease(state, clock, other):
    leave_lease(state, NAME)
    assert not takes(other)
    clock.skip(seconds=400 * 86_400)
    assert not takes(other)


@pytest.mark.parametrize("trouble", ["it fails", "it takes long", "no one looked"])
def test_time_in_which_the_store_was_away_does_not_count(state, seconds, trouble):
    away = []

    @contextmanager
    def begin(**options):
        if away:
            seconds.skip(seconds=3)
            if trouble == "it fails":
                raise OperationalError("", {}, Exception("the store is away"))
        with state.begin(**options) as connection:
            yield connection

    other = Leases(begin, state.now, TIMES, seconds.elapsed_s)
    leave_lease(state, NAME)
    assert not watch(other, seconds, 15)
    if trouble == "no one looked":
        seconds.skip(seconds=TIMES.longest_gap_s + 1)
    else:
        away.append(trouble)
        with suppress(OperationalError):
            takes(other)
        away.clear()
    assert not watch(other, seconds, TIMES.free_after_s - 0.5)
    assert watch(other, seconds, 1)


def test_the_lease_of_a_process_of_this_machine_is_free_once_that_is_dead(state):
    with owner_elsewhere() as owner:
        leave_lease(state, NAME, owner)
        assert not takes(state.leases)
    with state.leases.hold(NAME) as lease:
        assert lease.was_left


def test_a_lease_outlives_a_process_whose_main_thread_is_busy(state):
    use_quick_leases(state)
    with state.leases.hold(NAME):
        give_up_at = time.monotonic() + 3 * QUICK.free_after_s
        while time.monotonic() < give_up_at:  # as a long computation would, without an event loop
            time.sleep(QUICK.heartbeat_s)
            with state.read() as connection:
                if connection.execute(sa.select(table.c.beat)).scalar_one() >= 3:
                    return
    pytest.fail("it was not renewed three times")


def test_whoever_waits_learns_soon_that_the_holder_lives(state):
    use_quick_leases(state)
    waiting = Leases(state.begin, state.now, QUICK)
    with state.leases.hold(NAME):
        looks = [time.sleep(wait_s) for wait_s in waiting.looks([NAME, "close/S1/M-2"])]
        assert 0 < len(looks) < QUICK.free_after_s / QUICK.look_every_s
        assert not takes(waiting)
    leave_lease(state, NAME)
    for wait_s in waiting.looks([NAME]):
        time.sleep(wait_s)
    assert takes(waiting)


def test_a_holder_that_was_stopped_notices_that_another_has_taken_over(state, seconds, other):
    own_seconds = Clock(keeps_still=True)
    stopped = leases_of_another_process(state, own_seconds)
    busy = BusyError("Another process has it.")
    with stopped.hold(NAME) as lease:
        lease.require(busy)
        assert watch(other, seconds, TIMES.free_after_s + 1)
        with other.hold(NAME):
            own_seconds.skip(seconds=TIMES.free_after_s)
            with pytest.raises(BusyError):
                lease.require(busy)


def test_a_holder_that_was_stopped_goes_on_if_no_one_has_taken_over(state, seconds, other):
    with other.hold(NAME) as lease:
        seconds.skip(seconds=400)
        assert lease.is_held()
        assert lease.renewed_at == seconds.elapsed_s()


def test_a_late_process_does_not_release_the_lease_of_the_next(state, seconds, other):
    with state.leases.hold(NAME):
        assert watch(other, seconds, TIMES.free_after_s + 1)
        next_owner = other.hold(NAME)
        assert next_owner.__enter__() is not None
    assert not takes(leases_of_another_process(state, seconds))
    next_owner.__exit__(None, None, None)


@pytest.mark.parametrize("is_open", [True, False])
def test_an_error_leaves_a_lease_behind_only_if_the_outcome_is_open(state, is_open):
    with suppress(ZeroDivisionError), state.leases.hold(NAME) as lease:
        lease.has_open_outcome = is_open
        1 / 0  # noqa: B018
    assert takes(state.leases) is not is_open


def test_a_lease_of_an_earlier_version_ends_at_its_time(state, clock, seconds, other):
    """Such a process does not renew its leases, and some of its work takes minutes."""
    until = state.now() + timedelta(minutes=5)
    with state.begin() as connection:
        connection.execute(sa.insert(table).values(name=NAME, owner="abcdef.1.1.0", until=until))
    assert not watch(other, seconds, 3 * TIMES.free_after_s)
    clock.skip(seconds=301)
    with other.hold(NAME) as lease:
        assert lease.was_left


@pytest.mark.parametrize(
    "owner",
    [
        pytest.param("abcdef.1.1.0", id="of another machine"),
        pytest.param("0123456789abcdef0123456789abcdef", id="of an earlier version"),
        pytest.param("", id="of no one"),
    ],
)
def test_an_owner_that_cannot_be_checked_does_not_count_as_dead(owner):
    assert not is_dead(owner)


def test_a_process_that_reuses_a_dead_ones_pid_is_a_different_owner():
    machine, pid, began, _ = new_owner().split(".")
    assert not is_dead(f"{machine}.{pid}.{began}.0")
    assert is_dead(f"{machine}.{pid}.{int(began) + 1}.0")


def test_an_owner_name_fits_its_column_and_is_never_repeated():
    owners = {new_owner() for _ in range(100)}
    assert len(owners) == 100
    assert max(map(len, owners)) <= table.c.owner.type.length
