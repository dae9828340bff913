"""PURE: what happens to an order, as the events of `order_events`, and what an event says in plain words.

No event holds a customer field, or what FeedAMP writes about an order: both may quote personal values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from feedamp.codec import content_hash
from feedamp.models import Snapshot
from feedamp.rules.closing import REMOVED
from feedamp.rules.comparison import Difference
from feedamp.rules.failure_summary import counted
from feedamp.rules.finding import OPEN, REPORTED, RESOLVED, WAIVED, StoredFinding
from feedamp.rules.order import LedgerOrder, Phase, is_blocked
from feedamp.rules.units import LineUnits, units_shipped

MOST_CHANGES, MOST_CHARS = 100, 200  # of one event; a snapshot may have thousands of shipments
CHANGES_SHOWN = 20
DELIVER_AGAIN = (
    "Action is required: correct it and deliver it again; `feedamp rejected list` has all reasons."
)
_NEXT = {
    REMOVED: "Nothing, until the seller is registered and connected again.",
    "not read yet": "The next extraction reads it.",
    "not validated yet": "`feedamp_process_fulfillments` validates it.",
    "can be closed": "`feedamp_process_fulfillments` closes it.",
    "an error finding is still open": "The seller corrects what was reported; the next extraction reads it.",
    "units do not add up yet": "The seller ships or cancels the rest; the next extraction reads it.",
    "not released for shipping": "The marketplace releases it: it delivers it as AWAITING_SHIPMENT.",
}


class Kind(StrEnum):
    """What happened to an order."""

    DELIVERED = "delivered"
    PLACED = "placed"
    CHANGED = "changed"
    FINDING = "finding"
    REPORTED = "reported"
    RESOLVED = "resolved"
    WAIVED = "waived"
    CONFLICT = "conflict"
    CLOSED = "closed"
    REPAIRED = "repaired"


@dataclass(frozen=True)
class Event:
    """Something that happened to an order at a moment (UTC).

    `units_shipped` is how many more units a snapshot showed as shipped than the one before. `mark` is what the id follows
    from; without one, it follows from all that the event says.
    """

    seller_id: str
    mp_order_number: str
    kind: str
    occurred_at: datetime
    details: dict[str, Any]
    units_shipped: int | None = None
    mark: Any = field(default=None, compare=False)

    @property
    def event_id(self) -> str:
        """Unique within the order. The same event has the same id whenever it is written."""
        return content_hash([self.kind, self.mark or [self.occurred_at, self.details]])[:16]


def delivered(order: LedgerOrder, source: str, row: int, differs: Iterable[str], *, now: datetime) -> Event:
    """A row of the inbox that changed the order; `differs` names fields in which it differs from the placed body."""
    state = order.conflicting_state or order.desired_state
    details: dict[str, Any] = {"source": source, "source_row": row, "marketplace_state": state}
    if names := sorted({name for name in differs if name})[:MOST_CHANGES]:
        details["differs"] = names
    return Event(*order.key, Kind.DELIVERED, now, details, mark=order.delivered[-1])


def placed(order: LedgerOrder, state: str, *, sent_at: datetime) -> Event:
    """A PUT that FeedAMP accepted."""
    return Event(*order.key, Kind.PLACED, sent_at, {"marketplace_state": str(state)})


def changed(seller_id: str, before: Snapshot | None, after: Snapshot, *, read_at: datetime) -> Event:
    """A newer snapshot with another content, as the difference to the one before; None: it is the first."""
    changes = list(_changes({} if before is None else _facts(before), _facts(after)))
    details: dict[str, Any] = {"first": True} if before is None else {}
    details["changes"] = changes[:MOST_CHANGES]
    if len(changes) > MOST_CHANGES:
        details["left_out"] = len(changes) - MOST_CHANGES
    more = units_shipped(after.fulfillments) - (units_shipped(before.fulfillments) if before else 0)
    return Event(seller_id, after.mp_order_number, Kind.CHANGED, read_at, details, max(0, more))


def units_changed(
    seller_id: str,
    mp_order_number: str,
    before: Mapping[str, tuple[int, int]],
    after: Mapping[str, LineUnits],
    *,
    read_at: datetime,
) -> Iterator[Event]:
    """What a newer snapshot of a closed order changes, of which only the units are stored: line -> (shipped, cancelled)."""
    old, new = (
        {
            f"order_lines[{line}].units_{name}": units[at]
            for line, units in side.items()
            for at, name in enumerate(names)
        }
        for names in [("shipped", "cancelled")]
        for side in (before, {line: (units.shipped, units.cancelled) for line, units in after.items()})
    )
    changes = list(_changes(old, new))[:MOST_CHANGES]
    if changes:
        more = sum(units.shipped for units in after.values()) - sum(shipped for shipped, _ in before.values())
        yield Event(seller_id, mp_order_number, Kind.CHANGED, read_at, {"changes": changes}, max(0, more))


def of_finding(before: StoredFinding | None, after: StoredFinding, *, now: datetime) -> Iterator[Event]:
    """What a change of a stored finding means: found (again), reported (again), resolved, waived."""
    was = before.state if before is not None else RESOLVED
    named = {
        "finding_id": after.finding_id,
        "kind": after.kind,
        "severity": after.severity,
        "mp_line_number": after.mp_line_number,
    }

    def event(kind: Kind, at: datetime | None) -> Event:
        again = {"again": True} if kind is Kind.FINDING and before is not None else {}
        return Event(after.seller_id, after.mp_order_number, kind, at or now, {**named, **again})

    if was not in OPEN and after.state in OPEN:
        yield event(Kind.FINDING, now)
    if after.state == REPORTED and (
        before is None or (was, before.reported_at) != (REPORTED, after.reported_at)
    ):
        yield event(Kind.REPORTED, after.reported_at)
    if after.state in (RESOLVED, WAIVED) and was != after.state:
        yield event(Kind(after.state), after.resolved_at)


def of_ledger(before: LedgerOrder | None, after: LedgerOrder, *, now: datetime) -> Iterator[Event]:
    """What a change of the ledger means: a conflict that began or ended, or that the order is closed."""
    held = before is not None and before.phase == Phase.HELD
    conflict = before.conflicting_state if before is not None else None
    if after.phase == Phase.HELD and (not held or conflict != after.conflicting_state):
        # FeedAMP's words follow the first colon of a refusal.
        reason = after.reason if after.conflicting_state else (after.reason or "").partition(": ")[0]
        state = after.conflicting_state or after.desired_state
        yield Event(*after.key, Kind.CONFLICT, now, {"marketplace_state": state, "reason": reason})
    elif held and after.phase == Phase.TO_PLACE:
        ended = {"marketplace_state": after.desired_state, "ended": True}
        yield Event(*after.key, Kind.CONFLICT, now, ended)
    if after.phase == Phase.CLOSED and (before is None or before.phase != Phase.CLOSED):
        by = "here" if after.closed_at is not None else "elsewhere"
        details = {"marketplace_state": after.accepted_state, "closed": by}
        yield Event(*after.key, Kind.CLOSED, after.closed_at or now, details)


def repaired(
    order: LedgerOrder, differences: Sequence[Difference], *, reopened: bool, run_id: str, now: datetime
) -> Iterator[Event]:
    """The fields of an order that a reconciliation repaired; a retry of its run gives the same event."""
    fields = sorted(difference.field for difference in differences)
    if fields:
        details: dict[str, Any] = {
            "fields": fields[:MOST_CHANGES],
            **({"reopened": True} if reopened else {}),
        }
        yield Event(*order.key, Kind.REPAIRED, now, details, mark=[run_id, fields])


def sentence(kind: str, details: Mapping[str, Any]) -> str:
    """What an event says, in plain words."""
    state = details.get("marketplace_state")
    if kind == Kind.DELIVERED:
        differs = (
            f"; it differs from the placed order in {', '.join(d)}" if (d := details.get("differs")) else ""
        )
        return f"The marketplace delivered it as {state}: {details['source']}, row {details['source_row']}{differs}."
    if kind == Kind.PLACED:
        return f"FeedAMP accepted it as {state}."
    if kind == Kind.CHANGED:
        changes = [_in_words(change) for change in details["changes"][:CHANGES_SHOWN]]
        left_out = len(details["changes"][CHANGES_SHOWN:]) + details.get("left_out", 0)
        changes += [counted(left_out, "further change")] if left_out else []
        return f"FeedAMP {'first showed it' if details.get('first') else 'showed a change'}: {'; '.join(changes)}."
    if kind == Kind.CONFLICT:
        if details.get("ended"):
            return f"The conflict ended: it is sent as {state}."
        return f"It is held, and {state} is not sent: {details['reason']}."
    if kind == Kind.CLOSED:
        return f"It was closed as {state}{'' if details['closed'] == 'here' else ' by another system'}."
    if kind == Kind.REPAIRED:
        reopened = " and reopened it, because FeedAMP shows it open" if details.get("reopened") else ""
        return f"A reconciliation repaired {', '.join(details['fields'])}{reopened}."
    fault = f"{details['kind']} on line {details['mp_line_number'] or '-'} (finding {details['finding_id']})"
    return {
        Kind.FINDING: f"A fault was found{' again' if details.get('again') else ''}: {fault}.",
        Kind.REPORTED: f"FeedAMP has the report of {fault}.",
        Kind.RESOLVED: f"Resolved: {fault}.",
        Kind.WAIVED: f"Waived by hand: {fault}.",
    }[Kind(kind)]


def together(events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The events, each with its `text`, as they are told: what one run found on many lines at one moment is told once."""
    groups: dict[Any, list[Mapping[str, Any]]] = {}
    for at, event in enumerate(events):
        is_of_finding = event["kind"] in (Kind.FINDING, Kind.REPORTED, Kind.RESOLVED, Kind.WAIVED)
        details = event["details"]
        alike = (
            event["kind"],
            event["occurred_at"],
            event["run_id"],
            details.get("kind"),
            details.get("again"),
        )
        groups.setdefault(alike if is_of_finding else at, []).append(event)
    told = []
    for first, *others in groups.values():
        more = f", and {len(others)} more of this kind." if others else "."  # one line may have several
        told.append({**first, "text": f"{first['text'].removesuffix('.')}{more}"})
    return told


