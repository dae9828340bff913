"""`python tools/store_outage.py --kind crash --seconds 60`: takes the Postgres server of state and warehouse away while
every step of the loop runs, and counts what was sent to FeedAMP twice and what was left undone. Exit 1 if anything was.

The kinds: `crash` stops the server as a power cut would, `kill` ends only its first process with SIGKILL, `stall` stops
all its processes (SIGSTOP). Each strikes at a random moment of the step, and the server returns after `--seconds`.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from order_samples import example_order
from postgres import Server, serving
from postgres_warehouses import address_of

from crashes.fixtures import Fixtures, run_step
from feedamp_sandbox import Sandbox, SandboxOptions, running

STEPS = ("intake", "place", "load", "extract", "load", "validate", "close", "load", "reconcile", "load")
KINDS = ("crash", "kill", "stall")
UPS = "1Z999AA10123456784"
MISTYPED = "1Z999AA10123456785"


def main() -> int:
    """Plays the rounds; 0 if nothing was sent twice and nothing was left undone."""
    parser = argparse.ArgumentParser(prog="python tools/store_outage.py", description=__doc__)
    parser.add_argument("--kind", choices=KINDS, default="crash")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument(
        "--within", type=float, default=1.2, help="seconds from the start of a step to its outage"
    )
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--sellers", type=int, default=10)
    parser.add_argument("--orders", type=int, default=20, help="of each seller")
    parser.add_argument(
        "--steps", nargs="+", choices=sorted(set(STEPS)), default=STEPS, help="disturbed ones"
    )
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    worst = 0
    with serving() as server:
        for number in range(args.rounds):
            with tempfile.TemporaryDirectory(prefix="feedamp-outage-") as folder:
                worst = max(worst, _play(server, Path(folder), args, random.Random(f"{args.seed}/{number}")))
    return worst


def _play(server: Server, folder: Path, args: argparse.Namespace, rng: random.Random) -> int:
    options = SandboxOptions(
        sellers=args.sellers, behaviors=(("never", 1),), requests_per_second=100_000.0, burst=100_000
    )
    undone: list[str] = []
    with running(options) as sandbox:
        ids = [seller["seller_id"] for seller in sandbox.sellers]
        address = address_of(server.lasting_database())
        env = Fixtures.of(folder, sandbox, state_url=server.lasting_database(), postgres=address)
        (folder / "inbox").mkdir(exist_ok=True)
        rows = [
            json.dumps({"seller_id": seller, "order": example_order(f"M-{n}")}, default=float)
            for seller in ids
            for n in range(args.orders)
        ]
        (folder / "inbox" / "orders.jsonl").write_text("\n".join(rows) + "\n")
        resources = env.resources()
        for place, step in enumerate(STEPS):
            if step == "extract":
                _ship(sandbox, ids, args.orders)
            strikes = step in args.steps
            outage = threading.Thread(
                target=_take_away, args=(server, args.kind, args.seconds, rng.uniform(0, args.within))
            )
            began = time.monotonic()
            if strikes:
                outage.start()
            try:
                counts = run_step(resources, step, f"{step}-{place}")
                undone += [f"{step}: {each}" for each in counts.get("undone", ())]
            except Exception as error:  # noqa: BLE001 - it is what is counted
                undone.append(f"{step}: {type(error).__name__}: {error}")
            seconds = time.monotonic() - began
            if strikes:
                outage.join()
            print(f"{args.kind:<6} {step:<10}{seconds:>7.1f} s", flush=True)
        resources.state.close()
        return _judge(sandbox, ids, args.orders, undone)


def _ship(sandbox: Sandbox, ids: list[str], orders: int) -> None:
    """Every order ships whole; each tenth has a wrong tracking number."""
    for seller in ids:
        for n in range(orders):
            body = example_order(f"M-{n}")
            number = UPS if n % 10 else MISTYPED
            lines = [
                {
                    "mp_line_number": line["mp_line_number"],
                    "shipments": [
                        {
                            "quantity": line["quantity"],
                            "carrier": "UPS",
                            "tracking_number": number,
                            "shipped_date": "2026-03-09",
                        }
                    ],
                    "cancellations": [],
                }
                for line in body["order_lines"]
            ]
            sandbox.set_fulfillments(seller, f"M-{n}", lines)


def _take_away(server: Server, kind: str, seconds: float, after_s: float) -> None:
    time.sleep(after_s)
    if kind == "stall":
        with server.stalled():
            time.sleep(seconds)
        return
    if kind == "kill":
        server.kill()
    else:
        server.crash()
    time.sleep(seconds)
    server.start()


def _judge(sandbox: Sandbox, ids: list[str], orders: int, undone: list[str]) -> int:
    sent = Counter((r.method, r.seller_id, r.path) for r in sandbox.requests if r.method != "GET")
    twice = 0
    for seller in ids:
        for n in range(orders):
            path = f"/api/v1/orders/M-{n}"
            twice += max(0, sent["PUT", seller, path] - (2 if n % 10 else 1))
            twice += max(0, sent["POST", seller, f"{path}/errors"] - (0 if n % 10 else 1))
    closed = sum(
        order["marketplace_state"] == "SHIPPED" for seller in ids for order in sandbox.orders(seller).values()
    )
    due = len(ids) * sum(n % 10 > 0 for n in range(orders))
    print(
        f"sent twice: {twice}; left undone: {len(undone)}; closed: {closed} of {due}; rules: {sandbox.broken_rules}"
    )
    for each in undone[:10]:
        print(f"  {each}")
    return int(twice > 0 or bool(undone) or closed != due or bool(sandbox.broken_rules))


if __name__ == "__main__":
    sys.exit(main())
