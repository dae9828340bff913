"""How much memory extract and load take beyond the imported process, and whether it grows with the orders.

python benchmarks/memory.py                           20,000 and 1,000,000 orders of 50 sellers: some minutes
python benchmarks/memory.py --orders 2000 --orders 20000

Each step runs in a process of its own, as a task does. "added" is the most it held (VmHWM) less what it held when
everything was imported and nothing read yet; Linux only. Exit 1 when a step takes more than is promised.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cryptography.fernet import Fernet

from feedamp.api.account import FeedAmpAccount
from feedamp.api.oauth import Credentials
from feedamp.api.token_journal import TokenJournal
from feedamp.api.transport import Endpoint
from feedamp.lake.privacy import Privacy
from feedamp.lake.store import Lake
from feedamp.resources import Resources
from feedamp.run import Run
from feedamp.settings import Settings
from feedamp.state import State, grants, sellers
from feedamp.state.token_cipher import TokenCipher
from feedamp.steps.extract_fulfillments.extract import extract
from feedamp.steps.load import load
from feedamp.storage import open_storage
from feedamp.warehouse.duckdb import DuckDbWarehouse

SELLERS = 50
PROMISED_MB = {"extract": 100, "load": 250}


def resources_in(
    folder: Path,
    api: str,
    *,
    state_url: str = "",
    requests_per_second: float = 1_000_000.0,
    page_size: int = 50,
) -> Resources:
    """An env in this folder with its server at this address; unless a rate is given, requests wait for no slot."""
    connection = FeedAmpAccount(
        Endpoint(api),
        Credentials("feedamp", "client", "secret"),
        requests_per_second=requests_per_second,
    )
    cipher = TokenCipher((folder / "key").read_text())
    return Resources(
        State(state_url or f"sqlite:///{folder}/state.db"),
        cipher,
        Lake(str(folder / "lake")),
        DuckDbWarehouse(str(folder / "warehouse.duckdb")),
        Settings(str(folder / "inbox"), page_size=page_size),
        Privacy(None),
        lambda conn_id: connection,
        TokenJournal(open_storage("journal_url", str(folder / "journal")), cipher),
        default_conn_id="feedamp",
    )


def furnish(folder: Path, seller_count: int = SELLERS, *, state_url: str = "") -> None:
    """Creates a state with sellers, each with a grant."""
    (folder / "key").write_text(Fernet.generate_key().decode())
    resources = resources_in(folder, "http://127.0.0.1:9/api/v1", state_url=state_url)
    with resources.state.begin() as connection:
        for number in range(seller_count):
            seller_id, now = f"S{number:03d}", resources.state.now()
            sellers.add(connection, seller_id, conn_id="feedamp", now=now)
            grants.put_grant(connection, resources.cipher, seller_id, "feedamp", f"rt-{number}", now=now)
    resources.state.close()


def work(step: str, folder: Path, api: str, seller_count: int) -> dict[str, Any]:
    """Runs one step here; what it did, in how many seconds and megabytes."""
    import duckdb  # noqa: F401 - part of the process before any row
    import pandas as pd  # noqa: F401 - pyarrow imports it with the first row where it is installed
    import pyarrow.parquet  # noqa: F401 - likewise, with the first file

    resources = resources_in(folder, api)
    run = Run("feedamp_extract_fulfillments", "manual__1", datetime.now(UTC))
    before_mb, began = status_mb("VmRSS"), time.monotonic()
    if step == "extract":
        seller_ids = [f"S{number:03d}" for number in range(seller_count)]
        result = asyncio.run(extract(resources, run, 0, seller_ids))
        done = {"orders": result.orders, "complete": result.complete, "pages": result.pages}
    else:
        done = dict(load(resources, run))
    seconds, added_mb = time.monotonic() - began, status_mb("VmHWM") - before_mb
    return {**done, "seconds": round(seconds, 1), "before_mb": round(before_mb), "added_mb": round(added_mb)}


def status_mb(name: str) -> float:
    """A figure of this process as the kernel counts it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {name}")


def measure(orders: int, seller_count: int) -> list[dict[str, Any]]:
    """Both steps over so many orders in all."""
    from pages import serving

    results = []
    with TemporaryDirectory(prefix="feedamp-memory-") as name, serving(orders // seller_count) as api:
        furnish(Path(name), seller_count)
        for step in PROMISED_MB:
            of_step = ["--step", step, "--folder", name, "--api", api, "--sellers", str(seller_count)]
            command = [sys.executable, __file__, *of_step]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise RuntimeError(f"{step} failed:\n{done.stderr}")
            results.append({"step": step, "asked": orders, **json.loads(done.stdout.splitlines()[-1])})
    return results


def main() -> int:
    """0 within what is promised, 1 beyond it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--orders", type=int, action="append", metavar="N", help="may be given more than once"
    )
    parser.add_argument("--sellers", type=int, default=SELLERS, metavar="N")
    for hidden in ("--step", "--folder", "--api"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(work(options.step, Path(options.folder), options.api, options.sellers)))
        return 0
    beyond = 0
    print(f"{'step':<8} {'orders':>9} {'seconds':>8} {'process MB':>11} {'added MB':>9} {'promised':>9}")
    for orders in options.orders or [20_000, 1_000_000]:
        for result in measure(orders, options.sellers):
            if result["step"] == "extract" and (result["orders"], result["complete"]) != (orders, True):
                raise RuntimeError(f"extract did not read everything: {result}")
            promised = PROMISED_MB[result["step"]]
            beyond += result["added_mb"] > promised
            print(
                f"{result['step']:<8} {orders:>9,} {result['seconds']:>8} {result['before_mb']:>11} "
                f"{result['added_mb']:>9} {promised:>9}",
                flush=True,
            )
    return 1 if beyond else 0


if __name__ == "__main__":
    raise SystemExit(main())
