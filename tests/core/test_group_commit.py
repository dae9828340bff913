"""Group commit: one transaction for a moment, in which no item fails another."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.errors import StoreAwayError
from feedamp.state import State
from feedamp.state.group_commit import ITEMS_AT_ONCE, LINGERS_S, ROUNDS, GroupCommit
from feedamp.state.schema import switches

BAD, AWAY, DEADLOCKED = "bad", "away", "deadlocked"
HELD = "held"  # a seller of whom another transaction is; on SQLite there are no locks of sellers
WAITS_S = 0.05
PATIENCE_S = 10


class Item(str):
    """An order of the seller of this name, up to a slash."""

    __slots__ = ()

    @property
    def key(self) -> tuple[str, str]:
        return self.partition("/")[0], "M-1"


class DeadlockError(Exception):
    """As the driver of Postgres names it."""

    sqlstate = "40P01"


class Rows:
    """Writes a row for each item; `transactions` has the items of each that was begun."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.is_free, self.is_waited_for = threading.Event(), threading.Event()
        self.goes_on, self.is_at_work = threading.Event(), threading.Event()
        self.is_free.set()
        self.goes_on.set()
        self.transactions: list[list[str]] = []
        self.told: list[str] = []
        self.group = GroupCommit[Item](self.state, self.work)
        self._begin = state.begin
        state.begin_free, state.begin = self._begin_free, self._begin_once_free

    @contextmanager
    def _begin_free(self, seller_ids: Collection[str]) -> Iterator[tuple[Connection, Collection[str]]]:
        with self._begin(of=seller_ids) as connection:
            yield connection, set(seller_ids) - (set() if self.is_free.is_set() else {HELD})

    @contextmanager
    def _begin_once_free(self, *, of: Collection[str] = (), **options: bool) -> Iterator[Connection]:
        if HELD in of:
            self.is_waited_for.set()
            if not self.is_free.wait(PATIENCE_S):
                raise StoreAwayError("the seller is not free")
        with self._begin(of=of, **options) as connection:
            yield connection

    async def hold(self, *, even_if_cancelled: bool = False) -> asyncio.Task[None]:
        """A task that waits for the seller of whom another transaction is."""
        self.is_free.clear()
        task = asyncio.create_task(self.do_one(HELD, even_if_cancelled=even_if_cancelled))
        await asyncio.to_thread(self.is_waited_for.wait, PATIENCE_S)
        return task

    def work(self, connection: Connection, items: Sequence[Item], _asked_at: float) -> Callable[[], None]:
        self.transactions.append(list(items))
        self.is_at_work.set()
        self.goes_on.wait(PATIENCE_S)
        for item in items:
            connection.execute(sa.insert(switches).values(name=item, since=self.state.now()))
            if item == AWAY:
                raise StoreAwayError("the store is away")
            if item == DEADLOCKED and len(items) > 1:
                raise sa.exc.OperationalError("INSERT", {}, DeadlockError("deadlock detected"))
            if item.endswith(BAD):
                raise ValueError(item)
        return lambda: self.told.extend(items)

    def stored(self) -> set[str]:
        with self.state.read() as connection:
            return set(connection.execute(sa.select(switches.c.name)).scalars())

    async def do(self, *items: str) -> list[object]:
        return await asyncio.gather(*map(self.do_one, items), return_exceptions=True)

    async def do_one(self, item: str, *, even_if_cancelled: bool = False) -> None:
        await self.group.do(Item(item), even_if_cancelled=even_if_cancelled)


@pytest.fixture
def rows(state: State) -> Rows:
    return Rows(state)


async def test_what_is_wanted_at_one_moment_is_one_transaction(rows: Rows) -> None:
    assert await rows.do("a", "b", "c") == [None, None, None]
    assert rows.transactions == [["a", "b", "c"]]
    assert rows.stored() == set(rows.told) == {"a", "b", "c"}


async def test_what_is_wanted_while_more_is_expected_is_one_transaction(rows: Rows) -> None:
    expected = [True]
    rows.group = GroupCommit[Item](rows.state, rows.work, expects_more=lambda: bool(expected))
    first = asyncio.create_task(rows.do_one("a"))
    await asyncio.sleep(LINGERS_S / 10)
    assert rows.transactions == []
    expected.clear()
    await asyncio.gather(first, rows.do_one("b"))
    assert rows.transactions == [["a", "b"]]


async def test_an_item_does_not_wait_long_for_others_that_never_come(rows: Rows) -> None:
    rows.group = GroupCommit[Item](rows.state, rows.work, expects_more=lambda: True)
    await asyncio.wait_for(rows.do_one("a"), timeout=20 * LINGERS_S)
    assert rows.transactions == [["a"]]


@pytest.mark.parametrize(("items", "sizes"), [(ITEMS_AT_ONCE, [500]), (ITEMS_AT_ONCE + 1, [500, 1])])
async def test_a_transaction_has_a_largest_size(rows: Rows, items: int, sizes: list[int]) -> None:
    rows.group = GroupCommit[Item](rows.state, rows.work, expects_more=lambda: True)
    await asyncio.wait_for(rows.do(*map(str, range(items))), timeout=5)
    assert [len(of_one) for of_one in rows.transactions] == sizes
    assert len(rows.stored()) == items


async def test_an_item_that_fails_fails_no_other(rows: Rows) -> None:
    a, bad, c = await rows.do("a", BAD, "c")
    assert isinstance(bad, ValueError)
    assert (a, c) == (None, None)
    assert rows.stored() == set(rows.told) == {"a", "c"}


async def test_an_outage_of_the_store_is_waited_for_once(rows: Rows) -> None:
    assert {type(answer) for answer in await rows.do("a", AWAY, "c")} == {StoreAwayError}
    assert len(rows.transactions) == 1
    assert rows.stored() == set(rows.told) == set()


