"""The newest snapshot of each open order, and the result of its validation."""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.sql.dml import ReturningInsert

from feedamp.codec import encode, encoded_hash
from feedamp.errors import UnreadableError
from feedamp.models import Snapshot, decode_snapshot
from feedamp.rules.closing import BY_MARKETPLACE
from feedamp.rules.evaluation import ReadSnapshot
from feedamp.rules.failure_summary import counted
from feedamp.rules.finding import REPORTED
from feedamp.rules.order import OPEN_PHASES, Phase
from feedamp.rules.order_story import Event, changed, units_changed
from feedamp.rules.units import count_units
from feedamp.state import ledger, order_events
from feedamp.state.columns import columns_of
from feedamp.state.schema import IS_CHANGED, IS_CLOSABLE, IS_HELD, MAY_BE_STUCK, findings, orders, snapshots
from feedamp.state.statements import (
    as_list,
    by_seller,
    change_order,
    in_parts,
    insert,
    is_any_order,
    is_listed,
    is_order,
    is_same_order,
    of_sellers,
)

log = logging.getLogger(__name__)
# Order number -> when the units were read, and line -> (shipped, cancelled); the newest, also within a batch.
_ClosedUnits = dict[str, tuple[datetime, Mapping[str, tuple[int, int]]]]
_ONE = sa.select(snapshots).where(is_order(snapshots, sa.bindparam("of_seller"), sa.bindparam("of_number")))
_INVALIDATE = (
    sa.update(snapshots)
    .where(
        snapshots.c.validated_hash.is_not(None),
        is_listed((snapshots.c.seller_id, snapshots.c.mp_order_number)),
    )
    .values(validated_hash=None)
)
# What a validation finds. Its snapshot is the stored one, since it was read in the same transaction.
_RESULT = ("closable", "waits_for", "needs_person", "error_lingers_since")
_VALIDATED = (
    sa.update(snapshots)
    .where(is_listed((snapshots.c.seller_id, snapshots.c.mp_order_number)))
    .values(validated_hash=snapshots.c.snapshot_hash, **{name: sa.bindparam(name) for name in _RESULT})
)
# Of a wait that needs no person: they are in an index, in which Postgres takes 2,704 bytes.
LONGEST_INDEXED_REASON = 500
UNDECODABLE = "its stored snapshot cannot be decoded; the next extraction reads the order again"


class StoredSnapshot(ReadSnapshot, frozen=True):
    """A stored snapshot and the result of its validation."""

    seller_id: str
    mp_order_number: str
    snapshot_hash: str
    validated_hash: str | None
    closable: bool
    waits_for: str | None
    needs_person: bool


def keep(connection: Connection, seller_id: str, snapshot: Snapshot, *, read_at: datetime) -> bool:
    """Stores a snapshot unless a newer one is stored (promise 4); equal content only updates `read_at`.

    The caller decides which orders to store: this function checks neither the ledger nor whether the order is open.
    Returns whether this snapshot is the newest.
    """
    read = _Read(snapshot.mp_order_number, snapshot, read_at, encode(snapshot))
    return _keep_each(connection, seller_id, [read]) == [True]


class _Read(NamedTuple):
    """A snapshot as it was read, and encoded."""

    number: str
    snapshot: Snapshot
    read_at: datetime
    encoded: bytes

    @property
    def snapshot_hash(self) -> str:
        return encoded_hash(self.encoded)


def _keep_each(connection: Connection, seller_id: str, reads: Sequence[_Read]) -> list[bool]:
    """As `keep`, for several snapshots of one seller, the later ones of an order after its earlier ones."""
    is_newest = [False] * len(reads)
    waiting = list(enumerate(reads))
    while waiting:
        now: dict[str, tuple[int, _Read]] = {}  # of each order one: no statement may change a row twice
        for one in waiting:
            now.setdefault(one[1].number, one)
        waiting = [one for one in waiting if now[one[1].number] is not one]
        rows = [
            {
                "seller_id": seller_id,
                "mp_order_number": read.number,
                "read_at": read.read_at,
                "snapshot_hash": read.snapshot_hash,
                "snapshot": read.encoded.decode(),
                "closable": False,
                "needs_person": False,
            }
            for _, read in now.values()
        ]
        # Not every driver counts the rows of an upsert.
        kept = set(connection.execute(_keep(connection.dialect.name), rows).scalars())
        for at, read in now.values():
            is_newest[at] = read.number in kept
    return is_newest


