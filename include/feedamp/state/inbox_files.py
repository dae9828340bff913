"""Inbox files and queries that were taken, and what each of them counted."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple, Protocol

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.state.schema import inbox_files
from feedamp.state.upsert import upsert


class TakenFile(NamedTuple):
    """The version of an inbox file that was read last."""

    name: str
    size: int
    checksum: str
    stamp: str


class ReadFile(Protocol):
    """An inbox file as it was read."""

    @property
    def name(self) -> str:
        """Its name within the inbox."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def checksum(self) -> str:
        """Of its content."""

    @property
    def stamp(self) -> str:
        """When the store says it was last changed."""


def taken_files(connection: Connection) -> list[TakenFile]:
    """The version of every inbox file that was read last."""
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
    """Remembers a file as read; `fault` says why not to its end. Safe to repeat."""
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
    """Remembers when a query was last read and how many of its rows had news.

    What an earlier try found since the run began is added up: a retry meets its rows as old news.
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
    """(rows read, rows rejected) of what was taken since a moment, files and query."""
    query = sa.select(
        sa.func.coalesce(sa.func.sum(inbox_files.c.rows_read), 0),
        sa.func.coalesce(sa.func.sum(inbox_files.c.rows_rejected), 0),
    ).where(inbox_files.c.taken_at >= since)
    read, rejected = connection.execute(query).one()
    return int(read), int(rejected)


class TakenRows(NamedTuple):
    """What a file or a query counted when it was last taken; `fault` says why a file could not be read to its end."""

    name: str
    rows: int
    rejected: int
    fault: str | None


def taken_since(connection: Connection, since: datetime) -> list[TakenRows]:
    """Each file, and the query, taken since a moment, by name."""
    query = sa.select(
        inbox_files.c.name, inbox_files.c.rows_read, inbox_files.c.rows_rejected, inbox_files.c.fault
    )
    found = connection.execute(query.where(inbox_files.c.taken_at >= since).order_by(inbox_files.c.name))
    return [TakenRows(*row) for row in found]
