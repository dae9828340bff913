"""Many rows are stored by one statement as each of them would be by its own, whatever is in them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
import sqlalchemy as sa

from feedamp.state import State, outbox
from feedamp.state.many_rows import execute_many
from feedamp.state.schema import leases, notices, tracking_uses
from feedamp.state.schema import outbox as outbox_table
from feedamp.state.statements import change_orders, insert, upsert

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
STORED = sa.select(leases.c.name, leases.c.owner, leases.c.until, leases.c.beat).order_by(leases.c.name)
CHANGE = (
    sa.update(leases)
    .where(leases.c.name == sa.bindparam("of_name"), leases.c.beat < sa.bindparam("below"))
    .values(owner=sa.bindparam("owner"))
)


def lease(name: str, **values: object) -> dict[str, object]:
    return {"name": name, "owner": "me", "until": None, "beat": 0} | values


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("plain", id="letters"),
        pytest.param('it\'s "%(owner)s" \\ :owner {} $1', id="what SQL, JSON and the driver give a meaning"),
        pytest.param("Zoë 🚲 \u2028\n\t\x1f", id="other alphabets and control characters"),
        pytest.param("\\u0000 and \\x00", id="escapes that are no escapes"),
        pytest.param("", id="nothing"),
    ],
)
def test_a_text_is_stored_as_it_is(state: State, text: str) -> None:
    with state.begin() as connection:
        rows = [lease("a", owner=text), lease("b")]
        assert execute_many(connection, insert(connection, leases), rows) == 2
        assert [row.owner for row in connection.execute(STORED)] == [text, "me"]


def test_a_nul_is_stored_as_by_a_statement_of_its_own(state: State) -> None:
    with state.begin() as connection:
        connection.execute(insert(connection, leases), lease("alone", owner="a\x00\\u0000"))
        rows = [lease("first", owner="a\x00\\u0000"), lease("last")]
        execute_many(connection, insert(connection, leases), rows)
        alone, first, last = [row.owner for row in connection.execute(STORED)]
        assert (first, last) == (alone, "me")


def test_moments_are_stored_in_utc_and_none_as_null(state: State) -> None:
    here = NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))
    later = NOON + timedelta(microseconds=1)
    with state.begin() as connection:
        rows = [lease("a", until=here), lease("b", until=later, beat=None), lease("c")]
        execute_many(connection, insert(connection, leases), rows)
        assert [row[2:] for row in connection.execute(STORED)] == [(NOON, 0), (later, None), (None, 0)]
        rows = [lease("d", until=NOON.replace(tzinfo=None))]
        with pytest.raises(ValueError, match="without zone"):
            execute_many(connection, insert(connection, leases), rows)


def test_only_rows_that_are_new_or_meet_the_condition_are_counted(state: State) -> None:
    with state.begin() as connection:
        unless_stored = insert(connection, leases).on_conflict_do_nothing()
        assert execute_many(connection, unless_stored, [lease("a"), lease("b", beat=9)]) == 2
        assert execute_many(connection, unless_stored, [lease("b"), lease("c")]) == 1
        names = ("a", "b", "c", "unknown")
        changes = [{"of_name": name, "owner": f"of {name}", "below": 5} for name in names]
        assert execute_many(connection, CHANGE, changes) == 2
        assert [row.owner for row in connection.execute(STORED)] == ["of a", "me", "of c"]


def test_of_rows_with_one_key_the_last_is_kept(state: State) -> None:
    rows = [{"notice": "n", "told_at": NOON + timedelta(hours=hours)} for hours in range(3)]
    with state.begin() as connection:
        upsert(connection, notices, rows[2:])
        upsert(connection, notices, rows[:2])
        assert connection.execute(sa.select(notices)).all() == [("n", rows[1]["told_at"])]


def test_of_several_changes_of_one_order_the_last_is_kept(state: State) -> None:
    use = {"seller_id": "S1", "tracking_hash": "t", "recipient_hash": "none", "seen_at": NOON}
    changes = [(("S1", f"N-{at % 2}"), {"recipient_hash": f"{at}"}) for at in range(5)]
    query = sa.select(tracking_uses.c.recipient_hash).order_by(tracking_uses.c.mp_order_number)
    with state.begin() as connection:
        if not state.is_sqlite:  # as in a long table; its joins of a short one keep the last by chance
            connection.execute(sa.text("SET LOCAL enable_hashjoin = off"))
            connection.execute(sa.text("SET LOCAL enable_mergejoin = off"))
        upsert(connection, tracking_uses, [use | {"mp_order_number": f"N-{at}"} for at in range(3)])
        change_orders(connection, tracking_uses, changes)
        assert connection.execute(query).scalars().all() == ["4", "3", "none"]


def test_rows_for_the_lake_keep_their_order(state: State) -> None:
    placements = [
        {
            "seller_id": "S1",
            "mp_order_number": f"N-{number}",
            "marketplace_state": "PENDING",
            "placed_at": NOON,
            "source": "orders.csv",
            "source_row": number,
            "run_id": None,
        }
        for number in range(300)
    ]
    with state.begin() as connection:
        outbox.put(connection, "placements", placements, recorded_at=NOON)
        stored = connection.execute(sa.select(outbox_table).order_by(outbox_table.c.id))
        rows = [outbox.decode_row(row.table_name, row.payload) for row in stored]
    assert [row["source_row"] for row in rows] == list(range(300))