@cache
def _keep(dialect: str) -> ReturningInsert[Any]:
    """Built once: that takes longer than SQLite does to execute it."""
    statement = insert(dialect, snapshots)

    def column(name: str, of: str = snapshots.name) -> sa.ColumnElement[Any]:
        # As text: of a column of the table, SQLAlchemy would let the subquery read the whole table.
        return sa.literal_column(f"{of}.{name}")

    # The first snapshot after a report is validated even if it is unchanged: FeedAMP may have dropped the error already.
    reported_since = sa.exists().where(
        is_order(findings, column("seller_id"), column("mp_order_number")),
        findings.c.state == REPORTED,
        findings.c.listed_at.is_(None),
        findings.c.reported_at >= column("read_at"),
        findings.c.reported_at < column("read_at", of="excluded"),
    )
    return statement.on_conflict_do_update(
        index_elements=["seller_id", "mp_order_number"],
        set_={
            **{name: statement.excluded[name] for name in ("read_at", "snapshot_hash", "snapshot")},
            "validated_hash": sa.case((reported_since, None), else_=snapshots.c.validated_hash),
        },
        where=sa.or_(
            snapshots.c.read_at < statement.excluded.read_at,
            # Of two snapshots of the same moment the greater hash wins, as in the warehouse.
            sa.and_(
                snapshots.c.read_at == statement.excluded.read_at,
                snapshots.c.snapshot_hash <= statement.excluded.snapshot_hash,
            ),
        ),
    ).returning(snapshots.c.mp_order_number)


def decode_stored(seller_id: str, mp_order_number: str, text: str | bytes) -> Snapshot:
    """Decodes a snapshot stored in the state or the lake.

    Raises:
        UnreadableError: this version cannot decode it; the message names the order.
    """
    try:
        return decode_snapshot(text)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise UnreadableError(
            f"The stored snapshot of order {mp_order_number} of seller {seller_id} cannot be decoded: {error}.",
            where=str(error),
            seller_id=seller_id,
            mp_order_number=mp_order_number,
        ) from error


def keep_open(
    connection: Connection, seller_id: str, rows: Iterable[tuple[Snapshot, datetime]], *, run_id: str | None
) -> int:
    """Stores the snapshots of open orders of the ledger; returns how many were stored as the newest.

    An order whose PUT got no answer is included: FeedAMP may have it, and may return it only once before it counts as
    placed. For a closed order, the ledger stores the units. A missing order is no longer marked as missing. A newest
    snapshot with another content is an event of its order.
    """
    items = list(rows)
    kept = 0
    for start in range(0, len(items), 500):
        part = items[start : start + 500]
        query = sa.select(
            orders.c.mp_order_number,
            orders.c.phase,
            orders.c.first_put_at,
            orders.c.conflicting_state,
            orders.c.missing_since,
            orders.c.closed_units_shipped,
            orders.c.closed_units,
            orders.c.closed_units_at,
            snapshots.c.snapshot_hash,
            snapshots.c.snapshot,
        ).where(
            orders.c.seller_id == seller_id,
            orders.c.mp_order_number.in_([snapshot.mp_order_number for snapshot, _ in part]),
        )
        query = query.select_from(orders.outerjoin(snapshots, is_same_order(snapshots, orders)))
        ledger_orders = {row.mp_order_number: row for row in connection.execute(query)}
        newest: dict[str, Snapshot] = {}  # of those in `part`, which may have an order twice
        closed_units: _ClosedUnits = {
            order.mp_order_number: (order.closed_units_at, ledger.decode_units(order.closed_units))
            for order in ledger_orders.values()
            if order.closed_units is not None
        }
        events: list[Event] = []
        reads = [
            _Read(snapshot.mp_order_number, snapshot, read_at, encode(snapshot))
            for snapshot, read_at in part
            if snapshot.mp_order_number in ledger_orders
        ]
        newest_reads = _keep_those_open(connection, seller_id, ledger_orders, reads)
        for at, read in enumerate(reads):
            number, snapshot, read_at, _ = read
            order = ledger_orders[number]
            if order.phase == Phase.CLOSED:
                events += _keep_closed(connection, seller_id, order, snapshot, read_at, closed_units)
            if at not in newest_reads:
                continue
            kept += 1
            if number in newest or order.snapshot_hash != read.snapshot_hash:
                before = newest.get(number) or _decoded(order.snapshot)
                known = closed_units.get(number) if before is None and order.snapshot is None else None
                if known is not None:  # it is open again; its snapshot went when it was closed
                    if known[0] <= read_at:
                        units = count_units({}, snapshot.fulfillments)
                        events += units_changed(seller_id, number, known[1], units, read_at=read_at)
                elif before != snapshot:
                    events.append(changed(seller_id, before, snapshot, read_at=read_at))
                newest[number] = snapshot
        order_events.record(connection, events, run_id=run_id)
    return kept


