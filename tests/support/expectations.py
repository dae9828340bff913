"""What a test knows of one seller's orders from outside: what FeedAMP holds, what is wrong with it, what was told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from closing_oracle import Fault, closes_as, faults
from env import BAD_NUMBER, SELLER, Env
from warehouse_units import FINAL

from feedamp_sandbox import Sandbox


class Expectations:
    """`told` holds (order, line, message) of reports since the line changed, `waived` finding ids by order."""

    env: Env
    sandbox: Sandbox
    bodies: dict[str, dict[str, Any]]
    waived: dict[str, set[str]]
    told: set[tuple[str, str | None, str]]

    def truth(self) -> dict[str, dict[str, Any]]:
        return self.sandbox.orders(SELLER)

    def blocking(self, order: dict[str, Any]) -> set[Fault]:
        number = order["mp_order_number"]
        found = faults(order, bad_numbers=[BAD_NUMBER])
        return {fault for fault in found if fault.finding_id(SELLER, number) not in self.waived[number]}

    def should_close_as(self, order: dict[str, Any]) -> str | None:
        return closes_as(order, self.blocking(order))

    def broken_rules(self) -> Counter[str]:
        return Counter({broken.rule: broken.times for broken in self.sandbox.broken_rules})

    @contextmanager
    def changing_no_state(self) -> Iterator[dict[str, dict[str, Any]]]:
        before = self.truth()
        yield before
        states = {number: order["marketplace_state"] for number, order in self.truth().items()}
        assert states == {number: order["marketplace_state"] for number, order in before.items()}

    def open(self) -> list[str]:
        return [number for number, order in self.truth().items() if order["marketplace_state"] not in FINAL]

    def write(self, number: str, entries: list[dict[str, Any]]) -> None:
        before = {entry["mp_line_number"]: entry for entry in self.truth()[number]["fulfillments"]}
        self.sandbox.set_fulfillments(SELLER, number, entries)
        after = {entry["mp_line_number"]: entry for entry in self.truth()[number]["fulfillments"]}
        changed = {line for line in {**before, **after} if before.get(line) != after.get(line)}
        if changed:  # a line that was never ordered is reported without its number
            self.told = {told for told in self.told if told[0] != number or told[1] not in {*changed, None}}

    def overrule(self, number: str) -> None:
        self.env.waive(number)
        self.waived[number] |= {finding.finding_id for finding in self.env.findings(number)}

    def in_question(self) -> list[str]:
        states = {number: {f.state for f in self.env.findings(number)} for number in self.bodies}
        return [number for number, found in states.items() if found & {"held", "to_report", "reported"}]
