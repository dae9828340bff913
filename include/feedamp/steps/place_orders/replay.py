"""Rejected rows -> ledger once more, say after an option has changed or FeedAMP has."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice

from sqlalchemy.engine import Connection

from feedamp.inbox import OrderRow, read_again
from feedamp.resources import Resources
from feedamp.rules.order import CANCELLED
from feedamp.state import ledger, rejects
from feedamp.state.rejects import Rejected
from feedamp.steps.place_orders.ingest_row import (
    judge_row,
    seen_units,
    write_row,
)

ROWS_PER_TRANSACTION = 200


@dataclass
class Replayed:
    """How many rows were taken into the ledger, go out once more, were turned away again, or left as they are."""

    taken: int = 0
    to_place: int = 0
    still_rejected: int = 0
    left: int = 0


def replay(resources: Resources, sources: Collection[str] = ()) -> Replayed:
    """Reads the standing rejects again under today's rules, of some files or of all.

    A row that stage `inbox` rejected is admitted as intake does. An order that FeedAMP refused goes back to
    `to_place`. Safe to repeat: a verdict that stays the same writes nothing.
    """
    counts = Replayed()
    with resources.state.read() as connection:
        found = [r for r in rejects.standing(connection) if not sources or r.source in sources]
    # Orders taken here: that superseded all their rejects, so a later row still wrong must be put down again.
    taken: set[tuple[str, str]] = set()
    rows = iter(found)
    while batch := list(islice(rows, ROWS_PER_TRANSACTION)):
        with resources.state.begin() as connection:
            _replay_batch(connection, resources, batch, taken, counts)
    return counts


def _replay_batch(
    connection: Connection,
    resources: Resources,
    batch: Sequence[Rejected],
    taken: set[tuple[str, str]],
    counts: Replayed,
) -> None:
    for rejected in batch:
        key = (rejected.seller_id or "", rejected.mp_order_number or "")
        if key not in taken and not rejects.stands(connection, rejected):
            counts.left += 1  # a delivery came in between
        elif rejected.stage == rejects.FEEDAMP:
            _send_again(connection, resources, rejected, counts)
        else:
            _read_again(connection, resources, rejected, taken, counts)


def _read_again(
    connection: Connection,
    resources: Resources,
    rejected: Rejected,
    taken: set[tuple[str, str]],
    counts: Replayed,
) -> None:
    if not _is_whole(rejected):
        counts.still_rejected += 1
        return
    row = read_again(rejected.source, rejected.row_number, rejected.raw, resources.settings.body)
    admission = judge_row(connection, resources, row)
    key = (rejected.seller_id or "", rejected.mp_order_number or "")
    is_known = tuple(asdict(reason) for reason in admission.reasons) == rejected.reasons
    if admission.order is not None and isinstance(row, OrderRow):
        taken.add((row.seller_id, row.mp_order_number))
        if not admission.reasons and key != (row.seller_id, row.mp_order_number):
            now = (
                resources.state.now()
            )  # its ids were unreadable before, so the order's own rejects are not all
            rejects.write(connection, replace(rejected, superseded_at=now), now=now)
    if admission.order is not None or not is_known or key in taken:
        write_row(connection, resources, row, admission)
    if admission.rejected:
        counts.still_rejected += 1
    elif admission.order is not None:
        counts.taken += 1
    else:
        counts.left += 1  # delivered by another file meanwhile, or only `body_changed`


def _is_whole(rejected: Rejected) -> bool:
    """Whether the row was kept as it was read; a fault of a whole file, or a row that was cut, was not."""
    return rejected.row_number > 0 and hashlib.sha256(rejected.raw.encode()).hexdigest() == rejected.row_hash


def _send_again(connection: Connection, resources: Resources, rejected: Rejected, counts: Replayed) -> None:
    now = resources.state.now()
    order = ledger.read(connection, rejected.seller_id or "", rejected.mp_order_number or "")
    if order is not None and order.phase in ("refused", "held"):
        seen = seen_units(connection, *order.key)
        if order.desired_state == CANCELLED and seen.units_shipped:
            counts.still_rejected += 1  # a conflict for a person, not sent
            return
        ledger.change(connection, order, phase="to_place", reason=None, next_try_at=now, attempts=0)
        counts.to_place += 1
    else:
        counts.left += 1  # closed, or mended by a later delivery: there is nothing to send
    rejects.write(connection, replace(rejected, superseded_at=now), now=now)
