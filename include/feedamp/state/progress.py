"""How far work has come: inbox files taken, watermarks of sellers, manifests on their way to the warehouse."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.inbox import InboxFile, Taken
from feedamp.state.schema import inbox_files, manifests, watermarks
from feedamp.state.upsert import upsert


def taken_files(connection: Connection) -> list[Taken]:
    """The version of every inbox file that was read last."""
    rows = connection.execute(sa.select(inbox_files).where(inbox_files.c.checksum != ""))
    return [Taken(row.name, row.size, row.checksum, row.stamp) for row in rows]


def take_file(
    connection: Connection,
    file: InboxFile,
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


def has_loaded(connection: Connection) -> bool:
    """Whether any manifest has ever been loaded, as far as it is still remembered."""
    query = sa.select(manifests.c.path).where(manifests.c.loaded_at.is_not(None)).limit(1)
    return connection.execute(query).first() is not None


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


def watermark(connection: Connection, seller_id: str) -> datetime | None:
    """Where the seller's next extraction starts, None before the first complete one."""
    query = sa.select(watermarks.c.watermark).where(watermarks.c.seller_id == seller_id)
    return connection.execute(query).scalar_one_or_none()


def move_watermark(connection: Connection, seller_id: str, moment: datetime, *, now: datetime) -> None:
    """Moves a watermark forward; an earlier one changes nothing."""
    known = watermark(connection, seller_id)
    if known is None or known < moment:
        upsert(connection, watermarks, [{"seller_id": seller_id, "watermark": moment, "moved_at": now}])


def moved_since(connection: Connection, moment: datetime) -> list[str]:
    """Sellers whose watermark has moved at a moment or later."""
    query = sa.select(watermarks.c.seller_id).where(watermarks.c.moved_at >= moment)
    return list(connection.execute(query.order_by(watermarks.c.seller_id)).scalars())


def take_watermark_back(
    connection: Connection, seller_id: str, moment: datetime | None, *, now: datetime
) -> None:
    """Moves a watermark back, or removes it, so that the next extraction reads all; a later one changes nothing."""
    is_it = watermarks.c.seller_id == seller_id
    if moment is None:
        connection.execute(sa.delete(watermarks).where(is_it))
        return
    later = sa.update(watermarks).where(is_it, watermarks.c.watermark > moment)
    connection.execute(later.values(watermark=moment, moved_at=now))


def plan_manifest(connection: Connection, path: str, *, now: datetime) -> None:
    """Announces a manifest before it is published, so that no crash hides it from `load`."""
    row = {"path": path, "planned_at": now, "taken_at": None, "loaded_at": None}
    upsert(connection, manifests, [row])


def pending_manifests(connection: Connection) -> Sequence[tuple[str, datetime]]:
    """(path, when announced) of manifests that are not in the warehouse yet, oldest first."""
    return _manifests(connection, manifests.c.loaded_at.is_(None))


def untaken_manifests(connection: Connection) -> Sequence[tuple[str, datetime]]:
    """(path, when announced) of manifests whose snapshots and watermarks are not in the state yet, oldest first."""
    return _manifests(connection, manifests.c.taken_at.is_(None))


def unloaded_manifests(connection: Connection) -> Sequence[tuple[str, datetime]]:
    """(path, since when) of manifests that wait for the warehouse, in the state already, in the order of their writing."""
    query = (
        sa.select(manifests.c.path, manifests.c.taken_at)
        .where(manifests.c.taken_at.is_not(None), manifests.c.loaded_at.is_(None))
        .order_by(manifests.c.planned_at, manifests.c.path)
    )
    return [(row.path, row.taken_at) for row in connection.execute(query)]


def _manifests(connection: Connection, *conditions: sa.ColumnElement[bool]) -> Sequence[tuple[str, datetime]]:
    query = (
        sa.select(manifests.c.path, manifests.c.planned_at)
        .where(*conditions)
        .order_by(manifests.c.planned_at, manifests.c.path)
    )
    return [(row.path, row.planned_at) for row in connection.execute(query)]


def are_taken(connection: Connection, paths: Collection[str]) -> bool:
    """Whether all of these manifests were read back whole and taken into the state."""
    query = sa.select(sa.func.count()).where(manifests.c.path.in_(paths), manifests.c.taken_at.is_not(None))
    return connection.execute(query).scalar_one() == len(set(paths))


def manifest_taken(connection: Connection, path: str, *, now: datetime) -> None:
    """The manifest was read back whole, and its snapshots and watermarks are in the state."""
    connection.execute(sa.update(manifests).where(manifests.c.path == path).values(taken_at=now))


def is_loading(connection: Connection) -> bool:
    """Whether a manifest has been taken into the state whose rows are not in the warehouse yet."""
    query = sa.select(manifests.c.path).where(
        manifests.c.taken_at.is_not(None), manifests.c.loaded_at.is_(None)
    )
    return connection.execute(query.limit(1)).first() is not None


def loaded_manifests(connection: Connection) -> set[str]:
    """Paths of manifests that are in the warehouse."""
    query = sa.select(manifests.c.path).where(manifests.c.loaded_at.is_not(None))
    return set(connection.execute(query).scalars())


def manifest_loaded(connection: Connection, path: str, *, now: datetime) -> None:
    """The manifest is in the warehouse."""
    connection.execute(sa.update(manifests).where(manifests.c.path == path).values(loaded_at=now))


def drop_manifest(connection: Connection, path: str) -> None:
    """Forgets a manifest that was announced but never published, or that lies in the lake no longer."""
    connection.execute(sa.delete(manifests).where(manifests.c.path == path))
