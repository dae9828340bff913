"""Promise 7: a pair that the state does not take waits in a bucket for the next process; a silent bucket holds no one up."""

from __future__ import annotations

import asyncio

import pytest
from cryptography.fernet import Fernet
from object_store import ObjectStore
from wire import KEY, S1, StallsAtTheAnswer, wired

from crashes.clock import NOON
from feedamp.api import pair_storage, token_journal
from feedamp.api.token_journal import JournaledPair, TokenJournal
from feedamp.errors import TransientError
from feedamp.state.token_cipher import DataKey, TokenCipher

STRICT = {"revoke_on_reuse": True, "refresh_grace_s": 0}


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_storage, "JOURNALED_AFTER_S", 0.1)
    monkeypatch.setattr(pair_storage, "STORE_TRIED_EVERY_S", 0.05)


def journal_in(s3: ObjectStore, keys: str = KEY) -> TokenJournal:
    """As another process opens it; without this package's own limits, an answer is waited for some seconds."""
    config = {"read_timeout": 2, "retries": {"max_attempts": 1}}
    return TokenJournal(
        s3.storage("journal", option="journal_url", config_kwargs=config),
        TokenCipher(keys, DataKey.of_key(KEY)),
    )


async def test_a_pair_waits_in_the_bucket_for_the_next_process(
    s3: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pair_storage, "STORE_TRIED_FOR_S", 0.3)
    stall = StallsAtTheAnswer(20)
    async with wired(stall, **STRICT) as wire:
        stall.path = wire.state.url.database
        with pytest.raises(TransientError, match="in the journal"):
            await wire.other_tokens(journal=journal_in(s3)).live(S1)
        [(_, pair)] = journal_in(s3).pairs_of(S1)
        stall.lets_go.set()
        await asyncio.to_thread(stall.is_over.wait)
        await wire.other_tokens(journal=journal_in(s3)).live(S1)
        await wire.other_tokens(journal=journal_in(s3)).renew(S1)
        assert wire.grant().previous_refresh_token == pair.refresh_token
        assert wire.sandbox.broken_rules == []
    assert s3.names("journal/") == []


async def test_no_token_is_asked_for_while_the_bucket_does_not_answer(
    s3: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with wired(**STRICT) as wire:
        tokens = wire.other_tokens(journal=journal_in(s3))
        with monkeypatch.context() as patch, s3.silent():
            patch.setattr(token_journal, "ANSWERS_WITHIN_S", 0.3)
            with pytest.raises(TransientError, match=r"journal_url: .* did not answer within"):
                await tokens.live(S1)
        assert wire.refreshes == 0
        await tokens.live(S1)


async def test_a_bucket_that_falls_silent_does_not_keep_a_pair_from_the_state(s3: ObjectStore) -> None:
    stall = StallsAtTheAnswer(1)
    async with wired(stall, **STRICT) as wire:
        stall.path = wire.state.url.database
        refresh = asyncio.create_task(wire.other_tokens(journal=journal_in(s3)).live(S1))
        await asyncio.to_thread(stall.has_begun.wait)
        with s3.silent():
            token = await asyncio.wait_for(refresh, 3)
            assert wire.grant().access_token == token.value
        await wire.other_tokens(journal=journal_in(s3)).renew(S1)
        assert wire.sandbox.broken_rules == []


class Killed(BaseException):
    pass


def stop(_name: str) -> None:
    raise Killed


async def test_a_pair_in_a_bucket_comes_under_a_new_key_whenever_that_is_stopped(
    s3: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = Fernet.generate_key().decode()
    both = journal_in(s3, f"{new},{KEY}")
    async with wired(**STRICT) as wire:
        grant = wire.grant()
        answer = await wire.tokens._endpoint.refresh(grant.refresh_token)
        given = (grant.refresh_token, answer.refresh_token, answer.access_token, 3600, NOON)
        pair = JournaledPair(S1, grant.generation, *given)
        journal_in(s3).reserve(S1).write(pair)
        with monkeypatch.context() as patch:
            patch.setattr(both, "remove", stop)
            with pytest.raises(Killed):
                both.renew()
        assert (len(s3.names("journal/")), both.under_keys()) == (2, (2, 1, 0))
        assert [both.renew(), both.renew()] == [1, 0]
        assert {found for _, found in journal_in(s3, new).pairs_of(S1)} == {pair}
        await wire.other_tokens(journal=both).live(S1)
        assert wire.grant().refresh_token == pair.refresh_token
        assert wire.sandbox.broken_rules == []
    assert s3.names("journal/") == []
