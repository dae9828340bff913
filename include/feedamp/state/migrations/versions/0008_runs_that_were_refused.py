"""The run in which FeedAMP refused a grant: each run decides about its own refusals only."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Adds the column, empty: refusals of runs before the upgrade are decided when FeedAMP refuses again."""
    op.add_column("grants", sa.Column("refused_in", sa.String(600), nullable=True))
