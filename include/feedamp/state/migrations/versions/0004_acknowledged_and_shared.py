"""Shipped orders that were cancelled and a person has acknowledged; grants whose account shows another seller's orders."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from feedamp.state.schema import UtcTime

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Adds the columns, all of them empty."""
    op.add_column("orders", sa.Column("acknowledged_shipped", sa.Integer(), nullable=True))
    op.add_column("orders", sa.Column("acknowledged_at", UtcTime(), nullable=True))
    op.add_column("orders", sa.Column("acknowledged_by", sa.Text(), nullable=True))
    op.add_column("orders", sa.Column("acknowledge_reason", sa.Text(), nullable=True))
    for grants in ("grants", "other_grants"):
        op.add_column(grants, sa.Column("shows_orders_of", sa.String(128), nullable=True))