def _decoded(text: str | None) -> Snapshot | None:
    """A stored snapshot; None if there is none or it cannot be decoded."""
    try:
        return None if text is None else decode_snapshot(text)
    except (msgspec.DecodeError, UnicodeError):
        return None


def _keep_those_open(
    connection: Connection, seller_id: str, ledger_orders: Mapping[str, Any], reads: Sequence[_Read]
) -> set[int]:
    """Stores those of open orders, and ends the mark of missing ones; returns the places of those that are the newest."""
    missing: set[int] = set()
    open_ones: list[tuple[int, _Read]] = []
    for at, read in enumerate(reads):
        order = ledger_orders[read.number]
        if order.missing_since is not None and order.missing_since <= read.read_at:
            missing.add(at)
            ledger.found_again(connection, seller_id, read.number)
        if order.phase in OPEN_PHASES and order.first_put_at is not None:
            open_ones.append((at, read))
    are_newest = _keep_each(connection, seller_id, [read for _, read in open_ones])
    newest = {at for (at, _), is_newest in zip(open_ones, are_newest, strict=True) if is_newest}
    for at in sorted(newest):
        number = reads[at].number
        if at in missing or ledger_orders[number].conflicting_state is not None:
            # What the order was waiting for may have happened, even if the snapshot is unchanged.
            invalidate_validation(connection, seller_id, number)
    return newest


def _keep_closed(
    connection: Connection,
    seller_id: str,
    order: Any,
    snapshot: Snapshot,
    read_at: datetime,
    closed_units: _ClosedUnits,
) -> list[Event]:
    number, units = snapshot.mp_order_number, count_units({}, snapshot.fulfillments)
    ledger.keep_closed_units(connection, seller_id, number, units, read_at=read_at)
    known_at, known = closed_units.get(number, (read_at, None))
    events: list[Event] = []
    if known_at <= read_at:
        if known is not None:
            events += units_changed(seller_id, number, known, units, read_at=read_at)
        closed_units[number] = read_at, {line: (of.shipped, of.cancelled) for line, of in units.items()}
    before, shipped = order.closed_units_shipped or 0, sum(of_line.shipped for of_line in units.values())
    if shipped == before or 0 < shipped < before:
        return events
    closed = ledger.read(connection, seller_id, number)
    if closed is not None and closed.is_to_acknowledge and closed.closed_units_shipped == shipped:
        log.warning(
            "Order %s of seller %s was closed as %s, but the seller has shipped %s; see `feedamp status`.",
            number,
            seller_id,
            closed.accepted_state,
            counted(closed.shipped_though_cancelled, "unit"),
        )
    return events


def read(connection: Connection, seller_id: str, mp_order_number: str) -> StoredSnapshot | None:
    """The stored snapshot of one order, or None.

    Raises:
        UnreadableError: the stored text cannot be decoded; the message names the order.
    """
    row = connection.execute(_ONE, {"of_seller": seller_id, "of_number": mp_order_number}).first()
    return None if row is None else _stored(dict(row._mapping))


