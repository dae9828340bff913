"""What a step is given to work with: stores, rules, and clients for sellers of any connection."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self

from feedamp.api.account_check import (
    AccountCheck,
    Verdict,
    check_account,
)
from feedamp.api.client import Counts, FeedAmpClient
from feedamp.api.oauth import Credentials, TokenEndpoint
from feedamp.api.rate_limit import Pacer, Sleep
from feedamp.api.tokens import Token, Tokens
from feedamp.api.transport import Address, Transport
from feedamp.errors import AuthorizationError, ClientRefusedError
from feedamp.inbox import OrderQuery
from feedamp.lake.privacy import Privacy
from feedamp.lake.store import Lake
from feedamp.lake.writer import LakeWriter
from feedamp.order_body import BodyRules
from feedamp.state import State, sellers
from feedamp.state.sellers import Seller
from feedamp.storage import Storage
from feedamp.vault import Vault
from feedamp.warehouse import Warehouse

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Connection:
    """One Airflow connection of type `feedamp`, read."""

    address: Address
    credentials: Credentials
    requests_per_second: float = 2.0
    callback_url: str | None = None


@dataclass(frozen=True)
class Rules:
    """The `[feedamp]` options that steps obey; defaults as in INTERFACE.md."""

    inbox_url: str
    inbox_settle_s: float = 10.0
    body: BodyRules = field(default_factory=BodyRules)
    max_rejected_ratio: float = 0.05
    sellers_per_task: int = 50
    page_size: int = 50
    overlap: timedelta = timedelta(minutes=10)
    error_codes: Mapping[str, str | None] = field(default_factory=dict)
    error_clear: timedelta = timedelta(days=3)
    stale_after: timedelta = timedelta(days=7)
    closed_body_kept: timedelta | None = None  # None: for ever


@dataclass(frozen=True)
class Run:
    """The task that works: `started_at` is the start of its DAG run, `day` names the lake folder."""

    dag_id: str
    run_id: str
    started_at: datetime
    try_number: int = 1
    dry_run: bool = False

    def slug(self, step: str, now: datetime) -> str:
        """A file name for this try of this run, never used before: a run id can come again."""
        short = re.sub(r"[^A-Za-z0-9]+", "_", self.dag_id.removeprefix("feedamp_"))
        mark = hashlib.sha256(f"{self.dag_id}/{self.run_id}".encode()).hexdigest()[:8]
        return f"{short}-{step}-{mark}-{now:%Y%m%dT%H%M%S%f}-{self.try_number}"


@dataclass(frozen=True)
class Parts:
    """Everything a step needs; put together in one place (wiring)."""

    state: State
    vault: Vault
    lake: Lake
    warehouse: Warehouse
    rules: Rules
    privacy: Privacy
    connection: Callable[[str], Connection]
    default_conn_id: str = "feedamp_default"
    order_query: OrderQuery | None = None  # read by intake after the files
    sleep: Sleep = asyncio.sleep
    on_secret: Callable[[str], None] = lambda secret: None
    open_inbox: Callable[[], Storage] | None = None  # None: `rules.inbox_url` says all

    @property
    def inbox(self) -> str | Storage:
        """Where order files lie; opened by those alone who look."""
        return self.open_inbox() if self.open_inbox else self.rules.inbox_url

    def clients(self, run: Run) -> Clients:
        """Clients for any seller, one pool of connections for each FeedAMP account; use as `async with`."""
        return Clients(self, run)

    def lake_writer(self, run: Run, step: str, shard: int) -> LakeWriter:
        """A writer whose manifest is announced in the state before it can exist."""
        now = self.state.now()
        return LakeWriter(self.lake, run.slug(step, now), shard, day=now.date(), privacy=self.privacy)


class Clients:
    """Open pools by connection id."""

    def __init__(self, parts: Parts, run: Run) -> None:
        self._parts = parts
        self._run = run
        self._stack = AsyncExitStack()
        self._transports: dict[str, Transport] = {}
        self._accounts: dict[str, tuple[Transport, Tokens, Pacer]] = {}
        self._opening = asyncio.Lock()
        self._comparing: dict[str, asyncio.Lock] = {}
        self.counts = Counts()

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def requests(self) -> int:
        """Requests sent so far, token calls included."""
        return sum(transport.requests for transport, _, _ in self._accounts.values())

    async def client(self, seller: Seller) -> FeedAmpClient:
        """A client for one seller, once the account behind a new grant has been compared with known orders.

        Raises:
            AuthorizationError: the grant is refused, or its account is another seller's and it is set aside.
            FeedAmpError: the account could not be compared.
        """
        await self._compared(seller)
        return await self._client(seller, self.counts)

    async def check_account(self, seller: Seller) -> AccountCheck:
        """Compares the account behind a seller's new grant with known orders; see `account_check`."""
        async with self._comparing.setdefault(seller.seller_id, asyncio.Lock()):
            _, tokens, _ = await self._account(seller.conn_id)
            tokens.forget(seller.seller_id)
            try:
                client = await self._client(seller, Counts(), to_compare=True)
                return await check_account(self._parts.state, client, seller)
            finally:
                tokens.forget(seller.seller_id)  # another grant may be in use from now on

    async def _compared(self, seller: Seller) -> None:
        if seller.account_checked:
            return
        check = await self.check_account(seller)
        if check.verdict is Verdict.SET_ASIDE:
            raise AuthorizationError(
                f"The seller's grant is set aside: {check.reason}.", seller_id=seller.seller_id
            )
        if check.verdict is Verdict.KEPT_BEFORE:
            log.warning(
                "The new grant of seller %s is set aside: %s; the one before it stays in use.",
                seller.seller_id,
                check.reason,
            )

    async def _client(self, seller: Seller, counts: Counts, *, to_compare: bool = False) -> FeedAmpClient:
        transport, tokens, pacer = await self._account(seller.conn_id)
        return FeedAmpClient(
            seller.seller_id,
            transport=transport,
            tokens=tokens,
            pacer=pacer,
            now=self._parts.state.now,
            sleep=self._parts.sleep,
            counts=counts,
            to_compare=to_compare,
        )

    async def for_seller(self, seller_id: str) -> FeedAmpClient:
        """A client for a registered seller.

        Raises:
            AuthorizationError: nobody knows the seller, or nothing may be sent for this seller now.
        """
        return await self.client(self._registered(seller_id))

    async def token_and_turn(self, seller_id: str, *, stale: Token | None = None) -> Token:
        """A live token (newer than a stale one) once a request for the seller may leave."""
        seller = self._registered(seller_id)
        await self._compared(seller)
        _, tokens, pacer = await self._account(seller.conn_id)
        token = await (tokens.live(seller_id) if stale is None else tokens.replace(seller_id, stale))
        await pacer.turn(seller_id)
        return token

    def _registered(self, seller_id: str) -> Seller:
        with self._parts.state.read() as connection:
            found = sellers.find(connection, [seller_id])
        if not found:
            raise AuthorizationError("The seller is not registered.", seller_id=seller_id)
        if found[0].blocked_by:
            raise AuthorizationError(f"Nothing can be sent: {found[0].blocked_by}.", seller_id=seller_id)
        return found[0]

    async def tokens(self, conn_id: str) -> Tokens:
        """The tokens of one connection."""
        return (await self._account(conn_id))[1]

    def settle(self) -> tuple[list[str], ClientRefusedError | None]:
        """Judges refused grants; returns sellers newly marked, to be reported once.

        With them the error of a connection whose client FeedAMP refuses; the sellers of that one stay unmarked.
        """
        newly: list[str] = []
        blamed: ClientRefusedError | None = None
        for _, tokens, _ in self._accounts.values():
            try:
                newly += tokens.settle()
            except ClientRefusedError as error:
                blamed = error
        return newly, blamed

    async def _account(self, conn_id: str) -> tuple[Transport, Tokens, Pacer]:
        async with self._opening:
            if conn_id not in self._accounts:
                parts = self._parts
                connection = parts.connection(conn_id)
                transport = await self._stack.enter_async_context(Transport(connection.address))
                pacer = Pacer(
                    parts.state, requests_per_second=connection.requests_per_second, sleep=parts.sleep
                )
                tokens = Tokens(
                    parts.state,
                    parts.vault,
                    TokenEndpoint(transport, connection.credentials),
                    sleep=parts.sleep,
                    run_started_at=self._run.started_at,
                    request_timeout_s=connection.address.timeout_s,
                    on_secret=parts.on_secret,
                )
                self._accounts[conn_id] = (transport, tokens, pacer)
            return self._accounts[conn_id]


def shards(seller_ids: list[str], *, sellers_per_task: int) -> list[dict[str, Any]]:
    """Sellers split evenly over at most 200 tasks (DESIGN, section 2)."""
    if not seller_ids:
        return []
    count = min(200, -(-len(seller_ids) // max(1, sellers_per_task)))
    size, rest = divmod(len(seller_ids), count)
    parts, start = [], 0
    for shard in range(count):
        end = start + size + (1 if shard < rest else 0)
        parts.append({"shard": shard, "sellers": seller_ids[start:end]})
        start = end
    return parts
