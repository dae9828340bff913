"""How long 46 sellers take beside four failing ones, compared with the time they take alone, in one run.

python benchmarks/isolation.py                   five pages a seller, at the two requests a second that are allowed
python benchmarks/isolation.py --pages N

The time of the 46 is that of the last request that any of them made. The four: an outage, a revoked grant, a throttle
with a long Retry-After, answers that are no JSON. Exit 1 when the 46 took more than 20 % longer, or when the run did
not say which four and why.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

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
from feedamp.steps.step_result import StepResult
from feedamp.storage import open_storage
from feedamp.warehouse.duckdb import DuckDbWarehouse
from feedamp_sandbox import Sandbox, SandboxOptions, running

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
from order_samples import example_order

SELLERS, IN_TROUBLE, PER_PAGE = 50, 4, 10
PROMISED = 1.2


def resources_for(sandbox: Sandbox, folder: Path) -> Resources:
    """An env beside this sandbox that knows all its sellers."""
    connection = FeedAmpAccount(
        Endpoint(sandbox.api), Credentials("feedamp", sandbox.client_id, sandbox.client_secret)
    )
    cipher = TokenCipher(Fernet.generate_key().decode())
    resources = Resources(
        State(f"sqlite:///{folder}/state.db"),
        cipher,
        Lake(str(folder / "lake")),
        DuckDbWarehouse(str(folder / "warehouse.duckdb")),
        Settings(str(folder / "inbox"), page_size=PER_PAGE),
        Privacy(None),
        lambda conn_id: connection,
        TokenJournal(open_storage("journal_url", str(folder / "journal")), cipher),
        default_conn_id="feedamp",
    )
    with resources.state.begin() as opened:
        for seller in sandbox.sellers:
            now = resources.state.now()
            sellers.add(opened, seller["seller_id"], conn_id="feedamp", now=now)
            grants.put_grant(
                opened, resources.cipher, seller["seller_id"], "feedamp", seller["refresh_token"], now=now
            )
    return resources


def stock(sandbox: Sandbox, pages: int) -> None:
    """Puts this many pages of orders into the sandbox for every seller."""
    now = datetime.now(UTC)
    with sandbox.world.lock:
        for seller in sandbox.sellers:
            for number in range(pages * PER_PAGE):
                body = example_order(f"{seller['seller_id']}-{number}")
                sandbox.world.orders.add(seller["seller_id"], body, now).seller_updated_at = now


def seconds_of_others(pages: int, *, with_trouble: bool) -> tuple[float, StepResult]:
    """When the last of the 46 made its last request, and what the run says."""
    options = SandboxOptions(sellers=SELLERS, behaviors=(("never", 1),))
    with TemporaryDirectory(prefix="feedamp-isolation-") as name, running(options) as sandbox:
        stock(sandbox, pages)
        everybody = [seller["seller_id"] for seller in sandbox.sellers]
        outage, revoked, throttled, garbage = everybody[:IN_TROUBLE]
        if with_trouble:
            sandbox.fault("error_503", seller_id=outage, path="/orders", times=None)
            sandbox.revoke(revoked)
            sandbox.fault("throttle", seller_id=throttled, path="/orders", times=None, seconds=600)
            sandbox.fault("broken_json", seller_id=garbage, path="/orders", times=None)
        resources = resources_for(sandbox, Path(name))
        asked = everybody if with_trouble else everybody[IN_TROUBLE:]
        began = datetime.now(UTC)
        run = Run("feedamp_extract_fulfillments", "manual__1", began)
        result = asyncio.run(extract(resources, run, 0, asked))
        resources.state.close()
        others = [request.at for request in sandbox.requests if request.seller_id in everybody[IN_TROUBLE:]]
        return (max(others) - began).total_seconds(), result


def main() -> int:
    """0 within what is promised, 1 beyond it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pages", type=int, default=5)
    pages = parser.parse_args().pages
    alone_s, _ = seconds_of_others(pages, with_trouble=False)
    beside_s, result = seconds_of_others(pages, with_trouble=True)
    ratio = beside_s / alone_s
    print(f"46 sellers alone {alone_s:.1f} s, beside four failing ones {beside_s:.1f} s: {ratio:.2f} times")
    for line in (*result.undone, *result.notes):
        print(f"  {line}")
    return 1 if ratio > PROMISED or len(result.failed_sellers) != IN_TROUBLE else 0


if __name__ == "__main__":
    raise SystemExit(main())
