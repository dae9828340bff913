"""Orders of an inbox file are placed in turn by a bare loop and by ours, with the state in SQLite and in Postgres."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from tempfile import TemporaryDirectory

from environments import OURS, Figures, Round, postgres_server, run
from pages import page_server
from ways.clock import Job

SELLERS = 200
LOOP, IN_SQLITE, IN_POSTGRES = "bare PUT loop", "feedamp, SQLite", "feedamp, Postgres"
PROGRAMS = {LOOP: "put_loop", IN_SQLITE: "place_orders", IN_POSTGRES: "place_orders"}
PHASES = ("intake", "place", "load", "the same again")
WHOLE = "whole DAG"


def place_in_turn(orders: int, rounds: int) -> Iterator[Round]:
    """The figures of each round; the loop's PUTs are also its "whole DAG".

    Raises:
        RuntimeError: a way failed, did not send each order once, or sent one again when its row came again.
    """
    sellers = min(SELLERS, orders)
    with page_server() as server, postgres_server(True) as databases:
        for number in range(rounds):
            found: Round = {}
            names = list(PROGRAMS)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                with TemporaryDirectory(prefix="feedamp-bench-") as folder:
                    job = Job(
                        url=server.play(0).url,
                        warm_url=server.play(0).url,
                        folder=folder,
                        orders=orders // sellers,
                        sellers=sellers,
                        target="duckdb",
                        versions=dict.fromkeys(PHASES, 1),
                        postgres=databases.database() if name == IN_POSTGRES else "",
                        warm_postgres=databases.database() if name == IN_POSTGRES else "",
                    )
                    figures = run(PROGRAMS[name], OURS, job)
                    check(name, job, figures)
                    found[name] = figures | {WHOLE: _sum(figures)}
            yield found


def check(name: str, job: Job, figures: Figures) -> None:
    """Counts the PUTs that reached the server, and what `load` brought to the warehouse.

    Raises:
        RuntimeError: they are not the orders.
    """
    orders = job.orders * job.sellers
    sent = {phase: units.get("put", 0) for phase, units in figures.items()}
    if sent["place"] != orders or sent.get("the same again"):
        raise RuntimeError(f"{name} sent {sent} of {orders} orders")
    if name == LOOP:
        return
    import duckdb

    with duckdb.connect(f"{job.folder}/warehouse.duckdb", read_only=True) as reader:
        [(placed, numbers)] = reader.execute(
            "SELECT count(*), count(DISTINCT mp_order_number) FROM feedamp.placements"
        ).fetchall()
    if (placed, numbers) != (orders, orders):
        raise RuntimeError(f"{name} brought {placed} placements of {orders} orders to the warehouse")


def _sum(figures: Figures) -> dict[str, float]:
    total: Counter[str] = Counter()
    for phase in ("intake", "place", "load"):
        for unit in ("cpu_s", "wall_s"):
            total[unit] += figures.get(phase, {}).get(unit, 0.0)
    return dict(total)
