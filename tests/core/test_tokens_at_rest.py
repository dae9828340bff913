"""Promise 9: tokens are unreadable in the state file, and no secret shows in a repr."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from wire import CONN, S1, wired

from feedamp.api.oauth import Credentials, TokenEndpoint
from feedamp.errors import ConfigurationError
from feedamp.state import grants
from feedamp.state.token_cipher import TokenCipher


@pytest.fixture
async def wire():
    async with wired() as connected:
        yield connected


@pytest.mark.parametrize("kept_open", [False, True], ids=["the file", "the write-ahead log"])
async def test_no_file_of_the_state_holds_a_token(wire, kept_open):
    first = wire.grant().refresh_token
    await wire.tokens.live(S1)
    await wire.tokens.renew(S1)
    grant = wire.grant()
    if not kept_open:
        wire.state.close()  # the content of the log is in the file now
    kept = content_of(Path(wire.state.url.database).parent)
    assert f"{S1}{CONN}".encode() in kept
    secrets = [first, grant.refresh_token, grant.previous_refresh_token, grant.access_token]
    assert [secret for secret in secrets if secret.encode() in kept] == []


def content_of(folder):
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def test_a_grant_of_another_key_asks_for_the_former_key(wire):
    with wire.state.read() as connection, pytest.raises(ConfigurationError, match="former key"):
        grants.read(connection, TokenCipher(Fernet.generate_key().decode()), S1)


async def test_no_object_with_a_secret_shows_it(wire):
    token = await wire.tokens.live(S1)
    await wire.tokens.renew(S1)
    pair = await TokenEndpoint(wire.transport, wire.credentials).refresh(wire.grant().refresh_token)
    grant = wire.grant()
    shown = repr(
        [
            token,
            pair,
            grant,
            wire.credentials,
            wire.tokens,
            wire.client(),
            wire.transport,
            wire.cipher,
            wire.state,
        ]
    )
    secrets = {
        "access token": token.value,
        "new access token": pair.access_token,
        "new refresh token": pair.refresh_token,
        "stored refresh token": grant.refresh_token,
        "refresh token before": grant.previous_refresh_token,
        "stored access token": grant.access_token,
        "client secret": wire.credentials.client_secret,
    }
    assert [name for name, secret in secrets.items() if secret in shown] == []


def test_the_credentials_show_whose_they_are():
    assert repr(Credentials(CONN, "mkt-204", "hush")) == f"Credentials(conn_id='{CONN}', client_id='mkt-204')"
