"""One seller's way to FeedAMP, put together over a real sandbox and a real state file, on a clock that tests move."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import compiled_sql  # noqa: F401 - states share it
from cryptography.fernet import Fernet
from order_samples import example_order
from scripted import Script, scripted, token_answer

from crashes.clock import Clock
from feedamp.api.client import Counts, FeedAmpClient
from feedamp.api.clock_check import ClockCheck
from feedamp.api.oauth import Credentials, TokenEndpoint
from feedamp.api.rate_limit import RateLimiter, Sleep
from feedamp.api.token_journal import TokenJournal
from feedamp.api.tokens import Tokens
from feedamp.api.transport import Endpoint, Transport
from feedamp.run import Run
from feedamp.state import State, grants, sellers
from feedamp.state.token_cipher import TokenCipher
from feedamp.storage import open_storage
from feedamp_sandbox import (
    Sandbox,
    SandboxOptions,
    running,
)
from feedamp_sandbox.server import Exchange, Observer

CONN = "feedamp_default"
S1, S2 = "seller-001", "seller-002"
IN_MEMORY = Path("/dev/shm")  # Linux
KEY = Fernet.generate_key().decode()
JsonObject = dict[str, Any]


async def take_slot(rate_limiter: RateLimiter, seller_id: str) -> None:
    """Waits for a request slot, as a request does that is sent and answered at once."""
    async with rate_limiter.leaving(seller_id, asyncio.Semaphore()):
        pass


def run_from(started_at: datetime, try_number: int = 1) -> Run:
    """The run of all tokens of a wire, unless they name another one."""
    return Run("feedamp_extract_fulfillments", "manual__1", started_at, try_number)


def tokens_of(
    state: State,
    cipher: TokenCipher,
    endpoint: TokenEndpoint,
    journal: TokenJournal,
    *,
    sleep: Sleep,
    run: Run | None = None,
    **options: Any,
) -> Tokens:
    """The tokens of a run, by default one that begins now, whose clock no answer has contradicted."""
    run = run or run_from(state.now())
    rates = RateLimiter(state, requests_per_second=1000, sleep=sleep)
    return Tokens(state, cipher, endpoint, journal, run, ClockCheck(state), rates, sleep=sleep, **options)


def add_seller(state: State, cipher: TokenCipher, seller_id: str, refresh_token: str) -> None:
    with state.begin() as connection:
        sellers.add(connection, seller_id, conn_id=CONN, now=state.now())
        grants.put_grant(connection, cipher, seller_id, CONN, refresh_token, now=state.now())


@cache
def _file_with(sellers: tuple[tuple[str, str], ...]) -> bytes:
    """The bytes of a migrated state that knows these sellers and their refresh tokens since noon."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "state.db")
        with closing(State(f"sqlite:///{path}", clock=Clock(keeps_still=True).now)) as state:
            for seller_id, refresh_token in sellers:
                add_seller(state, TokenCipher(KEY), seller_id, refresh_token)
        return path.read_bytes()


@contextmanager
def opened_state(clock: Clock, sellers: Mapping[str, str] | None = None) -> Iterator[State]:
    """A state of its own with these sellers and their tokens; in memory, where a commit waits for no disk."""
    with TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as folder:
        path = Path(folder, "state.db")
        path.write_bytes(_file_with(tuple((sellers or {}).items())))
        with closing(State(f"sqlite:///{path}", clock=clock.now)) as state:
            yield state


def journal_of(state: State) -> TokenJournal:
    """The journal beside a SQLite state, of `KEY`."""
    folder = Path(state.url.database or "").with_name("journal")
    return TokenJournal(open_storage("journal_url", str(folder)), TokenCipher(KEY))


