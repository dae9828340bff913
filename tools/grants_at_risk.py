"""`python tools/grants_at_risk.py`: strikes while the tokens of many sellers are refreshed, and counts the grants that are lost.

In each round a process refreshes the token of every seller, and at a random moment

- `stall`: all processes of the Postgres server are stopped (SIGSTOP) for some seconds,
- `crash`: the Postgres server is stopped as a power cut would, and started again after some seconds,
- `lock`: another program keeps the write lock of the SQLite file for some seconds,
- `full`: the disk of SQLite file and journal is full for some seconds (a small file system in memory; needs root),
- `kill`: the refreshing process is killed with SIGKILL.

A second process then refreshes every token again. A grant is lost if FeedAMP refuses it there. FeedAMP is one of three
servers: `grace` accepts a used refresh token for another minute, `strict` does not, `revokes` ends the grant as well.

Exit code 1 if a grant was lost, except by `kill` without a grace period: then at most those whose answer had not been
stored yet, which are counted, too.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from postgres import Server, serving

from crashes.fixtures import CONN, Fixtures
from crashes.forking import CONTEXT
from feedamp.api import pair_storage
from feedamp.api.token_journal import TokenJournal
from feedamp.errors import AuthorizationError
from feedamp.run import Run
from feedamp.state import grants, sellers
from feedamp.state.token_cipher import TokenCipher
from feedamp.storage import open_storage
from feedamp_sandbox import Sandbox, SandboxOptions, running

SERVERS = {
    "grace": {"refresh_grace_s": 60.0},
    "strict": {"refresh_grace_s": 0.0},
    "revokes": {"refresh_grace_s": 0.0, "revoke_on_reuse": True},
}
STRIKES = ("stall", "crash", "lock", "full", "kill")
ON_POSTGRES = ("stall", "crash")
PATIENCE_S = 300.0
DISK_BYTES = 4 << 20


@dataclass
class Figures:
    """What so many rounds of one strike against one server came to."""

    refreshes: int = 0
    struck: int = 0  # rounds in which the strike came while tokens were being refreshed
    journaled: int = 0
    unstored: int = 0
    lost: int = 0
    errors: dict[str, int] = field(default_factory=dict)


def main() -> int:
    """Plays the rounds; 0 if no grant was lost that could have been kept."""
    parser = argparse.ArgumentParser(
        prog="python tools/grants_at_risk.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--strikes", nargs="+", choices=STRIKES, default=STRIKES)
    parser.add_argument("--servers", nargs="+", choices=sorted(SERVERS), default=list(SERVERS))
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--sellers", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=2.0, help="how long a strike lasts")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    is_bad = False
    print(
        f"{'strike':<8}{'server':<9}{'rounds':>7}{'struck':>8}{'refreshes':>11}{'journaled':>11}{'unstored':>10}{'lost':>6}"
    )
    for strike in args.strikes:
        for server in args.servers:
            rng = random.Random(f"{args.seed}/{strike}/{server}")
            found = play(strike, server, args.rounds, args.sellers, args.seconds, rng)
            print(
                f"{strike:<8}{server:<9}{args.rounds:>7}{found.struck:>8}{found.refreshes:>11}"
                f"{found.journaled:>11}{found.unstored:>10}{found.lost:>6}",
                flush=True,
            )
            for words, count in found.errors.items():
                print(f"    {count} times: {words}")
            may_lose = found.unstored if strike == "kill" and server != "grace" else 0
            is_bad = is_bad or found.lost > may_lose
    return int(is_bad)


def play(
    strike: str, server: str, rounds: int, seller_count: int, seconds: float, rng: random.Random
) -> Figures:
    """So many rounds of one strike against one kind of server."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="feedamp-grants-")))
        if strike == "full":
            stack.enter_context(_small_disk(folder))
        postgres = stack.enter_context(serving()) if strike in ON_POSTGRES else None
        sandbox = stack.enter_context(running(SandboxOptions(sellers=seller_count, **SERVERS[server])))
        url = postgres.lasting_database() if postgres else ""
        fixtures = Fixtures.of(folder, sandbox, state_url=url)
        round_s = _measured(fixtures)
        figures = Figures()
        for _ in range(rounds):
            _play_round(fixtures, sandbox, strike, postgres, seconds, rng.uniform(0, round_s), figures)
        return figures


def _play_round(
    fixtures: Fixtures,
    sandbox: Sandbox,
    strike: str,
    postgres: Server | None,
    seconds: float,
    after_s: float,
    figures: Figures,
) -> None:
    before = len(sandbox.requests)
    victim = CONTEXT.Process(target=_renew_in_a_process, args=(fixtures, None))
    started = time.monotonic()
    victim.start()
    while len(sandbox.requests) == before and victim.is_alive() and time.monotonic() - started < PATIENCE_S:
        time.sleep(0.001)
    time.sleep(after_s)
    figures.struck += victim.is_alive()
    if strike == "kill":
        victim.kill()
        victim.join(PATIENCE_S)
        figures.unstored += _unstored(fixtures, sandbox)
    else:
        with _struck(strike, fixtures, postgres):
            time.sleep(seconds)
            with suppress(Exception):  # the journal's disk may be full
                figures.journaled += _journal(fixtures)
        victim.join(PATIENCE_S)
        if victim.exitcode is None:
            raise RuntimeError("the refreshing process does not end")
    told, theirs = CONTEXT.Pipe()
    second = CONTEXT.Process(target=_renew_in_a_process, args=(fixtures, theirs))
    second.start()
    refused, others = told.recv() if told.poll(PATIENCE_S) else ([], ["the second process said nothing"])
    second.join(PATIENCE_S)
    figures.lost += len(refused)
    for words in others:
        figures.errors[words] = figures.errors.get(words, 0) + 1
    figures.refreshes += sum(request.path.endswith("/access_token") for request in sandbox.requests[before:])
    _consent_anew(fixtures, sandbox, refused)


