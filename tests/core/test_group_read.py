"""Sellers of one task who begin at one moment are read for in one transaction."""

import asyncio
import pickle
from copy import copy

import pytest
from sqlalchemy.engine import Connection

from feedamp import errors
from feedamp.errors import FeedAmpError, RejectedError
from feedamp.state.group_read import GroupRead

SELLERS = ("S1", "S2", "S3")


def test_what_is_asked_for_at_one_moment_is_read_once(state):
    asked: list[list[str]] = []

    def read(connection: Connection, seller_ids: list[str]) -> dict[str, str]:
        asked.append(seller_ids)
        return {seller_id: f"of {seller_id}" for seller_id in seller_ids}

    async def work() -> list[str]:
        group = GroupRead(state, read)
        first = await asyncio.gather(*(group.of(seller_id) for seller_id in (*SELLERS, "S1")))
        return [*first, await group.of("S2")]

    assert asyncio.run(work()) == ["of S1", "of S2", "of S3", "of S1", "of S2"]
    assert asked == [list(SELLERS), ["S2"]]


def test_the_first_who_asks_waits_for_others(state):
    asked: list[list[str]] = []

    def read(connection: Connection, seller_ids: list[str]) -> dict[str, int]:
        asked.append(seller_ids)
        return dict.fromkeys(seller_ids, 1)

    async def work() -> None:
        group = GroupRead(state, read, lingers_s=0.5)
        first = asyncio.ensure_future(group.of("S1"))
        for _ in range(3):  # rounds of the event loop
            await asyncio.sleep(0)
        assert await group.of("S2") == await first == 1

    asyncio.run(work())
    assert asked == [["S1", "S2"]]


def test_a_read_that_fails_fails_each_who_waits_and_no_later_one(state):
    fails = [True, False]

    def read(connection: Connection, seller_ids: list[str]) -> dict[str, int]:
        if fails.pop(0):
            raise RejectedError("no", status=403)
        return dict.fromkeys(seller_ids, 1)

    async def work() -> None:
        group = GroupRead(state, read)
        raised = await asyncio.gather(*(group.of(seller_id) for seller_id in SELLERS), return_exceptions=True)
        assert [str(error) for error in raised] == ["no"] * 3
        assert len({id(error) for error in raised}) == 3  # each may be given its own seller
        assert await group.of("S1") == 1

    asyncio.run(work())


def test_a_signal_while_it_is_read_reaches_each_who_waits(state):
    """As the end of a task's time; the event loop swallows what a callback raises, and they would wait without end."""

    class TimeIsOver(BaseException):
        pass

    def read(connection: Connection, seller_ids: list[str]) -> dict[str, int]:
        raise TimeIsOver

    async def work() -> list[BaseException | int]:
        group = GroupRead(state, read)
        waits = (group.of(seller_id) for seller_id in SELLERS)
        return await asyncio.wait_for(asyncio.gather(*waits, return_exceptions=True), timeout=5)

    assert [type(found) for found in asyncio.run(work())] == [TimeIsOver] * 3


def test_one_who_gives_up_takes_nothing_from_the_others(state):
    async def work() -> None:
        group = GroupRead(state, lambda _, seller_ids: dict.fromkeys(seller_ids, 1))
        gives_up, stays = (asyncio.ensure_future(group.of(seller_id)) for seller_id in ("S1", "S2"))
        await asyncio.sleep(0)
        gives_up.cancel()
        assert await stays == 1
        with pytest.raises(asyncio.CancelledError):
            await gives_up

    asyncio.run(work())


@pytest.mark.parametrize(
    "kind", [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, FeedAmpError)]
)
def test_an_error_of_any_kind_can_be_copied_and_sent_to_a_process(kind):
    needed = {"status": 403} if issubclass(kind, RejectedError) else {}
    error = kind("why", seller_id="S1", **needed)
    for same in (copy(error), pickle.loads(pickle.dumps(error))):
        assert (type(same), str(same), vars(same)) == (kind, "why", vars(error))