class StallsAtTheAnswer:
    """Holds the state's write lock from the moment of FeedAMP's answer to a token call, for some seconds, or until `lets_go`."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.path = seconds, ""
        self.has_begun, self.lets_go, self.is_over = threading.Event(), threading.Event(), threading.Event()

    def __call__(self, exchange: Exchange) -> None:
        if "/access_token" in exchange.url and self.path:
            threading.Thread(target=self._stall, args=(self.path,), daemon=True).start()
            self.path = ""
            self.has_begun.wait(5)

    def _stall(self, path: str) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            self.has_begun.set()
            self.lets_go.wait(self.seconds)
            connection.execute("ROLLBACK")
        self.is_over.set()


@dataclass
class Wire:
    """The client objects of a run, and the sandbox they talk to."""

    sandbox: Sandbox
    state: State
    cipher: TokenCipher
    clock: Clock
    transport: Transport
    credentials: Credentials
    tokens: Tokens
    rate_limiter: RateLimiter

    def client(self, seller_id: str = S1) -> FeedAmpClient:
        return FeedAmpClient(
            seller_id,
            transport=self.transport,
            tokens=self.tokens,
            rate_limiter=self.rate_limiter,
            clock=ClockCheck(self.state),
            now=self.state.now,
            sleep=self.clock.sleep,
            counts=Counts(),
        )

    def other_tokens(
        self,
        *,
        transport: Transport | None = None,
        client_secret: str | None = None,
        journal: TokenJournal | None = None,
        **options: Any,
    ) -> Tokens:
        """Tokens as another process, or the next run, would hold them."""
        secret = client_secret or self.credentials.client_secret
        endpoint = TokenEndpoint(
            transport or self.transport, Credentials(CONN, self.credentials.client_id, secret)
        )
        journal = journal or journal_of(self.state)
        return tokens_of(self.state, self.cipher, endpoint, journal, sleep=self.clock.sleep, **options)

    def grant(self, seller_id: str = S1) -> grants.Grant:
        with self.state.read() as connection:
            found = grants.read(connection, self.cipher, seller_id)
        assert found is not None
        return found

    def place(self, *numbers: str, seller_id: str = S1, **changes: Any) -> None:
        """Puts orders into the sandbox without a request."""
        with self.sandbox.world.lock:
            for number in numbers:
                body = example_order(number, **changes)
                self.sandbox.world.orders.add(seller_id, body, self.clock.now())

    def ship(self, number: str, quantity: int = 2) -> None:
        shipment = {
            "quantity": quantity,
            "carrier": "UPS",
            "tracking_number": "1Z0",
            "shipped_date": "2026-03-04",
        }
        entry = {"mp_line_number": f"{number}-1", "shipments": [shipment], "cancellations": []}
        self.sandbox.set_fulfillments(S1, number, [entry])

    def asked(self, path: str | None = None) -> list[tuple[str, str, int]]:
        """Method, path below the base URL and status of the requests so far, token calls left out unless asked for."""
        seen = [(r.method, r.path.removeprefix("/api/v1"), r.status) for r in self.sandbox.requests]
        return [entry for entry in seen if (entry[1] == path if path else entry[1] != "/access_token")]

    def give_grant(self, refresh_token: str, seller_id: str = S1) -> None:
        """A person stores a grant."""
        with self.state.begin() as connection:
            grants.put_grant(connection, self.cipher, seller_id, CONN, refresh_token, now=self.state.now())

    def new_consent(self, refresh_token: str, seller_id: str = S1) -> None:
        """Gives the seller a new refresh token at FeedAMP, which accepts only that one."""
        with self.sandbox.world.lock:
            self.sandbox.world.grants._grant(seller_id, refresh_token)

    @property
    def refreshes(self) -> int:
        return len(self.asked("/access_token"))


@asynccontextmanager
async def wired(observer: Observer | None = None, **options: Any) -> AsyncIterator[Wire]:
    """A connected seller or two; keywords are options of the sandbox, whose rate limit is out of the way."""
    clock, cipher = Clock(keeps_still=True), TokenCipher(KEY)
    settings = SandboxOptions(**{"sellers": 2, "requests_per_second": 1000, "burst": 1000, **options})
    with (
        running(settings, clock=clock.now, monotonic=clock.elapsed_s, observer=observer) as sandbox,
        opened_state(clock, {s["seller_id"]: s["refresh_token"] for s in sandbox.sellers}) as state,
    ):
        credentials = Credentials(CONN, sandbox.client_id, sandbox.client_secret)
        async with Transport(Endpoint(sandbox.api, timeout_s=5)) as transport:
            yield Wire(
                sandbox=sandbox,
                state=state,
                cipher=cipher,
                clock=clock,
                transport=transport,
                credentials=credentials,
                tokens=tokens_of(
                    state,
                    cipher,
                    TokenEndpoint(transport, credentials),
                    journal_of(state),
                    sleep=clock.sleep,
                ),
                rate_limiter=RateLimiter(state, requests_per_second=1000, sleep=clock.sleep),
            )


@asynccontextmanager
async def speaking(
    *answers: bytes, token: bytes | None = None
) -> AsyncIterator[tuple[FeedAmpClient, Script]]:
    """A client whose server first gives a token, or answers the token call as given, then these answers."""
    clock, cipher = Clock(keeps_still=True), TokenCipher(KEY)
    with opened_state(clock, {S1: "rt-0"}) as state:
        async with (
            scripted(token or token_answer(), *answers) as script,
            Transport(Endpoint(script.url, timeout_s=5)) as transport,
        ):
            endpoint = TokenEndpoint(transport, Credentials(CONN, "mkt", "hush"))
            client = FeedAmpClient(
                S1,
                transport=transport,
                tokens=tokens_of(state, cipher, endpoint, journal_of(state), sleep=clock.sleep),
                rate_limiter=RateLimiter(state, requests_per_second=1000, sleep=clock.sleep),
                clock=ClockCheck(state),
                now=clock.now,
                sleep=clock.sleep,
                counts=Counts(),
            )
            yield client, script
