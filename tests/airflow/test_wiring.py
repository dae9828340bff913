"""Resources built from options and connections: the encryption key, and invalid combinations."""

from __future__ import annotations

import stat

import pytest
from airflow.sdk.log import redact
from cryptography.fernet import Fernet
from sqlalchemy.exc import OperationalError

from feedamp.errors import ConfigurationError
from feedamp_airflow.config import read_options
from feedamp_airflow.wiring import make_resources


def test_a_sqlite_state_gets_a_key_file_beside_it_made_once(airflow_env):
    first, second = airflow_env.resources().cipher, airflow_env.resources().cipher
    file = airflow_env.folder / "state.db.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert second.decrypt(first.encrypt("rt-1")) == "rt-1"


def test_a_given_key_is_used_and_no_file_is_made(airflow_env):
    key = Fernet.generate_key().decode()
    airflow_env.set_options(encryption_key=f" {key}\n")
    stored = airflow_env.resources().cipher.encrypt("rt-1")
    assert Fernet(key).decrypt(stored.encode()) == b"rt-1"
    assert not (airflow_env.folder / "state.db.key").exists()


def test_a_key_from_a_command_loses_its_line_end(monkeypatch):
    key = Fernet.generate_key().decode()
    monkeypatch.setenv("AIRFLOW__FEEDAMP__ENCRYPTION_KEY_CMD", f"echo {key}")
    assert read_options().encryption_key == key


def test_a_key_is_masked_in_logs_from_the_moment_it_is_loaded(airflow_env):
    key = Fernet.generate_key().decode()
    airflow_env.set_options(encryption_key=key)
    airflow_env.resources()
    assert key not in str(redact(f"the key is {key}"))


def test_a_password_in_an_address_is_masked_in_logs(airflow_env):
    key = Fernet.generate_key().decode()
    airflow_env.set_options(encryption_key=key, inbox_url="sftp://us:sesame-of-the-inbox@127.0.0.1/inbox")
    airflow_env.set_options(state_url="postgresql+psycopg://us:sesame%20of%20the%20state@127.0.0.1:1/feedamp")
    with pytest.raises(OperationalError):  # no one listens there
        make_resources()
    said = str(redact("sesame-of-the-inbox, sesame%20of%20the%20state, sesame of the state"))
    assert "sesame" not in said


def test_a_state_that_is_no_file_needs_a_key(airflow_env):
    airflow_env.set_options(state_url="postgresql+psycopg://no one@127.0.0.1:1/feedamp")
    with pytest.raises(ConfigurationError, match="encryption_key is required"):
        make_resources()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        pytest.param({"encryption_key": "short"}, "encryption_key", id="a key that is not valid"),
        pytest.param({"state_conn_id": "pg"}, "state_url and state_conn_id", id="two states"),
        pytest.param(
            {"state_url": "", "state_conn_id": "pg"}, "no connection pg", id="an unknown state connection"
        ),
        pytest.param({"warehouse_conn_id": "pg"}, "no connection pg", id="an unknown warehouse connection"),
        pytest.param(
            {"warehouse_conn_id": "feedamp_default"},
            "type postgres",
            id="a warehouse connection of another type",
        ),
    ],
)
def test_resources_that_cannot_be_built_name_the_wrong_option(options, named, airflow_env):
    airflow_env.set_options(**options)
    with pytest.raises(ConfigurationError, match=named):
        make_resources()


def test_a_state_url_that_depends_on_the_folder_is_refused(airflow_home, monkeypatch):
    from feedamp.errors import ConfigurationError
    from feedamp_airflow.wiring import make_resources

    monkeypatch.setenv("AIRFLOW__FEEDAMP__STATE_URL", "sqlite:///state.db")
    with pytest.raises(ConfigurationError, match="absolute path"):
        make_resources()
