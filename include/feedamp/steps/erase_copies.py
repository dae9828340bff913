"""Takes an order or a seller out of lake and warehouse, once its mark is in the state (`state/erasures.py`).

What is written or loaded after the mark leaves the rows out by itself. What a writer began before it is waited for.

    manifest -> new files beside the old -> same manifest, other files (one put) -> old files removed

In a local lake each is on the disk before the next. A kill or a power cut leaves the manifest with its old files or with its new ones, never both or none; files that no manifest names do not
count, and a repeat removes them. A manifest keeps its name, so state and warehouse know it as before.
"""

from __future__ import annotations

import logging
import re
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from feedamp.errors import BusyError, IncompleteError
from feedamp.lake.manifest import LakeFile, Manifest, rows_by_table
from feedamp.lake.privacy import Privacy
from feedamp.lake.rewriting import Leaving, holds, rewritten
from feedamp.lake.store import stem_of
from feedamp.progress import Progress
from feedamp.resources import Resources
from feedamp.rules.failure_summary import counted
from feedamp.state import erasures, manifests
from feedamp.state.leases import Lease
from feedamp.steps.compact import LEASE, LEFT_BEHIND, day_of
from feedamp.steps.lost_manifests import refuse_lost_lake

if TYPE_CHECKING:
    from feedamp.lake.writer import LakeWriter

log = logging.getLogger(__name__)
# How long to wait for writers that were at work when the mark was written.
WRITERS_WAIT_S, LOOK_S = 30.0, 0.5
# A mark is committed within this time after the moment that is recorded with it.
LONGEST_COMMIT = timedelta(minutes=5)
# A writer publishes within this time after it announced its manifest. One that did not was killed, or was stopped and
# asks what was erased before it publishes.
LONGEST_PUBLISH = timedelta(hours=1)
_MADE_AT = re.compile(r"-(\d{8}T\d{12})-\d+-\d+(?:-\d+\.parquet|\.json)$")
COUNTED = ("rows", "files", "manifests", "leftovers")


def erase_from_lake(
    resources: Resources,
    seller_id: str,
    mp_order_number: str | None = None,
    *,
    wait_s: float = WRITERS_WAIT_S,
) -> dict[str, int]:
    """Rewrites every file of the lake that holds rows of the order or seller; returns counts.

    The mark must be in the state. Manifests that a compaction has replaced, and files of killed writers, are no exception.
    Readers at the same time find the old file or the new one. Safe to kill and to repeat.

    Raises:
        BusyError: the lake is being compacted, or files of writers from before the mark are still not published; what is
            published is done. Repeat it.
        IncompleteError: a file or a manifest is missing or damaged, so it cannot be searched; all others are done.
        ConfigurationError: as `refuse_lost_lake`.
    """
    refuse_lost_lake(resources)
    leaving = Leaving(seller_id, mp_order_number)
    counts: Counter[str] = Counter(dict.fromkeys(COUNTED, 0))
    for pause_s in resources.state.leases.looks([LEASE]):
        time.sleep(pause_s)
    with resources.state.leases.hold(LEASE) as lease:
        if lease is None:
            raise BusyError(
                "The lake is being compacted, or erased from; try again when it is done.", retry_after_s=60
            )
        give_up_at = time.monotonic() + wait_s
        while True:
            faults = _erase_from_manifests(resources, lease, leaving, counts)
            waited_for = _remove_leftovers(resources, lease, leaving, counts)
            if not waited_for or time.monotonic() >= give_up_at:
                break
            time.sleep(LOOK_S)
    for path, written_at in list(resources.lake.drafts()):
        if written_at is not None and written_at + LONGEST_COMMIT < resources.state.now():
            resources.lake.remove(path)  # it names sellers
            counts["leftovers"] += 1
    log.info("lake: %s", ", ".join(f"{name} {value}" for name, value in counts.items()))
    if faults:
        raise IncompleteError(
            f"{counted(len(faults), 'manifest')} could not be searched, all others are done. First: {faults[0]} Restore the file from "
            "a backup and repeat the command."
        )
    if waited_for:
        raise BusyError(
            f"{counted(len(waited_for), 'file')} of the lake, begun before the erasure, {'is' if len(waited_for) == 1 else 'are'} not published yet, such as "
            f"{waited_for[0]}. Everything else is done. Repeat the command when no run is at work; what a killed run left is "
            f"removed after {LEFT_BEHIND.days} days.",
            retry_after_s=60,
        )
    return dict(counts)


def erase_from_warehouse(
    resources: Resources, seller_id: str, mp_order_number: str | None = None
) -> dict[str, int]:
    """Takes the order or seller out of the warehouse, its bytes too as far as the engine can; returns rows by table.

    Temporary copies that killed processes left on this machine are removed too. Safe to kill and to repeat.

    Raises:
        BusyError: another process holds the warehouse.
        IncompleteError: its file is not there although manifests were loaded into it.
    """
    # Imported here, because a Postgres warehouse needs DuckDB only for verifications.
    from feedamp.warehouse.duckdb import remove_abandoned_copies

    removed = remove_abandoned_copies()
    counts = {"temporary_copies": removed} if removed else {}
    with resources.state.read() as connection:
        has_loaded = manifests.has_loaded(connection)
    if resources.warehouse.is_there:
        counts |= resources.warehouse.erase(seller_id, mp_order_number)
    elif has_loaded:
        raise IncompleteError(
            f"There is no {resources.warehouse.shown}, although manifests were loaded into it, so it was not searched. Mount "
            "its disk, or if it is gone run `feedamp warehouse rebuild`, and repeat the command."
        )
    return counts


