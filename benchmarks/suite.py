"""All works that have a goal, measured beside what else one could use, in one run.

python benchmarks/suite.py                            every work; peers get environments of their own in .venv-peers/
python benchmarks/suite.py --only lake --only odd     these works
python benchmarks/suite.py --orders 500 --rounds 1    smaller
python benchmarks/suite.py --small                    sizes with which no work takes more than some minutes
python benchmarks/suite.py --without-peers            what needs no other package and no earlier commit
python benchmarks/suite.py --write                    also into benchmarks/results.json, from which docs/benchmarks.md is made

Ways take turns within a round and read the same pages of one server in a process of its own; what a way wrote is counted
before its figures are used. A goal is judged by the median of the ratios of the rounds. CPU seconds are those of the process
that does the work, after it did the same with one page; wall seconds suffer when the machine has other work.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from report import figures_of, write
from works import WORKS, Options

RESULTS = Path(__file__).with_name("results.json")


def measured_on() -> dict[str, Any]:
    """Of which code, when and on what machine."""

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=RESULTS.parents[1], capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    changed = " with changes" if git("status", "--porcelain", "include", "plugins") else ""
    return {
        "commit": git("log", "-1", "--format=%h", "--", "include", "plugins") + changed,
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
    }


def rounded(figures: Any) -> Any:
    """The same with seconds to the tenth of a millisecond."""
    if isinstance(figures, dict):
        return {name: rounded(value) for name, value in figures.items()}
    return round(figures, 4)


def main() -> int:
    """0 when every way did its work, whether or not a goal was reached."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", choices=list(WORKS), metavar="NAME", help=", ".join(WORKS))
    parser.add_argument("--orders", type=int, metavar="N")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--without-peers", action="store_true")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    if min(asked.rounds, asked.orders or 1) < 1:
        parser.error("--rounds and --orders begin at 1")
    for name in asked.only or WORKS:
        work = WORKS[name]
        size = asked.orders or (work.small if asked.small else work.orders)
        options = Options(size, asked.rounds, asked.without_peers)
        print(f"{name}: {work.title.format(orders=f'{size:,}')}", flush=True)
        measured = measured_on()
        result = {
            "title": work.title.format(orders=f"{size:,}"),
            "orders": size,
            "usual_orders": work.orders,
            "measured": measured,
            "rounds": [rounded(one) for one in work.rounds(options)],
            "goals": [goal.told() for goal in work.goals],
        }
        print("\n".join(figures_of(result)), flush=True)
        if asked.write:
            known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
            merged = known | {name: result}
            ordered = {name: merged[name] for name in WORKS if name in merged}
            RESULTS.write_text(json.dumps(ordered, indent=1) + "\n")
            write()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
