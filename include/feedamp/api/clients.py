"""Clients for sellers of any account, with one connection pool, token set and rate limiter per account."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from feedamp.api.account import FeedAmpAccount, check_origin
from feedamp.api.account_check import AccountCheck, Verdict, check_account
from feedamp.api.client import Counts, FeedAmpClient
from feedamp.api.clock_check import ClockCheck
from feedamp.api.oauth import TokenEndpoint
from feedamp.api.rate_limit import RateLimiter, Sleep
from feedamp.api.token_journal import TokenJournal
from feedamp.api.tokens import Tokens
from feedamp.api.transport import Transport
from feedamp.errors import AuthorizationError, ClientRefusedError, ConfigurationError, TransientError
from feedamp.rules.origin import is_same_origin
from feedamp.run import Run
from feedamp.state import State, sellers
from feedamp.state.sellers import Seller
from feedamp.state.token_cipher import TokenCipher

log = logging.getLogger(__name__)

Account = tuple[Transport, Tokens, RateLimiter]


class _Opening:
    """An account that is being opened; whoever waits for it can be cancelled without ending that for others."""

    def __init__(self, task: asyncio.Task[Account]) -> None:
        self.task = task
        self._is_over = asyncio.Event()
        task.add_done_callback(lambda _: self._is_over.set())

    async def account(self) -> Account:
        await self._is_over.wait()
        return self.task.result()


class Clients:
    """Makes clients for sellers; opens the pool of an account when it is first needed."""

    def __init__(
        self,
        state: State,
        cipher: TokenCipher,
        journal: TokenJournal,
        account: Callable[[str], FeedAmpAccount],
        *,
        run: Run,
        sleep: Sleep,
        on_secret: Callable[[str], None],
        before_change: Callable[[], None],
        history_share: float | None = None,
        goes_first: bool = False,
    ) -> None:
        self._state = state
        self._cipher = cipher
        self._journal = journal
        self._find_account = account
        self._run = run
        self._sleep = sleep
        self._on_secret = on_secret
        self._before_change = before_change
        self._history_share = history_share
        self._goes_first = goes_first
        self._clock_check: ClockCheck | None = None
        self._stack = AsyncExitStack()
        self._accounts: dict[str, Account] = {}
        self._opening: dict[str, _Opening] = {}  # by connection; a slow look-up delays no other
        self._comparing: dict[str, asyncio.Lock] = {}
        self.counts = Counts()

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        self._state.rates.join()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for opening in self._opening.values():
            opening.task.cancel()  # those that are not done
        try:
            await self._stack.aclose()
        finally:
            self._state.rates.leave()

    def hold_rates(self, seller_ids: Sequence[str]) -> None:
        """Takes the request rates of sellers whose work begins now, so that no request of theirs needs a transaction."""
        self._state.rates.hold(seller_ids)

    @property
    def requests(self) -> int:
        """Requests sent so far, token calls included."""
        return sum(transport.requests for transport, _, _ in self._accounts.values())

    @property
    def clock_check(self) -> ClockCheck:
        """The one check of the clock for all answers to these clients."""
        if self._clock_check is None:
            self._clock_check = ClockCheck(self._state)
        return self._clock_check

    async def client(self, seller: Seller, *, via: str | None = None) -> FeedAmpClient:
        """A client for one seller, once the account behind a new grant has been compared with known orders.

        Its requests are sent through the connection `via`, if that is given, otherwise through the seller's.

        Raises:
            AuthorizationError: the grant is refused, or it is set aside because its account is another seller's.
            ConfigurationError: `via` leads to another server than the seller's connection.
            FeedAmpError: the account could not be compared.
        """
        await self._compared(seller)
        return await self._client(seller, self.counts, via=via)

    async def check_account(self, seller: Seller) -> AccountCheck:
        """Compares the account behind a seller's new grant with known orders; see `account_check`."""
        async with self._comparing.setdefault(seller.seller_id, asyncio.Lock()):
            _, tokens, _ = await self._account(seller.conn_id)
            tokens.drop_cached(seller.seller_id)
            try:
                client = await self._client(seller, Counts(), to_compare=True)
                return await check_account(self._state, self._cipher, client, seller)
            finally:
                tokens.drop_cached(seller.seller_id)  # another grant may be in use from now on

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

    async def _client(
        self, seller: Seller, counts: Counts, *, to_compare: bool = False, via: str | None = None
    ) -> FeedAmpClient:
        own, tokens, rate_limiter = await self._account(seller.conn_id)
        transport = own if via is None else (await self._account(via))[0]
        if transport is not own and not is_same_origin(transport.endpoint.origin, own.endpoint.origin):
            raise ConfigurationError(
                f"The connection of seller {seller.seller_id} is {seller.conn_id}, which points to {own.endpoint.origin}; "
                f"no token of the seller is sent to {transport.endpoint.origin}."
            )
        return FeedAmpClient(
            seller.seller_id,
            transport=transport,
            tokens=tokens,
            rate_limiter=rate_limiter,
            clock=self.clock_check,
            now=lambda: self.clock_check.corrected(self._state.now()),
            sleep=self._sleep,
            counts=counts,
            to_compare=to_compare,
        )

    async def for_seller(self, seller_id: str, *, via: str | None = None) -> FeedAmpClient:
        """As `client`, for a registered seller.

        Raises:
            AuthorizationError: the seller is not registered, or nothing may be sent for this seller now.
        """
        with self._state.read() as connection:
            found = sellers.find(connection, [seller_id])
        if not found:
            raise AuthorizationError("The seller is not registered.", seller_id=seller_id)
        if found[0].blocked_by:
            raise AuthorizationError(f"Nothing can be sent: {found[0].blocked_briefly}.", seller_id=seller_id)
        return await self.client(found[0], via=via)

    async def tokens(self, conn_id: str) -> Tokens:
        return (await self._account(conn_id))[1]

    def newly_lost(self) -> tuple[list[str], ClientRefusedError | None]:
        """Sellers newly marked because their newest token was lost; see `Tokens.newly_lost`.

        The second value is the error of a connection whose client FeedAMP refuses, if there is one.
        """
        lost: list[str] = []
        client_error: ClientRefusedError | None = None
        for _, tokens, _ in self._accounts.values():
            try:
                lost += tokens.newly_lost()
            except ClientRefusedError as error:
                client_error = error
        return lost, client_error

    async def _account(self, conn_id: str) -> Account:
        """Found once; all sellers of the connection wait for that, and fail if it fails."""
        opening = self._opening.get(conn_id)
        if opening is None:
            opening = self._opening[conn_id] = _Opening(asyncio.create_task(self._open(conn_id)))
        return await opening.account()

    async def _open(self, conn_id: str) -> Account:
        # In a thread: the look-up may be repeated for a minute, while other requests must go on.
        account = await asyncio.to_thread(self._find_account, conn_id)
        try:
            check_origin(self._state, conn_id, account.endpoint)
        except TransientError:
            del self._opening[conn_id]  # whoever comes next may find the state again
            raise
        clock = self.clock_check
        transport = await self._stack.enter_async_context(
            Transport(account.endpoint, on_answer=clock.saw, before_change=self._before_change)
        )
        rate_limiter = RateLimiter(
            self._state,
            requests_per_second=account.requests_per_second,
            sleep=self._sleep,
            history_share=self._history_share,
            goes_first=self._goes_first,
        )
        tokens = Tokens(
            self._state,
            self._cipher,
            TokenEndpoint(transport, account.credentials),
            self._journal,
            self._run,
            clock,
            rate_limiter,
            sleep=self._sleep,
            on_secret=self._on_secret,
        )
        self._stack.push_async_callback(tokens.settle)
        self._accounts[conn_id] = transport, tokens, rate_limiter
        return self._accounts[conn_id]
