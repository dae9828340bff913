"""The first schema of the state database, which the oldest installations have."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

from feedamp.state.schema import UtcTime


def make(op: Operations) -> None:
    """Makes its tables and says which revision they are."""
    op.create_table(
        "authorizations",
        sa.Column("state_digest", sa.String(length=64), nullable=False),
        sa.Column("seller_id", sa.String(length=128), nullable=False),
        sa.Column("conn_id", sa.Text(), nullable=False),
        sa.Column("expires_at", UtcTime(), nullable=False),
        sa.Column("used_at", UtcTime(), nullable=True),
        sa.PrimaryKeyConstraint("state_digest"),
    )
    op.create_table(
        "findings",
        sa.Column("finding_id", sa.String(length=32), nullable=False),
        sa.Column("seller_id", sa.String(length=128), nullable=False),
        sa.Column("mp_order_number", sa.String(length=128), nullable=False),
        sa.Column("mp_line_number", sa.Text(), nullable=True),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("severity", sa.String(length=16), nullable=False),
        sa.Column("api_code", sa.Text(), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("line_hash", sa.String(length=32), nullable=False),
        sa.Column("found_at", UtcTime(), nullable=False),
        sa.Column("intent_at", UtcTime(), nullable=True),
        sa.Column("reported_at", UtcTime(), nullable=True),
        sa.Column("listed_at", UtcTime(), nullable=True),
        sa.Column("resolved_at", UtcTime(), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("finding_id"),
    )
    op.create_index("findings_by_order", "findings", ["seller_id", "mp_order_number"], unique=False)
    op.create_index("findings_by_state", "findings", ["state"], unique=False)
    op.create_table(
        "grants",
        sa.Column("seller_id", sa.String(length=128), nullable=False),
        sa.Column("conn_id", sa.Text(), nullable=False),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("refresh_token", sa.Text(), nullable=False),
        sa.Column("previous_refresh_token", sa.Text(), nullable=True),
        sa.Column("access_token", sa.Text(), nullable=True),
        sa.Column("access_expires_at", UtcTime(), nullable=True),
        sa.Column("expires_in_s", sa.Integer(), nullable=True),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("issued_at", UtcTime(), nullable=False),
        sa.Column("refreshed_at", UtcTime(), nullable=True),
        sa.Column("refused_at", UtcTime(), nullable=True),
        sa.Column("disowned_at", UtcTime(), nullable=True),
        sa.Column("reported_at", UtcTime(), nullable=True),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_until", UtcTime(), nullable=True),
        sa.PrimaryKeyConstraint("seller_id"),
    )
    op.create_index("grants_by_connection", "grants", ["conn_id", "refreshed_at"], unique=False)
    op.create_table(
        "inbox_files",
        sa.Column("name", sa.String(length=1024), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("checksum", sa.String(length=64), nullable=False),
        sa.Column("stamp", sa.Text(), nullable=False),
        sa.Column("taken_at", UtcTime(), nullable=False),
        sa.Column("rows_read", sa.Integer(), nullable=False),
        sa.Column("rows_rejected", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.String(length=300), nullable=False),
        sa.Column("owner", sa.String(length=32), nullable=False),
        sa.Column("until", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "manifests",
        sa.Column("path", sa.String(length=1024), nullable=False),
        sa.Column("planned_at", UtcTime(), nullable=False),
        sa.Column("loaded_at", UtcTime(), nullable=True),
        sa.PrimaryKeyConstraint("path"),
    )
    op.create_table(
        "orders",
        sa.Column("seller_id", sa.String(length=128), nullable=False),
        sa.Column("mp_order_number", sa.String(length=128), nullable=False),
        sa.Column("phase", sa.String(length=16), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("body_hash", sa.String(length=32), nullable=False),
        sa.Column("desired_state", sa.String(length=32), nullable=False),
        sa.Column("accepted_state", sa.String(length=32), nullable=True),
        sa.Column("delivered", sa.Text(), nullable=False),
        sa.Column("purchase_date", UtcTime(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("source_row", sa.Integer(), nullable=False),
        sa.Column("row_hash", sa.String(length=64), nullable=False),
        sa.Column("taken_at", UtcTime(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("conflicting_state", sa.String(length=32), nullable=True),
        sa.Column("next_try_at", UtcTime(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("first_put_at", UtcTime(), nullable=True),
        sa.Column("placed_at", UtcTime(), nullable=True),
        sa.Column("closing_state", sa.String(length=32), nullable=True),
        sa.Column("closing_at", UtcTime(), nullable=True),
        sa.Column("closed_at", UtcTime(), nullable=True),
        sa.PrimaryKeyConstraint("seller_id", "mp_order_number"),
    )
    op.create_index("orders_by_day", "orders", ["purchase_date"], unique=False)
    op.create_index("orders_to_do", "orders", ["phase", "next_try_at"], unique=False)
    op.create_table(
        "outbox",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("table_name", sa.String(length=64), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("recorded_at", UtcTime(), nullable=False),
        sa.Column("manifest", sa.String(length=1024), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("outbox_by_manifest", "outbox", ["manifest"], unique=False)
    op.create_table(
        "rejected_orders",
        sa.Column("source", sa.String(length=1024), nullable=False),
        sa.Column("row_number", sa.Integer(), nullable=False),
        sa.Column("row_hash", sa.String(length=64), nullable=False),
        sa.Column("seller_id", sa.Text(), nullable=True),
        sa.Column("mp_order_number", sa.Text(), nullable=True),
        sa.Column("stage", sa.String(length=16), nullable=False),
        sa.Column("reasons", sa.Text(), nullable=False),
        sa.Column("raw", sa.Text(), nullable=False),
        sa.Column("rejected_at", UtcTime(), nullable=False),
        sa.Column("superseded_at", UtcTime(), nullable=True),
        sa.PrimaryKeyConstraint("source", "row_number", "row_hash"),
    )
    op.create_index("rejected_by_order", "rejected_orders", ["seller_id", "mp_order_number"], unique=False)
    op.create_table(
        "sellers",
        sa.Column("seller_id", sa.String(length=128), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("sales_channel", sa.Text(), nullable=True),
        sa.Column("conn_id", sa.Text(), nullable=False),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("added_at", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("seller_id"),
    )
    op.create_table(
        "slots",
        sa.Column("seller_id", sa.String(length=128), nullable=False),
        sa.Column("next_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("seller_id"),
    )
    op.create_table(
        "snapshots",
        sa.Column("seller_id", sa.String(length=128), nullable=False),
        sa.Column("mp_order_number", sa.String(length=128), nullable=False),
        sa.Column("read_at", UtcTime(), nullable=False),
        sa.Column("snapshot_hash", sa.String(length=32), nullable=False),
        sa.Column("snapshot", sa.Text(), nullable=False),
        sa.Column("validated_hash", sa.String(length=32), nullable=True),
        sa.Column("closable", sa.Boolean(), nullable=False),
        sa.Column("waits_for", sa.Text(), nullable=True),
        sa.Column("needs_person", sa.Boolean(), nullable=False),
        sa.Column("error_lingers_since", UtcTime(), nullable=True),
        sa.PrimaryKeyConstraint("seller_id", "mp_order_number"),
    )
    op.create_table(
        "step_runs",
        sa.Column("run_id", sa.String(length=250), nullable=False),
        sa.Column("step", sa.String(length=16), nullable=False),
        sa.Column("shard", sa.Integer(), nullable=False),
        sa.Column("started_at", UtcTime(), nullable=False),
        sa.Column("pages", sa.Integer(), nullable=False),
        sa.Column("requests", sa.Integer(), nullable=False),
        sa.Column("orders", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "step", "shard"),
    )
    op.create_table(
        "token_fingerprints",
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("seller_id", sa.String(length=128), nullable=False),
        sa.Column("seen_at", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("fingerprint"),
    )
    op.create_table(
        "tracking_uses",
        sa.Column("seller_id", sa.String(length=128), nullable=False),
        sa.Column("mp_order_number", sa.String(length=128), nullable=False),
        sa.Column("tracking_hash", sa.String(length=32), nullable=False),
        sa.Column("recipient_hash", sa.String(length=32), nullable=False),
        sa.Column("seen_at", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("seller_id", "mp_order_number", "tracking_hash"),
    )
    op.create_index("tracking_by_number", "tracking_uses", ["seller_id", "tracking_hash"], unique=False)
    op.create_table(
        "watermarks",
        sa.Column("seller_id", sa.String(length=128), nullable=False),
        sa.Column("watermark", UtcTime(), nullable=False),
        sa.Column("moved_at", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("seller_id"),
    )
    revision = op.create_table(
        "feedamp_alembic_version", sa.Column("version_num", sa.String(length=32), primary_key=True)
    )
    op.bulk_insert(revision, [{"version_num": "0001"}])
