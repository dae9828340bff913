"""The daily run of feedamp_refresh_tokens redacts and purges what the state keeps no longer."""

from __future__ import annotations

from console import SELLER

from feedamp.state import ledger


def test_the_daily_run_takes_customers_out_of_closed_orders(feedamp_env):
    feedamp_env.deliver("a.jsonl", "M-1", "M-2")
    feedamp_env.place()
    feedamp_env.fulfill("M-1")
    feedamp_env.read()
    feedamp_env.process()
    feedamp_env.env.set_options(closed_body_days="0")
    feedamp_env.env.run_dag("refresh_tokens")
    with feedamp_env.resources.state.read() as connection:
        orders = ledger.read_many(connection, SELLER, ["M-1", "M-2"])
    assert [orders[number].has_body for number in ("M-1", "M-2")] == [False, True]
    assert feedamp_env.run("orders", "show", SELLER, "M-1", "--json").json["lines"][0]["ordered"] == 2
