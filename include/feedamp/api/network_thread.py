"""The thread in which requests are made, and how a step's event loop hears of them.

A step's event loop stands still while the step waits for the state database; answers that arrive meanwhile are read
nevertheless, so no request times out and is sent a second time because of it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, Generic, TypeVar

T = TypeVar("T")
LONGEST_END_S = 1.0  # how long the end of the thread is waited for


class Calls:
    """Calls for an event loop, made in any thread; it is woken once for those that come together."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._waiting: deque[Callable[[], object]] = deque()
        self._is_woken = False
        self._struck: Callable[[], object] | None = None
        self._of_signal: BaseException | None = None

    def add(self, call: Callable[[], object]) -> None:
        """Raises RuntimeError if the loop is closed."""
        self._waiting.append(call)
        self._wake()

    def _wake(self) -> None:
        if not self._is_woken:
            self._is_woken = True
            try:
                self.loop.call_soon_threadsafe(self._make)
            except RuntimeError:
                self._is_woken = False
                raise

    def _make(self) -> None:
        self._is_woken = False  # first: what is added from now on wakes the loop again
        try:
            for _ in range(len(self._waiting)):
                self._waiting[0]()
                self._waiting.popleft()
        except BaseException as error:
            # Of a signal, as of a task's timeout, and the event loop swallows it: the call that it struck is made again, but
            # only once, since it may fail by itself.
            if not isinstance(error, Exception):
                self._of_signal = error
            call = self._waiting[0] if self._waiting else None
            if call is not None and call is self._struck:
                self._waiting.popleft()
            self._struck = call
            raise
        finally:
            if self._waiting:
                self._wake()  # no `send` may wait for those that are left without end

    def raise_signal(self) -> None:
        """Raises, once, what a signal raised among these calls: whoever was to be ended by it must end."""
        error, self._of_signal = self._of_signal, None
        if error is not None:
            raise error


class Exchange(Generic[T]):
    """A request on its way, as the task that waits for it sees it: `left_at`, then `answer`.

    `left_at` is the `time.monotonic()` at which the request was sent, None if it ended before, or `tell_at_once` took that.
    """

    def __init__(self, home: Calls, tell_at_once: Callable[[float], bool] | None) -> None:
        self._home = home
        self._tell_at_once = tell_at_once
        self.left_at: asyncio.Future[float | None] = home.loop.create_future()
        self.answer: asyncio.Future[T] = home.loop.create_future()
        self.has_left = False
        self._task: asyncio.Task[T] | None = None
        self._is_cancelled = False

    def begin(self, work: Coroutine[Any, Any, T]) -> None:
        """Does the work in the loop of this call, the network thread's."""
        self._task = asyncio.get_running_loop().create_task(work)
        self._task.add_done_callback(self._ended)
        if self._is_cancelled:
            self._task.cancel()

    def cancel(self) -> None:
        """Ends the work; call it in the network thread."""
        self._is_cancelled = True
        if self._task is not None:
            self._task.cancel()

    def now_left(self) -> None:
        """Tells that the request has been sent."""
        self.has_left = True
        self._tell(partial(self._left, time.monotonic()))

    def _ended(self, task: asyncio.Task[T]) -> None:
        self._tell(partial(self._settle, task))

    def _tell(self, call: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # the caller was cancelled and its loop is closed
            self._home.add(call)

    def _left(self, moment: float | None) -> None:
        # To wake the task also for this takes a tenth of what a PUT takes in the step's thread.
        if self.left_at.done() or (
            moment is not None and self._tell_at_once is not None and self._tell_at_once(moment)
        ):
            return
        self.left_at.set_result(moment)

    def _settle(self, task: asyncio.Task[T]) -> None:
        self._left(None)
        if task.cancelled():
            self.answer.cancel()
            return
        error = task.exception()
        if self.answer.done():
            return
        if error is not None:
            self.answer.set_exception(error)
        else:
            self.answer.set_result(task.result())


class NetworkThread:
    """An event loop in a thread, for requests only: nothing waits in it for a database."""

    def __init__(self) -> None:
        started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        # A daemon: it must not keep a process alive whose transport was never closed.
        self._thread = threading.Thread(
            target=asyncio.run, args=(self._until_stopped(started),), name="feedamp-network", daemon=True
        )
        self._thread.start()
        self.loop, self._stopped = started.result()
        self.calls = Calls(self.loop)

    @staticmethod
    async def _until_stopped(started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]) -> None:
        stopped = asyncio.Event()
        started.set_result((asyncio.get_running_loop(), stopped))
        await stopped.wait()

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
        """Does `work` in the thread; cancelling the future that is returned cancels it."""
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.loop))

    async def stop(self) -> None:
        """Cancels what is still running and ends the thread, which may still wait for a look-up of a host."""
        self.loop.call_soon_threadsafe(self._stopped.set)
        await asyncio.to_thread(self._thread.join, LONGEST_END_S)
