"""PURE: do inbox, ledger, FeedAMP and warehouse agree on every order, line, shipment, placement and closure?

Each kind of difference has a name, and a line for each order. Each function says what may differ and why.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from feedamp.tables import TABLES
from soak.sandbox_process import Key, SandboxLog
from soak.settings import UNREGISTERED
from soak.traffic import Bad, Delivered

Rows = Sequence[Mapping[str, Any]]
Differences = dict[str, list[str]]
"""Lines by kind of difference; kinds without any are left out."""

FINAL = ("SHIPPED", "CANCELLED")
AROUND_A_KILL = timedelta(seconds=10)
"""A process that died so soon after FeedAMP's answer may not have recorded it."""

NOT_A_FAULT = {"illegal_transition", "body_changed"}
"""Codes of rejects that may exist beside an order in the ledger: a late change, or one that FeedAMP does not accept."""


@dataclass(frozen=True)
class Evidence:
    """Everything there is to compare."""

    delivered: Mapping[str, Delivered]
    bad: Sequence[Bad]
    feedamp: Mapping[Key, Mapping[str, Any]]
    log: SandboxLog
    state: Mapping[str, Rows]
    warehouse: Mapping[str, Rows]
    placing_killed_at: Sequence[datetime] = ()


def compare(evidence: Evidence) -> Differences:
    """Everything that is not as it must be."""
    return _Comparison(evidence).all()


def compare_warehouse(evidence: Evidence) -> Differences:
    """What is not as it must be in the warehouse alone, for when nothing else can have changed."""
    return _Comparison(evidence).of_warehouse()


