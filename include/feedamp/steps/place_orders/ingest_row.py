"""Rows of an inbox file or query: evaluated against the ledger (`rules/intake.py`), then written there or rejected."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import chain
from typing import TypeVar

from sqlalchemy.engine import Connection

from feedamp.errors import UnreadableError
from feedamp.inbox import BadRow, OrderRow
from feedamp.models import FINAL_STATES
from feedamp.order_body import Reason
from feedamp.resources import Resources
from feedamp.rules.erased import Erased, Mentions, words_of
from feedamp.rules.intake import Admission, ObservedState, admit, admit_state
from feedamp.rules.order import LedgerOrder
from feedamp.rules.order_story import Event, delivered, of_ledger
from feedamp.rules.units import units_shipped
from feedamp.state import departures, erasures, ledger, open_orders, order_events, rejects, sellers
from feedamp.steps.step_result import StepResult

_Row = TypeVar("_Row")

# An order that is erased is over permanently, so whatever comes of it is a change that it cannot make.
_WAS_ERASED = Reason(
    "", "illegal_transition", "the order or its seller was erased, so nothing of it is taken"
)
_NO_ACTION = (
    "The order or its seller was erased. Remove the row from where it comes from, if it is still there."
)
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


def note_rejected(result: StepResult, row: OrderRow | BadRow, reasons: Sequence[Reason]) -> None:
    """Adds a rejected row to what the step's log tells."""
    told = [(reason.field, reason.code, reason.message) for reason in reasons]
    result.rejected_rows.add(row.source, row.row_number, row.mp_order_number, told)


class ErasedRow(BadRow):
    """A row of an order that was erased: nothing of it is left but where it was, and that it counts."""


def _mentions(connection: Connection, rows: Sequence[OrderRow | BadRow]) -> dict[int, Mentions]:
    """Of rows that could not be read far enough to say whose they are, by place. Empty if nothing was ever erased."""
    unnamed = [
        at
        for at, row in enumerate(rows)
        if isinstance(row, BadRow) and row.raw and not (row.seller_id and row.mp_order_number)
    ]
    if not unnamed or not erasures.is_any(connection):
        return {}
    words = {at: words_of(rows[at].raw) for at in unnamed}
    registered = sellers.registered_among(connection, set().union(*words.values()))
    return {
        at: Mentions(found, {id_} if (id_ := rows[at].seller_id) else found & registered)
        for at, found in words.items()
    }


