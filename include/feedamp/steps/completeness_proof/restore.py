"""Rows that lake and warehouse lack -> outbox: from the state where it has them, otherwise from FeedAMP by number."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import partial

import msgspec
from sqlalchemy.engine import Connection

from feedamp.api.clients import Clients
from feedamp.api.decoding import read_order
from feedamp.api.json_fields import Coercions
from feedamp.api.orders_by_number import chunks_of_numbers, fetch_again
from feedamp.api.pages import UnreadableOrder
from feedamp.errors import IncompleteError, MisfitError, UnreadableError
from feedamp.lake.flatten import order_rows, placed_rows
from feedamp.models import Order, ReadOrder
from feedamp.resources import Resources
from feedamp.rules.closing import closure_row
from feedamp.rules.expected_rows import LedgerFact, placements_to_restore
from feedamp.rules.failure_summary import counted
from feedamp.rules.order import AWAITING_SHIPMENT, PENDING, LedgerOrder, Phase
from feedamp.run import Run
from feedamp.state import (
    completeness_facts,
    findings,
    ledger,
    manifests,
    open_orders,
    order_events,
    outbox,
    rejects,
    sellers,
)
from feedamp.state.sellers import Seller
from feedamp.steps.completeness_proof import compare_manifests
from feedamp.steps.completeness_proof.compare import ONLY_IN_LAKE, WAREHOUSE
from feedamp.steps.completeness_proof.found_differences import FoundDifferences
from feedamp.steps.lost_manifests import give_up_manifest
from feedamp.steps.per_seller import run_per_seller
from feedamp.steps.refused_grants import decide_refusals
from feedamp.steps.seller_job import SellerJob
from feedamp.steps.set_aside import record_refused
from feedamp.steps.step_result import StepResult
from feedamp.tables import (
    CLOSURES,
    FINDINGS,
    ORDER_EVENTS,
    ORDERS,
    PLACEMENTS,
    RECORDED_AT,
    REJECTED_ORDERS,
    TABLES,
    Row,
    Rows,
    refuse_misfits,
)
from feedamp.warehouse.session import Session

log = logging.getLogger(__name__)
_OPEN_STATES = (PENDING, AWAITING_SHIPMENT)
Flagged = dict[str, frozenset[str]]


async def restore(resources: Resources, run: Run, found: FoundDifferences) -> StepResult:
    """Puts missing rows into the outbox and reads the differing orders from FeedAMP again; `load` does the rest.

    Every open order without a snapshot in the state is read again, too, since its snapshot may be lost or its seller may
    never have changed it. Rows of orders are recorded with the moment at which they became true, so that they never
    replace newer ones. If one seller fails, the others are still repaired. Sends no order. Safe to repeat.

    Raises:
        BusyError: another process holds the warehouse.
        ClientRefusedError: FeedAMP refuses the client; the rows that the state has are in the outbox.
    """
    result = StepResult("verify")
    written: Counter[str] = Counter()
    with resources.warehouse.session() as session:
        _restore_manifests(resources, session, found, result)
        _load_from_lake(resources, session, found, result)
        for seller_id in found.sellers():
            for batch in found.orders(seller_id):
                written.update(
                    _restore_orders(resources, run, session, found, seller_id, dict(batch), result)
                )
    for table, write_again in _WRITTEN_AGAIN.items():
        for differences in found.of_table(table):
            with resources.state.begin() as connection:
                keys = [difference.key for difference in differences]
                written[table] += write_again(connection, keys, resources.state.now())
    result.extra = {f"{table}_written": count for table, count in written.items() if count}
    await _read_again(resources, run, found, result)
    return result


def _restore_manifests(
    resources: Resources, session: Session, found: FoundDifferences, result: StepResult
) -> None:
    """Announces manifests that the state does not know, and loads those that the warehouse does not have."""
    paths: dict[str, list[str]] = {compare_manifests.UNKNOWN: [], compare_manifests.NOT_LOADED: []}
    for batch in found.of_table(compare_manifests.MANIFEST_DIFFERENCE):
        for difference in batch:
            if difference.what in paths:
                paths[difference.what].append(difference.key[0])
    for path in paths[compare_manifests.UNKNOWN]:
        with resources.state.begin() as connection:
            manifests.announce(connection, path, now=resources.state.now())
    for path in paths[compare_manifests.NOT_LOADED]:
        try:
            manifest = resources.lake.read_manifest(path)
            if manifest is not None:
                session.load(resources.lake, manifest, partial(record_refused, resources))
        except IncompleteError as error:
            result.notes.append(str(error))


def _load_from_lake(
    resources: Resources, session: Session, found: FoundDifferences, result: StepResult
) -> None:
    """Loads rows that only the lake has into the warehouse; they need not be read from FeedAMP.

    Rows that the ledger knows as well remain differences, because the lake may be older than the ledger. Placements are
    loaded again if any is missing, because the ledger knows only the last placement of an order.
    """
    lacking: dict[str, list[tuple[str, ...]]] = {}
    tables: set[str] = set()
    for table in TABLES:
        for batch in found.of_table(table):
            lacking.setdefault(table, []).extend(
                difference.key for difference in batch if difference.what == ONLY_IN_LAKE
            )
            if table == PLACEMENTS.name and any(WAREHOUSE in difference.what for difference in batch):
                tables.add(table)
    tables.update(found.in_lake())
    if not tables:
        return
    try:
        session.load_again(
            resources.lake,
            lambda manifest: any(file.table in tables for file in manifest.files),
            partial(record_refused, resources),
        )
    except IncompleteError as error:
        result.notes.append(str(error))
    for table, keys in lacking.items():
        found.drop(table, keys)


def _restore_orders(
    resources: Resources,
    run: Run,
    session: Session,
    found: FoundDifferences,
    seller_id: str,
    flagged: Flagged,
    result: StepResult,
) -> Counter[str]:
    """Writes placements, closures and orders of one seller from the warehouse, or from the state if it has none."""
    placements = _warehouse_rows(session, PLACEMENTS.name, seller_id, flagged)
    closures = _warehouse_rows(session, CLOSURES.name, seller_id, flagged)
    written: Counter[str] = Counter()
    with resources.state.begin() as connection:
        known = {
            fact.mp_order_number: fact
            for fact in completeness_facts.of_order_numbers(connection, seller_id, list(flagged))
        }
        bodies = ledger.read_many(connection, seller_id, known)
        for number, fact in known.items():
            order = bodies[number]
            if PLACEMENTS.name in flagged[number]:
                rows = _placements(run, fact, order, placements.get(number, []))
                written[PLACEMENTS.name] += _put(connection, result, {PLACEMENTS.name: rows})
            if CLOSURES.name in flagged[number]:
                rows = closures.get(number, [])
                written[CLOSURES.name] += _put(connection, result, {CLOSURES.name: rows})
            if ORDERS.name in flagged[number] and order.has_body and fact.placed_at is not None:
                for order_tables in _known_order_rows(connection, fact, order):
                    written[ORDERS.name] += _put(connection, result, order_tables)
    # Only the lake lacks these closures, so their units need not be read from FeedAMP.
    found.drop(CLOSURES.name, [(seller_id, number) for number in closures])
    return written


def _put(connection: Connection, result: StepResult, rows: Rows) -> int:
    """Puts the rows of one order into the outbox, all or none; returns 1 if they were written, else 0."""
    try:
        for table, table_rows in rows.items():
            refuse_misfits(table, table_rows)
    except MisfitError as error:
        result.notes.append(error.message)
        return 0
    for table, table_rows in rows.items():
        outbox.put(connection, table, table_rows)
    return 1


def _known_order_rows(connection: Connection, fact: LedgerFact, order: LedgerOrder) -> Iterator[Rows]:
    """Rows of the order as it was placed, then as the snapshot in the state shows it."""
    if fact.placed_at is None:
        return
    state = fact.accepted_state if fact.accepted_state in _OPEN_STATES else AWAITING_SHIPMENT
    placed = read_order(order.put_body(str(state)), Coercions())
    yield placed_rows(fact.seller_id, placed, placed_at=fact.placed_at)
    try:
        stored = open_orders.read(connection, *order.key) if fact.is_open else None
    except UnreadableError:
        stored = None  # the order is read again in any case
    if stored is not None:
        snapshot = stored.snapshot
        observed = msgspec.structs.replace(
            placed,
            status=snapshot.status,
            marketplace_state=snapshot.marketplace_state,
            acknowledged=snapshot.acknowledged,
            is_marketplace_fulfilled=snapshot.is_marketplace_fulfilled,
            fulfillments=snapshot.fulfillments,
            errors=snapshot.errors,
        )
        yield order_rows(fact.seller_id, observed, read_at=stored.read_at, is_repair=True)


def _warehouse_rows(session: Session, table: str, seller_id: str, flagged: Flagged) -> dict[str, list[Row]]:
    """The warehouse's rows of one table, by order number, for the orders flagged for that table."""
    columns = PLACEMENTS.names if table == PLACEMENTS.name else CLOSURES.names
    keys = [(seller_id, number) for number, tables in flagged.items() if table in tables]
    found: dict[str, list[Row]] = {}
    for row in session.rows(table, columns, keys):
        found.setdefault(row["mp_order_number"], []).append(row)
    return found


