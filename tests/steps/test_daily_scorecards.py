"""What a load stores of each seller's figures for the pages."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import pytest
from env import OTHER, SELLER, Env, open_env

from feedamp.state import page_lists, scorecards
from feedamp.state.retention import drop_old
from feedamp.state.schema import scorecards as table
from feedamp.warehouse.session import Session

TODAY = date(2026, 3, 10)
LATE = {"purchase_date": "2026-03-06T10:00:00Z", "latest_ship_date": "2026-03-08T10:00:00Z"}


@pytest.fixture
def env() -> Iterator[Env]:
    with open_env(merges_at_once=True) as opened:
        yield opened


def stored(env: Env, seller: str = SELLER) -> dict[date, int]:
    """Late orders by day."""
    with env.state.read() as connection:
        found = scorecards.of_seller(connection, seller, 30, now=env.state.now())
    return {row["day"]: row["late_orders"] for row in found}


def load_more(env: Env, number: str, **changes: Any) -> None:
    env.placed(number, **LATE | changes)
    env.load()


def test_a_load_that_loads_rows_stores_a_row_by_seller_and_day(env: Env) -> None:
    load_more(env, "M-1")
    load_more(env, "O-1", seller=OTHER, latest_ship_date="2026-03-10T18:00:00Z")
    assert (stored(env), stored(env, OTHER)) == ({TODAY: 1}, {TODAY: 0})
    load_more(env, "M-2")
    assert stored(env) == {TODAY: 2}
    env.clock.skip(days=1)
    env.load()
    assert stored(env) == {TODAY: 2}  # nothing came, so nothing was read
    load_more(env, "M-3")
    tomorrow = TODAY + timedelta(days=1)
    assert (stored(env), stored(env, OTHER)) == ({tomorrow: 3, TODAY: 2}, {tomorrow: 1, TODAY: 0})
    with env.state.read() as connection:
        [row, _] = scorecards.of_seller(connection, SELLER, 30, now=env.state.now())
        assert scorecards.measured_at(connection) is not None
    assert (row["orders"], row["late_rate"], row["amazon_late_ok"], row["walmart_on_time_ok"]) == (
        3,
        1.0,
        False,
        False,
    )


def test_only_figures_that_changed_are_written(env: Env) -> None:
    load_more(env, "M-1")
    load_more(env, "O-1", seller=OTHER)
    now = env.state.now()
    with env.resources.warehouse.session() as warehouse:
        rows = warehouse.scorecards(scorecards.FIGURES, now)
    with env.state.begin() as connection:
        assert scorecards.store(connection, rows, now=now, took_s=0.1) == 0
        rows[0]["late_orders"] = 7
        assert scorecards.store(connection, rows, now=now, took_s=0.1) == 1


def test_figures_that_take_long_are_read_less_often(env: Env) -> None:
    with env.state.begin() as connection:
        scorecards.store(connection, [], now=env.state.now(), took_s=60)
    env.clock.skip(minutes=19)
    load_more(env, "M-1")
    assert stored(env) == {}
    env.clock.skip(minutes=1)
    load_more(env, "M-2")
    assert stored(env) == {TODAY: 2}


def test_a_warehouse_that_cannot_tell_them_is_loaded_anyway(
    env: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(Session, "scorecards", fail)
    load_more(env, "M-1")
    assert env.rows("SELECT count(*) FROM orders") == [(1,)]
    assert stored(env) == {}


def test_figures_of_days_that_no_page_shows_are_deleted(env: Env) -> None:
    load_more(env, "M-1")
    for days, left in ((40, 2), (1, 0)):
        env.clock.skip(days=days)
        with env.state.begin() as connection:
            drop_old(connection, table, now=env.state.now(), limit=100)
            assert len(connection.execute(table.select()).all()) == left


@pytest.mark.parametrize("sort", ["late_orders", "late_rate", "cancel_rate", "valid_tracking_rate"])
def test_sellers_are_sorted_by_their_newest_figures(env: Env, sort: str) -> None:
    now, none = env.state.now(), dict.fromkeys(scorecards.FIGURES)
    for day, low, high in ((now - timedelta(days=1), OTHER, SELLER), (now, SELLER, OTHER)):
        figures = [{**none, "seller_id": seller, sort: n} for n, seller in enumerate((low, high), start=1)]
        with env.state.begin() as connection:
            scorecards.store(connection, figures, now=day, took_s=0.1)
    for descending, order in ((False, [SELLER, OTHER]), (True, [OTHER, SELLER])):
        with env.state.read() as connection:
            found = page_lists.list_sellers(
                connection, page_lists.Part(), search="", status=None, sort=sort, descending=descending
            )
        assert [(item["seller_id"], item[sort]) for item in found.items] == [
            (seller, {SELLER: 1, OTHER: 2}[seller]) for seller in order
        ]
