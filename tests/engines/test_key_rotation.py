"""A rotation of the encryption key: whatever stops it or comes between, no token is lost, and no old key is free too early."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from cryptography.fernet import Fernet
from processes import PATIENCE_S, rotate_once
from wire import CONN

from crashes.clock import NOON, Clock
from crashes.forking import CONTEXT
from feedamp.api.token_journal import JournaledPair, TokenJournal
from feedamp.errors import ConfigurationError
from feedamp.state import State, grants, schema, sellers
from feedamp.state.data_key import NOTED_EVERY, open_cipher
from feedamp.state.token_cipher import TokenCipher
from feedamp.steps.rotate_keys import KEEPS_ITS_KEYS, Rotation, rotate
from feedamp.storage import open_storage

OLD, NEW, OTHER = (Fernet.generate_key().decode() for _ in range(3))
BOTH = f"{NEW},{OLD}"
SELLERS = [f"S{number:03}" for number in range(60)]  # more than are read at once


class Stored:
    """A state with grants, and a journal with pairs, all under the old key."""

    def __init__(self, url: str, folder: Path) -> None:
        self.clock, self.url, self.folder = Clock(keeps_still=True), url, str(folder / "journal")
        self.state = State(url, clock=self.clock.now)
        cipher, now = self.open(OLD), self.clock.now()
        self.fingerprint = cipher.fingerprint("token", "rt-S000-0")
        with self.state.begin() as connection:
            for seller_id in SELLERS:
                sellers.add(connection, seller_id, conn_id=CONN, now=now)
                grants.put_grant(connection, cipher, seller_id, CONN, f"rt-{seller_id}-0", now=now)
        self.refresh(SELLERS[0], OLD)
        journal = self.journal(OLD)
        for seller_id in SELLERS[:3]:
            journal.reserve(seller_id).write(pair_of(seller_id))
        journal.reserve(SELLERS[4])  # without a pair yet

    def open(self, keys: str) -> TokenCipher:
        return open_cipher(self.state, keys)

    def journal(self, keys: str) -> TokenJournal:
        return TokenJournal(open_storage("journal_url", self.folder), self.open(keys))

    def rotate(self, cipher: TokenCipher | None = None, *, all_restarted: bool = False) -> Rotation:
        cipher = cipher or self.open(BOTH)
        journal = TokenJournal(open_storage("journal_url", self.folder), cipher)
        return rotate(self.state, cipher, journal, all_restarted=all_restarted)

    def refresh(self, seller_id: str, keys: str, number: int = 1) -> None:
        """FeedAMP has issued the next pair, and a process with these keys stores it."""
        cipher = TokenCipher(keys)
        with self.state.begin() as connection:
            grant = grants.read(connection, TokenCipher(BOTH), seller_id)
            assert grant is not None
            grants.store_tokens(
                connection,
                cipher,
                grant,
                used_token=grant.refresh_token,
                refresh_token=f"rt-{seller_id}-{number}",
                access_token=f"at-{seller_id}-{number}",
                expires_in_s=3600,
                now=self.state.now(),
            )

    def tokens(self, keys: str) -> dict[str, str]:
        cipher, found = self.open(keys), {}
        with self.state.read() as connection:
            for seller_id in SELLERS:
                grant = grants.read(connection, cipher, seller_id)
                assert grant is not None
                found[seller_id] = grant.refresh_token
        return found

    def check_all_is_under(self, keys: str) -> None:
        """Everything is as it was, and these keys suffice."""
        assert self.tokens(keys) == {
            seller_id: f"rt-{seller_id}-{int(seller_id == SELLERS[0])}" for seller_id in SELLERS
        }
        journal = self.journal(keys)
        assert [pair for s in SELLERS for _, pair in journal.pairs_of(s)] == [pair_of(s) for s in SELLERS[:3]]
        assert sorted(path.suffix for path in Path(self.folder).iterdir()) == [".pair"] * 4
        assert self.open(keys).fingerprint("token", "rt-S000-0") == self.fingerprint


def pair_of(seller_id: str) -> JournaledPair:
    return JournaledPair(seller_id, 7, "rt-used", f"rt-{seller_id}-new", "at-new", 3600, NOON)


@pytest.fixture
def stored(url: str, tmp_path: Path) -> Iterator[Stored]:
    opened = Stored(url, tmp_path)
    with closing(opened.state):
        yield opened


def test_everything_is_under_the_new_key_afterwards_and_hashes_stay(stored: Stored) -> None:
    with stored.state.begin() as connection:
        kept = connection.execute(sa.select(schema.grants).where(schema.grants.c.seller_id == "S001")).one()
        row = {name: value for name, value in kept._mapping.items() if name in schema.other_grants.c}
        connection.execute(sa.insert(schema.other_grants).values(row | {"role": "replaced"}))
    done = stored.rotate()
    assert done.reencrypted == {"data_keys": 1, "grants": len(SELLERS), "other_grants": 1, "journal": 3}
    assert (done.values, done.older, done.unreadable) == (1 + len(SELLERS) + 2 + 1 + 3, 0, [])
    stored.check_all_is_under(NEW)
    assert stored.rotate().reencrypted == {}
    with pytest.raises(ConfigurationError, match=r"is not the one .* has replaced it"):
        stored.open(OLD)
    with pytest.raises(ConfigurationError, match="has replaced it"):
        open_cipher(stored.state, OLD, checks_key=False, stores_grants=True)


class Interrupted(TokenCipher):
    """Something happens after a row was read, and before it is written."""

    def __init__(self, stored: Stored, happens: Callable[[], None]) -> None:
        super().__init__(BOTH, stored.open(BOTH)._data_key)
        self.happens: Callable[[], None] | None = happens

    def renewed(self, stored: str) -> str | None:
        renewed = super().renewed(stored)
        if self.happens and renewed and super().decrypt(stored) == f"rt-{SELLERS[5]}-0":
            happens, self.happens = self.happens, None
            happens()
        return renewed


@pytest.mark.parametrize("keys", [OLD, BOTH], ids=["by a process with the old key", "by one with both"])
def test_a_pair_that_is_stored_meanwhile_is_not_overwritten(stored: Stored, keys: str) -> None:
    done = stored.rotate(Interrupted(stored, lambda: stored.refresh(SELLERS[5], keys)))
    assert done.older == 0
    assert stored.tokens(NEW)[SELLERS[5]] == f"rt-{SELLERS[5]}-1"


def test_what_a_process_with_the_old_key_stores_later_is_found_by_the_next(stored: Stored) -> None:
    stored.rotate()
    stored.refresh(SELLERS[1], OLD)
    late = TokenJournal(
        open_storage("journal_url", stored.folder), TokenCipher(OLD, stored.open(BOTH)._data_key)
    )
    late.reserve(SELLERS[7]).write(pair_of(SELLERS[7]))
    assert stored.rotate().reencrypted == {"grants": 1, "journal": 1}
    assert stored.tokens(NEW)[SELLERS[1]] == f"rt-{SELLERS[1]}-1"
    assert stored.journal(NEW).pairs_of(SELLERS[7])[0][1] == pair_of(SELLERS[7])


def test_an_old_key_is_free_once_no_process_can_encrypt_with_it(stored: Stored) -> None:
    def free_at() -> datetime | None:
        done = stored.rotate()
        assert done.older_may_go == (done.older_stay_until is None)
        return done.older_stay_until

    began = stored.clock.now()
    stored.clock.skip(hours=2)
    assert free_at() == began + NOTED_EVERY + KEEPS_ITS_KEYS
    stored.clock.skip(hours=1)
    stored.open(f"{OLD},{NEW}")  # not restarted yet
    again = stored.clock.now()
    assert free_at() == again + NOTED_EVERY + KEEPS_ITS_KEYS
    assert stored.rotate(all_restarted=True).older_may_go
    stored.clock.skip(hours=24, minutes=11)
    assert free_at() is None


def test_a_key_that_no_process_noted_is_free_a_day_after_the_new_one_came(stored: Stored) -> None:
    with stored.state.begin() as connection:
        connection.execute(sa.delete(schema.encryption_keys))
    done = stored.rotate()
    assert done.older_stay_until == stored.clock.now() + NOTED_EVERY + KEEPS_ITS_KEYS
    stored.clock.skip(hours=24, minutes=11)
    assert stored.rotate().older_may_go


def test_a_key_is_not_free_while_something_is_under_it(stored: Stored) -> None:
    class Busy(Interrupted):
        """A process with the old key stores a pair of a seller before any write."""

        def renewed(self, stored: str) -> str | None:
            self.happens = self.happens or refresh
            return super().renewed(stored)

    def refresh() -> None:
        stored.refresh(SELLERS[5], OLD, 0)

    done = stored.rotate(Busy(stored, refresh), all_restarted=True)
    assert done.older > 0
    assert not done.older_may_go


def test_tokens_whose_key_went_too_early_are_named_and_come_back_with_it(stored: Stored) -> None:
    stored.rotate()
    stored.refresh(SELLERS[9], OLD)
    done = stored.rotate(stored.open(NEW))
    assert (done.unreadable, done.older) == ([SELLERS[9]], 0)
    with (
        stored.state.read() as connection,
        pytest.raises(ConfigurationError, match=rf"seller {SELLERS[9]} .* NEW,FORMER"),
    ):
        grants.read(connection, stored.open(NEW), SELLERS[9])
    assert stored.rotate().unreadable == []
    assert stored.tokens(NEW)[SELLERS[9]] == f"rt-{SELLERS[9]}-1"


def test_whenever_it_is_killed_the_next_one_ends_it(stored: Stored) -> None:
    chance = random.Random(18)
    stored.state.close()
    for _ in range(6):
        ours, theirs = CONTEXT.Pipe()
        process = CONTEXT.Process(target=rotate_once, args=(stored.url, BOTH, stored.folder, theirs))
        process.start()
        assert ours.poll(PATIENCE_S)
        assert ours.recv() == "begins"
        time.sleep(chance.uniform(0, 0.15))
        process.kill()
        process.join(PATIENCE_S)
    stored.rotate()
    stored.check_all_is_under(NEW)


def test_several_at_once_end_in_the_same(stored: Stored) -> None:
    several = []
    for _ in range(3):
        ours, theirs = CONTEXT.Pipe()
        several.append(
            (ours, CONTEXT.Process(target=rotate_once, args=(stored.url, BOTH, stored.folder, theirs)))
        )
    for _, process in several:
        process.start()
    for ours, process in several:
        assert [ours.recv(), ours.recv()] == ["begins", 0]
        process.join(PATIENCE_S)
    stored.check_all_is_under(NEW)
