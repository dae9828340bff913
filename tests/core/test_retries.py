"""How long an order waits for its next try: docs/rules.md, Placing, as a table."""

from __future__ import annotations

from datetime import timedelta

import pytest

from feedamp.rules.retries import wait_behind_others, wait_of_unanswered


@pytest.mark.parametrize(
    ("attempts", "asked_s", "wait_s"),
    [
        pytest.param(0, None, 30, id="the first time"),
        pytest.param(1, None, 60, id="doubled"),
        pytest.param(6, None, 1920, id="the last doubling below an hour"),
        pytest.param(7, None, 3600, id="never more than an hour"),
        pytest.param(100_000, None, 3600, id="however often it was tried"),
        pytest.param(7, 5.0, 5, id="FeedAMP asks for less"),
        pytest.param(0, 7200.0, 7200, id="FeedAMP asks for more"),
    ],
)
def test_an_unanswered_order_waits_as_asked_or_longer_each_time(attempts, asked_s, wait_s):
    assert wait_of_unanswered(attempts, asked_s=asked_s) == timedelta(seconds=wait_s)


def test_other_orders_of_the_seller_wait_as_asked_or_a_minute():
    assert wait_behind_others(asked_s=None) == timedelta(minutes=1)
    assert wait_behind_others(asked_s=7.0) == timedelta(seconds=7)
