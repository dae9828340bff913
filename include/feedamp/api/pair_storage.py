"""Stores the token pairs that FeedAMP issues, so that none is lost whatever stalls (promise 7).

A pair goes into the state database; if that takes longer than a second, also into the journal, from which the next
process that needs the seller's token moves it into the state.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import TypeVar

from sqlalchemy.engine import Connection

from feedamp.api.token_journal import JournaledPair, Reservation, TokenJournal, daemon_future
from feedamp.errors import FeedAmpError, TransientError, UnclearError
from feedamp.state import State, grants, sellers
from feedamp.state.grants import Grant
from feedamp.state.reconnect import STATE_ERRORS
from feedamp.state.token_cipher import TokenCipher

log = logging.getLogger(__name__)
_Result = TypeVar("_Result")
# A pair that is not in the state after the first time is also written to the journal; storing it in the state is tried
# until the second time has passed, at the interval of the third.
JOURNALED_AFTER_S, STORE_TRIED_FOR_S, STORE_TRIED_EVERY_S = 1.0, 120.0, 1.0
IN_JOURNAL = "they are in the journal, and the next run stores them."


class ForeignPairError(UnclearError):
    """FeedAMP issued tokens that another seller has already: with them this seller would act as the other one."""


class PairStorage:
    """The state database for token pairs, with the journal behind it."""

    def __init__(
        self, state: State, cipher: TokenCipher, journal: TokenJournal, *, on_secret: Callable[[str], None]
    ) -> None:
        self._state = state
        self._cipher = cipher
        self._journal = journal
        self._on_secret = on_secret

    def reserve(self, seller_id: str, *, is_consent: bool = False) -> Reservation:
        """Reserves space for a pair that FeedAMP is about to issue; raises as `TokenJournal.reserve`."""
        if is_consent and self._cipher.has_unstored_data_key:
            with self._state.begin() as connection:
                self._cipher.keep_data_key(connection)  # the journal names the pair by it
        return self._journal.reserve(seller_id, is_consent=is_consent)

    async def store(
        self,
        grant: Grant | None,
        pair: JournaledPair,
        reservation: Reservation,
        *,
        tried_for_s: float | None = None,
    ) -> bool:
        """Stores the pair of a refresh of `grant`, or of a consent; False if another grant has replaced `grant` meanwhile.

        Storing is tried for two minutes, or for `tried_for_s` where a person waits. If the first second brings no success, the pair is also in the journal.

        Raises:
            TransientError: the pair could not be stored; the next run moves it from the journal into the state.
            ForeignPairError: it is another seller's, and was not stored.
        """
        try:
            return await self._store_or_journal(grant, pair, reservation, tried_for_s or STORE_TRIED_FOR_S)
        finally:
            # Not before: in a task, this asks the supervisor, which may not answer while Airflow's server is away.
            self._on_secret(pair.refresh_token)

    async def _store_or_journal(
        self, grant: Grant | None, pair: JournaledPair, reservation: Reservation, tried_for_s: float
    ) -> bool:
        loop = asyncio.get_running_loop()
        give_up_at, is_journaled = loop.time() + tried_for_s, False
        storing = in_daemon_thread(self._store, grant, pair)
        journaling: Future[bool] | None = None
        while True:
            left_s = give_up_at - loop.time() if is_journaled else JOURNALED_AFTER_S
            done, _ = await asyncio.wait({storing}, timeout=left_s)
            error = storing.exception() if done else None
            if done and error is None:
                if journaling is None:
                    reservation.release()
                else:  # an object store does not answer; its thread removes what it is still writing
                    journaling.add_done_callback(lambda _: reservation.release())
                return storing.result()
            if isinstance(error, ForeignPairError):  # nothing that has to be kept
                reservation.release()
                raise error
            if not is_journaled:
                # The state is tried on while an object store does not answer.
                journaling = journaling or daemon_future(_is_journaled, reservation, pair)
                written, _ = await asyncio.wait({asyncio.wrap_future(journaling)}, timeout=JOURNALED_AFTER_S)
                if written:
                    is_journaled, journaling = journaling.result(), None
            if error is not None and not isinstance(error, STATE_ERRORS) and journaling is None:
                raise error
            if loop.time() >= give_up_at:
                raise TransientError(
                    f"New tokens could not be stored in the state database in time; {IN_JOURNAL}"
                    if is_journaled
                    else "New tokens could be stored neither in the state database in time nor in the journal: if FeedAMP "
                    "refuses the old ones, the seller must authorize again.",
                    seller_id=pair.seller_id,
                ) from error
            if done:
                await asyncio.sleep(STORE_TRIED_EVERY_S)
                storing = in_daemon_thread(self._store, grant, pair)

    def take_in(self, seller_id: str) -> bool:
        """Moves the seller's pairs from the journal into the state; returns whether one of them is the grant now.

        What the state cannot place stays in the journal, where `feedamp doctor` counts it: a pair of a grant that the state
        does not have, because it is from a backup.
        """
        is_stored = False
        if not (pairs := self._journal.pairs_of(seller_id)):
            return False  # as nearly always, and without a question to the state
        with self._state.read() as connection:
            later = [entry for entry in pairs if self._is_later(connection, entry[1])]
        # Of several of a later consent, the newest is its grant; by the generation of that one, the others are older.
        for name, pair in [*reversed(later), *(entry for entry in pairs if entry not in later)]:
            try:
                took = self._take(pair)
            except ForeignPairError as error:
                took = False
                log.warning("A pair of seller %s in the journal was removed: %s", seller_id, error)
            if took is None:
                log.warning(
                    "A pair of seller %s stays in the journal: the state does not have its grant.", seller_id
                )
                continue
            is_stored = took or is_stored
            self._on_secret(pair.refresh_token)
            self._journal.remove(name)
        return is_stored

    def _take(self, pair: JournaledPair) -> bool | None:
        """Whether a pair of the journal is the grant now; None if the state cannot place it. Raises as `_store`."""
        while True:
            with self._state.read() as connection:
                newest = grants.read(connection, self._cipher, pair.seller_id)
                is_later = self._is_later(connection, pair)
            is_new = pair.is_consents or is_later
            if (newest is None and not is_new) or (is_new and pair.conn_id is None):
                return None
            if newest is not None:
                # If the state was restored from a backup, its generation may be lower than that of the pair.
                # The pair of another consent is not that of the grant in use, whatever its generation.
                generation = min(pair.generation, newest.generation)
                newest = replace(newest, generation=generation, consent=pair.consent or newest.consent)
            if self._store(None if is_new else newest, pair):
                return True
            with self._state.read() as connection:
                if not is_later or self._is_later(connection, pair):
                    return False
            # Another process has stored an earlier pair of the same consent meanwhile: this one is its next.

    @staticmethod
    def _is_later(connection: Connection, pair: JournaledPair) -> bool:
        return grants.is_later(connection, pair.seller_id, pair.consent, pair.asked_at)

    def take_in_consents(self) -> None:
        """Does the same for every seller whose grant of a consent is only in the journal. Problems are logged."""
        try:
            for seller_id in self._journal.sellers_with_consent():
                self.take_in(seller_id)
                log.info("The new grant of seller %s was taken from the journal into the state.", seller_id)
        except (FeedAmpError, OSError) as error:
            log.warning("The journal of tokens could not be read: %s", error)

    def _store(self, grant: Grant | None, pair: JournaledPair) -> bool:
        # A consent may also store the data key, which is all sellers'. Of a refresh, what another seller may store at the same
        # moment is this token, which has a lock like a seller's.
        token = self._cipher.fingerprint("token", pair.refresh_token)
        with self._state.begin(of=() if grant is None else [pair.seller_id, token]) as connection:
            owner = grants.token_owner(connection, self._cipher, pair.refresh_token)
            if owner not in (None, pair.seller_id):
                raise ForeignPairError(
                    f"FeedAMP answered a token call with the tokens of seller {owner}; they are not used.",
                    seller_id=pair.seller_id,
                )
            if grant is None and pair.conn_id is not None:
                grant = self._new_grant(connection, pair, pair.conn_id)
            return grant is not None and grants.store_tokens(
                connection,
                self._cipher,
                grant,
                used_token=pair.used_token,
                refresh_token=pair.refresh_token,
                access_token=pair.access_token,
                expires_in_s=pair.expires_in_s,
                now=pair.asked_at,
            )

    def _new_grant(self, connection: Connection, pair: JournaledPair, conn_id: str) -> Grant | None:
        """Stores the grant of a consent; None if it is stored already, because only the answer to a commit was lost.

        Also None if the seller was removed meanwhile, or if the pair is of a refresh and its consent is not later any more.
        """
        if not pair.is_consents and not self._is_later(connection, pair):
            return None
        if grants.token_owner(connection, self._cipher, pair.refresh_token) is not None:
            return None
        if not sellers.is_registered(connection, pair.seller_id):
            return None
        grants.put_grant(
            connection,
            self._cipher,
            pair.seller_id,
            conn_id,
            pair.refresh_token,
            now=pair.asked_at,
            to_compare=True,
            origin=pair.origin,
            consent=pair.consent,
            # The grant as it was before its refresh, so that the next pair of the consent follows this one.
            after_generation=pair.generation - 1,
        )
        return grants.read(connection, self._cipher, pair.seller_id)


def _is_journaled(reservation: Reservation, pair: JournaledPair) -> bool:
    try:
        reservation.write(pair)
    except (OSError, FeedAmpError) as error:
        log.warning(
            "New tokens of seller %s are neither in the state nor in the journal yet (%s); both are tried again.",
            pair.seller_id,
            type(error).__name__,
        )
        return False
    # Nothing has to be done, so this is not a warning; if the state does not accept them in the end, the task fails.
    log.info("New tokens of seller %s are in the journal until the state accepts them.", pair.seller_id)
    return True


def in_daemon_thread(work: Callable[..., _Result], *given: object) -> asyncio.Future[_Result]:
    """`daemon_future` for a coroutine."""
    return asyncio.wrap_future(daemon_future(work, *given))
