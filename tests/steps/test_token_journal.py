"""Promise 7: a rotated pair outlives a state that does not take it, and whatever strikes the process meanwhile."""

from __future__ import annotations

import asyncio
import errno
import signal
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from wire import CONN, KEY, S1, S2, StallsAtTheAnswer, add_seller, journal_of, tokens_of, wired

from crashes.clock import NOON
from crashes.fixtures import Fixtures
from crashes.observed import lost_grants
from feedamp.api import pair_storage
from feedamp.api.oauth import Credentials, TokenEndpoint
from feedamp.api.pages import Filters
from feedamp.api.token_journal import RESERVED_BYTES, JournaledPair, TokenJournal
from feedamp.api.transport import Endpoint, Transport
from feedamp.errors import ConfigurationError, TransientError
from feedamp.run import Run
from feedamp.state import State, consents, departures, grants
from feedamp.state.token_cipher import DataKey, TokenCipher
from feedamp.storage import open_storage
from feedamp_sandbox import SandboxOptions, running

pytestmark = pytest.mark.usefixtures("short_times")
STRICT = {"revoke_on_reuse": True, "refresh_grace_s": 0}


@pytest.fixture
def short_times(monkeypatch):
    monkeypatch.setattr(pair_storage, "JOURNALED_AFTER_S", 0.1)
    monkeypatch.setattr(pair_storage, "STORE_TRIED_EVERY_S", 0.05)


def folder_of(wire):
    return Path(wire.state.url.database).with_name("journal")


def files_of(wire):
    folder = folder_of(wire)
    return sorted(folder.iterdir()) if folder.exists() else []


async def test_a_pair_that_the_state_takes_at_once_leaves_nothing_in_the_journal():
    async with wired(**STRICT) as wire:
        await wire.tokens.live(S1)
        assert files_of(wire) == []


def waited_for_pairs(wire, stall):
    while not (pairs := journal_of(wire.state).pairs_of(S1)) and not stall.is_over.is_set():
        time.sleep(0.05)
    return pairs


async def test_a_pair_waits_in_the_journal_while_the_state_is_locked():
    stall = StallsAtTheAnswer(20)
    async with wired(stall, **STRICT) as wire:
        before, stall.path = wire.grant().refresh_token, wire.state.url.database
        refresh = asyncio.create_task(wire.tokens.live(S1))
        [(_, pair)] = await asyncio.to_thread(waited_for_pairs, wire, stall)
        assert (pair.used_token, pair.consent is not None) == (before, True)
        assert not stall.is_over.is_set()
        assert pair.refresh_token.encode() not in files_of(wire)[0].read_bytes()
        paths = (files_of(wire)[0], folder_of(wire))
        assert [path.stat().st_mode & 0o777 for path in paths] == [0o600, 0o700]
        stall.lets_go.set()
        token = await refresh
        assert (wire.grant().refresh_token, token.value) == (pair.refresh_token, pair.access_token)
        assert files_of(wire) == []


async def test_the_next_process_takes_the_pair_from_the_journal_before_it_refreshes():
    async with wired(**STRICT) as wire:
        grant = wire.grant()
        endpoint = wire.tokens._endpoint
        answer = await endpoint.refresh(grant.refresh_token)
        reservation = journal_of(wire.state).reserve(S1)
        pair = JournaledPair(
            S1, grant.generation, grant.refresh_token, answer.refresh_token, answer.access_token, 3600, NOON
        )
        reservation.write(pair)
        token = await wire.other_tokens().live(S1)
        assert token.value == answer.access_token
        assert wire.grant().refresh_token == answer.refresh_token
        assert wire.refreshes == 1
        assert files_of(wire) == []
        await wire.other_tokens().renew(S1)  # the pair that was taken in is the one that FeedAMP knows


async def test_a_state_that_stays_away_leaves_the_pair_to_the_next_process(monkeypatch):
    monkeypatch.setattr(pair_storage, "STORE_TRIED_FOR_S", 0.3)
    stall = StallsAtTheAnswer(20)
    async with wired(stall, **STRICT) as wire:
        stall.path = wire.state.url.database
        with pytest.raises(TransientError, match="in the journal"):
            await wire.tokens.live(S1)
        assert journal_of(wire.state).waiting() == 1
        stall.lets_go.set()
        await asyncio.to_thread(stall.is_over.wait)
        [(_, pair)] = journal_of(wire.state).pairs_of(S1)
        await wire.other_tokens().live(S1)
        await wire.other_tokens().renew(S1)
        assert wire.grant().previous_refresh_token == pair.refresh_token
        assert wire.sandbox.broken_rules == []
        assert files_of(wire) == []


