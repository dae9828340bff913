"""State -> warehouse: merges the manifests that the state has taken in; no other step waits for it."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from feedamp.errors import BusyError
from feedamp.lake.manifest import Manifest, rows_by_table
from feedamp.progress import Progress
from feedamp.resources import Resources
from feedamp.rules.failure_summary import counted
from feedamp.state import manifests, outbox, scorecards
from feedamp.steps.loaded import OF_ONE_MANIFEST, Loaded, record_damaged
from feedamp.steps.lost_manifests import handle_missing
from feedamp.steps.set_aside import end_outdated, record_refused
from feedamp.tables import RUNS
from feedamp.warehouse.refused_rows import RefusedRow
from feedamp.warehouse.session import Session, groups_of_small

log = logging.getLogger(__name__)
# How long a load waits for a busy warehouse before it leaves the merge to the next load.
WAREHOUSE_WAIT_S = 10.0


def fill_warehouse(resources: Resources, loaded: Loaded) -> None:
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
        log.warning("%s for the next load: %s", counted(len(waiting), "manifest", "wait"), error)


def _present(resources: Resources, waiting: Mapping[str, datetime], loaded: Loaded) -> Iterator[Manifest]:
    """The manifests at these paths, each with the moment when the state took it in, that are in the lake and whole."""
    for path, taken_at in waiting.items():
        try:
            manifest = resources.lake.read_manifest(path)
        except OF_ONE_MANIFEST as error:
            record_damaged(loaded, path, error)
            continue
        if manifest is None:
            handle_missing(resources, path, taken_at, loaded)
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
            record_damaged(loaded, manifest.path, error)
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
