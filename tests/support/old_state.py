"""A state database as version 0.1.0 left it, with its first schema and with a few orders."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import first_schema
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations

from feedamp.state import State
from feedamp.state.schema import UtcTime, metadata

BOUGHT_AT = datetime(2026, 3, 2, 14, 5, tzinfo=UTC)
CLOSED_AT = datetime(2026, 3, 9, 8, tzinfo=UTC)
READ_BACK_AT = datetime(2026, 3, 9, 9, tzinfo=UTC)
LEASED_UNTIL = datetime(2026, 3, 10, 12, 5, tzinfo=UTC)
_TIMES = (
    "next_try_at",
    "purchase_date",
    "taken_at",
    "placed_at",
    "closed_at",
    "until",
    "issued_at",
    "lease_until",
)
_LEASE = {"name": "close/S1/open", "owner": "abcdef.1.1.0", "until": LEASED_UNTIL}
_GRANT = {
    "seller_id": "S1",
    "conn_id": "feedamp",
    "status": "active",
    "refresh_token": "encrypted",
    "generation": 1,
    "issued_at": BOUGHT_AT,
    "lease_owner": "a-worker-with-a-long-name.example.com/12345/abcdef01",
    "lease_until": LEASED_UNTIL,
}


def make_old_state(url: str) -> None:
    """Makes the tables of revision 0001 in an empty database and puts orders into it: open, closed, closed elsewhere, waiting.

    A process of that version is closing the open order and refreshing the grant of S1, until `LEASED_UNTIL`.
    """
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        first_schema.make(Operations(MigrationContext.configure(connection)))
        for table, row in (("leases", _LEASE), ("grants", _GRANT)):
            names = [sa.column(name, UtcTime() if name in _TIMES else None) for name in row]
            connection.execute(sa.insert(sa.table(table, *names)), row)
        columns = [sa.column(name, UtcTime() if name in _TIMES else None) for name in _order("x")]
        connection.execute(
            sa.insert(sa.table("orders", *columns)),
            [
                _order("open", next_try_at=READ_BACK_AT),
                _order("waiting", phase="to_place", next_try_at=READ_BACK_AT),
                _order("closed", phase="closed", closed_at=CLOSED_AT),
                _order("elsewhere", phase="closed"),
            ],
        )
    engine.dispose()


def schema_differences(state: State) -> list[Any]:
    """What a database has besides the tables of `schema.py`, or lacks."""
    options = {"version_table": "feedamp_alembic_version", "compare_type": True}
    with state.engine.connect() as connection:
        return compare_metadata(MigrationContext.configure(connection, opts=options), metadata)


def _order(number: str, **changes: Any) -> dict[str, Any]:
    return {
        "seller_id": "S1",
        "mp_order_number": number,
        "phase": "settled",
        "body": '{"order_lines":[{"mp_line_number":"1","quantity":2}]}',
        "body_hash": "0" * 32,
        "desired_state": "AWAITING_SHIPMENT",
        "delivered": "[]",
        "purchase_date": BOUGHT_AT,
        "source": "old.jsonl",
        "source_row": 1,
        "row_hash": "0" * 64,
        "taken_at": BOUGHT_AT,
        "attempts": 0,
        "next_try_at": None,
        "placed_at": BOUGHT_AT,
        "closed_at": None,
    } | changes
