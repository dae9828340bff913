"""What each load writes as a whole: the orders that wait, and the sellers."""

from __future__ import annotations

from datetime import timedelta

import pytest
from env import OTHER, SELLER, Env

from feedamp.lake.manifest import Manifest
from feedamp.state import full_snapshots, ledger, manifests, sellers
from feedamp.state.full_snapshots import Written
from feedamp.steps.compact import compact

WAITING = "SELECT mp_order_number FROM waiting_orders ORDER BY mp_order_number"


def written(env: Env) -> list[Manifest]:
    return [manifest for manifest in env.resources.lake.manifests() if manifest.full_snapshots]


def pause(env: Env, *, paused: bool) -> None:
    with env.state.begin() as connection:
        sellers.pause(connection, SELLER, paused=paused, now=env.state.now())


@pytest.fixture
def waiting(env: Env) -> Env:
    """M-1 waits, because its seller is paused."""
    pause(env, paused=True)
    env.placed("M-1")
    env.load()
    return env


def test_an_order_is_listed_while_it_waits(waiting: Env) -> None:
    columns = "ledger_phase, reason, since IS NOT NULL, next_try_at IS NOT NULL"
    [row] = waiting.rows(f"SELECT mp_order_number, {columns} FROM waiting_orders")
    assert row == ("M-1", "to_place", "the seller is paused", True, True)
    pause(waiting, paused=False)
    waiting.place()
    waiting.load()
    assert waiting.rows(WAITING) == []
    waiting.resources.warehouse.rebuild(waiting.resources.lake)
    assert waiting.rows(WAITING) == []


def test_sellers_are_listed_with_grant_watermark_and_pause(waiting: Env) -> None:
    waiting.register(OTHER)
    waiting.read()
    columns = "seller_id, status, grant_status, paused_at IS NULL, watermark IS NULL, year(grant_ends_at)"
    assert waiting.rows(f"SELECT {columns} FROM sellers ORDER BY seller_id") == [
        (SELLER, "paused", "active", False, True, 2027),
        (OTHER, "active", "active", True, False, 2027),
    ]


def test_what_has_not_changed_is_not_written_again(waiting: Env) -> None:
    before = waiting.resources.lake.published()
    waiting.use(None)  # type: ignore[arg-type] - it is not opened
    waiting.load()
    assert waiting.resources.lake.published() == before


@pytest.mark.parametrize(
    "died", ["before it was taken", "before it was recorded", "after its manifest was lost"]
)
def test_a_load_that_died_is_made_up_for(waiting: Env, died: str) -> None:
    [manifest] = written(waiting)
    with waiting.state.begin() as connection:
        if died == "after its manifest was lost":
            manifests.drop(connection, manifest.path)
        else:
            connection.execute(full_snapshots.full_snapshots.delete())
        if died == "before it was taken":
            manifests.announce(connection, manifest.path, now=waiting.state.now())
    waiting.load()
    assert waiting.rows(WAITING) == [("M-1",)]
    assert len(written(waiting)) == 2
    before = waiting.resources.lake.published()
    waiting.load()
    assert waiting.resources.lake.published() == before


def test_a_load_that_was_overtaken_records_nothing(waiting: Env) -> None:
    with waiting.state.begin() as connection:
        newer = full_snapshots.last_written(connection, "sellers")
        assert newer is not None
        older = Written("0", newer.taken_at - timedelta(seconds=1), "a path")
        full_snapshots.record(connection, "sellers", older)
        assert full_snapshots.last_written(connection, "sellers") == newer


def test_a_clock_that_went_back_makes_no_older_snapshot(waiting: Env) -> None:
    with waiting.state.begin() as connection:
        last = full_snapshots.last_written(connection, "waiting_orders")
        assert last is not None
        ahead = Written("0", last.taken_at + timedelta(days=1), last.manifest)
        full_snapshots.record(connection, "waiting_orders", ahead)
    waiting.load()
    assert written(waiting)[-1].full_snapshots["waiting_orders"] > ahead.taken_at


def test_compaction_leaves_only_the_newest_full_snapshot(waiting: Env) -> None:
    waiting.clock.skip(days=1)
    for paused in (False, True, False):
        pause(waiting, paused=paused)
        waiting.place()
        waiting.load()
    waiting.clock.skip(days=4)
    before = waiting.rows("SELECT * FROM sellers")
    compact(waiting.resources, waiting.run("compact"), grace=timedelta(0))
    [manifest] = written(waiting)
    assert sorted(manifest.full_snapshots) == ["sellers", "waiting_orders"]
    waiting.resources.warehouse.rebuild(waiting.resources.lake)
    assert (waiting.rows("SELECT * FROM sellers"), waiting.rows(WAITING)) == (before, [])
    compact(waiting.resources, waiting.run("compact"), grace=timedelta(0))
    published = waiting.resources.lake.published()
    waiting.load()
    assert waiting.resources.lake.published() == published


def test_the_reason_has_no_words_of_feedamp(env: Env) -> None:
    env.placed("M-1")
    with env.state.begin() as connection:
        order = ledger.read(connection, SELLER, "M-1")
        assert order is not None
        wanted = order.requested("CANCELLED", now=env.state.now())
        ledger.save(connection, order, wanted.refused("FeedAMP answered 409: Jane Doe\nhas moved"))
    env.load()
    assert env.rows("SELECT ledger_phase, reason FROM waiting_orders") == [("held", "FeedAMP answered 409")]
