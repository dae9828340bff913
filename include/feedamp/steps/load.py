"""Outbox and manifests -> warehouse -> snapshots of open orders -> watermarks, in this order."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import timedelta

from feedamp.lake import Manifest
from feedamp.models import decode_snapshot
from feedamp.parts import Parts, Run
from feedamp.state import ledger, open_orders, outbox, progress
from feedamp.tables import RECORDED_AT, SNAPSHOTS
from feedamp.warehouse import LoadSession

log = logging.getLogger(__name__)
# A task that announced a manifest and died may be retried, but not after so long.
NEVER_PUBLISHED = timedelta(days=2)


def load(parts: Parts, run: Run) -> dict[str, int]:
    """Brings everything that waits into the warehouse, whichever run left it; returns counts.

    Each manifest is one transaction. Only then do open orders' snapshots go into the state, and only then do
    watermarks move. Safe to repeat: a manifest counts once.

    Raises:
        BusyError: another process holds the warehouse; nothing is lost.
    """
    counts = {"manifests": 0, "rows": 0, "snapshots": 0, "watermarks": 0}
    with parts.warehouse.session() as warehouse:
        # Under the warehouse's lock, so that two loads do not write the same outbox rows.
        _empty_outbox(parts, run)
        for manifest in _pending(parts):
            _load_one(parts, warehouse, manifest, counts)
    log.info("%s", ", ".join(f"{name} {value}" for name, value in counts.items()))
    return counts


def _empty_outbox(parts: Parts, run: Run) -> None:
    """Turns the rows of the outbox into one more manifest; they stay until it is loaded."""
    writer = parts.lake_writer(run, "outbox", 0)
    path = writer.manifest_path
    with parts.state.begin() as connection:
        for abandoned in outbox.claims(connection):  # by a load that was killed before it published
            if parts.lake.read_manifest(abandoned) is None:
                outbox.unclaim(connection, abandoned)
        if not outbox.claim(connection, path):
            return
        progress.plan_manifest(connection, path, now=parts.state.now())
    with parts.state.read() as connection:
        for table, row in outbox.claimed_rows(connection, path):
            writer.append(table, [row])
    writer.publish(created_at=parts.state.now(), dag_id=run.dag_id, run_id=run.run_id)


def _pending(parts: Parts) -> Iterator[Manifest]:
    with parts.state.read() as connection:
        waiting = progress.pending_manifests(connection)
    for path, planned_at in waiting:
        manifest = parts.lake.read_manifest(path)
        if manifest is not None:
            yield manifest
        elif planned_at < parts.state.now() - NEVER_PUBLISHED:
            with parts.state.begin() as connection:
                progress.drop_manifest(connection, path)


def _load_one(parts: Parts, warehouse: LoadSession, manifest: Manifest, counts: dict[str, int]) -> None:
    warehouse.load(parts.lake, manifest)
    counts["manifests"] += 1
    counts["rows"] += sum(file.rows for file in manifest.files)
    for rows in parts.lake.batches(manifest, SNAPSHOTS.name):
        with parts.state.begin() as connection:
            for seller_id in dict.fromkeys(row["seller_id"] for row in rows):
                shown = [row for row in rows if row["seller_id"] == seller_id]
                counts["snapshots"] += open_orders.keep_open(
                    connection,
                    seller_id,
                    [(decode_snapshot(row["snapshot"]), row[RECORDED_AT]) for row in shown],
                )
                read_at = {row["mp_order_number"]: row[RECORDED_AT] for row in shown}
                for number in ledger.to_read_back(connection, seller_id):
                    if number in read_at:
                        ledger.was_read(connection, seller_id, number, read_at=read_at[number])
    now = parts.state.now()
    with parts.state.begin() as connection:
        for sweep in manifest.sweeps:
            if sweep.complete and sweep.watermark is not None:
                progress.move_watermark(connection, sweep.seller_id, sweep.watermark, now=now)
                counts["watermarks"] += 1
        outbox.remove(connection, manifest.path)
        progress.manifest_loaded(connection, manifest.path, now=now)
