"""Each writer marks its transactions, so that it can see whether a commit without an answer took effect."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from feedamp.state.schema import UtcTime

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Adds the table; it is empty until a server's first transaction."""
    op.create_table(
        "commit_marks",
        sa.Column("writer", sa.String(32), primary_key=True),
        sa.Column("mark", sa.String(32), nullable=False),
        sa.Column("set_at", UtcTime(), nullable=False),
    )
