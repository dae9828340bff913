"""Leases on work that two processes must not do at the same time; they end by heartbeat.

A holder renews its leases every `heartbeat_s`. A lease is free as soon as its owner is known to be dead, which a process
of the same machine sees immediately. A process of another machine must itself see the same heartbeat for `free_after_s`.
Only its own monotonic clock counts, so wrong clocks do no harm.

A holder cannot renew while the store is away, so that time does not count: a look that fails or takes long starts the
time again. A look also writes, so that it fails where a heartbeat would fail.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.sql.dml import ReturningInsert

from feedamp.errors import BusyError
from feedamp.state.lease_owner import is_dead, new_owners
from feedamp.state.many_rows import execute_many
from feedamp.state.reconnect import STATE_ERRORS
from feedamp.state.schema import leases
from feedamp.state.statements import Insert, as_list, insert, is_listed

log = logging.getLogger(__name__)
_ENDS_WITHIN_S = 1.0
_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", None)

_DROP = sa.delete(leases).where(leases.c.name == sa.bindparam("of_name"))
_ARE_HELD = is_listed([leases.c.name, leases.c.owner])
_RELEASE = sa.delete(leases).where(_ARE_HELD)
_RENEW = sa.update(leases).where(_ARE_HELD).values(beat=leases.c.beat + 1).returning(leases.c.owner)
_LOCK = sa.select(leases.c.name).where(is_listed([leases.c.name])).order_by(leases.c.name).with_for_update()


@dataclass(frozen=True)
class LeaseTimes:
    """All times of leases, in seconds; tests shorten them."""

    heartbeat_s: float = 5.0
    free_after_s: float = 20.0
    # How often a lease is looked at by a process that waits for it, and for how long at most.
    look_every_s: float = 0.5
    watched_s: float = 60.0
    # If a look takes longer, or the one before is longer ago, the store may have been away meanwhile.
    longest_look_s: float = 2.0
    longest_gap_s: float = 5.0


@dataclass(frozen=True)
class _Sighting:
    """A heartbeat (owner and count) of another process, seen at each look since a moment of this process's clock."""

    heartbeat: tuple[str, int | None]
    since: float
    last_look: float


def of_order(work: str, seller_id: str, mp_order_number: str) -> str:
    """The name of a lease on one order; `work` is place, report or close. The same work has the same name."""
    return f"{work}/{seller_id}/{mp_order_number}"


def of_refresh(seller_id: str) -> str:
    """The name of the lease on refreshing a seller's token."""
    return f"refresh/{seller_id}"


def drop(connection: Connection, name: str) -> None:
    """Removes a lease, whoever holds it: its work is done or no longer wanted. Safe to repeat."""
    connection.execute(_DROP, {"of_name": name})


def release(connection: Connection, held: Collection[Lease]) -> None:
    """Removes leases of this process; once the transaction is committed, they are to be marked as released."""
    _lock(connection, [lease.name for lease in held])
    connection.execute(_RELEASE, {"listed": _listed(held)})


def _lock(connection: Connection, names: Collection[str]) -> None:
    """Locks the rows that exist in one order on a server: a heartbeat and another of several would wait for each other."""
    if len(names) > 1 and connection.dialect.name != "sqlite":
        connection.execute(_LOCK, {"listed": as_list((name,) for name in names)}).all()


def _listed(held: Collection[Lease]) -> str:
    return as_list((lease.name, lease.owner) for lease in held)


@cache
def _take_free(dialect: str) -> Insert:
    return insert(dialect, leases).on_conflict_do_nothing()


@cache
def _take(dialect: str) -> ReturningInsert[Any]:
    statement = insert(dialect, leases)
    unchanged = {"owner": leases.c.owner}
    return statement.on_conflict_do_update(index_elements=["name"], set_=unchanged).returning(leases)


def elapsed_s() -> float:
    """A monotonic clock that, on Linux, also counts the time in which the machine was suspended."""
    return time.monotonic() if _BOOTTIME is None else time.clock_gettime(_BOOTTIME)


class Lease:
    """A lease that this process has taken.

    `was_left` is true if it was taken over from a process that died or stopped renewing. While `has_open_outcome` is
    true, an exception leaves the lease behind, as the death of the process would. `is_released`: a transaction has removed it.
    """

    def __init__(self, of: Leases, name: str, owner: str, *, was_left: bool, renewed_at: float) -> None:
        self._of = of
        self.name = name
        self.owner = owner
        self.was_left = was_left
        self.has_open_outcome = self.is_released = False
        self.renewed_at = renewed_at  # before the request was sent to the database, by the clock of `Leases`

    def is_held(self) -> bool:
        """Whether no other process can have taken it; call this immediately before the work takes effect.

        The database is asked only if the last heartbeat is old, for example because this process was stopped.
        """
        return self._of.is_recent(self) or self.renew()

    def require(self, otherwise: BusyError) -> None:
        """Raises the error unless `is_held`."""
        if not self.is_held():
            raise otherwise

    def renew(self) -> bool:
        """Renews it now; False if another process has taken it."""
        return self.owner in self._of.renew([self])


