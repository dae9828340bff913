"""Full snapshots that a load writes to the lake, since when a seller is paused, and what a finding is about."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from feedamp.state.schema import UtcTime

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Creates the table and adds columns, which are null in the rows that are there."""
    op.create_table(
        "full_snapshots",
        sa.Column("table_name", sa.String(64), primary_key=True),
        sa.Column("content_hash", sa.String(64), nullable=False),
        sa.Column("taken_at", UtcTime(), nullable=False),
        sa.Column("manifest", sa.String(1024)),
    )
    op.add_column("sellers", sa.Column("paused_at", UtcTime()))
    op.add_column("findings", sa.Column("carrier", sa.Text()))
    op.add_column("findings", sa.Column("tracking_number", sa.Text()))
