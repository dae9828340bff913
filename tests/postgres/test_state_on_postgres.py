"""The state database on Postgres: its clock, its transactions."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone, tzinfo

import pytest
import sqlalchemy as sa
from postgres import behind
from sqlalchemy.exc import OperationalError, ResourceClosedError
from struck import struck_at_each_moment

from feedamp.errors import ConfigurationError
from feedamp.state import State, database, ledger, read_only
from feedamp.state.schema import orders, watermarks

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
IDLE = "idle_in_transaction_session_timeout"


class SlowClock(datetime):
    """A machine whose clock is an hour behind."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:
        return datetime.now(tz) - timedelta(hours=1)


def row(seller_id, moment=NOON):
    return {"seller_id": seller_id, "watermark": moment, "moved_at": NOON}


def put_watermark(connection, moment, seller_id="S1"):
    connection.execute(sa.insert(watermarks).values(row(seller_id, moment)))


def watermark_in(connection):
    return connection.execute(sa.select(watermarks.c.watermark)).scalar_one_or_none()


def watermark(state):
    with state.read() as connection:
        return watermark_in(connection)


def setting(connection, name):
    return connection.execute(sa.text("SELECT current_setting(:name)"), {"name": name}).scalar_one()


def test_opening_again_keeps_what_is_there(url, state):
    with state.begin() as connection:
        put_watermark(connection, NOON)
    with closing(State(url)) as again:
        assert watermark(again) == NOON


def test_a_database_of_a_newer_version_is_refused_and_left_alone(url, state):
    with state.begin() as connection:
        connection.execute(sa.text("UPDATE feedamp_alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigurationError, match="newer version"):
        State(url)
    assert state.current_revision() == "9999"


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_a_url_without_a_driver_is_refused_in_words_that_say_what_to_write(url, scheme):
    with pytest.raises(ConfigurationError, match=r"state_url .* postgresql\+psycopg://") as caught:
        State(url.replace("postgresql+psycopg", scheme))
    assert sa.make_url(url).password not in str(caught.value)


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(NOON, id="UTC"),
        pytest.param(datetime(2026, 7, 1, 8, tzinfo=timezone(timedelta(hours=-4))), id="another zone"),
        pytest.param(NOON.replace(microsecond=123456), id="microseconds"),
    ],
)
def test_a_time_comes_back_as_the_same_moment_in_utc(state, moment):
    with state.begin() as connection:
        put_watermark(connection, moment)
    read = watermark(state)
    assert (read, read.tzinfo) == (moment, UTC)


def test_the_clock_is_the_databases_however_wrong_the_machines_is(state, monkeypatch):
    monkeypatch.setattr(database, "datetime", SlowClock)
    with state.engine.connect() as connection:
        theirs = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
    now = state.now()
    assert abs(now - theirs) < timedelta(seconds=5)
    assert now.tzinfo is UTC


def test_the_clock_goes_on_and_is_not_asked_for_every_time(state):
    asked = []
    sa.event.listen(state.engine, "before_cursor_execute", lambda *arguments: asked.append(arguments[2]))
    with state.begin() as connection:  # its own now() does not advance
        connection.execute(sa.select(1))
        came = [state.now() for _ in range(100)]
    assert came == sorted(came)
    assert came[0] < came[-1]
    assert len([text for text in asked if "clock_timestamp" in text]) == 1


def test_a_transaction_that_fails_leaves_nothing_behind(state):
    def write_and_fail():
        with state.begin() as connection:
            put_watermark(connection, NOON)
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        write_and_fail()
    assert watermark(state) is None


def test_a_reader_waits_for_no_writer_and_sees_nothing_half_done(state):
    with state.begin() as connection:
        put_watermark(connection, NOON)
        assert watermark(state) is None
    assert watermark(state) == NOON


def test_a_reader_sees_one_moment_from_its_first_question_to_its_last(state):
    with state.read() as reading:
        assert watermark_in(reading) is None
        with state.begin() as connection:
            put_watermark(connection, NOON)
        assert watermark_in(reading) is None
    assert watermark(state) == NOON


def test_no_writer_intervenes_between_a_read_and_a_later_write(state):
    def read_then_write(connection):
        known = watermark_in(connection)
        connection.execute(sa.delete(watermarks))
        put_watermark(connection, (known or NOON) + timedelta(hours=1))

    behind(state, read_then_write, read_then_write, begin=state.begin)
    assert watermark(state) == NOON + timedelta(hours=2)


def test_a_statement_that_needs_no_protection_waits_for_no_other_writer(state, url):
    with closing(State(url)) as of_another, of_another.begin(), state.begin(alone=False) as connection:
        put_watermark(connection, NOON)
    assert watermark(state) == NOON


def test_a_transaction_that_the_next_one_has_ended_does_not_pass_for_committed(state):
    def write():
        with state.begin() as connection:
            put_watermark(connection, NOON)
            with state.begin(alone=False):
                pass

    with pytest.raises(ResourceClosedError):
        write()
    assert watermark(state) is None


def test_a_process_that_hangs_holds_up_the_others_for_a_minute_at_most(state):
    with state.begin() as connection:
        waits = {name: setting(connection, name) for name in ("lock_timeout", IDLE)}
    assert waits == dict.fromkeys(waits, "1min")
    with state.engine.connect() as connection:
        assert (
            setting(connection, IDLE) == "0"
        )  # another program's connection behind the same pooler is left alone


