"""Of events that come again, beside new ones or alone, none is stored or put in the outbox a second time."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime

from feedamp.rules.order_story import Event, Kind
from feedamp.state import State, order_events

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)


def store(state: State, run_id: str, *numbers: str) -> list[str]:
    """Of which orders the events were new, in the order in which they go on."""
    events = [Event("S1", number, Kind.CLOSED, NOON, {}) for number in numbers]
    with state.begin() as connection:
        return [row["mp_order_number"] for _, row in order_events.store(connection, events, run_id=run_id)]


def test_of_events_that_come_together_only_the_new_ones_go_on(url: str) -> None:
    with closing(State(url)) as state:
        assert store(state, "first") == []
        assert store(state, "first", "M-3", "M-1", "M-3") == ["M-1", "M-3"]
        assert store(state, "second", "M-4", "M-3", "M-2") == ["M-2", "M-4"]
        assert store(state, "third", "M-4", "M-1") == []
        with state.read() as connection:
            by_run = {
                number: [event["run_id"] for event in order_events.of_order(connection, "S1", number)]
                for number in ("M-1", "M-2", "M-3", "M-4")
            }
    assert by_run == {"M-1": ["first"], "M-2": ["second"], "M-3": ["first"], "M-4": ["second"]}