def _placements(run: Run, fact: LedgerFact, order: LedgerOrder, stored: Sequence[Row]) -> list[Row]:
    stored_states = {row["marketplace_state"] for row in stored}
    source = {"source": order.source, "source_row": order.source_row, "run_id": run.run_id}
    known = placements_to_restore(fact, has_any=bool(stored))
    return [
        *stored,
        *(
            {**row, **source, RECORDED_AT: row["placed_at"]}
            for row in known
            if row["marketplace_state"] not in stored_states
        ),
    ]


def _findings_again(connection: Connection, keys: Sequence[tuple[str, ...]], now: datetime) -> int:
    """Writes findings in their current state, recorded now, so that any later change is newer."""
    stored = [findings.read(connection, finding_id) for [finding_id] in keys]
    present = [finding for finding in stored if finding is not None]
    findings.write(connection, present, run_id=None, now=now)
    return len(present)


def _rejects_again(connection: Connection, keys: Sequence[tuple[str, ...]], now: datetime) -> int:
    found = rejects.find(connection, [(source, int(row), row_hash) for source, row, row_hash in keys])
    for rejected in found:
        rejects.write(connection, rejected, now=now)
    return len(found)


_WRITTEN_AGAIN = {
    FINDINGS.name: _findings_again,
    ORDER_EVENTS.name: lambda connection, keys, now: order_events.put_again(connection, keys),
    REJECTED_ORDERS.name: _rejects_again,
}


