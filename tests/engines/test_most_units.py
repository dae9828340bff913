"""Each quantity may be the largest that FeedAMP takes; what counts those of a whole order stores their sum."""

from __future__ import annotations

from env import SELLER, open_env, shipment

MOST = 2**31 - 1


def test_an_order_of_more_units_than_one_quantity_holds_is_closed(url):
    with open_env(state_url=url) as env:
        lines = [{**env.body("M-1")["order_lines"][0], "mp_line_number": line} for line in ("1", "2")]
        for line, quantity in zip(lines, (MOST, 1), strict=True):
            line["quantity"] = quantity
        env.placed("M-1", order_lines=lines)
        shown = [
            {"mp_line_number": line["mp_line_number"], "shipments": [shipment(line["quantity"])]}
            for line in lines
        ]
        env.sandbox.set_fulfillments(SELLER, "M-1", shown)
        env.read()
        env.process()
        assert (env.order("M-1").phase, env.order("M-1").closed_units_shipped) == ("closed", MOST + 1)


def test_units_shipped_after_the_end_stop_no_load(url):
    with open_env(state_url=url) as env:
        env.placed("M-1", "M-2")
        env.fulfill("M-1", cancelled=2)
        env.read()
        env.process()
        env.fulfill("M-1", shipment(MOST), shipment(MOST))
        env.fulfill("M-2", shipment(2))
        env.read()
        assert env.order("M-1").shipped_though_cancelled == 2 * MOST
        env.process()
        assert env.order("M-2").phase == "closed"
