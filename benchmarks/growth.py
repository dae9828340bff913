"""What grows with the ledger: beside an earlier commit, beside a small ledger, and against what is promised."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import ledger
import memory
from environments import OURS, ROOT, Figures, Round, earlier, run
from pages import page_server
from ways.clock import Job

BASELINE = "bc96d4e"  # before throughput was worked on
NOW, BEFORE = "feedamp", f"feedamp at {BASELINE}"
VALIDATE, IDLE = ("all new", "nothing changed"), ("first", "nothing new")
VALIDATED_SELLERS, IDLE_SELLERS = 50, 1_500
FEW = 10_000
SMALL, LARGE = f"{FEW:,} orders", "large ledger"
MEMORY_FEW, MEMORY_FEWER = "few orders", 20_000
MEMORY_MANY = "many orders"


def beside_earlier(
    program: str, sellers: int, phases: tuple[str, ...], orders: int, rounds: int, *, without_earlier: bool
) -> Iterator[Round]:
    """The figures of this code and of the baseline; `orders` are those of all sellers."""
    sellers = min(sellers, orders)
    codes = {NOW: ROOT} if without_earlier else {NOW: ROOT, BEFORE: earlier(BASELINE)}
    shown = 0 if program == "idle" else orders // sellers
    with page_server() as server:
        for number in range(rounds):
            found: Round = {}
            for name, code in list(codes.items())[:: -1 if number % 2 else 1]:
                with TemporaryDirectory(prefix="feedamp-bench-") as folder:
                    job = Job(
                        url=server.play(shown).url,
                        warm_url=server.play(50 if shown else 0).url,
                        folder=folder,
                        orders=orders // sellers,
                        sellers=sellers,
                        target="duckdb",
                        versions=dict.fromkeys(phases, 1),
                    )
                    found[name] = run(program, OURS, job, code=code)
                    if program == "validate":
                        _check_validated(folder, job)
                    else:
                        _count_requests(found[name], sellers)
            yield found


def _check_validated(folder: str, job: Job) -> None:
    import sqlite3

    state = sqlite3.connect(Path(folder) / "state.db")
    [(done,)] = state.execute(
        "SELECT count(*) FROM snapshots WHERE validated_hash = snapshot_hash"
    ).fetchall()
    faults = state.execute("SELECT kind, count(*) FROM findings GROUP BY kind").fetchall()
    state.close()
    if (done, faults) != (job.orders * job.sellers, []):
        raise RuntimeError(f"{done} orders are validated, findings: {faults}")


def _count_requests(figures: Figures, sellers: int) -> None:
    for phase in IDLE:
        units = figures[phase]
        units["requests"] = sum(units.get(kind, 0) for kind in ("pages", "tokens")) / sellers


def beside_small_ledger(orders: int) -> Iterator[Round]:
    """Each plan, `gate`, `status` and an idle shard of each step; CPU seconds, the least of three."""
    found: Round = {}
    for name, count in ((SMALL, min(FEW, orders)), (LARGE, orders)):
        found[name] = {work: {"cpu_s": seconds} for work, seconds in ledger.measure(count, None).items()}
    yield found


LEDGER_WORKS = (
    *(f"plan of {name}" for name in ("place", "extract", "process", "refresh")),
    *(f"shard of {name}" for name in ("place", "extract", "validate", "close", "refresh")),
    "gate",
    "status",
)


def memory_of_steps(orders: int) -> Iterator[Round]:
    """Megabytes that `extract` and `load` add to their process."""
    found: Round = {step: {} for step in memory.PROMISED_MB}
    for phase, count in ((MEMORY_FEW, min(MEMORY_FEWER, orders)), (MEMORY_MANY, orders)):
        for result in memory.measure(count, min(memory.SELLERS, count // 50 or 1)):
            found[result["step"]][phase] = {"added_mb": float(result["added_mb"])}
    yield found