def give_up_missing(resources: Resources, found: FoundDifferences) -> list[str]:
    """Drops manifests that are missing from the lake; returns a note on the consequences of each.

    Rows that were only in them still count as differences, as long as the ledger or the warehouse has them.
    """
    kinds = (compare_manifests.GONE, compare_manifests.LEFT_OUT, compare_manifests.NEVER_LOADED)
    missing = [
        difference
        for batch in found.of_table(compare_manifests.MANIFEST_DIFFERENCE)
        for difference in batch
        if difference.what in kinds
    ]
    if missing and not resources.lake.published():
        return [
            "The lake had no manifest at all, so none is given up yet. If [feedamp] lake_url is right, run the command once more."
        ]
    notes = []
    for difference in missing:
        [path] = difference.key
        note = f"Manifest {path} is missing from the lake and is given up. "
        if difference.what in (compare_manifests.LEFT_OUT, compare_manifests.NEVER_LOADED):
            moved = give_up_manifest(resources, path)
            lost = (
                "`runs`"
                if difference.what == compare_manifests.NEVER_LOADED
                else "`runs` and `reconciliations`"
            )
            note += (
                f"The watermarks of {counted(moved, 'seller')} are moved back, so that the next feedamp_extract_fulfillments reads "
                f"its orders again. Its rows of {lost} are lost. Orders that an extraction with `since` or `feedamp adopt` "
                "read are not read again: start those again."
            )
        else:
            with resources.state.begin() as connection:
                manifests.drop(connection, path)
            note += (
                "Orders that only it contained are read from FeedAMP again. The warehouse keeps its rows of `runs` and "
                "`reconciliations`, but a rebuild will not have them."
            )
        notes.append(f"{note} If the file is restored, run `feedamp lake verify --repair` once more.")
    return notes


