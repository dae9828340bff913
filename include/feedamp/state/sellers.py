"""The registered sellers, and which of them can be served now."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.errors import PausedError
from feedamp.rules.order import Phase
from feedamp.state.schema import grants, orders, other_grants, sellers
from feedamp.state.statements import as_list, in_parts, insert, is_listed, of_sellers

ACTIVE = "active"
NEEDS_AUTHORIZATION = "needs_authorization"
PAUSED = "the seller is paused"
SET_ASIDE = "set_aside"
ASKED_AT_ONCE = 500  # ids that both databases take well in one statement


@dataclass(frozen=True)
class Seller:
    """A registered seller; `grant` is the grant's status (active, needs_authorization or set_aside), None without one.

    `grant_reason` says why a grant is set aside: this one, or a newer one while this one remains in use.
    `mix_up` says why the account is in doubt, `mixed_with` with which seller's orders it is mixed up.
    `account_checked` is False until the account behind the grant has been compared with known orders.
    """

    seller_id: str
    name: str | None
    sales_channel: str | None
    conn_id: str
    paused: bool
    grant: str | None
    grant_reason: str | None = None
    account_checked: bool = True
    mix_up: str | None = None
    mixed_with: str | None = None

    @property
    def blocked_by(self) -> str | None:
        """Why nothing can be sent for this seller now, with what is known of its account."""
        known = self.mix_up if self.paused else self.grant_reason if self.grant == SET_ASIDE else None
        brief = self.blocked_briefly
        return f"{brief}: {known}" if brief and known else brief

    @property
    def blocked_briefly(self) -> str | None:
        """The same for logs, which are read by more people than may know whose orders an account shows."""
        if self.paused:
            return PAUSED
        if self.grant is None:
            return "the seller has no grant yet"
        if self.grant == SET_ASIDE:
            return "the seller's grant is set aside"
        if self.grant != ACTIVE:
            return "the seller must authorize again"
        return None


_ALL: sa.Select[Any] = (
    sa.select(
        *(sellers.c[name] for name in ("seller_id", "name", "sales_channel", "conn_id", "paused")),
        grants.c.status,
        grants.c.status_reason,
        sa.or_(grants.c.status.is_(None), grants.c.account_checked_at.is_not(None)),
        *(sellers.c.mix_up, sellers.c.mixed_with),
    )  # as the fields of `Seller`
    .outerjoin_from(sellers, grants, grants.c.seller_id == sellers.c.seller_id)
    .order_by(sellers.c.seller_id)
)
_SOME = _ALL.where(of_sellers(sellers))


def is_any(connection: Connection) -> bool:
    return connection.execute(sa.select(sellers.c.seller_id).limit(1)).first() is not None


def find(connection: Connection, seller_ids: Collection[str] = ()) -> list[Seller]:
    """The registered sellers with these ids, or all if none are named; ordered by id."""
    wanted = set(seller_ids)
    if wanted and len(wanted) <= ASKED_AT_ONCE:
        rows = connection.execute(_SOME, {"seller_ids": sorted(wanted)})
    else:
        rows = connection.execute(_ALL)
    return [Seller(*row) for row in rows if not wanted or row.seller_id in wanted]


def ids(connection: Connection) -> list[str]:
    """The ids of all registered sellers, in order."""
    return list(connection.execute(sa.select(sellers.c.seller_id).order_by(sellers.c.seller_id)).scalars())


def first_added(connection: Connection) -> datetime | None:
    """When the first of the registered sellers was added (UTC)."""
    first: datetime | None = connection.execute(sa.select(sa.func.min(sellers.c.added_at))).scalar()
    return first


def workable(connection: Connection, seller_ids: Sequence[str] = ()) -> list[Seller]:
    """Sellers with a live grant who are not paused."""
    return [seller for seller in find(connection, seller_ids) if seller.blocked_by is None]


def add(
    connection: Connection,
    seller_id: str,
    *,
    conn_id: str,
    now: datetime,
    name: str | None = None,
    sales_channel: str | None = None,
) -> None:
    """Registers a seller, or changes name, channel and connection; grants move to the new connection. Safe to repeat."""
    new = insert(connection, sellers).values(seller_id=seller_id, conn_id=conn_id, added_at=now)
    connection.execute(new.on_conflict_do_nothing())
    given = {
        name: value for name, value in (("name", name), ("sales_channel", sales_channel)) if value is not None
    }
    for table, more in ((sellers, given), (grants, {}), (other_grants, {})):
        change = sa.update(table).where(table.c.seller_id == seller_id)
        connection.execute(change.values(conn_id=conn_id, **more))


def grant_origins(connection: Connection, seller_id: str) -> list[str | None]:
    """The origins that issued the seller's grants, the one in use first; None for one that is not known yet."""
    queries = (sa.select(t.c.origin).where(t.c.seller_id == seller_id) for t in (grants, other_grants))
    return [origin for query in queries for origin in connection.execute(query).scalars()]


