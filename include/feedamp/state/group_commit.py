"""One transaction for what several tasks of an event loop want of the state at about the same moment."""

import asyncio
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Generic, Protocol, TypeVar

from sqlalchemy.engine import Connection
from sqlalchemy.exc import OperationalError

from feedamp.errors import StoreAwayError
from feedamp.state.database import State


class OfOrder(Protocol):
    """Something that is wanted for one order."""

    @property
    def key(self) -> tuple[str, str]:
        """The seller's id and the order's number."""


_Item = TypeVar("_Item", bound=OfOrder)
ITEMS_AT_ONCE = 500
# How often the event loop goes round before a transaction: what comes in meanwhile is committed with it.
ROUNDS = 4
LINGERS_S = 0.05  # so long an item waits for others that are expected, which is looked at so often:
_LOOKS_EVERY_S = 0.005


@dataclass(eq=False)
class Wanted(Generic[_Item]):
    """An item, and what its task waits for."""

    item: _Item
    seller_id: str
    done: asyncio.Future[None]
    is_taken: bool = False  # by the thread that waited for its seller
    is_withdrawn: bool = False  # its task has been cancelled
    is_told: bool = False
    failure: BaseException | None = None


class GroupCommit(Generic[_Item]):
    """Gathers items and works on all of them in one transaction.

    Only those wait whose seller another transaction is of, while the others go on (promise 8): for each such seller a thread
    waits for its turn, as every transaction does. So it comes even if others use the seller without pause.

    `work` does nothing but what the transaction undoes, and returns what else is to be done once it is committed; its last
    argument is a moment before the transaction, by `Leases.elapsed`. Where it fails, each item is worked on in a
    transaction of its own, so that none fails another; but not if the database itself fails, because of which all would
    wait again. Several threads may call it at the same moment, for different sellers.
    """

    def __init__(
        self,
        state: State,
        work: Callable[[Connection, Sequence[_Item], float], Callable[[], None]],
        *,
        expects_more: Callable[[], bool] = lambda: False,
        lingers_s: float = LINGERS_S,
    ) -> None:
        """`expects_more` says whether other items may come soon: then those that wait do so for up to `lingers_s`."""
        self._state = state
        self._work = work
        self._expects_more = expects_more
        self._looks = round(lingers_s / _LOOKS_EVERY_S)
        self._waiting: list[Wanted[_Item]] = []
        self._put_off: dict[str, list[Wanted[_Item]]] = {}  # by seller, until the turn of that
        self._lock = threading.Lock()  # of `_put_off`, and of what threads take of it
        self._turns: dict[str, asyncio.Future[Sequence[Wanted[_Item]]]] = {}  # by seller

    async def do(self, item: _Item, *, even_if_cancelled: bool = False) -> None:
        """Returns once the work on an item is committed; see `done`."""
        await self.done(self.add(item), even_if_cancelled=even_if_cancelled)

    def add(self, item: _Item) -> Wanted[_Item]:
        """Puts an item among those that wait; give what is returned to `done`, whatever happens meanwhile."""
        loop = asyncio.get_running_loop()
        wanted = Wanted(item, item.key[0], loop.create_future())
        self._waiting.append(wanted)
        if len(self._waiting) == 1:
            loop.call_soon(self._commit_after, loop, ROUNDS, self._looks)
        return wanted

    async def done(self, wanted: Wanted[_Item], *, even_if_cancelled: bool = False) -> None:
        """Returns once the work on an item is committed; raises what it raised.

        A task that is cancelled before loses it, unless it is to be done `even_if_cancelled`: then immediately. If a thread
        is about it at that moment, the task ends after that.

        Raises:
            StoreAwayError: also if others have been before it with transactions of its seller for too long.
        """
        try:
            await wanted.done
        except asyncio.CancelledError as cancelled:
            if wanted.done.cancelled():
                await self._withdraw(wanted)
                if even_if_cancelled and not wanted.is_taken:
                    # No transaction has worked on it, and none will.
                    self._work_on(self._begin, [wanted.seller_id], partial(_of, [wanted]))
                raise cancelled from wanted.failure  # not only that: the task would go on
            raise

    async def _withdraw(self, wanted: Wanted[_Item]) -> None:
        """Lets no thread take an item any more, or waits for what becomes of it in the one that has."""
        with self._lock:
            wanted.is_withdrawn = True
        while wanted.is_taken and not wanted.is_told:
            wanted.done = asyncio.get_running_loop().create_future()
            with suppress(asyncio.CancelledError):
                await wanted.done

    def _commit_after(self, loop: asyncio.AbstractEventLoop, rounds: int, looks: int) -> None:
        group: list[Wanted[_Item]] = []
        try:
            if rounds:
                loop.call_soon(self._commit_after, loop, rounds - 1, looks)
                return
            if looks and len(self._waiting) < ITEMS_AT_ONCE and self._expects_more():
                loop.call_later(_LOOKS_EVERY_S, self._commit_after, loop, 0, looks - 1)
                return
            group, self._waiting = self._waiting, []
            group = [wanted for wanted in group if not wanted.done.done()]
            for start in range(0, len(group), ITEMS_AT_ONCE):
                self._commit(group[start : start + ITEMS_AT_ONCE])
        except BaseException as error:  # of a signal, in a callback where the event loop would swallow it
            with self._lock:
                left = [*group, *self._waiting, *chain.from_iterable(self._put_off.values())]
                self._put_off.clear()
            self._waiting = []
            for wanted in left:
                wanted.failure = wanted.failure or error
            _tell(left)
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise

    def _commit(self, group: Sequence[Wanted[_Item]]) -> None:
        """Works on those whose seller is free; the others wait for their turn."""
        sellers = {wanted.seller_id for wanted in group}.difference(self._turns)
        if sellers:
            _tell(self._work_on(self._state.begin_free, sellers, partial(_of, group)))
        for wanted in group:
            if not wanted.is_told:
                with self._lock:
                    self._put_off.setdefault(wanted.seller_id, []).append(wanted)
                self._await_turn(wanted.seller_id)

    def _await_turn(self, seller_id: str) -> None:
        if seller_id not in self._turns:
            turn = self._turns[seller_id] = self._state.in_thread(partial(self._take_turn, seller_id))
            turn.add_done_callback(partial(self._end_turn, seller_id))

    def _take_turn(self, seller_id: str) -> Sequence[Wanted[_Item]]:
        """In a thread: waits for a seller, and works on what is wanted of it then."""
        taken: list[Wanted[_Item]] = []

        def take(_: Collection[str]) -> Sequence[Wanted[_Item]]:
            with self._lock:
                put_off = self._put_off.pop(seller_id, [])
                if len(put_off) > ITEMS_AT_ONCE:
                    self._put_off[seller_id] = put_off[ITEMS_AT_ONCE:]
                taken.extend(wanted for wanted in put_off[:ITEMS_AT_ONCE] if not wanted.is_withdrawn)
                for wanted in taken:
                    wanted.is_taken = True
            return taken

        try:
            self._work_on(self._begin, [seller_id], take)
        except BaseException as error:  # noqa: BLE001 - raised where the items came from
            for wanted in taken or take([seller_id]):
                wanted.failure = error
        return taken

    def _end_turn(self, seller_id: str, turn: asyncio.Future[Sequence[Wanted[_Item]]]) -> None:
        del self._turns[seller_id]
        _tell(turn.result())
        if self._put_off.get(seller_id):
            self._await_turn(seller_id)

    def _work_on(
        self,
        begin: Callable[[Collection[str]], AbstractContextManager[tuple[Connection, Collection[str]]]],
        seller_ids: Collection[str],
        chosen: Callable[[Collection[str]], Sequence[Wanted[_Item]]],
    ) -> Sequence[Wanted[_Item]]:
        """Works on what is `chosen` of the sellers that a transaction is of; returns it once it is committed, or has failed."""
        group: Sequence[Wanted[_Item]] | None = None
        failure: Exception | None = None
        committed: Callable[[], None] | None = None
        asked_at = self._state.leases.elapsed()
        try:
            with begin(seller_ids) as (connection, of):
                group = chosen(of)
                if group:
                    committed = self._work(connection, [wanted.item for wanted in group], asked_at)
        except Exception as error:  # noqa: BLE001 - raised where the item came from
            failure = error
        if group is None:
            group = chosen(seller_ids)
        if failure is not None and len(group) > 1 and not _is_of_all(failure):
            alone = (self._work_on(begin, [wanted.seller_id], partial(_of, [wanted])) for wanted in group)
            return [*chain.from_iterable(alone)]
        for wanted in group:
            wanted.failure = failure
        if failure is None and committed is not None:
            committed()
        return group

    @contextmanager
    def _begin(self, seller_ids: Collection[str]) -> Iterator[tuple[Connection, Collection[str]]]:
        with self._state.begin(of=seller_ids) as connection:
            yield connection, seller_ids


def _of(group: Sequence[Wanted[_Item]], seller_ids: Collection[str]) -> Sequence[Wanted[_Item]]:
    return [wanted for wanted in group if wanted.seller_id in seller_ids]


def _tell(group: Iterable[Wanted[_Item]]) -> None:
    """Tells the tasks what has become of their items."""
    for wanted in group:
        wanted.is_told = True
        if wanted.done.done():
            continue
        if wanted.failure is None or wanted.is_withdrawn:
            wanted.done.set_result(None)
        else:
            wanted.done.set_exception(wanted.failure)


def _is_of_all(failure: Exception) -> bool:
    """Whether the database failed, which is no matter of one item."""
    return isinstance(failure, StoreAwayError | OperationalError) and not _is_deadlock(failure)


def _is_deadlock(error: Exception) -> bool:
    """Whether the server ended a transaction because it and another waited for each other; alone it goes through."""
    return getattr(getattr(error, "orig", None), "sqlstate", None) == "40P01"
