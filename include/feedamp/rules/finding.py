"""PURE: a stored finding and the states of its report."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from feedamp.models import ErrorReport

HELD = "held"
TO_REPORT = "to_report"
REPORTED = "reported"
RESOLVED = "resolved"
WAIVED = "waived"
OPEN = (HELD, TO_REPORT, REPORTED)


@dataclass(frozen=True)
class StoredFinding:
    """One finding in its current state."""

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
    carrier: str | None = None
    tracking_number: str | None = None

    @property
    def blocks_closing(self) -> bool:
        """An open error finding, reported or not (promise 6)."""
        return self.severity == "error" and self.state in OPEN

    @property
    def report(self) -> ErrorReport:
        # FeedAMP does not know a line that was never ordered, so only the message names it.
        line = None if self.kind == "unknown_line" else self.mp_line_number
        return ErrorReport(code=self.api_code or "", message=self.message, mp_line_number=line)

    @property
    def listed_as(self) -> tuple[str, str, str | None]:
        """How FeedAMP lists it: (code, message, line)."""
        report = self.report
        return report.code, report.message, report.mp_line_number

    def but(self, **changes: Any) -> StoredFinding:
        return replace(self, **changes)
