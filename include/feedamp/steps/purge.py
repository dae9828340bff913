"""Redacts customer fields that the state no longer needs; lake and warehouse keep their history.

Which rows are due: `state/retention.py`. What remains of a body: `rules/stored_body.py`.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial

from feedamp.api.clock_check import date_of, doubt_by_state
from feedamp.errors import ConfigurationError, FeedAmpError
from feedamp.resources import Resources
from feedamp.rules.clock import doubt_of
from feedamp.run import Run
from feedamp.state import retention, sellers

log = logging.getLogger(__name__)
ROWS_PURGED_AT_ONCE = 500
EVENTS_LOOKED_AT = 2_000


def purge(resources: Resources, run: Run) -> dict[str, int]:
    """Redacts old customer fields and purges old tracking number hashes; returns how many rows of each.

    Orders that ended `closed_body_days` ago are redacted. The raw text of a rejected row is removed if its order is
    redacted, or if it was superseded or dismissed that long ago. Without the option, neither happens. Hashes of
    tracking numbers are purged after 90 days in any case, and events 30 days after their order ended. Runs in short transactions. Safe to repeat.

    Raises:
        ConfigurationError: the clock and the newest moment in the state differ by more than 24 hours, and FeedAMP's `Date`
            does not confirm the clock; nothing is changed, because a clock that is ahead would erase too much, permanently.
    """
    _require_a_right_clock(resources)
    now = resources.state.now()
    counts = {"bodies": 0, "rejects": 0, "tracking_uses": 0}
    kept = resources.settings.closed_body_kept
    if run.dry_run:
        if kept is not None:
            with resources.state.read() as connection:
                counts["bodies"], counts["rejects"] = retention.waiting(connection, ended_before=now - kept)
            log.info("Would be redacted: bodies %d, rejected rows %d", counts["bodies"], counts["rejects"])
        return counts
    if kept is not None:
        counts["bodies"] = _repeat(resources, partial(retention.redact_bodies, ended_before=now - kept))
        counts["rejects"] = _repeat(resources, partial(retention.empty_rejects, superseded_before=now - kept))
    for table in retention.KEPT:
        dropped = _repeat(resources, partial(retention.drop_old, table=table, now=now))
        if table.name in counts:
            counts[table.name] = dropped
    with resources.state.begin() as connection:
        retention.drop_left_leases(connection, now=now)
    after: datetime | None = datetime.min.replace(tzinfo=UTC)
    while after is not None:
        with resources.state.begin() as connection:
            after = retention.drop_order_events(connection, after=after, now=now, limit=EVENTS_LOOKED_AT)
    log.info("Redacted or purged: %s", ", ".join(f"{name} {count}" for name, count in counts.items()))
    return counts


def _require_a_right_clock(resources: Resources) -> None:
    """After idle days the newest moment in the state is old; then FeedAMP is asked for its clock, without a token."""
    doubt = doubt_by_state(resources.state)
    if doubt is None:
        return
    with resources.state.read() as connection:
        conn_ids = dict.fromkeys(seller.conn_id for seller in sellers.find(connection))
    for conn_id in conn_ids:
        with suppress(FeedAmpError):
            server_time = asyncio.run(date_of(resources.connection(conn_id).endpoint))
            is_confirmed = doubt_of(resources.state.now(), server_time=server_time, newest=None) is None
            if is_confirmed and server_time is not None:
                return
    raise ConfigurationError(
        f"Nothing is redacted or purged by a clock that is in doubt. {doubt.text} The next purge after FeedAMP has "
        "confirmed the clock does it."
    )


def _repeat(resources: Resources, purge_batch: Callable[..., int]) -> int:
    done = 0
    while True:
        with resources.state.begin() as connection:
            changed = purge_batch(connection, limit=ROWS_PURGED_AT_ONCE)
        done += changed
        if changed < ROWS_PURGED_AT_ONCE:
            return done
