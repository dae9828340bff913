"""Small manifests of past days -> a few large ones; replaced files are removed a day later, leftovers after three.

Readers and writers may work at the same time: the new manifest is written in one put and names those it replaces, so
a reader counts each row exactly once. A compaction that is killed before that put leaves only files without a
manifest, which do not count.

The merge gives the same result whatever the order of the manifests (warehouse/merge.py), so a rebuild gives the same rows
before and after, and any manifests can be put together.
"""

import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day

from feedamp.errors import BusyError, IncompleteError
from feedamp.lake.manifest import (
    Manifest,
    SellerProgress,
    joined,
    newest_moments,
    replaced,
    rows_by_table,
    without_outdated,
)
from feedamp.lake.privacy import Privacy
from feedamp.lake.schema_evolution import LakeFiles
from feedamp.lake.store import stem_of
from feedamp.lake.writer import LakeWriter
from feedamp.progress import Progress
from feedamp.resources import Resources
from feedamp.run import Run
from feedamp.state import full_snapshots, manifests
from feedamp.state.leases import Lease
from feedamp.steps.set_aside import set_aside_rows
from feedamp.tables import LAKE_TABLES

log = logging.getLogger(__name__)
LEASE = "lake-compact"
# Days within this time are not compacted, because a late load may still write into a past day.
SETTLED = timedelta(days=2)
# A reader that listed the lake before the compaction may still read the old files; no load or rebuild takes this long.
GRACE = timedelta(days=1)
# The files of a writer that is still at work have no manifest yet; no writer takes this long.
LEFT_BEHIND = timedelta(days=3)
# A load merges a manifest in one transaction, and the names of replaced manifests are read with each listing.
MOST_ROWS_OF_A_MANIFEST = 200_000
MOST_MANIFESTS = 1_000


def compact(
    resources: Resources, run: Run, *, before: date | None = None, grace: timedelta = GRACE
) -> dict[str, int]:
    """Compacts the loaded manifests of days before `before` (exclusive, UTC); returns counts.

    Removes files that were replaced longer than `grace` ago, and files without a manifest that were last written
    longer than `LEFT_BEHIND` ago. A rebuild of the warehouse yields the same rows before and after. Safe to repeat.

    Raises:
        BusyError: another compaction is running.
        IncompleteError: a file of the lake is missing or damaged; manifests compacted before it stay compacted.
    """
    before = before or (resources.state.now() - SETTLED).date()
    for wait_s in resources.state.leases.looks([LEASE]):
        time.sleep(wait_s)
    counts = {"written": 0, "replaced": 0, "removed": 0, "leftovers": 0}
    with resources.state.leases.hold(LEASE) as lease:
        if lease is None:
            raise BusyError(
                "Another compaction of the lake is running; try again when it is done.", retry_after_s=60
            )
        counts["leftovers"] = _remove_leftovers(resources)
        counts["removed"] = _remove_replaced(resources, grace)
        with resources.state.read() as connection:
            loaded = manifests.loaded(connection)
        slug = run.slug("compact", resources.state.now())
        held = {rejected.source for rejected, _, _ in set_aside_rows(resources)}
        counting = [manifest for manifest in resources.lake.manifests() if manifest.path not in held]
        intact = loaded.union(*(manifest.replaces for manifest in counting))
        moments = newest_moments(counting)
        current = [without_outdated(manifest, moments) for manifest in counting]
        shrunk = {now.path for was, now in zip(counting, current, strict=True) if was != now}
        to_combine = list(groups(current, loaded, before=before, shrunk=shrunk))
        progress = Progress("compact", "manifests", sum(map(len, to_combine)))
        for shard, group in enumerate(to_combine):
            # Needed if a watermark ever has to be moved back: it is set to what the remaining manifests say.
            sweeps = joined(sweep for one in group if intact.issuperset(one.follows) for sweep in one.sweeps)
            _replace(resources, lease, group, sweeps, slug, shard, run)
            counts["written"] += 1
            counts["replaced"] += len(group)
            progress.add(len(group))
    log.info("%s", ", ".join(f"{name} {value}" for name, value in counts.items()))
    return counts


def day_of(path: str) -> date:
    """The day in the name of a manifest's folder."""
    return date.fromisoformat(path.split("/")[1].removeprefix("date="))


def groups(
    manifests: Iterable[Manifest],
    loaded: AbstractSet[str],
    *,
    before: date,
    shrunk: AbstractSet[str] = frozenset(),
) -> Iterator[list[Manifest]]:
    """Groups of manifests to be compacted together: loaded, and of one day `before` the given one.

    A manifest is a group of its own only if it is `shrunk`: it has lost rows that no longer count.
    """
    group: list[Manifest] = []
    eligible = (
        manifest
        for manifest in manifests
        if day_of(manifest.path) < before and (manifest.replaces or manifest.path in loaded)
    )
    for manifest in sorted(eligible, key=lambda manifest: day_of(manifest.path)):
        if group and not _fits(group, manifest):
            if len(group) > 1 or group[0].path in shrunk:
                yield group
            group = []
        group.append(manifest)
    if len(group) > 1 or (group and group[0].path in shrunk):
        yield group


