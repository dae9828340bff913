"""Customer fields that the state needs no longer are let go; lake and warehouse keep their history."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from feedamp.resources import Resources
from feedamp.run import Run
from feedamp.state import retention

log = logging.getLogger(__name__)
ROWS_PURGED_AT_ONCE = 500


def forget(resources: Resources, run: Run) -> dict[str, int]:
    """Reduces orders that were done `closed_body_days` ago, empties their rejected rows, drops stale parcel hashes.

    Without the option nothing of an order goes; the hashes of parcels end after their 90 days all the same. Short
    transactions. Safe to repeat: what is reduced stays as it is.
    """
    now = resources.state.now()
    counts = {"bodies": 0, "rejects": 0, "tracking_uses": 0}
    kept = resources.settings.closed_body_kept
    if run.dry_run:
        if kept is not None:
            with resources.state.read() as connection:
                counts["bodies"], counts["rejects"] = retention.waiting(connection, ended_before=now - kept)
            log.info("would be reduced: %d bodies, %d rejected rows", counts["bodies"], counts["rejects"])
        return counts
    if kept is not None:
        counts["bodies"] = _all(resources, partial(retention.reduce_bodies, ended_before=now - kept))
        counts["rejects"] = _all(resources, partial(retention.empty_rejects, superseded_before=now - kept))
    counts["tracking_uses"] = _all(resources, partial(retention.drop_tracking_uses, now=now))
    log.info("let go: %s", ", ".join(f"{name} {count}" for name, count in counts.items()))
    return counts


def _all(resources: Resources, batch: Callable[..., int]) -> int:
    done = 0
    while True:
        with resources.state.begin() as connection:
            changed = batch(connection, limit=ROWS_PURGED_AT_ONCE)
        done += changed
        if changed < ROWS_PURGED_AT_ONCE:
            return done