def test_a_lost_connection_is_made_again(url, state):
    assert watermark(state) is None
    with closing(State(url)) as administrator, administrator.begin() as connection:
        others = "datname = current_database() AND pid <> pg_backend_pid()"
        connection.execute(sa.text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}"))
    with state.begin() as connection:
        put_watermark(connection, NOON)
    assert watermark(state) == NOON


def test_an_error_shows_no_value(state):
    with state.begin() as connection, pytest.raises(sa.exc.DataError) as caught:
        put_watermark(connection, NOON, "Robin Vale" * 50)
    assert "Robin" not in str(caught.value)


def test_a_nul_in_what_feedamp_sends_breaks_no_transaction(state):
    """Postgres keeps none in a text; SQLite does."""
    with state.begin() as connection:
        put_watermark(connection, NOON, "S\x001")
        connection.execute(sa.insert(watermarks), [row("S2"), row("S\x003")])
        asked = sa.select(watermarks.c.watermark).where(watermarks.c.seller_id.in_(["S\x001", "S\x002"]))
        assert connection.execute(asked).all() == [(NOON,)]
        stored = sa.select(watermarks.c.seller_id).order_by(watermarks.c.seller_id)
        assert connection.execute(stored).scalars().all() == ["S2", "S\\x001", "S\\x003"]


def test_who_has_less_patience_gives_up_a_lock_and_no_one_else_does(url, state):
    with closing(State(url, lock_wait_s=0.2)) as impatient:
        with state.begin(), pytest.raises(OperationalError, match="lock timeout"), impatient.begin():
            pass
        with impatient.begin() as connection:
            put_watermark(connection, NOON)
        with state.engine.connect() as connection:
            connection.execute(
                sa.text(f"SET LOCAL {IDLE} = '20s'; LOCK TABLE watermarks, feedamp_alembic_version")
            )
            with pytest.raises(OperationalError, match="lock timeout"):
                watermark(impatient)
            with pytest.raises(OperationalError, match="lock timeout"):
                impatient.current_revision()
        with impatient.engine.connect() as connection:
            assert connection.connection.cursor().execute("SHOW lock_timeout").fetchone() == ("0",)
    assert watermark(state) == NOON


def test_the_emergency_stop_says_whether_a_switch_changed_it(state):
    told = []
    for on in (True, True, False, False, True):
        with state.begin() as connection:
            told.append(read_only.switch(connection, on=on, now=NOON))
    assert told == [True, False, True, False, True]


def insert_orders(connection, phase):
    """Ten of each of a hundred sellers."""
    given = dict.fromkeys(("body", "body_hash", "desired_state", "delivered", "source", "row_hash"), "")
    given |= {"phase": phase, "purchase_date": NOON, "taken_at": NOON, "source_row": 0}
    keys = ({"seller_id": f"S{n % 100}", "mp_order_number": f"{phase}-{n}"} for n in range(1000))
    connection.execute(sa.insert(orders), [given | key for key in keys])


def test_orders_newer_than_the_statistics_are_not_joined_with_each_seller(state):
    asked = []
    sa.event.listen(state.engine, "before_cursor_execute", lambda *arguments: asked.append(arguments[2:4]))
    with state.engine.begin() as connection:
        insert_orders(connection, "closed")
        connection.exec_driver_sql("ANALYZE orders")
        insert_orders(connection, "to_place")
        assert len(ledger.due(connection, ["S1", "S2"], now=NOON)) == 2
        query, parameters = asked[-1]
        plan = "\n".join(connection.exec_driver_sql(f"EXPLAIN {query}", parameters).scalars())
    assert "orders_by_phase" in plan
    assert "Nested Loop" not in plan


@pytest.mark.parametrize(
    "begin",
    [
        pytest.param(lambda state: state.begin(of=["S1"]), id="of a seller"),
        pytest.param(lambda state: state.begin_free(["S1"]), id="of a seller who is free"),
        pytest.param(lambda state: state.begin(), id="of all sellers"),
    ],
)
def test_no_transaction_waits_for_one_that_a_signal_ended(url, begin):
    with closing(State(url, lock_wait_s=1)) as impatient:

        def write():
            with begin(impatient):
                pass

        for moments, _with_its_frames in enumerate(struck_at_each_moment(write, within="contextlib")):  # noqa: B007 - counted
            with impatient.begin(of=["S1"]):
                pass
    assert moments > 5


def test_a_signal_leaves_neither_locks_nor_its_mark_to_another_transaction(url):
    with closing(State(url, lock_wait_s=1)) as impatient, ThreadPoolExecutor(1) as other:

        def write(seller):
            with impatient.begin(of=[seller]):
                pass

        for within in ("sqlalchemy/engine/base", "feedamp/state"):
            for moments, _with_its_frames in enumerate(struck_at_each_moment(lambda: write("S1"), within)):  # noqa: B007 - counted
                write("S1")
            assert moments > 20
        with impatient.begin(of=["S1"]):
            other.submit(write, "S2").result()  # two with one mark would wait for each other
