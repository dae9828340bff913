"""Whatever sellers do and steps run: no unit is lost, and an order closes exactly when it should, as it should."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from closing_oracle import Fault, closes_as, faults
from exploring import examples
from house import BAD_NUMBER, GOOD_NUMBER, SELLER, open_house
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from order_samples import good_line
from warehouse_units import shows_the_truth, units_add_up

FINAL = ("SHIPPED", "CANCELLED")
NUMBERS = ("M-1", "M-2", "M-3")
SHIPMENTS = st.fixed_dictionaries(
    {
        "quantity": st.sampled_from([1, 1, 2, 2, 3, 5, 0, -1, 1.5, None]),
        "carrier": st.sampled_from(["UPS", "UPS", "UPS", "Pony Express", None]),
        "tracking_number": st.sampled_from([GOOD_NUMBER, GOOD_NUMBER, BAD_NUMBER, None]),
        "shipped_date": st.just("2026-03-09"),
    }
).filter(lambda s: s["carrier"] != "Pony Express" or s["tracking_number"] != BAD_NUMBER)
CANCELLATIONS = st.fixed_dictionaries(
    {"quantity": st.sampled_from([1, 1, 2, 3, 0, -2]), "reason": st.just("out_of_stock")}
)
TROUBLES = st.sampled_from(["reset_before", "reset_after", "error_503", "throttle", "cut_body"])


class Fulfillment(RuleBasedStateMachine):
    """One seller, up to three orders; the sandbox is the truth, `closing_oracle` says what should follow."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.house = self.stack.enter_context(open_house(folder, sellers=1))
        self.sandbox = self.house.sandbox
        self.bodies: dict[str, dict[str, Any]] = {}
        self.waived: set[str] = set()
        self.told: set[tuple[str, str | None, str]] = set()  # (order, line, message) since the line changed
        self.cancelled_unseen: set[str] = set()

    def teardown(self) -> None:
        self.stack.close()

    # What there is to compare with

    def truth(self) -> dict[str, dict[str, Any]]:
        return self.sandbox.orders(SELLER)

    def blocking(self, order: dict[str, Any]) -> list[Fault]:
        number = order["mp_order_number"]
        found = faults(order, bad_numbers=[BAD_NUMBER])
        return [fault for fault in found if fault.finding_id(SELLER, number) not in self.waived]

    def should_close_as(self, order: dict[str, Any]) -> str | None:
        return closes_as(order, self.blocking(order))

    # The marketplace

    @initialize(units=st.lists(st.integers(1, 5), min_size=1, max_size=3), pending=st.booleans())
    def first_order(self, units: list[int], pending: bool) -> None:
        self.new_order(NUMBERS[0], units, pending)
        self.place()

    @rule(
        number=st.sampled_from(NUMBERS),
        units=st.lists(st.integers(1, 5), min_size=1, max_size=3),
        pending=st.booleans(),
    )
    def new_order(self, number: str, units: list[int], pending: bool) -> None:
        if number in self.bodies:
            return
        lines = [good_line(mp_line_number=f"{number}-{i}", quantity=q) for i, q in enumerate(units, 1)]
        state = "PENDING" if pending else "AWAITING_SHIPMENT"
        self.bodies[number] = self.house.body(number, order_lines=lines, marketplace_state=state)
        self.deliver(number, state)

    @rule(
        data=st.data(),
        state=st.sampled_from(["AWAITING_SHIPMENT", "AWAITING_SHIPMENT", "CANCELLED", "SHIPPED"]),
    )
    @precondition(lambda self: self.bodies)
    def new_state(self, data: st.DataObject, state: str) -> None:
        self.deliver(data.draw(st.sampled_from(sorted(self.bodies))), state)

    def deliver(self, number: str, state: str) -> None:
        self.house.deliver(number, **self.bodies[number] | {"marketplace_state": state})

    # The seller, and FeedAMP

    @rule(data=st.data())
    @precondition(lambda self: any(o["marketplace_state"] not in FINAL for o in self.truth().values()))
    def fulfill(self, data: st.DataObject) -> None:
        """The whole snapshot anew: more, less, something else, or nothing at all."""
        truth = self.truth()
        number = data.draw(
            st.sampled_from(sorted(n for n, o in truth.items() if o["marketplace_state"] not in FINAL))
        )
        kind = data.draw(st.sampled_from(["settle", "settle", "anything", "withdraw"]), label="kind")
        lines = [line["mp_line_number"] for line in truth[number]["order_lines"]]
        entries = []
        if kind == "settle":
            entries = [self.settled(data, line) for line in truth[number]["order_lines"]]
        elif kind == "anything":
            lines += data.draw(st.sampled_from([[], [], [], ["never-ordered"]]))
            entries = [
                {
                    "mp_line_number": line,
                    "shipments": data.draw(st.lists(SHIPMENTS, max_size=2)),
                    "cancellations": data.draw(st.lists(CANCELLATIONS, max_size=1)),
                }
                for line in data.draw(st.lists(st.sampled_from(lines), unique=True))
            ]
        before = {entry["mp_line_number"]: entry for entry in truth[number]["fulfillments"]}
        self.sandbox.set_fulfillments(SELLER, number, entries)
        after = {entry["mp_line_number"]: entry for entry in self.truth()[number]["fulfillments"]}
        changed = {line for line in {**before, **after} if before.get(line) != after.get(line)}
        self.told = {(n, x, m) for n, x, m in self.told if n != number or x not in {*changed, None}}

    def settled(self, data: st.DataObject, line: dict[str, Any]) -> dict[str, Any]:
        shipped = data.draw(st.integers(0, line["quantity"]), label="shipped")
        number = data.draw(st.sampled_from([GOOD_NUMBER, GOOD_NUMBER, BAD_NUMBER]))
        parcel = {
            "quantity": shipped,
            "carrier": "UPS",
            "tracking_number": number,
            "shipped_date": "2026-03-09",
        }
        left = {"quantity": line["quantity"] - shipped, "reason": "out_of_stock"}
        return {
            "mp_line_number": line["mp_line_number"],
            "shipments": [parcel] if shipped else [],
            "cancellations": [left] if left["quantity"] else [],
        }

    @rule(data=st.data())
    @precondition(lambda self: self.truth())
    def marketplace_ships_it(self, data: st.DataObject) -> None:
        self.sandbox.set_marketplace_fulfilled(SELLER, data.draw(st.sampled_from(sorted(self.truth()))))

    @rule(data=st.data())
    @precondition(lambda self: any(o["errors"] for o in self.truth().values()))
    def errors_are_dropped(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(n for n, o in self.truth().items() if o["errors"])))
        self.sandbox.clear_errors(SELLER, number)
        self.told = {told for told in self.told if told[0] != number}

    @rule(kind=TROUBLES, method=st.sampled_from(["GET", "PUT", "POST"]), times=st.integers(1, 6))
    def trouble(self, kind: Any, method: str, times: int) -> None:
        self.sandbox.fault(kind, method=method, path="/orders", times=times)

    @rule(minutes=st.sampled_from([1, 20, 60 * 30]))
    def time_passes(self, minutes: int) -> None:
        self.house.clock.skip(minutes=minutes)

    # A person

    @rule(data=st.data())
    @precondition(
        lambda self: any(
            f.state in ("held", "to_report", "reported") for n in self.bodies for f in self.house.findings(n)
        )
    )
    def waive(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.bodies)))
        self.house.waive(number)
        self.waived |= {finding.finding_id for finding in self.house.findings(number)}

    # The steps

    @rule()
    def place(self) -> None:
        before = self.truth()
        held = {n: self.house.held(n) for n in self.bodies}
        self.house.place()
        for number, order in self.truth().items():
            if number in before and order["marketplace_state"] != before[number]["marketplace_state"]:
                assert order["marketplace_state"] != "SHIPPED" or order["is_marketplace_fulfilled"]
                snapshot = held[number]
                if order["marketplace_state"] == "CANCELLED" and snapshot is not None:
                    known = sum(
                        max(0, s.quantity or 0) for e in snapshot.snapshot.fulfillments for s in e.shipments
                    )
                    assert not known, "cancelled although the newest snapshot had shipped units"
                if order["marketplace_state"] == "CANCELLED":
                    self.cancelled_unseen.add(number)

    @rule()
    def extract(self) -> None:
        self.house.extract()

    @rule()
    def load(self) -> None:
        self.house.load()
        units_add_up(self.house)

    @rule()
    def read(self) -> None:
        self.house.extract()
        self.load()

    @rule()
    def validate(self) -> None:
        before = self.truth()
        self.house.validate()
        for number, order in self.truth().items():
            new = order["errors"][len(before[number]["errors"]) :]
            assert not new or before[number]["marketplace_state"] not in FINAL, (
                "a closed order was reported on"
            )
            for error in new:
                told = (number, error.get("mp_line_number"), error["message"])
                assert told not in self.told, f"reported twice: {told}"
                self.told.add(told)

    @rule()
    def close(self) -> None:
        before = self.truth()
        self.house.close()
        for number, order in self.truth().items():
            if order["marketplace_state"] != before[number]["marketplace_state"]:
                assert order["marketplace_state"] == self.should_close_as(before[number])

    @rule()
    def process(self) -> None:
        self.validate()
        self.close()

    @rule()
    def a_quiet_day(self) -> None:
        """Nothing goes wrong and nobody does anything: what can be closed is closed, and nothing else."""
        self.sandbox.clear_faults()
        for _ in range(3):
            self.house.clock.skip(hours=26)
            self.house.intake()
            self.place()
            self.read()
            self.process()
        self.load()
        for number, order in self.truth().items():
            assert self.should_close_as(order) is None, (
                f"{number} should be closed: {self.house.held(number)}"
            )
            is_closed = self.house.order(number).phase == "closed"
            assert is_closed == (order["marketplace_state"] in FINAL)
            if not is_closed and not order["is_marketplace_fulfilled"]:
                listed = len(order["errors"])
                assert listed == len(self.blocking(order)) or self.waived, f"{number}: faults not told"
        shows_the_truth(self.house, self.truth())

    # What must hold

    @invariant()
    def no_rule_is_broken(self) -> None:
        broken = {rule.rule for rule in self.sandbox.broken_rules}
        if self.waived:  # a person overruled what FeedAMP still lists
            broken -= {"closed_with_open_error"}
        if self.cancelled_unseen:  # by the marketplace, on the newest snapshot there was
            broken -= {"closed_as_the_wrong_state", "closed_with_open_error"}
        assert not broken, self.sandbox.broken_rules


TestFulfillment = Fulfillment.TestCase
TestFulfillment.settings = examples(2, stateful_step_count=10)