async def test_what_two_transactions_waited_for_in_a_circle_is_done_one_by_one(rows: Rows) -> None:
    assert await rows.do("a", DEADLOCKED, "c") == [None, None, None]
    assert rows.stored() == set(rows.told) == {"a", DEADLOCKED, "c"}


async def test_a_result_of_a_task_that_is_cancelled_is_stored(rows: Rows) -> None:
    kept = asyncio.create_task(rows.do_one("a", even_if_cancelled=True))
    other = asyncio.create_task(rows.do_one("b"))
    await asyncio.sleep(0)
    kept.cancel()
    [first, second] = await asyncio.gather(kept, other, return_exceptions=True)
    assert (isinstance(first, asyncio.CancelledError), second) == (True, None)
    assert rows.stored() == set(rows.told) == {"a", "b"}


@pytest.mark.parametrize("rounds", range(ROUNDS + 3))
async def test_a_result_is_stored_at_whichever_moment_its_task_is_cancelled(rows: Rows, rounds: int) -> None:
    kept = asyncio.create_task(rows.do_one("a", even_if_cancelled=True))
    for _ in range(rounds):
        await asyncio.sleep(0)
    if rounds:  # before, the task has not begun
        kept.cancel()
    await asyncio.gather(kept, return_exceptions=True)
    assert rows.transactions == [["a"]]


async def test_a_task_that_is_cancelled_ends_although_its_result_is_not_stored(rows: Rows) -> None:
    kept = asyncio.create_task(rows.do_one(AWAY, even_if_cancelled=True))
    await asyncio.sleep(0)
    kept.cancel()
    with pytest.raises(asyncio.CancelledError) as ended:
        await kept
    assert isinstance(ended.value.__cause__, StoreAwayError)


async def test_an_item_whose_seller_is_in_another_transaction_delays_no_other(rows: Rows) -> None:
    held = [await rows.hold()]
    held += [asyncio.create_task(rows.do_one(f"{HELD}/{number}")) for number in (2, 3)]
    await rows.do("a", BAD, "c")
    assert await rows.do("d") == [None]
    assert not any(task.done() for task in held)
    rows.is_free.set()
    await asyncio.wait_for(asyncio.gather(*held), timeout=PATIENCE_S)
    assert rows.transactions[-1] == [HELD, f"{HELD}/2", f"{HELD}/3"]
    assert rows.stored() == set(rows.told) == {"a", "c", "d", HELD, f"{HELD}/2", f"{HELD}/3"}


async def test_an_item_that_waited_for_its_turn_and_fails_fails_no_other(rows: Rows) -> None:
    held = [await rows.hold(), asyncio.create_task(rows.do_one(f"{HELD}/{BAD}"))]
    await rows.do("a")
    rows.is_free.set()
    first, bad = await asyncio.gather(*held, return_exceptions=True)
    assert (first, type(bad)) == (None, ValueError)
    assert rows.stored() == set(rows.told) == {"a", HELD}


async def test_an_item_whose_seller_stays_in_another_transaction_is_given_up(
    rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "PATIENCE_S", WAITS_S)
    with pytest.raises(StoreAwayError):
        await (await rows.hold())
    rows.is_free.set()
    assert await rows.do(HELD) == [None]


async def test_a_result_of_a_cancelled_task_waits_for_the_lock_of_its_seller(rows: Rows) -> None:
    kept = await rows.hold(even_if_cancelled=True)
    kept.cancel()
    threading.Timer(WAITS_S, rows.is_free.set).start()
    await asyncio.gather(kept, return_exceptions=True)
    assert rows.transactions == [[HELD]]


async def test_nothing_is_done_at_its_turn_for_a_task_that_has_ended(rows: Rows) -> None:
    ended, held = await rows.hold(), asyncio.create_task(rows.do_one(f"{HELD}/2"))
    ended.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ended
    rows.is_free.set()
    await held
    assert rows.stored() == {f"{HELD}/2"}


@pytest.mark.parametrize("even_if_cancelled", [True, False])
async def test_a_task_that_is_cancelled_in_its_turn_ends_after_it(
    rows: Rows, even_if_cancelled: bool
) -> None:
    """What is to be done once it is committed, such as to renew a lease, is done when the task looks at it."""
    held = await rows.hold(even_if_cancelled=even_if_cancelled)
    rows.goes_on.clear()
    rows.is_free.set()
    await asyncio.to_thread(rows.is_at_work.wait, PATIENCE_S)
    for _ in range(2):
        held.cancel()
        await asyncio.sleep(WAITS_S)
        assert not held.done()
    rows.goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await held
    assert rows.transactions == [[HELD]]
    assert rows.stored() == set(rows.told) == {HELD}


async def test_nothing_is_done_for_a_task_that_has_ended(rows: Rows) -> None:
    tasks = [asyncio.create_task(rows.do_one(item)) for item in ("a", "b")]
    await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert rows.stored() == {"b"}


async def test_a_signal_reaches_the_tasks_that_wait(rows: Rows) -> None:
    """Airflow ends a task that takes too long by an exception that is no `Exception`."""

    class TimeIsOver(BaseException):
        pass

    def strike(connection: Connection, items: Sequence[Item], asked_at: float) -> Callable[[], None]:
        raise TimeIsOver

    rows.group = GroupCommit[Item](rows.state, strike)
    tasks = [await rows.hold(), asyncio.create_task(rows.do_one("a"))]
    async with asyncio.timeout(PATIENCE_S):
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(ended, TimeIsOver)
    tasks = [asyncio.create_task(rows.do_one(HELD))]
    rows.is_free.set()
    for ended in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(ended, TimeIsOver)
