"""Transactions of the state continue on a new connection, as if nothing had happened, or say that they cannot."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from postgres import PATIENCE_S, Server
from sqlalchemy.engine import Connection

from feedamp.errors import StoreAwayError, TransientError
from feedamp.state import State, outbox, reconnect, retention, schema
from feedamp.state.reconnect import Patience
from feedamp.state.schema import watermarks

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)


def put(connection: Connection, seller_id: str) -> None:
    connection.execute(sa.insert(watermarks).values(seller_id=seller_id, watermark=NOON, moved_at=NOON))


def sellers_in(connection: Connection) -> list[str]:
    return list(connection.execute(sa.select(watermarks.c.seller_id)).scalars())


def stored(state: State) -> list[str]:
    with state.read() as connection:
        return sorted(sellers_in(connection))


def break_connections(url: str) -> None:
    """All of this database, as a server does that stops."""
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as other:
        others = "datname = current_database() AND pid <> pg_backend_pid()"
        other.execute(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {others}")


def test_a_transaction_that_breaks_in_the_middle_continues(url: str, state: State) -> None:
    with state.begin() as connection:
        put(connection, "S1")
        read = sellers_in(connection)
        break_connections(url)
        put(connection, "S2")
        row = {"table_name": "runs", "payload": "{}", "recorded_at": NOON}
        connection.execute(sa.insert(schema.outbox), [row, row])  # its generated keys differ each time
        break_connections(url)
    assert read == ["S1"]
    assert stored(state) == ["S1", "S2"]
    with state.read() as connection:
        assert outbox.unclaimed(connection) == 2


def test_a_view_that_breaks_in_the_middle_continues_unless_it_changed(url: str, state: State) -> None:
    with state.read() as connection:
        assert sellers_in(connection) == []
        break_connections(url)
        assert sellers_in(connection) == []
        with state.begin() as writing:
            put(writing, "S1")
        break_connections(url)
        with pytest.raises(TransientError, match="another process has changed"):
            sellers_in(connection)


def test_a_transaction_overtaken_while_its_connection_was_lost_stores_nothing(url: str, state: State) -> None:
    def read_then_write() -> None:
        with state.begin() as connection:
            assert sellers_in(connection) == []
            break_connections(url)
            with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as other:
                other.execute("INSERT INTO watermarks VALUES ('S2', now(), now())")
            with suppress(
                TransientError
            ):  # a block that contains errors must not go on with half of its statements
                put(connection, "S1")
            put(connection, "S3")

    with pytest.raises(TransientError, match="another process has changed"):
        read_then_write()
    assert stored(state) == ["S2"]


def test_a_seller_who_was_free_is_waited_for_once_the_connection_is_back(url: str, state: State) -> None:
    with closing(State(url)) as another, ThreadPoolExecutor(1) as pool:
        is_taken, is_left = threading.Event(), threading.Event()

        def use_it_first() -> None:
            with another.begin(of=["S1"]):
                is_taken.set()
                time.sleep(0.5)
                is_left.set()

        with state.begin_free(["S1"]) as (connection, free):
            put(connection, "S1")
            break_connections(url)
            using = pool.submit(use_it_first)
            assert is_taken.wait(PATIENCE_S)
            put(connection, "S2")
            assert is_left.is_set()
        using.result(timeout=PATIENCE_S)
    assert free == ["S1"]
    assert stored(state) == ["S1", "S2"]


@pytest.mark.parametrize("is_committed", [True, False], ids=["after it took effect", "before it took effect"])
def test_a_commit_whose_answer_is_lost_takes_effect_once(state: State, is_committed: bool) -> None:
    lost = []

    def lose_the_answer(connection: Connection) -> None:
        if not lost:
            lost.append(connection)
            driver: Any = connection.connection.driver_connection
            if is_committed:
                driver.execute("COMMIT")
            driver.pgconn.finish()

    with state.begin() as connection:
        connection.execute(sa.text("CREATE TABLE counted (n INTEGER)"))
    sa.event.listen(state.engine, "commit", lose_the_answer)
    with state.begin() as connection:
        connection.execute(sa.text("INSERT INTO counted VALUES (1)"))
    with state.read() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM counted")).scalar_one() == 1
    assert len(lost) == 1


def test_an_id_used_again_after_a_crash_is_no_proof_of_a_commit(server: Server) -> None:
    url = server.lasting_database()
    lost = []

    def crash_before_it_takes_effect(_connection: Connection) -> None:
        if not lost:
            lost.append(True)
            server.crash()
            server.start()
            with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as other:
                for n in range(20):
                    other.execute("INSERT INTO watermarks VALUES (%s, now(), now())", [f"other-{n}"])

    with closing(State(url)) as state:
        sa.event.listen(state.engine, "commit", crash_before_it_takes_effect)
        with state.begin() as connection:
            put(connection, "S1")
        assert "S1" in stored(state)


def test_marks_of_ended_writers_are_dropped_after_a_day(state: State) -> None:
    with state.begin() as connection:
        put(connection, "S1")
        assert retention.drop_old(connection, schema.commit_marks, now=state.now(), limit=10) == 0
        tomorrow = state.now() + timedelta(days=1, minutes=1)
        assert retention.drop_old(connection, schema.commit_marks, now=tomorrow, limit=10) == 1


def test_a_server_that_stays_away_ends_the_wait_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconnect, "TRIED_EVERY_S", 0.01)
    engine = sa.create_engine("postgresql+psycopg://us:sesame@127.0.0.1:1/feedamp")
    with pytest.raises(StoreAwayError, match="has not answered for 0 s") as away:
        reconnect.connect(engine, Patience(0.05))
    assert "sesame" not in str(away.value)


@pytest.mark.parametrize(
    "change", [{"password": "wrong"}, {"database": "nowhere"}], ids=lambda change: next(iter(change))
)
def test_no_one_waits_for_a_server_that_refuses(url: str, change: dict[str, Any]) -> None:
    def forbidden(_seconds: float) -> None:
        raise AssertionError("waited")

    address = sa.make_url(url).set(**change)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("feedamp.state.reconnect.time.sleep", forbidden)
        with pytest.raises(sa.exc.OperationalError, match="FATAL"):
            State(address.render_as_string(hide_password=False))


def test_claimed_rows_are_read_to_the_end_through_outages(
    url: str, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        reconnect, "_ROWS_REMEMBERED", 3
    )  # a transaction that has read more cannot be repeated
    monkeypatch.setattr(outbox, "_ROWS_PER_QUERY", 2)
    with state.begin() as connection:
        rows = [
            {"table_name": "runs", "payload": f'{{"orders": {n}}}', "recorded_at": NOON} for n in range(7)
        ]
        connection.execute(sa.insert(schema.outbox), rows)
        outbox.claim(connection, "m")
    read = []
    for _, row in outbox.claimed_rows(state.read, "m"):
        read.append(row["orders"])
        break_connections(url)
    assert read == list(range(7))
