"""A new grant and the previous one: which of the two is used, and which is kept until a person decides.

Only a person can give consent again, so no grant is discarded because its account looks wrong. `grants` holds the
grant in use, or the only one; `other_grants` holds a second grant, which is not used:

    event                               grants                           other_grants
    new grant, another one in use       the new one, not compared yet    the previous one (replaced)
    its account is right                the new one                      nothing
    its account is wrong                the previous one, in use again   the new one (set_aside)
    wrong, and no previous one in use   the new one (set_aside)          nothing

A watermark is valid for one account. Where the account may have changed, the watermark is removed, and the next
extraction reads everything again.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.state import leases, watermarks
from feedamp.state.schema import account_marks, grants, other_grants, sellers
from feedamp.state.sellers import ACTIVE, SET_ASIDE, end_mix_up, note_mix_up, wake
from feedamp.state.statements import upsert

REPLACED = "replaced"
NEWER = "a newer grant is set aside: "
REFUSED_BY_FEEDAMP = "FeedAMP refuses its token"  # the reason of one that no person's decision can make work
_KEPT = tuple(column.name for column in other_grants.columns if column.name not in ("seller_id", "role"))
_CLEARED = {"disowned_at": None, "refused_at": None, "reported_at": None}


def make_room(connection: Connection, seller_id: str, *, to_compare: bool) -> None:
    """Copies the grant in use to `other_grants`, in case the account behind the new grant turns out to be wrong.

    If no account is to be compared, no grant is kept. The watermark of an account in doubt is removed. Must be called
    before the new grant is written.
    """
    row = _row(connection, grants, seller_id)
    if row is None:
        return
    mixed_with = sa.select(sellers.c.mixed_with).where(sellers.c.seller_id == seller_id)
    is_mixed_up = connection.execute(mixed_with).scalar_one_or_none() is not None
    if is_mixed_up or row["account_forced"] or row["others_known_until"] is not None:
        watermarks.remove(connection, seller_id)
    connection.execute(sa.delete(account_marks).where(account_marks.c.seller_id == seller_id))
    if to_compare:
        if row["account_checked_at"] is None:
            return  # this grant was never compared; the one before it is already kept
        if row["status"] == ACTIVE:
            _write_other(connection, dict(row), role=REPLACED)
            return
    _drop_other(connection, seller_id)


def to_compare(connection: Connection, seller_id: str) -> str | None:
    """Fingerprint of the consent whose account is still to be compared; None if there is none."""
    query = sa.select(grants.c.consent).where(
        grants.c.seller_id == seller_id, grants.c.account_checked_at.is_(None)
    )
    return connection.execute(query).scalar_one_or_none()


def has_replaced(connection: Connection, seller_id: str) -> bool:
    """Whether the grant before the one to be compared is kept."""
    row = _row(connection, other_grants, seller_id)
    return row is not None and row["role"] == REPLACED


def account_checked_at(connection: Connection, seller_id: str) -> datetime | None:
    """When the account behind the grant was accepted as the seller's; None while it is still to be compared."""
    query = sa.select(grants.c.account_checked_at).where(grants.c.seller_id == seller_id)
    return connection.execute(query).scalar_one_or_none()


def confirm(
    connection: Connection, seller_id: str, consent: str, *, shows_own_orders: bool, now: datetime
) -> None:
    """Accepts the account behind a consent: it is the seller's, or there is nothing to compare it with.

    A mix-up that did not pause the seller ends. Unless the account shows the seller's own orders, it may be another
    account than before, so the watermark is removed. If there is a newer consent, nothing changes.
    """
    compared = sa.update(grants).where(*_compared(seller_id, consent)).values(account_checked_at=now)
    if connection.execute(compared).rowcount:
        _drop_other(connection, seller_id)
        end_mix_up(connection, seller_id)
        if not shows_own_orders:
            watermarks.remove(connection, seller_id)


def set_aside(
    connection: Connection,
    seller_id: str,
    consent: str,
    *,
    reason: str,
    shows_orders_of: str | None,
    now: datetime,
) -> bool:
    """Stops using the grant of a consent; True if the previous grant is in use again.

    If there is a newer consent, nothing changes.
    """
    row = connection.execute(sa.select(grants).where(*_compared(seller_id, consent))).mappings().first()
    if row is None:
        return False
    before = _row(connection, other_grants, seller_id)
    if before is None or before["role"] != REPLACED:
        _change(
            connection,
            seller_id,
            status=SET_ASIDE,
            status_reason=reason,
            shows_orders_of=shows_orders_of,
            account_checked_at=now,
        )
        return False
    _use(connection, before, generation=row["generation"] + 1, reason=f"{NEWER}{reason}")
    _write_other(connection, {**row, "shows_orders_of": shows_orders_of}, role=SET_ASIDE)
    return True


