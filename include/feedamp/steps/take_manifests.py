"""Manifests -> state: snapshots of open orders and watermarks, once all files of a manifest have been read back."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy.engine import Connection

from feedamp.errors import IncompleteError, UnreadableError
from feedamp.lake.erasing import rows_without_erased
from feedamp.lake.manifest import Manifest, SellerProgress, rows_by_table
from feedamp.lake.schema_evolution import LakeFiles
from feedamp.models import Snapshot
from feedamp.progress import Progress
from feedamp.resources import Resources
from feedamp.rules.failure_summary import counted
from feedamp.state import consents, ledger, manifests, open_orders, outbox, watermarks
from feedamp.steps.loaded import OF_ONE_MANIFEST, Loaded, record_damaged
from feedamp.tables import LAKE_TABLES, RECORDED_AT, SNAPSHOTS, Row

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)
# A task that died after it announced a manifest may be retried and publish it, but not later than this.
NEVER_PUBLISHED = timedelta(days=2)


def take_published(resources: Resources, renew: Callable[[], None], loaded: Loaded) -> None:
    """Takes snapshots and watermarks of published manifests into the state, after reading each to its end."""
    with resources.state.read() as connection:
        pending = manifests.untaken(connection)
    progress = Progress("load into the state", "manifests", len(pending))
    for done, (path, planned_at) in enumerate(pending):
        progress.at(done)
        if path in loaded.damaged:
            continue
        renew()
        try:
            manifest = _take_current(resources, path, loaded.counts)
            if manifest is not None:
                continue
            if planned_at < resources.state.now() - NEVER_PUBLISHED:
                with resources.state.begin() as connection:
                    manifests.drop(connection, path)
        except OF_ONE_MANIFEST as error:
            record_damaged(loaded, path, error)


def _take_current(resources: Resources, path: str, counts: dict[str, int]) -> Manifest | None:
    """Takes the manifest at a path into the state; None if there is none."""
    manifest = resources.lake.read_manifest(path)
    while manifest is not None:
        try:
            take_into_state(resources, manifest, counts)
            return manifest
        except IncompleteError:
            current = resources.lake.read_manifest(path)
            if current is None or current.files == manifest.files:
                raise
            manifest = current  # rows were erased from it meanwhile, and its old files are gone
    return None


def take_into_state(resources: Resources, manifest: Manifest, counts: Counter[str] | dict[str, int]) -> None:
    resources.lake.verify(manifest)
    _compare_with_outbox(resources, manifest)
    snapshots = resources.lake.kept_batches(manifest, SNAPSHOTS.name)
    for batch in snapshots if _names_own_orders(resources, manifest) else ():
        with resources.state.begin() as connection:
            rows = _of_ledger(connection, batch)
            for seller_id in dict.fromkeys(row["seller_id"] for row in rows):
                of_seller = [row for row in rows if row["seller_id"] == seller_id]
                counts["snapshots"] += _store_snapshots(
                    connection, resources, seller_id, of_seller, run_id=manifest.run_id
                )
    now = resources.state.now()
    with resources.state.begin() as connection:
        if manifests.are_taken(connection, manifest.follows):
            behind = 0
            for sweep in manifest.sweeps:
                if sweep.watermark is None or not is_of_account(connection, sweep):
                    continue
                watermark = sweep.moved(watermarks.read(connection, sweep.seller_id))
                if watermark is None or watermark < sweep.watermark:
                    behind += 1
                else:
                    watermarks.move(connection, sweep.seller_id, watermark, now=now)
                    counts["watermarks"] += 1
            if behind:
                log.warning(
                    "Watermarks of %s are not advanced to manifest %s, because they were moved back after its "
                    "orders were read. The next extraction reads from the current watermarks.",
                    counted(behind, "seller"),
                    manifest.path,
                )
        else:
            log.warning(
                "Watermarks of manifest %s are not advanced, because an earlier manifest of the same task is incomplete. "
                "The next extraction reads the orders of both again.",
                manifest.path,
            )
        manifests.mark_taken(connection, manifest.path, now=now)


def is_of_account(connection: Connection, sweep: SellerProgress) -> bool:
    """Whether the account that was read still belongs to the seller.

    Manifests of earlier versions do not identify the account. It is the current one if their watermark is not before the
    moment at which that account was accepted.
    """
    accepted_at = consents.account_checked_at(connection, sweep.seller_id)
    if sweep.account_checked_at is None:
        return accepted_at is not None and sweep.watermark is not None and sweep.watermark >= accepted_at
    return sweep.account_checked_at == accepted_at


def _compare_with_outbox(resources: Resources, manifest: Manifest) -> None:
    """Releases the outbox rows claimed for a manifest if it holds a different number of rows of any table.

    The next run of `load` writes them again, to another manifest.
    """
    written = rows_by_table([manifest])
    with resources.state.read() as connection:
        claimed = outbox.claimed_by_table(connection, manifest.path)
    if not claimed or claimed == written:
        return
    lake = resources.lake.as_erased_now()
    if erased := lake.erased():
        # An erasure takes its rows from the outbox and from the manifest at different times, so they count in neither.
        kept = Counter(
            table
            for table, row in outbox.claimed_rows(resources.state.read, manifest.path)
            if rows_without_erased([row], erased, table)
        )
        files = LakeFiles(lake, manifest)
        there = {
            table: sum(batch.num_rows for batch in files.batches(LAKE_TABLES[table])) for table in written
        }
        if kept <= Counter(there):  # more in the manifest: rows of it without a seller's id
            return
    log.warning(
        "Manifest %s holds %s, but %d of the outbox were meant for it; the next run of load writes them again.",
        manifest.path,
        counted(written.total(), "row"),
        claimed.total(),
    )
    with resources.state.begin() as connection:
        outbox.unclaim(connection, manifest.path)


def _names_own_orders(resources: Resources, manifest: Manifest) -> bool:
    """Whether the ledger has any order of a seller with snapshots; if not, none of them is decoded.

    To ask once, and not with each batch, can hide nothing: what `place` sends is in the ledger before FeedAMP can show it, so
    before these snapshots were read. An order that is adopted, or delivered although FeedAMP has it already, may come later;
    it is then as if it had come just after the load: adoption reads it by itself, another one is read when the seller changes it, or by a reconciliation.
    """
    sellers = {
        seller_id
        for file in manifest.files
        if file.table == SNAPSHOTS.name
        for batch in resources.lake.key_batches(file)
        for seller_id in batch.column(SNAPSHOTS.key[0]).unique().to_pylist()
    }
    with resources.state.read() as connection:
        return any(ledger.has_orders(connection, seller_id) for seller_id in sellers)


def _of_ledger(connection: Connection, batch: pa.RecordBatch) -> list[Row]:
    """The rows of orders in the ledger; others, which may be most of them, are not made into rows."""
    import pyarrow as pa

    keys = list(zip(*(batch.column(name).to_pylist() for name in SNAPSHOTS.key), strict=True))
    by_seller: dict[str, list[str]] = {}
    for seller_id, number in keys:
        by_seller.setdefault(seller_id, []).append(number)
    known = {seller_id: ledger.known(connection, seller_id, of) for seller_id, of in by_seller.items()}
    is_known = pa.array((number in known[seller_id] for seller_id, number in keys), pa.bool_())
    rows: list[Row] = batch.filter(is_known).to_pylist()
    return rows


def _store_snapshots(
    connection: Connection, resources: Resources, seller_id: str, rows: Sequence[Row], *, run_id: str
) -> int:
    """Stores snapshots of open orders and returns how many.

    An order whose snapshot cannot be decoded is marked to be read again.
    """
    snapshots: list[tuple[Snapshot, datetime]] = []
    for row in rows:
        number = row["mp_order_number"]
        try:
            snapshots.append(
                (open_orders.decode_stored(seller_id, number, row["snapshot"]), row[RECORDED_AT])
            )
        except UnreadableError as error:
            log.warning("%s The next extraction reads the order again.", error)
            ledger.read_back_later(connection, seller_id, number, now=resources.state.now())
    stored = open_orders.keep_open(connection, seller_id, snapshots, run_id=run_id)
    read_at = {snapshot.mp_order_number: moment for snapshot, moment in snapshots}
    waiting = [
        number
        for number in ledger.to_read_back(connection, [seller_id]).get(seller_id, ())
        if number in read_at
    ]
    ledger.were_read(connection, seller_id, {number: read_at[number] for number in waiting})
    return stored
