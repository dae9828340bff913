"""What the newest reconciliation of each day and seller found, and what a task wants `gate` to know."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from feedamp.state.schema import UtcTime

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Creates the table and the column."""
    op.create_table(
        "reconciliation_days",
        sa.Column("day", sa.Date(), primary_key=True),
        sa.Column("seller_id", sa.String(128), primary_key=True),
        sa.Column("run_id", sa.String(250), nullable=False),
        sa.Column("compared", sa.Integer(), nullable=False),
        sa.Column("differences", sa.Text(), nullable=False),
        sa.Column("repaired", sa.Text(), nullable=False),
        sa.Column("remaining", sa.Integer(), nullable=False),
        sa.Column("unread", sa.Integer(), nullable=False),
        sa.Column("checked_at", UtcTime(), nullable=False),
    )
    op.create_index("reconciliation_days_by_age", "reconciliation_days", ["checked_at"])
    op.add_column("step_runs", sa.Column("outcome", sa.Text(), nullable=True))
