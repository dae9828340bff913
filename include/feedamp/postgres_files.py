"""Takes deleted rows out of the files of a Postgres database, as far as SQL reaches.

`VACUUM` alone frees a deleted row and leaves its bytes in the page until another row is written over them.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from feedamp.errors import BusyError, FeedAmpError
from feedamp.progress import Progress

log = logging.getLogger(__name__)
TRANSACTIONS_WAIT_S = 60.0
# While a lock on a whole table is waited for, all who come later wait behind it.
_LOCK_WAIT_S, _PAUSE_S = 2, 0.2
_LOCKED = {"55P03", "40P01"}  # not free in time, or a deadlock
_SAMPLES = "pg_catalog.pg_statistic"  # values of rows, which `ANALYZE` takes
_FILE = "SELECT pg_relation_filenode('{relation}'::regclass)"
_NOW = "SELECT pg_current_xact_id()::text"
# Whoever keeps rows that were deleted before the transaction `xid`: by a snapshot from before it or, since each later snapshot
# goes back to the oldest transaction that writes on this server, by writing. Of sessions that this user may not look into, all
# count, by the transaction that is open now. A vacuum sees no rows, whatever it is at.
_HOLDERS = """SELECT 'session ' || sessions.pid, locks.virtualxid
    FROM pg_stat_activity sessions JOIN pg_locks locks ON locks.pid = sessions.pid
    WHERE sessions.datname = current_database() AND sessions.pid <> pg_backend_pid()
      AND locks.locktype = 'virtualxid' AND locks.granted
      AND (sessions.state IS NULL OR age(sessions.backend_xmin) >= age('{xid}'::xid8::xid))
      AND NOT EXISTS (SELECT 1 FROM pg_stat_progress_vacuum vacuums WHERE vacuums.pid = sessions.pid)
    UNION ALL SELECT 'replication slot ' || slot_name, ''
    FROM pg_replication_slots WHERE greatest(age(xmin), age(catalog_xmin)) >= age('{xid}'::xid8::xid)
    UNION ALL SELECT 'transaction ' || oldest || coalesce(' of session ' || pid, ''), ''
    FROM pg_snapshot_xmin(pg_current_snapshot()) oldest LEFT JOIN pg_stat_activity ON backend_xid = oldest::xid
    WHERE oldest < '{xid}'::xid8"""
Run = Callable[[str], Sequence[Sequence[Any]]]
"""Runs one statement outside of a transaction, on the same connection each time, and returns its rows."""


def rewrite_tables(relations: Sequence[str], run: Run) -> None:
    """Rewrites the tables, their indexes and the samples of their values without rows that were deleted before.

    A table is locked for everyone while it is written, which needs as much free disk as the table has. Safe to repeat.

    Raises:
        FeedAmpError: the user does not own a table. Where it does not own the database, the samples stay, with a warning.
        BusyError: for `TRANSACTIONS_WAIT_S`, a transaction from before the call could still see the rows, or a table was in use.
    """
    _wait_for_snapshots(run)
    progress = Progress("rewrite", "tables", len(relations) + 1)
    for relation in relations:
        if not _is_rewritten(relation, run):
            raise FeedAmpError(
                f"The rows are deleted, but their bytes are still in files of the database. {_refused(relation)}"
            )
        progress.add()
    if not _is_rewritten(_SAMPLES, run):  # it belongs to the owner of the database
        log.warning(
            "Freed space of one table may have values of rows until it is used again. %s", _refused(_SAMPLES)
        )


def _refused(relation: str) -> str:
    return f"The database's user may not rewrite {relation}: have its owner run VACUUM FULL {relation}"


def _wait_for_snapshots(run: Run) -> None:
    """Waits until no one has a snapshot from before now: a rewrite copies what some transaction can still see."""
    give_up_at = time.monotonic() + TRANSACTIONS_WAIT_S
    [[xid]] = run(_NOW)
    holders = {(name, transaction) for name, transaction in run(_HOLDERS.format(xid=xid))}
    while holders:
        if time.monotonic() >= give_up_at:
            names = ", ".join(sorted({name for name, _ in holders}))
            raise _in_use(f"transactions from before can still see them ({names}). End these")
        time.sleep(_PAUSE_S)
        holders &= {(name, transaction) for name, transaction in run(_HOLDERS.format(xid=xid))}


def _is_rewritten(relation: str, run: Run) -> bool:
    """Rewrites a table; False if the user may not, of which the server only warns."""
    before = run(_FILE.format(relation=relation))
    _rewrite(relation, run)
    return run(_FILE.format(relation=relation)) != before


def _rewrite(relation: str, run: Run) -> None:
    give_up_at = time.monotonic() + TRANSACTIONS_WAIT_S
    while True:
        run(f"SET lock_timeout = '{_LOCK_WAIT_S}s'")
        try:
            run(f"VACUUM (FULL) {relation}")
            return
        except Exception as error:
            if getattr(getattr(error, "orig", error), "sqlstate", None) not in _LOCKED:
                raise
            if time.monotonic() >= give_up_at:
                raise _in_use(f"{relation} was in use all the time. End what uses it") from error
        finally:
            run("RESET lock_timeout")
        time.sleep(_PAUSE_S)


def _in_use(why: str) -> BusyError:
    return BusyError(
        f"The rows are deleted, but their bytes are still in files of the database, because {why} and repeat the command.",
        retry_after_s=60,
    )
