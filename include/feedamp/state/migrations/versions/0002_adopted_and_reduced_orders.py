"""Orders that were adopted, and orders whose body is no longer kept whole."""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

from feedamp.state.schema import UtcTime

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Adds what both need; all orders that are there have the body they were delivered with."""
    op.add_column(
        "orders", sa.Column("body_kind", sa.String(length=16), nullable=False, server_default="whole")
    )
    op.add_column("orders", sa.Column("adopted_at", UtcTime(), nullable=True))
    op.add_column("orders", sa.Column("ended_at", UtcTime(), nullable=True))
    op.create_index("orders_ended", "orders", ["body_kind", "ended_at"], unique=False)
    orders = sa.table(
        "orders",
        sa.column("phase", sa.String),
        sa.column("closed_at", UtcTime()),
        sa.column("ended_at", UtcTime()),
    )
    # An order that somebody else closed has no moment; it counts from now, so that nothing goes too early.
    op.execute(
        sa.update(orders)
        .where(orders.c.phase.in_(("closed", "never_placed")))
        .values(
            ended_at=sa.func.coalesce(orders.c.closed_at, sa.bindparam("now", datetime.now(UTC), UtcTime()))
        )
    )