def _erase_from_manifests(
    resources: Resources, lease: Lease, leaving: Leaving, counts: Counter[str]
) -> list[str]:
    """Erases from each published manifest, replaced ones too; returns what could not be searched."""
    damaged: dict[str, str] = {}
    published = resources.lake.published(damaged)
    faults = list(damaged.values())
    progress = Progress("erase from the lake", "manifests", len(published))
    for manifest in published:
        lease.require(_taken_over())
        try:
            _erase_from_manifest(resources, manifest, leaving, counts)
        except IncompleteError as error:
            faults.append(f"{manifest.path}: {error}")
        progress.add()
    return faults


def _erase_from_manifest(
    resources: Resources, manifest: Manifest, leaving: Leaving, counts: Counter[str]
) -> None:
    lake = resources.lake
    files = rewritten(lake, manifest.files, leaving.erased, partial(_beside, resources), leaving)
    sweeps = [sweep for sweep in manifest.sweeps if not leaving.erased.has_seller(sweep.seller_id)]
    cleaned = msgspec.structs.replace(manifest, files=tuple(files), sweeps=tuple(sweeps))
    if cleaned == manifest:
        return
    lake.publish(cleaned, outlives_power_cut=True)
    if lake.read_manifest(manifest.path) != cleaned:
        raise IncompleteError("the store returns other content than was written; the store is at fault.")
    old = {file.path for file in manifest.files} - {file.path for file in files}
    for path in old:
        lake.remove(path)
    counts["manifests"] += 1
    counts["files"] += len(old)
    counts["rows"] += (rows_by_table([manifest]) - rows_by_table([cleaned])).total()


def _beside(resources: Resources, file: LakeFile, part: int) -> LakeWriter:
    from feedamp.lake.writer import LakeWriter

    slug, _, shard = stem_of(file.path).partition("/")[2].rpartition("-")
    # The rows were masked when they were first written.
    return LakeWriter(resources.lake, slug, int(shard), day_of(file.path), Privacy(None), part=part)


def _remove_leftovers(
    resources: Resources, lease: Lease, leaving: Leaving, counts: Counter[str]
) -> list[str]:
    """Removes files that no manifest names and that hold rows of it; returns those that may still be published.

    Also manifests that are announced and not published: in a bucket, their files appear at the end only. The files are read
    before it is asked what is announced and published: one that is whole by then and is neither is left by a killed writer,
    because a writer announces its manifest before it completes its files.
    """
    lake = resources.lake
    damaged: dict[str, str] = {}  # which files such a manifest names is told by its name alone
    named = {file.path for manifest in lake.published(damaged) for file in manifest.files}
    whole: list[str] = []
    open_: list[str] = []
    for path, written_at in list(lake.table_files()):
        if path in named:
            continue
        lease.require(_taken_over())
        try:
            if holds(lake, LakeFile(path.partition("/")[0], path, 0), erased=leaving.erased):
                whole.append(path)
        except IncompleteError:  # without its end, as long as it is being written; or removed meanwhile
            is_old = written_at is not None and written_at + LEFT_BEHIND < resources.state.now()
            (whole if is_old else open_).append(path)
    with resources.state.read() as connection:
        announced = {stem_of(path) for path, _ in manifests.pending(connection)}
        publishing = [
            path
            for path, planned_at in manifests.untaken(connection)
            if planned_at > resources.state.now() - LONGEST_PUBLISH
        ]
        erasure = erasures.find(
            connection, erasures.mark(resources.cipher, leaving.seller_id, leaving.mp_order_number)
        )
    published = lake.published(damaged)
    stems = {stem_of(manifest.path) for manifest in published}
    unsearched = {stem_of(path) for path in damaged}
    named = {file.path for manifest in published for file in manifest.files}
    begun_before = resources.state.now()
    if erasure is not None:
        begun_before = min(begun_before, erasure.asked_at + LONGEST_COMMIT)
    waited_for = [
        path for path in open_ if _begun_at(path) <= begun_before and lake.fs.exists(lake.absolute(path))
    ]
    waited_for += [
        path
        for path in publishing
        if _begun_at(path) <= begun_before and stem_of(path) not in stems | unsearched
    ]
    for path in whole:
        if stem_of(path) in unsearched:
            continue
        if path in named or (stem_of(path) in announced and stem_of(path) not in stems):
            waited_for.append(path)
            continue
        lake.remove(path)
        counts["leftovers"] += 1
    return waited_for


def _begun_at(path: str) -> datetime:
    """When the writer of a file was made, by its name; a file of another name may have been begun at any time."""
    found = _MADE_AT.search(path)
    if found is None:
        return datetime.min.replace(tzinfo=UTC)
    return datetime.strptime(found[1], "%Y%m%dT%H%M%S%f").replace(tzinfo=UTC)


def _taken_over() -> BusyError:
    return BusyError("Another process has taken over the lake; repeat the command.", retry_after_s=60)
