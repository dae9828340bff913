"""Which faults become reports and when a report goes out again: promise 5 as a table."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from feedamp.models import ListedError
from feedamp.rules.checks import Finding, Kind
from feedamp.rules.finding import (
    HELD,
    OPEN,
    REPORTED,
    RESOLVED,
    TO_REPORT,
    WAIVED,
    StoredFinding,
)
from feedamp.rules.follow_up import (
    ErrorListing,
    follow_up,
    may_be_listed,
)

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
FOUND = NOW - timedelta(hours=3)
SENT = NOW - timedelta(hours=2)
CODE = "INVALID_TRACKING_NUMBER"

FAULT = Finding(Kind.INVALID_TRACKING, "A", "UPS 1Z", "that is no number of UPS", "2:as it was", "UPS", "1Z")
CHANGED = Finding(Kind.INVALID_TRACKING, "A", "UPS 1Z", "that is no number of UPS", "2:with one unit more")
WARNING = Finding(Kind.SHIPPED_IN_FUTURE, "A", "2027-01-01", "to come", "2:as it was")
LISTED = (ListedError(code=CODE, message="that is no number of UPS", mp_line_number="A"),)


def look(
    errors: tuple[ListedError, ...] | None = (),
    *,
    works: bool = True,
    read_at: datetime = NOW - timedelta(minutes=1),
) -> ErrorListing:
    return ErrorListing(errors, read_at, works)


def stored(state: str, **changes: Any) -> StoredFinding:
    """The finding as it was stored when the line had the content of `FAULT`."""
    [fresh] = follow_up("S1", "M-1", [FAULT], [], look(), error_codes={}, now=FOUND)
    return fresh.but(state=state, **changes)


def follow(
    faults: list[Finding],
    before: list[StoredFinding],
    seen: ErrorListing,
    codes: dict[str, str | None] | None = None,
) -> list[StoredFinding]:
    return follow_up("S1", "M-1", faults, before, seen, error_codes=codes or {}, now=NOW)


REPORTED_ONCE = stored(REPORTED, reported_at=SENT)
SEEN_LISTED = stored(REPORTED, reported_at=SENT, listed_at=SENT)
UNCLEAR = stored(TO_REPORT, intent_at=SENT)
OLDER = {"line_hash": "a hash that an earlier version made of the whole line", "tracking_number": None}
REFUSED = stored(HELD, note="no such code")


@pytest.mark.parametrize(
    ("before", "fault", "seen", "after"),
    [
        pytest.param(None, FAULT, look(), TO_REPORT, id="new: to be reported"),
        pytest.param(None, WARNING, look(), HELD, id="a warning has no code and is held"),
        pytest.param(stored(TO_REPORT), FAULT, look(), None, id="still to be reported: left alone"),
        pytest.param(REPORTED_ONCE, FAULT, look(LISTED), REPORTED, id="reported and listed: noted as listed"),
        pytest.param(SEEN_LISTED, FAULT, look(LISTED), None, id="reported and listed again: left alone"),
        pytest.param(
            REPORTED_ONCE, CHANGED, look(None), TO_REPORT, id="the shipment changed: reported again"
        ),
        pytest.param(REPORTED_ONCE, CHANGED, look(LISTED), REPORTED, id="changed, but listed: not again"),
        pytest.param(None, FAULT, look(LISTED), REPORTED, id="new, but listed: not reported again"),
        pytest.param(stored(TO_REPORT), FAULT, look(LISTED), REPORTED, id="to be reported, but listed"),
        pytest.param(UNCLEAR, CHANGED, look(LISTED), REPORTED, id="answer lost, changed, but listed"),
        pytest.param(
            REPORTED_ONCE.but(**OLDER), FAULT, look(None), REPORTED, id="reported by an earlier version"
        ),
        pytest.param(
            UNCLEAR.but(**OLDER), CHANGED, look(()), TO_REPORT, id="sent by an earlier version: read first"
        ),
        pytest.param(REFUSED.but(**OLDER), CHANGED, look(), HELD, id="refused by an earlier version: held"),
        pytest.param(
            REPORTED_ONCE, FAULT, look(()), TO_REPORT, id="no longer listed, listing works: reported again"
        ),
        pytest.param(
            SEEN_LISTED, FAULT, look((), works=False), TO_REPORT, id="was listed itself and is no more: again"
        ),
        pytest.param(
            REPORTED_ONCE,
            FAULT,
            look((), works=False),
            None,
            id="not listed, but nothing ever was: left alone",
        ),
        pytest.param(
            SEEN_LISTED, FAULT, look(None), None, id="FeedAMP shows no list: its absence tells nothing"
        ),
        pytest.param(
            REPORTED_ONCE,
            FAULT,
            look((), read_at=SENT - timedelta(minutes=1)),
            None,
            id="read before it was reported: left alone",
        ),
        pytest.param(
            REPORTED_ONCE,
            FAULT,
            look((), read_at=SENT),
            None,
            id="read at the moment it was sent: left alone",
        ),
        pytest.param(UNCLEAR, FAULT, look(), None, id="answer lost: the message stays comparable"),
        pytest.param(UNCLEAR, CHANGED, look(), TO_REPORT, id="answer lost, then it changed: again"),
        pytest.param(REFUSED, FAULT, look(), None, id="refused by FeedAMP: not sent again unchanged"),
        pytest.param(REFUSED, CHANGED, look(), TO_REPORT, id="refused, then the line changed: again"),
        pytest.param(stored(WAIVED), FAULT, look(), None, id="waived: left alone"),
        pytest.param(stored(WAIVED), CHANGED, look(), None, id="waived, then the line changed: left alone"),
        pytest.param(stored(RESOLVED, resolved_at=SENT), FAULT, look(), TO_REPORT, id="resolved, then back"),
        pytest.param(REPORTED_ONCE, None, look(), RESOLVED, id="reported, then resolved"),
        pytest.param(stored(TO_REPORT), None, look(), RESOLVED, id="resolved before it was reported"),
        pytest.param(REFUSED, None, look(), RESOLVED, id="held, then resolved"),
        pytest.param(stored(WAIVED), None, look(), None, id="waived, then corrected: stays waived"),
        pytest.param(
            stored(RESOLVED, resolved_at=SENT), None, look(), None, id="resolved and still resolved"
        ),
    ],
)
def test_a_finding_changes_state_as_the_table_says(
    before: StoredFinding | None, fault: Finding | None, seen: ErrorListing, after: str | None
) -> None:
    changed = follow([fault] if fault else [], [before] if before else [], seen)
    assert [finding.state for finding in changed] == ([after] if after else [])


@pytest.mark.parametrize(
    ("fault", "codes", "state", "code"),
    [
        pytest.param(FAULT, {}, TO_REPORT, CODE, id="no option: the default code"),
        pytest.param(
            FAULT, {"invalid_tracking": "BAD_PARCEL"}, TO_REPORT, "BAD_PARCEL", id="a code of its own"
        ),
        pytest.param(FAULT, {"invalid_tracking": None}, HELD, None, id="null holds an error back"),
        pytest.param(WARNING, {"shipped_in_future": "LATE"}, TO_REPORT, "LATE", id="a code for a warning"),
        pytest.param(FAULT, {"bad_quantity": None}, TO_REPORT, CODE, id="an option for another kind"),
    ],
)
def test_error_codes_decide_what_is_sent(
    fault: Finding, codes: dict[str, str | None], state: str, code: str | None
) -> None:
    [finding] = follow([fault], [], look(), codes)
    assert (finding.state, finding.api_code) == (state, code)


def test_what_an_earlier_version_reported_is_not_sent_again() -> None:
    [adopted] = follow([FAULT], [REPORTED_ONCE.but(**OLDER)], look(None))
    assert (adopted.state, adopted.line_hash) == (REPORTED, FAULT.line_hash)
    assert adopted.tracking_number == FAULT.tracking_number
    [unclear] = follow([CHANGED], [UNCLEAR.but(**OLDER)], look(()))
    assert unclear.intent_at == SENT
    [again] = follow([CHANGED], [adopted], look(None))
    assert (again.state, again.line_hash) == (TO_REPORT, CHANGED.line_hash)


def test_a_held_error_goes_out_once_it_has_a_code() -> None:
    held = follow([FAULT], [], look(), {"invalid_tracking": None})
    [finding] = follow([FAULT], held, look())
    assert finding.state == TO_REPORT


def test_a_held_error_still_blocks_closing() -> None:
    [held] = follow([FAULT], [], look(), {"invalid_tracking": None})
    assert held.blocks_closing


def test_a_warning_never_blocks_closing() -> None:
    [warning] = follow([WARNING], [], look(), {"shipped_in_future": "LATE"})
    assert not warning.blocks_closing


@pytest.mark.parametrize("state", [RESOLVED, WAIVED])
def test_a_resolved_or_waived_finding_blocks_nothing(state: str) -> None:
    assert not stored(state).blocks_closing


def test_a_repeated_report_starts_without_the_old_intent() -> None:
    before = SEEN_LISTED.but(intent_at=SENT)
    [again] = follow([FAULT], [before], look(()))
    assert (again.intent_at, again.listed_at) == (None, None)


def test_a_fault_that_comes_back_keeps_the_day_it_was_first_found() -> None:
    [again] = follow([FAULT], [stored(RESOLVED, resolved_at=SENT)], look())
    assert (again.found_at, again.resolved_at) == (FOUND, None)


def test_a_resolved_finding_records_when() -> None:
    [resolved] = follow([], [REPORTED_ONCE], look())
    assert (resolved.resolved_at, resolved.reported_at) == (NOW, SENT)


def test_another_value_on_the_same_line_is_another_finding() -> None:
    other = Finding(
        Kind.INVALID_TRACKING, "A", "UPS 2Z", "no number of UPS either", "line with another number"
    )
    changed = follow([other], [REPORTED_ONCE], look())
    assert sorted(finding.state for finding in changed) == [RESOLVED, TO_REPORT]


@pytest.mark.parametrize("state", [*OPEN, WAIVED])
def test_feedamp_may_list_what_is_open_or_waived(state: str) -> None:
    assert may_be_listed(stored(state))


def test_an_error_listed_for_a_resolved_finding_is_unexplained() -> None:
    assert not may_be_listed(stored(RESOLVED))


def test_an_unknown_line_is_reported_without_its_number() -> None:
    [finding] = follow([Finding(Kind.UNKNOWN_LINE, "X", "X", "not ordered", "h")], [], look())
    assert (finding.mp_line_number, finding.report.mp_line_number) == ("X", None)
