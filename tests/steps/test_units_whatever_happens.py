"""Whatever sellers do and steps run: no unit is lost, and an order closes exactly when it should, as it should."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

from closing_oracle import line_units
from env import SELLER, open_env
from expectations import Expectations
from exploring import examples
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from order_samples import good_line
from seller_moves import moves
from warehouse_units import FINAL, shows_the_truth, units_add_up

NUMBERS = ("M-1", "M-2", "M-3")
CITIES = {"M-1": "Ghent", "M-2": "Ghent", "M-3": "Liege"}  # two recipients: a number they share is a warning
TROUBLES = st.sampled_from(["reset_before", "reset_after", "error_503", "throttle", "cut_body"])
LINES = st.lists(st.integers(1, 5), min_size=1, max_size=3)


class Fulfillment(Expectations, RuleBasedStateMachine):
    """One seller with up to three orders; the sandbox is the truth, `closing_oracle` says what should follow."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.env = self.stack.enter_context(open_env(sellers=1))
        self.sandbox = self.env.sandbox
        self.bodies: dict[str, dict[str, Any]] = {}
        self.waived: dict[str, set[str]] = {number: set() for number in NUMBERS}
        self.told: set[tuple[str, str | None, str]] = set()  # (order, line, message) since the line changed
        self.excused: Counter[str] = Counter()  # what only looks wrong to FeedAMP, and how often

    def teardown(self) -> None:
        self.stack.close()

    def choose(self, data: st.DataObject, numbers: Iterable[str]) -> str:
        return data.draw(st.sampled_from(sorted(numbers)), label="order")

    # The marketplace

    @initialize(data=st.data(), units=LINES, pending=st.sampled_from([False, False, False, True]))
    def first_order(self, data: st.DataObject, units: list[int], pending: bool) -> None:
        self.new_order(NUMBERS[0], units, pending)
        self.place()
        self.fulfill_and_go_on(data)

    @rule(number=st.sampled_from(NUMBERS), units=LINES, pending=st.booleans())
    def new_order(self, number: str, units: list[int], pending: bool) -> None:
        if number in self.bodies:
            return
        lines = [good_line(mp_line_number=f"{number}-{i}", quantity=q) for i, q in enumerate(units, 1)]
        state = "PENDING" if pending else "AWAITING_SHIPMENT"
        body = self.env.body(number, order_lines=lines, marketplace_state=state)
        body["shipping_address"] = body["shipping_address"] | {"city": CITIES[number]}
        self.bodies[number] = body
        self.deliver(number, state)

    @rule(
        data=st.data(),
        state=st.sampled_from(["AWAITING_SHIPMENT", "AWAITING_SHIPMENT", "CANCELLED", "SHIPPED"]),
    )
    @precondition(lambda self: self.bodies)
    def new_state(self, data: st.DataObject, state: str) -> None:
        self.deliver(self.choose(data, self.bodies), state)

    def deliver(self, number: str, state: str) -> None:
        self.env.deliver(number, **self.bodies[number] | {"marketplace_state": state})

    # The seller, and FeedAMP

    @rule(data=st.data())
    @precondition(lambda self: self.open())
    def fulfill(self, data: st.DataObject) -> None:
        number = self.choose(data, self.open())
        self.write(number, data.draw(moves(self.truth()[number]), label="fulfillments"))

    @rule(data=st.data())
    @precondition(lambda self: self.open())
    def fulfill_and_go_on(self, data: st.DataObject) -> None:
        """Every step up to closing; before it a person may waive findings, and the seller may change anything."""
        number = self.choose(data, self.open())
        self.write(number, data.draw(moves(self.truth()[number]), label="fulfillments"))
        self.read()
        self.validate()
        if number in self.in_question() and data.draw(st.booleans(), label="waived"):
            self.overrule(number)
            self.validate()
        if data.draw(st.sampled_from([False, False, True]), label="changed once more"):
            self.write(number, data.draw(moves(self.truth()[number]), label="then"))
        self.close()

    @rule(data=st.data())
    @precondition(lambda self: self.truth())
    def marketplace_ships_it(self, data: st.DataObject) -> None:
        self.sandbox.set_marketplace_fulfilled(SELLER, self.choose(data, self.truth()))

    @rule(data=st.data())
    @precondition(lambda self: any(o["errors"] for o in self.truth().values()))
    def errors_are_dropped(self, data: st.DataObject) -> None:
        number = self.choose(data, (n for n, o in self.truth().items() if o["errors"]))
        self.sandbox.clear_errors(SELLER, number)
        self.told = {told for told in self.told if told[0] != number}

    @rule(kind=TROUBLES, method=st.sampled_from(["GET", "PUT", "POST"]), times=st.integers(1, 6))
    def trouble(self, kind: Any, method: str, times: int) -> None:
        self.sandbox.fault(kind, method=method, path="/orders", times=times)

    @rule(minutes=st.sampled_from([1, 20, 60 * 30]))
    def time_passes(self, minutes: int) -> None:
        self.env.clock.skip(minutes=minutes)

    # A person

    @rule(data=st.data())
    @precondition(lambda self: self.in_question())
    def waive(self, data: st.DataObject) -> None:
        self.overrule(self.choose(data, self.in_question()))

    # The steps

    @rule()
    def place(self) -> None:
        before, broken = self.truth(), self.broken_rules()
        self.env.place()
        for number, order in self.truth().items():
            if number not in before or order["marketplace_state"] == before[number]["marketplace_state"]:
                continue
            assert order["marketplace_state"] != "SHIPPED" or order["is_marketplace_fulfilled"]
            if (
                order["marketplace_state"] == "CANCELLED"
            ):  # an open error does not keep the marketplace from it
                shipped = sum(shipped for _, shipped, _ in line_units(order).values())
                assert not shipped, "the seller had shipped units"
                rule = "closed_with_open_error"
                self.excused[rule] += self.broken_rules()[rule] - broken[rule]

    @rule()
    def extract(self) -> None:
        with self.changing_no_state():
            self.env.extract()

    @rule()
    def load(self) -> None:
        self.env.load()
        units_add_up(self.env)

    @rule()
    def read(self) -> None:
        self.extract()
        self.load()

    @rule()
    def validate(self) -> None:
        with self.changing_no_state() as before:
            self.env.validate()
        for number, order in self.truth().items():
            new = order["errors"][len(before[number]["errors"]) :]
            assert not new or before[number]["marketplace_state"] not in FINAL, "a closed order was reported"
            for error in new:
                told = (number, error.get("mp_line_number"), error["message"])
                assert told not in self.told, f"reported twice: {told}"
                self.told.add(told)

    @rule()
    def close(self) -> None:
        before, broken = self.truth(), self.broken_rules()
        self.env.close()
        for number, order in self.truth().items():
            if order["marketplace_state"] != before[number]["marketplace_state"]:
                assert order["marketplace_state"] == self.should_close_as(before[number])
                if (
                    self.waived[number] and before[number]["errors"]
                ):  # a person overruled what FeedAMP still lists
                    self.excused["closed_with_open_error"] += 1
        assert (self.broken_rules() - broken).keys() <= {"closed_with_open_error"}

    @rule()
    def process(self) -> None:
        self.validate()
        self.close()

    @rule()
    def a_quiet_day(self) -> None:
        """Nothing goes wrong and no one does anything: what can be closed is closed, and nothing else."""
        self.sandbox.clear_faults()
        for _ in range(2):
            self.env.clock.skip(hours=26)
            self.env.intake()
            self.place()
            self.read()
            self.process()
        self.load()
        for number, order in self.truth().items():
            assert self.should_close_as(order) is None, f"{number} should be closed: {self.env.held(number)}"
            is_closed = self.env.order(number).phase == "closed"
            assert is_closed == (order["marketplace_state"] in FINAL)
            if not is_closed and not order["is_marketplace_fulfilled"] and not self.waived[number]:
                assert len(order["errors"]) == len(self.blocking(order)), (
                    f"{number}: not what is wrong with it"
                )
        shows_the_truth(self.env, self.truth())

    # What must hold

    @invariant()
    def no_rule_is_broken(self) -> None:
        assert self.broken_rules() <= self.excused, self.sandbox.broken_rules


TestFulfillment = Fulfillment.TestCase
TestFulfillment.settings = examples(5, stateful_step_count=8)
