"""Of two answers to requests of the same moment the same one counts, whichever is processed first."""

from __future__ import annotations

from itertools import permutations

from env import SELLER, Env
from manifests import T0, order

from feedamp.api.pages import UnreadableOrder
from feedamp.state import open_orders
from feedamp.steps.extract_fulfillments.extract import _deduplicate


def test_of_two_snapshots_of_one_moment_the_state_keeps_the_same(env: Env) -> None:
    env.placed("M-1")
    shown = [order(1).snapshot(), order(1, 1).snapshot()]
    ends = set()
    for turn in permutations(shown):
        with env.state.begin() as connection:
            open_orders.remove(connection, [(SELLER, "M-1")])
            for snapshot in turn:
                open_orders.keep(connection, SELLER, snapshot, read_at=T0)
        held = env.held("M-1")
        assert held is not None
        ends.add(held.snapshot_hash)
    assert len(ends) == 1


def test_an_order_that_a_page_holds_twice_counts_as_it_stands_last() -> None:
    first, other, last = order(1), order(mp_order_number="M-2"), order(2)
    nameless = [UnreadableOrder(None, "order_lines"), UnreadableOrder(None, "errors")]
    assert _deduplicate([first, other, *nameless, last]) == [last, other, *nameless]