class RowBatch:
    """Rows of one transaction: what is stored of their orders is read at once, and what they change is written at once.

    A row sees what the rows before it have changed. `write_all` comes last. `rows` are the given ones, except that
    those of erased orders are emptied: take these from there on.
    """

    def __init__(
        self,
        connection: Connection,
        resources: Resources,
        rows: Iterable[OrderRow | BadRow],
        *,
        run_id: str | None,
    ) -> None:
        self._connection = connection
        self._resources = resources
        self._run_id = run_id
        rows = list(rows)
        # In this transaction, or an erasure could come in between.
        mentions = _mentions(connection, rows)
        compared = (found.keys for found in mentions.values() if not found.are_too_many)
        named = ((row.seller_id, row.mp_order_number) for row in rows)
        erased = resources.erased(connection, chain(named, *compared))
        if erased or mentions:
            rows = [self._without_erased(row, erased, mentions.get(at)) for at, row in enumerate(rows)]
        self.rows = rows
        keys = [
            (row.seller_id, row.mp_order_number)
            for row in self.rows
            if (row.state if isinstance(row, BadRow) else not row.was_delivered)
            and row.seller_id
            and row.mp_order_number
        ]
        self._known = ledger.read_all(connection, keys)
        self._rejected = rejects.orders_with_rejects(connection, keys)
        self._changed: dict[tuple[str, str], LedgerOrder] = {}
        self._events: list[Event] = []
        self._with_new_body: list[tuple[str, str]] = []

    def _without_erased(
        self, row: OrderRow | BadRow, erased: Erased, mentions: Mentions | None
    ) -> OrderRow | BadRow:
        is_it = erased.has_delivered if isinstance(row, BadRow) else erased.has
        if not is_it(row.seller_id, row.mp_order_number):
            return (
                self._without_mentioned(row, mentions, erased)
                if mentions and isinstance(row, BadRow)
                else row
            )
        return ErasedRow(
            source=row.source,
            row_number=row.row_number,
            rows=row.rows,
            row_hash=self._keyed_hash(row),
            raw="",
            seller_id=None,
            mp_order_number=None,
            reasons=(_WAS_ERASED,),
        )

    def _without_mentioned(self, row: BadRow, mentions: Mentions, erased: Erased) -> BadRow:
        """A row that mentions what was erased, without its text; its faults stay, as it may be of another order.

        So is one that mentions too much to be compared. Its messages repeat no value, but the names of its fields are its own.
        """
        if mentions.are_too_many:
            reasons = tuple(replace(one, field="") for one in row.reasons)
            return replace(row, raw="", row_hash=self._keyed_hash(row), mp_order_number=None, reasons=reasons)
        words = erased.among(*mentions)
        if not words:
            return row
        reasons = row.reasons
        for word in words:
            without = departures.eraser(word)
            reasons = tuple(
                replace(one, field=without(one.field), message=without(one.message)) for one in reasons
            )
        seller_id, number = (None if one in words else one for one in (row.seller_id, row.mp_order_number))
        return replace(
            row,
            raw="",
            row_hash=self._keyed_hash(row),
            seller_id=seller_id,
            mp_order_number=number,
            reasons=reasons,
        )

    def _keyed_hash(self, row: OrderRow | BadRow) -> str:
        # The hash of a text can be guessed by whoever knows most of it; a keyed one recognizes a repeat just as well.
        return self._resources.cipher.fingerprint("erased row", row.row_hash)

    def evaluate(self, row: OrderRow | BadRow) -> Admission:
        """What a row means for its order in its current state; writes nothing."""
        if isinstance(row, ErasedRow):
            return Admission(None, row.reasons, rejected=True, note=_NO_ACTION)
        if isinstance(row, OrderRow) and row.was_delivered:
            return Admission()
        known = self._known.get((row.seller_id or "", row.mp_order_number or ""))
        seen, now = ObservedState(), self._resources.state.now()
        state = row.state if isinstance(row, BadRow) else row.body["marketplace_state"]
        if state in FINAL_STATES and row.seller_id and row.mp_order_number:
            seen = observed_state(self._connection, row.seller_id, row.mp_order_number)
        if isinstance(row, BadRow):
            return replace(admit_state(row, known, seen, now=now), before=known)
        return replace(admit(row, known, seen, now=now), before=known)

    def write(self, row: OrderRow | BadRow, admission: Admission) -> None:
        """Writes the result of `evaluate`; what it means for the order, with `write_all`. Safe to repeat."""
        order = admission.order
        if order is not None:
            self._known[order.key] = self._changed[order.key] = order
            now = self._resources.state.now()
            differs = [] if admission.rejected else [reason.field for reason in admission.reasons]
            self._events.append(delivered(order, row.source, row.row_number, differs, now=now))
            self._events += of_ledger(admission.before, order, now=now)
            if admission.body_came:  # the order may have waited only for its body
                self._with_new_body.append(order.key)
            if not admission.reasons and order.key in self._rejected:
                rejects.supersede_order(self._connection, *order.key, now=now)
        if admission.reasons:
            _reject(self._connection, self._resources, row, admission)
            if row.seller_id and row.mp_order_number:
                self._rejected.add((row.seller_id, row.mp_order_number))

    def write_all(self) -> None:
        """Writes the orders that rows have changed, and their events. Safe to repeat."""
        ledger.write_all(self._connection, self._changed.values())
        order_events.record(self._connection, self._events, run_id=self._run_id)
        open_orders.invalidate_validations(self._connection, self._with_new_body)
        self._changed, self._events, self._with_new_body = {}, [], []


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