def read_all(
    connection: Connection, keys: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], StoredSnapshot | UnreadableError]:
    """As `read`, for several orders by seller and number, with the error of a text that cannot be decoded."""
    found: dict[tuple[str, str], StoredSnapshot | UnreadableError] = {}
    for part in in_parts(dict.fromkeys(keys)):
        columns = columns_of(connection, snapshots, part)
        keys_of_rows = zip(columns["seller_id"], columns["mp_order_number"], strict=True)
        fields = zip(*(columns[name] for name in StoredSnapshot.__struct_fields__), strict=True)
        for key, (text, *others) in zip(keys_of_rows, fields, strict=True):  # the snapshot is the first field
            try:
                found[key] = StoredSnapshot(decode_stored(*key, text), *others)
            except UnreadableError as error:
                found[key] = error
    return found


def to_validate(connection: Connection, seller_ids: Sequence[str]) -> dict[str, list[str]]:
    """Numbers of open orders whose newest snapshot is not validated, by seller."""
    return by_seller(connection, _of_open_orders(sa.text(IS_CHANGED)), seller_ids)


def lingering(connection: Connection, seller_ids: Sequence[str], *, before: datetime) -> dict[str, list[str]]:
    """Numbers of orders with a resolved error that FeedAMP still lists, not yet marked as action required, by seller.

    FeedAMP has listed it since `before` or earlier.
    """
    condition = sa.and_(snapshots.c.error_lingers_since <= before, snapshots.c.needs_person.is_(False))
    return by_seller(connection, _of_open_orders(condition), seller_ids)


def held_under_other_codes(
    connection: Connection, seller_ids: Sequence[str], codes: Mapping[str, str | None]
) -> dict[str, list[str]]:
    """Numbers of open orders with a held finding whose code is no longer that of its kind in `codes`, by seller.

    Without those that the marketplace ships: their findings stay as they are.
    """
    of_kinds = [
        sa.and_(findings.c.kind == kind, findings.c.api_code.is_distinct_from(code))
        for kind, code in codes.items()
    ]
    is_of_seller = sa.exists().where(
        is_same_order(snapshots, findings), snapshots.c.waits_for.is_distinct_from(BY_MARKETPLACE)
    )
    query = _with_findings(sa.text(IS_HELD)).where(sa.or_(*of_kinds), is_of_seller)
    return by_seller(connection, query.distinct(), seller_ids)


def closable(connection: Connection, seller_ids: Sequence[str], *, now: datetime) -> dict[str, list[str]]:
    """Numbers of orders that validation found closable, by seller.

    An order that FeedAMP does not have is included only when its next read is due.
    """
    is_due = orders.c.read_back_at <= now
    can_be_read = sa.or_(orders.c.missing_since.is_(None), is_due)
    return by_seller(connection, _of_open_orders(sa.text(IS_CLOSABLE), can_be_read), seller_ids)


def closable_but_missing(connection: Connection, seller_ids: Sequence[str]) -> dict[str, list[str]]:
    """Numbers of closable orders that FeedAMP does not have, by seller."""
    is_missing = orders.c.missing_since.is_not(None)
    return by_seller(connection, _of_open_orders(sa.text(IS_CLOSABLE), is_missing), seller_ids)


def record_validations(
    connection: Connection, validated: Iterable[tuple[StoredSnapshot, Mapping[str, Any]]]
) -> None:
    """Stores results of validations, of snapshots that were read in the same transaction."""
    of_result: dict[tuple[Any, ...], list[tuple[str, str]]] = {}  # most orders wait for the same
    for stored, values in validated:
        result = tuple([values[name] for name in _RESULT])
        of_result.setdefault(result, []).append((stored.seller_id, stored.mp_order_number))
    for result, keys in of_result.items():
        for part in in_parts(keys):
            given = {"listed": as_list(part), **dict(zip(_RESULT, result, strict=True))}
            connection.execute(_VALIDATED, given)


def refuse_closing(connection: Connection, seller_id: str, mp_order_number: str, reason: str) -> None:
    """Records that FeedAMP refused to close an order: action is required, and the next try waits for a new snapshot."""
    _require_action(connection, seller_id, mp_order_number, reason, validated_hash=snapshots.c.snapshot_hash)


