"""The state database itself: its schema, its clock, its transactions."""

from __future__ import annotations

import hashlib
import re
import resource
import stat
import time
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta, timezone

import pytest
import sqlalchemy as sa
from struck import struck_at_each_moment
from wire import opened_state

from crashes.clock import NOON, Clock
from feedamp.errors import ConfigurationError, StoreAwayError
from feedamp.rules.order import Phase
from feedamp.state import (
    HEAD,
    State,
    extraction_start,
    findings,
    ledger,
    open_orders,
    order_events,
    overview,
    page_lists,
    sellers,
)
from feedamp.state.schema import UtcTime, metadata, watermarks


@contextmanager
def full_disk():
    """As a full disk, a limit makes writes fail; files that are there already can be read."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture
def state():
    with opened_state(Clock(keeps_still=True)) as opened:
        yield opened


def put_watermark(state, moment):
    with state.begin() as connection:
        connection.execute(sa.insert(watermarks).values(seller_id="S1", watermark=moment, moved_at=NOON))


def watermark(state):
    with state.read() as connection:
        return connection.execute(sa.select(watermarks.c.watermark)).scalar_one_or_none()


def test_a_changed_schema_has_a_new_head():
    """Or databases that are at the old one would never get the change: raise HEAD, then write the new digest here."""
    columns = [(str(c), str(c.type), c.nullable, c.primary_key) for t in metadata.sorted_tables for c in t.c]
    indexes = [(i.name, *map(str, i.columns)) for t in metadata.tables.values() for i in t.indexes]
    digest = hashlib.sha256(repr((sorted(columns), sorted(indexes))).encode()).hexdigest()[:16]
    assert (HEAD, digest) == ("0040", "fc27cc632811ce52")


def test_a_fresh_file_is_brought_to_the_head(tmp_path):
    with closing(State(f"sqlite:///{tmp_path}/a/b/state.db")) as state:
        assert state.current_revision() == HEAD


def test_opening_again_keeps_what_is_there(state):
    put_watermark(state, NOON)
    state.upgrade()
    with closing(State(str(state.url))) as again:
        assert watermark(again) == NOON


def test_a_file_of_a_newer_version_is_refused_and_left_alone(state):
    with state.begin() as connection:
        connection.execute(sa.text("UPDATE feedamp_alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigurationError, match="newer version"):
        State(str(state.url))
    assert state.current_revision() == "9999"


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("sqlite://", id="memory, which no other process sees"),
        pytest.param("sqlite:///:memory:", id="memory by its name"),
        pytest.param("postgresql://db/feedamp", id="Postgres without a driver"),
    ],
)
def test_a_url_that_cannot_work_is_refused(url):
    with pytest.raises(ConfigurationError, match="state_url"):
        State(url)


def test_the_file_is_its_owners_alone(tmp_path):
    with closing(State(f"sqlite:///{tmp_path}/state.db")) as state:
        put_watermark(state, NOON)
        kept = list(tmp_path.iterdir())
        modes = {stat.S_IMODE(path.stat().st_mode) for path in kept}
    assert {path.name for path in kept} >= {"state.db", "state.db-wal"}
    assert modes == {0o600}


def test_a_commit_survives_a_power_cut(state):
    with state.read() as connection:
        modes = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")
        ]
    assert modes == ["wal", 2]  # 2 is FULL


def test_a_full_disk_is_named_at_once_with_its_file(tmp_path):
    url, began = f"sqlite:///{tmp_path}/state.db", time.monotonic()
    with full_disk(), pytest.raises(StoreAwayError, match=r"state\.db cannot be written"):
        State(url)
    with closing(State(url)) as state:
        with full_disk(), pytest.raises(StoreAwayError, match=r"state\.db cannot be written"):
            put_watermark(state, NOON)
        assert watermark(state) is None
        put_watermark(state, NOON)
        assert watermark(state) == NOON
    assert time.monotonic() - began < 20


def test_a_naive_time_is_refused(state):
    with pytest.raises(sa.exc.StatementError, match="without zone"):
        put_watermark(state, datetime(2026, 7, 1, 12))  # noqa: DTZ001
    assert watermark(state) is None


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(NOON, id="UTC"),
        pytest.param(datetime(2026, 7, 1, 8, tzinfo=timezone(timedelta(hours=-4))), id="another zone"),
        pytest.param(NOON.replace(microsecond=123456), id="microseconds"),
    ],
)
def test_a_time_comes_back_as_the_same_moment_in_utc(state, moment):
    put_watermark(state, moment)
    read = watermark(state)
    assert (read, read.tzinfo) == (moment, UTC)


def test_an_error_shows_no_value(state):
    incomplete = sa.insert(watermarks).values(seller_id="Robin")
    with state.begin() as connection, pytest.raises(sa.exc.IntegrityError) as caught:
        connection.execute(incomplete)
    assert "Robin" not in str(caught.value)


def test_no_time_stays_no_time():
    dialect = sa.create_engine("sqlite://").dialect
    assert UtcTime().process_bind_param(None, dialect) is None
    assert UtcTime().process_result_value(None, dialect) is None


def test_the_clock_is_the_one_given(state):
    assert state.now() == NOON


def test_without_a_clock_the_time_is_that_of_the_machine_in_utc(tmp_path):
    with closing(State(f"sqlite:///{tmp_path}/state.db")) as state:
        before, now, after = datetime.now(UTC), state.now(), datetime.now(UTC)
    assert before <= now <= after
    assert now.tzinfo is UTC


def test_a_transaction_that_fails_leaves_nothing_behind(state):
    def write_and_fail():
        with state.begin() as connection:
            connection.execute(sa.insert(watermarks).values(seller_id="S1", watermark=NOON, moved_at=NOON))
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        write_and_fail()
    assert watermark(state) is None


def test_a_reader_waits_for_no_writer_and_sees_nothing_half_done(state):
    with state.begin() as connection:
        connection.execute(sa.insert(watermarks).values(seller_id="S1", watermark=NOON, moved_at=NOON))
        assert watermark(state) is None
    assert watermark(state) == NOON


def test_a_writer_has_the_lock_from_its_first_read_on(state):
    with state.begin() as first, state.engine.connect() as second:
        first.execute(sa.select(watermarks)).all()
        second.execution_options(feedamp_reading=True).exec_driver_sql("PRAGMA busy_timeout=0")
        with pytest.raises(sa.exc.OperationalError, match="locked"):
            second.execute(sa.insert(watermarks).values(seller_id="S2", watermark=NOON, moved_at=NOON))


@contextmanager
def plans_of(state):
    """How SQLite finds the rows of each query that is made inside."""
    asked, plans = [], []

    def note(_connection, _cursor, statement, parameters, *_):
        asked.append((statement, parameters))

    sa.event.listen(state.engine, "before_cursor_execute", note)
    try:
        yield plans
    finally:
        sa.event.remove(state.engine, "before_cursor_execute", note)
    with state.read() as connection:
        for statement, parameters in asked:
            if statement.startswith(("SELECT", "WITH")):
                found = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
                plans.append("; ".join(row.detail for row in found))


def test_work_of_a_shard_is_found_without_reading_all_open_orders(state):
    shard = [f"S{number}" for number in range(50)]
    with plans_of(state) as plans, state.read() as connection:
        open_orders.to_validate(connection, shard)
        open_orders.lingering(connection, shard, before=NOON)
        open_orders.closable(connection, shard, now=NOON)
        extraction_start.read_all(connection, shard, now=NOON)
        ledger.due(connection, shard, now=NOON)
        ledger.not_due(connection, shard, now=NOON)
        findings.to_report(connection, shard)
        sellers.find(connection, shard)
        open_orders.held_under_other_codes(
            connection, shard, {"missing_carrier": "A", "shared_tracking": None}
        )
    changed, lingering, closable, to_read, starts, due, not_due, to_report, found, held = plans
    assert "snapshots USING INDEX snapshots_changed (seller_id=?)" in changed
    assert "snapshots USING INDEX snapshots_stuck (seller_id=?)" in lingering
    assert "snapshots USING INDEX snapshots_closable (seller_id=?)" in closable
    assert "snapshots USING INDEX snapshots_stuck (seller_id=?)" in to_read
    assert "findings USING INDEX findings_by_seller (state=? AND seller_id=?)" in to_read
    assert "orders USING INDEX orders_to_read_back (seller_id=?)" in to_read
    assert "unread_orders USING COVERING INDEX sqlite_autoindex_unread_orders_1 (seller_id=?)" in to_read
    assert "sellers USING COVERING INDEX sqlite_autoindex_sellers_1 (seller_id=?)" in starts
    assert "orders USING INDEX orders_by_phase (phase=? AND seller_id=?)" in due
    assert "orders USING INDEX orders_by_phase (phase=? AND seller_id=?)" in not_due
    assert "findings USING INDEX findings_by" in to_report
    assert "sellers USING INDEX sqlite_autoindex_sellers_1 (seller_id=?)" in found
    assert "findings USING COVERING INDEX findings_held (state=? AND seller_id=?)" in held
    assert not re.findall(r"SCAN (?!json_each VIRTUAL TABLE)\w+", "; ".join(plans))


def test_status_counts_a_large_ledger_without_reading_its_orders(state):
    with plans_of(state) as plans, state.read() as connection:
        overview.count_by_phase(connection)
        overview.reasons_by_phase(connection)
        overview.waits_of_settled(connection, 0)
    by_phase, reasons, waiting, *few = plans
    assert "SCAN orders USING COVERING INDEX" in by_phase
    assert by_phase.count("SEARCH orders USING COVERING INDEX orders_by_phase (phase=?)") == len(Phase) - 1
    assert reasons.startswith("SCAN orders USING INDEX orders_with_reason")
    assert waiting == "SCAN snapshots USING INDEX snapshots_waiting"
    of_others, unregistered, missing, changed, stuck = few
    assert "SEARCH orders USING INDEX orders_by_phase (phase=?)" in of_others
    assert "SEARCH orders USING INDEX orders_by_phase (phase=? AND seller_id=?)" in unregistered
    assert "SEARCH orders USING COVERING INDEX orders_by_phase (phase=? AND seller_id>?)" in unregistered
    assert "SCAN orders USING INDEX orders_missing" in missing
    assert "SCAN snapshots USING INDEX snapshots_changed" in changed
    assert "SCAN snapshots USING INDEX snapshots_stuck" in stuck


def test_an_order_is_found_by_how_its_number_begins_without_reading_all(state):
    with plans_of(state) as plans, state.read() as connection:
        page_lists.list_orders(connection, page_lists.Part(), number="MP-1")
    [counted] = plans
    index = "SEARCH orders USING COVERING INDEX orders_by_number (mp_order_number>? AND mp_order_number<?)"
    assert counted == index


def test_orders_that_can_be_closed_are_listed_from_an_index_of_these_few(state):
    with plans_of(state) as plans, state.read() as connection:
        settled = (Phase.SETTLED,)
        page_lists.list_orders(connection, page_lists.Part(), phases=settled, is_closable=True)
    [counted] = plans
    assert "SCAN snapshots USING INDEX snapshots_closable" in counted
    assert "orders_by_phase" not in counted


def test_orders_are_found_by_their_keys_however_many_are_asked_for(state):
    keys = [("S1", "MP-1"), ("S2", "MP-1"), ("S2", "MP-2")]
    with plans_of(state) as plans, state.begin() as connection:
        ledger.read_all(connection, keys)
        findings.of_orders(connection, keys)
        open_orders.read_all(connection, keys)
        order_events.put_again(connection, [(*key, "placed") for key in keys])
    assert len(plans) == 4
    tables = ("orders", "findings", "snapshots", "order_events")
    assert all(f"SEARCH {table} USING" in plan for table, plan in zip(tables, plans, strict=True))
    assert not [plan for table, plan in zip(tables, plans, strict=True) if f"SCAN {table}" in plan]


def test_no_transaction_waits_for_one_that_a_signal_ended(state):
    put_watermark(state, NOON)
    with closing(State(str(state.url), lock_wait_s=0)) as impatient:

        def write():
            with impatient.begin() as connection:
                connection.execute(sa.update(watermarks).values(watermark=NOON))

        for moments, _with_its_frames in enumerate(struck_at_each_moment(write)):  # noqa: B007 - counted
            write()
    assert moments > 100
