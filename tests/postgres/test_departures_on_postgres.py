"""Erasure with the state on Postgres: no table and no statistic keeps a word, also beside steps that are at work."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
import sqlalchemy as sa
from departing import CUSTOMER, GONE, STAYS, WORDS, live, seen_in_state
from env import SELLER, open_env

from feedamp.errors import FeedAmpError
from feedamp.state import State, departures
from feedamp.steps import depart


def erase(env, number):
    return depart.erase(env.resources, SELLER, number, asked_by="ops")


def test_an_erased_order_and_seller_leave_no_word_in_tables_and_statistics(tmp_path, url):
    with open_env(tmp_path, state_url=url) as env:
        live(env)
        with env.state.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("ANALYZE")  # whose samples hold names
        assert set(WORDS) - {GONE.lower()} <= set(seen_in_state(env))
        assert erase(env, GONE).unfinished == {}
        assert seen_in_state(env, (GONE,)) == []
        assert erase(env, None).unfinished == {}
        assert seen_in_state(env, (*WORDS, STAYS, SELLER)) == []


def test_an_order_that_is_delivered_while_it_is_erased_does_not_stay(tmp_path, url):
    with open_env(tmp_path, state_url=url) as env:
        env.placed(GONE, STAYS, **CUSTOMER)
        rows = [env.body(f"M-{n}" if n % 3 else GONE, **CUSTOMER) for n in range(150)]
        env.drop("many.jsonl", *rows)
        with ThreadPoolExecutor(2) as threads:
            taking = threads.submit(lambda: (env.intake(), env.place(), env.extract(), env.validate()))
            erasing = threads.submit(erase, env, GONE)
            taking.result()
            assert "state" in erasing.result().counts
        env.load()
        assert seen_in_state(env, (GONE,)) == []


def test_what_the_server_could_not_do_is_said_with_its_address(url):
    with closing(State(url)) as state:
        with state.begin() as connection:
            connection.execute(sa.text("DROP TABLE switches"))
        with pytest.raises(FeedAmpError, match="42P01") as caught:
            departures.rewrite(state)
        where = f"{state.url.host}:{state.url.port}/{state.url.database}"
    assert f"the state Postgres {where} has not let go" in caught.value.message
    assert "MB" not in caught.value.message
