"""Takes deleted rows out of the files of a Postgres database, as far as SQL reaches.

`VACUUM` alone frees a deleted row and leaves its bytes in the page until another row is written over them.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

from feedamp.errors import BusyError, FeedAmpError
from feedamp.progress import Progress

TRANSACTIONS_WAIT_S = 60.0
# While a lock on a whole table is waited for, all who come later wait behind it.
_LOCK_WAIT_S, _PAUSE_S = 2, 0.2
_LEFT = "The rows are deleted, but their bytes are still in files of the database"
_LOCKED = {"55P03", "40P01"}  # not free in time, or a deadlock
_SAMPLES = "pg_catalog.pg_statistic"  # values of rows, which `ANALYZE` takes
_MAY_REWRITE_SAMPLES = """SELECT current_database(), pg_has_role(datdba, 'USAGE') OR CASE
    WHEN current_setting('server_version_num')::int >= 170000 THEN has_table_privilege('pg_catalog.pg_statistic', 'MAINTAIN') ELSE false END
    FROM pg_database WHERE datname = current_database()"""
_FILE = "SELECT pg_relation_filenode('{relation}'::regclass)"
_NOW = "SELECT pg_current_xact_id()::text"
# A rewrite notes in the table from which transaction on it kept deleted rows, for whomever it did.
_IS_WITHOUT = (
    "SELECT age(relfrozenxid) <= age('{xid}'::xid8::xid) FROM pg_class WHERE oid = '{relation}'::regclass"
)
# Whoever keeps rows that were deleted before the transaction `xid`: by a snapshot from before it or, since each later snapshot
# goes back to the oldest transaction that writes on this server, by writing. Of sessions that this user may not look into, all
# count, by the transaction that is open now. A vacuum sees no rows, whatever it is at. A standby without a slot keeps rows of
# every database.
_HOLDERS = """SELECT 'session ' || sessions.pid, locks.virtualxid
    FROM pg_stat_activity sessions JOIN pg_locks locks ON locks.pid = sessions.pid
    WHERE sessions.datname = current_database() AND sessions.pid <> pg_backend_pid()
      AND locks.locktype = 'virtualxid' AND locks.granted
      AND (sessions.state IS NULL OR age(sessions.backend_xmin) >= age('{xid}'::xid8::xid))
      AND NOT EXISTS (SELECT 1 FROM pg_stat_progress_vacuum vacuums WHERE vacuums.pid = sessions.pid)
    UNION ALL SELECT 'replication slot ' || slot_name, ''
    FROM pg_replication_slots WHERE greatest(age(xmin), age(catalog_xmin)) >= age('{xid}'::xid8::xid)
    UNION ALL SELECT 'standby ' || coalesce(nullif(application_name, ''), pid::text), ''
    FROM pg_stat_replication WHERE age(backend_xmin) >= age('{xid}'::xid8::xid)
    UNION ALL SELECT 'transaction ' || oldest || coalesce(' of session ' || pid, ''), ''
    FROM pg_snapshot_xmin(pg_current_snapshot()) oldest LEFT JOIN pg_stat_activity ON backend_xid = oldest::xid
    WHERE oldest < '{xid}'::xid8"""
Run = Callable[[str], Sequence[Sequence[Any]]]
"""Runs one statement outside of a transaction, on the same connection each time, and returns its rows."""


def rewrite_tables(relations: Sequence[str], run: Run) -> None:
    """Rewrites the tables, their indexes and the samples of their values without rows that were deleted before.

    A table is locked for everyone while it is written, which needs as much free disk as the table has. Safe to repeat.

    Raises:
        FeedAmpError: the user may not rewrite some tables; all others are. Where it does not own the database, the samples
            stay, which `left_behind` says.
        BusyError: for `TRANSACTIONS_WAIT_S`, a transaction from before the call could still see the rows, or a table was in use.
    """
    [[xid]] = run(_NOW)
    _wait_for_snapshots(xid, run)
    progress, refused = Progress("rewrite", "tables", len(relations) + 1), []
    for relation in (*relations, _SAMPLES):
        if not _is_rewritten(relation, xid, run) and relation != _SAMPLES:  # of the database's owner
            refused.append(relation)
        progress.add()
    if refused:
        raise FeedAmpError(
            f"{_LEFT}. The database's user may not rewrite {', '.join(refused)}: make it a member of the role that owns them, or from "
            "Postgres 17 on grant it MAINTAIN on them, then repeat the command."
        )


def left_behind(run: Run) -> str:
    """What `rewrite_tables` does not reach as this user, and the statement that ends it; empty if there is nothing."""
    [[database, may_rewrite]] = run(_MAY_REWRITE_SAMPLES)
    if may_rewrite:
        return ""
    return (
        f"freed space of {_SAMPLES} may have values of erased rows until it is used again, and the user of database {database} may "
        f"not rewrite it: have the owner of the database run `VACUUM FULL {_SAMPLES}` there after each erasure"
    )


def _wait_for_snapshots(xid: str, run: Run) -> None:
    """Waits until no one has a snapshot from before `xid`: a rewrite copies what some transaction can still see."""
    give_up_at = time.monotonic() + TRANSACTIONS_WAIT_S
    holders = _holders(xid, run)
    while holders:
        if time.monotonic() >= give_up_at:
            raise _seen_by(holders)
        time.sleep(_PAUSE_S)
        holders &= _holders(xid, run)


def _holders(xid: str, run: Run) -> set[tuple[str, str]]:
    return {(name, transaction) for name, transaction in run(_HOLDERS.format(xid=xid))}


def _is_rewritten(relation: str, xid: str, run: Run) -> bool:
    """Rewrites a table; False if the user may not, of which the server only warns. Raises if rows from before `xid` were copied."""
    before = run(_FILE.format(relation=relation))
    _rewrite(relation, run)
    if run(_FILE.format(relation=relation)) == before:
        return False
    if not run(_IS_WITHOUT.format(relation=relation, xid=xid))[0][0]:  # as when a standby came back meanwhile
        raise _seen_by(_holders(xid, run))
    return True


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


def _seen_by(holders: set[tuple[str, str]]) -> BusyError:
    names = ", ".join(sorted({name for name, _ in holders})) or "which have ended meanwhile"
    return _in_use(f"transactions from before can still see them ({names}). End these")


def _in_use(why: str) -> BusyError:
    return BusyError(f"{_LEFT}, because {why} and repeat the command.", retry_after_s=60)
