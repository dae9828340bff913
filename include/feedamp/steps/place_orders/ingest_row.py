"""One row of an inbox file or query: evaluated against the ledger (`rules/intake.py`), then written there or rejected."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import TypeVar

from sqlalchemy.engine import Connection

from feedamp.errors import UnreadableError
from feedamp.inbox import BadRow, OrderRow
from feedamp.models import FINAL_STATES
from feedamp.order_body import Reason
from feedamp.resources import Resources
from feedamp.rules.intake import Admission, ObservedState, admit
from feedamp.rules.order_story import delivered, of_ledger
from feedamp.rules.units import units_shipped
from feedamp.state import ledger, open_orders, order_events, rejects
from feedamp.steps.runner import StepResult

_Row = TypeVar("_Row")

ROWS_PER_TRANSACTION = 200
BYTES_PER_TRANSACTION = 8 << 20


def batches(rows: Iterable[_Row], text: Callable[[_Row], str]) -> Iterator[list[_Row]]:
    """The rows in transactions of at most 200 rows and, unless it is one row, about 8 MiB of text."""
    batch: list[_Row] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += len(text(row))
        if len(batch) == ROWS_PER_TRANSACTION or size > BYTES_PER_TRANSACTION:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def evaluate_row(connection: Connection, resources: Resources, row: OrderRow | BadRow) -> Admission:
    """What a row means for the ledger in its current state; writes nothing."""
    if isinstance(row, BadRow):
        return Admission(None, row.reasons, rejected=True)
    known = ledger.read(connection, row.seller_id, row.mp_order_number)
    is_final = row.body["marketplace_state"] in FINAL_STATES
    observed = observed_state(connection, row.seller_id, row.mp_order_number) if is_final else ObservedState()
    return replace(admit(row, known, observed, now=resources.state.now()), before=known)


def note_rejected(result: StepResult, row: OrderRow | BadRow, reasons: Sequence[Reason]) -> None:
    """Adds a rejected row to what the step's log tells."""
    told = [(reason.field, reason.code, reason.message) for reason in reasons]
    result.rejected_rows.add(row.source, row.row_number, row.mp_order_number, told)


def write_row(
    connection: Connection,
    resources: Resources,
    row: OrderRow | BadRow,
    admission: Admission,
    *,
    run_id: str | None,
) -> None:
    """Writes the result of `evaluate_row`. Safe to repeat."""
    order = admission.order
    if order is not None:
        ledger.write(connection, order)
        now, differs = resources.state.now(), [reason.field for reason in admission.reasons]
        events = [delivered(order, row.source, row.row_number, differs, now=now)]
        events += of_ledger(admission.before, order, now=now)
        order_events.record(connection, events, run_id=run_id)
        if admission.body_came:  # the order may have waited only for its body
            open_orders.invalidate_validation(connection, *order.key)
        if not admission.reasons:
            rejects.supersede_order(connection, *order.key, now=resources.state.now())
    if admission.reasons:
        _reject(connection, resources, row, admission)


def observed_state(connection: Connection, seller_id: str, mp_order_number: str) -> ObservedState:
    """What the newest snapshot of an order says; no units if there is none or it cannot be decoded.

    An undecodable snapshot hides no shipment: the order is read again before CANCELLED is sent.
    """
    try:
        stored = open_orders.read(connection, seller_id, mp_order_number)
    except UnreadableError:
        stored = None
    if stored is None:
        return ObservedState()
    return ObservedState(
        units_shipped=units_shipped(stored.snapshot.fulfillments),
        is_marketplace_fulfilled=bool(stored.snapshot.is_marketplace_fulfilled),
    )


def _reject(
    connection: Connection, resources: Resources, row: OrderRow | BadRow, admission: Admission
) -> None:
    now = resources.state.now()
    rejects.write(
        connection,
        rejects.Rejected(
            source=row.source,
            row_number=row.row_number,
            row_hash=row.row_hash,
            seller_id=row.seller_id,
            mp_order_number=row.mp_order_number,
            stage=rejects.INBOX,
            reasons=tuple(asdict(reason) for reason in admission.reasons),
            raw=row.raw,
            rejected_at=now,
            dismissed_at=now if admission.note else None,
            dismiss_reason=admission.note,
        ),
        now=now,
    )
