"""The data key: made or derived once, kept whatever becomes of the encryption key, and never replaced in silence."""

from __future__ import annotations

import base64

import msgspec
import pytest
import sqlalchemy as sa
from cryptography.fernet import Fernet
from wire import KEY, S1, add_seller, opened_state

from crashes.clock import Clock
from feedamp.errors import ConfigurationError
from feedamp.state import erasures, grants, upgrade
from feedamp.state.data_key import last_used, open_cipher, start_over, void_erasures
from feedamp.state.schema import data_keys
from feedamp.state.token_cipher import EARLIER_PURPOSES, DataKey, TokenCipher

NEW_KEY = Fernet.generate_key().decode()


@pytest.fixture
def state():
    with opened_state(Clock(keeps_still=True)) as opened:
        yield opened


def hashes(cipher):
    return [cipher.derived_key(purpose) for purpose in (*EARLIER_PURPOSES, "a new purpose")]


def lose_data_key(state):
    with state.begin() as connection:
        connection.execute(sa.delete(data_keys))


def come_from_an_earlier_version(state):
    with state.begin() as connection:
        connection.execute(sa.delete(data_keys))
        upgrade._derive_the_data_key(connection)


def test_a_new_one_has_nothing_to_do_with_the_key_and_stays_under_a_newer_key(state):
    made = hashes(open_cipher(state, KEY))
    assert not set(made) & set(hashes(TokenCipher(KEY)))
    assert hashes(open_cipher(state, f"{NEW_KEY},{KEY}")) == made
    assert hashes(open_cipher(state, KEY)) == made


@pytest.mark.parametrize("has_grant", [True, False], ids=["a grant", "no grant"])
def test_of_an_earlier_version_it_comes_from_the_key_in_use_then(state, has_grant):
    if has_grant:
        add_seller(state, TokenCipher(KEY), S1, "rt-1")
    come_from_an_earlier_version(state)
    derived = hashes(open_cipher(state, f"{NEW_KEY},{KEY}"))
    assert derived == hashes(TokenCipher(KEY))
    assert hashes(open_cipher(state, KEY)) == derived


def test_the_stored_one_holds_no_encryption_key(state):
    come_from_an_earlier_version(state)
    open_cipher(state, KEY)
    with state.read() as connection:
        wrapped = connection.execute(sa.select(data_keys.c.wrapped)).scalar_one()
    stored = TokenCipher(KEY).decrypt(wrapped)
    kept = msgspec.json.decode(stored, type=DataKey)
    assert KEY.strip("=") not in stored
    assert base64.urlsafe_b64decode(KEY) not in (kept.root, *kept.earlier.values())


def test_one_that_is_lost_is_made_again_only_on_purpose(state):
    add_seller(state, open_cipher(state, KEY), S1, "rt-1")
    lose_data_key(state)
    for keys in (KEY, NEW_KEY):
        looking = open_cipher(state, keys, checks_key=False)
        with pytest.raises(ConfigurationError, match="init --state"):
            looking.fingerprint("token", "rt-1")
        with pytest.raises(ConfigurationError, match="init --state"):
            open_cipher(state, keys, checks_key=False, stores_grants=True)
    assert [start_over(state, KEY), start_over(state, KEY)] == [True, False]
    assert hashes(open_cipher(state, KEY)) == hashes(open_cipher(state, KEY))


def test_marks_of_erasures_are_not_made_void_in_silence(state):
    def erased(cipher):
        with state.begin() as connection:
            erasures.begin(connection, cipher, S1, asked_by=None, now=state.now())
            return erasures.load(connection, cipher).has_seller(S1), void_erasures(connection, cipher)

    clock = Clock(keeps_still=True)
    state._clock = clock.now
    assert erased(open_cipher(state, KEY)) == (True, 0)
    with pytest.raises(ConfigurationError, match="put the former key behind"):
        open_cipher(state, NEW_KEY)
    lose_data_key(state)
    with pytest.raises(ConfigurationError, match="init --state"):
        open_cipher(state, KEY)
    clock.skip(minutes=1)
    assert start_over(state, KEY)
    cipher = open_cipher(state, KEY)
    with state.read() as connection:
        assert not erasures.load(connection, cipher).has_seller(S1)
        assert void_erasures(connection, cipher) == 1
    clock.skip(minutes=1)
    with state.begin() as connection:
        erasures.begin(connection, cipher, S1, "M-1", asked_by=None, now=state.now())
        assert void_erasures(connection, cipher) == 1  # of a seller
    assert erased(cipher) == (True, 0)  # asked for again
    with state.read() as connection:
        assert (len(erasures.unfinished(connection)), erasures.replaced(connection)) == (2, 1)


