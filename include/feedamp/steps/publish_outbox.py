"""Outbox -> manifests: one process at a time publishes the rows that wait in the state."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from feedamp.errors import BusyError, IncompleteError
from feedamp.progress import Progress
from feedamp.resources import Resources
from feedamp.rules.failure_summary import counted
from feedamp.run import Run
from feedamp.state import manifests, outbox
from feedamp.state.statements import in_parts
from feedamp.tables import Rows

ROWS_PER_MANIFEST = 100_000  # merged in one transaction, whose memory grows with the rows
LEASE = "load"
LEASE_WAIT_S, LEASE_LOOK_S = 60.0, 0.25


@contextmanager
def publishing_lease(resources: Resources) -> Iterator[Callable[[], None]]:
    """Holds the lease for publishing the outbox, and gives what renews it: that raises a BusyError if it was lost.

    Only one process may publish at a time: a second one would mistake rows claimed by the first one for abandoned rows.
    """
    give_up_at = time.monotonic() + LEASE_WAIT_S
    while True:
        with resources.state.leases.hold(LEASE) as lease:
            if lease is not None:

                def renew() -> None:
                    if not lease.renew():
                        raise _another_load()

                yield renew
                return
        if time.monotonic() >= give_up_at:
            raise _another_load()
        time.sleep(LEASE_LOOK_S)


def _another_load() -> BusyError:
    return BusyError("Another load is publishing the outbox and loads what waits.", retry_after_s=60)


def empty_outbox(resources: Resources, run: Run, renew: Callable[[], None]) -> None:
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
        renew()
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
                f"{counted(claimed, 'row')} of the outbox {'was' if claimed == 1 else 'were'} claimed, but {read} {'was' if read == 1 else 'were'} read; the next load tries again."
            )
        renew()
        writer.publish(created_at=resources.state.now(), dag_id=run.dag_id, run_id=run.run_id)
        progress.add(claimed)


def _is_published(resources: Resources, path: str) -> bool:
    try:
        return resources.lake.read_manifest(path) is not None
    except IncompleteError:  # damaged: reported when all manifests are read
        return True
