"""Rejected rows -> ledger once more, for example after an option was changed."""

import hashlib
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace

from sqlalchemy.engine import Connection

from feedamp.inbox import OrderRow, read_again
from feedamp.resources import Resources
from feedamp.rules.order import CANCELLED, Phase
from feedamp.state import ledger, rejects
from feedamp.state.rejects import Rejected
from feedamp.steps.place_orders.ingest_row import RowBatch, batches, observed_state


@dataclass
class Replayed:
    """How many rejects were `taken` into the ledger, are `to_place` again or `still_rejected`, or needed nothing (`left`)."""

    taken: int = 0
    to_place: int = 0
    still_rejected: int = 0
    left: int = 0


def replay(resources: Resources, sources: Collection[str] = ()) -> Replayed:
    """Evaluates the open rejects again under the current settings, those of some sources or of all.

    A row rejected at stage `inbox` goes through intake again. An order that FeedAMP refused returns to `to_place`.
    Safe to repeat: an unchanged result writes nothing.
    """
    counts = Replayed()
    with resources.state.read() as connection:
        found = [
            reject
            for reject in rejects.read_open(connection)
            if reject.stage != rejects.LOAD and (not sources or reject.source in sources)
        ]
    # Orders taken in this replay. Taking one supersedes all its rejects, so a later bad row must be rejected once more.
    taken: set[tuple[str, str]] = set()
    for batch in batches(found, lambda rejected: rejected.raw):
        with resources.state.begin() as connection:
            for rejected in batch:
                if _key(rejected) not in taken and not rejects.is_still_open(connection, rejected):
                    counts.left += 1  # a new delivery has superseded it meanwhile
                elif rejected.stage == rejects.FEEDAMP:
                    _send_again(connection, resources, rejected, counts)
                else:
                    _read_again(connection, resources, rejected, taken, counts)
    return counts


def _read_again(
    connection: Connection,
    resources: Resources,
    rejected: Rejected,
    taken: set[tuple[str, str]],
    counts: Replayed,
) -> None:
    if not _has_whole_row(rejected):
        counts.still_rejected += 1
        return
    row = read_again(rejected.source, rejected.row_number, rejected.raw, resources.settings.body)
    rows = RowBatch(connection, resources, [row], run_id=None)
    [row] = rows.rows
    admission = rows.evaluate(row)
    key = _key(rejected)
    is_known = tuple(asdict(reason) for reason in admission.reasons) == rejected.reasons
    if admission.order is not None and isinstance(row, OrderRow):
        taken.add((row.seller_id, row.mp_order_number))
        if not admission.reasons and key != (row.seller_id, row.mp_order_number):
            # Its ids were unreadable before, so superseding the order's rejects does not cover this one.
            now = resources.state.now()
            rejects.write(connection, replace(rejected, superseded_at=now), now=now)
    if admission.order is not None or not is_known or key in taken:
        rows.write(row, admission)
        rows.write_all()
    if admission.rejected:
        counts.still_rejected += 1
    elif admission.order is not None:
        counts.taken += 1
    else:
        # Another file has delivered the order meanwhile, or the only reason is `body_changed`.
        counts.left += 1


def _has_whole_row(rejected: Rejected) -> bool:
    """Whether the complete row is stored; it is not for a file fault, or for a row that was too long and was cut."""
    return rejected.row_number > 0 and hashlib.sha256(rejected.raw.encode()).hexdigest() == rejected.row_hash


def _send_again(connection: Connection, resources: Resources, rejected: Rejected, counts: Replayed) -> None:
    now = resources.state.now()
    order = ledger.read(connection, *_key(rejected))
    if order is not None and order.phase in (Phase.REFUSED, Phase.HELD):
        observed = observed_state(connection, *order.key)
        if order.desired_state == CANCELLED and observed.units_shipped:
            counts.still_rejected += 1  # a conflict: action required, nothing is sent
            return
        ledger.save(connection, order, order.requested(order.desired_state, now=now))
        counts.to_place += 1
    else:
        counts.left += 1  # closed, or corrected by a later delivery: nothing to send
    rejects.write(connection, replace(rejected, superseded_at=now), now=now)


def _key(rejected: Rejected) -> tuple[str, str]:
    return rejected.seller_id or "", rejected.mp_order_number or ""