def next_step(order: LedgerOrder, waits_for: str, *, needs_person: bool) -> str:
    """What happens next with an order that waits as `feedamp orders show` says, in plain words."""
    if order.phase in (Phase.CLOSED, Phase.NEVER_PLACED):
        if order.is_to_acknowledge:
            what = "no units are shipped" if order.is_withdrawn else "units were shipped"
            return f"Action is required: {what} although it is {order.accepted_state}; `feedamp orders acknowledge`."
        return "Nothing."
    if order.phase == Phase.REFUSED:
        return DELIVER_AGAIN
    if order.phase == Phase.TO_PLACE:
        if is_blocked(order.phase, order.reason):
            return f"`feedamp_place_orders` sends it as {order.next_state} in the first run after that has ended."
        when = f", not before {order.next_try_at:%Y-%m-%dT%H:%M:%SZ}" if order.next_try_at else ""
        return f"`feedamp_place_orders` sends it as {order.next_state}{when}."
    if order.conflicting_state is not None:
        return f"{order.conflicting_state} is sent once FeedAMP shows no shipped units; else the order goes on as it is."
    if needs_person or order.phase == Phase.HELD:
        return "Action is required: see `feedamp status` and the runbook."
    return _NEXT.get(waits_for, "The next extraction reads what the seller changes.")


