"""PURE: how long an order waits for its next try: without an answer, behind other orders, blocked or missing.

Repeats within one request: `api/client.py`; retries of a task: `plugins/feedamp_airflow/retries.py`.
"""

from datetime import timedelta

FIRST_WAIT_S = 30.0
LONGEST_WAIT_S = 3600.0
# A seller whose orders fail one after another is left to the next run: each may have cost four time limits.
FAILURES_THAT_END_A_SELLER = 3
_DOUBLED_AT_MOST = 7  # more would exceed the longest wait in any case
# Orders that were not tried, because the seller's work stopped before their turn.
WAIT_BEHIND_OTHERS_S = 60.0
# Orders of a seller that is unknown, paused or without a usable grant; they are due at once when that ends.
BLOCKED_WAIT = timedelta(days=1)
# How often an order that FeedAMP does not have is read again.
MISSING_WAIT = timedelta(days=1)
# A next try that is later was written by a wrong clock.
LONGEST_ORDER_WAIT = timedelta(days=1)


def wait_of_unanswered(attempts: int, *, asked_s: float | None) -> timedelta:
    """How long an order waits after a PUT without a usable answer: as long as FeedAMP asked, else with a backoff.

    `attempts` counts the earlier ones of this order, `asked_s` is FeedAMP's `Retry-After` in seconds. Without that, the
    wait is 30 s, doubled with each attempt up to an hour.
    """
    wait_s = asked_s or min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(attempts, _DOUBLED_AT_MOST))
    return min(timedelta(seconds=wait_s), LONGEST_ORDER_WAIT)


def wait_behind_others(*, asked_s: float | None) -> timedelta:
    """How long the seller's other orders wait after its work was stopped."""
    return min(timedelta(seconds=asked_s or WAIT_BEHIND_OTHERS_S), LONGEST_ORDER_WAIT)
