"""Stores which inbox files and queries were read, with their row counts.

Whether a file is new, changed or read already: `inbox/files.py`.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple, Protocol

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.state.schema import inbox_files
from feedamp.state.statements import upsert


class TakenFile(NamedTuple):
    """The last version of an inbox file that was read."""

    name: str
    size: int
    checksum: str
    stamp: str


class ReadFile(Protocol):
    """An inbox file as it was read."""

    @property
    def name(self) -> str:
        """The name within the inbox."""

    @property
    def size(self) -> int:
        """Size in bytes."""

    @property
    def checksum(self) -> str:
        """Checksum of the content."""

    @property
    def stamp(self) -> str:
        """The store's mark of the last change."""


def taken_files(connection: Connection) -> list[TakenFile]:
    """The last version that was read, of every inbox file."""
    rows = connection.execute(sa.select(inbox_files).where(inbox_files.c.checksum != ""))
    return [TakenFile(row.name, row.size, row.checksum, row.stamp) for row in rows]


def take_file(
    connection: Connection,
    file: ReadFile,
    *,
    rows_read: int,
    rows_rejected: int,
    now: datetime,
    fault: str | None = None,
) -> None:
    """Records that a file was read; `fault` says why it could not be read to its end. Safe to repeat."""
    upsert(
        connection,
        inbox_files,
        [
            {
                "name": file.name,
                "size": file.size,
                "checksum": file.checksum,
                "stamp": file.stamp,
                "taken_at": now,
                "rows_read": rows_read,
                "rows_rejected": rows_rejected,
                "fault": fault,
            }
        ],
    )


def take_query(
    connection: Connection, source: str, *, rows_read: int, rows_rejected: int, since: datetime, now: datetime
) -> None:
    """Records when a query was last read and how many of its rows were new.

    Counts of earlier tries since `since`, the start of the run, are added: for a retry, their rows are no longer new.
    """
    before = connection.execute(
        sa.select(inbox_files.c.rows_read, inbox_files.c.rows_rejected).where(
            inbox_files.c.name == source, inbox_files.c.taken_at >= since
        )
    ).first()
    if before is not None:
        rows_read, rows_rejected = rows_read + before.rows_read, rows_rejected + before.rows_rejected
    row = {"name": source, "size": 0, "checksum": "", "stamp": "", "taken_at": now}
    upsert(connection, inbox_files, [{**row, "rows_read": rows_read, "rows_rejected": rows_rejected}])


def rows_taken_since(connection: Connection, since: datetime) -> tuple[int, int]:
    """(rows read, rows rejected) of files and the query read since a moment (inclusive)."""
    query = sa.select(
        sa.func.coalesce(sa.func.sum(inbox_files.c.rows_read), 0),
        sa.func.coalesce(sa.func.sum(inbox_files.c.rows_rejected), 0),
    ).where(inbox_files.c.taken_at >= since)
    read, rejected = connection.execute(query).one()
    return int(read), int(rejected)


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