class Leases:
    """The leases of one state database, as one process takes and sees them. Its methods can be called in any thread."""

    def __init__(
        self,
        begin: Callable[..., AbstractContextManager[Connection]],
        now: Callable[[], datetime],
        times: LeaseTimes,
        elapsed: Callable[[], float] = elapsed_s,
    ) -> None:
        self._begin = begin
        self._now = now
        self._times = times
        self.elapsed = elapsed
        self._sightings: dict[str, _Sighting] = {}
        self._held: dict[str, Lease] = {}  # by owner; an owner name belongs to one lease
        self._lock = threading.Lock()  # of `_held` and `_thread`
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()

    @contextmanager
    def hold(
        self,
        name: str,
        *,
        of: Collection[str] = (),
        once_taken: Callable[[Connection], None] = lambda connection: None,
    ) -> Iterator[Lease | None]:
        """Takes a lease, renews it by heartbeat during the block, and releases it; None if another process holds it.

        `once_taken` is called in the transaction that takes it, which is of these sellers, as `State.begin` says.
        """
        asked_at = self.elapsed()
        try:
            with self._begin(of=of) as connection:
                taken = self.take(connection, [name], asked_at=asked_at)
                if taken:
                    once_taken(connection)
        except STATE_ERRORS:
            self._sightings.pop(name, None)
            raise
        self.keep(taken.values())
        if name not in taken:
            yield None
            return
        lease = taken[name]
        try:
            yield lease
            lease.has_open_outcome = False
        finally:
            self.end(lease)

    def end(self, lease: Lease) -> None:
        """Ends a lease: it is no longer renewed, and released, unless it is already or `has_open_outcome`."""
        with self._lock:
            self._held.pop(lease.owner, None)
        if not lease.has_open_outcome and not lease.is_released:
            self._release(lease)

    def take(self, connection: Connection, names: Collection[str], *, asked_at: float) -> dict[str, Lease]:
        """Takes leases, by name, in a transaction of the caller; those that other processes hold are left out.

        `asked_at` is from before the transaction began, by `elapsed`. Once it is committed, call `keep`, so that they are
        renewed.
        """
        owners = dict(zip(names, new_owners(len(names)), strict=True))
        if not owners:
            return {}
        new = [{"name": name, "owner": owner, "beat": 0, "until": None} for name, owner in owners.items()]
        left: dict[str, sa.Row[Any]] = {}
        # Nearly always all are free, and to return a row takes SQLAlchemy longer than it takes a database to store it.
        if execute_many(connection, _take_free(connection.dialect.name), new) < len(new):
            _lock(connection, names)
            # Where a row exists, it is locked by this, so that its holder cannot renew it meanwhile.
            rows = connection.execute(_take(connection.dialect.name), new).all()
            left = {row.name: row for row in rows if row.owner != owners[row.name]}
        busy = {name for name, row in left.items() if not self._is_free(row, began=asked_at)}
        mine = [name for name in owners if name not in busy]
        for name in mine:
            if name in left:
                taken = {"owner": owners[name], "beat": 0, "until": None}
                connection.execute(sa.update(leases).where(leases.c.name == name).values(**taken))
            self._sightings.pop(name, None)
        return {
            name: Lease(self, name, owners[name], was_left=name in left, renewed_at=asked_at) for name in mine
        }

    def keep(self, taken: Iterable[Lease]) -> None:
        """Renews leases by heartbeat from now on, until `end`."""
        with self._lock:
            self._held.update((lease.owner, lease) for lease in taken)
            if self._held and (self._thread is None or not self._thread.is_alive()):
                # A thread does not survive a fork.
                self._thread = threading.Thread(
                    target=self._keep_renewing, name="feedamp-leases", daemon=True
                )
                self._thread.start()

    async def watch(self, work: str, seller_id: str, mp_order_numbers: Iterable[str]) -> None:
        """Waits as `looks` does, for leases on orders; does not block the event loop between two looks."""
        for wait_s in self.looks(of_order(work, seller_id, number) for number in mp_order_numbers):
            await asyncio.sleep(wait_s)

    def looks(self, names: Iterable[str]) -> Iterator[float]:
        """Looks at leases until `hold` can take each, or its holder has renewed it; ends after `watched_s` at the latest.

        Yields:
            The seconds to sleep before the next look.
        """
        give_up_at = self.elapsed() + self._times.watched_s
        undecided, first = set(names), dict[str, tuple[str, int | None]]()
        while undecided and self.elapsed() < give_up_at:
            try:
                found = self._look(undecided)
            except STATE_ERRORS as error:
                log.info("A lease cannot be looked at (%s); it is tried again.", type(error).__name__)
            else:
                first = {name: (row.owner, row.beat) for name, (row, _) in found.items()} | first
                undecided = {
                    name
                    for name, (row, is_free) in found.items()
                    if not is_free and first[name] == (row.owner, row.beat)
                }
            if undecided:
                yield self._times.look_every_s

    def clear(self, connection: Connection, name: str) -> bool:
        """Removes a lease that is free; False if a process holds it. Until the transaction ends, none can take it."""
        # Also locks the row on a server, so that its holder cannot renew it before it is removed.
        locked = sa.update(leases).where(leases.c.name == name).values(owner=leases.c.owner)
        row = connection.execute(locked.returning(leases)).first()
        if row is not None and not self._is_free(row, began=self.elapsed()):
            return False
        drop(connection, name)
        return True

    def is_recent(self, lease: Lease) -> bool:
        """Whether the last heartbeat is less than `unasked_s` ago, half of `free_after_s`."""
        return self.elapsed() - lease.renewed_at < self.unasked_s

    @property
    def unasked_s(self) -> float:
        """For so long after a heartbeat, the holder of a lease does not ask whether it still has it."""
        return self._times.free_after_s / 2

    def renew(self, held: Collection[Lease]) -> set[str]:
        """Renews leases; returns the owner names of those that no other process has taken."""
        began = self.elapsed()
        with self._begin(alone=False) as connection:
            _lock(connection, [lease.name for lease in held])
            renewed = set(connection.execute(_RENEW, {"listed": _listed(held)}).scalars())
        for lease in held:
            if lease.owner in renewed:
                lease.renewed_at = began
        return renewed

    def close(self) -> None:
        """Ends the thread that renews leases, unless some are still held."""
        self._wake.set()
        thread = self._thread
        if thread is not None and not self._held:
            thread.join(_ENDS_WITHIN_S)  # longer only if the database is stalled

    def _release(self, lease: Lease) -> None:
        try:
            with self._begin(alone=False) as connection:
                release(connection, [lease])
        except STATE_ERRORS as error:  # the work is done, and the lease ends by itself
            log.info("The lease %s is not released (%s).", lease.name, type(error).__name__)

    def _look(self, names: Collection[str]) -> dict[str, tuple[sa.Row[Any], bool]]:
        """The leases that exist, and whether each is free."""
        began = self.elapsed()
        statement = sa.update(leases).where(leases.c.name.in_(names)).values(owner=leases.c.owner)
        try:
            with self._begin() as connection:
                _lock(connection, names)
                rows = connection.execute(statement.returning(leases)).all()
        except STATE_ERRORS:
            for name in names:
                self._sightings.pop(name, None)
            raise
        return {row.name: (row, self._is_free(row, began=began)) for row in rows}

    def _is_free(self, row: sa.Row[Any], *, began: float) -> bool:
        """Records what was seen by a look that began at a moment, and decides."""
        if row.beat is None or row.until is not None:  # taken by a version that did not renew leases
            return is_dead(row.owner) or (row.until is not None and row.until < self._now())
        ended, heartbeat = self.elapsed(), (row.owner, row.beat)
        before = self._sightings.get(row.name)
        if (
            before is None
            or before.heartbeat != heartbeat
            or ended - began > self._times.longest_look_s
            or ended - before.last_look > self._times.longest_gap_s
        ):
            before = _Sighting(heartbeat, ended, ended)
        self._sightings[row.name] = _Sighting(heartbeat, before.since, ended)
        return is_dead(row.owner) or began - before.since >= self._times.free_after_s

    def _keep_renewing(self) -> None:
        wait_s = self._times.heartbeat_s
        while True:
            self._wake.wait(wait_s)
            self._wake.clear()
            with self._lock:
                held = list(self._held.values())
                if not held:
                    self._thread = None
                    return
            try:
                self.renew(held)
                wait_s = self._times.heartbeat_s
            except STATE_ERRORS as error:
                log.info("Leases cannot be renewed (%s); this is tried again.", type(error).__name__)
                wait_s = self._times.look_every_s