async def test_an_older_pair_never_replaces_a_newer_grant():
    async with wired(**STRICT) as wire:
        old = wire.grant()
        await wire.tokens.live(S1)
        newer = wire.grant().refresh_token
        journal_of(wire.state).reserve(S1).write(
            JournaledPair(S1, old.generation, old.refresh_token, "rt-old", "at-old", 3600, NOON)
        )
        await wire.other_tokens().renew(S1)
        assert wire.grant().previous_refresh_token == newer
        assert files_of(wire) == []


async def test_a_refresh_of_a_removed_grant_never_reaches_the_one_after_it():
    async with wired(**STRICT) as wire:
        old, journal = wire.grant(), journal_of(wire.state)
        with wire.state.begin() as connection:
            departures.drop_registration(connection, S1)
        add_seller(wire.state, wire.cipher, S1, "rt-of-another-account")
        assert wire.grant().generation == old.generation
        pair = JournaledPair(
            S1, old.generation, old.refresh_token, "rt-old", "at-old", 3600, NOON, consent=old.consent
        )
        pairs = pair_storage.PairStorage(wire.state, wire.cipher, journal, on_secret=lambda secret: None)
        assert not await pairs.store(old, pair, pairs.reserve(S1))
        for generation in (old.generation, 7):  # also one that a restored state does not know
            journal.reserve(S1).write(msgspec.structs.replace(pair, generation=generation))
            assert not pairs.take_in(S1)
        assert (wire.grant().refresh_token, files_of(wire)) == ("rt-of-another-account", [])


async def test_no_refresh_is_sent_when_no_space_can_be_reserved(monkeypatch):
    def full(descriptor, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    async with wired(**STRICT) as wire:
        with monkeypatch.context() as patched:
            patched.setattr("feedamp.api.token_journal.os.write", full)
            with pytest.raises(TransientError, match="no space can be reserved"):
                await wire.tokens.live(S1)
        assert wire.refreshes == 0
        assert files_of(wire) == []
        await wire.tokens.live(S1)


class TaskTimeoutError(BaseException):
    """As Airflow's own: raised by a signal, wherever the main thread is, and not an `Exception`."""


def strike(_signal, _frame):
    raise TaskTimeoutError


@pytest.fixture
def alarm():
    previous = signal.signal(signal.SIGALRM, strike)
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, previous)


def a_task(work):
    asyncio.run(work)
    time.sleep(1)  # where the alarm strikes if the work is done before it


@pytest.mark.parametrize("seconds", [0.1, 0.3, 0.5])
def test_a_timeout_of_the_task_does_not_come_between_answer_and_store(alarm, tmp_path, seconds):
    cipher = TokenCipher(KEY)
    settings = SandboxOptions(sellers=1, **STRICT)
    with running(settings) as sandbox, closing(State(f"sqlite:///{tmp_path}/state.db")) as state:
        [seller] = sandbox.sellers
        add_seller(state, cipher, seller["seller_id"], seller["refresh_token"])

        async def renew():
            async with Transport(Endpoint(sandbox.api)) as transport:
                endpoint = TokenEndpoint(
                    transport, Credentials(CONN, sandbox.client_id, sandbox.client_secret)
                )
                tokens = tokens_of(state, cipher, endpoint, journal_of(state), sleep=asyncio.sleep)
                await tokens.renew(seller["seller_id"])

        sandbox.fault("slow_drip", path="access_token", seconds=0.4)
        alarm(seconds)
        with pytest.raises(TaskTimeoutError):
            a_task(renew())
        # Airflow ends the process now, and with it every thread.
        with state.read() as connection:
            grant = grants.read(connection, cipher, seller["seller_id"])
        assert grant.refresh_token == sandbox.refresh_token(seller["seller_id"])
        asyncio.run(renew())
        assert sandbox.broken_rules == []


