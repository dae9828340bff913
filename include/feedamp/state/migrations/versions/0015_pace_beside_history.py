"""When live work last wanted a request of a seller, and when work on history last sent one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0011"


def upgrade() -> None:
    """Adds both moments, as long ago."""
    for name in ("live_at", "history_at"):
        op.add_column("slots", sa.Column(name, sa.Float(), nullable=False, server_default="0"))
