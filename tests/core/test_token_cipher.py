"""Tokens unreadable at rest, keyed hashes, and the key file beside a SQLite state."""

from __future__ import annotations

import hmac
import stat
import traceback

import pytest
from cryptography.fernet import Fernet

from feedamp.errors import ConfigurationError
from feedamp.state.token_cipher import (
    DataKey,
    TokenCipher,
    add_key,
    keep_newest_key,
    key_beside,
    read_key_file,
)

KEY, OTHER_KEY = Fernet.generate_key().decode(), Fernet.generate_key().decode()


@pytest.mark.parametrize("secret", ["rt-0001", "", "é☃", "x" * 5000])
def test_a_secret_comes_back_as_it_was(secret):
    cipher = TokenCipher(KEY)
    assert cipher.decrypt(cipher.encrypt(secret)) == secret


def test_what_is_stored_does_not_show_the_secret_nor_that_two_are_equal():
    cipher = TokenCipher(KEY)
    first, second = cipher.encrypt("rt-0001"), cipher.encrypt("rt-0001")
    assert "rt-0001" not in first
    assert first != second


@pytest.mark.parametrize(
    "stored",
    [
        pytest.param(TokenCipher(OTHER_KEY).encrypt("rt-0001"), id="encrypted with another key"),
        pytest.param(TokenCipher(KEY).encrypt("rt-0001")[:-4], id="cut"),
        pytest.param("rt-0001", id="never encrypted"),
    ],
)
def test_what_the_key_does_not_open_asks_for_the_former_key(stored):
    with pytest.raises(ConfigurationError, match="former key") as caught:
        TokenCipher(KEY).decrypt(stored)
    assert stored not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("around", ["\n", " ", "\r\n"])
def test_space_around_a_key_does_not_matter(around):
    assert TokenCipher(around + KEY + around).decrypt(TokenCipher(KEY).encrypt("rt-0001")) == "rt-0001"


@pytest.mark.parametrize(
    "key",
    [
        pytest.param("", id="empty"),
        pytest.param("hush-hush", id="a word"),
        pytest.param(KEY[:-4], id="cut"),
        pytest.param("é" + KEY[1:], id="a letter outside base64"),
        pytest.param(f"{KEY}junk", id="text behind it"),
        pytest.param(f"\ufeff{KEY}", id="a byte order mark"),
        pytest.param(f"{KEY[:9]}\u200b{KEY[9:]}", id="a zero-width space"),
    ],
)
def test_a_key_that_is_none_is_refused_without_showing_it(key):
    with pytest.raises(ConfigurationError) as caught:
        TokenCipher(key)
    assert not key or key not in "".join(traceback.format_exception(caught.value))


def test_of_several_keys_the_first_encrypts_and_each_decrypts():
    both = TokenCipher(f" {OTHER_KEY} ,\n{KEY}\n")
    assert TokenCipher(OTHER_KEY).decrypt(both.encrypt("rt-0001")) == "rt-0001"
    assert both.decrypt(TokenCipher(KEY).encrypt("rt-0001")) == "rt-0001"
    older = TokenCipher(KEY).encrypt("rt-0002")
    renewed = both.renewed(older)
    assert TokenCipher(OTHER_KEY).decrypt(renewed) == "rt-0002"
    assert both.renewed(renewed) is None


@pytest.mark.parametrize(
    ("keys", "which"),
    [
        pytest.param(f"hush-hush,{KEY}", "first of its 2", id="the first"),
        pytest.param(f"{KEY},{OTHER_KEY[:-4]}", "second of its 2", id="the second is cut"),
        pytest.param(f"{KEY},{OTHER_KEY},", "third of its 3", id="a comma at the end"),
    ],
)
def test_a_faulty_key_among_several_is_named_by_its_place(keys, which):
    with pytest.raises(ConfigurationError, match=f"{which} .*is not a valid key") as caught:
        TokenCipher(keys)
    said = "".join(traceback.format_exception(caught.value))
    assert [key for key in keys.split(",") if key and key in said] == []


@pytest.mark.parametrize("between", [";", " ", "\n"])
def test_only_commas_separate_keys(between):
    with pytest.raises(ConfigurationError, match="Only a comma may stand between two keys") as caught:
        TokenCipher(f"{KEY}{between}{OTHER_KEY}")
    said = "".join(traceback.format_exception(caught.value))
    assert (KEY in said, OTHER_KEY in said) == (False, False)


def test_a_key_counts_once():
    with pytest.raises(ConfigurationError, match=r"third of its 3 keys.* there twice"):
        TokenCipher(f"{KEY},{OTHER_KEY},{KEY}")