def _consent_anew(fixtures: Fixtures, sandbox: Sandbox, seller_ids: list[str]) -> None:
    """Gives these sellers new grants, so that the next round has all of them."""
    cipher = TokenCipher(fixtures.key)
    with closing(fixtures.open_state()) as state, state.begin() as connection:
        for seller_id in seller_ids:
            with sandbox.world.lock:
                pair = sandbox.world.grants.exchange_code(sandbox.world.grants.issue_code(seller_id))
            token = pair["refresh_token"]
            grants.put_grant(connection, cipher, seller_id, CONN, token, now=state.now())


def _renew_in_a_process(fixtures: Fixtures, pipe: object) -> None:
    logging.disable(logging.CRITICAL)
    refused, others = asyncio.run(_renew(fixtures))
    if pipe is not None:
        pipe.send((refused, others))  # type: ignore[attr-defined]


async def _renew(fixtures: Fixtures) -> tuple[list[str], list[str]]:
    """Refreshes every seller's token; the sellers that FeedAMP refuses, and the words of other errors."""
    pair_storage.STORE_TRIED_FOR_S = 20.0
    resources = fixtures.resources()
    refused: list[str] = []
    others: list[str] = []
    with closing(resources.state):
        with resources.state.read() as connection:
            everyone = [seller.seller_id for seller in sellers.find(connection)]
        async with resources.clients(Run("grants", "at risk", resources.state.now())) as clients:
            tokens = await clients.tokens(CONN)

            async def renew(seller_id: str) -> None:
                try:
                    await tokens.renew(seller_id)
                except AuthorizationError:
                    refused.append(seller_id)
                except Exception as error:  # noqa: BLE001 - counted and shown
                    others.append(f"{type(error).__name__}: {error}".replace(seller_id, "SELLER"))

            await asyncio.gather(*(renew(seller_id) for seller_id in everyone))
    return refused, others


def _measured(fixtures: Fixtures) -> float:
    """How long it takes to refresh all tokens in this process when nothing strikes."""
    began = time.monotonic()
    refused, others = asyncio.run(_renew(fixtures))
    if refused or others:
        raise RuntimeError(f"undisturbed refreshes failed: {refused} {others}")
    return time.monotonic() - began


@contextmanager
def _struck(strike: str, fixtures: Fixtures, postgres: Server | None) -> Iterator[None]:
    if strike == "stall" and postgres is not None:
        with postgres.stalled():
            yield
    elif strike == "crash" and postgres is not None:
        postgres.crash()
        yield
        postgres.start()
    elif strike == "lock":
        with closing(
            sqlite3.connect(fixtures.folder / "state.db", timeout=60, isolation_level=None)
        ) as other:
            other.execute("BEGIN IMMEDIATE")
            yield
            other.execute("ROLLBACK")
    else:
        filler = fixtures.folder / "filler"
        stop = threading.Event()
        thread = threading.Thread(target=_fill, args=(filler, stop))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            filler.unlink(missing_ok=True)


def _fill(path: Path, stop: threading.Event) -> None:
    """Takes every byte that becomes free, until told to stop."""
    with path.open("ab", buffering=0) as file:
        while not stop.is_set():
            try:
                file.write(bytes(4096))
            except OSError:
                stop.wait(0.01)


@contextmanager
def _small_disk(folder: Path) -> Iterator[None]:
    """Mounts a file system of 4 MB on the folder."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _unstored(fixtures: Fixtures, sandbox: Sandbox) -> int:
    """Sellers whose newest refresh token FeedAMP has issued and neither state nor journal has."""
    resources = fixtures.resources()
    count = 0
    with closing(resources.state), resources.state.read() as connection:
        for seller in sandbox.sellers:
            seller_id = seller["seller_id"]
            grant = grants.read(connection, resources.cipher, seller_id)
            known = {pair.refresh_token for _, pair in resources.journal.pairs_of(seller_id)}
            known |= {grant.refresh_token} if grant else set()
            count += sandbox.refresh_token(seller_id) not in known
    return count


def _journal(fixtures: Fixtures) -> int:
    """Pairs that are in the journal now; read without the state, which may not answer."""
    folder = str(fixtures.folder / "journal")
    return TokenJournal(open_storage("journal_url", folder), TokenCipher(fixtures.key)).waiting()


if __name__ == "__main__":
    sys.exit(main())
