"""Manifests that are no longer in the lake: dropped, or given up so that their orders are read again."""

import logging
from datetime import datetime, timedelta

from feedamp.errors import ConfigurationError, IncompleteError, TransientError
from feedamp.lake.manifest import present
from feedamp.resources import Resources
from feedamp.state import ledger, manifests, watermarks
from feedamp.steps.loaded import Loaded, record_damaged
from feedamp.steps.take_manifests import NEVER_PUBLISHED, is_of_account

log = logging.getLogger(__name__)
# An order is read back by the next extraction, so a manifest holds orders that were closed shortly before it.
ENDED_BEFORE_MANIFEST = timedelta(days=1)
WHOLE = "-whole-"  # in the name of a manifest of full snapshots
# A lake that has nothing from longer before the last manifest was begun in the place of another.
A_NEW_LAKE = timedelta(days=1)
OUTBOX = "-outbox-"  # in the name of a manifest whose rows stay in the state until they are in the warehouse


def refuse_lost_lake(resources: Resources) -> None:
    """Watermarks must not go on beside a lake that lacks everything before them.

    A lake that cannot be reached stops no work that needs none, such as placing orders; what needs it will say so.

    Raises a ConfigurationError if the lake lacks more than half of the manifests that the state has taken in, or all of those
    from before the last day: a task that was writing when the lake was lost may have begun a new one.
    """
    lake = resources.lake
    with resources.state.read() as connection:
        first = manifests.first_taken(connection)
    try:
        if first is None or lake.is_published(first):
            return
        # A state restored from a backup may know manifests that were combined since; damaged ones count by their names.
        damaged: dict[str, str] = {}
        paths = present(lake.published(damaged)) | damaged.keys()
    except (TransientError, OSError) as error:
        log.warning("Whether the lake %s has its manifests is not known: %s", lake.storage.url, error)
        return
    with resources.state.read() as connection:
        taken = manifests.taken(connection)
    found = [announced_at for path, announced_at in taken if path in paths]
    is_new = found and taken[0][1] <= taken[-1][1] - A_NEW_LAKE < found[0]
    if is_new or 2 * len(found) < len(taken):
        what = "lacks earlier manifests" if paths else "is empty"
        raise ConfigurationError(
            f"The lake {lake.storage.url} {what}, although the state knows manifests of it: mount its disk, correct [feedamp] lake_url, or "
            "restore it from a backup. If it is lost, `feedamp lake verify --repair`, run twice, begins a new one."
        )


def handle_missing(resources: Resources, path: str, taken_at: datetime, loaded: Loaded) -> None:
    """Handles a manifest that disappeared from the lake after the state had taken it in and moved its watermarks.

    One of the outbox, or of full snapshots, is dropped: the next load writes its rows again under another name. Any other manifest is
    given up after two days, which leaves time to restore it from a backup.
    """
    is_outbox = OUTBOX in path or WHOLE in path
    if not is_outbox:
        message = (
            f"Manifest {path} never reached the warehouse: it is no longer in the lake. If it cannot be restored, "
            "`feedamp lake verify --repair` moves the watermarks back, so that the next extraction reads its orders again."
        )
        record_damaged(loaded, path, IncompleteError(message))
    if is_outbox:
        with resources.state.begin() as connection:
            manifests.drop(connection, path)
    elif taken_at < resources.state.now() - NEVER_PUBLISHED:
        give_up_manifest(resources, path)


def give_up_manifest(resources: Resources, path: str) -> int:
    """Drops a manifest that is no longer in the lake, and moves back the watermarks that depend on it.

    It is no longer known whose orders the manifest contained. So each watermark that has moved since the manifest was
    announced is moved back to what earlier manifests in the lake say, or removed if none of them names the seller.
    Orders that were read in between are read again, which changes nothing. Returns how many watermarks were moved back.
    """
    published = resources.lake.published()
    compacted = {replaced for manifest in published for replaced in manifest.replaces}
    with resources.state.begin() as connection:
        planned_at = manifests.planned_at(connection, path)
        if planned_at is None:
            return 0  # another process has given it up at the same time
        earlier: dict[str, datetime | None] = {}
        for manifest in published:
            follows = set(manifest.follows) - compacted
            if manifest.created_at < planned_at and manifests.are_taken(connection, follows):
                for sweep in manifest.sweeps:
                    if is_of_account(connection, sweep):
                        earlier[sweep.seller_id] = sweep.moved(earlier.get(sweep.seller_id))
        moved = watermarks.moved_since(connection, planned_at)
        for seller_id in moved:
            watermarks.move_back(connection, seller_id, earlier.get(seller_id), now=resources.state.now())
        # No watermark brings back an order that only this side changed: FeedAMP lists changes by sellers.
        ledger.read_back_ended_since(
            connection, planned_at - ENDED_BEFORE_MANIFEST, now=resources.state.now()
        )
        manifests.drop(connection, path)
    log.warning("Manifest %s is given up: the watermarks of %d sellers are moved back.", path, len(moved))
    return len(moved)
