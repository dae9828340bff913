"""What an extraction could not read: where it left off in a seller's list, and orders that are unreadable."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from feedamp.state.schema import UtcTime

revision = "0011"
down_revision = "0009"


def upgrade() -> None:
    """Creates both tables."""
    op.create_table(
        "reads_left_off",
        sa.Column("seller_id", sa.String(128), primary_key=True),
        sa.Column("content", sa.Text(), nullable=False),
    )
    op.create_table(
        "unread_orders",
        sa.Column("seller_id", sa.String(128), primary_key=True),
        sa.Column("mp_order_number", sa.String(128), primary_key=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("since", UtcTime(), nullable=False),
    )