def explain_closable(connection: Connection, seller_id: str, mp_order_number: str, reason: str) -> None:
    """Records why an order that can be closed was not; the next run tries again. Safe to repeat."""
    words = reason[:LONGEST_INDEXED_REASON]
    change_order(connection, snapshots, seller_id, mp_order_number, snapshots.c.closable, waits_for=words)


def set_aside(connection: Connection, seller_id: str, mp_order_number: str) -> None:
    """Marks an order whose stored snapshot cannot be decoded: action is required, and the next extraction reads it again.

    The order remains unvalidated, so that any newer snapshot is evaluated. Safe to repeat.
    """
    _require_action(connection, seller_id, mp_order_number, UNDECODABLE, validated_hash=None)


def _require_action(
    connection: Connection, seller_id: str, mp_order_number: str, reason: str, *, validated_hash: Any
) -> None:
    values = {"closable": False, "waits_for": reason, "needs_person": True, "validated_hash": validated_hash}
    change_order(connection, snapshots, seller_id, mp_order_number, **values)


def invalidate_validation(connection: Connection, seller_id: str, mp_order_number: str) -> None:
    """Makes the next run validate the order again although its snapshot is unchanged. Safe to repeat."""
    change_order(connection, snapshots, seller_id, mp_order_number, validated_hash=None)


def invalidate_validations(connection: Connection, keys: Iterable[tuple[str, str]]) -> None:
    """As `invalidate_validation`, for several orders by seller and number."""
    for part in in_parts(keys):
        connection.execute(_INVALIDATE, {"listed": as_list(part)})


def remove(connection: Connection, keys: Collection[tuple[str, str]]) -> None:
    """Removes the snapshots of orders that are no longer open; their units remain in the ledger. Safe to repeat."""
    for key, stored in read_all(connection, keys).items():
        if not isinstance(stored, UnreadableError):
            units = count_units({}, stored.snapshot.fulfillments)
            ledger.keep_closed_units(connection, *key, units, read_at=stored.read_at)
    for part in in_parts(keys):
        connection.execute(sa.delete(snapshots).where(is_any_order(snapshots, part)))


def _of_open_orders(
    condition: sa.ColumnElement[bool] | sa.TextClause, *conditions_of_order: sa.ColumnElement[bool]
) -> sa.Select[Any]:
    """Selects seller and number of open orders, by the condition of their snapshots."""
    # No join: SQLite would begin with the orders, and look at all that are open.
    is_open = sa.exists().where(
        is_same_order(orders, snapshots), orders.c.phase.in_(OPEN_PHASES), *conditions_of_order
    )
    return (
        sa.select(snapshots.c.seller_id, snapshots.c.mp_order_number)
        .where(condition, is_open, of_sellers(snapshots))
        .order_by(snapshots.c.mp_order_number)
    )


def _with_findings(condition: sa.ColumnElement[bool] | sa.TextClause) -> sa.Select[Any]:
    """Selects seller and number of open orders, for each finding of this condition."""
    return sa.select(findings.c.seller_id, findings.c.mp_order_number).where(
        condition,
        sa.exists().where(is_same_order(orders, findings), orders.c.phase.in_(OPEN_PHASES)),
        of_sellers(findings),
    )


# Seller and number of open orders to be read by number: FeedAMP lists or should list an error, or the snapshot is unusable,
# which requires action. FeedAMP may drop an error without counting that as a seller's update (contract 7.6), so the filter
# `seller_updated_after` would miss it. Each by an index: with both in one condition, all snapshots of a seller would be read.
WATCHED = (
    _of_open_orders(
        sa.and_(
            sa.text(MAY_BE_STUCK),
            sa.or_(snapshots.c.error_lingers_since.is_not(None), snapshots.c.waits_for == UNDECODABLE),
        )
    ),
    _with_findings(findings.c.state == REPORTED),
)


def _stored(values: dict[str, Any]) -> StoredSnapshot:
    snapshot = decode_stored(values["seller_id"], values["mp_order_number"], values["snapshot"])
    return StoredSnapshot(**{**values, "snapshot": snapshot})
