"""Refreshing keeps every grant alive, retries refused ones, and names those that end soon."""

from __future__ import annotations

import pytest
from cryptography.fernet import Fernet
from env import OTHER, SELLER, Env

from feedamp.errors import TransientError
from feedamp.state import grants
from feedamp.state.grants import Grant
from feedamp.state.token_cipher import TokenCipher
from feedamp.steps.refresh_tokens.renew_idle_grants import plan_refresh
from feedamp.steps.step_end import finish

pytestmark = pytest.mark.usefixtures("no_rule_is_broken")


@pytest.fixture
def unused(env: Env) -> Env:
    """Both grants have not been used for 30 days."""
    env.clock.skip(days=30)
    return env


def grant(env: Env, seller: str = SELLER) -> Grant:
    with env.state.read() as connection:
        found = grants.read(connection, env.cipher, seller)
    assert found is not None
    return found


def planned(env: Env) -> list[str]:
    return [seller for shard in plan_refresh(env.resources, []) for seller in shard["sellers"]]


def test_a_grant_in_use_is_left_alone(env: Env) -> None:
    env.clock.skip(days=29)
    env.extract()
    env.clock.skip(days=29)
    assert planned(env) == []


def test_grants_unused_for_thirty_days_are_refreshed(unused: Env) -> None:
    assert planned(unused) == [SELLER, OTHER]
    assert finish(unused.refresh())["orders"] == 2
    assert planned(unused) == []


def test_the_newest_refresh_token_is_stored(unused: Env) -> None:
    unused.refresh()
    assert grant(unused).refresh_token == unused.sandbox.refresh_token(SELLER)


def test_a_refused_grant_is_noted_green_and_tried_again_tomorrow(unused: Env) -> None:
    unused.sandbox.revoke(SELLER)
    result = unused.refresh()
    assert finish(result)["orders"] == 1
    assert len(result.notes) == 1
    assert grant(unused).status == "needs_authorization"
    assert grant(unused, OTHER).status == "active"
    assert planned(unused) == [SELLER]


def test_a_marked_grant_that_works_again_is_active(env: Env) -> None:
    token = env.sandbox.refresh_token(SELLER)
    env.register(SELLER, token="rt-wrong")
    env.extract()
    assert grant(env).status == "needs_authorization"
    with env.state.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE grants SET refresh_token = ? WHERE seller_id = ?", (env.cipher.encrypt(token), SELLER)
        )
    env.refresh()
    assert grant(env).status == "active"


def test_an_outage_is_red(unused: Env) -> None:
    unused.sandbox.fault("error_503", path="/access_token", times=None)
    with pytest.raises(TransientError):
        finish(unused.refresh())
    assert grant(unused).status == "active"


def test_grants_whose_year_ends_are_named(env: Env, caplog: pytest.LogCaptureFixture) -> None:
    env.clock.skip(days=334)
    plan_refresh(env.resources, [])
    assert caplog.messages == []
    env.clock.skip(days=2)
    plan_refresh(env.resources, [])
    assert len(caplog.messages) == 2
    assert "expires on 2027-03-10" in caplog.text


def test_a_grant_of_a_lost_key_is_left_out_with_a_warning(
    unused: Env, caplog: pytest.LogCaptureFixture
) -> None:
    lost = TokenCipher(Fernet.generate_key().decode()).encrypt("rt-lost")
    with unused.state.begin() as connection:
        connection.exec_driver_sql("UPDATE grants SET refresh_token = ? WHERE seller_id = ?", (lost, SELLER))
    assert planned(unused) == [OTHER]
    assert f"grant of seller {SELLER} was encrypted with another key" in caplog.text


def test_no_grant_is_no_run(env: Env) -> None:
    assert env.refresh().sellers == 0
