"""One transaction for what several tasks of an event loop want of the state at about the same moment."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Generic, TypeVar

from sqlalchemy.engine import Connection
from sqlalchemy.exc import OperationalError

from feedamp.errors import StoreAwayError

_Item = TypeVar("_Item")
ITEMS_AT_ONCE = 500
# How often the event loop goes round before a transaction: what comes in meanwhile is committed with it.
ROUNDS = 4
LINGERS_S = 0.05  # so long an item waits for others that are expected, which is looked at so often:
_LOOKS = 10


class GroupCommit(Generic[_Item]):
    """Gathers items and works on all of them in one transaction.

    `work` does nothing but what the transaction undoes, and returns what else is to be done once it is committed. Where it
    fails, each item is worked on in a transaction of its own, so that none fails another; but not if the database itself
    fails, because of which all would wait again.
    """

    def __init__(
        self,
        begin: Callable[[Sequence[_Item]], AbstractContextManager[Connection]],
        work: Callable[[Connection, Sequence[_Item]], Callable[[], None]],
        *,
        expects_more: Callable[[], bool] = lambda: False,
    ) -> None:
        """`expects_more` says whether other items may come soon: then those that wait do so for up to `LINGERS_S`."""
        self._begin = begin
        self._work = work
        self._expects_more = expects_more
        self._waiting: list[tuple[_Item, asyncio.Future[None]]] = []

    async def do(self, item: _Item, *, even_if_cancelled: bool = False) -> None:
        """Returns once the work on an item is committed; raises what it raised.

        A task that is cancelled before loses it, unless it is to be done `even_if_cancelled`: then immediately.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._waiting.append((item, done))
        if len(self._waiting) == 1:
            loop.call_soon(self._commit_after, loop, ROUNDS)
        try:
            await done
        except asyncio.CancelledError:
            if even_if_cancelled and any(waiting is done for _, waiting in self._waiting):
                self._waiting = [entry for entry in self._waiting if entry[1] is not done]
                if (failure := self._work_on([item])) is not None:
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
                self._commit(wanted[start : start + ITEMS_AT_ONCE])
        except BaseException as error:  # of a signal, in a callback where the event loop would swallow it
            wanted, self._waiting = [*wanted, *self._waiting], []
            for _, done in wanted:
                if not done.done():
                    done.set_exception(error)
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise

    def _commit(self, wanted: Sequence[tuple[_Item, asyncio.Future[None]]]) -> None:
        failure = self._work_on([item for item, _ in wanted])
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
                self._commit([one])

    def _work_on(self, items: Sequence[_Item]) -> Exception | None:
        """What failed, without the transaction; None once it is committed."""
        try:
            with self._begin(items) as connection:
                committed = self._work(connection, items)
        except Exception as error:  # noqa: BLE001 - raised where the item came from
            return error
        committed()
        return None


def _is_deadlock(error: Exception) -> bool:
    """Whether the server ended a transaction because it and another waited for each other; alone it goes through."""
    return getattr(getattr(error, "orig", None), "sqlstate", None) == "40P01"
