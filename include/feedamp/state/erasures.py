"""The record of what was erased: keyed marks, when each store was finished, and counts; no id and no number.

A mark is written before the first row goes, and stays. Whoever stores something of an order asks in the transaction that
stores it: either the mark is seen, or the erasure comes later and finds the row.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from functools import partial
from itertools import islice
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.codec import decode_json, encode
from feedamp.rules.erased import Erased, Key, mark_of, marks_of
from feedamp.state import data_key
from feedamp.state.schema import erasures, sellers
from feedamp.state.statements import count_rows, in_parts, insert
from feedamp.state.token_cipher import TokenCipher

_PURPOSE = "erasure"
MOST_KEYS_ASKED = 5_000  # reading every mark costs less than asking for so many
_WAS_LEFT = erasures.c.done_at.is_(None)
_IS_OPEN = _WAS_LEFT, erasures.c.renewed_at.is_(None)


class Store(StrEnum):
    """Where an order has left data; each is erased by itself."""

    STATE = "state"
    LAKE = "lake"
    WAREHOUSE = "warehouse"


@dataclass(frozen=True)
class Erasure:
    """One erasure; a store without a moment is unfinished. `kind`: seller or order; `counts`: store -> what went.

    `seller_mark`: of an order, the mark of its seller; None also where an earlier version began it.
    """

    mark: str
    kind: str
    asked_by: str | None
    asked_at: datetime
    state_done_at: datetime | None
    lake_done_at: datetime | None
    warehouse_done_at: datetime | None
    done_at: datetime | None
    counts: dict[str, Any]
    seller_mark: str | None


def mark(cipher: TokenCipher, seller_id: str, mp_order_number: str | None = None) -> str:
    """The mark of a seller, or with a number of one order."""
    return mark_of(partial(cipher.fingerprint, _PURPOSE), seller_id, mp_order_number)


def is_any(connection: Connection) -> bool:
    """Whether anything was ever erased."""
    return connection.execute(sa.select(erasures.c.mark).limit(1)).first() is not None


def last(connection: Connection) -> datetime | None:
    """When the state was last erased from; None if nothing ever was."""
    moment: datetime | None = connection.execute(
        sa.select(sa.func.max(erasures.c.state_done_at))
    ).scalar_one()
    return moment


def load(connection: Connection, cipher: TokenCipher, keys: Iterable[Key] | None = None) -> Erased:
    """What was erased so far, as of this transaction; with `keys`, it can be asked about these alone.

    So a transaction of few rows reads few marks, however many there are.
    """
    query = sa.select(erasures.c.mark)
    if connection.execute(query.limit(1)).first() is None:
        return Erased(())
    fingerprints = cipher.fingerprints(_PURPOSE)
    # No more of them than is needed to see that they are too many: a broken file may give millions.
    keys = None if keys is None else list(islice(keys, MOST_KEYS_ASKED + 1))
    if keys is None or len(keys) > MOST_KEYS_ASKED:
        return Erased(connection.execute(query).scalars().all(), *fingerprints)
    parts = in_parts(sorted(marks_of(keys, *fingerprints)))
    found = [
        mark
        for part in parts
        for mark in connection.execute(query.where(erasures.c.mark.in_(part))).scalars()
    ]
    return Erased(found, *fingerprints)


def begin(
    connection: Connection,
    cipher: TokenCipher,
    seller_id: str,
    mp_order_number: str | None = None,
    *,
    asked_by: str | None,
    now: datetime,
) -> str:
    """Writes the mark, by which nothing of the order or seller is stored from now on; returns it.

    Safe to repeat: a repeat goes through all stores again, and who asked first, and when, stays. One that is new stands for an
    erasure of its kind whose mark is of a lost data key, if there is any.
    """
    key = mark(cipher, seller_id, mp_order_number)
    kind = "seller" if mp_order_number is None else "order"
    if find(connection, key) is None:
        data_key.renew_void_erasure(connection, cipher, kind, now=now)
    of_seller = None if mp_order_number is None else mark(cipher, seller_id)
    new = insert(connection, erasures).values(
        mark=key, kind=kind, asked_by=asked_by, asked_at=now, counts="{}", seller_mark=of_seller
    )
    moments = [f"{store}_done_at" for store in Store]
    changed = dict.fromkeys([*moments, "done_at", "renewed_at"]) | {"seller_mark": of_seller}
    connection.execute(new.on_conflict_do_update(index_elements=["mark"], set_=changed))
    return key


def finish(
    connection: Connection, mark: str, store: Store, counts: Mapping[str, int], *, now: datetime
) -> None:
    """Records that nothing is left in a store, and how much went; counts add up over repeats.

    An erasure of a whole seller stands for those of its orders that are unfinished (`replaced`).
    """
    row = connection.execute(sa.select(erasures).where(erasures.c.mark == mark)).one()._mapping
    known = decode_json(row["counts"].encode())
    before = known.get(store, {})
    known[store] = before | {name: before.get(name, 0) + count for name, count in counts.items()}
    done = {f"{store}_done_at": now}
    if all(row[f"{other}_done_at"] for other in Store if other != store):
        done["done_at"] = now
        of_its_orders = sa.update(erasures).where(erasures.c.seller_mark == mark, *_IS_OPEN)
        connection.execute(of_its_orders.values(renewed_at=now))
    change = sa.update(erasures).where(erasures.c.mark == mark)
    connection.execute(change.values(**done, counts=encode(known).decode()))


def of_order(
    connection: Connection, cipher: TokenCipher, seller_id: str, mp_order_number: str
) -> Erasure | None:
    """The first erasure of an order itself or, if there is none, of its seller; by the marks of all data keys that can be read."""
    if not is_any(connection):
        return None
    fingerprints = cipher.fingerprints(_PURPOSE)
    marks = [mark_of(one, seller_id, number) for one in fingerprints for number in (mp_order_number, None)]
    query = sa.select(erasures).where(erasures.c.mark.in_(marks))
    row = connection.execute(query.order_by(erasures.c.kind, erasures.c.asked_at)).first()
    return None if row is None else _erasure(row)


def registered_seller(connection: Connection, cipher: TokenCipher, erasure: Erasure) -> str | None:
    """The seller of an order that was erased, as long as it is registered; None too if an earlier version began the erasure."""
    if erasure.seller_mark is None:
        return None
    fingerprints = cipher.fingerprints(_PURPOSE)
    for seller_id in connection.execute(sa.select(sellers.c.seller_id)).scalars():
        if erasure.seller_mark in [mark_of(one, seller_id) for one in fingerprints]:
            return str(seller_id)
    return None


def find(connection: Connection, mark: str) -> Erasure | None:
    """The erasure with this mark, or None."""
    row = connection.execute(sa.select(erasures).where(erasures.c.mark == mark)).first()
    return None if row is None else _erasure(row)


def unfinished(connection: Connection) -> list[Erasure]:
    """Erasures that were begun and not finished, oldest first.

    To finish one, its command is repeated; one of an order is also `replaced` by one of its whole seller.
    """
    query = sa.select(erasures).where(*_IS_OPEN).order_by(erasures.c.asked_at)
    return [_erasure(row) for row in connection.execute(query)]


def replaced(connection: Connection) -> int:
    """How many erasures were never finished, and have another one in their place: of the whole seller, or of anyone.

    Of an order, rejected rows may be left that name no seller. If the data key was lost, it may be that nothing has gone.
    """
    return count_rows(connection, erasures, _WAS_LEFT, erasures.c.renewed_at.is_not(None))


def _erasure(row: Any) -> Erasure:
    values = {one.name: row._mapping[one.name] for one in fields(Erasure)}
    return Erasure(**{**values, "counts": decode_json(row.counts.encode())})