def _fits(group: Sequence[Manifest], manifest: Manifest) -> bool:
    together = (*group, manifest)
    return (
        day_of(group[0].path) == day_of(manifest.path)
        and sum(file.rows for one in together for file in one.files) <= MOST_ROWS_OF_A_MANIFEST
        and sum(1 + len(one.replaces) for one in together) <= MOST_MANIFESTS
    )


def _replace(
    resources: Resources,
    lease: Lease,
    group: Sequence[Manifest],
    sweeps: Sequence[SellerProgress],
    slug: str,
    shard: int,
    run: Run,
) -> None:
    # The rows were masked when they were first written.
    writer = LakeWriter(resources.lake, slug, shard, day=day_of(group[0].path), privacy=Privacy(None))
    left_out: Counter[str] = Counter()
    try:
        for manifest in group:
            _renew(lease)
            files = LakeFiles(resources.lake, manifest)
            for table in dict.fromkeys(file.table for file in manifest.files):
                writer.copy(table, files.batches(LAKE_TABLES[table]))
            left_out += files.left_out
        if writer.appended + left_out != rows_by_table(group):
            raise IncompleteError("other rows were taken over than theirs.")
        _renew(lease)
        manifest = writer.publish(
            created_at=group[-1].created_at,
            dag_id=run.dag_id,
            run_id=run.run_id,
            sweeps=sweeps,
            replaces=[path for manifest in group for path in (manifest.path, *manifest.replaces)],
            compacted_at=resources.state.now(),
            full_snapshots={table: at for one in group for table, at in one.full_snapshots.items()},
        )
        _announce(resources, manifest)
    except IncompleteError as error:
        raise IncompleteError(
            f"Manifests {group[0].path} to {group[-1].path} cannot be compacted: {error}"
        ) from error


def _announce(resources: Resources, manifest: Manifest) -> None:
    """Records a new manifest in the state as loaded, so that its loss would be noticed; its rows are loaded already.

    It counts as announced when its day began, so that giving it up moves watermarks back to before that day.
    """
    path = manifest.path
    with resources.state.begin() as connection:
        now = resources.state.now()
        full_snapshots.moved(connection, manifest.replaces, path)
        manifests.announce(connection, path, now=datetime.combine(day_of(path), time_of_day(), UTC))
        manifests.mark_taken(connection, path, now=now)
        manifests.mark_loaded(connection, path, now=now)


def _renew(lease: Lease) -> None:
    if not lease.renew():
        raise BusyError("Another compaction of the lake has taken over this work.", retry_after_s=60)


def _remove_replaced(resources: Resources, grace: timedelta) -> int:
    """Removes replaced manifests and their files.

    The files are removed before their manifest, so that a run after a crash can still see from the manifest what to remove.
    """
    lake, removed = resources.lake, 0
    published = lake.published()
    dead, by_path = replaced(published), {manifest.path: manifest for manifest in published}
    with resources.state.read() as connection:
        known = manifests.loaded(connection)
    for keeper in published:
        if keeper.replaces and keeper.path not in dead | known:
            # Its compaction was killed before it announced this manifest.
            _announce(resources, keeper)
        if (
            keeper.path in dead
            or keeper.compacted_at is None
            or keeper.compacted_at + grace > resources.state.now()
        ):
            continue
        to_remove = [by_path[path] for path in keeper.replaces if path in by_path]
        if to_remove:
            try:  # afterwards the compacted files are the only copy
                lake.verify(keeper)
            except IncompleteError as error:
                raise IncompleteError(
                    f"{error} The manifests that {keeper.path} replaces were not removed. Move {keeper.path} out of the "
                    "lake, and they count again."
                ) from error
        for manifest in to_remove:
            for path in (*(file.path for file in manifest.files), manifest.path):
                lake.remove(path)
            with resources.state.begin() as connection:
                manifests.drop(connection, manifest.path)
            removed += 1
    return removed


def _remove_leftovers(resources: Resources) -> int:
    """Removes files of writers that were killed before they published, or whose manifest was moved away.

    The files are listed before the manifests are read. So a manifest that is published in between is already
    announced or published when it is looked for, and its files are left alone.
    """
    lake = resources.lake
    old = [
        path
        for path, written_at in lake.table_files()
        if written_at is not None and written_at + LEFT_BEHIND < resources.state.now()
    ]
    if not old:
        return 0
    with resources.state.read() as connection:
        announced = {stem_of(path) for path, _ in manifests.pending(connection)}
    published = {file.path for manifest in lake.published() for file in manifest.files}
    left = [path for path in old if path not in published and stem_of(path) not in announced]
    for path in left:
        lake.remove(path)
    return len(left)
