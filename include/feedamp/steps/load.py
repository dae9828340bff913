"""Outbox -> manifests -> state (snapshots of open orders, watermarks) -> warehouse.

The state follows what is published and read back whole; the warehouse comes last, and nothing waits for it.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy.engine import Connection

from feedamp.errors import BusyError, IncompleteError, UnreadableError
from feedamp.lake.manifest import Manifest, SellerProgress
from feedamp.models import Snapshot
from feedamp.resources import Resources
from feedamp.run import Run
from feedamp.state import consents, leases, ledger, manifests, open_orders, outbox, watermarks
from feedamp.tables import RECORDED_AT, SNAPSHOTS, Row

log = logging.getLogger(__name__)
# A task that announced a manifest and died may be retried, but not after so long.
NEVER_PUBLISHED = timedelta(days=2)
ROWS_PER_MANIFEST = 100_000  # merged in one transaction, whose memory grows with them
WAREHOUSE_WAIT_S = 10.0  # what a busy warehouse may cost a load; the rest waits for the next one
OUTBOX = "-outbox-"  # in the name of a manifest whose rows stay in the state until they are in the warehouse
LEASE = "load"
LEASE_WAIT_S = 60.0
COUNTED = ("manifests", "rows", "snapshots", "watermarks", "waiting")
FEW = 3


@dataclass
class Loaded:
    """What a load did, and what it had to leave.

    `damaged` holds a sentence for each manifest; `busy` says who holds the warehouse, and is `overdue` once something
    has waited longer for it than `duckdb_lock_wait_s`.
    """

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTED, 0))
    damaged: dict[str, str] = field(default_factory=dict)
    busy: BusyError | None = None
    is_overdue: bool = False

    @property
    def problem(self) -> str | None:
        """What a person has to do, None if nothing was left that more time alone does not bring."""
        problems = []
        if self.damaged:
            shown = " ".join(list(self.damaged.values())[:FEW])
            more = f" {len(self.damaged) - FEW} more are in the log." if len(self.damaged) > FEW else ""
            problems.append(
                f"{len(self.damaged)} manifests are not in the warehouse, all others are. {shown}{more} Put the files "
                "back where they were, from a backup; if there is none, see the runbook, `A file of the lake is damaged`."
            )
        if self.busy is not None and self.is_overdue:
            problems.append(
                f"{self.counts['waiting']} manifests have waited too long for the warehouse. {self.busy}"
            )
        return " ".join(problems) or None


def load(resources: Resources, run: Run) -> dict[str, int]:
    """Brings everything that waits into state and warehouse, whichever run left it; returns counts.

    Each manifest is one transaction. Safe to repeat: a manifest counts once.

    Raises:
        BusyError: another process has held the warehouse for too long; nothing is lost.
        IncompleteError: files of some manifests are missing or damaged; all others are loaded.
    """
    loaded = load_what_is_whole(resources, run)
    if loaded.damaged:
        raise IncompleteError(loaded.problem or "")
    if loaded.busy is not None and loaded.is_overdue:
        raise loaded.busy
    return loaded.counts


def load_what_is_whole(resources: Resources, run: Run) -> Loaded:
    """As `load`, but says in the result what could not be loaded; it waits for the next load.

    Raises:
        BusyError: another process has been publishing for a minute; nothing is lost.
    """
    loaded = Loaded()
    with _alone(resources) as owner:
        _empty_outbox(resources, run, owner)
        _take_published(resources, owner, loaded)
    _fill_warehouse(resources, loaded)
    log.info("%s", ", ".join(f"{name} {value}" for name, value in loaded.counts.items()))
    return loaded


@contextmanager
def _alone(resources: Resources) -> Iterator[str]:
    """One process publishes the outbox at a time: to a second one the first one's rows look abandoned."""
    give_up_at = time.monotonic() + LEASE_WAIT_S
    while True:
        with resources.state.begin() as connection:
            owner = leases.take(connection, LEASE, now=resources.state.now())
        if owner is not None:
            break
        if time.monotonic() >= give_up_at:
            raise _another_load()
        time.sleep(0.1)
    try:
        yield owner
    finally:
        with resources.state.begin() as connection:
            leases.release(connection, LEASE, owner)


def _another_load() -> BusyError:
    return BusyError("Another load is publishing the outbox; it goes on from there.", retry_after_s=60)


