"""One env in which every seller suffers one fault at one step, and one seller none.

What a run said, and whether the runs after it made it whole, shows against the seller who was left alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Any

from env import BAD_NUMBER, Env, open_env, shipment
from env_fixtures import SELLER
from fault_cases import PLACES, Case, cases

from crashes.fixtures import DAY
from feedamp.api.decoding import read_order
from feedamp.api.json_fields import Coercions
from feedamp.codec import decode_json
from feedamp.column_types import Type
from feedamp.lake.flatten import order_rows
from feedamp.state import findings, grants, ledger, open_orders
from feedamp.steps.step_result import StepResult
from feedamp.tables import TABLES
from feedamp_sandbox.views import order_view

STAGES = ("place", "extract", "report", "close", "reconcile")
STEP_OF = {"report": "validate"}
OURS = ("M-1", "M-2", "M-3")
FOREIGN = 8
"""Orders that someone else placed: with them a read has two pages of ten."""
SHOWN = ("orders", "order_lines", "shipments", "cancellations")
KEPT = (*SHOWN, "placements", "rejected_orders", "findings", "closures")
NO_FACTS = ("run_id", "finding_id", "seller_id", "source_row", "row_number", "acknowledged", "snapshot_hash")
RUNS_TO_WAIT_FOR = 3

Rows = list[tuple[str, ...]]
Facts = dict[str, Rows]


@dataclass
class Outcome:
    """What the disturbed run said, and what the runs after it made of it."""

    result: StepResult
    recorded_complete: bool
    requests_more: int
    mark_moved: bool
    was_whole: bool
    runs_until_whole: int | None
    needed_a_person: bool
    differs_at_the_end: list[str]
    broken_rules: list[Any]

    @property
    def complete(self) -> bool:
        """What the run says."""
        return self.result.complete and not self.result.orders_unread

    @property
    def words(self) -> list[str]:
        """What is missing, in the words of the run."""
        return [line.partition(": ")[2] for line in (*self.result.undone, *self.result.notes)]


class FaultPlay:
    """All cases of one place, a seller for each; the first seller is left alone."""

    def __init__(self, env: Env, place: str, todo: list[Case]) -> None:
        self.env, self.place = env, place
        self.alone = SELLER
        ids = [seller["seller_id"] for seller in env.sandbox.sellers]
        self.case_of = dict(zip(ids[1:], todo, strict=True))
        self.seller_ids = ids

    def deliver(self) -> None:
        """Three orders of every seller."""
        rows = [
            json.dumps({"seller_id": seller, "order": self.env.body(number)}, default=float)
            for seller in self.seller_ids
            for number in OURS
        ]
        (self.env.inbox / "orders.jsonl").write_text("\n".join(rows) + "\n")
        self.env.intake()

    def sellers_work(self) -> None:
        """One order shipped, one cancelled, one with a wrong number; and orders of strangers."""
        for seller in self.seller_ids:
            for number in range(FOREIGN if self.place == "extract" else 0):
                body, now = self.env.body(f"X-{number}"), self.env.clock.now()
                self.env.sandbox.world.orders.add(seller, body, now).seller_updated_at = now
            self.env.fulfill("M-1", shipment(2), seller=seller)
            self.env.fulfill("M-2", cancelled=2, seller=seller)
            self.env.fulfill("M-3", shipment(2, BAD_NUMBER), seller=seller)

    def step(self, stage: str, seller_ids: list[str]) -> StepResult:
        """One run of a step for some sellers, as one task, and what `gate` decides at its end."""
        day = {"start": DAY[0], "end": DAY[1], "with_stale": False} if stage == "reconcile" else {}
        shard = self.seller_ids.index(seller_ids[0])
        return self.env.for_sellers(STEP_OF.get(stage, stage), *seller_ids, shard=shard, **day)

    def play(self, stage: str) -> dict[str, Outcome]:
        """The stage under the faults, and again every 15 minutes until it is whole."""
        env, outcomes = self.env, {}
        if self.place in ("token", "dead token"):
            env.clock.skip(hours=1)  # every access token runs out
        elif stage == "extract":
            env.clock.skip(minutes=2)  # a list whose sellers have just been at work is read twice
        marks = {seller: env.watermark(seller) for seller in self.seller_ids}
        usual = self._counted(stage, self.alone)
        for seller, case in self.case_of.items():
            with case.strikes(env.sandbox, seller):
                result, requests = self._counted(stage, seller)
            more = requests - usual[1]
            outcomes[seller] = Outcome(result, False, more, False, False, None, False, [], [])
        env.load()
        look = Look(env, self.seller_ids)
        for seller, outcome in outcomes.items():
            outcome.recorded_complete = look.recorded_complete(seller)
            outcome.mark_moved = env.watermark(seller) != marks[seller]
            outcome.was_whole = self.is_whole(look, seller, stage)
            outcome.runs_until_whole = 0 if outcome.was_whole and outcome.complete else None
        for later in range(1, RUNS_TO_WAIT_FOR + 1):
            waiting = [seller for seller, o in outcomes.items() if o.runs_until_whole is None]
            if not waiting:
                break
            env.clock.skip(minutes=15)
            if stage == "close":  # the schedule reads before it closes
                self.step("extract", self.seller_ids)
                env.load()
            tallies = self._again(stage, waiting)
            env.load()
            look = Look(env, self.seller_ids)
            for seller, result in tallies.items():
                if self.is_whole(look, seller, stage) and result.complete and not result.orders_unread:
                    outcomes[seller].runs_until_whole = later
                elif self._person_is_needed(seller):
                    outcomes[seller].needed_a_person = True
                    self._authorize(seller)
        return outcomes

    def _again(self, stage: str, seller_ids: list[str]) -> dict[str, StepResult]:
        """The next run for these sellers: one task for all of them, but for those whose outage still lasts."""
        struck = [seller for seller in seller_ids if self.case_of[seller].lasts_s]
        others = [seller for seller in seller_ids if seller not in struck]
        tasks = [task for task in (others, *([seller] for seller in struck)) if task]
        return {seller: result for task in tasks for result in [self.step(stage, task)] for seller in task}

    def _counted(self, stage: str, seller: str) -> tuple[StepResult, int]:
        before = len(self.env.sandbox.requests)
        result = self.step(stage, [seller])
        return result, len(self.env.sandbox.requests) - before

    def is_whole(self, look: Look, seller: str, stage: str) -> bool:
        """Whether everything is as with the seller who was left alone, and in the warehouse as FeedAMP holds it."""
        if look.facts(seller, stage) != look.facts(self.alone, stage):
            return False
        return stage != "extract" or not look.strays(seller)

    def _person_is_needed(self, seller: str) -> bool:
        with self.env.state.read() as connection:
            grant = grants.read(connection, self.env.cipher, seller)
        return grant is not None and grant.status != "active"

    def _authorize(self, seller: str) -> None:
        """The seller consents once more, and the new grant is taken over."""
        sandbox = self.env.sandbox
        with sandbox.world.lock:
            pair = sandbox.world.grants.exchange_code(sandbox.world.grants.issue_code(seller))
        with self.env.state.begin() as connection:
            now = self.env.state.now()
            grants.put_grant(connection, self.env.cipher, seller, "feedamp", pair["refresh_token"], now=now)


class Look:
    """Everything that an env holds, in one read."""

    def __init__(self, env: Env, seller_ids: Iterable[str]) -> None:
        self._env = env
        self._tables: dict[str, list[dict[str, Any]]] = {}
        for name in (*KEPT, "runs"):
            names = list(TABLES[name].names)
            rows = env.rows(f"SELECT {', '.join(names)} FROM feedamp.{name}")
            self._tables[name] = [dict(zip(names, row, strict=True)) for row in rows]
        self._shard = {seller: shard for shard, seller in enumerate(seller_ids)}

    def recorded_complete(self, seller: str) -> bool:
        """`runs.complete` of the seller's newest run."""
        mine = [row for row in self._tables["runs"] if row["shard"] == self._shard[seller]]
        return bool(max(mine, key=lambda row: row["started_at"])["complete"])

    def facts(self, seller: str, stage: str = "") -> Facts:
        """What FeedAMP, ledger, state and warehouse hold of the seller's orders of ours, but for times and ids.

        An order whose report is unclear is read again, which shows sooner than with others what the report has changed.
        """
        is_sooner = stage == "report"
        orders = self._env.sandbox.orders(seller)
        found: Facts = {
            "feedamp": [
                (number, json.dumps({n: v for n, v in view.items() if n != "acknowledged"}, default=str))
                for number, view in sorted(orders.items())
                if number in OURS
            ],
            "ledger": [],
            "snapshots": [],
        }
        with self._env.state.read() as connection:
            for number, order in sorted(ledger.read_many(connection, seller, OURS).items()):
                states = (order.phase, order.desired_state, order.accepted_state, order.reason)
                found["ledger"].append((number, *map(str, states)))
                listed = findings.of_order(connection, seller, number)
                found["ledger"] += [(number, f.kind, f.state) for f in listed]
                held = open_orders.read(connection, seller, number)
                if held is not None:
                    judged = is_sooner or held.validated_hash == held.snapshot_hash
                    found["snapshots"].append(tuple(map(str, (number, judged, held.closable))))
        for name in KEPT:
            columns = [c.name for c in TABLES[name].columns if c.type is not Type.TIMESTAMP]
            left = [
                column for column in columns if column not in (*NO_FACTS, *(("status",) if is_sooner else ()))
            ]
            found[name] = self._rows(name, seller, left, OURS)
        return found

    def strays(self, seller: str) -> list[str]:
        """Numbers of orders that the warehouse does not show as FeedAMP holds them."""
        wrong: set[str] = set()
        right = self._truth(seller)
        for name in SHOWN:
            # The hash is also of what no column holds: FeedAMP marks an order as acknowledged after it was read.
            columns = [
                c.name
                for c in TABLES[name].columns
                if c.type is not Type.TIMESTAMP and c.name != "snapshot_hash"
            ]
            shown = set(self._rows(name, seller, columns))
            held = {as_text(row.get(column) for column in columns) for row in right[name]}
            wrong |= {row[columns.index("mp_order_number")] for row in shown ^ held}
        return sorted(wrong)

    def _rows(self, name: str, seller: str, columns: list[str], numbers: Iterable[str] = ()) -> Rows:
        rows = [row for row in self._tables[name] if row["seller_id"] == seller]
        if numbers:
            rows = [row for row in rows if row["mp_order_number"] in numbers]
        return sorted(as_text(row[column] for column in columns) for row in rows)

    def _truth(self, seller: str) -> dict[str, list[dict[str, Any]]]:
        """The rows that the warehouse would hold of what FeedAMP has now."""
        world = self._env.sandbox.world
        with world.lock:
            views = [order_view(order, world.options) for order in world.orders.of(seller)]
        result: dict[str, list[dict[str, Any]]] = {name: [] for name in SHOWN}
        for view in views:
            order = read_order(decode_json(json.dumps(view, default=float).encode()), Coercions())
            made = order_rows(seller, order, read_at=self._env.clock.now())
            for name in SHOWN:
                result[name] += made[name]
        return result


