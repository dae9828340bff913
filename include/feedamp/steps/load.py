"""Outbox and manifests -> warehouse -> snapshots of open orders -> watermarks, in this order."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from feedamp.errors import IncompleteError
from feedamp.lake import Manifest
from feedamp.models import decode_snapshot
from feedamp.parts import Parts, Run
from feedamp.state import ledger, open_orders, outbox, progress
from feedamp.tables import RECORDED_AT, SNAPSHOTS
from feedamp.warehouse import LoadSession

log = logging.getLogger(__name__)
# A task that announced a manifest and died may be retried, but not after so long.
NEVER_PUBLISHED = timedelta(days=2)
ROWS_PER_MANIFEST = 100_000  # merged in one transaction, whose memory grows with them
COUNTED = ("manifests", "rows", "snapshots", "watermarks")
FEW = 3


@dataclass
class Loaded:
    """What a load did, and what it had to leave: `damaged` holds a sentence for each manifest."""

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTED, 0))
    damaged: dict[str, str] = field(default_factory=dict)

    @property
    def problem(self) -> str | None:
        """What a person has to do, None if nothing was left."""
        if not self.damaged:
            return None
        shown = " ".join(list(self.damaged.values())[:FEW])
        more = f" {len(self.damaged) - FEW} more are in the log." if len(self.damaged) > FEW else ""
        return (
            f"{len(self.damaged)} manifests are not in the warehouse, all others are. {shown}{more} Put the files back "
            "where they were, from a backup; if there is none, see the runbook, `A file of the lake is damaged`."
        )


def load(parts: Parts, run: Run) -> dict[str, int]:
    """Brings everything that waits into the warehouse, whichever run left it; returns counts.

    Each manifest is one transaction. Only then do open orders' snapshots go into the state, and only then do
    watermarks move. Safe to repeat: a manifest counts once.

    Raises:
        BusyError: another process holds the warehouse; nothing is lost.
        IncompleteError: files of some manifests are missing or damaged; all others are loaded.
    """
    loaded = load_what_is_whole(parts, run)
    if loaded.problem is not None:
        raise IncompleteError(loaded.problem)
    return loaded.counts


def load_what_is_whole(parts: Parts, run: Run) -> Loaded:
    """As `load`, but a manifest that cannot be read is named in the result; it waits for the next load.

    Raises:
        BusyError: another process holds the warehouse; nothing is lost.
    """
    loaded = Loaded()
    with parts.warehouse.session() as warehouse:
        # Under the warehouse's lock, so that two loads do not write the same outbox rows.
        _empty_outbox(parts, run)
        for path, planned_at in _pending(parts):
            try:
                manifest = parts.lake.read_manifest(path)
                if manifest is not None:
                    _load_one(parts, warehouse, manifest, loaded.counts)
                elif planned_at < parts.state.now() - NEVER_PUBLISHED:
                    with parts.state.begin() as connection:
                        progress.drop_manifest(connection, path)
            except IncompleteError as error:
                # The sweeps that came with it move no watermark: what it held is read again.
                why = error.message
                if path not in why:
                    why = f"Manifest {path} cannot be loaded: {why}"
                loaded.damaged[path] = why
                log.error("%s It waits for the next load; all others go on.", why)
    log.info("%s", ", ".join(f"{name} {value}" for name, value in loaded.counts.items()))
    return loaded


def _empty_outbox(parts: Parts, run: Run) -> None:
    """Turns the rows that the outbox holds now into manifests; they stay until those are loaded."""
    with parts.state.read() as connection:
        claims = outbox.claims(connection)
    # By a load that was killed before it published. The lake is asked outside of any transaction (promise 8).
    abandoned = [path for path in claims if not _is_published(parts, path)]
    with parts.state.begin() as connection:
        for path in abandoned:
            outbox.unclaim(connection, path)
        waiting = outbox.unclaimed(connection)
    for number in range(-(-waiting // ROWS_PER_MANIFEST)):
        writer = parts.lake_writer(run, "outbox", number)
        path = writer.manifest_path
        with parts.state.begin() as connection:
            if not outbox.claim(connection, path, at_most=ROWS_PER_MANIFEST):
                return
            progress.plan_manifest(connection, path, now=parts.state.now())
        with parts.state.read() as connection:
            for table, row in outbox.claimed_rows(connection, path):
                writer.append(table, [row])
        writer.publish(created_at=parts.state.now(), dag_id=run.dag_id, run_id=run.run_id)


def _is_published(parts: Parts, path: str) -> bool:
    try:
        return parts.lake.read_manifest(path) is not None
    except IncompleteError:  # damaged: its turn comes with the others
        return True


def _pending(parts: Parts) -> Sequence[tuple[str, datetime]]:
    with parts.state.read() as connection:
        return progress.pending_manifests(connection)


def _load_one(parts: Parts, warehouse: LoadSession, manifest: Manifest, counts: dict[str, int]) -> None:
    warehouse.load(parts.lake, manifest)
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
    counts["manifests"] += 1
    counts["rows"] += sum(file.rows for file in manifest.files)
