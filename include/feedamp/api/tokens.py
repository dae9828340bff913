"""Live access tokens for sellers, with at most one refresh per seller at a time over all processes (promise 7).

A lease in the state database lets one process refresh a seller's token; the others wait until the new one is stored. The
rotated refresh token is persisted before its access token is used.
"""

import asyncio
import logging
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, auto
from functools import partial
from queue import Empty, SimpleQueue

from sqlalchemy.engine import Connection

from feedamp.api.clock_check import ClockCheck
from feedamp.api.oauth import TokenEndpoint, TokenPair
from feedamp.api.pair_storage import ForeignPairError, PairStorage, in_daemon_thread
from feedamp.api.rate_limit import QUICK_RETRIES, RateLimiter, Sleep, quick_pause_s
from feedamp.api.token_journal import JournaledPair, TokenJournal
from feedamp.errors import (
    AuthorizationError,
    BusyError,
    ClientRefusedError,
    ConfigurationError,
    TransientError,
    UnclearError,
)
from feedamp.rules.grant_refusal import BlameClient, Mark, Retry, judge_answer
from feedamp.rules.origin import not_confirmed, others
from feedamp.run import Run
from feedamp.state import State, grants, leases, sellers
from feedamp.state.grants import Access, Grant, Version
from feedamp.state.leases import Lease, elapsed_s
from feedamp.state.reconnect import STATE_ERRORS
from feedamp.state.token_cipher import TokenCipher

log = logging.getLogger(__name__)
# An access token is renewed when its remaining life is below the smaller of these: seconds, and share of its whole life.
RENEWED_BEFORE_S, RENEWED_BEFORE_SHARE = 120.0, 0.2
# A refresh without a clear answer is repeated as often as a GET, within the grace period that servers allow (Q10).
UNCLEAR_REPEATED_FOR_S = 60.0
# Waits between two looks at a refresh that another process is making: the first, and the longest. How long it is waited
# for; its process may be storing a pair for as long as `STORE_TRIED_FOR_S`.
_WAIT_FOR_OTHERS_S, _LONGEST_WAIT_S, _WAIT_AT_MOST_S = 0.05, 0.5, 200.0
REFRESHES_AT_ONCE = 16


@dataclass(frozen=True)
class Token:
    """A live access token and the version of its grant."""

    value: str = field(repr=False)
    version: Version
    good_until: datetime