def _in_words(change: Mapping[str, Any]) -> str:
    name, old, new = change["field"], *(_value(change[side]) for side in ("old", "new"))
    if not new:
        return f"{name} {f'was {old}, and ' if old else ''}is {'gone' if new is None else 'empty'}"
    if old:
        return f"{name} from {old} to {new}"
    return f"{name} {'is' if old is None else 'set to'} {new}"


def _value(value: Any) -> str | None:
    if isinstance(value, dict):
        return " ".join(str(item) for item in value.values() if item != "")
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return None if value is None else str(value)


def _facts(snapshot: Snapshot) -> dict[str, Any]:
    """Each fact of a snapshot by its path; a shipment or cancellation is one fact with fields of its own."""
    facts: dict[str, Any] = {
        name: getattr(snapshot, name)
        for name in ("status", "marketplace_state", "acknowledged", "is_marketplace_fulfilled")
    }
    facts |= {f"order_lines[{line}].quantity": units for line, units in snapshot.quantities.items()}
    counts: dict[str, int] = {}
    for entry in snapshot.fulfillments:
        for name in ("shipments", "cancellations"):
            path = f"order_lines[{entry.mp_line_number}].{name}"
            # A line may have two entries; the index continues, as in `lake/flatten.py`.
            for item in getattr(entry, name):
                at = counts[path] = counts.get(path, -1) + 1
                facts[f"{path}[{at}]"] = item
    errors = [" ".join(filter(None, (e.code, e.mp_line_number))) for e in snapshot.errors or ()]
    return {**facts, "errors": [_short(error) for error in errors[:MOST_CHANGES]] or None}


def _changes(before: dict[str, Any], after: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path in dict.fromkeys((*before, *after)):
        old, new = before.get(path), after.get(path)
        if old == new:  # as most are
            continue
        if isinstance(old, msgspec.Struct) and isinstance(new, msgspec.Struct):
            yield from _changes(
                {f"{path}.{name}": value for name, value in _short(old).items()},
                {f"{path}.{name}": value for name, value in _short(new).items()},
            )
        else:
            yield {"field": _short(path), "old": _short(old), "new": _short(new)}


def _short(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= MOST_CHARS else f"{value[: MOST_CHARS - 1]}…"
    if isinstance(value, msgspec.Struct):
        fields = msgspec.structs.asdict(value)
        return {name: _short(one) for name, one in fields.items() if one is not None}
    if isinstance(value, int) and len(text := str(value)) > MOST_CHARS:
        return _short(text)
    return value
