"""One transaction for what several tasks of an event loop want of the state at about the same moment."""

import asyncio
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

from sqlalchemy.engine import Connection
from sqlalchemy.exc import OperationalError

from feedamp.errors import StoreAwayError
from feedamp.state.database import STORE_AWAY_S, State


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
_LOOKS = 10
TRIED_AGAIN_S = 0.1  # so long after another transaction was found to be of an item's seller


class GroupCommit(Generic[_Item]):
    """Gathers items and works on all of them in one transaction.

    Only those wait whose seller another transaction is of, while the others go on (promise 8).

    `work` does nothing but what the transaction undoes, and returns what else is to be done once it is committed; its last
    argument is a moment before the transaction, by `Leases.elapsed`. Where it fails, each item is worked on in a
    transaction of its own, so that none fails another; but not if the database itself fails, because of which all would
    wait again.
    """

    def __init__(
        self,
        state: State,
        work: Callable[[Connection, Sequence[_Item], float], Callable[[], None]],
        *,
        expects_more: Callable[[], bool] = lambda: False,
    ) -> None:
        """`expects_more` says whether other items may come soon: then those that wait do so for up to `LINGERS_S`."""
        self._state = state
        self._work = work
        self._expects_more = expects_more
        self._waiting: list[tuple[_Item, asyncio.Future[None]]] = []
        self._put_off: list[tuple[_Item, asyncio.Future[None]]] = []
        self._held_since: dict[str, float] = {}  # by seller, by the clock of the event loop

    async def do(self, item: _Item, *, even_if_cancelled: bool = False) -> None:
        """Returns once the work on an item is committed; raises what it raised.

        A task that is cancelled before loses it, unless it is to be done `even_if_cancelled`: then immediately.

        Raises:
            StoreAwayError: also if another transaction has been of its seller for too long.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._waiting.append((item, done))
        if len(self._waiting) == 1:
            loop.call_soon(self._commit_after, loop, ROUNDS)
        try:
            await done
        except asyncio.CancelledError:
            if even_if_cancelled and done.cancelled():  # so no transaction has worked on it, and none will
                failure, _ = self._work_on([item], waits=True)
                if failure is not None:
                    raise failure from None
            raise

    def _commit_after(self, loop: asyncio.AbstractEventLoop, rounds: int, looks: int = _LOOKS) -> None:
        wanted: list[tuple[_Item, asyncio.Future[None]]] = []
        try:
            if rounds:
                loop.call_soon(self._commit_after, loop, rounds - 1)
                return
            if looks and len(self._waiting) < ITEMS_AT_ONCE and self._expects_more():
                loop.call_later(LINGERS_S / _LOOKS, self._commit_after, loop, 0, looks - 1)
                return
            wanted, self._waiting = self._waiting, []
            wanted = [(item, done) for item, done in wanted if not done.done()]
            for start in range(0, len(wanted), ITEMS_AT_ONCE):
                self._commit(loop, wanted[start : start + ITEMS_AT_ONCE])
        except BaseException as error:  # of a signal, in a callback where the event loop would swallow it
            wanted = [*wanted, *self._waiting, *self._put_off]
            self._waiting, self._put_off = [], []
            for _, done in wanted:
                if not done.done():
                    done.set_exception(error)
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise

    def _commit(
        self, loop: asyncio.AbstractEventLoop, wanted: Sequence[tuple[_Item, asyncio.Future[None]]]
    ) -> None:
        failure, of = self._work_on([item for item, _ in wanted])
        self._try_later(loop, [entry for entry in wanted if entry[0].key[0] not in of])
        wanted = [entry for entry in wanted if entry[0].key[0] in of]
        for seller_id in of:
            self._held_since.pop(seller_id, None)
        if failure is None:
            for _, done in wanted:
                done.set_result(None)
        elif len(wanted) == 1 or (
            isinstance(failure, StoreAwayError | OperationalError) and not _is_deadlock(failure)
        ):
            for _, done in wanted:
                done.set_exception(failure)
        else:
            for one in wanted:
                self._commit(loop, [one])

    def _try_later(
        self, loop: asyncio.AbstractEventLoop, held: Sequence[tuple[_Item, asyncio.Future[None]]]
    ) -> None:
        """Puts off what is wanted for sellers that another transaction is of, or gives it up."""
        for item, done in held:
            since = self._held_since.setdefault(item.key[0], loop.time())
            if loop.time() - since < STORE_AWAY_S:
                if not self._put_off:
                    loop.call_later(TRIED_AGAIN_S, self._try_again, loop)
                self._put_off.append((item, done))
            else:
                message = f"Another transaction has held the orders of seller {item.key[0]} for {STORE_AWAY_S:.0f} s."
                done.set_exception(StoreAwayError(message, retry_after_s=60))

    def _try_again(self, loop: asyncio.AbstractEventLoop) -> None:
        is_planned = bool(self._waiting)
        self._waiting += self._put_off
        self._put_off = []
        if self._waiting and not is_planned:
            self._commit_after(loop, 0, 0)

    def _work_on(
        self, items: Sequence[_Item], *, waits: bool = False
    ) -> tuple[Exception | None, Collection[str]]:
        """What failed, without the transaction, None once it is committed; and the sellers whose items it was about."""
        of: Collection[str] = {item.key[0] for item in items}
        begin = self._begin if waits else self._state.begin_free
        asked_at = self._state.leases.elapsed()
        try:
            with begin(of) as (connection, of):
                items = [item for item in items if item.key[0] in of]
                committed = self._work(connection, items, asked_at) if items else None
        except Exception as error:  # noqa: BLE001 - raised where the item came from
            return error, of
        if committed is not None:
            committed()
        return None, of

    @contextmanager
    def _begin(self, seller_ids: Collection[str]) -> Iterator[tuple[Connection, Collection[str]]]:
        with self._state.begin(of=seller_ids) as connection:
            yield connection, seller_ids


def _is_deadlock(error: Exception) -> bool:
    """Whether the server ended a transaction because it and another waited for each other; alone it goes through."""
    return getattr(getattr(error, "orig", None), "sqlstate", None) == "40P01"
