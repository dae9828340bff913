"""PURE: decides which faults are reported, which findings are resolved, and when a fault is reported again (promise 5)."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

from feedamp.models import ListedError
from feedamp.rules.checks import HASH_MARK, Finding, Kind, default_code
from feedamp.rules.finding import HELD, OPEN, REPORTED, RESOLVED, TO_REPORT, WAIVED, StoredFinding

ORDER_CLOSED = "the order is closed"


class ErrorListing(msgspec.Struct, frozen=True):
    """The errors that a snapshot lists. `listing_works`: FeedAMP has listed a reported error on some order before, so an
    error that is not listed counts as dropped (Q12)."""

    errors: tuple[ListedError, ...] | None
    read_at: datetime
    listing_works: bool

    def lists(self, finding: StoredFinding) -> bool:
        """Whether FeedAMP lists this error, with the same code, message and line."""
        return any((e.code, e.message, e.mp_line_number) == finding.listed_as for e in self.errors or ())


def code_for(kind: Kind, error_codes: Mapping[str, str | None]) -> str | None:
    """The code with which findings of a kind are reported; None: they are held and not reported."""
    return error_codes[kind.value] if kind.value in error_codes else default_code(kind)


def follow_up(
    seller_id: str,
    mp_order_number: str,
    faults: Iterable[Finding],
    stored: Sequence[StoredFinding],
    look: ErrorListing,
    *,
    error_codes: Mapping[str, str | None],
    now: datetime,
) -> list[StoredFinding]:
    """The findings of one order that are new or have changed; the others stay as they are stored."""
    known = {finding.finding_id: finding for finding in stored}
    current: dict[str, StoredFinding] = {}
    for fault in faults:
        finding_id = fault.id_for(seller_id, mp_order_number)
        code = code_for(fault.kind, error_codes)
        fresh = StoredFinding(
            finding_id=finding_id,
            seller_id=seller_id,
            mp_order_number=mp_order_number,
            mp_line_number=fault.mp_line_number,
            kind=fault.kind.value,
            severity=fault.severity.value,
            api_code=code,
            message=fault.message,
            state=HELD if code is None else TO_REPORT,
            line_hash=fault.line_hash,
            found_at=now,
            carrier=fault.carrier,
            tracking_number=fault.tracking_number,
        )
        before = known.get(finding_id)
        finding = fresh if before is None else _still_found(before, fresh, look, now)
        is_listed = finding.state == TO_REPORT and look.lists(finding)
        current[finding_id] = _as_listed(finding, look, now) if is_listed else finding
    resolved = [
        finding.but(state=RESOLVED, resolved_at=now, intent_at=None)
        for finding in stored
        if finding.state in OPEN and finding.finding_id not in current
    ]
    return [f for f in current.values() if known.get(f.finding_id) != f] + resolved


def _still_found(
    before: StoredFinding, fresh: StoredFinding, look: ErrorListing, now: datetime
) -> StoredFinding:
    """The next state of a stored finding whose fault was found again.

    What FeedAMP lists is never reported again. The hash of an earlier version cannot be compared: it counts as unchanged
    and is replaced.
    """
    if before.state == WAIVED:
        return before
    if before.state == RESOLVED:
        return fresh.but(found_at=before.found_at)
    if before.state in (TO_REPORT, REPORTED) and look.lists(before):
        return _as_listed(_seen_again(before, fresh), look, now)
    has_changed = before.line_hash.startswith(HASH_MARK) and before.line_hash != fresh.line_hash
    if not has_changed:
        before = _seen_again(before, fresh)
    if before.state == HELD:
        # FeedAMP refused the report; it is sent again only if the line or the code has changed.
        is_same = not has_changed and before.api_code == fresh.api_code
        is_refused_unchanged = before.note is not None and is_same
        return before if is_refused_unchanged else fresh.but(found_at=before.found_at)
    if before.state == TO_REPORT:
        if before.intent_at is not None and not has_changed:
            return before  # the report may have arrived; its message must stay the same to be recognized
        return fresh.but(found_at=before.found_at)
    if has_changed:
        return fresh.but(found_at=before.found_at)
    return _unless_dropped(before, look)


def _seen_again(before: StoredFinding, fresh: StoredFinding) -> StoredFinding:
    """The stored finding with what earlier versions stored otherwise or not at all."""
    return before.but(line_hash=fresh.line_hash, carrier=fresh.carrier, tracking_number=fresh.tracking_number)


def _as_listed(finding: StoredFinding, look: ErrorListing, now: datetime) -> StoredFinding:
    """A finding that FeedAMP lists is reported, whoever has reported it."""
    reported_at = finding.reported_at or finding.intent_at or look.read_at
    return finding.but(state=REPORTED, reported_at=reported_at, listed_at=finding.listed_at or now)


def _unless_dropped(before: StoredFinding, look: ErrorListing) -> StoredFinding:
    """A reported finding that FeedAMP does not list: it is reported again if FeedAMP has dropped it."""
    is_later = before.reported_at is not None and look.read_at > before.reported_at
    would_be_listed = look.errors is not None and (look.listing_works or before.listed_at is not None)
    if is_later and would_be_listed:
        return before.but(state=TO_REPORT, intent_at=None, listed_at=None)
    return before


def hold_back(stored: Iterable[StoredFinding]) -> list[StoredFinding]:
    """The findings that change because their order is closed: those still to be reported are held."""
    return [f.but(state=HELD, intent_at=None, note=ORDER_CLOSED) for f in stored if f.state == TO_REPORT]


def release(stored: Iterable[StoredFinding]) -> list[StoredFinding]:
    """The findings that change because their order is open again: those that `hold_back` held."""
    return [f.but(state=TO_REPORT, note=None) for f in stored if f.state == HELD and f.note == ORDER_CLOSED]


def may_be_listed(finding: StoredFinding) -> bool:
    """Whether FeedAMP may still list this error: the finding is held, to be reported, reported or waived."""
    return finding.state in (TO_REPORT, REPORTED, HELD, WAIVED)
