"""What the demo plays on an installation: deliveries, what sellers do, a careless DELETE and a backfill.

tests/engines/test_analyst_queries.py plays the same without Airflow; docs/analyst-queries.md has what the warehouse says then.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Protocol

import msgspec
import sqlalchemy as sa

from demo import orders
from demo.programs import http
from feedamp.state import State, read_only
from feedamp.state.grants import REFRESH_TOKEN_LIFE
from feedamp.state.schema import grants
from feedamp_sandbox import SandboxOptions, Seller

SELLERS = 12
ORDERS = 240
CSV_ORDERS = 60
ROUNDS = 5
DAYS = 5  # of the backfill; orders were purchased on these and the day before
LOST = 5
UNKNOWN = "seller-not-yet-registered"
ORDERS_OF_UNKNOWN = 3  # beside the one that is between those of the others
ENDING = {"seller-004": 21, "seller-009": 7}  # days that their grants have left
LOSE = f"""
    DELETE FROM feedamp.orders WHERE mp_order_number IN (
        SELECT mp_order_number FROM feedamp.orders
        WHERE CAST(purchase_date AT TIME ZONE 'UTC' AS DATE) = DATE '{{day}}'
        ORDER BY mp_order_number LIMIT {LOST}
    )
"""


class Installation(Protocol):
    """Where it is played."""

    inbox: Path
    control: str
    """Address of the sandbox's `/_sandbox`."""

    def state(self) -> State:
        """Its state database; closed by the caller."""

    def place(self) -> str:
        """Runs the placing DAG; returns how it ended."""

    def extract_and_process(self) -> None:
        """Runs the two DAGs that bring fulfillments back and act on them."""

    def execute(self, sql: str) -> None:
        """Executes SQL in the warehouse."""

    def backfill(self, days: Sequence[date]) -> str:
        """Reconciles and repairs these days; returns how it ended."""


def accounts() -> list[Seller]:
    """Those of the sandbox: the sellers who have consented, and the one whom a person can connect."""
    return [*SandboxOptions(sellers=SELLERS).seller_list(), Seller(UNKNOWN, "Newcomer")]


def write_accounts(file: Path) -> None:
    """Writes them for `feedamp sandbox --sellers-file`."""
    file.touch(0o600)
    file.write_bytes(b"".join(msgspec.json.encode(seller) + b"\n" for seller in accounts()))


def backfilled(today: date) -> list[date]:
    """The days of the backfill, oldest first."""
    return [today - timedelta(days=n) for n in range(DAYS, 0, -1)]


def play(installation: Installation, today: date) -> Iterator[str]:
    """Plays everything, and says what happens; `today` is the day in UTC."""
    yield _fill(installation.inbox, today)
    yield f"feedamp_place_orders: {installation.place()}; {_count(installation)}"
    with_grants = " and ".join(ENDING)
    age_grants(installation)
    yield f"The grants of {with_grants} are dated back, so that they end soon"
    before = ""
    for n in range(1, ROUNDS + 1):
        # In the first round sellers acknowledge and begin to ship.
        http("POST", f"{installation.control}/act?rounds={2 if n == 1 else 1}")
        installation.extract_and_process()
        count = _count(installation)
        if count == before:
            idle = " (the sellers of ORDERED ones do nothing)" if "ORDERED" in count else ""
            yield f"Round {n}: nothing new; FeedAMP has {count}{idle}"
            break
        yield f"Round {n}, sellers acted, extracted and processed: FeedAMP has {count}"
        before = count
    days = backfilled(today)
    day = days[DAYS // 2]
    installation.execute(LOSE.format(day=day))
    yield f"{LOST} orders of {day} are deleted in the warehouse; now a backfill of {DAYS} days"
    yield f"feedamp_reconcile_orders, {days[0]} to {days[-1]}: {installation.backfill(days)}"


def _fill(inbox: Path, today: date) -> str:
    """Order files as of the last midnight (UTC), so that the hour changes nothing but the moments."""
    midnight = datetime.combine(today, time(), UTC)
    sellers = [f"seller-{n:03d}" for n in range(1, SELLERS + 1)]
    rows = orders.make_orders(sellers, ORDERS + CSV_ORDERS, now=midnight, days=DAYS + 1)
    rows[5]["seller_id"] = UNKNOWN
    more = orders.make_orders([UNKNOWN], ORDERS_OF_UNKNOWN, now=midnight, prefix="DEMO-NEW-")
    bad = orders.spoil(rows[:7])
    orders.write_jsonl(inbox / "orders-1.jsonl", rows[:ORDERS], bad)
    orders.write_csv(inbox / "orders-2.csv", rows[ORDERS:])
    orders.write_jsonl(inbox / "orders-3.jsonl", more)
    return (
        f"Inbox: {len(rows + more)} good orders (JSONL and CSV), of which {len(more) + 1} are of a seller who is not "
        f"registered, "
        f"and {len(bad)} bad rows"
    )


def age_grants(installation: Installation) -> None:
    """Dates the grants of some sellers back, so that they end soon."""
    state = installation.state()
    with state.begin() as connection:
        for seller_id, days in ENDING.items():
            issued_at = state.now() + timedelta(days=days, hours=11) - REFRESH_TOKEN_LIFE
            of_seller = grants.c.seller_id == seller_id
            connection.execute(sa.update(grants).where(of_seller).values(issued_at=issued_at))
    state.close()


def _count(installation: Installation) -> str:
    counts = http("GET", f"{installation.control}/report")["orders"]
    shown = ", ".join(f"{count} {status}" for status, count in sorted(counts.items())) or "no orders"
    with closing(installation.state()) as state, state.read() as connection:
        is_stopped = read_only.current(connection, by_option=False) is not None
    return f"{shown}; sending is stopped (read-only)" if is_stopped else shown
