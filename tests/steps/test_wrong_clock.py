"""A run whose clock is days off does nothing, if FeedAMP and the state both say so; otherwise it warns."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
import sqlalchemy as sa
from env import SELLER, Env, shipment

from feedamp.api.transport import Answer
from feedamp.errors import ConfigurationError
from feedamp.state import grants, open_orders, rejects, schema
from feedamp.steps.purge import purge
from feedamp.steps.refresh_tokens.renew_idle_grants import plan_refresh

DAYS = 40


@contextmanager
def clock_off(env: Env, days: float) -> Iterator[None]:
    """The state database's clock is off, FeedAMP's is not."""
    env.state._clock = lambda: env.clock.now() + timedelta(days=days)
    yield
    env.state._clock = env.clock.now


def refreshed_at(env: Env) -> object:
    with env.state.read() as connection:
        grant = grants.read(connection, env.cipher, SELLER)
    assert grant is not None
    return grant.refreshed_at


def test_a_next_try_that_a_wrong_clock_wrote_holds_no_order_back(env: Env) -> None:
    env.deliver("M-1")
    env.sandbox.fault("error_503", path="/orders", times=None)
    with clock_off(env, DAYS):
        env.place()
    env.sandbox.clear_faults()
    assert env.order("M-1").next_try_at > env.clock.now() + timedelta(days=DAYS - 1)
    env.place()
    assert "M-1" in env.sandbox.orders(SELLER)


@pytest.mark.parametrize(
    ("days", "step"),
    [
        pytest.param(DAYS, Env.extract, id="ahead, extract"),
        pytest.param(DAYS, Env.place, id="ahead, place"),
        pytest.param(DAYS, Env.refresh, id="ahead, refresh"),
        pytest.param(-DAYS, Env.extract, id="behind, extract"),
    ],
)
def test_a_step_with_a_wrong_clock_is_refused_and_loses_nothing(
    env: Env, days: int, step: Callable[[Env], object]
) -> None:
    env.placed("M-1")
    env.read()
    mark, noon = env.watermark(), env.clock.now()
    env.fulfill("M-1", shipment(2))
    env.deliver("M-2")
    with clock_off(env, days), pytest.raises(ConfigurationError, match="Correct the clock"):
        step(env)
    env.load()
    assert env.watermark() == mark
    assert abs(refreshed_at(env) - noon) < timedelta(minutes=1)  # type: ignore[operator]
    env.place()
    env.read()
    assert env.rows("SELECT units_shipped FROM orders WHERE mp_order_number = 'M-1'") == [(2,)]
    assert "M-2" in env.sandbox.orders(SELLER)


@pytest.mark.parametrize(
    ("what", "level"),
    [("idle", logging.INFO), ("a wrong Date", logging.WARNING), ("a new installation", logging.WARNING)],
)
def test_one_witness_alone_is_only_logged_once(
    env: Env, caplog: pytest.LogCaptureFixture, what: str, level: int
) -> None:
    if what != "a new installation":
        env.read()
    if what == "idle":
        env.clock.skip(days=DAYS)
    else:
        env.sandbox.fault("clock_apart", times=None, seconds=DAYS * 86_400)
    with caplog.at_level(logging.INFO):
        assert env.extract().complete
    said = [
        record.levelno
        for record in caplog.records
        if "The state database's clock shows" in record.getMessage()
    ]
    assert said == [level]


def test_a_new_installation_whose_clock_is_ahead_drops_nothing_later(env: Env) -> None:
    env.placed("M-1")
    with env.state.begin() as connection:  # nothing in the state tells the time yet
        connection.exec_driver_sql("UPDATE grants SET refreshed_at = NULL, access_token = NULL")
    with clock_off(env, DAYS):
        env.read()
    env.fulfill("M-1", shipment(2))
    env.clock.skip(minutes=1)
    env.read()
    with env.state.read() as connection:
        stored = open_orders.read(connection, SELLER, "M-1")
    assert stored is not None
    assert stored.snapshot.fulfillments
    assert stored.read_at <= env.clock.now()


@pytest.mark.parametrize("days", [400, -400], ids=["ahead", "behind"])
def test_a_purge_by_a_doubted_clock_changes_nothing(env: Env, days: int) -> None:
    env.set_rules(closed_body_kept=timedelta(days=30))
    env.placed("M-1")
    env.fulfill("M-1", shipment())
    env.read()
    env.process()
    with clock_off(env, days), pytest.raises(ConfigurationError) as raised:
        purge(env.resources, env.run("refresh_tokens"))
    for shown in (env.clock.now() + timedelta(days=days), env.clock.now()):
        assert f"{shown:%Y-%m-%d %H:%M} UTC" in str(raised.value)
    assert env.order("M-1").has_body


def test_after_idle_days_a_purge_asks_feedamp_for_its_clock(env: Env) -> None:
    env.set_rules(closed_body_kept=timedelta(days=30))
    env.placed("M-1")
    env.fulfill("M-1", shipment())
    env.read()
    env.process()
    env.clock.skip(days=40)
    env.sandbox.fault("error_401", times=None)  # no seller can be read
    before = len(env.sandbox.requests)
    assert purge(env.resources, env.run("refresh_tokens"))["bodies"] == 1
    asked = env.sandbox.requests[before:]
    assert [(request.method, request.seller_id) for request in asked] == [("GET", None)]


@pytest.mark.parametrize("days", [400, -400], ids=["ahead", "behind"])
def test_what_is_taken_in_by_a_wrong_clock_is_corrected_by_the_next_delivery(
    env: Env, days: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Before and after it, the warehouse shows each reject as the state does. Runs of today stay recorded."""
    env.read()
    env.drop("a.jsonl", env.body("M-1", currency=""))
    env.intake()
    env.load()
    runs = recorded_runs(env)
    with clock_off(env, days):
        env.drop("b.jsonl", env.body("M-1"), env.body("M-2", currency=""))
        env.intake()
        env.load()
    said = [record.getMessage() for record in caplog.records if "clock shows" in record.getMessage()]
    assert len(said) == 2  # intake and load
    assert all("the latest time in the state is 2026-03-10" in text for text in said)
    assert recorded_runs(env) >= runs
    assert open_rejects(env) == ["M-2"]
    env.clock.skip(minutes=5)
    env.drop("c.jsonl", env.body("M-2"))
    env.intake()
    env.place()
    env.load()
    assert open_rejects(env) == []
    assert {"M-1", "M-2"} <= env.sandbox.orders(SELLER).keys()


def recorded_runs(env: Env) -> set[str]:
    with env.state.read() as connection:
        return set(connection.execute(sa.select(schema.step_runs.c.run_id)).scalars())


def open_rejects(env: Env) -> list[str]:
    """In the warehouse, which must agree with the state."""
    found = env.rows("SELECT mp_order_number FROM rejected_orders WHERE superseded_at IS NULL ORDER BY 1")
    with env.state.read() as connection:
        assert [row[0] for row in found] == sorted(
            str(rejected.mp_order_number) for rejected in rejects.read_open(connection)
        )
    return [row[0] for row in found]


def test_a_grant_imported_by_a_clock_that_is_ahead_does_not_expire_unused(env: Env) -> None:
    with clock_off(env, 400):
        env.register("seller-002")
    shards = plan_refresh(env.resources, [])
    assert [seller for shard in shards for seller in shard["sellers"]] == ["seller-002"]


def test_without_a_date_a_doubted_clock_moves_no_watermark(env: Env, monkeypatch: pytest.MonkeyPatch) -> None:
    env.read()
    mark = env.watermark()
    monkeypatch.setattr(Answer, "server_time", None)
    with clock_off(env, DAYS):
        env.read()
    assert env.watermark() == mark
