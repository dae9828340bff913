"""What runs in processes of their own, all at the same moment, on one state file."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from threading import BrokenBarrierError
from typing import Any

from other_leases import use_quick_leases
from wire import tokens_of

from crashes.fixtures import Fixtures, run_step
from crashes.forking import CONTEXT
from feedamp.api.client import Counts, FeedAmpClient
from feedamp.api.clock_check import ClockCheck
from feedamp.api.oauth import Credentials, TokenEndpoint
from feedamp.api.rate_limit import RateLimiter
from feedamp.api.token_journal import TokenJournal
from feedamp.api.transport import Endpoint, Transport
from feedamp.errors import NotFoundError, ThrottledError
from feedamp.resources import Resources
from feedamp.run import Run
from feedamp.state import State, sellers
from feedamp.state.data_key import open_cipher
from feedamp.state.token_cipher import TokenCipher, key_beside
from feedamp.steps.rotate_keys import rotate
from feedamp.storage import open_storage

PATIENCE_S = 30.0
_shared: dict[str, Any] = {}


class Crew:
    """`count` processes that start each piece of work together; this process may join them."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.start, self.meeting = CONTEXT.Barrier(count), CONTEXT.Barrier(count + 1)
        self._pool = ProcessPoolExecutor(
            count, mp_context=CONTEXT, initializer=_enter, initargs=(self.start, self.meeting)
        )

    def run(
        self,
        work: Callable[..., Any],
        *arguments: Any,
        rounds: Callable[[], None] | None = None,
        patience_s: float = PATIENCE_S,
    ) -> list[Any]:
        """What each process returned; `rounds` is called here while they work."""
        futures = [self._pool.submit(_together, work, number, *arguments) for number in range(self.count)]
        try:
            if rounds:
                rounds()
        except BrokenBarrierError:
            pass  # a process has failed, and says why below
        return [future.result(patience_s) for future in futures]

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


@contextmanager
def crew(count: int) -> Iterator[Crew]:
    with closing(Crew(count)) as together:
        yield together


def _enter(start: Any, meeting: Any) -> None:
    _shared.update(start=start, meeting=meeting)


def _together(work: Callable[..., Any], *arguments: Any) -> Any:
    try:
        _shared["start"].wait(PATIENCE_S)
        return work(*arguments)
    except BaseException:
        _shared["meeting"].abort()
        raise


def place_and_tell(fixtures: Fixtures, pipe: Any) -> None:
    """One placing by a process; sends its process id, and then what it has left undone."""
    pipe.send(os.getpid())
    resources = fixtures.resources()
    with closing(resources.state):
        use_quick_leases(resources.state)
        pipe.send(run_step(resources, "place", f"of-{os.getpid()}")["undone"])


def open_state(_number: int, url: str) -> str | None:
    """The revision a process finds once it has opened the database."""
    with closing(State(url)) as state:
        return state.current_revision()


def make_key(_number: int, state_file: str) -> str:
    return key_beside(state_file)


def hash_with_data_key(_number: int, url: str, key: str) -> str:
    """A keyed hash, by the data key that this process found or made."""
    with closing(State(url)) as state:
        return open_cipher(state, key).fingerprint("token", "rt-1")


def rotate_once(url: str, keys: str, folder: str, pipe: Any) -> None:
    """Says when it begins, and at the end how many values are left under an older key."""
    with closing(State(url)) as state:
        cipher = open_cipher(state, keys)
        pipe.send("begins")
        pipe.send(rotate(state, cipher, TokenJournal(open_storage("journal_url", folder), cipher)).older)


def take_turns(number: int, url: str, turns: int) -> list[float]:
    """The moment of each slot, ten of which come in a second, by this machine's clock."""

    async def work(state: State) -> list[float]:
        rate_limiter, came = RateLimiter(state, requests_per_second=10, sleep=asyncio.sleep), []
        # Before all begin, since to open a state and take a first slot may take longer than the distance of all slots.
        async with rate_limiter.leaving(f"of-{number}", asyncio.Semaphore()):
            pass
        _shared["start"].wait(PATIENCE_S)
        for _ in range(turns):
            async with rate_limiter.leaving("S1", asyncio.Semaphore()):
                came.append(datetime.now(UTC).timestamp())
        return came

    with closing(State(url)) as state:
        return asyncio.run(work(state))


def send_for(fixtures: Fixtures, seconds: float, pipe: Any) -> None:
    """Reads an order of every seller again and again; sends the number of requests at the end."""

    async def read(client: FeedAmpClient, ends_at: float) -> None:
        while time.monotonic() < ends_at:
            with suppress(NotFoundError):
                await client.get_order("M-1")

    async def work(resources: Resources) -> int:
        with resources.state.read() as connection:
            found = sellers.find(connection, [])
        async with resources.clients(Run("test", f"of-{os.getpid()}", resources.state.now())) as clients:
            clients.hold_rates([seller.seller_id for seller in found])
            ends_at = time.monotonic() + seconds
            await asyncio.gather(*[read(await clients.client(seller), ends_at) for seller in found])
            return clients.requests

    resources = fixtures.resources()
    with closing(resources.state):
        use_quick_leases(resources.state)
        pipe.send(asyncio.run(work(resources)))


def ask_during_a_pause(fixtures: Fixtures, seller_id: str, pipe: Any) -> None:
    """Asks for an order; sends the status and the seconds of the error that says to wait."""

    async def ask(resources: Resources) -> None:
        async with resources.clients(Run("test", f"of-{os.getpid()}", resources.state.now())) as clients:
            await (await clients.for_seller(seller_id)).get_order("M-1")

    resources = fixtures.resources()
    with closing(resources.state):
        try:
            asyncio.run(ask(resources))
        except ThrottledError as error:
            pipe.send((error.status, error.retry_after_s))


def ask_after_each_expiry(
    number: int,
    url: str,
    key: str,
    folder: str,
    api: str,
    credentials: tuple[str, str, str],
    sellers: list[str],
    rounds: int,
) -> int:
    """Asks for an order of each seller, at the same time as the others; between rounds all access tokens end."""

    async def work(state: State) -> int:
        async with Transport(Endpoint(api)) as transport:
            endpoint = TokenEndpoint(transport, Credentials(*credentials))
            cipher = TokenCipher(key)
            journal = TokenJournal(open_storage("journal_url", folder), cipher)
            tokens = tokens_of(state, cipher, endpoint, journal, sleep=asyncio.sleep)
            rate_limiter = RateLimiter(state, requests_per_second=100_000, sleep=asyncio.sleep)
            clients = [
                FeedAmpClient(
                    seller,
                    transport=transport,
                    tokens=tokens,
                    rate_limiter=rate_limiter,
                    clock=ClockCheck(state),
                    now=state.now,
                    sleep=asyncio.sleep,
                    counts=Counts(),
                )
                for seller in sellers
            ]
            read = 0
            for _ in range(rounds):
                _shared["meeting"].wait(PATIENCE_S)
                orders = await asyncio.gather(*(client.get_order(f"M-{number}") for client in clients))
                read += len(orders)
                _shared["meeting"].wait(PATIENCE_S)
            return read

    with closing(State(url)) as state:
        return asyncio.run(work(state))
