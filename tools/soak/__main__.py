"""`python tools/soak --minutes 90 --sellers 60 --orders 20000`: a marketplace's day in little time, with everything that
goes wrong in one, then every order, line, shipment, placement and closure compared. Exit 1 if anything differs.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from soak.play import soak
from soak.report import as_json, as_markdown, verdict
from soak.settings import ENGINES, Settings


def main() -> int:
    """Plays, prints and writes the report; 0 if all is right."""
    parser = argparse.ArgumentParser(prog="python tools/soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=90.0, help="how long orders come and sellers work")
    parser.add_argument("--sellers", type=int, default=60)
    parser.add_argument("--orders", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--folder", type=Path, help="where everything is kept; by default gone at the end if all is right"
    )
    parser.add_argument("--engine", choices=ENGINES, default="duckdb", help="of state and warehouse")
    parser.add_argument(
        "--report", type=Path, help="Markdown; beside it the same as JSON. Default: in the folder"
    )
    parser.add_argument("--no-trouble", action="store_true", help="nothing goes wrong but what sellers do")
    args = parser.parse_args()
    if args.sellers < 1 or args.orders < 1 or args.minutes <= 0:
        parser.error("--minutes, --sellers and --orders must be above zero")
    if args.folder and args.folder.exists() and any(args.folder.iterdir()):
        parser.error(f"{args.folder} is not empty")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = args.folder or Path(tempfile.mkdtemp(prefix="feedamp-soak-"))
    settings = Settings(
        folder.resolve(),
        minutes=args.minutes,
        sellers=args.sellers,
        orders=args.orders,
        seed=args.seed,
        engine=args.engine,
        has_trouble=not args.no_trouble,
    )
    print(f"Soak in {settings.folder}: a DAG starts every {settings.period_s:.0f} s.", flush=True)
    outcome = soak(settings, lambda line: print(line, flush=True))
    report = args.report or folder / "report.md"
    report.write_text(as_markdown(outcome))
    report.with_suffix(".json").write_text(as_json(outcome))
    print(as_markdown(outcome))
    problems = verdict(outcome)
    print("All is right." if not problems else "Not right: " + "; ".join(problems))
    if not args.folder and args.report and not problems:
        shutil.rmtree(folder)
    else:
        print(f"State, lake, warehouse, inbox and logs are in {folder}; the report is {report}.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
