"""What happened to each order. Where orders exist already, a row without an order says since when that is recorded."""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

from feedamp.state.schema import UtcTime

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Creates the table with its index, and writes the moment of the upgrade."""
    events = op.create_table(
        "order_events",
        sa.Column("seller_id", sa.String(128), primary_key=True),
        sa.Column("mp_order_number", sa.String(128), primary_key=True),
        sa.Column("event_id", sa.String(32), primary_key=True),
        sa.Column("occurred_at", UtcTime(), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("details", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text()),
        sa.Column("units_shipped", sa.BigInteger()),
        sqlite_with_rowid=False,
    )
    columns = ["occurred_at", "kind", "seller_id", "units_shipped"]
    op.create_index("order_events_by_time", "order_events", columns)
    if op.get_bind().execute(sa.text("SELECT 1 FROM orders LIMIT 1")).first():
        began = {
            "seller_id": "",
            "mp_order_number": "",
            "event_id": "began",
            "kind": "began",
            "details": "{}",
        }
        op.bulk_insert(events, [{**began, "occurred_at": datetime.now(UTC)}])
