"""The request rates of sellers that this process holds: it paces their requests itself, without a transaction for each.

Who holds a seller's rate stands in the seller's row of table `slots`, under the name of a lease (`leases`) that one process
has for all rates that it holds and renews by heartbeat. So a hold ends as every lease does: when the process gives it back,
is known to be dead, or has been silent for too long; and a process that stood still finds out before it sends. A process
takes the rates of a shard in one transaction. One that sends a request now and then reserves single slots instead.

Another process that wants to send a request marks the row. The holder looks for marks every `LOOK_EVERY_S`, writes down when
the next request may leave, and gives the rate back. From then on both reserve slot by slot, as `request_slots` says, until
only one of them has sent requests for `CALM_S`. So the rate is shared, and live work goes before history, by one rule.

Here, moments are of this process's monotonic clock. They are translated to the clock of the state database when a rate is
taken and given back, so a clock that is set meanwhile changes no distance between requests. A pause that FeedAMP demands is
stored in the state at once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from feedamp.errors import OvertakenError
from feedamp.state import leases, request_slots
from feedamp.state.lease_owner import new_owner
from feedamp.state.reconnect import STATE_ERRORS
from feedamp.state.request_slots import ASK_EVERY_S, SHORTEST_WAIT_S, Pace

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from feedamp.state.database import State
    from feedamp.state.leases import Lease

log = logging.getLogger(__name__)
LOOK_EVERY_S = 0.4  # how often a holder looks whether another process wants a rate
LEAVING_S = 0.4  # how long a request that has its slot may delay giving back the rate, until it is sent
ASK_THE_HOLDER_EVERY_S = 0.5  # how often a process that waits for a rate looks whether its holder is alive
_ENDS_WITHIN_S = 1.0


@dataclass
class _Held:
    """A rate that this process holds."""

    pace: Pace
    leaving: int = 0  # requests that have a slot and are not sent yet
    # After a request was sent: from when on the next one may leave if the answer has come by then, and `pace.next_at` as
    # long as nothing else has changed it.
    soonest_at: float = 0.0
    after_last: float = 0.0
    is_given: bool = False  # it is being given back


class RateLeases:
    """The rates that this process holds in one state database. Its methods can be called in any thread."""

    def __init__(self, state: State, elapsed: Callable[[], float]) -> None:
        self._state = state
        self._elapsed = elapsed
        self._held: dict[str, _Held] = {}
        self._used: set[str] = set()  # sellers that this process has sent requests for
        self._asked: dict[str, float] = {}  # when the holder of a seller's rate was last asked to give it up
        self._users = 0
        self._lock = threading.Lock()  # of all above; no transaction is made under it
        self._leasing = threading.Lock()  # of what follows
        self._name = f"rate/{new_owner()}"
        self._lease: Lease | None = None
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()

    def elapsed_s(self) -> float:
        """The clock of all moments here, in seconds."""
        return self._elapsed()

    def join(self) -> None:
        """Tells that someone begins to send requests; `leave` tells the end, and the last one gives all rates back."""
        with self._lock:
            self._users += 1

    def leave(self) -> None:
        """Ends what `join` began."""
        with self._lock:
            self._users -= 1
            is_last = self._users == 0
        if is_last:
            self.give_all_back()

    def hold(self, seller_ids: Collection[str]) -> None:
        """Takes the rates of these sellers in one transaction, except those that other processes hold or used lately.

        It does not wait for a seller whom another transaction is of either.
        """
        if not seller_ids:
            return
        with self._leasing:
            with self._state.begin_free(seller_ids) as (connection, free):
                if not free:
                    return
                lease = self._take_lease(connection)
                now, ahead = self._moment()
                paces = request_slots.hold(connection, free, process=lease.name, now=now)
            self._keep(lease)
        with self._lock:
            self._used.update(paces)
            for seller_id, pace in paces.items():
                self._held.setdefault(seller_id, _Held(pace.moved(-ahead)))
        self._start_looking()

    def take(
        self,
        seller_id: str,
        *,
        interval_s: float,
        history_share: float | None = None,
        goes_first: bool = False,
    ) -> float:
        """Takes a request slot. Returns 0.0, or the seconds until it should be asked for again.

        After 0.0, call `left` or `not_left`. The options are those of `request_slots.take`.
        """
        began_at, lease = self._elapsed(), self._lease
        if lease is not None and not lease.is_held():
            self._lose(lease)
        with self._lock:
            held = self._held.get(seller_id)
            if held is not None:
                if held.is_given:
                    return ASK_EVERY_S
                wait_s = _take(held, self._elapsed(), interval_s, history_share)
                if wait_s == 0 and self._elapsed() - began_at > LEAVING_S:
                    held.leaving -= 1  # this process stood still after it looked at its lease: look again
                    return ASK_EVERY_S
                return wait_s
            asks_to_hold = seller_id in self._used
        return self._take_slot(seller_id, interval_s, history_share, goes_first, holds=asks_to_hold)

    def left(self, seller_id: str, left_at: float, *, interval_s: float, shortest_s: float) -> float | None:
        """Tells when a request was sent; the next one leaves `interval_s` later. None if its rate is not held.

        Give the value that is returned to `answered`. If the answer comes soon, the next request may leave `shortest_s` after
        it: this one has reached FeedAMP by then, however long the next one takes.
        """
        with self._lock:
            held = self._held.get(seller_id)
            if held is None:
                return None
            held.leaving = max(0, held.leaving - 1)
            if held.is_given:
                return None
            if held.pace.next_at < left_at + interval_s:
                held.pace.next_at = left_at + interval_s
            held.soonest_at, held.after_last = left_at + shortest_s, held.pace.next_at
            return held.after_last

    def not_left(self, seller_id: str) -> None:
        """Tells that a request that had a slot was not sent."""
        with self._lock:
            held = self._held.get(seller_id)
            if held is not None:
                held.leaving = max(0, held.leaving - 1)

    def answered(self, seller_id: str, after_last: float, *, shortest_s: float) -> None:
        """Tells that the answer to a request has come; see `left`."""
        with self._lock:
            held = self._held.get(seller_id)
            if held is not None and not held.is_given and held.pace.next_at == held.after_last == after_last:
                held.pace.next_at = held.after_last = min(after_last, self._elapsed() + shortest_s)

    def pause(self, seller_id: str, seconds: float) -> None:
        """Lets no process send a request for the seller until `seconds` have passed."""
        with self._lock:
            held = self._held.get(seller_id)
            if held is not None:
                held.pace.postpone(self._elapsed(), seconds)
        with self._state.begin(alone=False) as connection:
            request_slots.postpone(
                connection, seller_id, now=self._state.now(), seconds=seconds, process=self._name
            )

    def pause_token_calls(self, seller_id: str, seconds: float) -> None:
        """Lets no process send a token call for the seller until `seconds` have passed; other requests go on."""
        with self._state.begin(alone=False) as connection:
            now = self._state.now()
            request_slots.postpone_token_calls(connection, seller_id, now=now, seconds=seconds)

    def token_pause_left_s(self, connection: Connection, seller_id: str) -> float:
        """Seconds until a token call may be sent for the seller, by what all processes have stored."""
        return request_slots.token_pause_left_s(connection, seller_id, now=self._state.now())

    def give_all_back(self) -> None:
        """Gives back all rates that this process holds, and ends its lease."""
        with self._lock:
            sellers = list(self._held)
            self._used.clear()
        lease = self._lease
        try:
            self._give_back(sellers, is_wanted=False, ends=lease)
        except STATE_ERRORS as error:  # the work is done, and the lease ends by itself
            log.info("Request rates are not given back (%s).", type(error).__name__)
        if lease is not None:
            self._lose(lease)
        self._wake.set()
        thread = self._thread
        if thread is not None:
            thread.join(_ENDS_WITHIN_S)  # longer only if the database is stalled

    def _take_slot(
        self, seller_id: str, interval_s: float, history_share: float | None, goes_first: bool, *, holds: bool
    ) -> float:
        name = self._leased_name() if holds else self._name
        try:
            with self._state.begin(alone=False) as connection:
                now, ahead = self._moment()
                slot = request_slots.take(
                    connection,
                    seller_id,
                    process=name,
                    now=now,
                    interval_s=interval_s,
                    history_share=history_share,
                    goes_first=goes_first,
                    holds=holds,
                )
        except OvertakenError:  # another process took the slot while this one stood still in the transaction
            return ASK_EVERY_S
        if slot.wait_s > 0:
            if slot.held_by is not None:
                self._ask(seller_id, slot.held_by, interval_s)
            return slot.wait_s
        with self._lock:
            self._used.add(seller_id)
            self._asked.pop(seller_id, None)
            if slot.pace is not None:
                self._held[seller_id] = _Held(slot.pace.moved(-ahead), leaving=1)
        if slot.pace is not None:
            self._start_looking()
        return 0.0

    def _ask(self, seller_id: str, holder: str, interval_s: float) -> None:
        """Asks a holder for the seller's rate, or ends its hold if it is dead."""
        with self._lock:
            asked_at = self._asked.get(seller_id)
            if asked_at is not None and 0 <= self._elapsed() - asked_at < ASK_THE_HOLDER_EVERY_S:
                return
            self._asked[seller_id] = self._elapsed()
        with self._state.begin(of=[seller_id]) as connection:
            now = self._state.now()
            if self._state.leases.clear(connection, holder):
                request_slots.take_over(connection, seller_id, held_by=holder, now=now, interval_s=interval_s)
            else:
                request_slots.want(connection, seller_id, now=now)

    def _moment(self) -> tuple[datetime, float]:
        """The moment by the clock of the state database, and how many seconds that is ahead of the clock here."""
        now = self._state.now()
        return now, now.timestamp() - self._elapsed()

    def _leased_name(self) -> str:
        """The name under which this process holds rates, once its lease is taken."""
        with self._leasing:
            lease = self._lease
            if lease is None:
                with self._state.begin(
                    of=[self._name]
                ) as connection:  # it waits for no transaction of sellers
                    lease = self._take_lease(connection)
                self._keep(lease)
            return lease.name

    def _take_lease(self, connection: Connection) -> Lease:
        """The lease of this process; once the transaction is committed, call `_keep`."""
        if self._lease is not None:
            return self._lease
        of = self._state.leases
        [lease] = of.take(connection, [self._name], asked_at=of.elapsed()).values()
        return lease

    def _keep(self, lease: Lease) -> None:
        if self._lease is None:
            self._lease = lease
            self._state.leases.keep([lease])

    def _lose(self, lease: Lease) -> None:
        """Drops all rates, and goes on under another name."""
        with self._leasing:
            if self._lease is not lease:
                return
            self._lease = None
            with self._lock:
                self._held.clear()
            self._name = f"rate/{new_owner()}"
        self._state.leases.end(lease)

    def _give_back(self, seller_ids: Collection[str], *, is_wanted: bool, ends: Lease | None = None) -> None:
        with self._lock:
            name = self._name
            given = {
                seller_id: held
                for seller_id in seller_ids
                if (held := self._held.get(seller_id)) is not None and not held.is_given
            }
            for held in given.values():
                held.is_given = True
        if not given and ends is None:
            return
        given_back: set[str] = set()
        try:
            with self._begin(given, waits=ends is not None) as (connection, free):
                now, ahead = self._moment()
                paces = {seller_id: given[seller_id].pace.moved(ahead) for seller_id in free}
                request_slots.give_back(connection, paces, process=name, now=now, is_wanted=is_wanted)
                if ends is not None:
                    leases.release(connection, [ends])
            given_back.update(free)
        finally:
            with self._lock:
                for seller_id, held in given.items():
                    held.is_given = seller_id in given_back
                    if held.is_given and self._held.get(seller_id) is held:
                        del self._held[seller_id]
        if ends is not None:
            ends.is_released = True

    @contextmanager
    def _begin(
        self, seller_ids: Collection[str], *, waits: bool
    ) -> Iterator[tuple[Connection, Collection[str]]]:
        """A transaction of sellers, unless it `waits` only of those that no other one is of: the others are given back later."""
        if not waits:
            with self._state.begin_free(seller_ids) as begun:
                yield begun
            return
        with self._state.begin(of=seller_ids) as connection:
            yield connection, seller_ids

    def _start_looking(self) -> None:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():  # a thread does not survive a fork
                self._thread = threading.Thread(target=self._keep_looking, name="feedamp-rates", daemon=True)
                self._thread.start()

    def _keep_looking(self) -> None:
        while True:
            self._wake.wait(LOOK_EVERY_S)
            self._wake.clear()
            with self._lock:
                if not self._held:
                    self._thread = None
                    return
            try:
                self._look()
            except STATE_ERRORS as error:
                log.info("Wanted request rates cannot be looked up (%s).", type(error).__name__)

    def _look(self) -> None:
        """Gives back what other processes want, once the requests that have a slot are sent."""
        with self._state.read() as connection:
            wanted = request_slots.wanted(connection, self._name)
        if not wanted:
            return
        now = self._state.now().timestamp()
        with self._lock:
            ready = [
                seller_id
                for seller_id, since in wanted.items()
                if (held := self._held.get(seller_id)) is not None
                and (not held.leaving or not 0 <= now - since < LEAVING_S)
            ]
        self._give_back(ready, is_wanted=True)


def _take(held: _Held, moment: float, interval_s: float, history_share: float | None) -> float:
    wait_s = held.pace.take(moment, interval_s, history_share)
    if wait_s == 0:
        held.leaving += 1
    elif held.pace.next_at == held.after_last and moment < held.soonest_at:
        return max(SHORTEST_WAIT_S, min(wait_s, held.soonest_at - moment))  # the answer may have come by then
    return wait_s
