"""The works of the suite by name, each with its size and its goals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from growth import (
    BEFORE,
    IDLE,
    IDLE_SELLERS,
    LARGE,
    LEDGER_WORKS,
    MEMORY_FEW,
    MEMORY_MANY,
    NOW,
    SMALL,
    VALIDATE,
    VALIDATED_SELLERS,
    beside_earlier,
    beside_small_ledger,
    memory_of_steps,
)
from memory import PROMISED_MB
from placing import IN_POSTGRES, IN_SQLITE, LOOP, place_in_turn
from reading import BARE, DLT, FEEDAMP, HTTP_OPERATOR, MERGES, Reading, Round, read_in_turn
from side_by_side import ALONE, TOGETHER, at_the_allowed_rate, four_beside_one


@dataclass(frozen=True)
class Options:
    """How much of a work is done: orders in all, rounds, and whether other packages and commits take part."""

    orders: int
    rounds: int
    without_peers: bool


@dataclass(frozen=True)
class Goal:
    """A ratio of `unit` in a phase, of one way to another one; without `under`, the figure itself.

    `under` may be "peers", the best of those that are neither ours nor the bare limit, or "pages", the time for which
    the server held the pages. `under_phase` is `phase` unless it is given.
    """

    over: str
    under: str | None
    at_least: float | None = None
    at_most: float | None = None
    phase: str = "first"
    under_phase: str | None = None
    unit: str = "cpu_s"

    def told(self) -> dict[str, Any]:
        """As it is stored with the results."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Work:
    """What is measured; `title` may name the number of `{orders}`, `small` is their number with `--small`."""

    title: str
    orders: int
    small: int
    rounds: Callable[[Options], Iterable[Round]]
    goals: tuple[Goal, ...]


def _reading(title: str, reading: Reading, *goals: Goal, orders: int = 20_000, small: int = 5_000) -> Work:
    def rounds(options: Options) -> Iterable[Round]:
        return read_in_turn(reading, options.orders, options.rounds, without_peers=options.without_peers)

    return Work(title, orders, small, rounds, goals)


_ours = partial(Goal, FEEDAMP.name)
_merged = tuple(Goal(DLT.name, FEEDAMP.name, at_least=5, phase=phase) for phase in MERGES)


def _placing(way: str) -> Iterator[Goal]:
    yield Goal(way, LOOP, at_most=3, phase="place")
    yield Goal(way, LOOP, at_most=8, phase="whole DAG")
    yield Goal(way, way, at_least=10, phase="whole DAG", under_phase="the same again")


WORKS: dict[str, Work] = {
    "lake": _reading(
        "{orders} orders of one seller into all tables of the lake",
        Reading(),
        Goal(DLT.name, FEEDAMP.name, at_least=5),
        Goal(HTTP_OPERATOR.name, FEEDAMP.name, at_least=2),
        _ours(BARE.name, at_most=1.4),
    ),
    "odd": _reading(
        "{orders} orders, each with an unknown member and its decimals as text, into the lake",
        Reading(ways=(BARE, FEEDAMP, HTTP_OPERATOR, DLT), shape="odd"),
        Goal(DLT.name, FEEDAMP.name, at_least=3),
    ),
    "duckdb": _reading(
        "{orders} orders into the lake and merged into DuckDB",
        Reading(ways=(FEEDAMP, DLT), target="duckdb", versions=MERGES),
        *_merged,
    ),
    "postgres": _reading(
        "{orders} orders into the lake and merged into Postgres",
        Reading(ways=(FEEDAMP, DLT), target="postgres", versions=MERGES),
        *(Goal(DLT.name, FEEDAMP.name, at_least=3, phase=phase) for phase in MERGES),
    ),
    "latency": _reading(
        "{orders} orders of one seller into the lake, 20 ms a page",
        Reading(latency_ms=20.0),
        _ours("pages", at_most=1.1, unit="wall_s"),
    ),
    "sellers": _reading(
        "{orders} orders of 20 sellers into the lake, 20 ms a page; peers read one seller after another",
        Reading(latency_ms=20.0, sellers=20),
        Goal("peers", FEEDAMP.name, at_least=8, unit="wall_s"),
    ),
    "place": Work(
        "{orders} new orders of 200 sellers from the inbox to FeedAMP, the request rate not limited",
        10_000,
        1_000,
        lambda options: place_in_turn(options.orders, options.rounds),
        tuple(goal for way in (IN_SQLITE, IN_POSTGRES) for goal in _placing(way)),
    ),
    "processes": Work(
        "{orders} orders of one seller a process, 20 ms a page, the state on Postgres: four processes beside one",
        10_000,
        2_000,
        lambda options: four_beside_one(options.orders, options.rounds),
        (_ours("feedamp", at_least=3.5, unit="orders_s", phase=TOGETHER, under_phase=ALONE),),
    ),
    "rate": Work(
        "{orders} pages of 200 sellers in four processes, two requests a second allowed for each seller",
        8_000,
        2_000,
        lambda options: at_the_allowed_rate(options.orders, options.rounds),
        (
            _ours(None, at_least=95, unit="of_rate"),
            _ours(None, at_most=100, unit="most"),
        ),
    ),
    "validate": Work(
        "{orders} orders with shipments to validate, of 50 sellers",
        100_000,
        2_000,
        lambda options: beside_earlier(
            "validate",
            VALIDATED_SELLERS,
            VALIDATE,
            options.orders,
            options.rounds,
            without_earlier=options.without_peers,
        ),
        (
            Goal(BEFORE, NOW, at_least=20, phase="all new"),
            Goal(BEFORE, NOW, at_least=100, phase="all new", under_phase="nothing changed"),
        ),
    ),
    "idle": Work(
        "1,500 sellers with {orders} open orders and nothing new, in one process",
        150_000,
        15_000,
        lambda options: beside_earlier(
            "idle", IDLE_SELLERS, IDLE, options.orders, options.rounds, without_earlier=options.without_peers
        ),
        (
            Goal(BEFORE, NOW, at_least=10, phase="nothing new"),
            _ours(None, at_most=1, phase="nothing new", unit="requests"),
            _ours(None, at_most=0.1, phase="nothing new", unit="transactions"),
        ),
    ),
    "ledger": Work(
        "A ledger of {orders} orders of 1,500 sellers, a tenth of them open, beside one of 10,000; the least of three",
        1_000_000,
        50_000,
        lambda options: beside_small_ledger(options.orders),
        tuple(Goal(LARGE, SMALL, at_most=1.5, phase=work) for work in LEDGER_WORKS),
    ),
    "memory": Work(
        "Memory that the steps add to their process, with 20,000 and with {orders} orders of 50 sellers",
        1_000_000,
        40_000,
        lambda options: memory_of_steps(options.orders),
        tuple(
            Goal(step, None, at_most=promised, phase=phase, unit="added_mb")
            for step, promised in PROMISED_MB.items()
            for phase in (MEMORY_FEW, MEMORY_MANY)
        ),
    ),
}
