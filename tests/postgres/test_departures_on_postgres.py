"""Erasure on Postgres: no file of the server keeps a byte, also beside steps that are at work and other sessions."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from departing import CUSTOMER, GONE, STAYS, WORDS, live, seen_in_state
from env import SELLER, open_env
from leaks import hits
from postgres import PATIENCE_S
from postgres_warehouses import address_of
from psycopg import pq

from feedamp import postgres_files
from feedamp.errors import BusyError, FeedAmpError
from feedamp.state import State, departures
from feedamp.state.erasures import Store
from feedamp.steps import depart
from feedamp.warehouse.postgres import PostgresWarehouse

SQL = "VACUUM FULL pg_catalog.pg_statistic"


def erase(env, number):
    return depart.erase(env.resources, SELLER, number, asked_by="ops")


@contextmanager
def asking(url: str) -> Iterator[psycopg.Connection[Any]]:
    """A session of its own, each statement by itself."""
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        yield connection


def leave_unpacked(url: str) -> None:
    """Long values are stored as they are from now on, where a search finds them."""
    with asking(url) as connection:
        texts = connection.execute(
            "SELECT attrelid::regclass, attname FROM pg_attribute WHERE attstorage = 'x' AND attrelid >= 16384 "
            "AND attrelid IN (SELECT oid FROM pg_class WHERE relkind = 'r')"
        )
        for table, column in texts.fetchall():
            connection.execute(f"ALTER TABLE {table} ALTER {column} SET STORAGE EXTERNAL")


def test_an_erased_order_and_seller_leave_no_byte_in_files_of_the_server(tmp_path, server, url):
    urls = url, server.database()
    warehouse = PostgresWarehouse(address_of(urls[1]))
    with warehouse.session():
        pass
    for one in urls:
        leave_unpacked(one)

    def found(words: tuple[str, ...]) -> dict[str, set[str]]:
        places: dict[str, set[str]] = {word.lower(): set() for word in words}
        for one in urls:
            for place, word in hits(server.files(one), words):
                places[word].add(place)
        return places

    with open_env(tmp_path, state_url=url) as env:
        env.use(warehouse)
        live(env, delivery_notes="behind the moonflower " * 120)
        env.load()
        for one in urls:
            with asking(one) as connection:
                connection.execute("ANALYZE")  # whose samples hold names
        # Until a checkpoint, which is the first thing that `found` asks for.
        assert hits(server.log_files(), WORDS)
        before = found(WORDS)
        assert all(before.values()), before
        assert {"feedamp.orders", "pg_statistic"} <= before["xanthippe"]
        assert any(place.startswith("pg_toast.") for place in before["moonflower"])
        assert {"orders", "orders_pkey", "feedamp.placements_pkey"} <= before[GONE.lower()]
        assert erase(env, GONE).unfinished == {}
        assert found((GONE,)) == {GONE.lower(): set()}
        assert STAYS in [number for (number,) in env.rows("SELECT mp_order_number FROM orders")]
        assert erase(env, None).unfinished == {}
        assert not any(found((*WORDS, STAYS)).values())
    assert hits(server.log_files(is_over=True), (*WORDS, STAYS)) == []


@pytest.mark.parametrize(
    ("is_elsewhere", "statements", "told"),
    [
        pytest.param(
            False, "BEGIN ISOLATION LEVEL REPEATABLE READ; TABLE pg_class", "(session ", id="sees the rows"
        ),
        pytest.param(False, "BEGIN; TABLE {}", "findings was in use", id="uses a table"),
        pytest.param(True, "BEGIN; SELECT pg_current_xact_id()", " of session ", id="writes elsewhere"),
    ],
)
def test_bytes_that_another_session_keeps_are_said_to_be_left(
    tmp_path, server, url, monkeypatch, is_elsewhere, statements, told
):
    monkeypatch.setattr(postgres_files, "TRANSACTIONS_WAIT_S", 0.1)
    monkeypatch.setattr(postgres_files, "_LOCK_WAIT_S", 0.1)
    urls = url, server.database()
    with open_env(tmp_path, state_url=url) as env, ExitStack() as others:
        env.use(PostgresWarehouse(address_of(urls[1])))
        env.placed(GONE, "M-2", **CUSTOMER)
        env.load()
        for one, table in zip(urls, ("findings", "feedamp.findings"), strict=True):
            other = others.enter_context(asking(server.database() if is_elsewhere else one))
            other.execute(statements.format(table))
            others.callback(other.execute, "COMMIT")
        unfinished = erase(env, GONE).unfinished
        assert set(unfinished) == {Store.STATE, Store.WAREHOUSE}
        for said in unfinished.values():
            assert "are still in files" in said
            assert told in said
        others.close()
        assert erase(env, GONE).unfinished == {}
        assert [hit for one in urls for hit in hits(server.files(one), (GONE,))] == []


@contextmanager
def standing_by(url: str, oldest: int) -> Iterator[None]:
    """Takes the server's log as a standby without a slot, whose oldest reader needs the rows of a transaction (`hot_standby_feedback`)."""
    standby = pq.PGconn.connect(
        f"{url.replace('+psycopg', '')}?replication=true&application_name=moon".encode()
    )
    with asking(url) as connection:

        def wait_until(is_kept: bool) -> None:
            give_up_at = time.monotonic() + PATIENCE_S
            kept = "SELECT count(*) = 1 FROM pg_stat_replication WHERE backend_xmin IS NOT NULL"
            while connection.execute(kept).fetchone() != (is_kept,):
                assert time.monotonic() < give_up_at
                time.sleep(0.01)

        try:
            [(position,)] = connection.execute("SELECT pg_current_wal_flush_lsn()").fetchall()
            begun = standby.exec_(f"START_REPLICATION PHYSICAL {position}".encode())
            assert begun.status == pq.ExecStatus.COPY_BOTH, standby.error_message
            epoch, xid = divmod(oldest, 1 << 32)
            standby.put_copy_data(struct.pack("!cqIIII", b"h", 0, xid, epoch, 0, 0))
            standby.flush()
            wait_until(True)
            yield
        finally:
            standby.finish()
        wait_until(False)


