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
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.errors import BusyError
from feedamp.state.lease_owner import is_dead, new_owner
from feedamp.state.reconnect import STATE_ERRORS
from feedamp.state.schema import leases
from feedamp.state.statements import insert

log = logging.getLogger(__name__)
_ENDS_WITHIN_S = 1.0


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
    connection.execute(sa.delete(leases).where(leases.c.name == name))


def elapsed_s() -> float:
    """A monotonic clock that, on Linux, also counts the time in which the machine was suspended."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)


class Lease:
    """A lease that this process has taken.

    `was_left` is true if it was taken over from a process that died or stopped renewing. While `has_open_outcome` is
    true, an exception leaves the lease behind, as the death of the process would.
    """

    def __init__(self, of: Leases, name: str, owner: str, *, was_left: bool, renewed_at: float) -> None:
        self._of = of
        self.name = name
        self.owner = owner
        self.was_left = was_left
        self.has_open_outcome = False
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
        self._elapsed = elapsed
        self._sightings: dict[str, _Sighting] = {}
        self._held: dict[str, Lease] = {}  # by owner; an owner name belongs to one lease
        self._lock = threading.Lock()  # of `_held` and `_thread`
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()

    @contextmanager
    def hold(self, name: str) -> Iterator[Lease | None]:
        """Takes a lease, renews it by heartbeat during the block, and releases it; None if another process holds it."""
        lease = self._take(name)
        if lease is None:
            yield None
            return
        try:
            yield lease
            lease.has_open_outcome = False
        finally:
            with self._lock:
                self._held.pop(lease.owner, None)
            if not lease.has_open_outcome:
                self._release(lease)

    async def watch(self, work: str, seller_id: str, mp_order_numbers: Iterable[str]) -> None:
        """Waits as `looks` does, for leases on orders; does not block the event loop between two looks."""
        for wait_s in self.looks(of_order(work, seller_id, number) for number in mp_order_numbers):
            await asyncio.sleep(wait_s)

    def looks(self, names: Iterable[str]) -> Iterator[float]:
        """Looks at leases until `hold` can take each, or its holder has renewed it; ends after `watched_s` at the latest.

        Yields:
            The seconds to sleep before the next look.
        """
        give_up_at = self._elapsed() + self._times.watched_s
        undecided, first = set(names), dict[str, tuple[str, int | None]]()
        while undecided and self._elapsed() < give_up_at:
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
        row = connection.execute(sa.select(leases).where(leases.c.name == name)).first()
        if row is not None and not self._is_free(row, began=self._elapsed()):
            return False
        drop(connection, name)
        return True

    def is_recent(self, lease: Lease) -> bool:
        """Whether the last heartbeat is less than half of `free_after_s` ago."""
        return self._elapsed() - lease.renewed_at < self._times.free_after_s / 2

    def renew(self, held: Collection[Lease]) -> set[str]:
        """Renews leases; returns the owner names of those that no other process has taken."""
        began = self._elapsed()
        statement = (
            sa.update(leases)
            .where(
                leases.c.name.in_([lease.name for lease in held]),
                leases.c.owner.in_([lease.owner for lease in held]),
            )
            .values(beat=leases.c.beat + 1)
            .returning(leases.c.owner)
        )
        with self._begin(alone=False) as connection:
            renewed = set(connection.execute(statement).scalars())
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

    def _take(self, name: str) -> Lease | None:
        owner, began = new_owner(), self._elapsed()
        try:
            with self._begin() as connection:
                statement = insert(connection, leases).values(name=name, owner=owner, beat=0)
                row = connection.execute(
                    statement.on_conflict_do_update(
                        index_elements=["name"], set_={"owner": leases.c.owner}
                    ).returning(leases)
                ).one()
                was_left = row.owner != owner
                if was_left and not self._is_free(row, began=began):
                    return None
                if was_left:
                    taken = {"owner": owner, "beat": 0, "until": None}
                    connection.execute(sa.update(leases).where(leases.c.name == name).values(**taken))
        except STATE_ERRORS:
            self._sightings.pop(name, None)
            raise
        self._sightings.pop(name, None)
        lease = Lease(self, name, owner, was_left=was_left, renewed_at=began)
        with self._lock:
            self._held[owner] = lease
            if self._thread is None or not self._thread.is_alive():  # a thread does not survive a fork
                self._thread = threading.Thread(
                    target=self._keep_renewing, name="feedamp-leases", daemon=True
                )
                self._thread.start()
        return lease

    def _release(self, lease: Lease) -> None:
        try:
            with self._begin(alone=False) as connection:
                connection.execute(
                    sa.delete(leases).where(leases.c.name == lease.name, leases.c.owner == lease.owner)
                )
        except STATE_ERRORS as error:  # the work is done, and the lease ends by itself
            log.info("The lease %s is not released (%s).", lease.name, type(error).__name__)

    def _look(self, names: Collection[str]) -> dict[str, tuple[sa.Row[Any], bool]]:
        """The leases that exist, and whether each is free."""
        began = self._elapsed()
        statement = sa.update(leases).where(leases.c.name.in_(names)).values(owner=leases.c.owner)
        try:
            with self._begin() as connection:
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
        ended, heartbeat = self._elapsed(), (row.owner, row.beat)
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
