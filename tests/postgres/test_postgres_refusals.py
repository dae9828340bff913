"""Servers and roles that a Postgres warehouse cannot be used with are named, and no secret with them."""

from __future__ import annotations

import traceback

import psycopg
import pytest
from postgres import Server
from postgres_warehouses import address_of, looking

from feedamp.errors import ConfigurationError, TransientError
from feedamp.warehouse.postgres import PostgresAddress, PostgresWarehouse


@pytest.fixture
def address(server: Server) -> PostgresAddress:
    return address_of(server.database())


def shown(error: BaseException) -> str:
    """All that a log would print of it."""
    return "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    ("changes", "kind", "says"),
    [
        pytest.param(
            {"password": "wr'ong \\ pass"}, ConfigurationError, "authentication", id="wrong password"
        ),
        pytest.param({"database": "nowhere"}, ConfigurationError, "does not exist", id="no such database"),
        pytest.param({"port": 1}, TransientError, "cannot be reached", id="no server listens"),
    ],
)
def test_a_server_that_cannot_be_used_is_named_without_the_password(address, changes, kind, says):
    wrong = address_of(f"postgresql://x@127.0.0.1:{address.port}/x", **{**vars(address), **changes})
    with pytest.raises(kind, match=says) as refused, PostgresWarehouse(wrong, away_s=0.0).session():
        pass
    assert wrong.password not in shown(refused.value) + repr(wrong)
    assert wrong.shown in str(refused.value)


def test_a_password_of_any_characters_is_understood(address):
    strange = "pa ss'wo\\rd \"é%20&=?"
    with looking(address) as owner:
        owner.execute(
            psycopg.sql.SQL("CREATE ROLE strange LOGIN SUPERUSER PASSWORD {}").format(
                psycopg.sql.Literal(strange)
            )
        )
    with PostgresWarehouse(
        address_of("x://", **{**vars(address), "user": "strange", "password": strange})
    ).session():
        pass


def test_a_role_without_rights_is_told_which(address):
    with looking(address) as owner:
        owner.execute("CREATE ROLE guest LOGIN PASSWORD 'guest-secret'")
    guest = address_of("x://", **{**vars(address), "user": "guest", "password": "guest-secret"})
    with (
        pytest.raises(ConfigurationError, match="permission denied") as refused,
        PostgresWarehouse(guest).session(),
    ):
        pass
    assert "guest-secret" not in shown(refused.value)
