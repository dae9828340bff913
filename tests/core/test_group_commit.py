"""Group commit: one transaction for a moment, in which no item fails another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.errors import StoreAwayError
from feedamp.state import State
from feedamp.state.group_commit import ITEMS_AT_ONCE, LINGERS_S, GroupCommit
from feedamp.state.schema import switches

BAD, AWAY, DEADLOCKED = "bad", "away", "deadlocked"


class DeadlockError(Exception):
    """As the driver of Postgres names it."""

    sqlstate = "40P01"


class Rows:
    """Writes a row for each item; `transactions` has the items of each that was begun."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.transactions: list[list[str]] = []
        self.told: list[str] = []
        self.group = GroupCommit[str](self._begin, self._work)

    def _begin(self, items: Sequence[str]) -> Any:
        self.transactions.append(list(items))
        return self.state.begin()

    def _work(self, connection: Connection, items: Sequence[str]) -> Callable[[], None]:
        for item in items:
            connection.execute(sa.insert(switches).values(name=item, since=self.state.now()))
            if item == AWAY:
                raise StoreAwayError("the store is away")
            if item == DEADLOCKED and len(items) > 1:
                raise sa.exc.OperationalError("INSERT", {}, DeadlockError("deadlock detected"))
            if item == BAD:
                raise ValueError(item)
        return lambda: self.told.extend(items)

    def stored(self) -> set[str]:
        with self.state.read() as connection:
            return set(connection.execute(sa.select(switches.c.name)).scalars())

    async def do(self, *items: str) -> list[object]:
        return await asyncio.gather(*map(self.group.do, items), return_exceptions=True)


@pytest.fixture
def rows(tmp_path: Path) -> Iterator[Rows]:
    state = State(f"sqlite:///{tmp_path}/state.db")
    yield Rows(state)
    state.close()


async def test_what_is_wanted_at_one_moment_is_one_transaction(rows: Rows) -> None:
    assert await rows.do("a", "b", "c") == [None, None, None]
    assert rows.transactions == [["a", "b", "c"]]
    assert rows.stored() == set(rows.told) == {"a", "b", "c"}


async def test_what_is_wanted_while_more_is_expected_is_one_transaction(rows: Rows) -> None:
    expected = [True]
    rows.group = GroupCommit[str](rows._begin, rows._work, expects_more=lambda: bool(expected))
    first = asyncio.create_task(rows.group.do("a"))
    await asyncio.sleep(LINGERS_S / 10)
    assert rows.transactions == []
    expected.clear()
    await asyncio.gather(first, rows.group.do("b"))
    assert rows.transactions == [["a", "b"]]


async def test_an_item_does_not_wait_long_for_others_that_never_come(rows: Rows) -> None:
    rows.group = GroupCommit[str](rows._begin, rows._work, expects_more=lambda: True)
    await asyncio.wait_for(rows.group.do("a"), timeout=20 * LINGERS_S)
    assert rows.transactions == [["a"]]


@pytest.mark.parametrize(("items", "sizes"), [(ITEMS_AT_ONCE, [500]), (ITEMS_AT_ONCE + 1, [500, 1])])
async def test_a_transaction_has_a_largest_size(rows: Rows, items: int, sizes: list[int]) -> None:
    rows.group = GroupCommit[str](rows._begin, rows._work, expects_more=lambda: True)
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
    kept = asyncio.create_task(rows.group.do("a", even_if_cancelled=True))
    other = asyncio.create_task(rows.group.do("b"))
    await asyncio.sleep(0)
    kept.cancel()
    [first, second] = await asyncio.gather(kept, other, return_exceptions=True)
    assert (isinstance(first, asyncio.CancelledError), second) == (True, None)
    assert rows.stored() == set(rows.told) == {"a", "b"}


async def test_nothing_is_done_for_a_task_that_has_ended(rows: Rows) -> None:
    tasks = [asyncio.create_task(rows.group.do(item)) for item in ("a", "b")]
    await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert rows.stored() == {"b"}


async def test_a_signal_reaches_the_tasks_that_wait(rows: Rows) -> None:
    """Airflow ends a task that takes too long by an exception that is no `Exception`."""

    class TimeIsOver(BaseException):
        pass

    def strike(items: Sequence[str]) -> Any:
        raise TimeIsOver

    rows.group = GroupCommit[str](strike, rows._work)
    with pytest.raises(TimeIsOver):
        await asyncio.wait_for(rows.group.do("a"), timeout=5)
