"""One seller's way to FeedAMP, put together over a real sandbox and a real state file, on a clock that tests move."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cryptography.fernet import Fernet

from feedamp.auth import Tokens
from feedamp.client import FeedAmpClient
from feedamp.pacing import Pacer
from feedamp.sandbox import Sandbox, SandboxOptions, running
from feedamp.sandbox.probe import example_order
from feedamp.state import State, grants, sellers
from feedamp.token_endpoint import Credentials, TokenEndpoint
from feedamp.transport import Address, Transport
from feedamp.vault import Vault

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
CONN = "feedamp_default"
S1, S2 = "seller-001", "seller-002"
KEY = Fernet.generate_key().decode()
JsonObject = dict[str, Any]


class Clock:
    """Stands still until it is moved; sleeping moves it."""

    def __init__(self) -> None:
        self.at = NOON
        self.slept: list[float] = []

    def __call__(self) -> datetime:
        return self.at

    def forward(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.forward(seconds)
        await asyncio.sleep(0)


@cache
def _migrated_file() -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder, "state.db")
        State(f"sqlite:///{path}").close()
        return path.read_bytes()


@contextmanager
def opened_state(folder: Path, clock: Clock | None = None) -> Iterator[State]:
    """The state database of the folder, made from a migrated copy where there is none."""
    path = folder / "state.db"
    if not path.exists():
        path.write_bytes(_migrated_file())
    state = State(f"sqlite:///{path}", clock=clock)
    try:
        yield state
    finally:
        state.close()


def add_seller(state: State, vault: Vault, seller_id: str, refresh_token: str) -> None:
    with state.begin() as connection:
        sellers.add(connection, seller_id, conn_id=CONN, now=state.now())
        grants.put_grant(connection, vault, seller_id, CONN, refresh_token, now=state.now())


@dataclass
class Wire:
    """What a run holds in its hands, and the sandbox at the other end."""

    sandbox: Sandbox
    state: State
    vault: Vault
    clock: Clock
    transport: Transport
    credentials: Credentials
    tokens: Tokens
    pacer: Pacer
    folder: Path

    def client(self, seller_id: str = S1) -> FeedAmpClient:
        return FeedAmpClient(
            seller_id,
            transport=self.transport,
            tokens=self.tokens,
            pacer=self.pacer,
            now=self.state.now,
            sleep=self.clock.sleep,
        )

    def other_tokens(self, **options: Any) -> Tokens:
        """Tokens as another process, or the next run, would hold them."""
        endpoint = TokenEndpoint(self.transport, options.pop("credentials", self.credentials))
        return Tokens(self.state, self.vault, endpoint, sleep=self.clock.sleep, **options)

    def grant(self, seller_id: str = S1) -> grants.Grant:
        with self.state.read() as connection:
            found = grants.read(connection, self.vault, seller_id)
        assert found is not None
        return found

    def place(self, *numbers: str, seller_id: str = S1, **changes: Any) -> None:
        """Puts orders into the sandbox without a request."""
        with self.sandbox.world.lock:
            for number in numbers:
                body = example_order(number, **changes)
                self.sandbox.world.orders.add(seller_id, body, self.clock())

    def ship(self, number: str, quantity: int = 2) -> None:
        shipment = {"quantity": quantity, "carrier": "UPS", "tracking_number": "1Z0", "shipped_date": "2026-03-04"}
        entry = {"mp_line_number": f"{number}-1", "shipments": [shipment], "cancellations": []}
        self.sandbox.set_fulfillments(S1, number, [entry])

    def asked(self, path: str | None = None) -> list[tuple[str, str, int]]:
        """Method, path below the base URL and status of the requests so far, token calls left out unless asked for."""
        seen = [(r.method, r.path.removeprefix("/api/v1"), r.status) for r in self.sandbox.requests]
        return [entry for entry in seen if (entry[1] == path if path else entry[1] != "/access_token")]

    @property
    def refreshes(self) -> int:
        return len(self.asked("/access_token"))


@asynccontextmanager
async def wired(folder: Path, **options: Any) -> AsyncIterator[Wire]:
    """A connected seller or two; keywords are options of the sandbox, whose rate limit is out of the way."""
    clock, vault = Clock(), Vault(KEY)
    settings = SandboxOptions(**{"sellers": 2, "requests_per_second": 1000, "burst": 1000, **options})
    with (
        running(settings, clock=clock, monotonic=lambda: clock().timestamp()) as sandbox,
        opened_state(folder, clock) as state,
    ):
        for seller in sandbox.sellers:
            add_seller(state, vault, seller["seller_id"], seller["refresh_token"])
        credentials = Credentials(CONN, sandbox.client_id, sandbox.client_secret)
        async with Transport(Address(sandbox.api, timeout_s=5)) as transport:
            yield Wire(
                sandbox=sandbox,
                state=state,
                vault=vault,
                clock=clock,
                transport=transport,
                credentials=credentials,
                tokens=Tokens(state, vault, TokenEndpoint(transport, credentials), sleep=clock.sleep),
                pacer=Pacer(state, requests_per_second=1000, sleep=clock.sleep),
                folder=folder,
            )


@dataclass
class Script:
    """A bare server: gives the scripted answers in turn, then the last one for ever, and keeps what it was sent.

    `closes`: whether a connection ends with its answer; else it stays open for one more request.
    """

    answers: Sequence[bytes]
    requests: list[bytes] = field(default_factory=list)
    url: str = ""
    closes: bool = True
    handlers: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def heads(self) -> list[str]:
        return [request.partition(b"\r\n\r\n")[0].decode() for request in self.requests]

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.handlers.append(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):  # the client has left
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?i)\r\ncontent-length: *([0-9]+)", head)
                self.requests.append(head + await reader.readexactly(int(length[1]) if length else 0))
                writer.write(self.answers[min(len(self.requests), len(self.answers)) - 1])
                await writer.drain()
                if self.closes:
                    break
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def answer(body: Any = None, status: int = 200, **headers: str) -> bytes:
    """The bytes of an answer; a body that is no bytes goes out as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(content)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


@asynccontextmanager
async def scripted(*answers: bytes) -> AsyncIterator[Script]:
    script = Script(answers)
    server = await asyncio.start_server(script.accept, "127.0.0.1", 0)
    script.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/api/v1"
    async with server:
        yield script
        await asyncio.wait_for(asyncio.gather(*script.handlers), 5)


def token_answer(number: int = 1, expires_in: int = 3600) -> bytes:
    return answer(
        {
            "access_token": f"at-{number}",
            "token_type": "Bearer",
            "refresh_token": f"rt-{number}",
            "expires_in": expires_in,
        }
    )


@asynccontextmanager
async def speaking(folder: Path, *answers: bytes) -> AsyncIterator[tuple[FeedAmpClient, Script]]:
    """A client whose server first gives a token, then these answers."""
    clock, vault = Clock(), Vault(KEY)
    with opened_state(folder, clock) as state:
        add_seller(state, vault, S1, "rt-0")
        async with (
            scripted(token_answer(), *answers) as script,
            Transport(Address(script.url, timeout_s=5)) as transport,
        ):
            endpoint = TokenEndpoint(transport, Credentials(CONN, "mkt", "hush"))
            client = FeedAmpClient(
                S1,
                transport=transport,
                tokens=Tokens(state, vault, endpoint, sleep=clock.sleep),
                pacer=Pacer(state, requests_per_second=1000, sleep=clock.sleep),
                now=clock,
                sleep=clock.sleep,
            )
            yield client, script
