"""Outbox -> manifests -> state (snapshots of open orders, watermarks) -> warehouse.

The state takes in each manifest once its files have been read back completely. The warehouse comes last, and no other
step waits for it.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy.engine import Connection

from feedamp.api.clock_check import doubt_by_state
from feedamp.errors import BusyError, FeedAmpError, IncompleteError, MisfitError, UnreadableError
from feedamp.lake.erasing import rows_without_erased
from feedamp.lake.manifest import Manifest, SellerProgress, rows_by_table
from feedamp.lake.schema_evolution import LakeFiles
from feedamp.models import Snapshot
from feedamp.progress import Progress
from feedamp.resources import Resources
from feedamp.rules.failure_summary import counted
from feedamp.run import Run
from feedamp.state import consents, ledger, manifests, open_orders, outbox, scorecards, watermarks
from feedamp.state.leases import Lease
from feedamp.state.rejects import Key
from feedamp.state.statements import in_parts
from feedamp.steps.runner import StepResult, record_run
from feedamp.steps.set_aside import end_accepted, end_outdated, record_refused, set_aside_rows
from feedamp.steps.write_snapshots import write_full_snapshots
from feedamp.tables import LAKE_TABLES, RECORDED_AT, RUNS, SNAPSHOTS, Row, Rows
from feedamp.warehouse.refused_rows import RefusedRow
from feedamp.warehouse.session import Session, groups_of_small

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)
# A task that died after it announced a manifest may be retried and publish it, but not later than this.
NEVER_PUBLISHED = timedelta(days=2)
# An order is read back by the next extraction, so a manifest holds orders that were closed shortly before it.
ENDED_BEFORE_MANIFEST = timedelta(days=1)
ROWS_PER_MANIFEST = 100_000  # merged in one transaction, whose memory grows with the rows
# How long a load waits for a busy warehouse before it leaves the merge to the next load.
WAREHOUSE_WAIT_S = 10.0
WHOLE = "-whole-"  # in the name of a manifest of full snapshots
OUTBOX = "-outbox-"  # in the name of a manifest whose rows stay in the state until they are in the warehouse
LEASE = "load"
LEASE_WAIT_S, LEASE_LOOK_S = 60.0, 0.25
COUNTED = ("manifests", "rows", "snapshots", "watermarks", "waiting", "set_aside")
# Errors of one manifest, whatever is wrong with it; the others are loaded. A store that fails raises others.
OF_ONE_MANIFEST = (
    IncompleteError,
    MisfitError,
    UnreadableError,
    ArithmeticError,
    LookupError,
    TypeError,
    ValueError,
)
MANIFESTS_NAMED = 3


@dataclass
class Loaded:
    """What a load did, and what it could not load.

    `damaged` holds a sentence for each manifest that is damaged or missing, `refused` for each of which the warehouse
    refuses more than single rows; `set_aside` are single rows that it refuses. `busy` names the process that holds the
    warehouse; `changed` counts the loaded rows but those of `runs`, which every run writes; `by_table` counts all
    rows of the merged manifests, also full snapshots and rows set aside; `is_overdue` is true once a manifest has waited for it longer than `duckdb_lock_wait_s`.
    """

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTED, 0))
    damaged: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    set_aside: list[RefusedRow] = field(default_factory=list)
    busy: BusyError | None = None
    is_overdue: bool = False
    changed: int = 0
    by_table: Counter[str] = field(default_factory=Counter)

    @property
    def problem(self) -> str | None:
        """What requires action; None if everything is loaded or will be by a later load."""
        problems = []
        if self.damaged:
            first = " ".join(list(self.damaged.values())[:MANIFESTS_NAMED])
            rest = len(self.damaged) - MANIFESTS_NAMED
            more = f" {rest} more are in the log." if rest > 0 else ""
            problems.append(
                f"{len(self.damaged)} manifests are not in the warehouse; all others are. {first}{more} Restore the "
                "files from a backup to where they were; if there is none, see the runbook, "
                "`A file of the lake is damaged`."
            )
        if self.refused:
            problems.append(
                f"{counted(len(self.refused), 'manifest')} cannot be loaded; all others are. "
                f"{' '.join(list(self.refused.values())[:MANIFESTS_NAMED])} Each load tries them again."
            )
        if self.set_aside:
            row = self.set_aside[0]
            order = f"order {row.row.get('mp_order_number')} of seller {row.row.get('seller_id')}"
            problems.append(
                f"The warehouse refuses {counted(len(self.set_aside), 'row')}, the first of {row.table}, {order[:200]}; all "
                "other rows are loaded. `feedamp rejected list` names them, `feedamp lake retry` tries them again."
            )
        if self.busy is not None and self.is_overdue:
            problems.append(
                f"{self.counts['waiting']} manifests have waited too long for the warehouse. {self.busy}"
            )
        return " ".join(problems) or None


def load(resources: Resources, run: Run) -> dict[str, int]:
    """Loads everything that waits, from this run or earlier ones, into state and warehouse; returns counts.

    A manifest is merged in one transaction, small ones together. Safe to repeat: a manifest counts once.

    Raises:
        BusyError: another process has held the warehouse too long; nothing is lost.
        IncompleteError: files of some manifests are missing or damaged; all other manifests are loaded.
    """
    loaded = load_what_is_whole(resources, run)
    if loaded.damaged or loaded.refused:
        raise IncompleteError(loaded.problem or "")
    if loaded.busy is not None and loaded.is_overdue:
        raise loaded.busy
    return loaded.counts


def load_what_is_whole(resources: Resources, run: Run) -> Loaded:
    """Does what `load` does, but returns what could not be loaded instead of raising; the next load tries it again.

    Raises a BusyError if another process has been publishing for a minute; nothing is lost.
    """
    doubt_by_state(resources.state)
    loaded, started_at = Loaded(), resources.state.now()
    with _publishing_lease(resources) as lease:
        # What the state takes in adds events to the outbox, which go with this load.
        _take_published(resources, lease, loaded)
        _empty_outbox(resources, run, lease)
        _take_published(resources, lease, loaded)
        write_full_snapshots(
            resources,
            run,
            partial(_renew, lease),
            lambda made: _take_into_state(resources, made, loaded.counts),
        )
    _fill_warehouse(resources, loaded)
    if loaded.set_aside:  # idle loads write no row, or the next one would have something to load
        result = StepResult("load", orders_unread=len(loaded.set_aside), complete=False)
        record_run(resources, run, result, started_at)
    log.info("%s", ", ".join(f"{name} {value}" for name, value in loaded.counts.items()))
    return loaded


@contextmanager
def _publishing_lease(resources: Resources) -> Iterator[Lease]:
    """Holds the lease for publishing the outbox.

    Only one process may publish at a time: a second one would mistake rows claimed by the first one for abandoned rows.
    """
    give_up_at = time.monotonic() + LEASE_WAIT_S
    while True:
        with resources.state.leases.hold(LEASE) as lease:
            if lease is not None:
                yield lease
                return
        if time.monotonic() >= give_up_at:
            raise _another_load()
        time.sleep(LEASE_LOOK_S)


def _another_load() -> BusyError:
    return BusyError("Another load is publishing the outbox and loads what waits.", retry_after_s=60)


def _empty_outbox(resources: Resources, run: Run, lease: Lease) -> None:
    """Publishes the rows of the outbox as manifests; the rows stay in the outbox until they are in the warehouse."""
    with resources.state.read() as connection:
        claims = outbox.claims(connection)
    # Claimed by a load that was killed before it published. The lake is read outside of any transaction (promise 8).
    abandoned = [path for path in claims if not _is_published(resources, path)]
    with resources.state.begin() as connection:
        for path in abandoned:
            outbox.unclaim(connection, path)
        waiting = outbox.unclaimed(connection)
    progress = Progress("outbox", "rows", waiting)
    for number in range(-(-waiting // ROWS_PER_MANIFEST)):
        _renew(lease)
        writer = resources.lake_writer(run, "outbox", number)
        path = writer.manifest_path
        with resources.state.begin() as connection:
            claimed = outbox.claim(connection, path, at_most=ROWS_PER_MANIFEST)
            if not claimed:
                return
            manifests.announce(connection, path, now=resources.state.now())
        for part in in_parts(outbox.claimed_rows(resources.state.read, path)):
            rows: Rows = {}
            for table, row in part:
                rows.setdefault(table, []).append(row)
            writer.append_all(rows)
        if (read := writer.appended.total() + writer.left_out) != claimed:
            raise IncompleteError(
                f"{claimed} rows of the outbox were claimed, but {read} were read; the next load tries again."
            )
        _renew(lease)
        writer.publish(created_at=resources.state.now(), dag_id=run.dag_id, run_id=run.run_id)
        progress.add(claimed)


def _is_published(resources: Resources, path: str) -> bool:
    try:
        return resources.lake.read_manifest(path) is not None
    except IncompleteError:  # damaged: reported when all manifests are read
        return True


def _take_published(resources: Resources, lease: Lease, loaded: Loaded) -> None:
    """Takes snapshots and watermarks of published manifests into the state, after reading each to its end."""
    with resources.state.read() as connection:
        pending = manifests.untaken(connection)
    progress = Progress("load into the state", "manifests", len(pending))
    for done, (path, planned_at) in enumerate(pending):
        progress.at(done)
        if path in loaded.damaged:
            continue
        _renew(lease)
        try:
            manifest = _take_current(resources, path, loaded.counts)
            if manifest is not None:
                continue
            if planned_at < resources.state.now() - NEVER_PUBLISHED:
                with resources.state.begin() as connection:
                    manifests.drop(connection, path)
        except OF_ONE_MANIFEST as error:
            _record_damaged(loaded, path, error)


def _renew(lease: Lease) -> None:
    if not lease.renew():
        raise _another_load()


def _record_damaged(loaded: Loaded, path: str, error: Exception) -> None:
    """Records a manifest that cannot be loaded, because its files are missing or damaged or the warehouse refuses it."""
    problem = error.message if isinstance(error, FeedAmpError) else f"{type(error).__name__}."
    if path not in problem:
        problem = f"Manifest {path} cannot be loaded: {problem}"
    (loaded.refused if isinstance(error, MisfitError) else loaded.damaged)[path] = problem
    log.error("%s The next load tries it again; all other manifests are loaded.", problem)


def _take_current(resources: Resources, path: str, counts: dict[str, int]) -> Manifest | None:
    """Takes the manifest at a path into the state; None if there is none."""
    manifest = resources.lake.read_manifest(path)
    while manifest is not None:
        try:
            _take_into_state(resources, manifest, counts)
            return manifest
        except IncompleteError:
            current = resources.lake.read_manifest(path)
            if current is None or current.files == manifest.files:
                raise
            manifest = current  # rows were erased from it meanwhile, and its old files are gone
    return None


def _take_into_state(resources: Resources, manifest: Manifest, counts: Counter[str] | dict[str, int]) -> None:
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
                if sweep.watermark is None or not _is_of_account(connection, sweep):
                    continue
                watermark = sweep.moved(watermarks.read(connection, sweep.seller_id))
                if watermark is None or watermark < sweep.watermark:
                    behind += 1
                else:
                    watermarks.move(connection, sweep.seller_id, watermark, now=now)
                    counts["watermarks"] += 1
            if behind:
                log.warning(
                    "Watermarks of %d sellers are not advanced to manifest %s, because they were moved back after its "
                    "orders were read. The next extraction reads from the current watermarks.",
                    behind,
                    manifest.path,
                )
        else:
            log.warning(
                "Watermarks of manifest %s are not advanced, because an earlier manifest of the same task is incomplete. "
                "The next extraction reads the orders of both again.",
                manifest.path,
            )
        manifests.mark_taken(connection, manifest.path, now=now)


def _is_of_account(connection: Connection, sweep: SellerProgress) -> bool:
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
        "Manifest %s holds %d rows, but %d rows of the outbox were meant for it; the next run of load writes them again.",
        manifest.path,
        written.total(),
        claimed.total(),
    )
    with resources.state.begin() as connection:
        outbox.unclaim(connection, manifest.path)


def _names_own_orders(resources: Resources, manifest: Manifest) -> bool:
    """Whether the ledger has any order of a seller with snapshots; if not, none of them is decoded."""
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


def _handle_missing(resources: Resources, path: str, taken_at: datetime, loaded: Loaded) -> None:
    """Handles a manifest that disappeared from the lake after the state had taken it in and moved its watermarks.

    One of the outbox, or of full snapshots, is dropped: the next load writes its rows again under another name. Any other manifest is
    given up after two days, which leaves time to restore it from a backup.
    """
    is_outbox = OUTBOX in path or WHOLE in path
    if not is_outbox:
        message = (
            f"Manifest {path} never reached the warehouse: it is no longer in the lake. If it cannot be restored, "
            "`feedamp lake verify --repair` moves the watermarks back, so that the next extraction reads its orders again."
        )
        _record_damaged(loaded, path, IncompleteError(message))
    if is_outbox:
        with resources.state.begin() as connection:
            manifests.drop(connection, path)
    elif taken_at < resources.state.now() - NEVER_PUBLISHED:
        give_up_manifest(resources, path)


def give_up_manifest(resources: Resources, path: str) -> int:
    """Drops a manifest that is no longer in the lake, and moves back the watermarks that depend on it.

    It is no longer known whose orders the manifest contained. So each watermark that has moved since the manifest was
    announced is moved back to what earlier manifests in the lake say, or removed if none of them names the seller.
    Orders that were read in between are read again, which changes nothing. Returns how many watermarks were moved back.
    """
    published = resources.lake.published()
    compacted = {replaced for manifest in published for replaced in manifest.replaces}
    with resources.state.begin() as connection:
        planned_at = manifests.planned_at(connection, path)
        if planned_at is None:
            return 0  # another process has given it up at the same time
        earlier: dict[str, datetime | None] = {}
        for manifest in published:
            follows = set(manifest.follows) - compacted
            if manifest.created_at < planned_at and manifests.are_taken(connection, follows):
                for sweep in manifest.sweeps:
                    if _is_of_account(connection, sweep):
                        earlier[sweep.seller_id] = sweep.moved(earlier.get(sweep.seller_id))
        moved = watermarks.moved_since(connection, planned_at)
        for seller_id in moved:
            watermarks.move_back(connection, seller_id, earlier.get(seller_id), now=resources.state.now())
        # No watermark brings back an order that only this side changed: FeedAMP lists changes by sellers.
        ledger.read_back_ended_since(
            connection, planned_at - ENDED_BEFORE_MANIFEST, now=resources.state.now()
        )
        manifests.drop(connection, path)
    log.warning("Manifest %s is given up: the watermarks of %d sellers are moved back.", path, len(moved))
    return len(moved)


def retry_set_aside(resources: Resources) -> tuple[int, int]:
    """Loads the manifests of rows that are set aside once more; returns how many rows are loaded now, and how many not. Safe to repeat.

    Raises:
        BusyError: another process holds the warehouse.
        IncompleteError: a file of the lake is missing or cannot be read.
    """
    before = {rejected.key for rejected, _, _ in set_aside_rows(resources)}
    paths = {source for source, _, _ in before}
    refused: set[Key] = set()
    if paths:
        with resources.warehouse.session() as warehouse:
            warehouse.load_again(
                resources.lake,
                lambda manifest: manifest.path in paths,
                lambda rows: refused.update(record_refused(resources, rows)),
            )
            end_accepted(resources, before - refused)
    # An erasure from the same manifest moves a row up, so that its reject is another one.
    accepted = Counter(map(_content_of, before)) - Counter(map(_content_of, refused))
    return accepted.total(), len(refused)


def _content_of(key: Key) -> tuple[str, str]:
    source, _, row_hash = key
    return source, row_hash


def _fill_warehouse(resources: Resources, loaded: Loaded) -> None:
    """Merges the manifests that the state has taken in; if the warehouse is busy, the next load merges the rest."""
    with resources.state.read() as connection:
        waiting = dict(manifests.unloaded(connection))
    if not waiting:
        return

    try:
        with resources.warehouse.session(
            wait_s=min(WAREHOUSE_WAIT_S, resources.warehouse.lock_wait_s)
        ) as warehouse:
            progress = Progress("load", "manifests", len(waiting))
            for group in groups_of_small(_present(resources, dict(waiting), loaded)):
                for merged in _merged(resources, warehouse, group, loaded):
                    _record_loaded(resources, merged, loaded)
                    for manifest in merged:
                        del waiting[manifest.path]
                progress.add(len(group))
            end_outdated(resources, warehouse)
            if loaded.counts["rows"]:
                _store_scorecards(resources, warehouse)
    except BusyError as error:
        age_s = (resources.state.now() - min(waiting.values())).total_seconds()
        loaded.busy, loaded.is_overdue = error, age_s > resources.warehouse.lock_wait_s
        loaded.counts["waiting"] = len(waiting)
        log.warning("%d manifests wait for the next load: %s", len(waiting), error)


def _present(resources: Resources, waiting: Mapping[str, datetime], loaded: Loaded) -> Iterator[Manifest]:
    """The manifests at these paths, each with the moment when the state took it in, that are in the lake and whole."""
    for path, taken_at in waiting.items():
        try:
            manifest = resources.lake.read_manifest(path)
        except OF_ONE_MANIFEST as error:
            _record_damaged(loaded, path, error)
            continue
        if manifest is None:
            _handle_missing(resources, path, taken_at, loaded)
        else:
            yield manifest


def _merged(
    resources: Resources, warehouse: Session, group: Sequence[Manifest], loaded: Loaded
) -> Iterator[Sequence[Manifest]]:
    """Merges a group in one transaction, or one by one so that each costs only itself; yields what was merged at once."""

    def set_aside(rows: Sequence[RefusedRow]) -> None:
        record_refused(resources, rows)
        loaded.set_aside += rows
        loaded.counts["set_aside"] += len(rows)

    if warehouse.load_together(resources.lake, group):
        yield group
        return
    for manifest in group:
        try:
            warehouse.load(resources.lake, manifest, set_aside)
        except OF_ONE_MANIFEST as error:
            _record_damaged(loaded, manifest.path, error)
        else:
            yield [manifest]


def _record_loaded(resources: Resources, merged: Sequence[Manifest], loaded: Loaded) -> None:
    with resources.state.begin() as connection:
        for manifest in merged:
            outbox.remove(connection, manifest.path)
            manifests.mark_loaded(connection, manifest.path, now=resources.state.now())
    loaded.by_table += rows_by_table(merged)
    for manifest in merged:
        if not manifest.full_snapshots:
            loaded.counts["manifests"] += 1
            loaded.counts["rows"] += sum(file.rows for file in manifest.files)
            loaded.changed += sum(file.rows for file in manifest.files if file.table != RUNS.name)


def _store_scorecards(resources: Resources, warehouse: Session) -> None:
    """Stores the figures of the sellers for the pages; everything is loaded, whether or not the warehouse tells them."""
    now, began = resources.state.now(), time.monotonic()
    with resources.state.read() as connection:
        if not scorecards.is_due(connection, now=now):
            return
    try:
        rows = warehouse.scorecards(scorecards.FIGURES, now)
    except Exception as error:  # noqa: BLE001 - such as a lack of memory, which the next load may have
        log.warning(
            "The pages keep their figures of sellers: the warehouse raised a %s.", type(error).__name__
        )
        return
    with resources.state.begin() as connection:
        erased = resources.erased(connection)
        rows = [row for row in rows if not erased.has_seller(row["seller_id"])]
        scorecards.store(connection, rows, now=now, took_s=time.monotonic() - began)
