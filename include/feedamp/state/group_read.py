"""One transaction for what several tasks of an event loop read of the state at the same moment."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from itertools import chain
from typing import Generic, TypeVar

from sqlalchemy.engine import Connection

from feedamp.errors import FeedAmpError
from feedamp.state.database import State

_Found = TypeVar("_Found")


class GroupRead(Generic[_Found]):
    """Gathers sellers and reads for all of them at once; `read` returns what it found by seller, all of them."""

    def __init__(
        self,
        state: State,
        read: Callable[[Connection, list[str]], Mapping[str, _Found]],
        *,
        lingers_s: float = 0.0,
    ) -> None:
        """The first who asks waits `lingers_s` for others; without that, only until the event loop has gone round."""
        self._state = state
        self._lingers_s = lingers_s
        self._read = read
        self._waiting: dict[str, list[asyncio.Future[_Found]]] = {}

    async def of(self, seller_id: str) -> _Found:
        """What is found for a seller, in a transaction that begins after this call. Raises what `read` raises."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_later(self._lingers_s, self._read_all)
        found: asyncio.Future[_Found] = loop.create_future()
        self._waiting.setdefault(seller_id, []).append(found)
        return await found

    def _read_all(self) -> None:
        waiting: dict[str, list[asyncio.Future[_Found]]] = {}
        try:
            waiting, self._waiting = self._waiting, {}
            with self._state.read() as connection:
                found = self._read(connection, list(waiting))
            for seller_id, waits in waiting.items():
                for one in _not_done(waits):
                    one.set_result(found[seller_id])
        except BaseException as error:  # of a signal, too: the event loop would swallow it
            left, self._waiting = [*waiting.values(), *self._waiting.values()], {}
            for one in _not_done(chain.from_iterable(left)):
                one.set_exception(_own(error))
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise


def _own(error: BaseException) -> BaseException:
    """One for each who waits, since whoever catches it may write its own seller into it."""
    return copy(error).with_traceback(error.__traceback__) if isinstance(error, FeedAmpError) else error


def _not_done(waits: Iterable[asyncio.Future[_Found]]) -> list[asyncio.Future[_Found]]:
    return [one for one in waits if not one.done()]
