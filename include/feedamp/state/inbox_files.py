"""Stores which inbox files and queries were read, with their row counts.

Whether a file is new, changed or read already: `inbox/files.py`.
"""

from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.state.schema import inbox_files
from feedamp.state.statements import upsert

Version = tuple[str, int, str, str]  # name, size, checksum and stamp of a file as it was read


def taken_files(connection: Connection) -> list[Version]:
    """The last version that was read, of every inbox file."""
    rows = connection.execute(sa.select(inbox_files).where(inbox_files.c.checksum != ""))
    return [(row.name, row.size, row.checksum, row.stamp) for row in rows]


def is_taken(connection: Connection, version: Version, *, since: datetime) -> bool:
    """Whether this version of a file was read to its end after a moment (exclusive)."""
    name, size, checksum, _ = version
    same = inbox_files.c.name == name, inbox_files.c.size == size, inbox_files.c.checksum == checksum
    query = sa.select(inbox_files.c.name).where(*same, inbox_files.c.taken_at > since)
    return connection.execute(query).first() is not None


def is_any(connection: Connection) -> bool:
    """Whether any inbox file was ever read."""
    query = sa.select(inbox_files.c.name).where(inbox_files.c.checksum != "")
    return connection.execute(query.limit(1)).first() is not None


def take_file(
    connection: Connection,
    version: Version,
    *,
    rows_read: int,
    rows_rejected: int,
    now: datetime,
    fault: str | None = None,
) -> None:
    """Records that a file was read; `fault` says why it could not be read to its end. Safe to repeat."""
    row = dict(zip(("name", "size", "checksum", "stamp"), version, strict=True))
    counts = {"rows_read": rows_read, "rows_rejected": rows_rejected}
    upsert(connection, inbox_files, [{**row, **counts, "taken_at": now, "fault": fault}])


def take_query(
    connection: Connection, source: str, *, rows_read: int, rows_rejected: int, since: datetime, now: datetime
) -> None:
    """Records when a query was last read and how many of its rows were new.

    Counts of earlier tries since `since`, the start of the run, are added: for a retry, their rows are no longer new.
    """
    before = next((taken for taken in taken_since(connection, since) if taken.name == source), None)
    if before is not None:
        rows_read, rows_rejected = rows_read + before.rows, rows_rejected + before.rejected
    take_file(connection, (source, 0, "", ""), rows_read=rows_read, rows_rejected=rows_rejected, now=now)


class TakenRows(NamedTuple):
    """Row counts of a file or query when it was last read; `fault` says why a file could not be read to its end."""

    name: str
    rows: int
    rejected: int
    fault: str | None


def taken_since(connection: Connection, since: datetime) -> list[TakenRows]:
    """Row counts of each file and query read since a moment (inclusive), ordered by name."""
    query = sa.select(
        inbox_files.c.name, inbox_files.c.rows_read, inbox_files.c.rows_rejected, inbox_files.c.fault
    )
    found = connection.execute(query.where(inbox_files.c.taken_at >= since).order_by(inbox_files.c.name))
    return [TakenRows(*row) for row in found]


def rows_taken_since(connection: Connection, since: datetime) -> tuple[int, int]:
    """(rows read, rows rejected) of files and the query read since a moment (inclusive)."""
    taken = taken_since(connection, since)
    return sum(file.rows for file in taken), sum(file.rejected for file in taken)
