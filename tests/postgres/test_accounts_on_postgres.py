"""Accounts that are mixed up are noticed with the state on Postgres as well."""

from __future__ import annotations

from env import OTHER, SELLER, open_env

from feedamp.state import consents, extraction_start, grants, sellers


def test_a_wrong_grant_is_set_aside_and_a_shown_mix_up_pauses_both(tmp_path, url):
    with open_env(tmp_path, state_url=url, keep_older_grants=True) as env:

        def connect(*, to_compare: bool) -> None:
            with env.state.begin() as connection:
                token, now = env.sandbox.consent(SELLER), env.state.now()
                grants.put_grant(
                    connection, env.cipher, OTHER, "feedamp", token, now=now, to_compare=to_compare
                )

        def seen() -> list[tuple[bool, str | None, bool]]:
            with env.state.read() as connection:
                return [(s.paused, s.grant, s.grant_reason is None) for s in sellers.find(connection)]

        env.placed("A-1", seller=SELLER)
        env.placed("B-1", seller=OTHER)
        connect(to_compare=True)
        env.extract()
        assert seen() == [(False, "active", True), (False, "active", False)]
        with env.state.begin() as connection:
            assert consents.take_set_aside(connection, OTHER, now=env.state.now())
        assert seen() == [(False, "active", True), (False, "active", True)]
        connect(to_compare=False)
        env.stock(4)
        env.extract()
        with env.state.read() as connection:
            [start] = extraction_start.read_all(connection, [SELLER], now=env.state.now()).values()
            assert start.is_marked
        assert seen() == [(True, "active", True), (True, "active", True)]


def test_orders_that_two_accounts_show_are_noticed(tmp_path, url):
    with open_env(tmp_path, state_url=url, keep_older_grants=True) as env:
        with env.state.begin() as connection:
            token = env.sandbox.consent(SELLER)
            grants.put_grant(connection, env.cipher, OTHER, "feedamp", token, now=env.state.now())
        env.stock(1)
        env.extract()
        with env.state.read() as connection:
            assert [one.mixed_with for one in sellers.find(connection)] == [OTHER, SELLER]