async def test_a_step_that_ends_early_loses_no_token_of_its_many_sellers(tmp_path):
    """A timeout of the task ends the work of one seller while the token answers of others are on their way."""
    loop, has_answered = asyncio.get_running_loop(), asyncio.Event()

    def look(exchange):
        if "/access_token" in exchange.url:
            loop.call_soon_threadsafe(has_answered.set)

    with running(SandboxOptions(sellers=8, **STRICT), observer=look) as sandbox:
        fixtures = Fixtures.of(tmp_path, sandbox)
        resources = fixtures.resources()

        async def is_struck():
            await has_answered.wait()
            raise TaskTimeoutError

        async def read(clients, seller_id):
            await (await clients.for_seller(seller_id)).list_orders(Filters(page_size=10))

        async def step(reading):
            async with resources.clients(Run("hook", "hook", resources.state.now())) as clients:
                for seller in sandbox.sellers:
                    reading.append(asyncio.create_task(read(clients, seller["seller_id"])))
                await asyncio.gather(*reading, is_struck())

        sandbox.fault("slow_drip", path="access_token", times=None, seconds=0.5)
        reading = []
        with pytest.raises(TaskTimeoutError):
            await step(reading)
        await asyncio.gather(*reading, return_exceptions=True)
        assert lost_grants(fixtures, sandbox) == []
        resources.state.close()


async def test_the_reservation_of_a_dead_process_is_removed():
    async with wired() as wire:
        journal = journal_of(wire.state)
        journal.reserve(S1)
        assert len(files_of(wire)) == 1
        assert files_of(wire)[0].stat().st_size == RESERVED_BYTES
        await wire.tokens.live(S1)
        assert len(files_of(wire)) == 1  # its process, this one, is alive
        name = files_of(wire)[0]
        parts = name.name.split(".")
        parts[2] = str(2**22 - 1)  # no such process
        name.rename(name.with_name(".".join(parts)))
        await wire.tokens.renew(S1)
        assert files_of(wire) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(b"not encrypted by us", "former key", id="another key"),
        pytest.param(TokenCipher(KEY).encrypt("{}").encode(), "damaged", id="not a pair"),
    ],
)
async def test_an_entry_that_cannot_be_read_stops_the_refresh_with_words(content, said):
    async with wired(**STRICT) as wire:
        journal_of(wire.state).reserve(S1)
        files_of(wire)[0].write_bytes(content)
        with pytest.raises(ConfigurationError, match=said):
            await wire.tokens.live(S1)
        assert wire.refreshes == 0
        await wire.tokens.live(S2)


async def test_a_pair_of_a_grant_that_the_state_does_not_have_is_kept():
    async with wired(**STRICT) as wire:
        journal = journal_of(wire.state)
        journal.reserve("seller-x").write(JournaledPair("seller-x", 3, "rt-1", "rt-2", "at-2", 3600, NOON))
        pairs = pair_storage.PairStorage(wire.state, wire.cipher, journal, on_secret=lambda secret: None)
        assert pairs.take_in("seller-x") is False
        assert journal.waiting() == 1


def test_a_pair_from_while_a_key_was_away_is_found_and_dropped(tmp_path):
    def journal(data_key, *others):
        storage = open_storage("journal_url", str(tmp_path))
        return TokenJournal(storage, TokenCipher(KEY, data_key, others=others))

    known, made_meanwhile = DataKey.new(), DataKey.new()
    pairs = [JournaledPair(S1, at, "rt", f"rt-{at}", "at", 3600, NOON) for at in range(3)]
    for pair, one in zip(pairs, (known, made_meanwhile, known), strict=True):
        journal(one).reserve(S1).write(pair)
    back = journal(known, made_meanwhile)
    back.reserve(S2).write(msgspec.structs.replace(pairs[0], seller_id=S2))
    assert [pair.generation for _, pair in back.pairs_of(S1)] == [0, 1, 2]
    assert (back.drop(S1), back.waiting()) == (3, 1)


def test_a_pair_shows_no_token():
    pair = JournaledPair(S1, 3, "rt-1", "rt-2", "at-2", 3600, NOON)
    assert "rt-" not in repr(pair)
    assert "at-2" not in repr(pair)


async def test_a_journal_that_fails_first_is_tried_again_with_the_state(monkeypatch):
    writes = []
    write = TokenJournal.write

    def failing_first(self, name, pair):
        writes.append(name)
        if len(writes) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, name, pair)
        stall.lets_go.set()

    monkeypatch.setattr(TokenJournal, "write", failing_first)
    stall = StallsAtTheAnswer(20)
    async with wired(stall, **STRICT) as wire:
        stall.path = wire.state.url.database
        token = await wire.tokens.live(S1)
        assert len(writes) == 2
        assert wire.grant().access_token == token.value
        assert files_of(wire) == []