def pause(connection: Connection, seller_id: str, *, paused: bool, now: datetime) -> bool:
    """Stops or resumes all traffic of a seller; runs under way stop at the next order or page. Safe to repeat.

    If the account was mixed up with another seller's, resuming also accepts the other seller's orders placed up to now:
    they raise no new alarm. Returns False if the seller is not registered.
    """
    known = connection.execute(sa.select(sellers).where(sellers.c.seller_id == seller_id)).first()
    if known is None:
        return False
    if paused:
        _pause(connection, [seller_id], now=now)
    else:
        values = {"paused": False, "paused_at": None, "mix_up": None, "mixed_with": None}
        connection.execute(sa.update(sellers).where(sellers.c.seller_id == seller_id).values(**values))
        if known.mixed_with is not None:
            resumed = sa.update(grants).where(grants.c.seller_id == seller_id)
            connection.execute(resumed.values(others_known_until=now))
        wake(connection, seller_id, now=now)
    return True


def _pause(connection: Connection, seller_ids: Sequence[str], *, now: datetime) -> None:
    running = sa.and_(sellers.c.seller_id.in_(seller_ids), sellers.c.paused.is_(False))
    connection.execute(sa.update(sellers).where(running).values(paused=True, paused_at=now))


def note_mix_up(
    connection: Connection, seller_id: str, other_id: str, *, words: str, is_proven: bool, now: datetime
) -> None:
    """Records that the accounts of two sellers are mixed up, and pauses both if that is proven. Safe to repeat."""
    for one, other in ((seller_id, other_id), (other_id, seller_id)):
        change = sa.update(sellers).where(sellers.c.seller_id == one).values(mix_up=words, mixed_with=other)
        if not is_proven:  # an earlier note may be proven, so it is not overwritten
            change = change.where(sellers.c.mixed_with.is_(None))
        connection.execute(change)
    if is_proven:
        _pause(connection, [seller_id, other_id], now=now)


def end_mix_up(connection: Connection, seller_id: str) -> None:
    """Ends a mix-up for both sellers, because the seller has a new account. Safe to repeat.

    Changes nothing while the seller is paused.
    """
    if is_paused(connection, seller_id):
        return
    either = sa.or_(sellers.c.seller_id == seller_id, sellers.c.mixed_with == seller_id)
    connection.execute(sa.update(sellers).where(either).values(mix_up=None, mixed_with=None))


def is_registered(connection: Connection, seller_id: str) -> bool:
    query = sa.select(sellers.c.seller_id).where(sellers.c.seller_id == seller_id)
    return connection.execute(query).first() is not None


def is_paused(connection: Connection, seller_id: str) -> bool:
    query = sa.select(sellers.c.paused).where(sellers.c.seller_id == seller_id)
    return bool(connection.execute(query).scalar_one_or_none())


def registered_among(connection: Connection, words: Collection[str]) -> set[str]:
    """Those of the words that are the id of a registered seller."""
    query = sa.select(sellers.c.seller_id)
    return {
        seller_id
        for part in in_parts(sorted(words))
        for seller_id in connection.execute(query.where(sellers.c.seller_id.in_(part))).scalars()
    }


_SERVED = sa.select(sellers.c.seller_id).where(sellers.c.paused.is_(False), is_listed([sellers.c.seller_id]))


def paused_among(connection: Connection, seller_ids: Collection[str]) -> set[str]:
    """Those of the sellers that are paused, or were removed while work for them was under way."""
    served = {
        seller_id
        for part in in_parts(seller_ids)
        for seller_id in connection.execute(_SERVED, {"listed": as_list((one,) for one in part)}).scalars()
    }
    return set(seller_ids) - served


def check_pause(connection: Connection, seller_id: str) -> None:
    """Checks, before each order or page, that the seller is not paused, nor was removed since the work began.

    Raises:
        PausedError: the seller is paused or removed.
    """
    if paused_among(connection, [seller_id]):
        raise paused_error(seller_id)


def paused_error(seller_id: str) -> PausedError:
    """What `check_pause` raises."""
    return PausedError("The seller is paused or was removed; what was not sent waits.", seller_id=seller_id)


DUE = "the next run tries it"


def wake(connection: Connection, seller_id: str, *, now: datetime) -> None:
    """Makes the seller's waiting orders due now, so that the next run tries them."""
    waiting = sa.and_(orders.c.seller_id == seller_id, orders.c.phase == Phase.TO_PLACE)
    connection.execute(sa.update(orders).where(waiting).values(next_try_at=now, reason=DUE))
