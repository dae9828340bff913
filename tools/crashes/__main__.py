"""`python tools/crashes --kills 100 --seed 1`: kills every step at random moments and compares what the next run makes
of it with an undisturbed run; prints a table. Exit 1 if anything differs. With `--engine postgres` state and warehouse
are on a Postgres server, which is struck as well: stopped as by a power cut, or its first process killed.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import nullcontext
from itertools import product
from pathlib import Path
from typing import get_args

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "support"))

from postgres import Server, serving

from crashes.killing import Kind, Victim
from crashes.trial import KILLED, Result, rehearsed

IN_MEMORY = Path("/dev/shm")  # Linux: a commit waits for no disk  # noqa: S108


def main() -> int:
    """Runs the trials; 0 when every one ended as if nothing had happened."""
    parser = argparse.ArgumentParser(prog="python tools/crashes", description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="trials of each step")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", nargs="+", choices=KILLED, default=KILLED)
    parser.add_argument("--engine", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--folder", type=Path, help="where the envs stand; memory if there is any")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    where = args.folder or (IN_MEMORY if IN_MEMORY.is_dir() else None)
    with (
        tempfile.TemporaryDirectory(prefix="feedamp-crashes-", dir=where) as folder,
        serving() if args.engine == "postgres" else nullcontext() as server,
    ):
        return _run(Path(folder), args.kills, args.seed, args.steps, server)


def _run(folder: Path, kills: int, seed: int, steps: list[str], server: Server | None) -> int:
    started = time.monotonic()
    results: list[Result] = []
    try:
        with rehearsed(folder, server) as trials:
            for number, step in product(range(kills), steps):
                stages = [stage for stage in trials.stages if stage.step == step]
                stage = stages[number % len(stages)]
                rng = random.Random(f"{seed}/{step}/{number}")
                result = trials.attempt(stage, rng, to_the_end=number % 5 == 0)
                results.append(result)
                if result.problems:
                    told = f"{step} {number}, round {stage.round_number}, {result.deaths}:"
                    print(told, *result.problems, sep="\n  ", flush=True)
    except (KeyboardInterrupt, RuntimeError) as error:
        if "interrupted" not in str(error).lower() and not isinstance(error, KeyboardInterrupt):
            raise  # DuckDB says it in its own words
        print("Interrupted; what was tried so far:", flush=True)
    _print(results, steps, time.monotonic() - started)
    return 1 if any(result.problems for result in results) else 0


def _print(results: list[Result], steps: list[str], seconds: float) -> None:
    print(
        f"\n{'step':<10}{'trials':>8}{'strikes':>9}{'too late':>10}{'retried':>9}{'PUT again':>11}{'not as undisturbed':>20}"
    )
    for step in steps:
        of_step = [result for result in results if result.stage.step == step]
        print(
            f"{step:<10}{len(of_step):>8}{sum(len(r.deaths) for r in of_step):>9}{sum(r.too_late for r in of_step):>10}"
            f"{sum(r.retried for r in of_step):>9}{sum(r.repeats for r in of_step):>11}"
            f"{sum(bool(r.problems) for r in of_step):>20}"
        )
    for title, names, name_of in (
        ("moment", get_args(Kind), lambda death: death.kind),
        ("struck", get_args(Victim), lambda death: death.victim),
    ):
        print(f"\n{title:<18}" + "".join(f"{step:>10}" for step in steps) + f"{'not as undisturbed':>20}")
        for name in names:
            hit = [(result, death) for result in results for death in result.deaths if name_of(death) == name]
            by_step = Counter(result.stage.step for result, _ in hit)
            worse = {id(result) for result, _ in hit if result.problems}
            print(f"{name:<18}" + "".join(f"{by_step[step]:>10}" for step in steps) + f"{len(worse):>20}")
    print(f"\n{len(results)} trials in {seconds:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