class _Comparison:
    def __init__(self, evidence: Evidence) -> None:
        self._is = evidence
        self._found: dict[str, list[str]] = defaultdict(list)
        self._ledger: dict[Key, Mapping[str, Any]] = {_key(row): row for row in evidence.state["orders"]}
        self._standing: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for row in evidence.state["rejected_orders"]:
            if row["superseded_at"] is None and row["mp_order_number"] is not None:
                self._standing[row["mp_order_number"]].append(row)

    def all(self) -> Differences:
        self._inbox()
        self._rejects()
        self._ledger_and_feedamp()
        self._judged_by_feedamp()
        self._snapshots()
        self._left_over()
        return self.of_warehouse()

    def of_warehouse(self) -> Differences:
        self._keys()
        self._orders()
        self._lines()
        self._shipments_and_cancellations()
        self._placements_and_closures()
        self._same_in_state_and_warehouse("rejected_orders", ("source", "row_number", "row_hash"), ("stage",))
        self._same_in_state_and_warehouse("findings", ("finding_id",), ("state", "kind"))
        return dict(sorted(self._found.items()))

    def _say(self, kind: str, key: Iterable[Any], what: str = "") -> None:
        self._found[kind].append(f"{'/'.join(map(str, key))}{': ' if what else ''}{what}")

    # Promise 1: nothing is lost on the way in

    def _inbox(self) -> None:
        for number, order in self._is.delivered.items():
            key = (order.seller_id, number)
            row = self._ledger.get(key)
            if row is None:
                if not self._standing[number]:
                    self._say("delivered, but neither in the ledger nor rejected", key)
                else:
                    codes = [reject["reasons"] for reject in self._standing[number]]
                    self._say("a good order was rejected", key, str(codes)[:200])
                continue
            self._phase(key, row, order)
            for reject in self._standing[number]:
                if not any(code in str(reject["reasons"]) for code in NOT_A_FAULT):
                    self._say("in the ledger and rejected", key, str(reject["reasons"])[:200])
        for key in self._ledger.keys() - {(o.seller_id, n) for n, o in self._is.delivered.items()}:
            self._say("in the ledger, but never delivered", key)

    def _phase(self, key: Key, row: Mapping[str, Any], order: Delivered) -> None:
        phase = row["phase"]
        if phase == "to_place":
            if row["reason"] is None or row["next_try_at"] is None:
                self._say("waits without a reason or a next try", key)
            if order.seller_id != UNREGISTERED:
                self._say("still waits at the end", key, str(row["reason"]))
        elif phase == "never_placed":
            if "CANCELLED" not in order.states:
                self._say("never placed, but never cancelled", key)
            if key in self._is.feedamp:
                self._say("never placed, but FeedAMP has it", key)
        elif phase == "refused" and not self._standing[key[1]]:
            self._say("refused, but not among the rejected", key)
        elif phase not in ("settled", "held", "closed", "refused"):
            self._say("a phase that no one knows", key, phase)

    def _rejects(self) -> None:
        standing = [row for row in self._is.state["rejected_orders"] if row["superseded_at"] is None]
        by_number = Counter((row["source"], row["mp_order_number"]) for row in standing)
        by_place = Counter((row["source"], row["row_number"]) for row in standing)
        for bad in self._is.bad:
            times = by_number[bad.source, bad.number] if bad.number else by_place[bad.source, bad.row_number]
            if times != 1:
                self._say("a bad row is not rejected once", (bad.source, bad.row_number), f"{times} times")
        for number, order in self._is.delivered.items():
            changed = any("body_changed" in str(reject["reasons"]) for reject in self._standing[number])
            if order.body_changed and "CANCELLED" not in order.states and not changed:
                self._say("a changed body was not recorded", (order.seller_id, number))

    # Ledger and FeedAMP

    def _ledger_and_feedamp(self) -> None:
        for key, row in self._ledger.items():
            held = self._is.feedamp.get(key)
            if held is None:
                if row["placed_at"] is not None:
                    self._say("placed by the ledger, but not at FeedAMP", key)
                continue
            state = held["marketplace_state"]
            if row["placed_at"] is None:
                self._say("at FeedAMP, but not placed by the ledger", key)
            if row["accepted_state"] != state:
                self._say("state of ledger and FeedAMP", key, f"{row['accepted_state']}, FeedAMP {state}")
            if (row["phase"] == "closed") != (state in FINAL):
                self._say("closed at one of ledger and FeedAMP", key, f"{row['phase']}, FeedAMP {state}")
            if row["phase"] == "closed" and row["closed_at"] is None:
                self._say("closed by no one, says the ledger", key, str(row["reason"]))
            self._should_have_moved(key, row, held)
        for key in self._is.feedamp.keys() - self._ledger.keys():
            self._say("at FeedAMP, but not in the ledger", key)
        for number, order in self._is.delivered.items():
            held = self._is.feedamp.get((order.seller_id, number))
            if held is not None:
                self._body(order, held)

    def _should_have_moved(self, key: Key, row: Mapping[str, Any], held: Mapping[str, Any]) -> None:
        """Whether what the marketplace wanted, or what the seller did, has had its effect."""
        states, state = (
            self._is.delivered[key[1]].states if key[1] in self._is.delivered else [],
            held["marketplace_state"],
        )
        if state == "PENDING" and "AWAITING_SHIPMENT" in states:
            self._say("a release is lost", key, f"{row['phase']} {row['reason']}")
        is_rejected = any("illegal_transition" in str(r["reasons"]) for r in self._standing[key[1]])
        if "CANCELLED" in states and state not in FINAL and row["phase"] != "held":
            self._say("a cancellation is lost", key, f"{row['phase']} {row['reason']}")
        if row["conflicting_state"] and state not in FINAL and not _units(held, "shipments"):
            self._say("a conflict that there is not", key, str(row["reason"]))
        if (
            "CANCELLED" in states
            and state == "SHIPPED"
            and not (is_rejected or row["conflicting_state"] or row["reason"])
        ):
            self._say("no one is told that a cancelled order was shipped", key)
        if (
            "SHIPPED" in states
            and held["is_marketplace_fulfilled"]
            and state not in FINAL
            and not is_rejected
        ):
            self._say("a shipment by the marketplace is lost", key, f"{row['phase']} {row['reason']}")
        if state == "AWAITING_SHIPMENT" and not held["is_marketplace_fulfilled"]:
            if held["errors"]:
                self._say("an error that its seller has not corrected", key, str(held["errors"])[:200])
            elif all(_pending(held, line["mp_line_number"]) <= 0 for line in held["order_lines"]):
                self._say("all units are in, but the order is open", key, f"{row['phase']} {row['reason']}")

    def _body(self, order: Delivered, held: Mapping[str, Any]) -> None:
        at_feedamp = {
            line["mp_line_number"]: (
                line["sku"],
                line["quantity"],
                line["unit_price"],
                line.get("shipping_price"),
            )
            for line in held["order_lines"]
        }
        if at_feedamp != order.lines:
            self._say("lines as delivered and at FeedAMP", (order.seller_id, order.number))

    def _judged_by_feedamp(self) -> None:
        """What only the sandbox can know."""
        log = self._is.log
        for one in log.over_shipments:
            what = f"read {one.read_s_before and round(one.read_s_before, 1)} s before, {one.units_shown} units shown"
            if not one.could_not_be_known:
                self._say("CANCELLED was sent over a shipment", (one.mp_order_number,), what)
                continue
            seller_id = self._is.delivered[one.mp_order_number].seller_id
            row = self._ledger.get((seller_id, one.mp_order_number))
            # What `feedamp status` lists.
            is_told = row and row["accepted_state"] == "CANCELLED" and row["closed_units_shipped"]
            if not is_told:
                self._say(
                    "no one is told of a cancellation that met a shipment", (one.mp_order_number,), what
                )
        for report, times in log.reports.items():
            if times > 1:
                self._say("an error was reported twice", report[:3], f"{times} times")
        excused = Counter(
            broken.rule for broken in log.broken if broken.was_under_way or broken.was_measured_late
        )
        # Of a cancellation that a shipment met after its read FeedAMP sees no more than this.
        excused["closed_as_the_wrong_state"] = sum(one.could_not_be_known for one in log.over_shipments)
        for rule, times, example in log.broken_rules:
            if times > excused[rule]:
                self._say(
                    "a rule of FeedAMP was broken", (rule,), f"{times - excused[rule]} times, first {example}"
                )

    # The state alone

    def _snapshots(self) -> None:
        """Open orders that their seller has touched: without their snapshot no one ever validates or closes them."""
        kept = {_key(row) for row in self._is.state["snapshots"]}
        for key, held in self._is.feedamp.items():
            row = self._ledger.get(key)
            is_open = row is not None and row["phase"] in ("settled", "held") and row["closed_at"] is None
            if (
                is_open
                and held["marketplace_state"] not in FINAL
                and held["seller_updated_at"]
                and key not in kept
            ):
                self._say("an open order without its snapshot", key)

    def _left_over(self) -> None:
        if self._is.state["outbox"]:
            tables = Counter(row["table_name"] for row in self._is.state["outbox"])
            self._say("rows left in the outbox", (), str(dict(tables)))
        for row in self._is.state["manifests"]:
            if row["loaded_at"] is None and row["is_published"]:
                self._say("a manifest that was never loaded", (row["path"],))

    # Warehouse and FeedAMP

    def _keys(self) -> None:
        for name, rows in self._is.warehouse.items():
            counted = Counter(tuple(row[column] for column in TABLES[name].key) for row in rows)
            for key, times in counted.items():
                if times > 1:
                    self._say(f"warehouse {name}: a key twice", key)

    def _orders(self) -> None:
        stored = {_key(row): row for row in self._is.warehouse["orders"]}
        for key, held in self._is.feedamp.items():
            row = stored.get(key)
            if row is None:
                self._say("warehouse orders: missing", key)
                continue
            is_final = held["marketplace_state"] in FINAL
            wanted: dict[str, Any] = {
                "marketplace_state": held["marketplace_state"],
                "currency": held["currency"],
                "units_ordered": sum(line["quantity"] for line in held["order_lines"]),
                "units_shipped": _units(held, "shipments"),
                "units_cancelled": _units(held, "cancellations"),
                "units_pending": sum(
                    max(0, _pending(held, line["mp_line_number"])) for line in held["order_lines"]
                ),
                "units_over": 0,
            }
            # FeedAMP lists by the seller's updates, so an order that no seller has touched may never be shown.
            if held["seller_updated_at"] is not None or row["extracted_at"] is not None:
                wanted |= {
                    name: held[name] for name in ("status", "acknowledged", "is_marketplace_fulfilled")
                }
            for column, value in wanted.items():
                if row[column] != value:
                    self._say(f"warehouse orders: {column}", key, f"{row[column]}, FeedAMP {value}")
            if row["placed_at"] is None:
                self._say("warehouse orders: placed_at", key, "null")
            if (row["closed_at"] is not None) != is_final:
                self._say("warehouse orders: closed_at", key, str(row["closed_at"]))
        for key in stored.keys() - self._is.feedamp.keys():
            self._say("warehouse orders: one too many", key)

    def _lines(self) -> None:
        wanted = {}
        for key, held in self._is.feedamp.items():
            shipped, cancelled = _by_line(held, "shipments"), _by_line(held, "cancellations")
            for line in held["order_lines"]:
                n = line["mp_line_number"]
                wanted[*key, n] = {
                    "sku": line["sku"],
                    "quantity": line["quantity"],
                    "unit_price": line["unit_price"],
                    "shipping_price": line.get("shipping_price"),
                    "units_shipped": shipped[n],
                    "units_cancelled": cancelled[n],
                    "units_pending": max(0, line["quantity"] - shipped[n] - cancelled[n]),
                }
        self._rows("order_lines", wanted)

    def _shipments_and_cancellations(self) -> None:
        shipments, cancellations = {}, {}
        for key, held in self._is.feedamp.items():
            for entry in held["fulfillments"]:
                n = entry["mp_line_number"]
                for at, sent in enumerate(entry["shipments"]):
                    shipments[*key, n, at] = {
                        "quantity": sent["quantity"],
                        "carrier": sent["carrier"],
                        "tracking_number": sent["tracking_number"],
                        "shipped_date": sent["shipped_date"],
                        "tracking_url": sent["tracking_url"],
                    }
                for at, gone in enumerate(entry["cancellations"]):
                    cancellations[*key, n, at] = {"quantity": gone["quantity"], "reason": gone["reason"]}
        self._rows("shipments", shipments)
        self._rows("cancellations", cancellations)

    def _rows(self, table: str, wanted: Mapping[tuple[Any, ...], Mapping[str, Any]]) -> None:
        stored = {
            tuple(row[column] for column in TABLES[table].key): row for row in self._is.warehouse[table]
        }
        for key in wanted.keys() - stored.keys():
            self._say(f"warehouse {table}: missing", key)
        for key in stored.keys() - wanted.keys():
            self._say(f"warehouse {table}: one too many", key)
        for key in wanted.keys() & stored.keys():
            for column, value in wanted[key].items():
                if _plain(stored[key][column]) != _plain(value):
                    self._say(f"warehouse {table}: {column}", key, f"{stored[key][column]}, FeedAMP {value}")

    def _placements_and_closures(self) -> None:
        """Each state that FeedAMP accepted is in one of the two tables, and nothing else is."""
        placed: dict[tuple[str, str], Mapping[str, Any]] = {
            (row["mp_order_number"], row["marketplace_state"]): row
            for row in self._is.warehouse["placements"]
        }
        closed = {row["mp_order_number"]: row for row in self._is.warehouse["closures"]}
        taken = set()
        for number, states in self._is.log.accepted.items():
            for at, accepted in enumerate(states):
                state = accepted.marketplace_state
                taken.add((number, state))
                in_placements = (number, state) in placed
                in_closures = number in closed and closed[number]["marketplace_state"] == state
                if in_placements and in_closures:
                    self._say("both placement and closure", (number,), state)
                if in_placements or in_closures:
                    continue
                if state in FINAL:
                    self._say("a final state without placement or closure", (number,), state)
                elif not (
                    any((number, later.marketplace_state) in placed for later in states[at + 1 :])
                    and self._may_be_unknown(accepted)
                ):
                    self._say("warehouse placements: missing", (number,), state)
        for number, state in placed.keys() - taken:
            self._say("warehouse placements: one too many", (number,), state)
        held = {key[1]: view for key, view in self._is.feedamp.items()}
        for number, row in closed.items():
            view = held.get(number)
            if view is None or view["marketplace_state"] != row["marketplace_state"]:
                self._say("warehouse closures: one too many", (number,), row["marketplace_state"])
            elif (row["units_shipped"], row["units_cancelled"]) != (
                _units(view, "shipments"),
                _units(view, "cancellations"),
            ):
                self._say("warehouse closures: units", (number,))

    def _may_be_unknown(self, accepted: Any) -> bool:
        """An answer that never came, or came to a process that was killed; what was placed next took its place."""
        return not accepted.is_clear or any(
            abs(killed - accepted.at) <= AROUND_A_KILL for killed in self._is.placing_killed_at
        )

    def _same_in_state_and_warehouse(
        self, table: str, key: tuple[str, ...], columns: tuple[str, ...]
    ) -> None:
        ours = {tuple(row[name] for name in key): row for row in self._is.state[table]}
        stored = {tuple(row[name] for name in key): row for row in self._is.warehouse[table]}
        for missing in ours.keys() - stored.keys():
            self._say(f"warehouse {table}: missing", missing, str(ours[missing].get("mp_order_number")))
        for extra in stored.keys() - ours.keys():
            self._say(f"warehouse {table}: one too many", extra)
        for both in ours.keys() & stored.keys():
            for column in columns:
                if ours[both][column] != stored[both][column]:
                    self._say(f"warehouse {table}: {column}", both, f"{stored[both][column]}")
            for column in ("superseded_at", "resolved_at", "reported_at"):
                if column in ours[both] and (ours[both][column] is None) != (stored[both][column] is None):
                    self._say(f"warehouse {table}: {column}", both)


def _key(row: Mapping[str, Any]) -> Key:
    return row["seller_id"], row["mp_order_number"]


def _by_line(held: Mapping[str, Any], part: str) -> Counter[str]:
    units: Counter[str] = Counter()
    for entry in held["fulfillments"]:
        units[entry["mp_line_number"]] += sum(item["quantity"] for item in entry[part])
    return units


def _units(held: Mapping[str, Any], part: str) -> int:
    return _by_line(held, part).total()


def _pending(held: Mapping[str, Any], mp_line_number: str) -> int:
    ordered: int = next(
        line["quantity"] for line in held["order_lines"] if line["mp_line_number"] == mp_line_number
    )
    return (
        ordered
        - _by_line(held, "shipments")[mp_line_number]
        - _by_line(held, "cancellations")[mp_line_number]
    )


def _plain(value: Any) -> Any:
    """A date as its text; an empty text as none."""
    return (value.isoformat() if hasattr(value, "isoformat") else value) or None
