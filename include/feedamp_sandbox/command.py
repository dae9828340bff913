"""`feedamp sandbox`: runs the sandbox as a separate process."""

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from feedamp_sandbox.faults import KINDS
from feedamp_sandbox.options import SandboxOptions, Seller
from feedamp_sandbox.server import BASE, Server
from feedamp_sandbox.world import World


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="feedamp sandbox",
        description="Runs a simulated FeedAMP on this machine.",
        epilog="While it runs, /_sandbox/ beside /api/v1 takes control requests: GET report, GET orders, POST "
        'act?rounds=N (lets the sellers work), POST faults with {"kind": …, "times": 1 or null, "probability": 1.0, '
        '"lasts_s": …, "seconds": …, "method": …, "path": …, "seller_id": …} (only kind is required), DELETE faults. '
        f"Kinds of faults: {', '.join(KINDS)}.",
    )
    made.add_argument("--host", default="127.0.0.1")
    made.add_argument("--port", type=int, default=0, help="0 picks a free port")
    sellers = made.add_mutually_exclusive_group()
    sellers.add_argument("--sellers", type=int, default=3, metavar="N", help="number of made-up sellers")
    sellers.add_argument(
        "--sellers-file",
        type=Path,
        metavar="FILE",
        help="JSON Lines: seller_id, name?, refresh_token? (without it, the seller has yet to consent)",
    )
    made.add_argument(
        "--write-sellers", type=Path, metavar="FILE", help="file to write the sellers' first tokens to"
    )
    made.add_argument("--seed", type=int, default=7, help="determines what the simulated sellers do")
    made.add_argument("--requests-per-second", type=float, default=2.0, help="allowed for each seller")
    made.add_argument(
        "--burst", type=int, default=2, help="requests allowed without a pause, for each seller"
    )
    made.add_argument("--token-lifetime-s", type=int, default=3600)
    made.add_argument(
        "--refresh-grace-s", type=float, default=0.0, help="how long an exchanged refresh token works"
    )
    made.add_argument(
        "--pace",
        type=float,
        default=0.0,
        metavar="S",
        help="sellers act every S seconds; 0: only on POST act",
    )
    made.add_argument("--verbose", action="store_true", help="log one line per request to stderr")
    return made


def read_sellers(file: Path) -> tuple[Seller, ...]:
    """The sellers of a JSON Lines file; raises ValueError naming the line."""
    sellers = []
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            seller_id, token = row["seller_id"], row.get("refresh_token") or ""
            sellers.append(Seller(seller_id, row.get("name") or seller_id, token))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{file}, line {number}: a JSON object with a seller_id is required") from error
    if not sellers:
        raise ValueError(f"{file} contains no seller")
    return tuple(sellers)


def write_sellers(file: Path, sellers: Sequence[Seller]) -> None:
    """Writes a JSON Lines file for `feedamp sellers import`, readable only by its owner; replaces an existing file."""
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        os.fchmod(out.fileno(), 0o600)
        for seller in filter(lambda seller: seller.refresh_token, sellers):
            out.write(msgspec.json.encode(seller) + b"\n")


async def serve(options: SandboxOptions, host: str, port: int, sellers_file: Path, verbose: bool) -> World:
    """Serves until SIGTERM or SIGINT; prints one line to stdout once it listens."""
    world = World(options)
    log_line = (lambda line: print(line, file=sys.stderr)) if verbose else None
    server = Server(world, log_line=log_line)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    bound = await server.start(host, port)
    ready = {
        "api": f"http://{host}:{bound}{BASE}",
        "client_id": world.grants.client_id,
        "client_secret": world.grants.client_secret,
        "sellers_file": str(sellers_file),
    }
    print(json.dumps(ready), flush=True)
    await stop.wait()
    await server.stop()
    return world


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0 after a stop signal, 2 for wrong options or a port in use."""
    given = parser().parse_args(argv)
    try:
        sellers = read_sellers(given.sellers_file) if given.sellers_file else max(1, given.sellers)
        options = SandboxOptions(
            sellers=sellers,
            seed=given.seed,
            requests_per_second=given.requests_per_second,
            burst=given.burst,
            token_lifetime_s=given.token_lifetime_s,
            refresh_grace_s=given.refresh_grace_s,
            pace_s=given.pace,
        )
        with tempfile.TemporaryDirectory(
            prefix="feedamp-sandbox-"
        ) as folder:  # deleted when the sandbox stops
            file = given.write_sellers or Path(folder) / "sellers.jsonl"
            write_sellers(file, options.seller_list())
            world = asyncio.run(serve(options, given.host, given.port, file.resolve(), given.verbose))
    except (OSError, ValueError) as error:
        why = str(error)
        if isinstance(error, OSError) and error.filename:
            why = f"{error.filename} cannot be used: {error.strerror}."
        print(f"feedamp sandbox: {why}", file=sys.stderr)
        return 2
    for rule, count, example in world.rules.listed():
        print(f"broken rule {rule}: {count} x, first {example}", file=sys.stderr)
    if not world.rules.listed():
        print("no rule was broken", file=sys.stderr)
    return 0
