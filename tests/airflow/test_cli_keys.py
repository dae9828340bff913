"""`feedamp key rotate`, and what `doctor` says of keys."""

from __future__ import annotations

import stat

import pytest
from console import SELLER
from cryptography.fernet import Fernet

from feedamp.state import grants
from feedamp.state.token_cipher import TokenCipher
from feedamp_airflow import admin


@pytest.fixture
def file(feedamp_env):
    return feedamp_env.folder / "state.db.key"


def keys_in(file):
    return file.read_text().split(",")


def token_under(console, key):
    with console.resources.state.read() as connection:
        return grants.read(connection, TokenCipher(key), SELLER).refresh_token


def key_check(console):
    [found] = [c for c in console.run("doctor", "--json").json["checks"] if c["name"] == "encryption key"]
    return found["state"], found["says"]


def test_a_key_file_gets_a_new_key_and_loses_the_old_one_once_it_may_go(feedamp_env, file):
    [old] = keys_in(file)
    token = token_under(feedamp_env, old)
    early = feedamp_env.run("key", "rotate", "--restarted")  # since a key that is not there yet
    assert (early.code, "run it without first" in early.err, keys_in(file)) == (2, True, [old])
    done = feedamp_env.run("key", "rotate")
    new, second = keys_in(file)
    assert (done.code, second, token_under(feedamp_env, new)) == (0, old, token)
    assert "encrypted with the newest key: 1 data key, 3 grants" in done.out
    assert f"a new key was made in {file}, which has the only copy of it: back up this file again" in done.err
    assert "must stay behind the newest until 20" in done.out
    assert key_check(feedamp_env) == (
        "ok",
        "2 keys; everything is encrypted with the newest, and `feedamp key rotate` says when the older may go",
    )
    again = feedamp_env.run("key", "rotate")
    assert (again.code, keys_in(file)) == (0, [new, old])
    last = feedamp_env.run("key", "rotate", "--restarted")
    assert (last.code, keys_in(file), stat.S_IMODE(file.stat().st_mode)) == (0, [new], 0o600)
    assert "was removed from the key file" in last.out
    assert feedamp_env.run("sellers", "import", feedamp_env.sellers_file()).out.startswith(
        "added 0, updated 0"
    )
    assert [key for key in (old, new) for said in (done, again, last) if key in said.out + said.err] == []
    feedamp_env.run("key", "rotate")
    assert keys_in(file)[1:] == [new]


def test_the_doctor_vouches_for_no_journal_that_it_cannot_read(feedamp_env, tmp_path):
    feedamp_env.run("key", "rotate")
    (tmp_path / "a-file").touch()
    feedamp_env.env.set_options(journal_url=str(tmp_path / "a-file" / "_journal"))
    state, says = key_check(feedamp_env)
    assert (state, "everything" in says, "all of the state is encrypted" in says) == ("ok", False, True)


def test_with_the_option_the_operator_puts_a_new_key_before_the_old_one(feedamp_env, file):
    old, new = file.read_text(), Fernet.generate_key().decode()
    feedamp_env.env.set_options(encryption_key=old)
    one = feedamp_env.run("key", "rotate", "--json")
    assert (one.code, one.json["keys"], one.json["older_may_go"], one.json["key_file"]) == (0, 1, False, None)
    assert "put a new key before it" in feedamp_env.run("key", "rotate").out
    feedamp_env.env.set_options(encryption_key=f"{new},{old}")
    state, says = key_check(feedamp_env)
    assert (state, "under an older one of 2 keys: 4 values" in says) == ("problem", True)
    done = feedamp_env.run("key", "rotate", "--restarted", "--json")
    assert (done.code, done.json["older"], done.json["older_may_go"], done.json["older_removed"]) == (
        0,
        0,
        True,
        False,
    )
    assert "remove it from [feedamp] encryption_key" in feedamp_env.run("key", "rotate", "--restarted").out
    assert file.read_text() == old
    feedamp_env.env.set_options(encryption_key=new)
    feedamp_env.env.resources().state.close()
    assert key_check(feedamp_env) == ("ok", "decrypts the stored tokens")


def test_keys_that_open_nothing_are_refused_and_no_key_is_made(feedamp_env, file):
    feedamp_env.env.set_options(encryption_key=Fernet.generate_key().decode())
    assert feedamp_env.run("key", "rotate").code == 2
    feedamp_env.env.set_options(encryption_key="")
    lost = file.read_text()
    file.write_text(Fernet.generate_key().decode())
    assert feedamp_env.run("key", "rotate").code == 2
    assert len(keys_in(file)) == 1
    file.write_text(lost)


def test_a_seller_whose_key_went_too_early_is_named(feedamp_env, file):
    new = Fernet.generate_key().decode()
    with feedamp_env.resources.state.begin() as connection:
        now = feedamp_env.resources.state.now()
        grants.put_grant(connection, TokenCipher(new), SELLER, "feedamp_default", "rt-1", now=now)
    done = feedamp_env.run("key", "rotate", "--json")
    assert (done.code, done.json["unreadable"]) == (1, [SELLER])
    assert f"under a key that is not there: tokens of 1 seller ({SELLER})" in done.err
    feedamp_env.run("key", "rotate")
    file.write_text(f"{file.read_text()},{new}")
    assert feedamp_env.run("key", "rotate").code == 0
    assert token_under(feedamp_env, keys_in(file)[0]) == "rt-1"


def test_an_admin_without_a_shell_rotates_but_does_not_say_what_was_restarted(feedamp_env, file):
    said = []
    assert admin.run("key rotate", "", said.append, said.append) == 0
    assert len(keys_in(file)) == 2
    assert admin.run("key rotate", "--restarted", said.append, said.append) == 2
    assert len(keys_in(file)) == 2
    assert [key for key in keys_in(file) if key in "".join(said)] == []
