"""Sellers' grants: encrypted tokens and refusals. One row per seller."""

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.errors import ConfigurationError
from feedamp.state import consents, leases
from feedamp.state.schema import grants, other_grants, token_fingerprints
from feedamp.state.sellers import ACTIVE, NEEDS_AUTHORIZATION, SET_ASIDE, is_registered, wake
from feedamp.state.statements import as_list, in_parts, is_listed, of_sellers, upsert
from feedamp.state.token_cipher import TokenCipher

REFRESH_TOKEN_LIFE = timedelta(days=365)  # contract 2.2; counted from each issue (Q10)
WARN_BEFORE = timedelta(days=30)

Version = tuple[str | None, int]
"""Consent and generation: generations begin again at 1 where a seller was removed and added again."""


@dataclass(frozen=True)
class Access:
    """What requests need of a seller's grant; the access token is plaintext, and left out of the repr."""

    seller_id: str
    conn_id: str
    status: str
    generation: int
    access_token: str | None = field(repr=False)
    access_expires_at: datetime | None
    expires_in_s: int | None
    refused_at: datetime | None
    disowned_at: datetime | None
    account_checked_at: datetime | None
    origin: str | None
    consent: str | None

    @property
    def version(self) -> Version:
        """What tells this grant and its tokens from earlier and later ones of the seller."""
        return self.consent, self.generation


@dataclass(frozen=True)
class Grant(Access):
    """The stored grant of a seller; its tokens are plaintext, and left out of the repr."""

    refresh_token: str = field(repr=False)
    previous_refresh_token: str | None = field(repr=False)
    issued_at: datetime
    refreshed_at: datetime | None

    @property
    def ends_at(self) -> datetime:
        """When the refresh token expires."""
        return self.issued_at + REFRESH_TOKEN_LIFE


_Kind = TypeVar("_Kind", bound=Access)
_IS_ONE = grants.c.seller_id == sa.bindparam("of_seller")
_NAMES = {kind: tuple(one.name for one in fields(kind)) for kind in (Access, Grant)}
_OF_KIND = {kind: sa.select(*(grants.c[name] for name in names)) for kind, names in _NAMES.items()}
_ONE = _OF_KIND[Grant].where(_IS_ONE)
_SOME = {kind: of.where(of_sellers(grants)).order_by(grants.c.seller_id) for kind, of in _OF_KIND.items()}
_OWNER = (
    sa.select(token_fingerprints.c.seller_id).where(is_listed([token_fingerprints.c.fingerprint])).limit(1)
)
# Unless a newer generation is stored, or that of another consent: a seller that was removed and added again begins with the
# first generation once more.
_CHANGE = sa.update(grants).where(
    _IS_ONE,
    grants.c.generation == sa.bindparam("of_generation"),
    grants.c.consent.is_not_distinct_from(sa.bindparam("of_consent")),
)
_SECRET = ("refresh_token", "previous_refresh_token", "access_token")
_TOKENS = (*_SECRET, "access_expires_at", "expires_in_s", "generation", "issued_at", "refreshed_at")
_STORE_TOKENS = _CHANGE.values(
    # A grant that was set aside during the refresh remains set aside.
    status=sa.case((grants.c.status == SET_ASIDE, SET_ASIDE), else_=ACTIVE),
    refused_at=None,
    reported_at=None,
    **{name: sa.bindparam(name) for name in _TOKENS},
)


def read(connection: Connection, cipher: TokenCipher, seller_id: str) -> Grant | None:
    """The seller's grant with decrypted tokens, or None."""
    row = connection.execute(_ONE, {"of_seller": seller_id}).first()
    return None if row is None else _opened(Grant, row, cipher)


def read_many(
    connection: Connection, cipher: TokenCipher, seller_ids: Iterable[str]
) -> Iterator[tuple[str, Grant | None]]:
    """Seller and grant of those that have one, ordered by seller; None if its tokens do not decrypt."""
    return _some(Grant, connection, cipher, seller_ids)


def read_access(
    connection: Connection, cipher: TokenCipher, seller_ids: Iterable[str]
) -> Iterator[tuple[str, Access | None]]:
    """As `read_many`, without the refresh tokens, which most requests have no use for: to decrypt one takes 25 µs."""
    return _some(Access, connection, cipher, seller_ids)


def _some(
    kind: type[_Kind], connection: Connection, cipher: TokenCipher, seller_ids: Iterable[str]
) -> Iterator[tuple[str, _Kind | None]]:
    for part in in_parts(sorted(seller_ids)):
        for row in connection.execute(_SOME[kind], {"seller_ids": part}):
            grant = None
            with contextlib.suppress(ConfigurationError):
                grant = _opened(kind, row, cipher)
            yield row.seller_id, grant


