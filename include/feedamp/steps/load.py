"""Outbox -> manifests -> state (snapshots of open orders, watermarks) -> warehouse.

The state takes in each manifest once its files have been read back completely. The warehouse comes last, and no other
step waits for it.
"""

import logging

from feedamp.api.clock_check import doubt_by_state
from feedamp.errors import IncompleteError
from feedamp.resources import Resources
from feedamp.run import Run
from feedamp.steps.fill_warehouse import fill_warehouse
from feedamp.steps.loaded import Loaded
from feedamp.steps.publish_outbox import empty_outbox, publishing_lease
from feedamp.steps.step_end import record_run
from feedamp.steps.step_result import StepResult
from feedamp.steps.take_manifests import take_into_state, take_published
from feedamp.steps.write_snapshots import write_full_snapshots

log = logging.getLogger(__name__)


def load(resources: Resources, run: Run) -> dict[str, int]:
    """Loads everything that waits, from this run or earlier ones, into state and warehouse; returns counts.

    A manifest is merged in one transaction, small ones together. Safe to repeat: a manifest counts once.

    Raises:
        BusyError: another process has held the warehouse too long; nothing is lost.
        IncompleteError: files of some manifests are missing or damaged; all other manifests are loaded.
    """
    loaded = load_what_is_whole(resources, run)
    if loaded.damaged or loaded.refused:
        raise IncompleteError(loaded.problem or "")
    if loaded.busy is not None and loaded.is_overdue:
        raise loaded.busy
    return loaded.counts


def load_what_is_whole(resources: Resources, run: Run) -> Loaded:
    """Does what `load` does, but returns what could not be loaded instead of raising; the next load tries it again.

    Raises a BusyError if another process has been publishing for a minute; nothing is lost.
    """
    doubt_by_state(resources.state)
    loaded, started_at = Loaded(), resources.state.now()
    with publishing_lease(resources) as renew:
        # What the state takes in adds events to the outbox, which go with this load.
        take_published(resources, renew, loaded)
        empty_outbox(resources, run, renew)
        take_published(resources, renew, loaded)
        write_full_snapshots(
            resources, run, renew, lambda made: take_into_state(resources, made, loaded.counts)
        )
    fill_warehouse(resources, loaded)
    if loaded.set_aside:  # idle loads write no row, or the next one would have something to load
        result = StepResult("load", orders_unread=len(loaded.set_aside), complete=False)
        record_run(resources, run, result, started_at)
    log.info("%s", ", ".join(f"{name} {value}" for name, value in loaded.counts.items()))
    return loaded
