"""Stores findings and the state of their reports. Every change is also written to the outbox.

What is wrong with an order: `rules/checks.py`; when that is reported again or resolved: `rules/follow_up.py`.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.rules.finding import REPORTED, TO_REPORT, StoredFinding
from feedamp.rules.order_story import of_finding
from feedamp.state import order_events, outbox
from feedamp.state.columns import columns_of
from feedamp.state.schema import findings
from feedamp.state.statements import by_seller, in_parts, is_order, of_sellers, upsert
from feedamp.tables import FINDINGS, RECORDED_AT

_OF_ORDER = (
    sa.select(findings)
    .where(is_order(findings, sa.bindparam("of_seller"), sa.bindparam("of_number")))
    .order_by(findings.c.found_at, findings.c.finding_id)
)


def of_order(connection: Connection, seller_id: str, mp_order_number: str) -> list[StoredFinding]:
    """All findings of an order, also resolved ones, oldest first."""
    return _read(connection, _OF_ORDER, of_seller=seller_id, of_number=mp_order_number)


def of_orders(
    connection: Connection, keys: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], list[StoredFinding]]:
    """As `of_order`, of several orders by seller and number; those without any are left out."""
    found: dict[tuple[str, str], list[StoredFinding]] = {}
    for part in in_parts(dict.fromkeys(keys)):
        columns = columns_of(connection, findings, part)
        of_part = [
            StoredFinding(**dict(zip(columns, row, strict=True)))
            for row in zip(*columns.values(), strict=True)
        ]
        for finding in sorted(of_part, key=lambda one: (one.found_at, one.finding_id)):
            found.setdefault((finding.seller_id, finding.mp_order_number), []).append(finding)
    return found


def read(connection: Connection, finding_id: str) -> StoredFinding | None:
    return next(iter(_read(connection, sa.select(findings).where(findings.c.finding_id == finding_id))), None)


def _read(connection: Connection, query: sa.Select[Any], **given: str) -> list[StoredFinding]:
    return [StoredFinding(**row._mapping) for row in connection.execute(query, given)]


def find(
    connection: Connection,
    states: Sequence[str] = (),
    seller_ids: Sequence[str] = (),
    kinds: Sequence[str] = (),
) -> list[StoredFinding]:
    """Findings in the named states, of the named sellers and kinds; an empty argument selects all."""
    query = sa.select(findings).order_by(findings.c.found_at, findings.c.finding_id)
    if states:
        query = query.where(findings.c.state.in_(states))
    if seller_ids:
        query = query.where(findings.c.seller_id.in_(seller_ids))
    if kinds:
        query = query.where(findings.c.kind.in_(kinds))
    return _read(connection, query)


def to_report(connection: Connection, seller_ids: Sequence[str]) -> dict[str, list[str]]:
    """Order numbers with findings to report, by seller."""
    query = (
        sa.select(findings.c.seller_id, findings.c.mp_order_number)
        .where(findings.c.state == TO_REPORT, of_sellers(findings))
        .distinct()
        .order_by(findings.c.mp_order_number)
    )
    return by_seller(connection, query, seller_ids)


def any_ever_listed(connection: Connection) -> bool:
    """Whether FeedAMP has ever listed a reported error on an order; until then, a missing error proves nothing."""
    query = sa.select(findings.c.finding_id).where(findings.c.listed_at.is_not(None)).limit(1)
    return connection.execute(query).first() is not None


def reported_unlisted(connection: Connection) -> set[tuple[str, str]]:
    """Orders, by seller and number, with a reported error that FeedAMP has not been seen to list."""
    query = sa.select(findings.c.seller_id, findings.c.mp_order_number).where(
        findings.c.state == REPORTED, findings.c.listed_at.is_(None)
    )
    return {(row.seller_id, row.mp_order_number) for row in connection.execute(query)}


def write(
    connection: Connection, changed: Iterable[StoredFinding], *, run_id: str | None, now: datetime
) -> None:
    """Stores findings and puts them in the outbox, with what has happened to them."""
    items = list(changed)
    if not items:
        return
    known = {
        stored.finding_id: stored
        for part in in_parts(finding.finding_id for finding in items)
        for stored in _read(connection, sa.select(findings).where(findings.c.finding_id.in_(part)))
    }
    events = [event for f in items for event in of_finding(known.get(f.finding_id), f, now=now)]
    order_events.record(connection, events, run_id=run_id)
    upsert(connection, findings, [{n: getattr(f, n) for n in f.__dataclass_fields__} for f in items])
    outbox.put(
        connection,
        FINDINGS.name,
        [{n: getattr(f, n) for n in FINDINGS.names if n != RECORDED_AT} for f in items],
        recorded_at=now,
    )