def test_a_void_erasure_that_was_finished_is_taken_off_before_one_that_was_not(state):
    clock = Clock(keeps_still=True)
    state._clock = clock.now

    def begin(cipher, number):
        clock.skip(minutes=1)
        with state.begin() as connection:
            return erasures.begin(connection, cipher, S1, number, asked_by=None, now=state.now())

    before = open_cipher(state, KEY)
    begin(before, "unfinished")
    done = begin(before, "done")
    with state.begin() as connection:
        for store in erasures.Store:
            erasures.finish(connection, done, store, {}, now=state.now())
    lose_data_key(state)
    clock.skip(minutes=1)
    assert start_over(state, KEY)
    for number, counts in (("new", (2, 0)), ("newer", (2, 1))):
        begin(open_cipher(state, KEY), number)
        with state.read() as connection:
            assert (len(erasures.unfinished(connection)), erasures.replaced(connection)) == counts


def test_a_key_that_was_lost_gets_another_beside_it_with_the_first_new_grant(state):
    before = hashes(open_cipher(state, KEY))
    add_seller(state, open_cipher(state, KEY), S1, "rt-1")
    looking = open_cipher(state, NEW_KEY, checks_key=False)
    with pytest.raises(ConfigurationError, match="put the former key behind"):
        looking.derived_key("pseudonym")
    with state.read() as connection:
        assert len(connection.execute(sa.select(data_keys)).all()) == 1
    first, second = [open_cipher(state, NEW_KEY, checks_key=False, stores_grants=True) for _ in range(2)]
    with pytest.raises(ConfigurationError, match="put the former key behind"):
        open_cipher(state, NEW_KEY, checks_key=False).derived_key("pseudonym")
    for cipher in (first, second):
        add_seller(state, cipher, S1, "rt-2")
    assert hashes(first) == hashes(second) == hashes(open_cipher(state, NEW_KEY)) != before
    assert hashes(open_cipher(state, KEY, checks_key=False)) == before


def test_the_first_of_several_is_used_and_each_recognizes(state):
    before = open_cipher(state, KEY)
    add_seller(state, before, S1, "rt-1")
    after = open_cipher(state, NEW_KEY, checks_key=False, stores_grants=True)
    add_seller(state, after, "S2", "rt-2")
    with state.begin() as connection:
        for cipher, seller_id in ((before, "S3"), (after, "S4")):
            erasures.begin(connection, cipher, seller_id, asked_by=None, now=state.now())
        both = open_cipher(state, f"{NEW_KEY},{KEY}", notes_use=False)
        erased = erasures.load(connection, both)
        owners = [grants.token_owner(connection, both, token) for token in ("rt-1", "rt-2", "rt-3")]
        told = [erasures.of_order(connection, both, seller_id, "M-1") for seller_id in ("S3", "S4", "S5")]
    assert hashes(both) == hashes(before)
    assert owners == [S1, "S2", None]
    assert [erased.has_seller(seller_id) for seller_id in ("S3", "S4", "S5")] == [True, True, False]
    assert [one and one.kind for one in told] == ["seller", "seller", None]


def test_none_is_made_where_grants_can_be_read_without_the_former_key(state):
    open_cipher(state, KEY)
    add_seller(state, TokenCipher(NEW_KEY), S1, "rt-1")
    for is_command in (False, True):
        with pytest.raises(ConfigurationError, match="put the former key behind"):
            open_cipher(state, NEW_KEY, checks_key=not is_command, stores_grants=is_command)


def test_a_key_is_noted_when_work_begins_and_again_after_a_while(state):
    def noted():
        with state.read() as connection:
            return last_used(connection, cipher.key_ids)

    clock = Clock(keeps_still=True)
    state._clock = clock.now
    cipher = open_cipher(state, KEY, checks_key=False)
    assert noted() == {}
    open_cipher(state, f"{KEY},{NEW_KEY}")
    began = clock.now()
    clock.skip(minutes=5)
    open_cipher(state, KEY)
    assert noted() == {cipher.key_ids[0]: (began, began)}
    clock.skip(minutes=6)
    open_cipher(state, KEY)
    assert noted() == {cipher.key_ids[0]: (began, clock.now())}


def test_the_grants_under_each_key_are_read(state):
    for number, keys in enumerate((KEY, f"{NEW_KEY},{KEY}")):
        add_seller(state, open_cipher(state, keys), f"S{number}", f"rt-{number}")
    cipher = open_cipher(state, f"{NEW_KEY},{KEY}")
    with state.read() as connection:
        found = [grants.read(connection, cipher, seller_id) for seller_id in ("S0", "S1")]
    assert [grant and grant.refresh_token for grant in found] == ["rt-0", "rt-1"]