async def test_pairs_of_a_later_consent_become_the_grant_of_a_state_from_a_backup():
    async with wired(**STRICT) as wire:
        before = wire.grant()
        answers = {}
        for at, generation in ((3, 7), (2, 6), (1, before.generation + 1)):
            pair = JournaledPair(S1, generation, f"rt-{at}", f"rt-{at + 1}", f"at-{at}", 3600, NOON)
            answers[at] = msgspec.structs.replace(
                pair,
                asked_at=NOON + timedelta(hours=at),
                consent="later",
                conn_id=CONN,
                origin=before.origin,
            )
            journal_of(wire.state).reserve(S1).write(answers[at])
        pairs = pair_storage.PairStorage(
            wire.state, wire.cipher, journal_of(wire.state), on_secret=lambda secret: None
        )
        assert pairs.take_in(S1)
        grant = wire.grant()
        assert (grant.refresh_token, grant.access_token, grant.consent) == ("rt-4", "at-3", "later")
        assert grant.account_checked_at is None  # compared before it is used
        assert files_of(wire) == []
        with wire.state.read() as connection:
            assert consents.has_replaced(connection, S1)
        # What was consented to in the end wins, also over a pair that came later into the journal.
        wire.clock.skip(hours=9)
        wire.give_grant("rt-newest")
        journal_of(wire.state).reserve(S1).write(msgspec.structs.replace(answers[3], consent="another"))
        late = msgspec.structs.replace(answers[3], refresh_token="rt-5", asked_at=NOON + timedelta(hours=20))
        journal_of(wire.state).reserve(S1).write(late)  # of the consent that was replaced
        assert not pairs.take_in(S1)
        assert (wire.grant().refresh_token, files_of(wire)) == ("rt-newest", [])


async def test_a_newer_pair_is_kept_though_another_process_stores_one_before_it(monkeypatch):
    async with wired(**STRICT) as wire:
        before, journal = wire.grant(), journal_of(wire.state)
        earlier = JournaledPair(
            S1,
            6,
            "rt-1",
            "rt-2",
            "at-1",
            3600,
            NOON + timedelta(hours=1),
            conn_id=CONN,
            origin=before.origin,
            consent="later",
        )
        journal.reserve(S1).write(earlier)
        newer = msgspec.structs.replace(
            earlier,
            generation=7,
            used_token="rt-2",
            refresh_token="rt-3",
            asked_at=NOON + timedelta(hours=2),
        )
        journal.reserve(S1).write(newer)
        one, other = (
            pair_storage.PairStorage(wire.state, wire.cipher, journal, on_secret=lambda secret: None)
            for _ in range(2)
        )

        def storing_late(grant, pair):
            monkeypatch.undo()
            assert other._store(None, earlier)
            return one._store(grant, pair)

        monkeypatch.setattr(one, "_store", storing_late)
        assert one.take_in(S1)
        assert (wire.grant().refresh_token, wire.grant().generation, files_of(wire)) == ("rt-3", 8, [])


async def test_a_pair_of_a_later_consent_without_its_connection_is_kept():
    async with wired(**STRICT) as wire:
        token = wire.grant().refresh_token
        asked_at = NOON + timedelta(hours=1)
        pair = JournaledPair(S1, 7, "rt-1", "rt-2", "at", 3600, asked_at, consent="later")
        journal_of(wire.state).reserve(S1).write(pair)
        await wire.tokens.live(S1)
        assert wire.grant().previous_refresh_token == token
        assert journal_of(wire.state).waiting() == 1


async def test_of_two_pairs_the_newer_one_is_stored_in_a_state_from_a_backup():
    async with wired(**STRICT) as wire:
        old = wire.grant()
        for generation in (7, 8):
            journal_of(wire.state).reserve(S1).write(
                JournaledPair(S1, generation, f"rt-{generation}", f"rt-{generation + 1}", "at", 3600, NOON)
            )
        await wire.other_tokens().live(S1)
        assert old.generation < 7
        assert wire.grant().refresh_token == "rt-9"
        assert files_of(wire) == []