async def _read_again(resources: Resources, run: Run, found: FoundDifferences, result: StepResult) -> None:
    differing = set(found.sellers())
    with resources.state.read() as connection:
        registered = sellers.find(connection)
        without_snapshot = {
            seller.seller_id: completeness_facts.open_without_snapshot(connection, seller.seller_id)
            for seller in registered
        }
    ready = []
    for seller in registered:
        if not without_snapshot[seller.seller_id] and seller.seller_id not in differing:
            continue
        if seller.blocked_by:
            result.failed_sellers.add(seller.seller_id)
            result.add_warning(seller.seller_id, f"orders are not read again: {seller.blocked_briefly}")
        else:
            ready.append(seller)

    async def work(seller: Seller, clients: Clients) -> None:
        reader = _Rereader(resources, run, result, await clients.client(seller))
        done: set[str] = set()
        for batch in found.orders(seller.seller_id):
            flagged = dict(batch)
            for numbers in chunks_of_numbers(flagged):
                await reader.read(numbers, flagged)
            done |= flagged.keys() & set(without_snapshot[seller.seller_id])
        remaining = (number for number in without_snapshot[seller.seller_id] if number not in done)
        for numbers in chunks_of_numbers(remaining):
            await reader.read(numbers, {})

    await run_per_seller(resources, run, result, ready, work, is_recorded=False)
    result.notes += decide_refusals(resources.state, run)


class _Rereader(SellerJob):
    async def read(self, numbers: list[str], flagged: Flagged) -> None:
        """Reads the orders of one request and writes their rows; `flagged` says which of them lack their closure."""
        fresh = await self._read_by_number(numbers)
        with self._state.read() as connection:
            known = ledger.read_many(connection, self._seller_id, numbers)
        confirmed = [
            await self._confirmed(order, at, known.get(order.mp_order_number)) for order, at in fresh
        ]
        self._write([read for read in confirmed if read is not None], flagged)

    async def _confirmed(
        self, order: Order, read_at: datetime, known: LedgerOrder | None
    ) -> ReadOrder | None:
        """The order and when it was read; None if the ledger has it as closed but FeedAMP as open.

        Lists may lag, so an order that is closed in the ledger but open in a list is read alone.
        """
        if known is None or known.phase != Phase.CLOSED or order.marketplace_state not in _OPEN_STATES:
            return ReadOrder(order, read_at)
        read = await fetch_again(self._client, UnreadableOrder(order.mp_order_number, None))
        if isinstance(read, UnreadableOrder) or read.order.marketplace_state in _OPEN_STATES:
            self._warn(
                f"order {order.mp_order_number} is closed in the ledger but open at FeedAMP; reconcile it"
            )
            return None
        return read

    def _write(self, confirmed: Iterable[ReadOrder], flagged: Flagged) -> None:
        orders = list(confirmed)
        if not orders:
            return
        with self._state.begin() as connection:
            keys = [(self._seller_id, read.order.mp_order_number) for read in orders]
            erased = self._resources.erased(connection, keys)
            orders = [read for read in orders if not erased.has(self._seller_id, read.order.mp_order_number)]
            numbers = [order.mp_order_number for order, _ in orders]
            fact_by_number = {
                fact.mp_order_number: fact
                for fact in completeness_facts.of_order_numbers(connection, self._seller_id, numbers)
            }
            known = ledger.read_many(connection, self._seller_id, numbers)
            for order, read_at in orders:
                number, snapshot = order.mp_order_number, order.snapshot()
                rows = order_rows(self._seller_id, order, read_at=read_at, is_repair=True)
                if not _put(connection, self._result, rows):
                    continue
                run_id = self._run.run_id
                open_orders.keep_open(connection, self._seller_id, [(snapshot, read_at)], run_id=run_id)
                self._count(orders=1)
                fact = fact_by_number.get(number)
                if fact is None or CLOSURES.name not in flagged.get(number, ()):
                    continue
                if fact.closed_by_us and fact.closed_at is not None:
                    closure = closure_row(known[number], snapshot, run_id=run_id)
                    rows = {CLOSURES.name: [{**closure, RECORDED_AT: fact.closed_at}]}
                    _put(connection, self._result, rows)