def as_text(values: Iterable[Any]) -> tuple[str, ...]:
    """Values as text, money without the zeros behind it."""
    return tuple(
        format(value.normalize(), "f") if isinstance(value, Decimal) else "" if value is None else str(value)
        for value in values
    )


@cache
def outcomes(name: str) -> dict[Case, Outcome]:
    """Every case of a place, played."""
    todo = list(cases(name))
    options = {"sellers": len(todo) + 1, "refresh_grace_s": PLACES[name].refresh_grace_s}
    with open_env(rules={"page_size": 10}, **options) as env:
        fixtures = FaultPlay(env, name, todo)
        fixtures.deliver()
        struck = PLACES[name].stage
        for stage in STAGES[: STAGES.index(struck)]:
            env.clock.skip(minutes=1)
            if stage == "extract":
                fixtures.sellers_work()
            fixtures.step(stage, fixtures.seller_ids)
            env.load()
        env.clock.skip(minutes=1)
        if struck == "extract":
            fixtures.sellers_work()
        played = fixtures.play(struck)
        if struck == "place":
            fixtures.sellers_work()
        env.clock.skip(minutes=15)
        env.loop()
        look = Look(env, fixtures.seller_ids)
        right, always = look.facts(fixtures.alone), look.strays(fixtures.alone)
        for seller, outcome in played.items():
            at_the_end = look.facts(seller)
            outcome.differs_at_the_end = [name for name in right if at_the_end[name] != right[name]]
            outcome.differs_at_the_end += sorted(set(look.strays(seller)) - set(always))
            outcome.broken_rules = env.sandbox.broken_rules
        return {fixtures.case_of[seller]: outcome for seller, outcome in played.items()}
