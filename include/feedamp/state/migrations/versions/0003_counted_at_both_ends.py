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
    _add_what_tells_accounts_apart()
    op.execute(sa.text("UPDATE manifests SET taken_at = loaded_at"))
    op.execute(sa.text("UPDATE grants SET account_checked_at = issued_at"))


def _add_what_tells_accounts_apart() -> None:
    op.add_column("sellers", sa.Column("mix_up", sa.Text(), nullable=True))
    op.add_column("sellers", sa.Column("mixed_with", sa.String(128), nullable=True))
    op.add_column("grants", _forced())
    op.add_column("grants", sa.Column("others_known_until", UtcTime(), nullable=True))
    op.add_column("grants", sa.Column("consent", sa.String(64), nullable=True))
    op.create_table(
        "other_grants",
        sa.Column("seller_id", sa.String(128), primary_key=True),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("conn_id", sa.Text(), nullable=False),
        sa.Column("refresh_token", sa.Text(), nullable=False),
        sa.Column("previous_refresh_token", sa.Text()),
        sa.Column("access_token", sa.Text()),
        sa.Column("access_expires_at", UtcTime()),
        sa.Column("expires_in_s", sa.Integer()),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("issued_at", UtcTime(), nullable=False),
        sa.Column("refreshed_at", UtcTime()),
        sa.Column("account_checked_at", UtcTime()),
        _forced(),
        sa.Column("others_known_until", UtcTime()),
        sa.Column("consent", sa.String(64)),
    )
    op.create_table(
        "account_marks",
        sa.Column("mark", sa.String(32), primary_key=True),
        sa.Column("seller_id", sa.String(128), primary_key=True),
        sa.Column("mp_order_number", sa.String(128), nullable=False),
    )
    op.create_index("account_marks_by_seller", "account_marks", ["seller_id"])
    op.create_index("orders_by_number", "orders", ["mp_order_number", "purchase_date"])


def _forced() -> sa.Column[bool]:
    return sa.Column("account_forced", sa.Boolean(), nullable=False, server_default=sa.false())
