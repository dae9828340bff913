"""Redacts customer fields that the state no longer needs; lake and warehouse keep their history.

Which rows are due: `state/retention.py`. What remains of a body: `rules/stored_body.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from feedamp.api.clock_check import doubt_by_state
from feedamp.errors import ConfigurationError
from feedamp.resources import Resources
from feedamp.run import Run
from feedamp.state import retention

log = logging.getLogger(__name__)
ROWS_PURGED_AT_ONCE = 500


def purge(resources: Resources, run: Run) -> dict[str, int]:
    """Redacts old customer fields and purges old tracking number hashes; returns how many rows of each.

    Orders that ended `closed_body_days` ago are redacted. The raw text of a rejected row is removed if its order is
    redacted, or if it was superseded or dismissed that long ago. Without the option, neither happens. Hashes of
    tracking numbers are purged after 90 days in any case. Runs in short transactions. Safe to repeat.

    Raises:
        ConfigurationError: the clock and the newest moment in the state differ by more than 24 hours; nothing is changed,
            because a clock that is ahead would erase too much, permanently.
    """
    doubt = doubt_by_state(resources.state)
    if doubt is not None:
        raise ConfigurationError(
            f"Nothing is redacted or purged by a clock that is in doubt. {doubt.text} The next purge after an extraction or a "
            "token refresh that confirms the clock does it."
        )
    now = resources.state.now()
    counts = {"bodies": 0, "rejects": 0, "tracking_uses": 0}
    kept = resources.settings.closed_body_kept
    if run.dry_run:
        if kept is not None:
            with resources.state.read() as connection:
                counts["bodies"], counts["rejects"] = retention.waiting(connection, ended_before=now - kept)
            log.info("Would be redacted: %d bodies, %d rejected rows", counts["bodies"], counts["rejects"])
        return counts
    if kept is not None:
        counts["bodies"] = _repeat(resources, partial(retention.redact_bodies, ended_before=now - kept))
        counts["rejects"] = _repeat(resources, partial(retention.empty_rejects, superseded_before=now - kept))
    counts["tracking_uses"] = _repeat(resources, partial(retention.drop_tracking_uses, now=now))
    _repeat(resources, partial(retention.drop_commit_marks, now=now))
    log.info("Redacted or purged: %s", ", ".join(f"{name} {count}" for name, count in counts.items()))
    return counts


def _repeat(resources: Resources, purge_batch: Callable[..., int]) -> int:
    done = 0
    while True:
        with resources.state.begin() as connection:
            changed = purge_batch(connection, limit=ROWS_PURGED_AT_ONCE)
        done += changed
        if changed < ROWS_PURGED_AT_ONCE:
            return done