def run_on(connection: psycopg.Connection[Any]) -> postgres_files.Run:
    def run(sql: str) -> list[tuple[Any, ...]]:
        done = connection.execute(sql)
        return done.fetchall() if done.description else []

    return run


def become_guest(connection: psycopg.Connection[Any]) -> str:
    """The session becomes a role that owns nothing and may look into no other's session."""
    role = f"guest_{connection.info.dbname}"
    connection.execute(f"CREATE ROLE {role}; GRANT CREATE ON SCHEMA public TO {role}; SET ROLE {role}")
    return role


@pytest.mark.parametrize(
    "comes_at", [pytest.param("SELECT pg_current", id="before"), pytest.param("SET lock", id="meanwhile")]
)
def test_bytes_that_a_standby_keeps_are_said_to_be_left(server, url, monkeypatch, comes_at):
    monkeypatch.setattr(postgres_files, "TRANSACTIONS_WAIT_S", 0.1)
    with asking(url) as connection, ExitStack() as standby:
        become_guest(connection)
        run = run_on(connection)
        run("CREATE TABLE own AS SELECT 'Xanthippe' AS name")
        [(oldest,)] = run("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
        run("DELETE FROM own")

        def run_beside(sql: str) -> Sequence[Sequence[Any]]:
            if sql.startswith(comes_at):
                standby.enter_context(standing_by(url, oldest))
            return run(sql)

        with pytest.raises(BusyError, match=r"are still in files .* see them \(standby moon\)"):
            postgres_files.rewrite_tables(["own"], run_beside)
        standby.close()
        postgres_files.rewrite_tables(["own"], run)
        assert hits(server.files(url), ("Xanthippe",)) == []


def test_bytes_that_a_logical_slot_keeps_are_said_to_be_left(server, url, monkeypatch):
    """It keeps rows of the catalog, such as the samples of values."""
    monkeypatch.setattr(postgres_files, "TRANSACTIONS_WAIT_S", 0.1)
    with asking(url) as connection:
        run = run_on(connection)
        run("CREATE TABLE own AS SELECT 'Xanthippe' AS name FROM generate_series(1, 9)")
        run("ANALYZE own")
        slot = f"moon_{connection.info.dbname}"
        run(f"SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')")
        try:
            run("DELETE FROM own")
            run("INSERT INTO own VALUES ('Ariadne')")
            run("ANALYZE own")
            with pytest.raises(
                BusyError, match=rf"are still in files .* see them \(replication slot {slot}\)"
            ):
                postgres_files.rewrite_tables(["own"], run)
            assert {place for place, _ in hits(server.files(url), ("Xanthippe",))} >= {"pg_statistic"}
        finally:
            run(f"SELECT pg_drop_replication_slot('{slot}')")
        postgres_files.rewrite_tables(["own"], run)
        assert hits(server.files(url), ("Xanthippe",)) == []


def test_a_user_who_does_not_own_the_tables_is_told_what_stays(url):
    with asking(url) as connection:
        role, run = become_guest(connection), run_on(connection)
        connection.execute("CREATE TABLE own (id int)")
        file = "SELECT pg_relation_filenode('own')"
        before = run(file)
        told = "may not rewrite orders, findings: make it a member of the role that owns them"
        with pytest.raises(FeedAmpError, match=told):
            postgres_files.rewrite_tables(["orders", "own", "findings"], run)
        assert run(file) != before
        assert "have the owner of the database run" in postgres_files.left_behind(run)
        connection.execute(f"RESET ROLE; CREATE ROLE {role}_owner; GRANT {role}_owner TO {role}")
        for table in ("orders", "findings"):
            connection.execute(f"ALTER TABLE {table} OWNER TO {role}_owner")
        connection.execute(f"SET ROLE {role}")
        postgres_files.rewrite_tables(["orders", "own", "findings"], run)


def test_an_erasure_says_what_only_the_owner_of_a_database_can_erase(tmp_path, server, url):
    urls = url, server.database()
    with open_env(tmp_path, state_url=server.as_tenant(url)) as env:
        env.use(PostgresWarehouse(address_of(server.as_tenant(urls[1]))))
        env.placed(GONE, STAYS, **CUSTOMER)
        env.load()
        done = erase(env, GONE)
        assert (done.unfinished, set(done.left)) == ({}, {Store.STATE, Store.WAREHOUSE})
        for one, said in zip(urls, done.left.values(), strict=True):
            assert f"owner of the database run `{SQL}` there" in said
            with asking(one) as owner:
                owner.execute(SQL)
        assert [hit for one in urls for hit in hits(server.files(one), (GONE,))] == []
        for one in urls:
            with asking(one) as owner:
                tenant = f"tenant_{owner.info.dbname}"
                owner.execute(f"ALTER DATABASE {owner.info.dbname} OWNER TO {tenant}")
        assert erase(env, STAYS).left == {}
        assert [hit for one in urls for hit in hits(server.files(one), (STAYS,))] == []


def test_an_order_that_is_delivered_while_it_is_erased_does_not_stay(tmp_path, url):
    with open_env(tmp_path, state_url=url) as env:
        env.placed(GONE, STAYS, **CUSTOMER)
        rows = [env.body(f"M-{n}" if n % 3 else GONE, **CUSTOMER) for n in range(150)]
        env.drop("many.jsonl", *rows)
        with ThreadPoolExecutor(2) as threads:
            taking = threads.submit(lambda: (env.intake(), env.place(), env.extract(), env.validate()))
            erasing = threads.submit(erase, env, GONE)
            taking.result()
            assert "state" in erasing.result().counts
        env.load()
        assert seen_in_state(env, (GONE,)) == []


def test_what_the_server_could_not_do_is_said_with_its_address(url):
    with closing(State(url)) as state:
        with state.begin() as connection:
            connection.execute(sa.text("DROP TABLE switches"))
        with pytest.raises(FeedAmpError, match="42P01") as caught:
            departures.rewrite(state)
        where = f"{state.url.host}:{state.url.port}/{state.url.database}"
    assert f"the state Postgres {where} has not let go" in caught.value.message
    assert "MB" not in caught.value.message