def _empty_outbox(resources: Resources, run: Run, owner: str) -> None:
    """Turns the rows that the outbox holds now into manifests; they stay until those are in the warehouse."""
    with resources.state.read() as connection:
        claims = outbox.claims(connection)
    # By a load that was killed before it published. The lake is asked outside of any transaction (promise 8).
    abandoned = [path for path in claims if not _is_published(resources, path)]
    with resources.state.begin() as connection:
        for path in abandoned:
            outbox.unclaim(connection, path)
        waiting = outbox.unclaimed(connection)
    for number in range(-(-waiting // ROWS_PER_MANIFEST)):
        _hold_on(resources, owner)
        writer = resources.lake_writer(run, "outbox", number)
        path = writer.manifest_path
        with resources.state.begin() as connection:
            claimed = outbox.claim(connection, path, at_most=ROWS_PER_MANIFEST)
            if not claimed:
                return
            manifests.announce(connection, path, now=resources.state.now())
        with resources.state.read() as connection:
            for table, row in outbox.claimed_rows(connection, path):
                writer.append(table, [row])
        if writer.appended.total() != claimed:
            raise IncompleteError(
                f"{claimed} rows of the outbox were claimed, but {writer.appended.total()} were read; the next load "
                "tries again."
            )
        writer.publish(created_at=resources.state.now(), dag_id=run.dag_id, run_id=run.run_id)


def _is_published(resources: Resources, path: str) -> bool:
    try:
        return resources.lake.read_manifest(path) is not None
    except IncompleteError:  # damaged: its turn comes with the others
        return True


def _take_published(resources: Resources, owner: str, loaded: Loaded) -> None:
    """Brings into the state what published manifests say, each read back to its end first."""
    with resources.state.read() as connection:
        pending = manifests.untaken(connection)
    for path, planned_at in pending:
        _hold_on(resources, owner)
        try:
            manifest = resources.lake.read_manifest(path)
            if manifest is not None:
                _take(resources, manifest, loaded.counts)
            elif planned_at < resources.state.now() - NEVER_PUBLISHED:
                with resources.state.begin() as connection:
                    manifests.drop(connection, path)
        except IncompleteError as error:
            _leave(loaded, path, error)


def _hold_on(resources: Resources, owner: str) -> None:
    with resources.state.begin() as connection:
        if not leases.renew(connection, LEASE, owner, now=resources.state.now()):
            raise _another_load()


def _leave(loaded: Loaded, path: str, error: IncompleteError) -> None:
    """Names a manifest that is not whole: nothing of it counts, and what it held of FeedAMP is read again."""
    why = error.message
    if path not in why:
        why = f"Manifest {path} cannot be loaded: {why}"
    loaded.damaged[path] = why
    log.error("%s It waits for the next load; all others go on.", why)


def _take(resources: Resources, manifest: Manifest, counts: Counter[str] | dict[str, int]) -> None:
    resources.lake.verify(manifest)
    _compare_with_outbox(resources, manifest)
    for rows in resources.lake.batches(manifest, SNAPSHOTS.name):
        with resources.state.begin() as connection:
            for seller_id in dict.fromkeys(row["seller_id"] for row in rows):
                shown = [row for row in rows if row["seller_id"] == seller_id]
                counts["snapshots"] += _keep(connection, resources, seller_id, shown)
    now = resources.state.now()
    with resources.state.begin() as connection:
        if manifests.are_taken(connection, manifest.follows):
            behind = 0
            for sweep in manifest.sweeps:
                if sweep.watermark is None or not _is_of_account(connection, sweep):
                    continue
                mark = sweep.moved(watermarks.read(connection, sweep.seller_id))
                if mark is None or mark < sweep.watermark:
                    behind += 1
                else:
                    watermarks.move(connection, sweep.seller_id, mark, now=now)
                    counts["watermarks"] += 1
            if behind:
                log.warning(
                    "The watermarks of %d sellers do not move by manifest %s: they have been taken back since it was "
                    "read. The next extraction reads from where they are.",
                    behind,
                    manifest.path,
                )
        else:
            log.warning(
                "Watermarks of manifest %s do not move: a manifest before it of the same task is not whole. What both "
                "held is read again by the next extraction.",
                manifest.path,
            )
        manifests.mark_taken(connection, manifest.path, now=now)


def _is_of_account(connection: Connection, sweep: SellerProgress) -> bool:
    """Whether the account that was read is the seller's still; manifests of earlier versions do not name it."""
    read = sweep.account_checked_at
    return read is None or read == consents.account_checked_at(connection, sweep.seller_id)


def _compare_with_outbox(resources: Resources, manifest: Manifest) -> None:
    """Lets rows of the outbox go on with their manifest only if it holds just them; else they are written again."""
    held: Counter[str] = Counter()
    for file in manifest.files:
        held[file.table] += file.rows
    with resources.state.read() as connection:
        claimed = outbox.claimed_by_table(connection, manifest.path)
    if not claimed or claimed == held:
        return
    log.warning(
        "Manifest %s holds %d rows, but %d rows of the outbox were meant for it; they are written again.",
        manifest.path,
        held.total(),
        claimed.total(),
    )
    with resources.state.begin() as connection:
        outbox.unclaim(connection, manifest.path)


def _keep(connection: Connection, resources: Resources, seller_id: str, rows: Sequence[Row]) -> int:
    """Snapshots of open orders into the state; one that cannot be decoded is left to be read again."""
    shown: list[tuple[Snapshot, datetime]] = []
    for row in rows:
        number = row["mp_order_number"]
        try:
            shown.append((open_orders.decode_stored(seller_id, number, row["snapshot"]), row[RECORDED_AT]))
        except UnreadableError as error:
            log.warning("%s The next extraction reads the order again.", error)
            ledger.read_back_later(connection, seller_id, number, now=resources.state.now())
    kept = open_orders.keep_open(connection, seller_id, shown)
    read_at = {snapshot.mp_order_number: moment for snapshot, moment in shown}
    for number in ledger.to_read_back(connection, seller_id):
        if number in read_at:
            ledger.was_read(connection, seller_id, number, read_at=read_at[number])
    return kept


def _miss(resources: Resources, path: str, taken_at: datetime, loaded: Loaded) -> None:
    """A manifest that was moved away after the state had taken it in, so that its watermarks have moved.

    Rows of the outbox are written again under another name. All others are waited for as long as a backup may take.
    """
    is_outbox = OUTBOX in path
    if not is_outbox:
        why = "it lies in the lake no longer. If it cannot be put back, `feedamp lake verify --repair` takes the "
        why += "watermarks back, so that the next extraction reads what it held."
        _leave(loaded, path, IncompleteError(f"Manifest {path} never reached the warehouse: {why}"))
    if is_outbox:
        with resources.state.begin() as connection:
            manifests.drop(connection, path)
    elif taken_at < resources.state.now() - NEVER_PUBLISHED:
        give_up_manifest(resources, path)


def give_up_manifest(resources: Resources, path: str) -> int:
    """Forgets a manifest that is gone, and takes watermarks back that had moved past what it held.

    Which sellers it was about is gone with it, so this concerns all whose watermark has moved since: back to what the
    manifests before it say, or away where the lake no longer tells. Returns how many.
    A seller's later reads are done again, which changes nothing.
    """
    published = resources.lake.published()
    compacted = {replaced for manifest in published for replaced in manifest.replaces}
    with resources.state.begin() as connection:
        planned_at = manifests.planned_at(connection, path)
        marks: dict[str, datetime | None] = {}
        for manifest in published:
            follows = set(manifest.follows) - compacted
            if manifest.created_at < planned_at and manifests.are_taken(connection, follows):
                for sweep in manifest.sweeps:
                    if _is_of_account(connection, sweep):
                        marks[sweep.seller_id] = sweep.moved(marks.get(sweep.seller_id))
        moved = watermarks.moved_since(connection, planned_at)
        for seller_id in moved:
            watermarks.move_back(connection, seller_id, marks.get(seller_id), now=resources.state.now())
        manifests.drop(connection, path)
    log.warning("Manifest %s is given up: the watermarks of %d sellers are taken back.", path, len(moved))
    return len(moved)


def _fill_warehouse(resources: Resources, loaded: Loaded) -> None:
    """Merges what is taken; if another process holds the warehouse, that waits for the next load."""
    with resources.state.read() as connection:
        waiting = dict(manifests.unloaded(connection))
    if not waiting:
        return
    try:
        with resources.warehouse.session(
            wait_s=min(WAREHOUSE_WAIT_S, resources.warehouse.lock_wait_s)
        ) as warehouse:
            for path in list(waiting):
                try:
                    manifest = resources.lake.read_manifest(path)
                    if manifest is None:
                        _miss(resources, path, waiting[path], loaded)
                        continue
                    warehouse.load(resources.lake, manifest)
                except IncompleteError as error:
                    _leave(loaded, path, error)
                    continue
                with resources.state.begin() as connection:
                    outbox.remove(connection, path)
                    manifests.mark_loaded(connection, path, now=resources.state.now())
                loaded.counts["manifests"] += 1
                loaded.counts["rows"] += sum(file.rows for file in manifest.files)
                del waiting[path]
    except BusyError as error:
        age_s = (resources.state.now() - min(waiting.values())).total_seconds()
        loaded.busy, loaded.is_overdue = error, age_s > resources.warehouse.lock_wait_s
        loaded.counts["waiting"] = len(waiting)
        log.warning("%d manifests wait for the next load: %s", len(waiting), error)
