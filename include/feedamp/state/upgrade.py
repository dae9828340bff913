"""Brings a state database of an earlier version to `schema.py`.

What a version adds is created where it is missing: tables, indexes and columns, which must be nullable or have a server
default. What else it changes is written here, by revision. Each change of the schema raises `HEAD`.
"""

from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.schema import CreateColumn

from feedamp.rules.order import Phase
from feedamp.state.schema import data_keys, grants, leases, manifests, metadata, order_events, orders

HEAD = "0040"
_NEVER = datetime(3000, 1, 1, tzinfo=UTC)
_revision = sa.Table(
    "feedamp_alembic_version", sa.MetaData(), sa.Column("version_num", sa.String(32), primary_key=True)
)


def revision_of(connection: Connection) -> str | None:
    """The newest revision that the database was brought to; None if it is new."""
    if not sa.inspect(connection).has_table(_revision.name):
        return None
    return connection.execute(sa.select(_revision.c.version_num)).scalar()


def upgrade(connection: Connection) -> None:
    """Brings the database to `HEAD`, from whichever revision."""
    current = revision_of(connection)
    metadata.create_all(connection)
    if current is None:
        _revision.create(connection, checkfirst=True)
        connection.execute(sa.insert(_revision).values(version_num=HEAD))
        return
    for table in metadata.sorted_tables:
        known = {column["name"] for column in sa.inspect(connection).get_columns(table.name)}
        for column in table.columns:
            if column.name not in known:
                added = CreateColumn(column).compile(dialect=connection.dialect)
                connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {added}")
        for index in table.indexes:
            index.create(connection, checkfirst=True)
    for revision, change in _CHANGES.items():
        if current < revision:
            change(connection)
    connection.execute(sa.update(_revision).values(version_num=HEAD))


def _note_when_orders_ended(connection: Connection) -> None:
    # An order that someone else closed has no moment; it counts from now, so that nothing goes too early.
    ended_at = sa.func.coalesce(orders.c.closed_at, sa.literal(datetime.now(UTC), orders.c.ended_at.type))
    has_ended = orders.c.phase.in_((Phase.CLOSED, Phase.NEVER_PLACED))
    connection.execute(sa.update(orders).where(has_ended).values(ended_at=ended_at))


def _trust_what_was_loaded(connection: Connection) -> None:
    """What was loaded was taken with it, and a grant in use has shown whose account it is for."""
    connection.execute(sa.update(manifests).values(taken_at=manifests.c.loaded_at))
    connection.execute(sa.update(grants).values(account_checked_at=grants.c.issued_at))


def _end_leases_by_heartbeat(connection: Connection) -> None:
    """Leases without a heartbeat still end at `until`: their owners may be at work, in a process of the version before.

    Such a process can store the tokens of a refresh that it has begun, because the columns remain. It can begin no other:
    to it, each grant is leased already.
    """
    connection.exec_driver_sql("ALTER TABLE leases RENAME TO leases_without_heartbeat")
    leases.create(connection)  # `until` may be null now
    before = sa.table("leases_without_heartbeat", *(sa.column(name) for name in ("name", "owner", "until")))
    connection.execute(sa.insert(leases).from_select(before.c.keys(), sa.select(before)))
    connection.exec_driver_sql("DROP TABLE leases_without_heartbeat")
    held = sa.select(
        sa.literal("refresh/") + grants.c.seller_id,
        sa.func.substr(grants.c.lease_owner, 1, 32),
        grants.c.lease_until,
    ).where(grants.c.lease_owner.is_not(None))
    connection.execute(sa.insert(leases).from_select(before.c.keys(), held))
    connection.execute(sa.update(grants).values(lease_owner="a newer version", lease_until=_NEVER))


def _tell_reading_back_from_trying_again(connection: Connection) -> None:
    """`next_try_at` was also when an order that has nothing to send is read back."""
    has_nothing_to_send = orders.c.phase.in_((Phase.SETTLED, Phase.HELD, Phase.CLOSED))
    moved = {"read_back_at": orders.c.next_try_at, "next_try_at": None}
    is_set = orders.c.next_try_at.is_not(None)
    connection.execute(sa.update(orders).where(has_nothing_to_send, is_set).values(**moved))


def _say_since_when_events_are_recorded(connection: Connection) -> None:
    if connection.execute(sa.select(orders.c.phase).limit(1)).first():
        began = {
            "seller_id": "",
            "mp_order_number": "",
            "event_id": "began",
            "kind": "began",
            "details": "{}",
        }
        connection.execute(sa.insert(order_events).values(**began, occurred_at=datetime.now(UTC)))


def _count_findings_by_seller(connection: Connection) -> None:
    """`findings_by_seller` begins with the same column."""
    connection.exec_driver_sql("DROP INDEX IF EXISTS findings_by_state")


def _find_what_is_to_do_by_seller(connection: Connection) -> None:
    """`orders_by_phase` begins with the same column, and what is to do is asked for by seller."""
    connection.exec_driver_sql("DROP INDEX IF EXISTS orders_to_do")


def _find_orders_by_how_their_numbers_begin(connection: Connection) -> None:
    """Postgres makes `orders_by_number` again, which now compares numbers by character; SQLite always did."""
    if connection.dialect.name == "sqlite":
        return
    [index] = (index for index in orders.indexes if index.name == "orders_by_number")
    index.drop(connection)
    index.create(connection)


def _derive_the_data_key(connection: Connection) -> None:
    """From the encryption key, which is not known here: `data_key.open_cipher` does it."""
    connection.execute(sa.insert(data_keys).values(number=1, wrapped=None, made_at=datetime.now(UTC)))


def _count_more_units(connection: Connection) -> None:
    """Each shipment may have as many units as Postgres' INTEGER holds, and these columns count those of all; SQLite has one size."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(
            "ALTER TABLE orders ALTER closed_units_shipped TYPE BIGINT, ALTER acknowledged_shipped TYPE BIGINT"
        )


_CHANGES = {
    "0002": _note_when_orders_ended,
    "0003": _trust_what_was_loaded,
    "0005": _end_leases_by_heartbeat,
    "0009": _tell_reading_back_from_trying_again,
    "0017": _say_since_when_events_are_recorded,
    "0020": _count_findings_by_seller,
    "0026": _find_what_is_to_do_by_seller,
    "0030": _derive_the_data_key,
    "0039": _find_orders_by_how_their_numbers_begin,
    "0040": _count_more_units,
}