def set_aside_consent(connection: Connection, seller_id: str) -> str | None:
    """Fingerprint of the consent whose grant is set aside; None if there is none."""
    row = _row(connection, grants, seller_id)
    if row is None or row["status"] != SET_ASIDE:
        row = _row(connection, other_grants, seller_id)
        if row is None or row["role"] != SET_ASIDE:
            return None
    consent: str | None = row["consent"]
    return consent


def take_set_aside(connection: Connection, seller_id: str, *, now: datetime) -> bool:
    """Puts the grant that was set aside into use, because a person decided so, and removes the watermark.

    If its account showed another seller's orders, both sellers are marked as mixed up (`sellers.note_mix_up`): action
    is required. Returns False if no grant is set aside. Safe to repeat.
    """
    row = _row(connection, grants, seller_id)
    if row is None:
        return False
    other = _row(connection, other_grants, seller_id)
    taken = row
    if row["status"] == SET_ASIDE:
        _change(connection, seller_id, status=ACTIVE, status_reason=None)
    elif other is not None and other["role"] == SET_ASIDE:
        taken = other
        _use(connection, other, generation=row["generation"] + 1, reason=None)
    else:
        return False
    _drop_other(connection, seller_id)
    _change(connection, seller_id, account_checked_at=now, account_forced=True)
    connection.execute(sa.delete(account_marks).where(account_marks.c.seller_id == seller_id))
    watermarks.remove(connection, seller_id)
    end_mix_up(connection, seller_id)
    other_id = taken["shows_orders_of"]
    if other_id is not None:
        words = f"the account of seller {seller_id}, taken with --force, shows orders that were placed for seller {other_id}"
        note_mix_up(connection, seller_id, other_id, words=words, is_proven=False, now=now)
    wake(connection, seller_id, now=now)
    return True


def take_replaced(connection: Connection, seller_id: str, *, now: datetime) -> bool:
    """Puts the grant that is kept from before a new one, which FeedAMP refused, into use again, with its newest tokens.

    Returns False if none is kept.
    """
    row, before = _row(connection, grants, seller_id), _row(connection, other_grants, seller_id)
    if row is None or before is None or before["role"] != REPLACED:
        return False
    _use(connection, before, generation=row["generation"] + 1, reason=None)
    _drop_other(connection, seller_id)
    wake(connection, seller_id, now=now)
    return True


def drop_set_aside(connection: Connection, seller_id: str, preferred: Collection[str]) -> bool:
    """Drops a newer grant that is set aside, if a person prefers the one in use: its consent is one of these fingerprints.

    Returns False if there is none, or the preferred one is not in use.
    """
    row, other = _row(connection, grants, seller_id), _row(connection, other_grants, seller_id)
    if row is None or other is None or other["role"] != SET_ASIDE or row["consent"] not in preferred:
        return False
    _drop_other(connection, seller_id)
    _change(connection, seller_id, status_reason=None)
    return True


def store_refreshed(
    connection: Connection, seller_id: str, generation: int, consent: str | None, values: dict[str, Any]
) -> None:
    """Stores new tokens in `other_grants`, for a grant that moved there while its refresh was under way."""
    kept = {name: value for name, value in values.items() if name in _KEPT}
    of_consent = other_grants.c.seller_id == seller_id, other_grants.c.consent == consent
    change = sa.update(other_grants).where(*of_consent, other_grants.c.generation == generation)
    connection.execute(change.values(**kept | {"generation": generation}))


def _compared(seller_id: str, consent: str) -> tuple[sa.ColumnElement[bool], ...]:
    is_unchecked = grants.c.account_checked_at.is_(None)
    return grants.c.seller_id == seller_id, grants.c.consent == consent, is_unchecked


def _row(connection: Connection, table: sa.Table, seller_id: str) -> sa.RowMapping | None:
    return connection.execute(sa.select(table).where(table.c.seller_id == seller_id)).mappings().first()


def _write_other(connection: Connection, row: Mapping[str, Any], *, role: str) -> None:
    kept = {name: row[name] for name in _KEPT}
    upsert(connection, other_grants, [{"seller_id": row["seller_id"], "role": role, **kept}])


def _use(connection: Connection, row: sa.RowMapping, *, generation: int, reason: str | None) -> None:
    """Overwrites the grant in use with a kept one as the newest generation, so that all tokens of the old one are stale."""
    kept = {name: row[name] for name in _KEPT} | {"generation": generation}
    _change(connection, row["seller_id"], status=ACTIVE, status_reason=reason, **kept, **_CLEARED)
    leases.drop(connection, leases.of_refresh(row["seller_id"]))


def _change(connection: Connection, seller_id: str, **values: Any) -> None:
    connection.execute(sa.update(grants).where(grants.c.seller_id == seller_id).values(**values))


def _drop_other(connection: Connection, seller_id: str) -> None:
    connection.execute(sa.delete(other_grants).where(other_grants.c.seller_id == seller_id))
