"""Findings and how far their reports have come. Every change is also put in the outbox."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.models import ErrorReport
from feedamp.state import outbox
from feedamp.state.schema import findings
from feedamp.state.upsert import upsert
from feedamp.tables import FINDINGS

HELD = "held"
TO_REPORT = "to_report"
REPORTED = "reported"
RESOLVED = "resolved"
WAIVED = "waived"
OPEN = (HELD, TO_REPORT, REPORTED)


@dataclass(frozen=True)
class StoredFinding:
    """One finding as it stands."""

    finding_id: str
    seller_id: str
    mp_order_number: str
    mp_line_number: str | None
    kind: str
    severity: str
    api_code: str | None
    message: str
    state: str
    line_hash: str
    found_at: datetime
    intent_at: datetime | None = None
    reported_at: datetime | None = None
    listed_at: datetime | None = None
    resolved_at: datetime | None = None
    note: str | None = None

    @property
    def blocks_closing(self) -> bool:
        """An open error finding, reported or not (promise 6)."""
        return self.severity == "error" and self.state in OPEN

    @property
    def report(self) -> ErrorReport:
        """The item to POST."""
        # A line that was never ordered is unknown to FeedAMP, so it stands in the message alone.
        line = None if self.kind == "unknown_line" else self.mp_line_number
        return ErrorReport(code=self.api_code or "", message=self.message, mp_line_number=line)

    @property
    def listed_as(self) -> tuple[str, str, str | None]:
        """How FeedAMP lists it: (code, message, line)."""
        report = self.report
        return report.code, report.message, report.mp_line_number

    def but(self, **changes: Any) -> StoredFinding:
        """The same finding with some fields changed."""
        return replace(self, **changes)


def of_order(connection: Connection, seller_id: str, mp_order_number: str) -> list[StoredFinding]:
    """All findings an order ever had, oldest first."""
    query = (
        sa.select(findings)
        .where(findings.c.seller_id == seller_id, findings.c.mp_order_number == mp_order_number)
        .order_by(findings.c.found_at, findings.c.finding_id)
    )
    return [StoredFinding(**row._mapping) for row in connection.execute(query)]


def read(connection: Connection, finding_id: str) -> StoredFinding | None:
    """One finding by id."""
    row = connection.execute(sa.select(findings).where(findings.c.finding_id == finding_id)).first()
    return None if row is None else StoredFinding(**row._mapping)


def find(
    connection: Connection, states: Sequence[str] = (), seller_ids: Sequence[str] = ()
) -> list[StoredFinding]:
    """Findings in some states, of some sellers; all of them when none are named."""
    query = sa.select(findings).order_by(findings.c.found_at, findings.c.finding_id)
    if states:
        query = query.where(findings.c.state.in_(states))
    if seller_ids:
        query = query.where(findings.c.seller_id.in_(seller_ids))
    return [StoredFinding(**row._mapping) for row in connection.execute(query)]


def to_report(connection: Connection, seller_ids: Sequence[str]) -> dict[str, list[str]]:
    """Numbers of orders with reports to send, by seller."""
    query = (
        sa.select(findings.c.seller_id, findings.c.mp_order_number)
        .where(findings.c.state == TO_REPORT)
        .distinct()
        .order_by(findings.c.mp_order_number)
    )
    wanted = set(seller_ids)
    numbers: dict[str, list[str]] = {}
    for row in connection.execute(query):
        if row.seller_id in wanted:
            numbers.setdefault(row.seller_id, []).append(row.mp_order_number)
    return numbers


def any_ever_listed(connection: Connection) -> bool:
    """Whether FeedAMP has ever shown one of our errors on an order: only then does its absence tell something."""
    query = sa.select(findings.c.finding_id).where(findings.c.listed_at.is_not(None)).limit(1)
    return connection.execute(query).first() is not None


def write(connection: Connection, changed: Iterable[StoredFinding], *, now: datetime) -> None:
    """Stores findings and sends them on their way to the warehouse."""
    items = list(changed)
    upsert(connection, findings, [{n: getattr(f, n) for n in f.__dataclass_fields__} for f in items])
    outbox.put(
        connection,
        FINDINGS.name,
        [{name: getattr(finding, name) for name in FINDINGS.names} for finding in items],
        recorded_at=now,
    )
