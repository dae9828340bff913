"""The story of an order that has more than a person reads."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from feedamp.rules.order_story import Kind, sentence, together

NOW = datetime(2026, 3, 2, tzinfo=UTC)


def told(kind: Kind, line: str, *, at: datetime = NOW, run_id: str | None = "r") -> dict[str, Any]:
    details = {"kind": "invalid_tracking", "mp_line_number": line, "finding_id": f"f{line}"}
    text = sentence(kind, details)
    return {"kind": kind, "occurred_at": at, "run_id": run_id, "details": details, "text": text}


def test_what_one_run_did_with_many_lines_at_a_moment_is_told_once() -> None:
    found = [told(Kind.FINDING, line) for line in "12"]
    reported = [told(Kind.REPORTED, line) for line in "123"]
    assert [event["text"] for event in together([*found, *reported])] == [
        "A fault was found: invalid_tracking on line 1 (finding f1), and 1 more of this kind.",
        "FeedAMP has the report of invalid_tracking on line 1 (finding f1), and 2 more of this kind.",
    ]


def test_events_of_other_runs_moments_or_kinds_are_told_one_by_one() -> None:
    first = told(Kind.FINDING, "1")
    later = told(Kind.FINDING, "2", at=NOW + timedelta(seconds=1))
    of_another = told(Kind.FINDING, "3", run_id=None)
    of_others = [told(Kind.FINDING, "4"), told(Kind.FINDING, "5")]
    of_others[0]["details"]["kind"] = "missing_carrier"
    of_others[1]["details"]["again"] = True
    placed = {
        "kind": Kind.PLACED,
        "occurred_at": NOW,
        "run_id": "r",
        "details": {},
        "text": "FeedAMP has it.",
    }
    events = [first, later, of_another, *of_others, placed, placed]
    assert together(events) == events


def test_a_snapshot_of_many_changes_names_the_first_and_counts_the_rest() -> None:
    changes = [{"field": f"order_lines[{n}].quantity", "old": None, "new": 2} for n in range(100)]
    said = sentence(Kind.CHANGED, {"first": True, "changes": changes, "left_out": 900})
    assert said.startswith("FeedAMP first showed it: order_lines[0].quantity is 2; order_lines[1]")
    assert said.endswith("; order_lines[19].quantity is 2; 980 further changes.")
    assert sentence(Kind.CHANGED, {"changes": changes[:21]}).endswith("; 1 further change.")