def _opened(kind: type[_Kind], row: Sequence[Any], cipher: TokenCipher) -> _Kind:
    values = dict(zip(_NAMES[kind], row, strict=True))
    try:
        for name in _SECRET:
            if values.get(name) is not None:
                values[name] = cipher.decrypt(values[name])
    except ConfigurationError as error:
        seller_id = str(values["seller_id"])
        raise ConfigurationError(
            f"The tokens of seller {seller_id} were encrypted with another encryption_key; restore the former key: put it behind "
            "the newer one, as in NEW,FORMER, and run `feedamp key rotate`.",
            seller_id=seller_id,
        ) from error
    return kind(**values)


def put_grant(
    connection: Connection,
    cipher: TokenCipher,
    seller_id: str,
    conn_id: str,
    refresh_token: str,
    *,
    now: datetime,
    to_compare: bool = False,
    origin: str | None = None,
    consent: str | None = None,
    after_generation: int = 0,
) -> None:
    """Stores a grant from a consent or an import; it replaces the seller's current grant.

    `consent` is that of a grant that was refreshed since then (`is_later`), and `after_generation` one less than its generation.
    `origin` is that of the connection; with None, it is set once the connection can be read (`adopt_origin`).
    With `to_compare`, the account behind it is compared with known orders before the grant is used for data, and the
    grant that was in use is kept until then.
    """
    consents.make_room(connection, seller_id, to_compare=to_compare)
    cipher.keep_data_key(connection)
    stored = sa.select(grants.c.generation).where(grants.c.seller_id == seller_id)
    known = connection.execute(stored).scalar_one_or_none()
    first = consent or cipher.fingerprint("token", refresh_token)
    row = {
        "seller_id": seller_id,
        "conn_id": conn_id,
        "origin": origin,
        "status": ACTIVE,
        "status_reason": None,
        "refresh_token": cipher.encrypt(refresh_token),
        "previous_refresh_token": None,
        "access_token": None,
        "access_expires_at": None,
        "expires_in_s": None,
        "generation": max(known or 0, after_generation) + 1,
        "issued_at": now,
        "refused_at": None,
        "disowned_at": None,
        "reported_at": None,
        "account_checked_at": None if to_compare else now,
        "account_forced": False,
        "shows_orders_of": None,
        "others_known_until": None,
        "consent": first,
    }
    upsert(connection, grants, [row])
    leases.drop(connection, leases.of_refresh(seller_id))  # it concerns the grant before
    if consent is not None:
        known_row = {"fingerprint": consent, "seller_id": seller_id, "seen_at": now}
        upsert(connection, token_fingerprints, [known_row])
    remember_token(connection, cipher, seller_id, refresh_token, now=now)
    wake(connection, seller_id, now=now)


def is_later(connection: Connection, seller_id: str, consent: str | None, asked_at: datetime) -> bool:
    """Whether a refresh at this moment was of a later consent than the stored grant: the state is from a backup.

    The fingerprints know every consent that the state has ever had.
    """
    stored = sa.select(grants.c.consent, grants.c.issued_at).where(grants.c.seller_id == seller_id)
    row = connection.execute(stored).first()
    if row is None or consent in (None, row.consent) or asked_at <= row.issued_at:
        return False
    known = sa.select(token_fingerprints.c.seller_id).where(token_fingerprints.c.fingerprint == consent)
    return connection.execute(known).first() is None


def origins(connection: Connection, conn_id: str) -> dict[str | None, int]:
    """The origins that issued the grants of a connection, with the number of grants; kept and set-aside ones included."""
    return _count(connection, _ORIGINS, of_conn=conn_id)


def without_origin(connection: Connection) -> dict[str, int]:
    """Connections of grants that have no origin, because an earlier version stored them, with the number of these grants."""
    return _count(connection, _WITHOUT_ORIGIN)


def _count(connection: Connection, counts: sa.CompoundSelect[Any], **parameters: str) -> Counter[Any]:
    found = Counter[Any]()
    for value, count in connection.execute(counts, parameters):
        found[value] += count
    return found


def _counts(column: str, condition: Callable[[sa.Table], sa.ColumnElement[bool]]) -> sa.CompoundSelect[Any]:
    return sa.union_all(
        *(
            sa.select(table.c[column], sa.func.count()).where(condition(table)).group_by(table.c[column])
            for table in (grants, other_grants)
        )
    )


_ORIGINS = _counts("origin", lambda table: table.c.conn_id == sa.bindparam("of_conn"))
_WITHOUT_ORIGIN = _counts("conn_id", lambda table: table.c.origin.is_(None))


def adopt_origin(connection: Connection, conn_id: str, origin: str) -> None:
    """Sets the origin of a connection's grants that have none, because an earlier version stored them. Safe to repeat."""
    for table in (grants, other_grants):
        known = sa.update(table).where(table.c.conn_id == conn_id, table.c.origin.is_(None))
        connection.execute(known.values(origin=origin))


