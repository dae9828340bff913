"""What an extraction could not read: lists that it left after shard_minutes, and unreadable orders."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from env import SELLER, Env, open_env

from feedamp.errors import IncompleteError
from feedamp.state import action_required
from feedamp.steps.step_end import finish

STOCK = 25


@pytest.fixture
def env(tmp_path: Any) -> Iterator[Env]:
    """A seller with three pages of orders; an extraction reads one page."""
    with open_env(tmp_path, rules={"page_size": 10, "shard_time": timedelta()}) as env:
        env.stock(STOCK)
        yield env


def extracted(env: Env) -> int:
    return int(env.rows("SELECT count(*) FROM orders WHERE extracted_at IS NOT NULL")[0][0])


def unreadable(env: Env) -> list[dict[str, Any]]:
    with env.state.read() as connection:
        return action_required.unreadable_orders(connection, unread_since=env.clock.now(), limit=9).items


def have_cursors(env: Env) -> list[bool]:
    """Whether each request for the seller's list goes on in it."""
    lists = [r for r in env.asked("GET") if r.seller_id == SELLER and r.path.endswith("/orders")]
    return ["cursor" in r.query for r in lists]


def test_a_list_is_read_on_where_the_last_run_left_it(env: Env) -> None:
    started = env.clock.now()
    for read in (10, 20):
        result = env.extract()
        assert finish(result)["complete"] is False
        env.load()
        assert (extracted(env), env.watermark()) == (read, None)
        env.clock.skip(hours=1)
    env.read()
    mark = env.watermark()
    assert extracted(env) == STOCK
    assert mark is not None
    assert abs(mark - (started - timedelta(minutes=10))) < timedelta(minutes=1)
    assert have_cursors(env)[:3] == [False, True, True]
    assert env.sandbox.broken_rules == []


def test_a_cursor_that_has_expired_starts_the_list_again(env: Env) -> None:
    env.set_rules(shard_time=timedelta())
    env.read()
    env.set_rules(shard_time=timedelta(hours=1))
    env.sandbox.fault("expire_cursor", seller_id=SELLER, times=1)
    env.read()
    assert extracted(env) == STOCK
    assert env.watermark() is not None


def test_the_watermark_waits_if_an_earlier_part_is_not_in_the_lake(env: Env) -> None:
    env.extract()
    [part] = (env.folder / "lake" / "orders").rglob("*.parquet")
    part.unlink()
    env.set_rules(shard_time=timedelta(hours=1))
    env.extract()
    with pytest.raises(IncompleteError):
        env.load()
    assert env.watermark() is None
    before = len(have_cursors(env))
    env.extract()  # from the beginning, where that part was
    assert have_cursors(env)[before] is False


def test_an_unreadable_order_is_named_until_it_is_readable(env: Env) -> None:
    env.set_rules(shard_time=timedelta(hours=1))
    env.sandbox.fault("misshapen_order", seller_id=SELLER, times=None)
    env.read()
    first = unreadable(env)
    env.clock.skip(days=1)
    env.read()
    assert unreadable(env) == first != []  # since the first time
    env.sandbox.clear_faults()
    env.read()
    assert unreadable(env) == []


@pytest.mark.parametrize("ratio", [1.0, 0.01])
def test_more_unreadable_orders_than_allowed_make_the_run_red(env: Env, ratio: float) -> None:
    env.set_rules(shard_time=timedelta(hours=1), max_unread_ratio=ratio)
    env.sandbox.fault("misshapen_order", seller_id=SELLER, times=None)
    result = env.extract()
    assert result.orders_unread > 0
    if ratio == 1.0:
        finish(result)
    else:
        with pytest.raises(IncompleteError, match="more than max_unread_ratio"):
            finish(result)
