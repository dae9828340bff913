"""Leases end by heartbeat, and the lease on refreshing a grant is one of them."""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

from feedamp.state.schema import UtcTime

revision = "0005"
down_revision = "0004"

_NEVER = datetime(3000, 1, 1, tzinfo=UTC)


def upgrade() -> None:
    """Leases without a heartbeat still end at `until`: their owners may be at work, in a process of the version before.

    Such a process can store the tokens of a refresh that it has begun, because the columns remain. It can begin no other:
    to it, each grant is leased already.
    """
    with op.batch_alter_table("leases") as leases:
        leases.add_column(sa.Column("beat", sa.Integer(), nullable=True))
        leases.alter_column("until", existing_type=UtcTime(), nullable=True)
    if op.get_bind().dialect.name != "sqlite":  # which lets one process write at a time in any case
        op.execute(sa.text("LOCK TABLE grants IN EXCLUSIVE MODE"))
    op.execute(
        sa.text(
            "INSERT INTO leases (name, owner, until) "
            "SELECT 'refresh/' || seller_id, substr(lease_owner, 1, 32), lease_until FROM grants "
            "WHERE lease_owner IS NOT NULL"
        )
    )
    grants = sa.table("grants", sa.column("lease_owner", sa.Text()), sa.column("lease_until", UtcTime()))
    op.execute(grants.update().values(lease_owner="a newer version", lease_until=_NEVER))
