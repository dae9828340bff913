"""Several processes of ours at once: what four reach on Postgres beside one, and how much of the request rate is used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from environments import Figures, Round, postgres_server, run_together
from memory import furnish
from pages import page_server
from ways.clock import Job

OURS = "feedamp"
PROCESSES = 4
ALONE, TOGETHER = "1 process", f"{PROCESSES} processes"
LATENCY_MS = 20.0
SELLERS, ALLOWED, WINDOW_S = 200, 2.0, 10.0


def four_beside_one(orders: int, rounds: int) -> Iterator[Round]:
    """One seller a process, the state on Postgres, 20 ms a page."""
    with page_server() as server, postgres_server(True) as databases:
        for _ in range(rounds):
            found: Figures = {}
            for phase, processes in ((ALONE, 1), (TOGETHER, PROCESSES)):
                play = server.play(orders, latency_ms=LATENCY_MS, sellers=processes)
                with TemporaryDirectory(prefix="feedamp-bench-") as folder:
                    job = Job(
                        url=play.url,
                        warm_url=server.play(50).url,
                        folder=folder,
                        orders=orders,
                        sellers=1,
                        target="lake",
                        versions={"first": 1},
                        postgres=databases.database(),
                    )
                    furnish(Path(folder), processes, state_url=job.postgres)
                    jobs = [replace(job, first_seller=number) for number in range(processes)]
                    found[phase] = _together([one["first"] for one in run_together("shard", jobs)])
            yield {OURS: found}


def _together(figures: list[dict[str, float]]) -> dict[str, float]:
    wall_s, cpu_s = max(one["wall_s"] for one in figures), sum(one["cpu_s"] for one in figures)
    orders = sum(one["orders"] for one in figures)
    return {
        "cpu_s": cpu_s,
        "wall_s": wall_s,
        "orders_s": orders / wall_s,
        "cores": cpu_s / wall_s / len(figures),
    }


def at_the_allowed_rate(orders: int, rounds: int) -> Iterator[Round]:
    """200 sellers in four processes, a page an order, two requests a second allowed; what reached the server.

    "of_rate" is the median over sellers of what was used of the rate between a seller's first and last request, "most"
    the largest number of requests of one seller within ten seconds; both in percent of what is allowed.
    """
    sellers = SELLERS // PROCESSES
    each = orders // SELLERS
    if each < 2:
        raise ValueError(f"{2 * SELLERS} orders at least")
    with page_server() as server:
        for _ in range(rounds):
            play = server.play(each)
            with TemporaryDirectory(prefix="feedamp-bench-") as folder:
                job = Job(
                    url=play.url,
                    warm_url=server.play(50).url,
                    folder=folder,
                    orders=each,
                    sellers=sellers,
                    target="lake",
                    versions={"first": 1},
                    requests_per_second=ALLOWED,
                    page_size=1,
                )
                furnish(Path(folder), SELLERS)
                jobs = [replace(job, first_seller=number * sellers) for number in range(PROCESSES)]
                figures = _together([one["first"] for one in run_together("shard", jobs)])
                yield {OURS: {"first": figures | _of_rate(play.asked())}}


def _of_rate(asked_at: dict[str, list[float]]) -> dict[str, float]:
    used = [(len(at) - 1) / (at[-1] - at[0]) / ALLOWED for at in map(sorted, asked_at.values())]
    most = max(
        sum(first <= other < first + WINDOW_S for other in at) for at in asked_at.values() for first in at
    )
    return {"of_rate": 100 * median(used), "most": 100 * most / (ALLOWED * WINDOW_S)}
