"""When an order is read back by number: `next_try_at` said so for orders that have nothing to send."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from feedamp.state.schema import UtcTime

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Moves the time of orders that have nothing to send into the new column."""
    op.add_column("orders", sa.Column("read_back_at", UtcTime(), nullable=True))
    op.execute(
        "UPDATE orders SET read_back_at = next_try_at, next_try_at = NULL "
        "WHERE phase IN ('settled', 'held', 'closed') AND next_try_at IS NOT NULL"
    )