class _AskedToPauseError(Exception):
    """FeedAMP asked for a pause of token calls of so many seconds, which are not over; nothing was sent."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class GrantMark(Enum):
    """What this process knows of a version of a grant beyond what is stored. Another version has no mark.

    | mark | set when | what follows |
    |---|---|---|
    | `DISOWNED` | FeedAMP answered 401 to a token that it had just issued | a token works: no mark; in a later run again: the grant is recorded as refused |
    | `ORPHANED` | a process died in a refresh and left its lease, so FeedAMP's answer may be lost | a refresh works: no mark; FeedAMP refuses: `LOST` |
    | `REFUSED` | FeedAMP refuses the refresh token | it is not sent again in this run; at its end `steps/refused_grants.py` decides who is at fault |
    | `LOST` | FeedAMP refuses an orphaned refresh token; the seller is marked already, and the client is not blamed | `newly_lost` reports the seller once: `REFUSED` |
    """

    DISOWNED = auto()
    ORPHANED = auto()
    REFUSED = auto()
    LOST = auto()


class Tokens:
    """Access tokens of one connection's sellers, for the duration of one run or command."""

    def __init__(
        self,
        state: State,
        cipher: TokenCipher,
        endpoint: TokenEndpoint,
        journal: TokenJournal,
        run: Run,
        clock: ClockCheck,
        rate_limiter: RateLimiter,
        *,
        sleep: Sleep,
        on_secret: Callable[[str], None] = lambda secret: None,
    ) -> None:
        self._run = run
        self._clock = clock
        self._rate_limiter = rate_limiter
        self._state = state
        self._cipher = cipher
        self._endpoint = endpoint
        self._pairs = PairStorage(state, cipher, journal, on_secret=on_secret)
        self._sleep = sleep
        self._on_secret = on_secret
        self._cache: dict[str, Token] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        # Set once: no seller of the connection is tried any more.
        self._refused_client: ClientRefusedError | None = None
        self._threads = ThreadPoolExecutor(REFRESHES_AT_ONCE, thread_name_prefix="feedamp-refresh")
        # Event loops that no refresh is using.
        self._loops: SimpleQueue[asyncio.AbstractEventLoop] = SimpleQueue()
        self._close_loops = weakref.finalize(self, _close, self._loops)
        self._refreshes: set[asyncio.Future[Token | None]] = set()  # those under way
        self._wanted: set[str] = set()  # sellers whose grants are read next
        self._reading: asyncio.Task[dict[str, Access] | Exception] | None = None
        self._marks: dict[str, tuple[GrantMark, Version]] = {}  # by seller, with the version that it is about

    @property
    def conn_id(self) -> str:
        """The id of the connection whose sellers these tokens are for."""
        return self._endpoint.credentials.conn_id

    async def live(self, seller_id: str, *, to_compare: bool = False) -> Token:
        """A token with more than min(120 s, 20 % of its life) left.

        If the grant's account has not been compared with known orders yet, a token is returned only with `to_compare`.

        Raises:
            AuthorizationError: the grant is refused or missing; ClientRefusedError if FeedAMP refuses the client.
            ConfigurationError: the grant was issued by another server than the connection leads to, or the clock is refused.
            ThrottledError: FeedAMP asked for a long pause of the seller's token calls before; nothing was sent.
            TransientError: no answer, or the account still has to be compared; the grant is not affected.
        """
        while True:  # first without the lock, whose turns cost as much as the rest
            cached = self._cache.get(seller_id)
            if cached is not None and self._now() < cached.good_until:
                return cached
            async with self._locks.setdefault(seller_id, asyncio.Lock()):
                if self._cache.get(seller_id) is cached:
                    return await self._obtain(seller_id, stale_version=None, to_compare=to_compare)

    async def replace(self, seller_id: str, stale: Token, *, to_compare: bool = False) -> Token:
        """A token newer than `stale`, to which FeedAMP answered 401; raises as `live`."""
        async with self._locks.setdefault(seller_id, asyncio.Lock()):
            cached = self._cache.get(seller_id)
            if cached is not None and cached.version != stale.version:  # a later one
                return cached
            self._cache.pop(seller_id, None)
            return await self._obtain(seller_id, stale_version=stale.version, to_compare=to_compare)

    def drop_cached(self, seller_id: str) -> None:
        """Removes the cached token; call it when the seller's grant may change."""
        self._cache.pop(seller_id, None)

    def newest(self, seller_id: str) -> Token | None:
        """The token that this process obtained last; None before the first one, and while a refused one is replaced."""
        return self._cache.get(seller_id)

    async def renew(self, seller_id: str) -> Token:
        """Refreshes the token regardless of its remaining life, even if the grant is marked as refused; raises as `live`."""
        async with self._locks.setdefault(seller_id, asyncio.Lock()):
            grant = await in_daemon_thread(self._read, seller_id)
            if grant.status == sellers.SET_ASIDE:
                raise AuthorizationError("The seller's grant is set aside.", seller_id=seller_id)
            return await self._obtain(
                seller_id, stale_version=grant.version, even_if_marked=True, to_compare=True
            )

    def disowned(self, seller_id: str, token: Token) -> None:
        """Records that FeedAMP answered 401 to a token it had just issued (Q32).

        The first time, this is only noted. If it happens again in a later run and no token has worked in between, it
        counts as a refusal of the grant.
        """
        grant = self._read(seller_id)
        with self._state.begin() as connection:
            now = self._state.now()
            if grant.consent != token.version[0]:
                return  # a person has authorized again meanwhile
            if grant.disowned_at is not None and grant.disowned_at < self._run.started_at:
                grants.note_refusal(connection, grant, run_key=self._run.key, now=now)
            elif grant.version == token.version:
                grants.note_disowned(connection, seller_id, grant.disowned_at or now)
        self._unmark(seller_id, GrantMark.DISOWNED)

    def accepted(self, seller_id: str) -> None:
        """Clears the note that `disowned` left, because a token worked."""
        if self._unmark(seller_id, GrantMark.DISOWNED):
            with self._state.begin() as connection:
                grants.note_disowned(connection, seller_id, None)

    async def settle(self) -> None:
        """Waits until every refresh under way is stored, even if it is cancelled; call it before the transport closes.

        When a step is ended by Airflow, its sellers' work is cancelled in any order, and the step does not wait for all.
        """
        while self._refreshes:
            with suppress(asyncio.CancelledError):
                await asyncio.wait(self._refreshes)
        self._threads.shutdown(wait=False)
        self._close_loops()

    def newly_lost(self) -> list[str]:
        """Sellers marked `needs_authorization` because their newest token was lost with a process; each is named once.

        Raises:
            ClientRefusedError: FeedAMP named the client when it refused.
        """
        if self._refused_client is not None:
            raise self._refused_client
        lost = {seller_id: of for seller_id, (mark, of) in self._marks.items() if mark is GrantMark.LOST}
        self._marks |= {seller_id: (GrantMark.REFUSED, of) for seller_id, of in lost.items()}
        return list(lost)

    async def _obtain(
        self,
        seller_id: str,
        *,
        stale_version: Version | None,
        even_if_marked: bool = False,
        to_compare: bool = False,
    ) -> Token:
        wait_s, give_up_at = _WAIT_FOR_OTHERS_S, elapsed_s() + _WAIT_AT_MOST_S
        while True:
            self._clock.raise_if_refused()
            grant = await self._read_with_others(seller_id)
            for issued_by in others([grant.origin], self._endpoint.origin):
                raise ConfigurationError(
                    not_confirmed(self.conn_id, issued_by=issued_by, origin=self._endpoint.origin),
                    seller_id=seller_id,
                )
            if grant.account_checked_at is None and not to_compare:
                raise TransientError(
                    "A new grant arrived during this run; its account is compared with known orders before it is used.",
                    seller_id=seller_id,
                )
            token = _token_of(grant)
            if token and grant.version != stale_version and self._now() < token.good_until:
                return self._keep(seller_id, token)
            if grant.status == sellers.SET_ASIDE:
                raise AuthorizationError("The seller's grant is set aside.", seller_id=seller_id)
            if grant.status != sellers.ACTIVE and not even_if_marked:
                raise AuthorizationError("The seller must authorize again.", seller_id=seller_id)
            if self._refused_client is not None:
                raise self._refused_client
            if self._is_refused(grant, even_if_marked=even_if_marked):
                raise AuthorizationError(
                    "FeedAMP refuses the grant; the seller must authorize again.", seller_id=seller_id
                )
            try:
                token = await self._refresh(grant)
            except _AskedToPauseError as asked:
                await self._rate_limiter.wait_out(seller_id, asked.seconds)
                continue
            except BusyError:
                if elapsed_s() > give_up_at:
                    raise
                await self._sleep(wait_s)
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
                continue
            if token is not None:
                return self._keep(seller_id, token)

    async def _refresh(self, grant: Access) -> Token | None:
        """Refreshes the token under the lease; None if the stored grant has to be read again.

        Runs in a thread with a separate event loop, so that nothing can come between FeedAMP's answer and storing it:
        neither what Airflow raises in the main thread (a task timeout, a cancellation) nor work for other sellers. A
        cancellation waits until it is stored. The lease is released, unless the new pair could not be stored.

        Raises:
            BusyError: another process is refreshing this seller's token.
            _AskedToPauseError: FeedAMP asked any process for a pause of the seller's token calls.
        """
        refresh = asyncio.get_running_loop().run_in_executor(self._threads, self._refresh_alone, grant)
        self._refreshes.add(refresh)
        refresh.add_done_callback(self._refreshes.discard)
        try:
            token = await asyncio.shield(refresh)
        except BaseException:
            # The process of a task ends without waiting for threads. A task group cancels again what it has cancelled.
            while not refresh.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait({refresh})
            raise
        self._clock.raise_if_refused()
        return token

    def _refresh_alone(self, found: Access) -> Token | None:
        """As `_refresh_and_store`, under the lease; None if another process has changed the grant before that."""
        seller_id, stored, pauses = found.seller_id, list[Grant | None](), list[float]()

        def look(connection: Connection) -> None:
            stored.append(grants.read(connection, self._cipher, seller_id))
            pauses.append(self._rate_limiter.token_pause_left_s(connection, seller_id))

        with self._state.leases.hold(leases.of_refresh(seller_id), of=[seller_id], once_taken=look) as lease:
            if lease is None:
                raise BusyError(
                    "Another process has been refreshing this seller's token for too long.",
                    seller_id=seller_id,
                )
            grant = stored[-1]
            if grant is None or grant.version != found.version:
                return None
            if pauses[-1]:
                # Whoever refreshes after the pause should know of a process that died, too.
                lease.has_open_outcome = lease.was_left
                raise _AskedToPauseError(pauses[-1])
            if lease.was_left:
                self._marks[seller_id] = (GrantMark.ORPHANED, grant.version)
            # A loop for each refresh would cost as much as its requests: to close one, Python goes through all tasks of the process.
            try:
                loop = self._loops.get_nowait()
            except Empty:
                loop = asyncio.new_event_loop()
            try:
                return loop.run_until_complete(self._refresh_and_store(grant, lease))
            finally:
                self._loops.put(loop)

    async def _refresh_and_store(self, grant: Grant, lease: Lease) -> Token | None:
        """The new token; None if pairs of the journal or another grant were stored instead: what is stored has to be read."""
        asked_at = self._state.now()
        try:
            if self._pairs.take_in(grant.seller_id):
                return None
            reservation = self._pairs.reserve(grant.seller_id)
            try:
                used, answer = await self._ask(grant, lease)
            except BaseException:
                reservation.release()
                raise
        except AuthorizationError as error:
            self._refused(grant, error)
            return None
        lease.has_open_outcome = True
        asked_at = self._clock.corrected(asked_at)  # whatever the clock: a new pair must be stored
        self._unmark(grant.seller_id, GrantMark.ORPHANED)
        cached = list(self._cache.items())
        has_same = (one for one, kept in cached if kept.value == answer.access_token)
        other_id = next((one for one in has_same if one != grant.seller_id), None)
        foreign = ForeignPairError(
            f"FeedAMP answered a token call with the access token of seller {other_id}; it is not used.",
            seller_id=grant.seller_id,
        )
        pair = JournaledPair(
            seller_id=grant.seller_id,
            generation=grant.generation,
            used_token=used,
            refresh_token=answer.refresh_token,
            access_token=answer.access_token if other_id is None else "",
            expires_in_s=answer.expires_in_s,
            asked_at=asked_at,
            conn_id=grant.conn_id,
            origin=grant.origin,
            consent=grant.consent,
        )
        try:
            if other_id is not None and not answer.is_rotated:  # nothing is lost with such an answer
                reservation.release()
                raise foreign
            is_stored = await self._pairs.store(grant, pair, reservation)
        except ForeignPairError:
            lease.has_open_outcome = False  # nothing came that could be stored
            raise
        if other_id is not None:
            raise foreign  # the new refresh token is stored, and the next request for a token sends it
        if not answer.access_token:  # the next request for a token sends the new refresh token
            raise UnclearError(
                "FeedAMP answered a token call without an access token; its refresh token is stored.",
                seller_id=grant.seller_id,
            )
        if not is_stored:
            return None  # the caller checks the grant that has replaced this one: it may not be compared yet
        lease.is_released = True  # with the tokens
        version = (grant.consent, grant.generation + 1)
        return Token(
            answer.access_token,
            version,
            _good_until(asked_at + timedelta(seconds=answer.expires_in_s), answer.expires_in_s),
        )

    async def _ask(self, grant: Grant, lease: Lease) -> tuple[str, TokenPair]:
        """The refresh token that worked, and the pair that FeedAMP returned for it.

        Raises:
            BusyError: this process was stopped so long that another may have taken over; nothing more is sent.
        """
        busy = BusyError("Another process may be refreshing this seller's token.", seller_id=grant.seller_id)
        require = partial(lease.require, busy)
        try:
            return grant.refresh_token, await self._refresh_although_unclear(
                grant.seller_id, grant.refresh_token, require
            )
        except ClientRefusedError:
            raise
        except AuthorizationError:
            if grant.previous_refresh_token is None or self._read(grant.seller_id).version != grant.version:
                raise
            # Last resort: FeedAMP may never have activated the current refresh token.
            previous = grant.previous_refresh_token
            return previous, await self._refresh_although_unclear(grant.seller_id, previous, require)

    async def _refresh_although_unclear(
        self, seller_id: str, refresh_token: str, require: Callable[[], None]
    ) -> TokenPair:
        """Sends the same token again while the answer is lost: a server with a grace period returns the same pair."""
        loop = asyncio.get_running_loop()
        last_try_at = loop.time() + UNCLEAR_REPEATED_FOR_S
        for attempt in range(QUICK_RETRIES):
            require()
            try:
                return await self._refresh_once(seller_id, refresh_token)
            except UnclearError as error:
                pause_s = error.retry_after_s or quick_pause_s(attempt)
                if loop.time() + pause_s > last_try_at:
                    raise
                await self._sleep(pause_s)
        require()
        return await self._refresh_once(seller_id, refresh_token)

    async def _refresh_once(self, seller_id: str, refresh_token: str) -> TokenPair:
        """As `TokenEndpoint.refresh`; a `Retry-After` pauses the seller's token calls in all processes."""
        try:
            return await self._endpoint.refresh(refresh_token)
        except TransientError as error:
            if error.retry_after_s:
                with suppress(*STATE_ERRORS):  # a lost answer is asked for again in any case
                    self._rate_limiter.pause_token_calls(seller_id, error.retry_after_s)
            raise

    def _refused(self, grant: Grant, error: AuthorizationError) -> None:
        """Records the refusal and raises the error for it; only returns if a newer grant is stored by now."""
        with self._state.begin() as connection:
            current = grants.read(connection, self._cipher, grant.seller_id)
            verdict = judge_answer(
                has_newer_tokens=current is not None and current.version != grant.version,
                names_client=isinstance(error, ClientRefusedError),
                is_orphaned=self._mark(grant) is GrantMark.ORPHANED,
            )
            mark = GrantMark.REFUSED
            match verdict:
                case Retry():
                    return
                case BlameClient():
                    grants.withdraw_refusals(connection, self.conn_id, self._run.key)
                case Mark(is_lost=True):
                    if grants.mark_lost(connection, grant, run_key=self._run.key, now=self._state.now()):
                        mark = GrantMark.LOST
                case Mark():
                    grants.note_refusal(connection, grant, run_key=self._run.key, now=self._state.now())
        self._marks[grant.seller_id] = (mark, grant.version)
        # Raised outside the transaction, which would otherwise be rolled back.
        if isinstance(error, ClientRefusedError):
            self._refused_client = error
            raise error
        raise AuthorizationError(
            "FeedAMP refuses the grant; the seller must authorize again.", seller_id=grant.seller_id
        ) from error

    def _now(self) -> datetime:
        """The time by which the end of a token was stored."""
        return self._clock.corrected(self._state.now())

    async def _read_with_others(self, seller_id: str) -> Access:
        """As `_read`, in a thread, in one transaction with those that are asked for at the same moment."""
        if not self._wanted or self._reading is None:
            self._reading = asyncio.create_task(self._read_wanted())
        self._wanted.add(seller_id)
        found = await asyncio.shield(self._reading)
        if isinstance(found, Exception):
            raise copy(found) from found  # whoever catches it writes its own seller into it
        # One that is missing or cannot be decrypted is read alone: that says why.
        if seller_id not in found:
            return await in_daemon_thread(self._read, seller_id)
        self._note(found[seller_id])
        return found[seller_id]

    async def _read_wanted(self) -> dict[str, Access] | Exception:
        await asyncio.sleep(0)
        wanted, self._wanted = self._wanted, set()

        def read() -> dict[str, Access]:
            with self._state.read() as connection:
                found = grants.read_access(connection, self._cipher, wanted)
                return {seller_id: grant for seller_id, grant in found if grant is not None}

        try:
            return await in_daemon_thread(read)
        except Exception as error:  # noqa: BLE001 - raised where each of them waits
            return error

    def _read(self, seller_id: str) -> Grant:
        with self._state.read() as connection:
            grant = grants.read(connection, self._cipher, seller_id)
        if grant is None:
            raise AuthorizationError("The seller has no grant yet.", seller_id=seller_id)
        self._note(grant)
        return grant

    def _note(self, grant: Access) -> None:
        if grant.disowned_at is not None and self._mark(grant) is None:
            self._marks[grant.seller_id] = (GrantMark.DISOWNED, grant.version)

    def _mark(self, grant: Access) -> GrantMark | None:
        """What is known of this version of the grant; a mark of an earlier one means nothing any more."""
        mark, version = self._marks.get(grant.seller_id, (None, None))
        return mark if version == grant.version else None

    def _is_refused(self, grant: Access, *, even_if_marked: bool) -> bool:
        """Whether FeedAMP has refused this version of the grant in this run, to this process or another one."""
        if self._mark(grant) in (GrantMark.REFUSED, GrantMark.LOST):
            return True
        # A task that is tried again tries its sellers again: someone may have corrected the connection meanwhile.
        if self._run.try_number > 1 or even_if_marked:
            return False
        return grant.refused_at is not None and grant.refused_at >= self._run.started_at

    def _unmark(self, seller_id: str, mark: GrantMark) -> bool:
        """Removes this mark; whether the seller had it."""
        if self._marks.get(seller_id, (None, None))[0] is not mark:
            return False
        del self._marks[seller_id]
        return True

    def _keep(self, seller_id: str, token: Token) -> Token:
        self._on_secret(token.value)
        self._cache[seller_id] = token
        return token


def _close(loops: SimpleQueue[asyncio.AbstractEventLoop]) -> None:
    while not loops.empty():
        loops.get_nowait().close()


def _token_of(grant: Access) -> Token | None:
    if not grant.access_token or grant.access_expires_at is None:
        return None
    good_until = _good_until(grant.access_expires_at, grant.expires_in_s or 0)
    return Token(grant.access_token, grant.version, good_until)


def _good_until(expires_at: datetime, expires_in_s: int) -> datetime:
    return expires_at - timedelta(seconds=min(RENEWED_BEFORE_S, RENEWED_BEFORE_SHARE * expires_in_s))
