"""State -> lake: tables that a load writes as a whole, if they differ from what was written last."""

from collections.abc import Callable
from datetime import datetime, timedelta

from feedamp.lake.manifest import Manifest
from feedamp.resources import Resources
from feedamp.run import Run
from feedamp.state import full_snapshots, manifests
from feedamp.state.full_snapshots import ContentHash, Written
from feedamp.tables import RECORDED_AT, TABLES

_WRITTEN_AS_A_WHOLE = [table.name for table in TABLES.values() if table.full_snapshot]


def write_full_snapshots(
    resources: Resources, run: Run, renew: Callable[[], None], take: Callable[[Manifest], None]
) -> None:
    """Publishes one manifest with the tables that have changed, and gives it to `take`. Safe to repeat.

    If it is killed before it has recorded what it wrote, the next one writes the same once more. `renew` raises if
    another process has taken over.
    """
    changed = _changed(resources)
    if not changed:
        return
    renew()
    writer = resources.lake_writer(run, "whole", 0)
    with resources.state.begin() as connection:
        manifests.announce(connection, writer.manifest_path, now=resources.state.now())
    hashes: dict[str, ContentHash] = {}
    for table, taken_at in changed.items():
        hashes[table] = ContentHash()
        with resources.state.read() as connection:
            for rows in full_snapshots.rows_of(connection, table):
                hashes[table].add(rows)
                writer.append(table, [{**row, RECORDED_AT: taken_at} for row in rows])
    renew()
    manifest = writer.publish(
        created_at=resources.state.now(), dag_id=run.dag_id, run_id=run.run_id, full_snapshots=changed
    )
    take(manifest)
    with resources.state.begin() as connection:
        for table, taken_at in changed.items():
            written = Written(str(hashes[table]), taken_at, manifest.path)
            full_snapshots.record(connection, table, written)


def _changed(resources: Resources) -> dict[str, datetime]:
    """The tables that differ from what was written last, each with the moment of its new snapshot."""
    moments: dict[str, datetime] = {}
    for table in _WRITTEN_AS_A_WHOLE:
        now, found = resources.state.now(), ContentHash()
        with resources.state.read() as connection:
            last = full_snapshots.last_written(connection, table)
            for rows in full_snapshots.rows_of(connection, table):
                found.add(rows)
        if last is None and str(found) == str(ContentHash()):
            continue
        if last is None or last.manifest is None or last.content_hash != str(found):
            # Of two snapshots the later one counts, also if the clock was set back in between.
            moments[table] = now if last is None else max(now, last.taken_at + timedelta(microseconds=1))
    return moments