def confirm_origin(connection: Connection, conn_id: str, origin: str) -> None:
    """Sets the origin of all grants of a connection, because a person confirmed that FeedAMP moved. Safe to repeat."""
    for table in (grants, other_grants):
        connection.execute(sa.update(table).where(table.c.conn_id == conn_id).values(origin=origin))


def remember_token(
    connection: Connection, cipher: TokenCipher, seller_id: str, token: str, *, now: datetime
) -> None:
    """Stores the token's fingerprint, so that a later import recognizes the token."""
    row = {"fingerprint": cipher.fingerprint("token", token), "seller_id": seller_id, "seen_at": now}
    upsert(connection, token_fingerprints, [row])


def token_owner(connection: Connection, cipher: TokenCipher, token: str) -> str | None:
    """The seller for whom this refresh token is or was stored; None if the token is new."""
    known = [fingerprint(token) for fingerprint in cipher.fingerprints("token")]
    return connection.execute(_OWNER, {"listed": as_list((one,) for one in known)}).scalar_one_or_none()


def is_of_earlier(connection: Connection, cipher: TokenCipher, seller_id: str, token: str) -> bool:
    """Whether a token was seen before the seller's grant came: it is of an earlier one, which this one has replaced."""
    seen, came = token_fingerprints.alias(), token_fingerprints.alias()
    known = [fingerprint(token) for fingerprint in cipher.fingerprints("token")]
    query = (
        sa.select(seen.c.seller_id)
        .where(seen.c.seller_id == seller_id, seen.c.fingerprint.in_(known), seen.c.seen_at < came.c.seen_at)
        .where(grants.c.seller_id == seller_id, came.c.fingerprint == grants.c.consent)
    )
    return connection.execute(query.limit(1)).first() is not None


def is_of_kept(connection: Connection, cipher: TokenCipher, seller_id: str, token: str) -> bool:
    """Whether a token is of the grant that is kept from before the newest one (`consents.take_replaced`), and of no other.

    That of a grant before it was seen earlier; that of one that came after it and was replaced before its account was
    compared, later than the kept one was last refreshed.
    """
    seen, came = token_fingerprints.alias(), token_fingerprints.alias()
    kept, known = other_grants.c, [fingerprint(token) for fingerprint in cipher.fingerprints("token")]
    was_in_use = sa.and_(
        seen.c.seen_at >= came.c.seen_at,
        sa.or_(seen.c.seen_at <= kept.issued_at, seen.c.seen_at <= kept.refreshed_at),
    )
    query = (
        sa.select(seen.c.seller_id)
        .where(seen.c.seller_id == seller_id, seen.c.fingerprint.in_(known))
        .where(
            kept.seller_id == seller_id, kept.role == consents.REPLACED, came.c.fingerprint == kept.consent
        )
        .where(sa.or_(seen.c.fingerprint == came.c.fingerprint, was_in_use))
    )
    return connection.execute(query.limit(1)).first() is not None


def store_tokens(
    connection: Connection,
    cipher: TokenCipher,
    grant: Grant,
    *,
    used_token: str,
    refresh_token: str,
    access_token: str,
    expires_in_s: int,
    now: datetime,
) -> bool:
    """Stores the tokens of a refresh and releases the lease; a rotated refresh token is kept as the previous one.

    Returns:
        False if another grant or a newer generation is stored because a person authorized again: that one remains. If this
        grant is still in `other_grants`, its tokens are updated there.
    """
    rotated = refresh_token != used_token
    tokens = {
        "refresh_token": cipher.encrypt(refresh_token),
        "previous_refresh_token": cipher.encrypt(used_token) if rotated else None,
        "access_token": cipher.encrypt(access_token),
        "access_expires_at": now + timedelta(seconds=expires_in_s),
        "expires_in_s": expires_in_s,
        "generation": grant.generation + 1,
        "issued_at": now if rotated else grant.issued_at,
        "refreshed_at": now,
    }
    stored = connection.execute(_STORE_TOKENS, _of(grant) | tokens)
    if stored.rowcount != 1:
        if not is_registered(connection, grant.seller_id):
            return False  # the seller was removed while its token was refreshed
        consents.store_refreshed(connection, grant.seller_id, grant.generation, grant.consent, tokens)
        remember_token(connection, cipher, grant.seller_id, refresh_token, now=now)
        return False
    leases.drop(connection, leases.of_refresh(grant.seller_id))
    remember_token(connection, cipher, grant.seller_id, refresh_token, now=now)
    if grant.status == NEEDS_AUTHORIZATION:
        wake(connection, grant.seller_id, now=now)
    return True


