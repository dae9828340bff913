"""What `load` writes to the lake as a whole, orders that wait and sellers, and what it wrote last."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.codec import encode
from feedamp.rules.order import Phase
from feedamp.state.grants import REFRESH_TOKEN_LIFE
from feedamp.state.schema import full_snapshots, grants, orders, sellers, watermarks
from feedamp.state.statements import upsert
from feedamp.tables import SELLERS, WAITING_ORDERS, Row

ROWS_PER_PORTION = 5_000
_AFTER_STATUS = re.compile(r"(?<=^FeedAMP answered \d{3}):.*", re.DOTALL)


@dataclass(frozen=True)
class Written:
    """The full snapshot that was written last; `manifest` is None if its manifest is lost."""

    content_hash: str
    taken_at: datetime
    manifest: str | None


class ContentHash:
    """A hash of rows in any order; equal rows give an equal hash."""

    def __init__(self) -> None:
        self._sum = 0

    def add(self, rows: Iterable[Row]) -> None:
        self._sum += sum(int.from_bytes(hashlib.sha256(encode(row)).digest()) for row in rows)

    def __str__(self) -> str:
        return f"{self._sum % (1 << 256):064x}"


def rows_of(connection: Connection, table: str) -> Iterator[list[Row]]:
    """The rows of a table as of now, in portions and without `recorded_at`."""
    query, made = _SOURCES[table]
    for portion in connection.execute(query).partitions(ROWS_PER_PORTION):
        yield [made(row) for row in portion]


def _waiting(row: Any) -> Row:
    values = dict(row._mapping)
    # An order may be quoted in FeedAMP's own words, which follow the status.
    values["reason"] = row.reason and _AFTER_STATUS.sub("", row.reason)
    values["ledger_phase"] = values.pop("phase")
    return values


def _seller(row: Any) -> Row:
    values = dict(row._mapping)
    issued_at, is_paused = values.pop("issued_at"), values.pop("paused")
    return {
        **values,
        "status": "paused" if is_paused else row.grant_status or "no_grant",
        "grant_ends_at": issued_at and issued_at + REFRESH_TOKEN_LIFE,
    }


_IS_TO_PLACE = orders.c.phase == Phase.TO_PLACE
_SOURCES: dict[str, tuple[sa.Select[Any], Callable[[Any], Row]]] = {
    WAITING_ORDERS.name: (
        sa.select(
            *orders.primary_key,
            orders.c.phase,
            orders.c.reason,
            orders.c.taken_at.label("since"),
            sa.case((_IS_TO_PLACE, orders.c.next_try_at)).label("next_try_at"),
        ).where(orders.c.phase.in_((Phase.TO_PLACE, Phase.HELD))),
        _waiting,
    ),
    SELLERS.name: (
        sa.select(
            sellers.c.seller_id,
            sellers.c.name,
            sellers.c.sales_channel,
            sellers.c.paused,
            sellers.c.paused_at,
            grants.c.status.label("grant_status"),
            grants.c.issued_at,
            watermarks.c.watermark,
        ).select_from(
            sellers.outerjoin(grants, grants.c.seller_id == sellers.c.seller_id).outerjoin(
                watermarks, watermarks.c.seller_id == sellers.c.seller_id
            )
        ),
        _seller,
    ),
}


def last_written(connection: Connection, table: str) -> Written | None:
    """The full snapshot of a table that was written last; None if none ever was."""
    columns = (full_snapshots.c[name] for name in ("content_hash", "taken_at", "manifest"))
    found = connection.execute(sa.select(*columns).where(full_snapshots.c.table_name == table)).first()
    return None if found is None else Written(*found)


def record(connection: Connection, table: str, written: Written) -> None:
    """Records what was written, unless a later one was. Safe to repeat."""
    last = last_written(connection, table)
    if last is None or last.taken_at < written.taken_at:
        upsert(connection, full_snapshots, [{"table_name": table, **vars(written)}])


def moved(connection: Connection, paths: Iterable[str], path: str) -> None:
    """Records that the manifest at `path` has replaced those at `paths`. Safe to repeat."""
    was_there = full_snapshots.c.manifest.in_(list(paths))
    connection.execute(sa.update(full_snapshots).where(was_there).values(manifest=path))
