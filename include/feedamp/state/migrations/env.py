"""Runs migrations on the connection that `State.upgrade` hands over."""

from __future__ import annotations

from alembic import context

from feedamp.state.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table="feedamp_alembic_version",
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
