"""The origin (scheme, host, port) that issued each grant."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Adds the columns, empty: the grants get the origin of their connection when it is first used."""
    for grants in ("grants", "other_grants"):
        op.add_column(grants, sa.Column("origin", sa.Text(), nullable=True))