def _of(grant: Grant) -> dict[str, Any]:
    """The parameters of `_CHANGE`."""
    return {
        "of_seller": grant.seller_id,
        "of_generation": grant.generation,
        "of_consent": grant.consent,
    }


def note_refusal(connection: Connection, grant: Grant, *, run_key: str, now: datetime) -> None:
    """Records that FeedAMP refused this generation; whether the seller or the client is at fault is decided later."""
    connection.execute(_CHANGE.values(refused_at=now, refused_in=run_key), _of(grant))


def mark_lost(connection: Connection, grant: Grant, *, run_key: str, now: datetime) -> bool:
    """Marks a seller whose newest token was lost with the process that received it; False if the seller was marked before.

    Does not count as a refusal, since it is no evidence against the client.
    """
    marked = {"status": NEEDS_AUTHORIZATION, "reported_at": now, "access_token": None}
    change = _CHANGE.where(grants.c.status == ACTIVE).values(**marked, refused_at=None, refused_in=run_key)
    return connection.execute(change, _of(grant)).rowcount == 1


def note_disowned(connection: Connection, seller_id: str, moment: datetime | None) -> None:
    """Records when FeedAMP first answered 401 to a token that it had just issued; None once a token works again."""
    connection.execute(sa.update(grants).where(grants.c.seller_id == seller_id).values(disowned_at=moment))


def last_success(connection: Connection, conn_id: str) -> datetime | None:
    """When any grant of the connection was last refreshed."""
    query = sa.select(sa.func.max(grants.c.refreshed_at)).where(grants.c.conn_id == conn_id)
    return connection.execute(query).scalar_one_or_none()


def refused_in(connection: Connection, run_key: str, since: datetime) -> dict[str, list[str]]:
    """Sellers that one run was refused since it began (inclusive), by connection id, without those marked before it."""
    is_new = sa.or_(grants.c.status == ACTIVE, grants.c.reported_at >= since)
    query = sa.select(grants.c.conn_id, grants.c.seller_id).where(
        grants.c.refused_in == run_key, grants.c.refused_at >= since, is_new
    )
    refused: dict[str, list[str]] = {}
    for conn_id, seller_id in connection.execute(query.order_by(grants.c.seller_id)):
        refused.setdefault(conn_id, []).append(seller_id)
    return refused


def withdraw_refusals(connection: Connection, conn_id: str, run_key: str) -> None:
    """Removes the refusals of one run, because FeedAMP has named the client as the cause."""
    refused = sa.update(grants).where(grants.c.conn_id == conn_id, grants.c.refused_in == run_key)
    connection.execute(refused.values(refused_at=None))


def unmark(connection: Connection, conn_id: str, run_key: str, *, since: datetime, now: datetime) -> None:
    """Unmarks sellers that one run marked since it began, because the client turned out to be at fault."""
    freed = connection.execute(
        sa.update(grants)
        .where(
            grants.c.conn_id == conn_id,
            grants.c.refused_in == run_key,
            grants.c.status == NEEDS_AUTHORIZATION,
            grants.c.reported_at >= since,
        )
        .values(status=ACTIVE, reported_at=None)
        .returning(grants.c.seller_id)
    )
    for seller_id in freed.scalars().all():
        wake(connection, seller_id, now=now)


def mark_needs_authorization(
    connection: Connection, seller_ids: Collection[str], *, now: datetime
) -> list[str]:
    """Marks refused sellers; returns those not marked before, so that each is reported once."""
    marked = connection.execute(
        sa.update(grants)
        .where(
            grants.c.seller_id.in_(seller_ids), grants.c.status == ACTIVE, grants.c.refused_at.is_not(None)
        )
        .values(status=NEEDS_AUTHORIZATION, reported_at=now, access_token=None)
        .returning(grants.c.seller_id)
    )
    return sorted(marked.scalars())


def is_any(connection: Connection) -> bool:
    return connection.execute(sa.select(grants.c.seller_id).limit(1)).first() is not None


def check_key(connection: Connection, cipher: TokenCipher) -> None:
    """Returns if there is no grant yet, or if at least one can be decrypted.

    Raises:
        ConfigurationError: none can be decrypted, so it is the wrong key.
    """
    tokens = sa.select(grants.c.refresh_token).order_by(grants.c.seller_id)
    failure: ConfigurationError | None = None
    for query in (tokens.limit(1), tokens):  # usually, the first one is enough
        for token in connection.execute(query).scalars().all():
            try:
                cipher.decrypt(token)
            except ConfigurationError as error:
                failure = error
            else:
                return
    if failure is not None:
        raise ConfigurationError(
            "The encryption key is not the one that the stored tokens were encrypted with: restore the former key "
            "([feedamp] encryption_key or the key file). If it is lost, every seller must authorize again: "
            "`feedamp sellers authorize` and `feedamp sellers import --replace` accept the new key."
        ) from failure
