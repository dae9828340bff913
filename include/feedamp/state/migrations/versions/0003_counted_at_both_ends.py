"""What proves that nothing was lost on the way: manifests taken into the state, faults of whole files, missing orders."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from feedamp.state.schema import UtcTime

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Adds the columns; what was loaded was taken with it, and a grant in use has shown whose account it is for."""
    op.add_column("manifests", sa.Column("taken_at", UtcTime(), nullable=True))
    op.add_column("rejected_orders", sa.Column("dismissed_at", UtcTime(), nullable=True))
    op.add_column("rejected_orders", sa.Column("dismiss_reason", sa.Text(), nullable=True))
    op.add_column("inbox_files", sa.Column("fault", sa.Text(), nullable=True))
    op.add_column("orders", sa.Column("missing_since", UtcTime(), nullable=True))
    op.add_column("orders", sa.Column("closed_units", sa.Text(), nullable=True))
    op.add_column("orders", sa.Column("closed_units_shipped", sa.Integer(), nullable=True))
    op.add_column("orders", sa.Column("closed_units_at", UtcTime(), nullable=True))
    op.add_column("grants", sa.Column("account_checked_at", UtcTime(), nullable=True))
    op.add_column("grants", sa.Column("status_reason", sa.Text(), nullable=True))
    op.add_column("step_runs", sa.Column("sellers", sa.Integer(), nullable=True))
    op.add_column("step_runs", sa.Column("problems", sa.Text(), nullable=True))
    op.execute(sa.text("UPDATE manifests SET taken_at = loaded_at"))
    op.execute(sa.text("UPDATE grants SET account_checked_at = issued_at"))