def test_a_key_that_was_put_before_it_meanwhile_is_taken_when_it_is_needed(tmp_path):
    file = str(tmp_path / "state.db")
    key = key_beside(file)
    running = TokenCipher(key, read_again=lambda: read_key_file(file))
    stored = running.encrypt("rt-0001")
    for _ in range(2):  # the second time, it goes on with the key of the first
        add_key(file)
    newest = TokenCipher(read_key_file(file).partition(",")[0])
    assert running.decrypt(stored) == "rt-0001"
    assert running.decrypt(newest.encrypt("rt-0002")) == "rt-0002"
    assert newest.decrypt(running.encrypt("rt-0003")) == "rt-0003"
    assert not keep_newest_key(file, newest.key_ids)
    assert keep_newest_key(file, running.key_ids)
    assert TokenCipher(read_key_file(file)).key_ids == newest.key_ids
    (tmp_path / "state.db.key").unlink()
    with pytest.raises(ConfigurationError, match="former key"):
        running.decrypt("rt-0001")
    assert list(tmp_path.iterdir()) == []


def test_a_rotation_removes_the_drafts_of_killed_ones_and_no_other_file(tmp_path):
    file = str(tmp_path / "state.db")
    key_beside(file)
    (tmp_path / ".state.db.key.abcd_123.draft").write_text(f"{OTHER_KEY},{KEY}")
    copies = [".state.db.key.20261128", ".state.db.key.original"]
    for name in copies:
        (tmp_path / name).write_text(KEY)
    add_key(file)
    assert sorted(path.name for path in tmp_path.iterdir()) == [*copies, "state.db.key"]


def test_a_key_file_that_is_a_link_stays_one_and_its_target_gets_the_keys(tmp_path):
    (tmp_path / "kept").mkdir()
    link, target = tmp_path / "state.db.key", tmp_path / "kept" / "key"
    target.write_text(KEY)
    target.chmod(0o600)
    link.symlink_to(target)
    file = str(tmp_path / "state.db")
    assert [add_key(file), add_key(file)] == [True, False]
    assert target.read_text().split(",")[1:] == [KEY]
    keep_newest_key(file, TokenCipher(read_key_file(file)).key_ids)
    assert (link.is_symlink(), link.read_text(), "," in target.read_text()) == (
        True,
        target.read_text(),
        False,
    )


def test_the_key_does_not_show_in_a_repr():
    assert repr(TokenCipher(KEY)) == "TokenCipher()"
    assert repr(DataKey.of_key(KEY)) == "DataKey()"


def test_a_fingerprint_recognizes_a_value_and_shows_nothing_of_it():
    fingerprint = TokenCipher(KEY).fingerprint("token", "rt-0001")
    assert fingerprint == TokenCipher(KEY).fingerprint("token", "rt-0001")
    assert len(fingerprint) == 32
    assert "rt-0001" not in fingerprint


@pytest.mark.parametrize("value", ["rt-0001", "", "é☃", "x" * 5000])
def test_a_fingerprint_of_many_values_is_that_of_each(value):
    cipher = TokenCipher(KEY)
    known = hmac.digest(cipher.derived_key("tracking"), value.encode(), "sha256").hex()[:32]
    assert cipher.fingerprint("tracking", value) == known
    [fingerprint] = cipher.fingerprints("tracking")
    assert [fingerprint(value), fingerprint("another"), fingerprint(value)] == [
        known,
        cipher.fingerprint("tracking", "another"),
        known,
    ]


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(TokenCipher(KEY).fingerprint("token", "rt-0002"), id="another value"),
        pytest.param(TokenCipher(KEY).fingerprint("recipient", "rt-0001"), id="another purpose"),
        pytest.param(TokenCipher(OTHER_KEY).fingerprint("token", "rt-0001"), id="another key"),
    ],
)
def test_a_fingerprint_differs_for(other):
    assert TokenCipher(KEY).fingerprint("token", "rt-0001") != other


def test_a_key_is_made_once_beside_the_state_for_its_owner_alone(tmp_path):
    key = key_beside(str(tmp_path / "feedamp" / "state.db"))
    file = tmp_path / "feedamp" / "state.db.key"
    assert key_beside(str(tmp_path / "feedamp" / "state.db")) == key == file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert TokenCipher(key).decrypt(TokenCipher(key).encrypt("rt-0001")) == "rt-0001"


def test_nothing_else_is_left_beside_the_state(tmp_path):
    key_beside(str(tmp_path / "state.db"))
    key_beside(str(tmp_path / "state.db"))
    assert [path.name for path in tmp_path.iterdir()] == ["state.db.key"]


def test_a_key_that_lies_there_already_is_taken(tmp_path):
    file = tmp_path / "state.db.key"
    file.touch(mode=0o600)
    file.write_text(f"{KEY}\n")
    assert key_beside(str(tmp_path / "state.db")) == KEY


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_key_that_other_users_can_read_is_refused(tmp_path, mode):
    key_beside(str(tmp_path / "state.db"))
    (tmp_path / "state.db.key").chmod(mode)
    with pytest.raises(ConfigurationError, match=rf"mode {mode:04o}.*chmod 600") as refused:
        key_beside(str(tmp_path / "state.db"))
    assert (tmp_path / "state.db.key").read_text() not in str(refused.value)


def test_a_draft_left_by_a_dead_process_is_ignored(tmp_path, monkeypatch):
    # In a container the next process often has the same PID as the previous one.
    monkeypatch.setattr("os.getpid", lambda: 7)
    (tmp_path / ".state.db.key.7").write_text("")
    assert TokenCipher(key_beside(str(tmp_path / "state.db")))
